"""What TensorBoard shows of a run, read back from its event files."""

from __future__ import annotations

import logging
import math
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata as hparams

from sdar.callbacks.board.baselines import tell_baselines
from sdar.callbacks.board.board import Board
from sdar.callbacks.board.card import run_card
from sdar.callbacks.board.heat_map import GAP, STRONG
from sdar.callbacks.board.histograms import histograms
from sdar.callbacks.board.hparams import METRICS
from sdar.callbacks.board.layout import layout
from sdar.callbacks.board.record import RunRecord
from sdar.callbacks.board.text import LONGEST
from sdar.callbacks.tensorboard import Curves
from sdar.episode import EndReason
from sdar.errors import UserError
from sdar.evaluation.result import EvaluationResult, TaskRecord
from sdar.objective.gate import GapGate
from sdar.objective.tokens import DistillationTokens
from sdar.run.continuing import take_curves
from toys.boards import read, text, trained
from toys.runs import settings_of
from toys.training import Memory

METRICS_PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Memory, Any]:
    folder = tmp_path_factory.mktemp("run")
    memory = trained(folder, 3)
    return folder, memory, read(folder)


def test_the_scalars_are_those_of_the_metrics_and_no_others(run: tuple[Path, Memory, Any]) -> None:
    _, memory, events = run
    logged = {tag for metrics in memory.steps.values() for tag in metrics}
    assert {tag for tag in events.Tags()["scalars"] if not tag.startswith("at_a_glance/")} == logged
    assert [event.step for event in events.Scalars("loss/total")] == [0, 1, 2]


def test_tensorboard_opens_on_success_and_curriculum(run: tuple[Path, Memory, Any]) -> None:
    """Its first page has the groups in the order of their names."""
    _, memory, events = run
    tags = events.Tags()
    first = sorted({tag.partition("/")[0] for kind in ("scalars", "histograms") for tag in tags[kind]})[0]
    shown = sorted(tag for tag in tags["scalars"] if tag.startswith(f"{first}/"))
    assert shown == ["at_a_glance/endorsed_by_the_teacher", "at_a_glance/success_rate_in_training"]
    for step, event in enumerate(events.Scalars(shown[1])):
        assert event.value == pytest.approx(memory.steps[step]["rollout/success_rate"])


def test_texts_histograms_layout_and_table_are_there(run: tuple[Path, Memory, Any]) -> None:
    _, _, events = run
    tags = events.Tags()
    assert set(tags["histograms"]) == {"curriculum/open_gap", "curriculum/open_gate"}
    assert {"run/card", "custom_scalars__config__"} < set(tags["tensors"])
    shown = [tag for tag in tags["tensors"] if tag.startswith("episodes/")]
    assert shown
    assert {event.step for tag in shown for event in events.Tensors(tag)} == {0, 2}
    assert "1. It said (advantage" in text(events, shown[0])
    page = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [category.title for category in page.category] == ["success", "what the teacher thinks", "health", "cost"]
    content = events.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
    row = hparams.parse_session_start_info_plugin_data(content)
    assert row.hparams["00 method"].string_value == "sdar"
    assert row.hparams["05 gate"].string_value == "GapGate"
    assert row.hparams["06 beta"].number_value == 7
    assert row.hparams["03 differs"].string_value == "gate.beta=7"
    assert row.group_name.startswith("sdar - alfworld - seed 3 - gate.beta=7 - 2026-01-01")
    content = events.SummaryMetadata(hparams.SESSION_END_INFO_TAG).plugin_data.content
    assert hparams.parse_session_end_info_plugin_data(content).status == 1  # STATUS_SUCCESS


def test_pictures_and_lists_of_tokens_are_there_when_they_are_due(run: tuple[Path, Memory, Any]) -> None:
    events = run[2]
    shown = [tag for tag in events.Tags()["images"] if "tokens" in tag]
    assert set(events.Tags()["images"]) == {GAP, STRONG, *shown}
    assert shown
    for tag in (GAP, STRONG):
        assert [event.step for event in events.Images(tag)] == [0, 2]
    assert {event.step for tag in shown for event in events.Images(tag)} == {0, 2}
    assert [event.step for event in events.Tensors("curriculum/tokens")] == [0, 1, 2]
    assert text(events, "curriculum/tokens", 1).startswith("**Iteration 1: ")


def test_the_last_picture_of_turns_has_all_iterations(tmp_path: Path) -> None:
    trained(tmp_path, 2, board=Board(0, 0, 5, 0))
    events = read(tmp_path)
    assert [event.step for event in events.Images(GAP)] == [0, 1]
    assert {event.step for tag in events.Tags()["images"] if "tokens" in tag for event in events.Images(tag)} == {0}
    assert "curriculum/tokens" not in events.Tags()["tensors"]
    assert events.Tags()["histograms"] == []


