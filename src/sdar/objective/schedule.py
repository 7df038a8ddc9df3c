"""Factors that change a coefficient from iteration to iteration.

A schedule multiplies a value that is stated elsewhere (lambda in ``algorithm``, beta in ``gate``), so a factor of 1 is
that value exactly. Iterations count from 0. A factor of exactly 0 takes the term out of the sum.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated

from annotated_types import Gt, Le

from sdar.config.fields import AtLeastOne, BelowOne, Count, Fraction, NotNegative, Positive, settings
from sdar.errors import UserError


class Schedule(ABC):
    """A factor >= 0 for every iteration."""

    @abstractmethod
    def factor(self, iteration: int) -> float:
        """The factor of this iteration, counted from 0."""

    def observe(  # noqa: B027
        self, gate_activity: float | None = None, distillation_share: float | None = None
    ) -> None:
        """Take note of an iteration; called once, at its end. None: it was not measured.

        Args:
            gate_activity: share of strongly gated tokens, in [0, 1].
            distillation_share: norm of the distillation's gradient, its coefficient included, over that of the policy
                gradient; at least 0.
        """

    def state(self) -> dict[str, float]:
        """What :meth:`observe` has changed, for the checkpoint; empty for schedules of the iteration alone."""
        return {}

    def load_state(self, state: dict[str, float]) -> None:  # noqa: B027
        """Continue from what :meth:`state` gave."""


@settings(frozen=True)
class Constant(Schedule):
    """The same ``value`` >= 0 always."""

    value: NotNegative = 1.0

    def factor(self, iteration: int) -> float:  # noqa: ARG002
        """``value``."""
        return self.value


@settings(frozen=True)
class Ramp(Schedule):
    """From ``start`` at iteration 0 to ``end`` at iteration ``iterations``, and ``end`` after it.

    ``start``, ``end`` >= 0; ``iterations`` >= 1.
    """

    start: NotNegative
    end: NotNegative
    iterations: AtLeastOne

    def factor(self, iteration: int) -> float:
        """Exactly ``start`` and ``end`` at the two ends."""
        return _between(self.start, self.end, self.way(min(iteration / self.iterations, 1.0)))

    @abstractmethod
    def way(self, time: float) -> float:
        """How much of the way is done after this share of the time; 0 at 0, 1 at 1."""


class Linear(Ramp):
    """In a straight line."""

    def way(self, time: float) -> float:
        """``time``."""
        return time


class Cosine(Ramp):
    """Along half a cosine: flat at both ends, half way at half time."""

    def way(self, time: float) -> float:
        """(1 - cos(pi time)) / 2."""
        return (1.0 - math.cos(math.pi * time)) / 2.0


@settings(frozen=True)
class Step(Schedule):
    """``before`` up to iteration ``at``, ``after`` from it on. ``before``, ``after`` >= 0; ``at`` >= 1."""

    at: AtLeastOne
    before: NotNegative = 0.0
    after: NotNegative = 1.0

    def factor(self, iteration: int) -> float:
        """One of the two, exactly."""
        return self.before if iteration < self.at else self.after


@settings(frozen=True)
class WarmDown(Schedule):
    """1 up to iteration ``hold``, then in a straight line to 0, which it is at iteration ``zero_at`` and ever after.

    ``hold`` >= 0; ``zero_at`` > ``hold``.
    """

    zero_at: AtLeastOne
    hold: Count = 0

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if self.zero_at <= self.hold:
            raise UserError(f"WarmDown.zero_at must be > hold={self.hold}, got {self.zero_at}")

    def factor(self, iteration: int) -> float:
        """In [0, 1], never rising, exactly 0 from ``zero_at`` on."""
        return _between(1.0, 0.0, min(max(iteration - self.hold, 0) / (self.zero_at - self.hold), 1.0))


@settings
class Feedback(Schedule):
    """1 + gain * (a - target), kept within bounds; a is the moving average of the gate's activity so far.

    Activity is the share of strongly gated tokens. A teacher that endorses more than the target share of what the
    student does is given more weight, one that endorses less is given less; a negative gain does the reverse. Before
    the first iteration has been seen the factor is 1 (within the bounds).

    ``target``              in [0, 1]: the activity at which the factor is 1
    ``gain``                change of the factor per unit of activity
    ``decay``               in [0, 1): weight of the past in the average; 0: the last iteration alone
    ``minimum``, ``maximum``  bounds of the factor, 0 <= minimum <= maximum
    """

    target: Fraction = 0.5
    gain: float = 2.0
    decay: BelowOne = 0.9
    minimum: NotNegative = 0.0
    maximum: NotNegative = 2.0
    average: float | None = field(default=None, init=False)
    """The moving average; None before the first iteration has been seen."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if self.minimum > self.maximum:
            raise UserError(f"Feedback.minimum must be <= maximum={self.maximum}, got {self.minimum}")

    def factor(self, iteration: int) -> float:  # noqa: ARG002
        """The factor that the iterations seen so far call for."""
        wanted = 1.0 if self.average is None else 1.0 + self.gain * (self.average - self.target)
        return min(max(wanted, self.minimum), self.maximum)

    def observe(self, gate_activity: float | None = None, distillation_share: float | None = None) -> None:  # noqa: ARG002
        """Move the average; the first observation is the average."""
        if gate_activity is None:
            return
        if self.average is None:
            self.average = gate_activity
        else:
            self.average = self.decay * self.average + (1.0 - self.decay) * gate_activity

    def state(self) -> dict[str, float]:
        """The average, once there is one."""
        return {} if self.average is None else {"average": self.average}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue from a saved average."""
        self.average = state.get("average")


@settings
class Share(Schedule):
    """Whatever factor makes the distillation's gradient ``target`` times as long as the policy gradient.

    So its strength no longer depends on the model, the environment or how rare rewards are. The factor is ``target``
    over the geometric moving average of the measured share per unit of factor; it needs
    ``optimizer.measure_terms_every_n_iterations``. Until the first measurement it is 1 (within the bounds).

    ``target``              > 0, at most 1000
    ``decay``               in [0, 1): weight of the past in the average; 0: the last measurement alone
    ``minimum``, ``maximum``  bounds of the factor, 0 < minimum <= maximum
    """

    target: Annotated[float, Gt(0), Le(1000)] = 0.3
    decay: BelowOne = 0.8
    minimum: Positive = 0.001
    maximum: Positive = 1000.0
    log_unit_share: float | None = field(default=None, init=False)
    """The moving average of log(share / factor); None before the first measurement."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if self.minimum > self.maximum:
            raise UserError(f"Share.minimum must be <= maximum={self.maximum}, got {self.minimum}")

    def factor(self, iteration: int) -> float:  # noqa: ARG002
        """The factor that the measurements so far call for."""
        wanted = 1.0 if self.log_unit_share is None else math.exp(math.log(self.target) - self.log_unit_share)
        return min(max(wanted, self.minimum), self.maximum)

    def observe(self, gate_activity: float | None = None, distillation_share: float | None = None) -> None:  # noqa: ARG002
        """Move the average. A share of 0 has no logarithm and is no measurement: nothing was distilled."""
        if distillation_share is None or distillation_share == 0:
            return
        seen = math.log(distillation_share) - math.log(self.factor(0))
        past = seen if self.log_unit_share is None else self.log_unit_share
        self.log_unit_share = self.decay * past + (1.0 - self.decay) * seen

    def state(self) -> dict[str, float]:
        """The average, once there is one."""
        return {} if self.log_unit_share is None else {"log_unit_share": self.log_unit_share}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue from a saved average."""
        self.log_unit_share = state.get("log_unit_share")


@settings(frozen=True)
class Schedules:
    """What is scheduled: group ``schedule``.

    ``coefficient``  of the distillation coefficient (lambda)
    ``beta``         of the gate's slope; of no effect on a gate without one
    ``policy``       of the policy term's coefficient
    """

    coefficient: Schedule = field(default_factory=Constant)
    beta: Schedule = field(default_factory=Constant)
    policy: Schedule = field(default_factory=Constant)

    def observe(self, gate_activity: float | None, distillation_share: float | None) -> None:
        """Tell all of an iteration; see :meth:`Schedule.observe`."""
        for schedule in self._named().values():
            schedule.observe(gate_activity, distillation_share)

    def state(self) -> dict[str, dict[str, float]]:
        """For the checkpoint."""
        return {name: schedule.state() for name, schedule in self._named().items()}

    def load_state(self, state: dict[str, dict[str, float]]) -> None:
        """Continue from what :meth:`state` gave."""
        for name, schedule in self._named().items():
            schedule.load_state(state.get(name, {}))

    def _named(self) -> dict[str, Schedule]:
        return {"coefficient": self.coefficient, "beta": self.beta, "policy": self.policy}


def _between(start: float, end: float, share: float) -> float:
    """Exact at both ends: start + (end - start) * 1 may miss ``end`` by a rounding, and 0 must be 0."""
    return end if share >= 1.0 else start + (end - start) * share
