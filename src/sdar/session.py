"""A run from its validated settings to its last line: build, evaluate, fit, evaluate, say where to look."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch

from sdar.assembly import Assembly, assemble, build_trainer
from sdar.checkpoint import load_student
from sdar.evaluation.report import final_table
from sdar.evaluation.result import EvaluationResult
from sdar.finale import RESULTS_FILE, play_baselines, play_policy, write_results
from sdar.resume import check_checkpoint, find_checkpoint
from sdar.runs import CONFIG_FILE, LAST_CHECKPOINT

LOG_FILE = "run.log"


class Session:
    """One run.

    ``leader``      the process that prints, evaluates and writes; the others only train with it
    ``folder``      the run folder
    ``checkpoint``  what the run continues from; None: it starts afresh

    Raises:
        UserError: anything that the settings got wrong and that is only seen when the objects are built.
    """

    def __init__(self, settings: Mapping[str, Any], *, leader: bool) -> None:
        self.settings = settings
        self.leader = leader
        self.folder = Path(settings["run_dir"])
        self.checkpoint = find_checkpoint(settings)
        _use_threads(settings["threads"])
        L.seed_everything(settings["seed"], verbose=False)
        self.assembly: Assembly = assemble(settings)
        self.trainer = build_trainer(settings, [])
        if self.checkpoint is not None:
            iterations = settings["trainer"].get("max_epochs") if settings["train"] else None
            check_checkpoint(self.checkpoint, self.assembly.policy, iterations)

    def run(self) -> None:
        """Train and evaluate, as the settings say."""
        if not self.leader:
            self._fit()
            return
        self._open_log()
        self._introduce()
        results = self._before()
        if self.settings["train"]:
            self._fit()
            if not self.trainer.is_global_zero:
                return
            results += self._evaluate("trained")
        else:
            assert self.checkpoint is not None
            load_student(self.assembly.module, self.assembly.policy, self.checkpoint)
            results += self._evaluate("checkpoint")
        self._conclude(results)

    def _before(self) -> list[EvaluationResult]:
        """The agents that need no training: baselines and the initial weights."""
        evaluation = self.settings["evaluation"]
        results: list[EvaluationResult] = []
        if evaluation["baselines"]:
            results += play_baselines(self.assembly, evaluation["seed"])
        return results + self._evaluate("warm start")

    def _evaluate(self, name: str) -> list[EvaluationResult]:
        # Lightning brings the model back to the CPU when a fit ends.
        self.assembly.module.to(self.trainer.strategy.root_device)
        results = play_policy(self.assembly, name, self.settings["evaluation"]["seed"])
        for result in results:
            _say(result.line())
        return results

    def _fit(self) -> None:
        self.trainer.fit(
            self.assembly.module, datamodule=self.assembly.datamodule, ckpt_path=self.checkpoint, weights_only=True
        )

    def _open_log(self) -> None:
        """Everything the package says goes to the run folder, warnings to the screen as well."""
        handler = logging.FileHandler(self.folder / LOG_FILE, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        screen = logging.StreamHandler()
        screen.setLevel(logging.WARNING)
        screen.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        package = logging.getLogger("sdar")
        package.setLevel(logging.INFO)
        package.handlers = [handler, screen]
        package.propagate = False

    def _introduce(self) -> None:
        assembly, settings = self.assembly, self.settings
        parameters = sum(p.numel() for p in assembly.module.model.parameters())
        rollout = settings["rollout"]
        _say(f"run folder: {self.folder}")
        _say(
            f"{settings['algorithm']['name']} on {assembly.environment.name} with {assembly.policy.name} "
            f"({parameters / 1e6:.2f} M parameters), seed {settings['seed']}, "
            f"{rollout['tasks_per_iteration']} tasks x {rollout['group_size']} episodes per iteration"
        )
        _say(
            f"panel: {len(assembly.panel.tasks)} tasks of {assembly.panel.split}, content hash "
            f"{assembly.panel.content_hash[:12]}"
        )
        if self.checkpoint is not None:
            verb = "continuing from" if settings["train"] else "evaluating"
            _say(f"{verb} {self.checkpoint}")

    def _conclude(self, results: list[EvaluationResult]) -> None:
        write_results(self.folder, self.assembly, results)
        panel = self.assembly.panel
        print(final_table(results, title=f"Success on {len(panel.tasks)} tasks of {panel.split}"), flush=True)
        _say("Where to look:")
        last = self.folder / LAST_CHECKPOINT
        if self.settings["train"]:
            _say(f"  curves       tensorboard --logdir {self.folder}")
            _say(f"  episodes     {self.folder / 'episodes.jsonl'}")
        if last.exists():
            _say(f"  checkpoint   {last}")
        _say(f"  figures      {self.folder / RESULTS_FILE}")
        _say(f"  settings     {self.folder / CONFIG_FILE}")


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
