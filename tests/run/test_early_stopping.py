"""A run that is killed, and continued, is stopped early after the iteration it would have been stopped after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping

from sdar.callbacks.checkpoints import Checkpoints
from sdar.callbacks.evaluation import PanelEvaluation
from sdar.errors import UserError
from sdar.evaluation.panel import make_panel
from sdar.rollout.collector import Collector
from sdar.run.state import RunState
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, toy_rollout, train


class KilledError(Exception):
    pass


class KilledIn(Callback):
    """Ends a run in iteration ``number``, before anything of it is saved."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch + 1 == self.number:
            raise KilledError


def run(
    folder: Path,
    *more: Callback,
    patience: int = 3,
    monitor: str = "val/success_rate",
    continued: Path | None = None,
    killed_in_panel: int | None = None,
    strict: bool = False,
) -> int:
    """Iterations after which a run ends that plays a panel every two and finds no value better than the first."""
    policy, environment = toy_policy(), LettersEnvironment()
    collector = Collector(policy, environment, toy_rollout(temperature=0.4))
    panel = PanelEvaluation(collector, make_panel(environment, "valid", 3, 0), seed=0, every_n_iterations=2)
    collect, played = collector.collect, 0

    def collecting(*arguments: Any, **options: Any) -> Any:
        nonlocal played
        played += 1
        if 2 * (played - 1) == killed_in_panel:
            raise KilledError
        return collect(*arguments, **options)

    collector.collect = collecting  # type: ignore[method-assign]
    early = EarlyStopping(monitor, mode="max", min_delta=100.0, patience=patience, strict=strict)
    saving = Checkpoints(folder, best=None)
    module = toy_module(policy, distillation_coefficient=0.0)
    last = None if continued is None else str(continued / "last.ckpt")
    callbacks = [panel, RunState(folder, {}, {}), early, *more, saving]
    train(module, toy_datamodule(policy), 9, last, callbacks=callbacks, enable_checkpointing=True)
    return saving.saved


@pytest.mark.parametrize("how", ["in a panel", "between panels"])
def test_a_killed_run_stops_where_it_would_have_stopped(how: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    assert whole == 5
    in_panel, more = (4, ()) if how == "in a panel" else (None, (KilledIn(5),))
    with pytest.raises(KilledError):
        run(tmp_path / "killed", *more, killed_in_panel=in_panel)
    assert run(tmp_path / "rest", continued=tmp_path / "killed") == whole


def test_another_patience_holds_from_then_on(tmp_path: Path) -> None:
    assert run(tmp_path / "first") == 5
    assert run(tmp_path / "same", continued=tmp_path / "first") == 5
    assert run(tmp_path / "more", continued=tmp_path / "first", patience=5) == 7


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ("val/success_rate", "which iteration 1 does not have; it must be .* or strict=false be set"),
        ("rollout/sucess_rate", r"\(did you mean 'rollout/success_rate'\?\)"),
    ],
)
def test_what_an_iteration_does_not_have_cannot_be_monitored(monitor: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        run(tmp_path, monitor=monitor, strict=True)
    assert "\n" not in str(caught.value)
