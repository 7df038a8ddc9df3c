"""Promises of the report: figures by hand, texts of others shown as text, and what is missing or damaged is told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sdar.compare.records import read_run
from sdar.compare.reporting import drawing
from sdar.compare.reporting.app import main
from sdar.compare.reporting.bands import interval_band, range_band, thinned
from sdar.compare.reporting.events import read_scalars
from sdar.compare.reporting.history import read_history
from sdar.run.folder import read_record
from toys.events import record, write_events
from toys.runs import make_run, results, row

RATES = {"grpo": [(20, 30), (20, 40), (20, 50)], "sdar": [(20, 40), (20, 44), (20, 66)]}
"""Method -> seed -> solved of 100 at iteration 2 and after training, with 10 before."""
GAPS = {"grpo": {}, "sdar": {0: -0.4, 1: -0.2, 2: -0.1, 3: -0.1}}
WHERE = {
    "curriculum/by_advantage/positive/gap_mean": -0.03,
    "curriculum/by_advantage/negative/gap_mean": 0.01,
    "curriculum/by_part/thought/gap_mean": 0.02,
    "curriculum/by_part/action/gap_mean": -0.25,
    "curriculum/by_part/action/open_fraction": 0.125,
}
COSTS = {
    "grpo": {
        "tokens_played": 100.0,
        "tokens_scored": 200.0,
        "tokens_teacher": 0.0,
        "tokens_learned": 50.0,
        "flops": 6e9,
    },
    "sdar": {
        "tokens_played": 100.0,
        "tokens_scored": 200.0,
        "tokens_teacher": 90.0,
        "tokens_learned": 50.0,
        "flops": 9e9,
    },
}


def evaluations(middle: int, after: int) -> list[dict[str, Any]]:
    points = [(0, 10, 50), (2, middle, 55), (4, after, 60)]
    return [
        {"iterations": iteration, "seconds": 0.0, **row(name, solved)}
        for iteration, alone, helped in points
        for name, solved in (("val", alone), ("val_with_skills", helped))
    ]


def make(logs: Path, method: str, seed: int, command: Sequence[str] | None = None, **changes: Any) -> Path:
    """A finished run of four iterations."""
    middle, after = RATES[method][seed]
    outcome = results(10, after, iterations=4, **changes)
    outcome["evaluations"] = evaluations(middle, after)
    for one in outcome["results"]:
        one["by_type"] = {"heat": {"n": 40, "successes": one["successes"] // 2}}
    folder = make_run(logs, [f"algorithm={method}", f"seed={seed}"], outcome)
    found = json.loads((folder / "run.json").read_text())
    found["command"] = list(command or ["sdar", "train", f"algorithm={method}", f"seed={seed}", "threads=1"])
    (folder / "run.json").write_text(json.dumps(found))
    seconds = {"generate": 3.0, "environment": 1.0, "score": 2.0, "update": 4.0}
    write_events(
        folder / "tensorboard",
        {
            "rollout/entropy": {step: 0.5 - 0.1 * step for step in range(4)},
            "throughput/tokens_per_s": dict.fromkeys(range(4), 50.0 + 10 * seed),
            **{f"time/{part}_s": dict.fromkeys(range(4), value) for part, value in seconds.items()},
            **({"curriculum/gap_mean": GAPS[method]} if GAPS[method] else {}),
            **({"curriculum/by_turn/gap_mean/08+": GAPS[method]} if GAPS[method] else {}),
            **({tag: dict.fromkeys(range(4), value) for tag, value in WHERE.items()} if GAPS[method] else {}),
            **{f"cost/{name}": dict.fromkeys(range(4), value) for name, value in COSTS[method].items()},
        },
    )
    return folder


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Two methods on three seeds."""
    for method in RATES:
        for seed in range(3):
            make(tmp_path / "logs", method, seed)
    return tmp_path / "logs"


