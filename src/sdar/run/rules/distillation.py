"""Settings of the distillation that contradict each other, told before any work by naming the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.build import build
from sdar.config.targets import check_kind, locate
from sdar.errors import UserError
from sdar.objective.estimator import AdvantageEstimator
from sdar.objective.objective import ObjectiveConfig, check_policy_loss
from sdar.objective.schedule import Constant, Feedback, Schedules
from sdar.objective.shaping import Shaping
from sdar.run.rules.processes import spreads_weights
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherSource, check_needs, check_sharding, check_source

DEFAULT_RETRIEVAL = {"_target_": "sdar.skills.retrieval.KeywordRetrieval", "general": True}
"""``retrieval=keyword``, which methods and teachers without skills leave standing."""


def check_teacher(settings: Mapping[str, Any]) -> None:
    """Refuse a teacher that a method needs and the command line takes away (a method may name its source), or none."""
    teacher = settings.get("teacher")
    if isinstance(teacher, Mapping) and "_target_" not in teacher:
        raise UserError(
            f"teacher=none, but algorithm={settings['algorithm']['name']} distils from a teacher; allowed is "
            f"teacher=skills, or algorithm=grpo"
        )
    if isinstance(teacher, Mapping):
        check_kind(teacher, Teacher, "teacher")


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
    if settings["train"]:
        objective.check_terms()
    check_policy_loss(objective, context=settings["rollout"]["context"], statistics=settings["statistics"]["kind"])
    _check_credit(settings, objective)
    _check_retrieval(settings)
    if teacher is None or not algorithm["score_teacher"]:
        missing = "teacher=none" if teacher is None else "algorithm.score_teacher=false"
        if algorithm["shaping"] is not None and algorithm["shaping"].get("weight") != 0:
            raise UserError(
                f"algorithm.shaping: without a scored teacher only null is allowed, but {missing} (set teacher and "
                f"algorithm.score_teacher=true)"
            )
        if coefficient != 0:
            raise UserError(
                f"algorithm.objective.distillation_coefficient={coefficient}: without a scored teacher only 0 is "
                f"allowed, but {missing} (set teacher and algorithm.score_teacher=true)"
            )
        if teacher is None and algorithm["score_teacher"]:
            raise UserError(
                "algorithm.score_teacher=true, but teacher=none: there is nobody to score; allowed is "
                "algorithm.score_teacher=false, or teacher=skills"
            )
        for name, factor in (("coefficient", schedule.coefficient), ("beta", schedule.beta)):
            if factor != Constant(1.0):
                raise UserError(
                    f"schedule.{name} changes over the iterations, but {missing}: without a scored teacher it has "
                    f"nothing to change; allowed is schedule=constant"
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
    if spreads_weights(settings["trainer"]):
        check_sharding(divergence, TeacherSource(source))
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


def _check_credit(settings: Mapping[str, Any], objective: ObjectiveConfig) -> None:
    """Refuse advantages that the release's statistics or the objective has no use for, and skills in the prompt that
    contradict the rest.
    """
    algorithm = settings["algorithm"]
    advantage: AdvantageEstimator = build(algorithm["advantage"], "algorithm.advantage")
    if settings["statistics"]["kind"] == "release":
        advantage.over_turn_rows()
    shaping: Shaping | None = algorithm["shaping"] and build(algorithm["shaping"], "algorithm.shaping")
    if shaping is not None and shaping.weight != 0 and objective.policy_coefficient == 0:
        raise UserError(
            f"algorithm.shaping.weight={shaping.weight:g}, but algorithm.objective.policy_coefficient=0: nothing is "
            f"learned from advantages; allowed is algorithm.shaping=null, or a policy_coefficient above 0"
        )
    if not algorithm["skills_in_prompt"]:
        return
    if settings["teacher"] is None:
        raise UserError(
            "algorithm.skills_in_prompt=true, but teacher=none has no skills; allowed is teacher=skills, or "
            "algorithm=grpo"
        )
    if not _known_before(settings["teacher"]):
        raise UserError(
            "algorithm.skills_in_prompt=true, but what this teacher reads is only known after the episode; allowed is "
            "teacher=skills, or algorithm.skills_in_prompt=false"
        )
    if algorithm["score_teacher"]:
        raise UserError(
            "algorithm.skills_in_prompt=true, but algorithm.score_teacher=true: the student reads what the teacher "
            "would, so there is no gap; allowed is one of the two"
        )


def _check_retrieval(settings: Mapping[str, Any]) -> None:
    """Refuse a strategy that waits for gaps nobody measures, and one that no part of the teacher would ask.

    A method without a teacher's scores may have any: so it can be compared with others under the same settings.
    """
    teacher, retrieval = settings["teacher"], settings["retrieval"]
    if retrieval.get("reward") == "gap_on_success" and not settings["algorithm"]["score_teacher"]:
        raise UserError(
            "retrieval.reward=gap_on_success, but algorithm.score_teacher=false: no gap is measured; allowed is "
            "retrieval.reward=return, or algorithm.score_teacher=true"
        )
    if teacher is None or retrieval == DEFAULT_RETRIEVAL:
        return
    if all("retrieval" not in node for node in (teacher, *(teacher.get("parts") or {}).values())):
        raise UserError(
            f"retrieval={_told(retrieval)}, but nothing asks it: this teacher ({_told(teacher)}) reads no skills; "
            f"allowed is retrieval=keyword with retrieval.general=true, the default, or teacher=skills"
        )


def _told(node: Mapping[str, Any]) -> str:
    """The class that a node builds, and its settings that are plain values."""
    plain = [f"{name}={value}" for name, value in node.items() if isinstance(value, bool | int | float)]
    return ", ".join([str(node["_target_"]).rpartition(".")[2], *plain])


def _known_before(teacher: Mapping[str, Any]) -> bool:
    """Whether a teacher's text, with all its parts, is known before the episode, as far as its classes say."""
    nodes = [teacher, *(teacher.get("parts") or {}).values()]
    return all(getattr(locate(node["_target_"], "teacher"), "known_before", True) for node in nodes)
