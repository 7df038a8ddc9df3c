"""Settings of the distillation that contradict each other, told before any work by naming the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.build import build
from sdar.errors import UserError
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.schedule import Constant, Feedback, Schedules
from sdar.teacher.weights import TeacherSource, check_needs, check_source


def check_teacher(settings: Mapping[str, Any]) -> None:
    """Refuse a teacher that a method needs and the command line takes away (a method may name its source)."""
    teacher = settings.get("teacher")
    if isinstance(teacher, Mapping) and "_target_" not in teacher:
        raise UserError(
            f"teacher=none, but algorithm={settings['algorithm']['name']} distils from a teacher; allowed is "
            f"teacher=skills, or algorithm=grpo"
        )


def check_distillation(settings: Mapping[str, Any]) -> None:
    """Refuse what gate, divergence, schedule, teacher and coefficient cannot be together.

    The objective is built here, gate and divergence with it: they are small, and their constructors know their ranges.

    Raises:
        UserError: naming the two settings.
    """
    teacher, algorithm = settings["teacher"], settings["algorithm"]
    objective: ObjectiveConfig = build(algorithm["objective"], "algorithm.objective")
    schedule: Schedules = build(settings["schedule"], "schedule")
    gate, divergence, coefficient = objective.gate, objective.divergence, objective.distillation_coefficient
    if teacher is None or not algorithm["score_teacher"]:
        missing = "teacher=none" if teacher is None else "algorithm.score_teacher=false"
        if coefficient != 0:
            raise UserError(
                f"algorithm.objective.distillation_coefficient={coefficient}: without a scored teacher only 0 is "
                f"allowed, but {missing} (set teacher and algorithm.score_teacher=true)"
            )
        for name, choice, harmless in (("gate", gate.name, "gap"), ("divergence", divergence.name, "sampled")):
            if choice != harmless:
                raise UserError(
                    f"{name}={choice}, but {missing}: without a scored teacher it has nothing to do; allowed is "
                    f"{name}={harmless}"
                )
        return
    source, keep = teacher.get("source", TeacherSource.OLD), teacher.get("keep_hidden", False)
    check_source(source, has_other=teacher.get("other") is not None, keep_hidden=keep)
    check_needs(divergence, TeacherSource(source), keep_hidden=keep)
    for name, scheduled in (("coefficient", schedule.coefficient), ("beta", schedule.beta)):
        if isinstance(scheduled, Feedback) and not gate.reads_gap:
            raise UserError(
                f"schedule.{name} follows the gate's activity, but gate={gate.name} does not look at the teacher; "
                f"allowed are gate=gap and gate=soft_or, or another schedule"
            )
    if getattr(gate, "beta", None) is None and schedule.beta != Constant(1.0):
        raise UserError(
            f"schedule.beta changes the gate's slope, but gate={gate.name} has none; allowed is a constant 1"
        )
