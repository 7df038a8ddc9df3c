"""The object graph of a run, built from validated settings in the order in which mistakes are cheapest to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L

from sdar.callbacks.evaluation import PanelEvaluation
from sdar.config.build import build
from sdar.environments.base import Environment
from sdar.episode import Task
from sdar.evaluation.panel import Panel, assert_disjoint, make_panel
from sdar.learning.datamodule import RolloutDataModule, check_task_count
from sdar.learning.module import SDARModule
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector
from sdar.teacher.base import Teacher, join


@dataclass
class Assembly:
    """Everything a run is made of.

    ``panel``      tasks of every evaluation; disjoint from training
    ``collector``  plays training episodes
    ``judge``      plays the panel, with the sampling of the evaluation
    """

    environment: Environment
    panel: Panel
    policy: LanguageModel
    teacher: Teacher | None
    collector: Collector
    judge: Collector
    module: SDARModule
    datamodule: RolloutDataModule


def assemble(settings: Mapping[str, Any]) -> Assembly:
    """Build environment and panel, then the model, then what uses them.

    Raises:
        UserError: a folder without games, a panel larger than the tasks, a model that cannot play, ...
    """
    environment: Environment = build(settings["environment"], "environment")
    evaluation, rollout = settings["evaluation"], settings["rollout"]
    panel = make_panel(environment, evaluation["split"], evaluation["panel_size"], evaluation["seed"])
    train_tasks = environment.tasks(environment.splits()[0])
    assert_disjoint(panel, train_tasks)
    check_task_count(rollout["tasks_per_iteration"], rollout["resample_rounds"] + 1, len(train_tasks))
    teacher: Teacher | None = None if settings["teacher"] is None else build(settings["teacher"], "teacher")
    policy: LanguageModel = build(settings["model"], "model")
    if teacher is not None:
        join(teacher, environment, policy)
    reserved = None if teacher is None else teacher.reserved_tokens
    collector: Collector = build(
        settings["collector"], "collector", policy=policy, environment=environment, reserved_tokens=reserved
    )
    judge = Collector(
        policy,
        environment,
        build(evaluation["sampling"], "evaluation.sampling"),
        max_concurrent_episodes=rollout["max_concurrent_episodes"],
        context=rollout["context"],
        history_turns=rollout["history_turns"],
        max_prompt_tokens=rollout["max_prompt_tokens"],
        reserved_tokens=None if teacher is None else teacher.evaluation_tokens,
    )
    return Assembly(
        environment=environment,
        panel=panel,
        policy=policy,
        teacher=teacher,
        collector=collector,
        judge=judge,
        module=build(settings["module"], "module", policy=policy, teacher=teacher),
        datamodule=build(
            settings["datamodule"], "datamodule", collector=collector, environment=environment, teacher=teacher
        ),
    )


def evaluation_text(assembly: Assembly) -> Callable[[Task], str] | None:
    """What an evaluation with the teacher's text puts into the prompt of a task; None: there is no such evaluation."""
    teacher = assembly.teacher
    return teacher.evaluation_text if teacher is not None and teacher.known_before else None


def panel_evaluation(assembly: Assembly, settings: Mapping[str, Any]) -> PanelEvaluation:
    """The callback that plays the panel before, during and after training."""
    evaluation = settings["evaluation"]
    return PanelEvaluation(
        assembly.judge,
        assembly.panel,
        seed=evaluation["seed"],
        every_n_iterations=evaluation["every_n_iterations"],
        privileged=evaluation_text(assembly),
    )


def build_trainer(settings: Mapping[str, Any], first: list[L.Callback]) -> L.Trainer:
    """The trainer with its loggers and callbacks, ``first`` before those of the settings; writes nothing yet."""
    callbacks = _built(settings["callbacks"], "callbacks")
    loggers = _built(settings["logger"], "logger")
    trainer = dict(settings["trainer"])
    trainer.setdefault("default_root_dir", settings["run_dir"])
    built: L.Trainer = build(trainer, "trainer", callbacks=[*first, *callbacks], logger=loggers or False)
    return built


def _built(nodes: Mapping[str, Any], path: str) -> list[Any]:
    return [build(node, f"{path}.{name}") for name, node in nodes.items() if node is not None]
