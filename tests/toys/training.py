"""A toy environment and a tiny random policy: a whole training run in a second or two."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from transformers import Qwen3ForCausalLM

from sdar.environments.base import Environment, EnvironmentPool, Projection
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.method import LossAggregation, Method
from sdar.learning.module import SDARModule
from sdar.learning.optimizer import OptimizerSettings
from sdar.objective.objective import ObjectiveConfig
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import LanguageModel
from sdar.policy.lora import LoraSettings, add_adapters
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherWeights
from toys.models import tiny_random_model, toy_tokenizer

LIMIT = 6
"""Tokens of a response."""
PLAIN_GRPO = Method(objective=ObjectiveConfig(distillation_coefficient=0), score_teacher=False)


class LettersPool(EnvironmentPool):
    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        self.tasks = list(tasks)
        return [Observation(f"say {task.payload}", None, task.task_id) for task in tasks]

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        return {slot: self._step(self.tasks[slot], action) for slot, action in actions.items()}

    def _step(self, task: Task, action: str) -> StepOutcome:
        if task.payload == "!":
            raise RuntimeError("this task is broken")
        said = sum(ord(letter) for letter in action) % 5
        won = said == 0
        end = EndReason.SUCCESS if won else None
        return StepOutcome(Observation(f"{said}", None, "x"), 10.0 if won else 0.0, won, won, end=end)


class LettersEnvironment(Environment):
    """Won by a response whose letters have a sum that five divides; a response is valid when its length is even."""

    name = "letters"
    max_turns = 3

    def __init__(self, tasks: int = 9, broken: bool = False) -> None:
        self.count = tasks
        self.broken = broken

    def splits(self) -> tuple[str, ...]:
        return ("train", "valid")

    def tasks(self, split: str) -> Sequence[Task]:
        return [self._task(split, number) for number in range(self.count)]

    def _task(self, split: str, number: int) -> Task:
        payload = "!" if self.broken and number == 0 else "abc"[number % 3] * (1 + number)
        return Task(f"{split}-{number}", f"type {number % 3}", f"say {payload}", split, f"{split}{number}", payload)

    def open_pool(self) -> EnvironmentPool:
        return LettersPool()

    def opening(self, task: Task, observation: Observation) -> str:
        return observation.text

    def reply(self, observation: Observation) -> str:
        return observation.text

    def project(self, response: str) -> Projection:
        return Projection(response, len(response) % 2 == 0)


class HintTeacher(Teacher):
    """A teacher with a fixed hint (the empty one leaves the student's prompt as it is)."""

    def __init__(self, hint: str = "Hint: say bbb.\n\n", **weights: Any) -> None:
        self.hint = hint
        self.weights = TeacherWeights(**weights)

    def privileged_text(self, task: Task, member: int = 0) -> str:
        return self.hint


def toy_policy(
    seed: int = 0, dtype: torch.dtype = torch.float32, lora: Mapping[str, Any] | None = None, layers: int = 1
) -> LanguageModel:
    """A policy of one layer: what layers do to one another is tested where the model is (``tests/policy``)."""
    tokenizer = toy_tokenizer()
    model = tiny_random_model(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=layers, context_tokens=256, seed=seed, dtype=dtype
    )
    adapters = None if lora is None else LoraSettings(**lora)
    if adapters is not None:
        add_adapters(model, adapters, "toy")
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        chat=ChatFormat.from_tokenizer(tokenizer),
        context_tokens=256,
        name="toy",
        content_hash=f"weights-{seed}",
        lora=adapters,
    )


def toy_rollout(*, tasks: int = 4, temperature: float = 1.0, **settings: Any) -> RolloutSettings:
    """How toy episodes are played; the same for module and data module."""
    sampling = SamplingConfig(temperature=temperature, max_response_tokens=LIMIT)
    defaults = {"group_size": 3, "max_concurrent_episodes": 12}
    return RolloutSettings(tasks_per_iteration=tasks, sampling=sampling, **(defaults | settings))


def toy_datamodule(
    policy: LanguageModel,
    *,
    environment: Environment | None = None,
    seed: int = 1,
    teacher: Teacher | None = None,
    skills_in_prompt: bool = False,
    **settings: Any,
) -> RolloutDataModule:
    environment = environment or LettersEnvironment()
    rollout = toy_rollout(**settings)
    method = replace(PLAIN_GRPO, skills_in_prompt=skills_in_prompt)
    collector = Collector(policy, environment, rollout)
    return RolloutDataModule(collector, environment, method, rollout, seed, teacher)


OBJECTIVE = tuple(ObjectiveConfig.__dataclass_fields__)
METHOD = ("advantage", "shaping", "supervision", "schedules", "score_teacher", "skills_in_prompt")
ROLLOUT = ("context", "temperature")


def toy_module(
    policy: LanguageModel, teacher: Any = None, *, micro_batch_rows: int | None = None, **settings: Any
) -> SDARModule:
    """A module whose settings are named alone, whichever group they belong to.

    With ``micro_batch_rows`` it averages as the paper's code does. ``optimizer_class``: whose settings they are.
    """
    optimizer_class = settings.pop("optimizer_class", OptimizerSettings)

    def some(names: Sequence[str]) -> dict[str, Any]:
        return {name: settings.pop(name) for name in names if name in settings}

    scored = {"score_teacher": teacher is not None} | some(METHOD)
    kind = "token_mean" if micro_batch_rows is None else "reference_code"
    method = Method(
        objective=ObjectiveConfig(**some(OBJECTIVE)), aggregation=LossAggregation(kind, micro_batch_rows), **scored
    )
    rollout = toy_rollout(**some(ROLLOUT))
    seed = some(("seed",))
    steps: dict[str, Any] = {} if "rows_per_step" in settings else {"episodes_per_step": 6}
    optimizer = {"learning_rate": 3e-3, "max_tokens_per_micro_batch": 600} | steps | settings
    return SDARModule(policy, method, teacher, optimizer_class(**optimizer), rollout, **seed)


def models_alive() -> int:
    """How many models of the toy's kind there are, copies included."""
    gc.collect()
    return sum(type(thing) is Qwen3ForCausalLM for thing in gc.get_objects())


class Memory(DummyLogger):
    """Keeps what was logged: step -> metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        self.steps.setdefault(step, {}).update(metrics)

    def curve(self) -> dict[int, dict[str, float]]:
        """Everything that does not depend on the clock."""
        clock = ("time/", "throughput/")
        return {s: {k: v for k, v in metrics.items() if not k.startswith(clock)} for s, metrics in self.steps.items()}


def learned(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures without those of what was computed for them, which differs where a teacher is only looked at."""
    return {tag: value for tag, value in figures.items() if not tag.startswith("cost/")}


def toy_trainer(iterations: int, *, logger: Any = None, callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trainer(
            max_epochs=iterations,
            accelerator="cpu",
            devices=settings.pop("devices", 1),
            logger=logger if logger is not None else False,
            callbacks=list(callbacks),
            enable_checkpointing=settings.pop("enable_checkpointing", False),
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )


def weights(module: SDARModule) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same_weights(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train(
    module: SDARModule, datamodule: RolloutDataModule, iterations: int, ckpt_path: str | None = None, **settings: Any
) -> Memory:
    """Fit and return what was logged."""
    memory = Memory()
    trainer = toy_trainer(iterations, logger=memory, **settings)
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    return memory