def report(*arguments: object) -> tuple[str, str]:
    """The Markdown and the page."""
    assert main([*map(str, arguments), "out=out"]) == 0
    return Path("out/report.md").read_text(), Path("out/report.html").read_text()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take most of the time."""
    monkeypatch.setattr(drawing, "can_draw", lambda: False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(text: str, *beginning: str) -> list[list[str]]:
    """The rows of Markdown tables that begin with these cells, without them."""
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [cells[len(beginning) :] for cells in found if cells[: len(beginning)] == list(beginning)]


@pytest.mark.usefixtures("undrawn")
def test_the_figures_are_those_by_hand(six: Path) -> None:
    text, _ = report(six)
    # 10, 4 and 16 points: mean 10, deviation 6, so 4.302653 * 6 / sqrt(3) to either side
    assert "sdar minus grpo, without skills: +10.0 points (95 % interval -4.9 to +24.9; 3 pairs)" in text
    assert rows_of(text, "sdar", "without skills", "0") == [["+10.0"]]
    assert rows_of(text, "sdar", "without skills", "2") == [["+16.0"]]
    assert ["10.0", "20.0", "50.0"] in rows_of(text, "sdar")  # over the iterations
    assert ["-40.0", "-35.0", "-10.0"] in rows_of(text, "sdar")  # internalisation
    assert rows_of(text, "Mean gap, teacher minus student, nats") == [["sdar", "-0.400", "-0.100"]]
    assert rows_of(text, "Entropy of sampling, nats per token", "grpo") == [["0.500", "0.200"]]
    assert ["-0.200"] in rows_of(text, "sdar")  # turn 8+
    assert rows_of(text, "grpo", "heat")[0][:2] == ["15/120 (12 %)", "60/120 (50 %)"]
    # 50, 60 and 70 tokens/s over 10 s in each of 4 iterations
    assert rows_of(text, "grpo", "2,400") == [["12.0", "4.0", "8.0", "16.0", "-", "-", "4"]]
    assert rows_of(text, "grpo", "400") == [["800", "0", "200", "2.40e+10", "1.00"]]
    assert rows_of(text, "sdar", "400") == [["800", "360", "200", "3.60e+10", "1.50"]]
    assert "FLOPs are an estimate" in text
    assert rows_of(text, "sdar", "-0.030") == [["+0.010", "-"]]
    assert rows_of(text, "sdar", "+0.020") == [["-0.250", "-", "-", "-", "12.5%", "-", "-"]]
    assert "Nothing is missing" in text
    assert "sdar train algorithm=sdar seed=2 threads=1" in text
    assert "Training tasks: 960, content hash " + "t" * 64 in text


@pytest.mark.usefixtures("undrawn")
def test_runs_that_counted_no_tokens_have_no_flops(six: Path) -> None:
    for folder in six.iterdir():
        for file in (folder / "tensorboard").iterdir():
            file.unlink()
        write_events(folder / "tensorboard", {"time/update_s": {0: 1.0}})
    text, _ = report(six)
    assert "FLOPs are not known" in text
    assert "advantage positive" not in text


class _Page(HTMLParser):
    """What a browser would fetch, run, or find twice; and tags that are closed in another order than opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: dict[str, int] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in ("meta", "wbr", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "xlink:href", "src", "srcset", "action", "data"):
                (self.links if (value or "").startswith("#") else self.fetched).append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(six: Path) -> None:
    text, html = report(six)
    page = _Page(html)
    assert {one[:22] for one in page.fetched} == {"data:image/png;base64,"}  # the map of turns
    assert "script" not in page.tags
    assert "url(http" not in html
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    pictures = re.findall(r"!\[.*\]\((.*\.svg)\)", text)
    assert page.tags["svg"] == len(pictures) >= 8
    for picture in pictures:
        assert ElementTree.parse(Path("out") / picture).getroot().tag.endswith("svg")


def test_pictures_are_the_same_for_the_same_runs(six: Path) -> None:
    assert report(six) == report(six)


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "\x1b[31mred\u202e", "$\\frac$ | `x` [a](b)"],
)
def test_what_others_wrote_is_shown_as_text(tmp_path: Path, hostile: str) -> None:
    for method in RATES:
        folder = make(tmp_path / "logs", method, 0, ["sdar", "train", f"model.name={hostile}{method}"])
        outcome = json.loads((folder / "results.json").read_text())
        if hostile.isprintable():
            for one in outcome["results"]:
                one["by_type"] = {hostile: {"n": 4, "successes": 1}}
        (folder / "results.json").write_text(json.dumps(outcome))
    text, html = report(tmp_path / "logs")
    page = _Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert "\x1b" not in html + text
    assert "\u202e" not in html + text
    assert "<script" not in re.sub(r"(?m)^    .*$", "", text)  # indented lines are shown as they are


