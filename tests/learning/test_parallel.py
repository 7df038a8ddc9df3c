"""Promises of runs on several processes: two on this machine (gloo, CPU), all cases in one start of them."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from parallel_run import (
    ANALYZED,
    BY_ROWS,
    METHODS_TO_SHARE,
    PRECISIONS,
    RECORDED,
    SETTINGS,
    STRATEGIES,
    SUPERVISED,
    Curve,
    fit,
    record,
    two_layers,
)

from sdar.commands.train import main
from sdar.policy.checkpoint import load_student
from toys.fake_vllm_server import serving
from toys.models import save_tiny
from toys.training import HintTeacher, toy_module

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
WHOLE = ("cost/tokens_teacher", "cost/flops")
"""Larger under FSDP2, which computes the teacher's rows whole, where others compute what rows share once."""


def two_processes(script: Path, *arguments: str, folder: Path, anew: Callable[[], object] = lambda: None) -> None:
    """Run a script under torchrun in the folder that it writes to; its output is shown when it fails.

    ``anew`` is called where it has to be run once more, after what it left in the folder was removed.
    """
    before = set(folder.iterdir())
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for _ in range(2):
        done = subprocess.run(
            [*launcher, str(script), *arguments],
            env=environ,
            cwd=folder,
            check=False,
            timeout=900,
            capture_output=True,
            text=True,
        )
        # torch's gloo backend has been seen to crash once in some hundred runs; an error of ours is no such signal.
        if "Signal 11 (SIGSEGV)" not in done.stderr:
            break
        for left in set(folder.iterdir()) - before:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        anew()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process and two processes have left what they did."""
    folder = tmp_path_factory.mktemp("parallel")
    recorded = record()
    (folder / "recorded.pkl").write_bytes(pickle.dumps(recorded))
    curves = {
        "replay": fit(RECORDED, recorded=recorded, save=folder / "alone-replay.ckpt")[0],
        "broken": fit(2, broken=True, save=folder / "alone-broken.ckpt")[0],
        "window": fit(2, broken=True, context="window", save=folder / "alone-window.ckpt")[0],
        "taught-sampled": fit(2, taught="sampled", save=folder / "alone-taught-sampled.ckpt")[0],
        **{
            f"taught-{how}": fit(2, broken=True, taught=how, save=folder / f"alone-taught-{how}.ckpt")[0]
            for how in ("whole", "initial", "kept", "measured")
        },
        "supervised": fit(2, steps=SUPERVISED, save=folder / "alone-supervised.ckpt")[0],
        "analyzed": fit(2, method="hindsight", choices=ANALYZED, save=folder / "alone-analyzed.ckpt")[0],
        "whole": fit(2, evaluate=True, save=folder / "alone-whole.ckpt")[0],
    }
    for method, context in METHODS_TO_SHARE.items():
        case = f"method-{method}"
        curves[case] = fit(2, method=method, context=context, save=folder / f"alone-{case}.ckpt")[0]
    fit(1, recorded=recorded, save=folder / "alone.ckpt")
    for case, curve in curves.items():
        torch.save(curve, folder / f"alone-{case}.curve")
    with serving(two_layers().model) as fake:
        torch.save(
            fit(2, broken=True, served=fake.url, save=folder / "alone-served.ckpt")[0], folder / "alone-served.curve"
        )
        pushed = len(fake.loaded)

        def forget() -> None:
            del fake.loaded[pushed:]

        two_processes(HERE / "parallel_run.py", str(folder), fake.url, folder=folder, anew=forget)
        (folder / "pushes.json").write_text(json.dumps([pushed, len(fake.loaded) - pushed]))
    return folder


def curve(folder: Path, name: str) -> Curve:
    return torch.load(folder / f"{name}.curve", weights_only=True)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_curve(found: Curve, expected: Curve, first: int = 0) -> None:
    assert {step: set(figures) for step, figures in found.items()} == {
        step: set(figures) for step, figures in expected.items() if step >= first
    }
    for step, figures in found.items():
        alone = expected[step]
        assert {n: v for n, v in figures.items() if n not in WHOLE} == pytest.approx(
            {n: v for n, v in alone.items() if n not in WHOLE}, rel=1e-4, abs=2e-6
        ), step


def assert_same_weights(folder: Path, found: str, expected: str) -> None:
    left, right = weights(folder, found), weights(folder, expected)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["replay", "recomputed"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_with_half_the_episodes_each_learn_what_one_rank_learns_from_all(
    folder: Path, strategy: str, case: str
) -> None:
    """Over two iterations; also with gradient checkpointing, whose second pass needs the whole weights again."""
    assert_same_curve(curve(folder, f"{strategy}-{case}"), curve(folder, "alone-replay"))
    assert_same_weights(folder, f"{strategy}-{case}", "alone-replay")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_play_and_learn_what_one_rank_plays_and_learns(folder: Path, strategy: str) -> None:
    """The same tasks, tokens and panel (whose five tasks cannot be halved), also where rollouts are not recorded."""
    assert_same_curve(curve(folder, f"{strategy}-whole"), curve(folder, "alone-whole"))
    assert_same_weights(folder, f"{strategy}-whole", "alone-whole")
    assert curve(folder, f"{strategy}-whole")[2]["val/n"] == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_rank_takes_its_share_of_the_panel_from_a_record(folder: Path, strategy: str) -> None:
    recorded = [torch.load(folder / f"{strategy}-{case}.recorded") for case in ("whole", "from the record")]
    assert recorded == [False, True]
    assert curve(folder, f"{strategy}-from the record") == curve(folder, f"{strategy}-whole")
    assert len(list((folder / f"{strategy}-panels").iterdir())) == 2


@pytest.mark.parametrize("case", ["broken", "window"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_with_nothing_to_learn_from_takes_part(folder: Path, strategy: str, case: str) -> None:
    """Its only task always ends by an error; also in window mode, where ranks have different numbers of rows."""
    assert_same_curve(curve(folder, f"{strategy}-{case}"), curve(folder, f"alone-{case}"))
    assert_same_weights(folder, f"{strategy}-{case}", f"alone-{case}")


def test_ranks_that_have_whole_weights_feed_the_teacher_as_many_tokens_as_one_rank(folder: Path) -> None:
    for step, alone in curve(folder, "alone-taught-sampled").items():
        found = {strategy: curve(folder, f"{strategy}-taught-sampled")[step] for strategy in ("ddp", "fsdp2")}
        assert found["ddp"]["cost/tokens_teacher"] == pytest.approx(alone["cost/tokens_teacher"])
        assert found["fsdp2"]["cost/tokens_teacher"] > 1.1 * alone["cost/tokens_teacher"] > 0


@pytest.mark.parametrize("case", BY_ROWS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_by_rows_are_equally_many_on_ranks_with_different_numbers_of_rows(
    folder: Path, strategy: str, case: str
) -> None:
    """The run ends (a rank that took more steps would wait for the others for ever) and both ranks have learned."""
    for figures in curve(folder, f"{strategy}-{case}").values():
        assert math.isfinite(figures["loss/total"])
        assert figures["train/grad_norm"] > 0


@pytest.mark.parametrize(
    ("strategy", "how"), [*product(STRATEGIES, ("sampled", "whole", "initial", "kept")), ("ddp", "measured")]
)
def test_a_teacher_that_is_asked_again_is_asked_by_all_ranks(folder: Path, strategy: str, how: str) -> None:
    """Also by one that has nothing to learn from: with whole distributions, and in a run that need only end."""
    assert math.isfinite(curve(folder, f"{strategy}-taught-idle")[1]["loss/distillation"])
    assert_same_curve(curve(folder, f"{strategy}-taught-{how}"), curve(folder, f"alone-taught-{how}"))
    if how == "measured":  # each term's gradient is that of both ranks' rows
        assert curve(folder, "ddp-taught-measured")[0]["objective/distillation_share"] > 0
    assert_same_weights(folder, f"{strategy}-taught-{how}", f"alone-taught-{how}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_that_is_bad_on_one_rank_is_skipped_by_both(folder: Path, strategy: str) -> None:
    """The run ends, and in its second iteration both learn."""
    first, second = curve(folder, f"{strategy}-bad").values()
    assert first["train/skipped_steps"] == 2
    assert "train/grad_norm" not in first
    assert second["train/skipped_steps"] == 0
    assert second["train/grad_norm"] > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_share_a_server_that_is_handed_the_weights_once_an_iteration(folder: Path, strategy: str) -> None:
    assert_same_curve(curve(folder, f"{strategy}-served"), curve(folder, "alone-served"))
    assert_same_weights(folder, f"{strategy}-served", "alone-served")
    assert json.loads((folder / "pushes.json").read_text()) == [2, 2 * len(STRATEGIES)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_supervised_rows_are_shared_by_the_ranks(folder: Path, strategy: str) -> None:
    assert_same_curve(curve(folder, f"{strategy}-supervised"), curve(folder, "alone-supervised"))
    assert_same_weights(folder, f"{strategy}-supervised", "alone-supervised")
    assert curve(folder, "alone-supervised")[1]["loss/supervised"] > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_teacher_that_lets_the_policy_write_does_so_with_whole_weights(folder: Path, strategy: str) -> None:
    assert_same_curve(curve(folder, f"{strategy}-analyzed"), curve(folder, "alone-analyzed"))
    assert_same_weights(folder, f"{strategy}-analyzed", "alone-analyzed")


@pytest.mark.parametrize("method", METHODS_TO_SHARE)
def test_every_method_learns_on_two_ranks_what_it_learns_on_one(folder: Path, method: str) -> None:
    assert_same_curve(curve(folder, f"ddp-method-{method}"), curve(folder, f"alone-method-{method}"))
    assert_same_weights(folder, f"ddp-method-{method}", f"alone-method-{method}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_of_two_ranks_has_the_curve_of_the_run_that_was_not_stopped(folder: Path, strategy: str) -> None:
    whole, first, resumed = (curve(folder, f"{strategy}-{case}") for case in ("whole", "first", "resumed"))
    for step, figures in (first | resumed).items():
        assert figures == {name: value for name, value in whole[step].items() if not name.startswith("val")}
    left, right = weights(folder, f"{strategy}-whole"), weights(folder, f"{strategy}-resumed")
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize(("precision", "dtype"), list(zip(PRECISIONS, (torch.float32, torch.bfloat16), strict=True)))
def test_sharded_weights_are_kept_and_computed_with_as_the_precision_says(
    folder: Path, precision: str, dtype: torch.dtype
) -> None:
    found, expected = curve(folder, f"fsdp2-{precision}"), curve(folder, "alone-replay")
    assert {tensor.dtype for tensor in weights(folder, f"fsdp2-{precision}").values()} == {dtype}
    for tag in ("loss/total", "train/grad_norm"):
        assert found[0][tag] == pytest.approx(expected[0][tag], rel=0.1)
        assert found[0][tag] != expected[0][tag]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_of_one_rank_is_continued_by_two(folder: Path, strategy: str) -> None:
    assert_same_curve(curve(folder, f"{strategy}-continued"), curve(folder, "alone-replay"), first=1)
    assert_same_weights(folder, f"{strategy}-continued", "alone-replay")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_of_two_ranks_is_continued_by_one(folder: Path, tmp_path: Path, strategy: str) -> None:
    """Weights and the optimizer's moments: a loss of the moments would show in the weights."""
    continued, _ = fit(2, save=tmp_path / "continued.ckpt", ckpt_path=folder / f"{strategy}-first.ckpt")
    assert_same_curve(continued, curve(folder, f"{strategy}-resumed"))
    assert_same_weights(tmp_path, "continued", str(folder / f"{strategy}-resumed"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpoints_of_all_strategies_have_one_format(folder: Path, strategy: str) -> None:
    alone, other = (torch.load(folder / f"{name}-replay.ckpt", weights_only=True) for name in ("alone", strategy))
    assert alone.keys() == other.keys()
    assert alone["state_dict"].keys() == other["state_dict"].keys()
    assert all(type(tensor) is torch.Tensor for tensor in other["state_dict"].values())
    (mine,), (theirs,) = alone["optimizer_states"], other["optimizer_states"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, state in mine["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(theirs["state"][number][name], value, rtol=1e-3, atol=1e-5)
    module = toy_module(two_layers(), HintTeacher(), **SETTINGS)
    load_student(module, module.policy, folder / f"{strategy}-replay.ckpt")
    assert torch.equal(module.state_dict()["model.lm_head.weight"], other["state_dict"]["model.lm_head.weight"])


def test_torchrun_trains_sharded_into_one_run_folder_whose_checkpoint_one_process_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "trainer.max_epochs=1"]
    small += [f"model.path={save_tiny(tmp_path / 'tiny')}", "evaluation.baselines=false"]
    two_processes(HERE.parents[1] / "train.py", *small, "trainer=fsdp2", "trainer.accelerator=cpu", folder=tmp_path)
    (run,) = (tmp_path / "logs" / "smoke").iterdir()
    trained = json.loads((run / "results.json").read_text())["results"]
    assert main([*small, "train=false", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}", "run_dir=evaluated"]) == 0
    evaluated = json.loads((tmp_path / "evaluated" / "results.json").read_text())["results"]
    assert evaluated[-1]["tasks"] == trained[-1]["tasks"]
    assert evaluated[-1]["turns_mean"] == trained[-1]["turns_mean"]
