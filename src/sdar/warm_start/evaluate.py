"""Evaluation of a warm-started model without skills, with right ones, and with wrong ones."""

from __future__ import annotations

from collections.abc import Callable

from sdar.episode import Task
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.evaluation.result import EvaluationResult
from sdar.policy.language_model import LanguageModel
from sdar.randomness import keyed_generator
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.domain import Domain

PANEL_SIZE = 240
TEMPERATURE = 0.4


def evaluate_warm_start(policy: LanguageModel, domain: Domain, max_turns: int) -> list[EvaluationResult]:
    """Three results on a panel of the domain's evaluation split: "no skill", "right skills", "wrong skills"."""
    environment = domain.environment(max_turns)
    panel = make_panel(environment, domain.split, PANEL_SIZE, 0)
    sampling = SamplingConfig(temperature=TEMPERATURE, top_p=1.0, top_k=0, max_response_tokens=48)
    collector = Collector(policy, environment, RolloutSettings(max_concurrent_episodes=64, sampling=sampling))
    teacher = domain.teacher()

    def wrong(task: Task) -> str:
        return teacher.privileged_text(domain.misleading(task, keyed_generator(0, "wrong skill", task.task_id)))

    views: dict[str, Callable[[Task], str] | None] = {
        "no skill": None,
        "right skills": teacher.privileged_text,
        "wrong skills": wrong,
    }
    return [evaluate(collector, panel, seed=0, name=name, privileged=view) for name, view in views.items()]
