"""Monitors the metrics of a run and warns once when something has gone wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Le
from lightning import Trainer

from sdar.callbacks.base import IterationCallback
from sdar.config.fields import AtLeastOne, Fraction, checked
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule

logger = logging.getLogger(__name__)


class CurriculumMonitor(IterationCallback):
    """Warns about a missing curriculum, a collapsing policy, skipped steps, and texts out of proportion.

    A warning is logged when its condition has held for ``patience`` iterations in a row, and again only after the
    condition has ended and come back. The counters are in the checkpoint.

    Args:
        patience: iterations in a row.
        pinned_fraction: the gate is pinned when the strongly gated fraction is below this or above 1 minus this: then
            it weighs all tokens alike.
        entropy_fraction: the policy collapses when its entropy falls below this fraction of the first iteration's.
        truncated_fraction: largest fraction of responses that may end at the length limit.
        teacher_context_fraction: largest fraction of the teacher's tokens that may be privileged text.
        equal_group_fraction: largest fraction of groups that may have equal returns.
        error_fraction: largest fraction of episodes that may end by an error.
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
        self.first_entropy: float | None = None
        self.counts: dict[str, int] = {}
        # By alarm: the beginning of the metrics whose sum is compared, the largest value allowed, and the message.
        self._largest = {
            "length": (
                "rollout/response_truncated_fraction",
                truncated_fraction,
                "{:.0%} of the responses were cut at the length limit; raise it, or check episodes.jsonl",
            ),
            "context": (
                "curriculum/teacher_context_fraction",
                teacher_context_fraction,
                "{:.0%} of the teacher's tokens are privileged text; retrieve fewer or shorter skills",
            ),
            "groups": (
                "rollout/equal_group_fraction",
                equal_group_fraction,
                "all returns are equal in {:.0%} of the groups, which gives no reward to learn from; the tasks are too "
                "hard or too easy for this policy, or the groups are too small",
            ),
            "errors": (
                "rollout/end/error_",
                error_fraction,
                "{:.0%} of the episodes ended by an error and were left out; episodes.jsonl names the errors",
            ),
            "steps": (
                "train/skipped_steps",
                0,
                "{:.0f} optimizer steps were skipped, because loss or gradient was not finite; lower the learning rate",
            ),
        }

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Check the iteration's metrics. They are those of all ranks, so only the first rank logs."""
        if module.report is None:
            return
        gate = module.report.gate
        reads_gap = gate.reads_gap and getattr(gate, "beta", 1.0) != 0  # a slope of 0 ignores it as well
        for message in self.check(module.report.metrics, gate_reads_gap=reads_gap):
            if trainer.is_global_zero:
                logger.warning("iteration %d: %s", iteration.index, message)

    def check(self, metrics: Mapping[str, float], *, gate_reads_gap: bool = True) -> list[str]:
        """The warnings of this iteration; call it once per iteration. A gate that ignores the gap cannot be pinned."""
        if self.first_entropy is None:
            self.first_entropy = metrics.get("rollout/entropy")
        alarms = {"gate": self._gate_pinned(metrics) if gate_reads_gap else None, "entropy": self._collapsed(metrics)}
        for name, (tag, largest, text) in self._largest.items():
            share = sum(value for metric, value in metrics.items() if metric.startswith(tag))
            alarms[name] = None if share <= largest else text.format(share)
        messages = []
        for name, message in alarms.items():
            self.counts[name] = 0 if message is None else self.counts.get(name, 0) + 1
            if message is not None and self.counts[name] == self.patience:
                messages.append(message)
        return messages

    def state_dict(self) -> dict[str, Any]:
        """The counters: a resumed run warns when an uninterrupted run would."""
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
            f"the gate is pinned: the strongly gated fraction is {share:.3f}, so the teacher endorses almost {side} "
            f"and there is no curriculum; check the retrieved skills and curriculum/gap_mean"
        )

    def _collapsed(self, metrics: Mapping[str, float]) -> str | None:
        entropy = metrics.get("rollout/entropy")
        if entropy is None or self.first_entropy is None or entropy >= self.entropy_fraction * self.first_entropy:
            return None
        return (
            f"the policy's entropy fell from {self.first_entropy:.3f} to {entropy:.3f} nats, so the members of a group "
            f"hardly differ; lower the learning rate or the distillation coefficient, or raise the entropy bonus"
        )
