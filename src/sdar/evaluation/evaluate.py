"""One pass of a policy over a panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sdar.episode import Task
from sdar.evaluation.panel import Panel
from sdar.evaluation.record import PanelRecords
from sdar.evaluation.result import EvaluationResult, summarise
from sdar.rollout.collector import Collector, CollectProgress, EpisodeRequest
from sdar.rollout.troubles import report_troubles


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
    records: PanelRecords | None = None,
    agree: Callable[[bool], bool] = bool,
) -> EvaluationResult:
    """Play every task of the panel once, or take its episodes from a record of the same panel.

    Args:
        collector: the policy with the sampling of the evaluation (temperature 0 is greedy).
        seed: the run's seed. The tokens are keyed by (seed, "val", name, task), so training is unaffected, and two
            evaluations of one name differ only by their weights.
        name: what is evaluated; also the name of the result.
        privileged: text put into the prompt of a task (evaluation with skills); None: no text.
        rank, world_size: the share of the panel to play; ``merge`` combines shares.
        records: where panels are recorded; None: it is played.
        agree: whether something is true on all ranks, which take their shares from records together or not at all.
    """
    tasks, key = panel.share(rank, world_size), ("val", name)
    texts = None if privileged is None else {task.task_id: privileged(task) for task in tasks}
    record = None
    if records is not None:
        given = None if texts is None else list(texts.values())
        record = records.place(collector, tasks, seed=seed, key=key, texts=given)
        found = record.read()
        if agree(found is not None) and found is not None:
            report_troubles(found)
            return replace(summarise(name, found, panel.content_hash), recorded=True)
    text = None if texts is None else lambda task, _: texts[task.task_id]
    requests = [EpisodeRequest(task, member=0) for task in tasks]
    collected = collector.collect(requests, seed=seed, key=key, privileged=text, progress=progress)
    if record is not None:
        record.write(collected.episodes)
    return summarise(name, collected.episodes, panel.content_hash)
