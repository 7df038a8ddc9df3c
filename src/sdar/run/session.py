"""A run from its validated settings to its last line: build, evaluate, fit, evaluate, say where to look."""

from __future__ import annotations

import logging
import os
from logging.handlers import MemoryHandler
from pathlib import Path

import lightning as L
import torch
import transformers

from sdar.callbacks.episode_log import FILE_NAME as EPISODES_FILE
from sdar.callbacks.skill_log import FILE_NAME as SKILLS_FILE
from sdar.evaluation.report import final_table
from sdar.evaluation.result import EvaluationResult
from sdar.policy.checkpoint import load_student
from sdar.policy.trainable import trainable
from sdar.run.assembly import Assembly, assemble, build_trainer, panel_evaluation
from sdar.run.folder import CONFIG_FILE, LAST_CHECKPOINT, RESULTS_FILE
from sdar.run.results import play_baselines, play_policy, write_results
from sdar.run.resume import check_checkpoint, find_checkpoint
from sdar.run.settings import RunSettings
from sdar.run.state import RunState

LOG_FILE = "run.log"


class Session:
    """One run.

    ``leader``      the process that prints, evaluates and writes; the others only train with it
    ``folder``      the run folder
    ``checkpoint``  what the run continues from; None: it starts afresh

    Raises:
        UserError: anything that the settings got wrong and that is only seen when the objects are built.
    """

    def __init__(self, settings: RunSettings, *, leader: bool) -> None:
        self.settings = settings
        self.leader = leader
        self.folder = Path(settings.config["run_dir"])
        self.checkpoint = find_checkpoint(settings.config)
        self._log = _early_log() if leader else None
        transformers.utils.logging.disable_progress_bar()
        _use_threads(settings.config["threads"])
        L.seed_everything(settings.seed, verbose=False)
        self.assembly: Assembly = assemble(settings)
        self.evaluation = panel_evaluation(self.assembly, settings)
        self.trainer = build_trainer(settings.config, [self.evaluation, RunState(self.folder)])
        if self.checkpoint is not None:
            check_checkpoint(
                self.checkpoint,
                self.assembly.module,
                train=settings.train,
                max_iterations=settings.trainer.get("max_epochs"),
            )

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
            # A resumed run does not see its initial weights again, and the callback plays them only at the start.
            before = None if self.checkpoint is None else self._play()
            self._fit()
            if not self.trainer.is_global_zero:
                return
            played = self.evaluation.results
            results += _named("warm start", before or played[0])
            results += _named("trained", played.get(self.trainer.current_epoch) or self._play())
            iterations = self.trainer.current_epoch
        else:
            results += _named("warm start", self._play())
            if self.checkpoint is not None:
                load_student(self.assembly.module, self.assembly.policy, self.checkpoint)
                results += _named("checkpoint", self._play())
        self._conclude(results, iterations)

    def _play(self) -> list[EvaluationResult]:
        """Play the panel with the present weights."""
        # Lightning brings the model back to the CPU when a fit ends.
        self.assembly.module.to(self.trainer.strategy.root_device)
        return play_policy(self.assembly, self.settings.evaluation.seed)

    def _fit(self) -> None:
        self.trainer.fit(
            self.assembly.module, datamodule=self.assembly.datamodule, ckpt_path=self.checkpoint, weights_only=True
        )

    def _open_log(self) -> None:
        """What was said while the objects were built goes to the run folder, and all that follows."""
        if self._log is not None:
            file = logging.FileHandler(self.folder / LOG_FILE, encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            self._log.setTarget(file)
            self._log.flush()

    def _introduce(self) -> None:
        assembly, settings = self.assembly, self.settings
        model = assembly.module.model
        parameters = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
        if assembly.policy.lora is not None:
            parameters += f", {sum(p.numel() for p in trainable(model)) / 1e6:.2f} M of them trained"
        _say(f"run folder: {self.folder}")
        _say(
            f"{settings.method.name} on {assembly.environment.name} with {assembly.policy.name} "
            f"({parameters}), seed {settings.seed}, "
            f"{settings.rollout.tasks_per_iteration} tasks x {settings.rollout.group_size} episodes per iteration"
        )
        _say(
            f"panel: {len(assembly.panel.tasks)} tasks of {assembly.panel.split}, content hash "
            f"{assembly.panel.content_hash[:12]}"
        )
        if self.checkpoint is not None:
            verb = "continuing from" if settings.train else "evaluating"
            _say(f"{verb} {self.checkpoint}")

    def _conclude(self, results: list[EvaluationResult], iterations: int | None) -> None:
        write_results(self.folder, self.assembly, results, iterations=iterations, evaluation=self.evaluation)
        panel = self.assembly.panel
        print(final_table(results, title=f"Success on {len(panel.tasks)} tasks of {panel.split}"), flush=True)
        _say("Where to look:")
        for what, path, words in (
            ("curves", "tensorboard", "tensorboard --logdir {}"),
            ("episodes", EPISODES_FILE, "{}"),
            ("skills", SKILLS_FILE, "{}"),
            ("checkpoint", LAST_CHECKPOINT, "{}"),
            ("figures", RESULTS_FILE, "{}"),
            ("settings", CONFIG_FILE, "{}"),
        ):
            if (self.folder / path).exists():
                _say(f"  {what:<11} {words.format(self.folder / path)}")


def _early_log() -> MemoryHandler:
    """Warnings go to the screen; everything is kept until there is a file to write it to."""
    kept = MemoryHandler(capacity=1, flushLevel=logging.NOTSET)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    screen.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
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


def _say(text: str) -> None:
    logging.getLogger(__name__).info("%s", text)
    print(text, flush=True)


def _named(agent: str, results: list[EvaluationResult]) -> list[EvaluationResult]:
    """The rows of the table for one set of weights: alone, and with skills in the prompt."""
    return [result.named(agent if result.name == "val" else f"{agent}, with skills") for result in results]
