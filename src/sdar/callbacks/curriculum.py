"""Watches the figures of a run and warns, once, when they say that something has gone wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Le
from lightning import Trainer

from sdar.callbacks.base import IterationCallback
from sdar.config.fields import AtLeastOne, Fraction, checked
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule

logger = logging.getLogger(__name__)


class CurriculumMonitor(IterationCallback):
    """Warns about a curriculum that is none, a policy that collapses, and prompts or responses out of proportion.

    An alarm sounds when its condition has held for ``patience`` iterations in a row; it is repeated only after the
    condition has ended and come back. The counters are in the checkpoint.

    Args:
        patience: iterations in a row, at least 1.
        pinned_fraction: in [0, 0.5]; the gate is pinned when the strongly gated fraction is below this or above 1
            minus this: then it weighs all tokens alike.
        entropy_fraction: in [0, 1]; the policy collapses when its entropy falls below this share of the first
            iteration's.
        truncated_fraction: in [0, 1]; largest share of responses that may end at the length limit.
        teacher_context_fraction: in [0, 1]; largest share of the teacher's tokens that may be privileged text.
        equal_group_fraction: in [0, 1]; largest share of groups that may have no spread of returns to learn from.
        error_fraction: in [0, 1]; largest share of episodes that may end by an error.
    """

    @checked
    def __init__(
        self,
        patience: AtLeastOne = 3,
        pinned_fraction: Annotated[float, Ge(0), Le(0.5)] = 0.01,
        entropy_fraction: Fraction = 0.1,
        truncated_fraction: Fraction = 0.2,
        teacher_context_fraction: Fraction = 0.5,
        equal_group_fraction: Fraction = 0.95,
        error_fraction: Fraction = 0.05,
    ) -> None:
        self.patience = patience
        self.pinned_fraction = pinned_fraction
        self.entropy_fraction = entropy_fraction
        self.truncated_fraction = truncated_fraction
        self.teacher_context_fraction = teacher_context_fraction
        self.equal_group_fraction = equal_group_fraction
        self.error_fraction = error_fraction
        self.first_entropy: float | None = None
        self.counts: dict[str, int] = {}
        self._alarms: dict[str, Callable[[Mapping[str, float]], str | None]] = {
            "gate": self._gate_pinned,
            "entropy": self._entropy_collapsed,
            "length": self._responses_at_limit,
            "context": self._teacher_context_dominates,
            "groups": self._no_spread,
            "errors": self._errors,
        }

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Check the iteration's figures; they are those of all ranks, so the first rank alone speaks."""
        if module.report is None:
            return
        reads_gap = module.method.objective.gate.reads_gap
        for message in self.check(module.report.metrics, gate_reads_gap=reads_gap):
            if trainer.is_global_zero:
                logger.warning("iteration %d: %s", iteration.index, message)

    def check(self, metrics: Mapping[str, float], *, gate_reads_gap: bool = True) -> list[str]:
        """The alarms that sound now; call it once per iteration. A gate that ignores the gap cannot be pinned."""
        if self.first_entropy is None:
            self.first_entropy = metrics.get("rollout/entropy")
        messages = []
        for name, alarm in self._alarms.items():
            message = alarm(metrics) if gate_reads_gap or name != "gate" else None
            self.counts[name] = 0 if message is None else self.counts.get(name, 0) + 1
            if message is not None and self.counts[name] == self.patience:
                messages.append(message)
        return messages

    def state_dict(self) -> dict[str, Any]:
        """The counters: a resumed run warns when the run that was not stopped would."""
        return {"counts": dict(self.counts), "first_entropy": self.first_entropy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
        self.counts = dict(state_dict["counts"])
        self.first_entropy = state_dict["first_entropy"]

    def _gate_pinned(self, metrics: Mapping[str, float]) -> str | None:
        share = metrics.get("curriculum/strongly_gated_fraction")
        if share is None or self.pinned_fraction <= share <= 1 - self.pinned_fraction:
            return None
        side = "no token" if share < 0.5 else "every token"
        return (
            f"the gate is pinned: strongly gated fraction {share:.3f}, so that almost {side} is endorsed by the "
            f"teacher and there is no curriculum; look at the retrieved skills and at curriculum/gap_mean"
        )

    def _entropy_collapsed(self, metrics: Mapping[str, float]) -> str | None:
        entropy = metrics.get("rollout/entropy")
        if entropy is None or self.first_entropy is None or entropy >= self.entropy_fraction * self.first_entropy:
            return None
        return (
            f"the policy's entropy fell from {self.first_entropy:.3f} to {entropy:.3f} nats, so that the members of a "
            f"group hardly differ; lower the learning rate or the distillation coefficient, or raise the entropy bonus"
        )

    def _responses_at_limit(self, metrics: Mapping[str, float]) -> str | None:
        share = metrics.get("rollout/response_truncated_fraction")
        if share is None or share <= self.truncated_fraction:
            return None
        return f"{share:.0%} of the responses were cut at the length limit; raise it or look at episodes.jsonl"

    def _teacher_context_dominates(self, metrics: Mapping[str, float]) -> str | None:
        share = metrics.get("curriculum/teacher_context_fraction")
        if share is None or share <= self.teacher_context_fraction:
            return None
        return f"{share:.0%} of the tokens that the teacher reads are privileged text; retrieve fewer or shorter skills"

    def _no_spread(self, metrics: Mapping[str, float]) -> str | None:
        share = metrics.get("rollout/equal_group_fraction")
        if share is None or share <= self.equal_group_fraction:
            return None
        return (
            f"in {share:.0%} of the groups all returns are equal, so that there is no reward to learn from; the tasks "
            f"are too hard or too easy for this policy, or the groups too small"
        )

    def _errors(self, metrics: Mapping[str, float]) -> str | None:
        share = sum(value for name, value in metrics.items() if name.startswith("rollout/end/error_"))
        if share <= self.error_fraction:
            return None
        return f"{share:.0%} of the episodes were ended by an error and left out; episodes.jsonl names the errors"
