"""A run from its validated settings to its last line: build, evaluate, fit, evaluate, say where to look."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers

from sdar.callbacks.base import say
from sdar.callbacks.board.baselines import tell_baselines
from sdar.callbacks.checkpoints import BEST, LAST
from sdar.callbacks.episode_log import FILE_NAME as EPISODES_FILE
from sdar.callbacks.episode_log import EpisodeLog
from sdar.callbacks.skill_log import FILE_NAME as SKILLS_FILE
from sdar.evaluation.report import check_errors, final_table
from sdar.evaluation.result import EvaluationResult
from sdar.output.printable import PrintableFormatter
from sdar.output.streams import LastingFile
from sdar.policy.checkpoint import load_student
from sdar.policy.checkpoint_file import share_file
from sdar.policy.language_model import autocast_of
from sdar.policy.trainable import trainable
from sdar.rollout.vllm.ranks import left_alone
from sdar.run.assembly import Assembly, assemble, build_trainer, panel_evaluation
from sdar.run.capacity.fit import remark
from sdar.run.continuing import contents, differences, other_contents, take_curves, told
from sdar.run.folder import CONFIG_FILE, LAST_CHECKPOINT, RESULTS_FILE, checkpoint_folder, checkpoints_of
from sdar.run.results import play_baselines, play_policy, write_results
from sdar.run.resume import Continued, check_checkpoint, find_checkpoint, restoring
from sdar.run.rules import returns
from sdar.run.saving import check_space
from sdar.run.settings import RunSettings
from sdar.run.signals import StopSignals
from sdar.run.state import RunState
from sdar.run.stopping import PROFILE_FILE, StopOnSignal, how_to_continue, place, why_it_ended, write_profile_to
from sdar.run.watch import RankWatch

log = logging.getLogger(__name__)

LOG_FILE = "run.log"


class Session:
    """One run.

    ``leader``      the process that prints, evaluates and writes; the others only train with it
    ``folder``      the run folder
    ``checkpoint``  what the run continues from; None: it starts afresh
    ``signals``     those that ask the run to stop
    ``command``     program and arguments that started it, to say how to go on
    ``changed``     settings that differ from those of the run that is continued: name -> [then, now]

    Raises:
        UserError: anything that the settings got wrong and that is only seen when the objects are built.
    """

    def __init__(
        self, settings: RunSettings, *, leader: bool, signals: StopSignals | None = None, command: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self.leader = leader
        self.signals = signals or StopSignals()
        self.command = command
        self.folder = Path(settings.config["run_dir"])
        self._log = _early_log() if leader else None
        self.checkpoint = find_checkpoint(settings.config, leader=leader)
        transformers.utils.logging.disable_progress_bar()
        _use_threads(settings.config["threads"])
        L.seed_everything(settings.seed, verbose=False)
        self.assembly: Assembly = assemble(settings)
        self.evaluation = panel_evaluation(self.assembly, settings)
        self.continued: Continued | None = None
        self.changed: dict[str, list[Any]] = {}
        held = contents(settings.config, self.assembly.datamodule.train_tasks) if settings.train else {}
        if self.checkpoint is not None:
            self.continued = check_checkpoint(
                self.checkpoint,
                self.assembly.module,
                train=settings.train,
                max_iterations=settings.trainer.get("max_epochs"),
            )
            if self.continued.settings is not None:
                self.changed = differences(self.continued.settings, settings.config)
            self.changed |= other_contents(self.continued.contents, held)
        if settings.train and leader:
            check_space(self.folder, self.assembly.module)
        self.stopping = StopOnSignal(self.signals, self.folder)
        self.stopping.watch(self.assembly.datamodule.collector, self.assembly.eval_collector)
        self.ranks = RankWatch(self.signals, 60.0 * settings.config["rank_timeout_minutes"], self.folder, self._ended)
        self.state = RunState(self.folder, settings.config, held)
        self.trainer = build_trainer(settings.config, [self.ranks, self.stopping, self.evaluation, self.state])
        self.assembly.policy.compute_dtype = autocast_of(self.trainer.precision)  # of panels beside a fit, too
        if settings.train and leader:
            self._check_memory()
            advantage, solved = settings.method.advantage, self.assembly.environment.solved_return
            if said := returns.remark(advantage, solved):
                log.warning("%s", said)
        write_profile_to(self.trainer, self.folder)
        self.signals.farewell = self._farewell if leader else lambda _: ""

    def run(self) -> None:
        """Train and evaluate, as the settings say."""
        if not self.leader:
            if self.settings.train:
                self._fit()
            return
        self._open_log()
        self._introduce()
        evaluation = self.settings.evaluation
        iterations: int | None = None
        results = play_baselines(self.assembly, evaluation.seed) if evaluation.baselines else []
        if self.settings.train:
            if self.continued is not None:
                take_curves(self.continued.path, self.folder, self.continued.saved)
            # A resumed run does not see its initial weights again, and the callback plays them only at the start.
            before = None if self.checkpoint is None else self._play()
            tell_baselines(self.trainer.loggers, results)
            self._fit()
            if not self.trainer.is_global_zero:
                return
            iterations = self._learned
            if reason := why_it_ended(self.trainer, iterations):
                say(f"training ended {place(iterations, self._iterations)}: {reason}")
            if self.continued is not None and iterations == self.continued.iterations:
                self._take_checkpoints(self.continued.path)
            played = self.evaluation.results
            results += _named("warm start", before or played[0])
            results += _named("trained", played[iterations])
        else:
            results += _named("warm start", self._play())
            if self.checkpoint is not None:
                load_student(self.assembly.module, self.assembly.policy, self.checkpoint)
                results += _named("checkpoint", self._play())
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EpisodeLog):
                    for result in results:
                        callback.write_evaluation(self.trainer, result)
        self._conclude(results, iterations)

    def _check_memory(self) -> None:
        """Warn where the run will not fit into its device by arithmetic."""
        assembly, device = self.assembly, self.trainer.strategy.root_device
        size, turns = len(assembly.panel.tasks), assembly.environment.max_turns
        if said := remark(assembly.module, self.settings.config, device, max_turns=turns, panel_size=size):
            log.warning("%s", said)

    def _play(self) -> list[EvaluationResult]:
        """Play the panel with the present weights, while no other process plays."""
        self._to_device()
        with left_alone():
            return play_policy(self.assembly, self.settings.evaluation.seed, self.evaluation.records)

    def _to_device(self) -> None:
        """Lightning brings the model back to the CPU when a fit ends."""
        self.assembly.module.to(self.trainer.strategy.root_device)

    def _take_checkpoints(self, path: Path) -> None:
        """A run that had nothing left to learn has the checkpoints of the run it continued."""
        best = path.with_name(BEST)
        for file, name in ((path, LAST), (best, BEST)):
            target = checkpoint_folder(self.folder) / name
            if file.is_file() and not target.exists():
                share_file(file, target)

    def _fit(self) -> None:
        module, data = self.assembly.module, self.assembly.datamodule

        def fit() -> None:
            with restoring(self.checkpoint, lambda: self.state.begun):
                self.trainer.fit(module, datamodule=data, ckpt_path=self.checkpoint, weights_only=True)
            # Nothing was left to learn, but the panel had been cut off, or is another one. All processes play, each of
            # which has a part of sharded weights.
            if self._learned not in self.evaluation.results:
                self._to_device()
                self.evaluation.evaluate(self.trainer, self._learned)

        self.ranks.fit(self.trainer, fit)

    @property
    def _learned(self) -> int:
        """Iterations behind the weights. The trainer does not count those before it where nothing was left to learn."""
        return max(self.trainer.current_epoch, 0 if self.continued is None else self.continued.iterations)

    @property
    def _iterations(self) -> int | None:
        limit: int | None = self.settings.trainer.get("max_epochs")
        return limit

    def _after(self) -> str:
        return place(self.stopping.saved, self._iterations)

    def _how_to_continue(self) -> str:
        saved = next(iter(checkpoints_of(self.folder)), None)
        return how_to_continue(self.folder, self.settings.config["logs_dir"], self.command, saved=saved)

    def _farewell(self, number: int) -> str:
        name = signal.Signals(number).name
        after = f" {self._after()}" if self.settings.train else ""
        return f"stopped by {name}{after}; {self._how_to_continue()}"

    def _ended(self) -> str:
        return f"the run ended {self._after()}; {self._how_to_continue()}"

    def _open_log(self) -> None:
        """What was said while the objects were built goes to the run folder, and all that follows."""
        if self._log is not None:
            file = LastingFile(self.folder / LOG_FILE, encoding="utf-8", delay=True)
            file.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            self._log.setTarget(file)
            self._log.flush()

    def _introduce(self) -> None:
        assembly, settings = self.assembly, self.settings
        model = assembly.module.model
        parameters = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
        if assembly.policy.lora is not None:
            parameters += f", {sum(p.numel() for p in trainable(model)) / 1e6:.2f} M of them trained"
        say(f"run folder: {self.folder}")
        say(
            f"{settings.method.name} on {assembly.environment.name} with {assembly.policy.name} "
            f"({parameters}), seed {settings.seed}, "
            f"{settings.rollout.tasks_per_iteration} tasks x {settings.rollout.group_size} episodes per iteration"
        )
        say(
            f"panel: {len(assembly.panel.tasks)} tasks of {assembly.panel.split}, content hash "
            f"{assembly.panel.content_hash[:12]}"
        )
        if self.checkpoint is not None:
            verb = "continuing from" if settings.train else "evaluating"
            say(f"{verb} {self.checkpoint}")
        if self.changed:
            say(told(self.changed))

    def _conclude(self, results: list[EvaluationResult], iterations: int | None) -> None:
        panel = self.assembly.panel
        say(final_table(results, title=f"Success on {len(panel.tasks)} tasks of {panel.split}"))
        # The last of all: a run without results can be continued, if only to play the panel.
        write_results(self.folder, self.assembly, results, iterations=iterations, evaluation=self.evaluation)
        say("Where to look:")
        where = checkpoint_folder(self.folder)
        checkpoints = LAST_CHECKPOINT if where.is_relative_to(self.folder) else where.absolute() / LAST
        for what, path, words in (
            ("curves", "tensorboard", "tensorboard --logdir {}"),
            ("episodes", EPISODES_FILE, "sdar episodes {}"),
            ("skills", SKILLS_FILE, "{}"),
            ("checkpoint", checkpoints, "{}"),
            ("figures", RESULTS_FILE, "{}"),
            ("settings", CONFIG_FILE, "{}"),
            ("profile", PROFILE_FILE, "{}"),
        ):
            if (self.folder / path).exists():
                say(f"  {what:<11} {words.format(self.folder / path)}")
        check_errors(results)


def _early_log() -> MemoryHandler:
    """Warnings go to the screen; everything is kept until there is a file to write it to."""
    kept = MemoryHandler(capacity=1, flushLevel=logging.NOTSET)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    screen.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    package = logging.getLogger("sdar")
    package.setLevel(logging.INFO)
    for handler in package.handlers[:]:  # of an earlier run in this process
        package.removeHandler(handler)
        handler.close()
    package.addHandler(kept)
    package.addHandler(screen)
    return kept


def _use_threads(threads: int | None) -> None:
    """Set torch's threads: as configured, else as the environment says (``OMP_NUM_THREADS``), else all cores."""
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(available or 1)


def _named(agent: str, results: list[EvaluationResult]) -> list[EvaluationResult]:
    """The rows of the table for one set of weights: alone, and with skills in the prompt."""
    return [result.named(agent if result.name == "val" else f"{agent}, with skills") for result in results]
