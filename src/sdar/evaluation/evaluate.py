"""One pass of a policy over a panel."""

from __future__ import annotations

from collections.abc import Callable

from sdar.episode import Task
from sdar.evaluation.panel import Panel
from sdar.evaluation.result import EvaluationResult, summarise
from sdar.rollout.collector import Collector, CollectProgress, EpisodeRequest


def evaluate(
    collector: Collector,
    panel: Panel,
    *,
    seed: int,
    name: str = "val",
    privileged: Callable[[Task], str] | None = None,
    progress: Callable[[CollectProgress], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> EvaluationResult:
    """Play every task of the panel once.

    Args:
        collector: the policy with the sampling of the evaluation (temperature 0 is greedy).
        seed: the run's seed. The tokens are keyed by (seed, "val", name, task), so training is unaffected, and two
            evaluations of one name differ only by their weights.
        name: what is evaluated; also the name of the result.
        privileged: text put into the prompt of a task (evaluation with skills); None: no text.
        rank, world_size: the share of the panel to play; ``merge`` combines shares.
    """
    requests = [EpisodeRequest(task, member=0) for task in panel.share(rank, world_size)]
    text = None if privileged is None else lambda task, _: privileged(task)
    collected = collector.collect(requests, seed=seed, key=("val", name), privileged=text, progress=progress)
    return summarise(name, collected.episodes, panel.content_hash)
