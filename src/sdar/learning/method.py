"""A method: what is learned from an iteration, and how. Each file of ``configs/algorithm`` is one.

Settings that contradict each other are refused here and nowhere else: within a method when it is made, with what
surrounds it by :meth:`Method.check`.
"""

from __future__ import annotations

import copy
from dataclasses import field
from typing import Literal

from sdar.config.fields import AtLeastOne, settings
from sdar.config.words import shown
from sdar.errors import UserError
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.supervision import Supervision
from sdar.objective.estimator import AdvantageEstimator, GroupAdvantage
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.schedule import Constant, Feedback, Schedules, Share
from sdar.objective.shaping import Shaping
from sdar.rollout.settings import RolloutSettings
from sdar.teacher.base import Teacher
from sdar.teacher.weights import check_needs, check_sharding


@settings(frozen=True)
class LossAggregation:
    """Over what advantages and losses are averaged: the group ``loss_aggregation``.

    ``kind``              token_mean: losses are means over all tokens of an optimizer step, group statistics are taken
                          over episodes; reference_code: as the paper's code does, token means over each micro-batch and
                          group statistics over turn rows
    ``micro_batch_rows``  reference_code only: rows per micro-batch
    """

    kind: Literal["token_mean", "reference_code"] = "token_mean"
    micro_batch_rows: AtLeastOne | None = None

    def __post_init__(self) -> None:
        """Refuse a size that nothing reads."""
        if self.kind == "token_mean" and self.micro_batch_rows is not None:
            raise UserError(
                f"loss_aggregation.micro_batch_rows={self.micro_batch_rows} is for loss_aggregation=reference_code; "
                "set it to null (optimizer.max_tokens_per_micro_batch bounds the memory of a micro-batch)"
            )

    @property
    def is_reference_code(self) -> bool:
        """Whether averages are those of the paper's code."""
        return self.kind == "reference_code"


