"""The methods of ``configs/algorithm`` in toy runs: what the files say, on the toy environment."""

from __future__ import annotations

from typing import Any

from sdar.config.build import build
from sdar.config.compose import compose_config
from sdar.config.sources import config_folder, groups
from sdar.config.validate import validate
from sdar.module import SDARModule
from sdar.teacher.weights import TeacherSource
from toy_training import HintTeacher, toy_datamodule, toy_policy

METHODS = sorted(groups(config_folder())["algorithm"])
TRAINED = [name for name in METHODS if name != "skill_prompt"]


def method_settings(method: str, *overrides: str) -> dict[str, Any]:
    """The validated settings of a method's file."""
    config = compose_config([f"algorithm={method}", "run_dir=unused", *overrides])
    return validate(config)


def method_run(method: str, *overrides: str, context: str = "append", **settings: Any) -> tuple[SDARModule, Any]:
    """A toy module and data module of a method, as its file states it; ``settings`` of the module come on top."""
    found = method_settings(method, f"rollout={context}", *overrides)
    algorithm = found["algorithm"]
    policy = toy_policy()
    teacher = HintTeacher(source=TeacherSource(found["teacher"]["source"]))
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
