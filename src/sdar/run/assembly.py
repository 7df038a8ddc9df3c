"""The object graph of a run, built from validated settings in the order in which mistakes are cheapest to find."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from sdar.callbacks.evaluation import PanelEvaluation
from sdar.callbacks.loggers.harmless import made_harmless
from sdar.config.build import build
from sdar.config.check import is_node
from sdar.environments.base import Environment, training_tasks
from sdar.episode import Task
from sdar.evaluation.panel import Panel, assert_disjoint, make_panel
from sdar.evaluation.record import PanelRecords
from sdar.learning.datamodule import RolloutDataModule, check_task_count
from sdar.learning.module import SDARModule
from sdar.learning.strategies import WAITING_S, data_parallel
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector
from sdar.rollout.readiness import check_ready
from sdar.run.folder import versions
from sdar.run.saving import CheckpointFiles
from sdar.run.settings import RunSettings
from sdar.teacher.base import Teacher, join

_TRIED_TASKS = 2
"""Tasks of training and panel whose first prompts must not all be too long."""


@dataclass
class Assembly:
    """Everything a run is made of.

    ``panel``           tasks of every evaluation; disjoint from training
    ``eval_collector``  plays the panel, with the sampling of the evaluation
    """

    environment: Environment
    panel: Panel
    policy: LanguageModel
    teacher: Teacher | None
    eval_collector: Collector
    module: SDARModule
    datamodule: RolloutDataModule


def assemble(settings: RunSettings) -> Assembly:
    """Build environment and panel, then the model, then what uses them.

    Raises:
        UserError: a folder without games, a panel larger than the tasks, a model that cannot play, ...
    """
    method, rollout, evaluation, teacher = settings.method, settings.rollout, settings.evaluation, settings.teacher
    if settings.train:
        settings.optimizer.check_available()
    environment: Environment = build(settings.config["environment"], "environment")
    check_ready(environment, rollout.environment_timeout_s)
    panel = make_panel(environment, evaluation.split, evaluation.panel_size, evaluation.seed)
    train_tasks = training_tasks(environment, needed=settings.train)
    assert_disjoint(panel, train_tasks)
    if settings.train:
        check_task_count(rollout, len(train_tasks))
    policy: LanguageModel = build(settings.config["model"], "model")
    if teacher is not None:
        join(teacher, environment, policy)
    collector = Collector(policy, environment, rollout, None if teacher is None else teacher.reserved_tokens)
    eval_collector = Collector(
        policy,
        environment,
        replace(rollout, sampling=evaluation.sampling),
        None if teacher is None else teacher.evaluation_tokens,
        collector.generator_factory,  # an engine of its own would take the memory twice
    )
    if settings.train:
        collector.check_room(train_tasks[:_TRIED_TASKS])
    eval_collector.check_room(panel.tasks[:_TRIED_TASKS])
    return Assembly(
        environment=environment,
        panel=panel,
        policy=policy,
        teacher=teacher,
        eval_collector=eval_collector,
        module=SDARModule(policy, method, teacher, settings.optimizer, rollout, settings.seed),
        datamodule=RolloutDataModule(collector, environment, method, rollout, settings.seed, teacher),
    )


def evaluation_text(assembly: Assembly) -> Callable[[Task], str] | None:
    """What an evaluation with the teacher's text puts into the prompt of a task; None: there is no such evaluation."""
    teacher = assembly.teacher
    return teacher.evaluation_text if teacher is not None and teacher.known_before else None


def panel_evaluation(assembly: Assembly, settings: RunSettings) -> PanelEvaluation:
    """The callback that plays the panel before, during and after training."""
    return PanelEvaluation(
        assembly.eval_collector,
        assembly.panel,
        seed=settings.evaluation.seed,
        every_n_iterations=settings.evaluation.every_n_iterations,
        privileged=evaluation_text(assembly),
        records=panel_records(assembly, settings),
    )


def panel_records(assembly: Assembly, settings: RunSettings) -> PanelRecords | None:
    """Where the run's panels are recorded, as its objects were built; None: they are played."""
    if not settings.evaluation.reuse_panels:
        return None
    terms = {
        "environment": settings.config["environment"],
        "precision": settings.trainer.get("precision"),
        "versions": {"python": platform.python_version(), **versions()},
    }
    return PanelRecords.of(assembly.eval_collector, terms)


def build_trainer(config: Mapping[str, Any], first: list[L.Callback]) -> L.Trainer:
    """The trainer with its loggers and callbacks, ``first`` before those of the settings; writes nothing yet."""
    callbacks = _built(config["callbacks"], "callbacks")
    loggers = [made_harmless(logger) for logger in _built(config["logger"], "logger")]
    trainer = {"default_root_dir": config["run_dir"], **config["trainer"]}
    given = trainer.pop("plugins", None) or []
    nodes = enumerate(given) if isinstance(given, list) else [("", given)]
    plugins = [build(node, f"trainer.plugins.{name}") if is_node(node) else node for name, node in nodes]
    plugins.append(CheckpointFiles())
    # Where no callback saves, Lightning would save by itself, to a place that nobody looks at.
    trainer.setdefault("enable_checkpointing", any(isinstance(callback, Checkpoint) for callback in callbacks))
    objects: dict[str, Any] = {"callbacks": [*first, *callbacks], "logger": loggers or False, "plugins": plugins}
    if trainer.get("strategy") == "ddp":
        del trainer["strategy"]
        # Processes that are alive are waited for at least as long as those that give no sign of life.
        objects["strategy"] = data_parallel(max(WAITING_S, 60.0 * config["rank_timeout_minutes"]))
    built: L.Trainer = build(trainer, "trainer", **objects)
    return built


def _built(nodes: Mapping[str, Any], path: str) -> list[Any]:
    return [build(node, f"{path}.{name}") for name, node in nodes.items() if node is not None]
