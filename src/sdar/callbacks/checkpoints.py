"""Saves the run after every iteration, before anything that takes long can lose it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torch.distributed.tensor import DTensor

from sdar.config.fields import AtLeastOne, checked
from sdar.errors import RunFailed, UserError
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.ranks import Ranks
from sdar.policy.checkpoint import finished_iterations
from sdar.policy.checkpoint_file import read_checkpoint, share_file

LAST, BEST = "last.ckpt", "best.ckpt"


class Checkpoints(Checkpoint):
    """Keeps the newest checkpoints of a run and the best by a metric.

    ``iteration-0003.ckpt`` is that of three finished iterations, ``last.ckpt`` the newest of them and ``best.ckpt`` the
    one with the highest ``best``. An iteration is saved before its panel is played, and once more afterwards, with the
    panel's results. Weights or moments that are not finite end the run and are not saved, and neither is an iteration
    most of whose episodes failed: ``last.ckpt`` repeats it.

    Args:
        directory: folder of the files; None: ``checkpoints`` in the trainer's ``default_root_dir``.
        keep: how many of the newest are kept.
        every_n_iterations: save every n iterations, before every panel, and after the last iteration.
        best: a metric that is logged after an iteration, larger being better; None: no ``best.ckpt``.

    Attributes:
        saved: iterations behind the newest checkpoint.
    """

    @checked
    def __init__(
        self,
        directory: str | Path | None = None,
        keep: AtLeastOne = 3,
        every_n_iterations: AtLeastOne = 1,
        best: str | None = "val/success_rate",
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        self.keep = keep
        self.every_n_iterations = every_n_iterations
        self.best = best
        self.saved = 0
        self._newest: list[Path] = []
        self._best: dict[str, Any] = {}
        self._seen: Any = None
        self._seen_before: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: metric, value and iteration of the best one, and the last value that was looked at."""
        seen = None if self._seen is None else float(self._seen)
        return {**self._best, "metric": self.best, "seen": seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed run compares with the best of its earlier parts, if it is chosen by the same metric."""
        if state_dict.get("metric", self.best) == self.best:
            self._best = {name: state_dict[name] for name in ("value", "iteration") if name in state_dict}
            self._seen_before = state_dict.get("seen")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Bring the best checkpoint of the earlier parts into this run's folder; it lies beside the one continued."""
        self.saved = learned = trainer.current_epoch
        if trainer.ckpt_path is None or not trainer.is_global_zero:
            return
        value = trainer.callback_metrics.get(self.best or "")
        if value is not None and float(value) == self._seen_before:
            self._seen = value
        continued = Path(trainer.ckpt_path)
        best, target = continued.with_name(BEST), self._folder(trainer) / BEST
        if self._best and _iterations(best) != self._best.get("iteration"):
            self._best = {}  # that of another run, or damaged
        elif self._best and not target.exists():
            share_file(best, target)
        if self._improves(trainer, learned):  # its panel was played anew, because the run was stopped in it
            share_file(continued, target)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Save an iteration that is due, and one whose panel was played since it was saved."""
        learned = trainer.current_epoch + 1
        due = learned % self.every_n_iterations == 0 or learned == trainer.max_epochs
        earlier = self._best
        better = self._improves(trainer, learned)
        if not ((due or self.saved == learned) and self._write(trainer, learned)):
            self._best = earlier  # there is no checkpoint of it
        elif better and trainer.is_global_zero:
            share_file(self._path(trainer, learned), self._folder(trainer) / BEST)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Save a run that was stopped between two iterations that are due."""
        if self.saved != trainer.current_epoch:
            self._write(trainer, trainer.current_epoch)

    def save(self, trainer: Trainer) -> None:
        """Save the present iteration, which must have ended; on every rank.

        Raises:
            RunFailed: numbers are not finite, or the file cannot be written.
        """
        self._write(trainer, trainer.current_epoch + 1)

    def _improves(self, trainer: Trainer, learned: int) -> bool:
        """Whether a new value of the metric is the best so far, which is then remembered."""
        value = trainer.callback_metrics.get(self.best or "")
        if value is None or value is self._seen:
            return False
        self._seen = value
        if not float(value) > self._best.get("value", -math.inf):
            return False
        self._best = {"value": float(value), "iteration": learned}
        return True

    def _write(self, trainer: Trainer, learned: int) -> bool:
        """Save; gives False for an iteration that is to be repeated."""
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, RolloutDataModule) and data.bad_iterations:
            return False
        if not Ranks.of(trainer.lightning_module).all(_is_finite(trainer)):
            raise RunFailed(
                f"weights or moments are not finite after iteration {learned}, which was not saved; the checkpoints "
                f"of earlier iterations in {self._folder(trainer)} are whole: lower optimizer.learning_rate, or set "
                "optimizer.max_grad_norm"
            )
        path = self._path(trainer, learned)
        trainer.save_checkpoint(path, weights_only=False)
        self.saved = learned
        if trainer.is_global_zero:
            share_file(path, path.with_name(LAST))
            self._newest = [*(file for file in self._newest if file != path), path]
            for old in self._newest[: -self.keep]:
                old.unlink(missing_ok=True)
            self._newest = self._newest[-self.keep :]
        return True

    def _folder(self, trainer: Trainer) -> Path:
        return self.directory or Path(trainer.default_root_dir) / "checkpoints"

    def _path(self, trainer: Trainer, learned: int) -> Path:
        return self._folder(trainer) / f"iteration-{learned:04d}.ckpt"


def _iterations(path: Path) -> int | None:
    """How many iterations are behind a checkpoint; None: it cannot be read."""
    try:
        return finished_iterations(read_checkpoint(path, mmap=True))
    except UserError:
        return None


def _is_finite(trainer: Trainer) -> bool:
    """Whether the weights and moments that this rank holds are finite."""
    states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(trainer, states))


def _tensors(trainer: Trainer, states: Iterable[dict[str, Any]]) -> Iterable[Tensor]:
    moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    for tensor in [*trainer.lightning_module.parameters(), *moments]:
        yield tensor.to_local() if isinstance(tensor, DTensor) else tensor