@settings(frozen=True)
class Method:
    """A method of training. The defaults are SDAR with the paper's values for ALFWorld.

    ``name``              names the run's folder
    ``objective``         terms and coefficients
    ``advantage``         credit of every turn
    ``shaping``           what the teacher makes of the advantages, token by token; None: nothing
    ``supervision``       extra supervised rows added to the loss; None disables them
    ``schedules``         how the distillation coefficient and the gate's slope change over the iterations
    ``aggregation``       over what advantages and losses are averaged
    ``score_teacher``     whether the teacher is scored and ``curriculum/*`` logged. With a distillation coefficient of
                          0 scoring changes no weight, episode or other metric
    ``skills_in_prompt``  whether training rollouts have the teacher's text in their own prompt
    """

    name: str = "sdar"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    advantage: AdvantageEstimator = field(default_factory=GroupAdvantage)
    shaping: Shaping | None = None
    supervision: Supervision | None = None
    schedules: Schedules = field(default_factory=Schedules)
    aggregation: LossAggregation = field(default_factory=LossAggregation)
    score_teacher: bool = True
    skills_in_prompt: bool = False

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        gate, schedules = self.objective.gate, self.schedules
        if not self.score_teacher and (what := self._teachers_part()) is not None:
            raise UserError(
                f"{what} needs a scored teacher, but algorithm.score_teacher=false; set algorithm.score_teacher=true, "
                "or leave it as in algorithm=grpo"
            )
        if self.skills_in_prompt and self.score_teacher:
            raise UserError(
                "algorithm.skills_in_prompt=true shows the student what the teacher reads, so there is no gap for "
                "algorithm.score_teacher=true to measure; set one of them to false"
            )
        if self.shaping is not None and self.shaping.weight != 0 and self.objective.policy_coefficient == 0:
            raise UserError(
                f"algorithm.shaping.weight={self.shaping.weight:g} shapes advantages, but "
                "algorithm.objective.policy_coefficient=0 learns from none; set algorithm.shaping=null, or a "
                "policy_coefficient above 0"
            )
        for name in ("beta", "policy"):
            if isinstance(getattr(schedules, name), Share):
                raise UserError(
                    f"schedule.{name} must be another schedule than Share, which sets the distillation coefficient to "
                    "a share of the policy gradient; use it for schedule.coefficient"
                )
        if isinstance(schedules.coefficient, Share) and self.objective.policy_coefficient == 0:
            raise UserError(
                "schedule.coefficient=Share is a share of the policy gradient, but "
                "algorithm.objective.policy_coefficient=0 has none; set another schedule, or a policy_coefficient "
                "above 0"
            )
        if isinstance(schedules.coefficient, Share) and self.objective.distillation_coefficient == 0:
            raise UserError(
                "schedule.coefficient=Share sets the distillation coefficient, but "
                "algorithm.objective.distillation_coefficient=0 has no such term; set another schedule, or a "
                "coefficient above 0"
            )
        for name, scheduled in (
            ("coefficient", schedules.coefficient),
            ("beta", schedules.beta),
            ("policy", schedules.policy),
        ):
            if isinstance(scheduled, Feedback) and not self.score_teacher:
                raise UserError(
                    f"schedule.{name} follows the gate's activity, but algorithm.score_teacher=false asks no teacher; "
                    "set another schedule"
                )
            if isinstance(scheduled, Feedback) and not gate.reads_gap:
                raise UserError(
                    f"schedule.{name} follows the gate's activity, but gate={gate.name} ignores the teacher; set "
                    "gate=gap or gate=soft_or, or another schedule"
                )
        if getattr(gate, "beta", None) is None and schedules.beta != Constant(1.0):
            raise UserError(
                f"schedule.beta changes the gate's slope, but gate={gate.name} has none; set it to Constant(1)"
            )
        if self.aggregation.is_reference_code:
            self.estimator  # noqa: B018 - refuses an advantage that has no such form
            if self.objective.policy_length is not None:
                raise UserError(
                    "algorithm.objective.policy_length divides by a constant length, but "
                    "loss_aggregation=reference_code takes the mean of every micro-batch; set "
                    "algorithm.objective.policy_length=null, or loss_aggregation=token_mean"
                )

    def _teachers_part(self) -> str | None:
        """The first setting that only a scored teacher gives a meaning."""
        objective = self.objective
        if objective.distillation_coefficient != 0:
            return f"algorithm.objective.distillation_coefficient={objective.distillation_coefficient:g}"
        if self.shaping is not None and self.shaping.weight != 0:
            return f"algorithm.shaping.weight={self.shaping.weight:g}"
        for name, scheduled in (("coefficient", self.schedules.coefficient), ("beta", self.schedules.beta)):
            if scheduled != Constant(1.0):
                return f"schedule.{name}"
        if objective.gate.name != "gap":
            return f"gate={objective.gate.name}"
        return None if objective.divergence.name == "sampled" else f"divergence={objective.divergence.name}"

    @property
    def estimator(self) -> AdvantageEstimator:
        """The advantage with the group statistics of the aggregation."""
        return self.advantage.over_turn_rows() if self.aggregation.is_reference_code else self.advantage

    def at(self, coefficient_factor: float, beta_factor: float, policy_factor: float = 1.0) -> Method:
        """The method of an iteration: factors >= 0 of lambda and the shaping's weight, of beta, of the policy term."""
        # Not through the constructor: a schedule may take out the last term.
        found = copy.copy(self)
        shaping = self.shaping and self.shaping.scaled(coefficient_factor)
        object.__setattr__(found, "objective", self.objective.scheduled(coefficient_factor, beta_factor, policy_factor))
        object.__setattr__(found, "shaping", None if shaping is None or shaping.weight == 0 else shaping)
        if self.supervision is not None and self.supervision.coefficient == 0:
            object.__setattr__(found, "supervision", None)
        return found

    def under(self, objective: ObjectiveConfig) -> Method:
        """The method of an optimizer step with that objective."""
        found = copy.copy(self)
        object.__setattr__(found, "objective", objective)
        return found

    def check(
        self,
        teacher: Teacher | None,
        rollout: RolloutSettings,
        optimizer: OptimizerSettings,
        *,
        processes: int = 1,
        sharded: bool = False,
        train: bool = True,
    ) -> None:
        """Refuse a teacher, rollouts, optimizer steps or processes that the method cannot be trained with.

        Args:
            teacher: None where there is none.
            rollout: how episodes are played.
            optimizer: how an iteration is cut into steps.
            processes: how many train together.
            sharded: whether the weights are spread over them (FSDP2).
            train: False where the method is evaluated alone, which needs no term.

        Raises:
            UserError: naming the settings.
        """
        supervised = self.supervision is not None and self.supervision.coefficient != 0
        if train and not supervised and not any(self.objective.coefficients().values()):
            raise UserError(
                "algorithm.objective: every coefficient is 0, so there is nothing to train; set train=false, or a "
                "coefficient above 0"
            )
        self._check_teacher(teacher, sharded=sharded)
        optimizer.check(sharded=sharded)
        self._check_measured(optimizer, sharded=sharded)
        self.check_prompts(teacher)
        self._check_rollout(rollout, optimizer)
        self._check_shares(rollout, optimizer, processes)

    def _check_teacher(self, teacher: Teacher | None, *, sharded: bool) -> None:
        if teacher is None:
            if self.score_teacher:
                what = self._teachers_part() or "algorithm.score_teacher=true"
                raise UserError(
                    f"{what} needs a teacher, but teacher=none; set teacher=skills, or algorithm=grpo with "
                    "algorithm.score_teacher=false"
                )
        elif self.score_teacher:
            weights = teacher.weights
            check_needs(self.objective.divergence, weights.source, keep_hidden=weights.keep_hidden)
            if sharded:
                check_sharding(weights.source)

    def _check_measured(self, optimizer: OptimizerSettings, *, sharded: bool) -> None:
        every = optimizer.measure_terms_every_n_iterations
        if every > 0 and sharded:
            raise UserError(
                f"optimizer.measure_terms_every_n_iterations={every} takes whole gradients, but trainer.strategy "
                "shards them; set it to 0, or trainer=ddp"
            )
        if every == 0 and isinstance(self.schedules.coefficient, Share):
            raise UserError(
                "schedule.coefficient=Share follows the measured gradients, but "
                "optimizer.measure_terms_every_n_iterations=0 measures none; set it to 1 or more"
            )
        if every > 0 and self.aggregation.is_reference_code:
            # Its micro-batches have divisors of their own, so that the terms' shares would not add up to the step's.
            raise UserError(
                f"optimizer.measure_terms_every_n_iterations={every} needs loss_aggregation=token_mean; set it to 0"
            )

    def check_prompts(self, teacher: Teacher | None) -> None:
        """UserError where the prompts are to hold a teacher's text that is not there before the episode."""
        if not self.skills_in_prompt:
            return
        if teacher is None:
            raise UserError(
                "algorithm.skills_in_prompt=true needs a teacher's skills, but teacher=none; set teacher=skills, or "
                "algorithm=grpo"
            )
        if not teacher.known_before:
            raise UserError(
                "algorithm.skills_in_prompt=true, but this teacher's text is only known after the episode; set "
                "teacher=skills, or algorithm.skills_in_prompt=false"
            )

    def _check_rollout(self, rollout: RolloutSettings, optimizer: OptimizerSettings) -> None:
        sampling = rollout.sampling
        if sampling.temperature == 0:
            raise UserError(
                "rollout.sampling.temperature must be > 0, got 0: temperature 0 has no sampling distribution to score"
            )
        for name, value, unfiltered in (("top_p", sampling.top_p, 1), ("top_k", sampling.top_k, 0)):
            if value != unfiltered:
                raise UserError(
                    f"rollout.sampling.{name} must be {unfiltered}, got {value}: training samples from the whole "
                    "distribution, which is the one that is scored (evaluation.sampling may filter)"
                )
        if self.objective.ratio == "episode" and rollout.context == "window":
            raise UserError(
                "algorithm.objective.ratio=episode needs an episode in one row, but rollout.context=window lays its "
                "turns into different micro-batches; set ratio=turn, or rollout=append"
            )
        if self.aggregation.is_reference_code:
            if rollout.context != "window":
                raise UserError(
                    f"loss_aggregation=reference_code averages over rows of one turn each, but rollout.context="
                    f"{rollout.context}; set rollout=window"
                )
            rows, part = optimizer.rows_per_step, self.aggregation.micro_batch_rows
            if rows is None or part is None or rows % part:
                raise UserError(
                    f"optimizer.rows_per_step must be a multiple of loss_aggregation.micro_batch_rows={part} with "
                    f"loss_aggregation=reference_code, got {shown(rows)}"
                )

    def _check_shares(self, rollout: RolloutSettings, optimizer: OptimizerSettings, processes: int) -> None:
        """Tasks are dealt out whole, and every process takes equally many steps."""
        shares = [
            ("rollout.tasks_per_iteration", rollout.tasks_per_iteration, 1),
            ("optimizer.episodes_per_step", optimizer.episodes_per_step, 1),
        ]
        if self.aggregation.is_reference_code:
            shares.append(("optimizer.rows_per_step", optimizer.rows_per_step, self.aggregation.micro_batch_rows or 1))
        for name, value, part in shares:
            if value is not None and value % (processes * part):
                rows = f" times the {part} rows of a micro-batch" if part > 1 else ""
                raise UserError(f"{name} must be a multiple of the {processes} processes of the run{rows}, got {value}")
