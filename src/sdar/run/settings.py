"""The settings of a run: what its configuration says in plain values, and the light objects that were built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar.config.build import build, build_settings
from sdar.evaluation.settings import EvaluationSettings
from sdar.learning.method import Method
from sdar.learning.optimizer import OptimizerSettings
from sdar.rollout.settings import RolloutSettings
from sdar.teacher.base import Teacher


@dataclass(frozen=True)
class RunSettings:
    """A validated configuration. Validation builds these objects, and the run uses the very same.

    ``config``      all of it in plain values, interpolations resolved: what ``config.yaml`` holds. Environment, model,
                    trainer, callbacks and loggers are built from it when the run starts
    ``method``      group ``algorithm``, with gate, divergence, schedule and loss_aggregation in it
    ``rollout``, ``optimizer``, ``evaluation``  the groups of these names
    ``teacher``     group ``teacher``, the model of ``teacher.other`` not loaded yet; None: there is none
    """

    config: Mapping[str, Any]
    method: Method
    rollout: RolloutSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    teacher: Teacher | None

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> RunSettings:
        """From a configuration whose names and types have been checked.

        Raises:
            UserError: settings of one group that contradict each other, or a skill library that cannot be read.
        """
        teacher = config["teacher"]
        return cls(
            config=config,
            method=build_settings(Method, config["algorithm"], "algorithm"),
            rollout=build_settings(RolloutSettings, config["rollout"], "rollout"),
            optimizer=build_settings(OptimizerSettings, config["optimizer"], "optimizer"),
            evaluation=build_settings(EvaluationSettings, config["evaluation"], "evaluation"),
            teacher=None if teacher is None else build(teacher, "teacher", later=("other",)),
        )

    @property
    def seed(self) -> int:
        """Of tasks and sampled tokens."""
        return int(self.config["seed"])

    @property
    def train(self) -> bool:
        """False: the run only evaluates."""
        return bool(self.config["train"])

    @property
    def trainer(self) -> Mapping[str, Any]:
        """Arguments of the trainer."""
        trainer: Mapping[str, Any] = self.config["trainer"]
        return trainer
