"""The methods of ``configs/algorithm`` in toy runs: what the files say, on the toy environment."""

from __future__ import annotations

import os
from typing import Any

from sdar.config.sources import config_folder, groups
from sdar.learning.module import SDARModule
from sdar.learning.optimizer import OptimizerSettings
from sdar.policy.language_model import LanguageModel
from sdar.run.settings import RunSettings
from sdar.run.validate import compose
from sdar.teacher.base import Teacher
from sdar.teacher.hindsight import HindsightTeacher
from toys.training import HintTeacher, LettersEnvironment, toy_datamodule, toy_policy, toy_rollout

METHODS = sorted(groups(config_folder())["algorithm"])
TRAINED = [name for name in METHODS if name != "skill_prompt"]


def method_settings(method: str, *overrides: str) -> RunSettings:
    """The validated settings of a method's file."""
    processes = os.environ.get("WORLD_SIZE", "1")  # under torchrun the settings must know of both
    return compose([f"algorithm={method}", "run_dir=unused", f"trainer.devices={processes}", *overrides])


def _teacher(settings: RunSettings, policy: LanguageModel) -> Teacher:
    """The method's own teacher where it reads hindsight; else a hint in the place of the skills."""
    teacher = settings.teacher
    assert teacher is not None
    if not isinstance(teacher, HindsightTeacher):
        return HintTeacher(source=teacher.weights.source)
    teacher.connect(LettersEnvironment(), lambda text: len(policy.chat.privileged(text)))
    teacher.use(policy)
    return teacher


def method_run(method: str, *overrides: str, context: str = "append", **settings: Any) -> tuple[SDARModule, Any]:
    """A toy module and data module of a method, as its file states it; ``settings`` are those of the optimizer."""
    found = method_settings(method, f"rollout={context}", "teacher.budget_tokens=60", *overrides)
    policy = toy_policy()
    teacher = _teacher(found, policy)
    optimizer = {"learning_rate": 3e-3, "episodes_per_step": 6, "max_tokens_per_micro_batch": 600} | settings
    rollout = toy_rollout(context=context)
    module = SDARModule(policy, found.method, teacher, OptimizerSettings(**optimizer), rollout)
    data = toy_datamodule(policy, context=context, teacher=teacher, skills_in_prompt=found.method.skills_in_prompt)
    return module, data