def test_a_very_long_text_is_cut(tmp_path: Path) -> None:
    make(tmp_path / "logs", "sdar", 0, ["sdar", "train", "model.name=" + "x" * 1_000_000])
    text, html = report(tmp_path / "logs")
    assert len(text) < 50_000
    assert "x" * 5000 not in html


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_run_is_told(six: Path) -> None:
    grpo = six / "run-2"
    (grpo / "results.json").unlink()
    (grpo / "state.json").write_text('{"iteration": 3, "of": 4}')
    alone = six / "run-3"
    outcome = json.loads((alone / "results.json").read_text())
    outcome["results"] = [one for one in outcome["results"] if "with skills" not in one["name"]]
    outcome["evaluations"] = []
    (alone / "results.json").write_text(json.dumps(outcome))
    text, _ = report(six)
    assert "run-2 is not finished (3 of 4 iterations)." in text
    assert "grpo: no finished run of seed 2." in text
    assert "sdar: not evaluated with skills (seed 0)." in text
    assert "sdar: the panel was not played in between (seed 0)." in text
    assert "Nothing is missing" not in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("run.json", "{", "run.json is damaged"),
        ("run.json", "[]", "run.json is damaged"),
        ("results.json", '{"results": 5}', "its results are damaged"),
        ("config.yaml", "a: [", "its settings cannot be read"),
        ("config.yaml", "{}", "its settings cannot be read"),
    ],
)
def test_a_damaged_folder_costs_a_sentence(
    six: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, told: str
) -> None:
    (six / "run-5" / file).write_text(content)
    text, _ = report(six, "nowhere")
    assert told in text
    assert told in capsys.readouterr().err
    assert "nowhere is no folder." in text
    assert "2 pairs" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("content", [b"", b"no events at all, but long enough", b"\xff" * 40, b"\x05" + b"\0" * 11])
def test_damaged_curves_leave_the_other_figures(six: Path, content: bytes) -> None:
    next((six / "run-0" / "tensorboard").iterdir()).write_bytes(content)
    text, _ = report(six)
    assert "grpo: no curves of training were found (seed 0)." in text
    assert "3 pairs" in text


def test_runs_on_another_panel_are_shown_apart(six: Path) -> None:
    other = make(six, "sdar", 0, panel="q" * 64)
    text, _ = report(six)
    assert "The runs are of 2 kinds that cannot be compared with one another" in text
    assert "These runs differ from those of 1 in: panel." in text
    assert "+10.0 points (95 % interval -4.9 to +24.9; 3 pairs)" in text
    assert other.name in text
    assert Path("out/pictures/2-val.svg").exists()


@pytest.mark.usefixtures("undrawn")
def test_of_equal_runs_the_newest_counts(six: Path) -> None:
    again = make(six, "sdar", 0)
    found = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(found | {"started": "2030-01-01T00:00:00"}))
    text, _ = report(six)
    assert f"run-3: {again.resolve()} is a newer run of the same settings and seed." in text
    assert "3 pairs" in text


@pytest.mark.usefixtures("undrawn")
def test_methods_are_named_by_what_differs(tmp_path: Path) -> None:
    for name in ("gate.beta=2", "gate.beta=3"):
        command = ["sdar", "train", "algorithm=sdar", name, "seed=0", "logs_dir=x"]
        folder = make(tmp_path / "logs", "sdar", 0, command)
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("beta: 5.0", f"beta: {name[-1]}.0"))
    text, _ = report(tmp_path / "logs")
    assert "gate.beta=3 minus gate.beta=2" in text


@pytest.mark.usefixtures("undrawn")
def test_a_continued_run_is_one_curve(six: Path, tmp_path: Path) -> None:
    for file in (six / "run-3" / "tensorboard").iterdir():
        file.unlink()
    write_events(six / "run-3" / "tensorboard", {"curriculum/gap_mean": {2: -0.1, 3: -0.1}})
    earlier = make(tmp_path / "elsewhere", "sdar", 0)
    found = json.loads((six / "run-3" / "run.json").read_text())
    found["resumed_from"] = str(earlier / "checkpoints" / "last.ckpt")
    (six / "run-3" / "run.json").write_text(json.dumps(found))
    text, _ = report(six)
    assert rows_of(text, "Mean gap, teacher minus student, nats") == [["sdar", "-0.400", "-0.100"]]


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_went_on_from_an_earlier_iteration_has_none_of_the_later_ones(six: Path, tmp_path: Path) -> None:
    """The run it left had gone further."""
    folder = six / "run-3"
    for file in (folder / "tensorboard").iterdir():
        file.unlink()
    write_events(folder / "tensorboard", {"curriculum/gap_mean": {1: -0.2, 2: -0.1}})
    earlier = make(tmp_path / "elsewhere", "sdar", 0)
    write_events(earlier / "tensorboard", {"curriculum/gap_mean": {0: -0.5, 1: -0.4, 3: -9.0, 4: -9.0}})
    found = json.loads((folder / "run.json").read_text())
    found["resumed_from"] = str(earlier / "checkpoints" / "best.ckpt")
    (folder / "run.json").write_text(json.dumps(found))
    record = read_record(folder / "run.json")
    assert record is not None
    run = read_run(folder, record)
    assert run is not None
    curve = read_history(run).scalars["curriculum/gap_mean"]
    assert max(curve) == 2
    assert curve[2] == pytest.approx(-0.1)
    assert 0 in curve  # of the run it left


