"""Plays a panel before, during and after training, with and without the teacher's text in the prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from sdar.callbacks.base import say
from sdar.callbacks.checkpoints import Checkpoints
from sdar.callbacks.tensorboard import Curves
from sdar.episode import Task
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import Panel
from sdar.evaluation.record import PanelRecords
from sdar.evaluation.result import EvaluationResult, merge
from sdar.learning.logs import log_metrics
from sdar.learning.ranks import Ranks
from sdar.policy.sharding import gathered
from sdar.rollout.collector import Collector


class PanelEvaluation(Callback):
    """Evaluates every n iterations, before the first and after the last, and logs ``val/*``.

    The x axis is the number of iterations that the weights have learned from: the value at 10 belongs to the weights
    that play iteration 10. ``val/success_rate`` can be monitored, for example by a checkpoint callback. Draws are
    keyed by the panel's tasks, so an evaluation does not affect training.

    Args:
        collector: plays with the trained policy and the sampling of the evaluation.
        panel: the tasks, disjoint from training.
        seed: of the sampled tokens, the same in every evaluation, so that evaluations differ only by their weights.
        every_n_iterations: interval during training; a value below 1 counts as 1.
        privileged: the teacher's text of a task, for ``val_with_skills/*``; None disables it.
        before: whether to evaluate before the first iteration.
        records: where the panel of the start weights is recorded; None: it is played.

    Attributes:
        results: iterations learned from -> results named ``val`` and ``val_with_skills``. Checkpoints keep them: a
            resumed run has those of its earlier parts, unless panel, seed or sampling have changed.
        seconds: iterations learned from -> wall-clock seconds since training began, including earlier parts, excluding
            the evaluation itself.
    """

    def __init__(
        self,
        collector: Collector,
        panel: Panel,
        *,
        seed: int,
        every_n_iterations: int,
        privileged: Callable[[Task], str] | None = None,
        before: bool = True,
        records: PanelRecords | None = None,
    ) -> None:
        self.collector = collector
        self.panel = panel
        self.seed = seed
        self.every_n_iterations = max(1, every_n_iterations)
        self.privileged = privileged
        self.before = before
        self.records = records
        self.results: dict[int, list[EvaluationResult]] = {}
        self.seconds: dict[int, float] = {}
        self._began = time.perf_counter()
        self._same_terms = False

    @property
    def trained_for(self) -> float:
        """Wall-clock seconds since training began, including evaluations and earlier parts of a resumed run."""
        return time.perf_counter() - self._began

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the results so far, their panel, seed and sampling, and the time they took."""
        results = {learned: [result.to_dict() for result in found] for learned, found in self.results.items()}
        times = {"seconds": dict(self.seconds), "trained_for": self.trained_for}
        return {"terms": self._terms(), "results": results, **times}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the results of earlier parts of a resumed run if panel, seed and sampling are the same."""
        self._began = time.perf_counter() - float(state_dict["trained_for"])
        self._same_terms = state_dict["terms"] == self._terms()
        if not self._same_terms:
            return
        for learned, results in state_dict["results"].items():
            self.results[learned] = [EvaluationResult.from_dict(result) for result in results]
        self.seconds.update(state_dict["seconds"])

    def _terms(self) -> dict[str, Any]:
        return {"panel": self.panel.content_hash, "seed": self.seed, "sampling": repr(self.collector.settings.sampling)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Evaluate the initial weights, or those of a resumed run whose panel was due and not played to its end."""
        learned = trainer.current_epoch
        if self.results:
            self._remind(trainer, max(self.results))
        if learned == 0:
            self._began = time.perf_counter()
            if self.before:
                self.evaluate(trainer, 0)
        elif self._same_terms and learned % self.every_n_iterations == 0 and learned not in self.results:
            metrics = self.evaluate(trainer, learned)
            if not any(result.errors for result in self.results[learned]):
                trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

    def _remind(self, trainer: Trainer, learned: int) -> None:
        """Let TensorBoard's first screen go on with the last panel of the run that is continued."""
        rates = {f"{result.name}/success_rate": result.success_rate for result in self.results[learned] if result.n}
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.glance.hold(rates, learned)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate every n iterations, and after the last one."""
        learned = trainer.current_epoch + 1
        if learned % self.every_n_iterations != 0 and learned != trainer.max_epochs:
            return
        for saving in trainer.checkpoint_callbacks:
            if isinstance(saving, Checkpoints):
                saving.save(trainer)  # a panel takes long
        metrics = self.evaluate(trainer, learned)
        if any(result.errors for result in self.results[learned]):
            return  # on fewer tasks than the panel's, it is no value to choose a checkpoint by
        for name, value in metrics.items():
            # Loggers already have it, with the iteration on the x axis; this is for callbacks that monitor it.
            pl_module.log(name, value, logger=False, batch_size=1, sync_dist=trainer.world_size > 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Evaluate a run that was stopped early, while all processes still exist."""
        if trainer.current_epoch > 0 and trainer.current_epoch not in self.results:
            self.evaluate(trainer, trainer.current_epoch)

    def evaluate(self, trainer: Trainer, learned: int) -> dict[str, float]:
        """Play the panel with the present weights, on every rank, and log the metrics that are returned."""
        started = time.perf_counter()
        self.seconds[learned] = self.trained_for
        records = self.records if learned == 0 else None  # later weights are those of one run
        results = [self._play(trainer, "val", None, records)]
        if self.privileged is not None:
            results.append(self._play(trainer, "val_with_skills", self.privileged, records))
        self.results[learned] = results
        if trainer.is_global_zero:
            tell_recorded(results)
        metrics: dict[str, float] = {}
        for result in results:
            metrics |= result.metrics(result.name)
            if result.n:
                (low, high), name = result.interval, result.name
                metrics |= {f"{name}/n": float(result.n), f"{name}/interval_low": low, f"{name}/interval_high": high}
            if trainer.is_global_zero:
                say(f"after {learned} iterations  {result.line()}")
        metrics["time/evaluation_s"] = time.perf_counter() - started
        log_metrics(trainer.loggers, metrics, learned)
        return metrics

    def _play(
        self,
        trainer: Trainer,
        name: str,
        privileged: Callable[[Task], str] | None,
        records: PanelRecords | None,
    ) -> EvaluationResult:
        """Play a share of the panel on each rank, and merge the shares."""
        alone = trainer.world_size == 1
        with gathered(self.collector.policy.model):
            result = evaluate(
                self.collector,
                self.panel,
                seed=self.seed,
                name=name,
                privileged=privileged,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                records=records,
                agree=bool if alone else Ranks.of(trainer.lightning_module).all,
            )
        if alone:
            return result
        return merge(Ranks(size=trainer.world_size).gather([replace(result, episodes=())]))


def tell_recorded(results: Sequence[EvaluationResult]) -> None:
    """One line where panels were not played."""
    if names := [result.name for result in results if result.recorded]:
        say(
            f"{' and '.join(names)}: these weights have played the panel in an earlier run, whose episodes are taken "
            "(evaluation.reuse_panels=false plays it)"
        )
