"""The methods of ``configs/algorithm`` in toy runs: what the files say, on the toy environment."""

from __future__ import annotations

import os
from typing import Any

from sdar.config.build import build
from sdar.config.compose import compose_config
from sdar.config.sources import config_folder, groups
from sdar.learning.module import SDARModule
from sdar.policy.language_model import LanguageModel
from sdar.run.rules.validate import validate
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, LettersEnvironment, toy_datamodule, toy_policy

METHODS = sorted(groups(config_folder())["algorithm"])
TRAINED = [name for name in METHODS if name != "skill_prompt"]


def method_settings(method: str, *overrides: str) -> dict[str, Any]:
    """The validated settings of a method's file."""
    processes = os.environ.get("WORLD_SIZE", "1")  # under torchrun the settings must know of both
    config = compose_config([f"algorithm={method}", "run_dir=unused", f"trainer.devices={processes}", *overrides])
    return validate(config)


def _teacher(node: dict[str, Any], policy: LanguageModel) -> Teacher:
    """The method's own teacher where it reads hindsight; else a hint in the place of the skills."""
    if not node["_target_"].endswith("HindsightTeacher"):
        return HintTeacher(source=TeacherSource(node["source"]))
    teacher: Teacher = build(node | {"budget_tokens": 60}, "teacher")
    teacher.connect(LettersEnvironment(), lambda text: len(policy.chat.privileged(text)))
    teacher.use(policy)
    return teacher


def method_run(method: str, *overrides: str, context: str = "append", **settings: Any) -> tuple[SDARModule, Any]:
    """A toy module and data module of a method, as its file states it; ``settings`` of the module come on top."""
    found = method_settings(method, f"rollout={context}", *overrides)
    algorithm = found["algorithm"]
    policy = toy_policy()
    teacher = _teacher(found["teacher"], policy)
    module = SDARModule(
        policy,
        build(algorithm["objective"], "algorithm.objective"),
        teacher,
        score_teacher=algorithm["score_teacher"],
        advantage=build(algorithm["advantage"], "algorithm.advantage"),
        shaping=None if algorithm["shaping"] is None else build(algorithm["shaping"], "algorithm.shaping"),
        schedules=build(found["schedule"], "schedule"),
        context=context,
        **({"learning_rate": 3e-3, "episodes_per_step": 6, "token_budget": 600} | settings),
    )
    data = toy_datamodule(policy, context=context, teacher=teacher, skills_in_prompt=algorithm["skills_in_prompt"])
    return module, data