def test_without_matplotlib_there_are_tables_and_a_sentence(
    six: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    text, html = report(six)
    assert "they need matplotlib, pip install 'sdar" in text
    assert "sdar[plot]" in capsys.readouterr().err
    assert "<svg" not in html
    assert "3 pairs" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "RUN must be one or more folders of finished runs, got none: empty is no folder."),
        (["logs", "out="], "out must be a folder, got nothing"),
        (["logs", "out=file"], "must be a writable directory"),
        (["--out", "x"], "there is no option --out"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    six: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    Path("file").write_text("")
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_events_of_several_files_are_one_and_the_last_word_counts(tmp_path: Path) -> None:
    write_events(tmp_path, {"time/a": {0: 1.0, 1: 2.0}, "loss/x": {0: 9.0}})
    last = write_events(tmp_path, {"time/a": {1: 3.0, 2: float("nan"), 3: 4.0}}, number=1)
    whole = last.read_bytes()
    last.write_bytes(whole + record(b"\0" * 50_000) + whole[:-10])  # a picture, and a run that was stopped
    assert read_scalars(tmp_path, ["time/"]) == ({"time/a": {0: 1.0, 1: 3.0, 3: 4.0}}, [])


def test_bands_surround_their_mean() -> None:
    curves: list[Mapping[int, float]] = [{0: 1.0, 1: 4.0}, {0: 2.0}, {0: 3.0}]
    around = range_band(curves)
    assert (around.steps, around.mean, around.low, around.high) == ((0, 1), (2.0, 4.0), (1.0, 4.0), (3.0, 4.0))
    interval = interval_band(curves)
    assert interval.high[0] - 2.0 == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert interval.low[1] != interval.low[1]  # one seed has no interval


def test_long_curves_are_thinned_to_means() -> None:
    whole = {step: float(step % 10) for step in range(1001)}
    (curve,) = thinned([whole], most=101)
    assert len(curve) == 101
    assert curve.pop(0) == 0.0
    assert set(curve.values()) == {4.5}


def test_a_curve_of_few_points_is_not_moved() -> None:
    panels = {step: step / 1000 for step in range(0, 1001, 25)}
    assert thinned([panels]) == [panels]


@pytest.mark.parametrize("every", [1, 5, 7])
def test_thinned_curves_keep_their_start_and_lie_where_their_values_were(every: int) -> None:
    curves = [{step: step + offset for step in range(0, 2000, every)} for offset in (0.0, 0.5)]
    for curve, offset in zip(thinned(curves), (0.0, 0.5), strict=True):
        assert len(curve) <= 150
        assert curve[0] == offset
        assert max(curve) < 2000
        assert all(abs(value - offset - step) <= 1 for step, value in curve.items())


@pytest.mark.usefixtures("undrawn")
def test_runs_with_other_skills_in_the_same_files_are_another_method(six: Path) -> None:
    for number in (4, 5):
        record = six / f"run-{number}" / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"skills_hash": "edited"}))
    text, _ = report(six)
    assert len(re.findall(r"sdar \(\w{6}\): no finished run of seed", text)) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_run_whose_panel_ended_by_errors_is_compared_with_no_other(six: Path) -> None:
    results = six / "run-3" / "results.json"
    outcome = json.loads(results.read_text())
    for one in outcome["results"]:
        one["errors"] = 4
    results.write_text(json.dumps(outcome))
    text, _ = report(six)
    assert "of 'warm start' ended by errors, so it is not compared with others." in text
    assert "2 pairs" in text
    alone, _ = report(six / "run-3")
    assert "ended by errors and are in no figure" in " ".join(alone.split())