def test_histograms_hold_the_tokens_of_which_the_teacher_has_an_opinion(run: tuple[Path, Memory, Any]) -> None:
    _, memory, events = run
    found = {event.step: event.histogram_value for event in events.Histograms("curriculum/open_gap")}
    assert sorted(found) == [0, 2]
    for step, histogram in found.items():
        metrics = memory.steps[step]
        share = metrics["curriculum/endorsed_fraction"] + metrics["curriculum/rejected_fraction"]
        endorsed = sum(
            count for limit, count in zip(histogram.bucket_limit, histogram.bucket, strict=True) if limit > 0.01
        )
        assert sum(histogram.bucket) == histogram.num
        assert endorsed / histogram.num == pytest.approx(metrics["curriculum/endorsed_fraction"] / share, abs=0.02)


def test_a_histogram_counts_what_lies_outside_in_its_last_bins_and_leaves_out_what_is_neutral() -> None:
    gaps = torch.tensor([0.0, 0.009, -0.009, 0.5, -0.5, 1.0, 30.0, -30.0])
    gap, gate = (
        summary.value[0].histo for summary in histograms(DistillationTokens(torch.zeros(8), gaps), GapGate(beta=1.0))
    )
    kept = [(limit, count) for limit, count in zip(gap.bucket_limit, gap.bucket, strict=True) if count]
    assert [count for _, count in kept] == [1] * 5
    assert [limit for limit, _ in kept] == pytest.approx([-1.95, -0.45, 0.55, 1.05, 2.0])
    assert (gap.min, gap.max, gap.sum) == (-2, 2, 1)
    assert gate.sum == pytest.approx(sum(1 / (1 + math.exp(-x)) for x in (0.5, -0.5, 1.0, 30.0, -30.0)), rel=1e-5)
    assert histograms(DistillationTokens(torch.zeros(2), torch.zeros(2)), GapGate()) == []


def test_the_card_says_how_the_run_was_started_and_what_is_not_as_usual(run: tuple[Path, Memory, Any]) -> None:
    card = text(run[2], "run/card")
    assert "sdar train algorithm=sdar seed=3 gate.beta=7" in card
    assert re.search(r"^    gate\.beta +7 +\(5\.0\)$", card, re.MULTILINE)
    assert re.search(r"^    seed +3 +\(1\)$", card, re.MULTILINE)
    assert re.search(r"^    torch \d", card, re.MULTILINE)
    assert "learning_rate" not in card  # as usual


def test_a_card_is_bounded_whatever_the_settings_hold(tmp_path: Path) -> None:
    settings = settings_of() | {f"setting{i}": "x" * 100_000 for i in range(500)}
    card = run_card(RunRecord(settings, {"command": ["a"] * 100_000, "changed": {"a": "y" * 10**6}}))
    assert len(card) < 1.2 * LONGEST
    assert len(RunRecord(settings, {"command": [f"a{i}=1" for i in range(1000)]}).title) <= 120


def test_without_a_teacher_there_is_nothing_of_it(tmp_path: Path) -> None:
    trained(tmp_path, 1, teacher=False)
    events = read(tmp_path)
    assert events.Tags()["histograms"] == events.Tags()["images"] == []
    assert "curriculum/tokens" not in events.Tags()["tensors"]
    page = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [category.title for category in page.category] == ["success", "health", "cost"]


def test_a_continued_run_has_the_texts_histograms_and_pictures_of_both_parts(
    run: tuple[Path, Memory, Any], tmp_path: Path
) -> None:
    whole = run[2]
    first, second = tmp_path / "first", tmp_path / "second"
    trained(first, 1)
    checkpoint = first / "checkpoints" / "last.ckpt"
    take_curves(checkpoint, second, datetime.now().timestamp())
    trained(second, 3, ckpt_path=checkpoint)
    events = read(second)
    for tag in whole.Tags()["histograms"]:
        assert [(e.step, list(e.histogram_value.bucket)) for e in events.Histograms(tag)] == [
            (e.step, list(e.histogram_value.bucket)) for e in whole.Histograms(tag)
        ]
    for tag in whole.Tags()["images"]:
        assert [(e.step, e.encoded_image_string) for e in events.Images(tag)] == [
            (e.step, e.encoded_image_string) for e in whole.Images(tag)
        ]
    for tag in (tag for tag in whole.Tags()["tensors"] if tag.startswith(("episodes/", "curriculum/"))):
        assert [(e.step, e.tensor_proto.string_val) for e in events.Tensors(tag)] == [
            (e.step, e.tensor_proto.string_val) for e in whole.Tensors(tag)
        ]
    assert [event.step for event in events.Tensors("run/card")] == [0, 1]
    assert "Continued from" in text(events, "run/card", 1)
    assert len(set(events.Tags()["tensors"])) == len(set(whole.Tags()["tensors"]))


