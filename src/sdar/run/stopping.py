"""Where training may be stopped, and what is said then."""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.profilers import PassThroughProfiler
from numpy.typing import NDArray

from sdar.callbacks.checkpoints import Checkpoints
from sdar.errors import Stopped
from sdar.learning.logs import tolerated
from sdar.learning.ranks import Ranks
from sdar.rollout.collector import Collector
from sdar.rollout.sampling import GeneratorFactory, ResponseGenerator
from sdar.rollout.settings import SamplingConfig
from sdar.run.folder import LAST_CHECKPOINT, STATE_FILE, read_record, write_record
from sdar.run.signals import StopSignals

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

PROFILE_FILE = "fit-profile.txt"
"""What a trainer's profiler writes; with several processes there is one per process, with its number."""

log = logging.getLogger(__name__)


class StopOnSignal(Callback):
    """Stops training by :class:`~sdar.errors.Stopped` after a signal, on all ranks together and with a checkpoint.

    That is at the end of an iteration, before its panel is played; one process alone also stops between two turns of
    its episodes, which are played again when the run is continued. It must come before the callback that plays panels.

    Args:
        signals: of this process.
        folder: of the run; the checkpoint goes there where no callback saves any.

    Attributes:
        learned: iterations that the weights have learned from.
    """

    def __init__(self, signals: StopSignals, folder: Path) -> None:
        self.signals = signals
        self.folder = folder
        self.learned = 0
        self._began = 0
        self._savings: list[Checkpoints] = []
        self._alone = True

    @property
    def saved(self) -> int:
        """Iterations behind the last checkpoint."""
        return max([self._began, *(saving.saved for saving in self._savings)])

    def watch(self, *collectors: Collector) -> None:
        """Let these collectors ask between two turns whether to stop."""
        for collector in collectors:
            collector.generator_factory = _asking(collector.generator_factory, self._between_turns)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Keep the handlers of this process."""
        # Lightning's own broadcasts inside the handler, where ranks wait for one another for ever, and one of them
        # resubmits jobs of Slurm by itself. There is no setting for it.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._alone = trainer.world_size == 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Where the run continues from."""
        self.learned = self._began = trainer.current_epoch
        self._savings = _savings(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """From here on there is something to lose."""
        self.signals.patient = True
        self._stop_together(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The iteration is learned, and its panel not yet played."""
        self.learned = trainer.current_epoch + 1
        self._stop_together(trainer, save=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """All is learned; from here on a signal ends this process alone."""
        self._stop_together(trainer)
        self.signals.at_once()

    def _stop_together(self, trainer: Trainer, *, save: bool = False) -> None:
        number = int(Ranks.of(trainer.lightning_module).reduce_number(float(self.signals.number or 0), "max"))
        if not number:
            return
        if save:
            self._savings = self._savings or [Checkpoints(self.folder / LAST_CHECKPOINT.parent)]
            for saving in self._savings:
                saving.save(trainer)
        self._stop(number, trainer.is_global_zero)

    def _between_turns(self) -> None:
        number = self.signals.number
        if number is not None and self.signals.patient and self._alone and self.saved == self.learned:
            self._stop(number, leads=True)

    def _stop(self, number: int, leads: bool) -> None:
        words = self.signals.farewell(number)
        if leads:
            log.info("%s", words)
            file = self.folder / STATE_FILE
            state = read_record(file)
            if state is not None:
                with tolerated(str(file)):
                    write_record(file, {**state, "stopped": signal.Signals(number).name})
        raise Stopped(number, words)


def _savings(trainer: Trainer) -> list[Checkpoints]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]


def _asking(factory: GeneratorFactory, ask: Callable[[], None]) -> GeneratorFactory:
    """A factory of generators that call ``ask`` before every turn."""
    return lambda policy, sampling: _AskingGenerator(factory, policy, sampling, ask)


class _AskingGenerator:
    def __init__(
        self, factory: GeneratorFactory, policy: LanguageModel, sampling: SamplingConfig, ask: Callable[[], None]
    ) -> None:
        self._generator: ResponseGenerator = factory(policy, sampling)
        self._ask = ask

    def another(self) -> ResponseGenerator:
        other = copy(self)
        other._generator = self._generator.another()
        return other

    def start(self, num_slots: int) -> None:
        self._generator.start(num_slots)

    def log_probs(self, slot: int) -> list[float] | None:
        return self._generator.log_probs(slot)

    def close(self) -> None:
        self._generator.close()

    def respond(
        self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, NDArray[np.float64]]
    ) -> dict[int, list[int]]:
        self._ask()
        return self._generator.respond(new_ids, uniforms)


def continuing(command: Sequence[str], checkpoint: str | None) -> str:
    """A command line that continues a run, for a shell.

    Args:
        command: the program and arguments that the run was started with.
        checkpoint: the new ``ckpt_path``; None: as it was.
    """
    replaced = ("run_dir",) if checkpoint is None else ("run_dir", "ckpt_path")
    kept = [word for word in command if word.lstrip("+").partition("=")[0] not in replaced]
    return shlex.join(kept if checkpoint is None else [*kept, f"ckpt_path={checkpoint}"])


def how_to_continue(folder: Path, logs_dir: str | Path, command: Sequence[str], *, saved: Path | None) -> str:
    """The part of a sentence that says how to go on.

    Args:
        folder: of the run.
        logs_dir: where ``ckpt_path=last`` looks.
        command: see :func:`continuing`.
        saved: the newest checkpoint of this run; None: it has none.
    """
    if saved is None:
        return f"start again with: {continuing(command, None)}"
    found = folder.resolve().is_relative_to(Path(logs_dir).resolve())
    return f"continue with: {continuing(command, 'last' if found else str(saved))}"


def place(learned: int, of: int | None) -> str:
    """After which iteration: ``after iteration 3 of 60``."""
    if learned == 0:
        return "before the first iteration was finished"
    return f"after iteration {learned}" + (f" of {of}" if of is not None and of > 0 else "")


def why_it_ended(trainer: Trainer, iterations: int) -> str | None:
    """Why training ended after so many iterations, before the last one; None: it did not."""
    if trainer.max_epochs in (None, iterations):
        return None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            return "the time limit is reached"
        message = getattr(callback, "stopping_reason_message", None) if isinstance(callback, EarlyStopping) else None
        if message:
            return str(message).removesuffix(" Signaling Trainer to stop.").rstrip(".")
    return "a callback stopped it"


def write_profile_to(trainer: Trainer, folder: Path) -> None:
    """Let a profiler that was named without a file write to the run folder, not to a logger that is silent."""
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if not isinstance(profiler, PassThroughProfiler) and profiler.filename is None:
        profiler.dirpath, profiler.filename = profiler.dirpath or str(folder), "profile"
