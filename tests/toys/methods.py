"""The methods of ``configs/algorithm`` in toy runs: what the files say, on the toy environment."""

from __future__ import annotations

import os
from typing import Any

from sdar.config.build import build
from sdar.config.sources import config_folder, groups
from sdar.learning.module import SDARModule
from sdar.learning.optimizer import OptimizerSettings
from sdar.policy.language_model import LanguageModel
from sdar.run.settings import RunSettings
from sdar.run.validate import compose
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, LettersEnvironment, toy_datamodule, toy_policy, toy_rollout

METHODS = sorted(groups(config_folder())["algorithm"])
TRAINED = [name for name in METHODS if name != "skill_prompt"]


def method_settings(method: str, *overrides: str) -> RunSettings:
    """The validated settings of a method's file."""
    processes = os.environ.get("WORLD_SIZE", "1")  # under torchrun the settings must know of both
    return compose([f"algorithm={method}", "run_dir=unused", f"trainer.devices={processes}", *overrides])


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
    policy = toy_policy()
    teacher = _teacher(found.config["teacher"], policy)
    optimizer = {"learning_rate": 3e-3, "episodes_per_step": 6, "max_tokens_per_micro_batch": 600} | settings
    rollout = toy_rollout(context=context)
    module = SDARModule(policy, found.method, teacher, OptimizerSettings(**optimizer), rollout)
    skills_in_prompt = found.method.skills_in_prompt
    data = toy_datamodule(policy, context=context, teacher=teacher, skills_in_prompt=skills_in_prompt)
    return module, data