def test_what_cannot_be_written_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with caplog.at_level(logging.WARNING, "sdar"):
        memory = trained(tmp_path, 2)
    assert sorted(memory.steps) == [0, 1]
    assert caplog.text.count("the log of TensorBoard cannot be written") == 1


@pytest.mark.parametrize("name", ["histograms", "heat_maps", "token_picture"])
def test_a_defect_of_a_picture_ends_no_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in a picture")

    monkeypatch.setattr(f"sdar.callbacks.board.board.{name}", broken)
    with caplog.at_level(logging.WARNING, "sdar"):
        memory = trained(tmp_path, 3)
    assert sorted(memory.steps) == [0, 1, 2]
    assert caplog.text.count("ZeroDivisionError: in a picture") == 1
    events = read(tmp_path)
    assert bool(events.Tags()["histograms"]) == (name != "histograms")
    assert (GAP in events.Tags()["images"]) == (name != "heat_maps")


def test_without_pillow_there_are_no_pictures_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with caplog.at_level(logging.WARNING, "sdar"):
        trained(tmp_path, 3)
    assert caplog.text.count("TensorBoard shows no pictures: they need the package pillow") == 1
    events = read(tmp_path)
    assert events.Tags()["images"] == []
    assert events.Tags()["histograms"]


@pytest.mark.parametrize("teacher", [True, False])
def test_every_curve_of_the_layout_and_the_table_is_a_metric(run: tuple[Path, Memory, Any], teacher: bool) -> None:
    """One that a run with a teacher logs, or that the page of metrics names."""
    logged = {tag for metrics in run[1].steps.values() for tag in metrics}
    charts = [
        chart
        for category in layout(teacher=teacher, with_skills=teacher, measured=teacher).category
        for chart in category.chart
    ]
    patterns = [tag for chart in charts for tag in chart.multiline.tag] + [f"{re.escape(tag)}$" for tag in METRICS]
    patterns += [
        f"{re.escape(tag)}$"
        for chart in charts
        for series in chart.margin.series
        for tag in (series.value, series.lower, series.upper)
    ]
    documented = set(re.findall(r"`([\w/]+)`", METRICS_PAGE))
    documented |= {tag.replace("val/", "val_with_skills/") for tag in documented}  # "(and with skills)"
    for pattern in patterns:
        assert any(re.match(pattern, tag) for tag in logged | documented), pattern


def test_agents_that_do_not_learn_are_lines_beside_the_panel(tmp_path: Path) -> None:
    def result(name: str, successes: int) -> EvaluationResult:
        return EvaluationResult(name, tuple(outcome(i < successes) for i in range(4)))

    def outcome(success: bool) -> TaskRecord:
        end = EndReason.SUCCESS if success else EndReason.TURN_LIMIT
        return TaskRecord("a", "a", success, end, 1, 0.0)

    curves = Curves(str(tmp_path), version="tensorboard")
    tell_baselines([curves], [result("random admissible agent", 1), result("expert", 4), EvaluationResult("x", ())])
    for step in (0, 10):
        curves.log_metrics({"val/success_rate": 0.5}, step)
    curves.log_metrics({"rollout/success_rate": 0.5}, 11)
    curves.finalize("success")
    events = read(tmp_path)
    random, expert = "val/baseline/random_admissible_agent", "val/baseline/expert"
    assert [(event.step, event.value) for event in events.Scalars(random)] == [(0, 0.25), (10, 0.25)]
    assert [event.value for event in events.Scalars(expert)] == [1, 1]
    assert set(curves.baselines) == {random, expert}
    page = layout(teacher=True, with_skills=True, measured=False, lines=[expert, random])
    series = page.category[0].chart[0].margin.series
    assert [one.value for one in series] == ["val/success_rate", "val_with_skills/success_rate", expert, random]
    assert series[2].lower == series[2].upper == expert


def test_the_last_panel_is_shown_first_until_the_next_one(tmp_path: Path) -> None:
    """A curve of five points is smoothed and cropped until nothing is left of it."""
    curves = Curves(str(tmp_path), version="tensorboard")
    curves.log_metrics({"rollout/success_rate": 0.1}, 0)
    for step, rate in ((1, 0.2), (4, 0.5)):
        curves.log_metrics({"val/success_rate": rate}, step)
        for iteration in range(step, step + 3):
            curves.log_metrics({"rollout/success_rate": 0.3}, iteration)
    curves.finalize("success")
    shown = [(event.step, round(event.value, 3)) for event in read(tmp_path).Scalars("at_a_glance/success_rate")]
    assert shown == [(1, 0.2), (2, 0.2), (3, 0.2), (4, 0.5), (5, 0.5), (6, 0.5)]
    assert [event.step for event in read(tmp_path).Scalars("val/success_rate")] == [1, 4]


def test_an_interval_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"Board: episodes_every_n_iterations must be a whole number >= 0, got -1"):
        Board(episodes_every_n_iterations=-1)
