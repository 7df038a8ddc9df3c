"""Promises of the checkpoints of a run, on the toy environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from sdar.callbacks.checkpoints import Checkpoints
from sdar.callbacks.evaluation import PanelEvaluation
from sdar.errors import RunFailed
from sdar.evaluation.panel import make_panel
from sdar.policy.checkpoint import finished_iterations
from sdar.policy.checkpoint_file import read_checkpoint
from sdar.rollout.collector import Collector
from sdar.run.state import RunState
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, toy_rollout, train


class Act(Callback):
    """Does something when an iteration has been learned from."""

    def __init__(self, iteration: int, act: Any) -> None:
        self.iteration, self.act = iteration, act

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.current_epoch == self.iteration:
            self.act(trainer, pl_module)


class Report(Callback):
    """A metric with given values, iteration by iteration."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.callback_metrics["given"] = torch.tensor(self.values[trainer.current_epoch])


def run(iterations: int, *callbacks: Any, data: Any = None, ckpt_path: str | None = None) -> Any:
    policy = toy_policy() if data is None else data.collector.policy
    module = toy_module(policy, distillation_coefficient=0.0)
    datamodule = data or toy_datamodule(policy)
    return train(module, datamodule, iterations, ckpt_path, callbacks=callbacks, enable_checkpointing=True)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def finished(path: Path) -> int:
    return finished_iterations(read_checkpoint(path))


def test_the_newest_are_kept_and_last_is_one_of_them(tmp_path: Path) -> None:
    run(4, Checkpoints(tmp_path, keep=2, best=None))
    assert names(tmp_path) == ["iteration-0003.ckpt", "iteration-0004.ckpt", "last.ckpt"]
    assert [finished(tmp_path / name) for name in names(tmp_path)] == [3, 4, 4]
    assert (tmp_path / "last.ckpt").samefile(tmp_path / "iteration-0004.ckpt")


def test_the_best_by_a_metric_is_kept_and_a_resumed_run_compares_with_it(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    run(3, Checkpoints(first, keep=1, best="given"), Report(0.1, 0.3, 0.3))
    assert finished(first / "best.ckpt") == 2
    last = str(first / "last.ckpt")
    run(4, Checkpoints(second, keep=1, best="given"), Report(0, 0, 0, 0.2), ckpt_path=last)
    assert finished(second / "best.ckpt") == 2
    run(4, Checkpoints(third, keep=1, best="given"), Report(0, 0, 0, 0.4), ckpt_path=last)
    assert finished(third / "best.ckpt") == 4


def test_an_iteration_is_saved_before_its_panel_and_with_its_results_afterwards(tmp_path: Path) -> None:
    policy, environment = toy_policy(), LettersEnvironment()
    panel = PanelEvaluation(
        Collector(policy, environment, toy_rollout(temperature=0.4)),
        make_panel(environment, "valid", 3, 0),
        seed=0,
        every_n_iterations=2,
        before=False,
    )
    module = toy_module(policy, distillation_coefficient=0.0)
    seen: list[int] = []

    collect = panel.collector.collect

    def looking(*arguments: Any, **more: Any) -> Any:
        seen.append(finished(tmp_path / "last.ckpt"))
        return collect(*arguments, **more)

    panel.collector.collect = looking  # type: ignore[method-assign]
    saving = Checkpoints(tmp_path, every_n_iterations=3, best=None)
    train(module, toy_datamodule(policy), 2, callbacks=[panel, saving], enable_checkpointing=True)
    assert seen == [2]
    state = next(
        value for name, value in read_checkpoint(tmp_path / "last.ckpt")["callbacks"].items() if "Panel" in name
    )
    assert list(state["results"]) == [2]


@pytest.mark.parametrize("what", ["a weight", "a moment"])
def test_numbers_that_are_not_finite_end_the_run_and_are_not_saved(what: str, tmp_path: Path) -> None:
    def spoil(trainer: Any, module: Any) -> None:
        tensors = (
            list(module.parameters())
            if what == "a weight"
            else [state["exp_avg"] for state in trainer.optimizers[0].state.values()]
        )
        tensors[-1].data.flatten()[0] = float("nan")

    with pytest.raises(RunFailed, match="not finite after iteration 2, which was not saved") as caught:
        run(3, Act(1, spoil), Checkpoints(tmp_path, best=None))
    assert "\n" not in str(caught.value)
    assert finished(tmp_path / "last.ckpt") == 1


def test_an_iteration_that_failed_is_not_saved(tmp_path: Path) -> None:
    policy = toy_policy()
    data = toy_datamodule(policy)

    def fail(trainer: Any, module: Any) -> None:
        trainer.datamodule.bad_iterations = 1

    run(2, Act(1, fail), Checkpoints(tmp_path, best=None), data=data)
    assert finished(tmp_path / "last.ckpt") == 1


def test_a_run_that_is_stopped_between_two_saves_is_saved(tmp_path: Path) -> None:
    def stop(trainer: Any, module: Any) -> None:
        trainer.should_stop = True

    run(9, Act(1, stop), Checkpoints(tmp_path, every_n_iterations=5, best=None))
    assert finished(tmp_path / "last.ckpt") == 2


def test_the_best_of_another_part_is_not_taken(tmp_path: Path) -> None:
    """Neither one of later iterations than those that are continued, nor a damaged one."""
    first = tmp_path / "first"
    run(3, Checkpoints(first, best="given"), Report(0.1, 0.2, 0.9))
    assert finished(first / "best.ckpt") == 3
    second = tmp_path / "second"
    run(2, Checkpoints(second, best="given"), Report(0, 0.05), ckpt_path=str(first / "iteration-0001.ckpt"))
    assert finished(second / "best.ckpt") == 2


def test_an_iteration_that_was_not_saved_is_not_the_best(tmp_path: Path) -> None:
    run(4, Checkpoints(tmp_path, every_n_iterations=2, best="given"), Report(0.9, 0.1, 0.5, 0.2))
    assert finished(tmp_path / "best.ckpt") == 4


def test_a_value_counts_once_and_for_the_iteration_that_had_it(tmp_path: Path) -> None:
    class Once(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.datamodule.bad_iterations = int(trainer.current_epoch == 1)
            if trainer.current_epoch < 2:
                trainer.callback_metrics["given"] = torch.tensor([0.1, 0.9][trainer.current_epoch])

    run(3, Once(), Checkpoints(tmp_path, best="given"))
    assert finished(tmp_path / "best.ckpt") == 1
    assert finished(tmp_path / "last.ckpt") == 3


def test_a_value_that_was_looked_at_is_not_that_of_the_iteration_a_run_continues_from(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def value(trainer: Any, module: Any) -> None:
        trainer.callback_metrics["given"] = torch.tensor(0.5)

    run(2, Act(0, value), RunState(first, {}, {}), Checkpoints(first, best="given"))
    assert finished(first / "best.ckpt") == 1
    (first / "best.ckpt").unlink()
    run(3, RunState(second, {}, {}), Checkpoints(second, best="given"), ckpt_path=str(first / "last.ckpt"))
    assert not (second / "best.ckpt").exists()


def test_a_run_that_chooses_by_another_metric_does_not_compare_with_the_one_before(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(2, Report(0.9, 0.8), Checkpoints(first, best="given"))

    def value(trainer: Any, module: Any) -> None:
        trainer.callback_metrics["other"] = torch.tensor(0.1)

    run(3, Act(2, value), Checkpoints(second, best="other"), ckpt_path=str(first / "last.ckpt"))
    assert finished(second / "best.ckpt") == 3
