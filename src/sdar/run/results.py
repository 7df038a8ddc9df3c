"""What a run ends with: the agents side by side on one panel, in a table and in ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sdar.callbacks.evaluation import PanelEvaluation, tell_recorded
from sdar.environments.task_list import content_hash
from sdar.evaluation.agents import play_expert, play_plans, play_random
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.record import PanelRecords
from sdar.evaluation.result import EvaluationResult, summarise
from sdar.run.assembly import Assembly, evaluation_text
from sdar.run.folder import RESULTS_FILE, write_record


def play_baselines(assembly: Assembly, seed: int) -> list[EvaluationResult]:
    """Random admissible agent, the environment's own baselines and expert, where it has them."""
    environment, tasks, panel_hash = assembly.environment, assembly.panel.tasks, assembly.panel.content_hash
    timeout_s = assembly.eval_collector.settings.environment_timeout_s
    plans = environment.baselines()
    played = {
        "random admissible agent": play_random(environment, tasks, seed, timeout_s=timeout_s),
        **{name: play_plans(environment, tasks, plan, timeout_s=timeout_s) for name, plan in plans.items()},
        "expert": play_expert(environment, tasks, timeout_s=timeout_s),
    }
    return [summarise(name, episodes, panel_hash) for name, episodes in played.items() if episodes is not None]


def play_policy(assembly: Assembly, seed: int, records: PanelRecords | None = None) -> list[EvaluationResult]:
    """The policy with its present weights: alone (``val``), and with skills where there is a teacher.

    The names decide the draws, so that two evaluations, also those during training, differ by their weights alone.
    ``records``: where panels are recorded; None: they are played.
    """
    play = partial(evaluate, assembly.eval_collector, assembly.panel, seed=seed, records=records)
    results = [play(name="val")]
    privileged = evaluation_text(assembly)
    if privileged is not None:
        results.append(play(name="val_with_skills", privileged=privileged))
    tell_recorded(results)
    return results


def write_results(
    folder: Path,
    assembly: Assembly,
    results: Sequence[EvaluationResult],
    *,
    iterations: int | None = None,
    evaluation: PanelEvaluation | None = None,
) -> Path:
    """Write every figure of the table and every task's outcome; returns the file.

    ``iterations``: how many the trained weights learned from; None: nothing was trained. ``evaluation``: the panel over
    the course of training.
    """
    record: dict[str, Any] = {
        "finished": datetime.now().isoformat(timespec="microseconds"),
        "panel": {
            "split": assembly.panel.split,
            "content_hash": assembly.panel.content_hash,
            "tasks_by_type": assembly.panel.counts(),
            "task_types": {task.task_id: task.task_type for task in assembly.panel.tasks},
        },
        "model": {"name": assembly.policy.name, "initial_weights": assembly.policy.content_hash},
        "results": [_result(result) for result in results],
    }
    if iterations is not None:
        tasks = assembly.datamodule.train_tasks
        record["training"] = {"iterations": iterations, "tasks": len(tasks), "content_hash": content_hash(tasks)}
        if evaluation is not None:
            record["training"]["seconds"] = round(evaluation.trained_for, 3)
            record["evaluations"] = [
                {"iterations": learned, "seconds": round(evaluation.seconds[learned], 3), **_result(result)}
                for learned, found in sorted(evaluation.results.items())
                for result in found
            ]
    path = folder / RESULTS_FILE
    write_record(path, record)
    return path


def _result(result: EvaluationResult) -> dict[str, Any]:
    low, high = result.interval
    return {
        "name": result.name,
        "n": result.n,
        "successes": result.successes,
        "success_rate": _number(result.success_rate),
        "interval_95": [_number(low), _number(high)],
        "errors": result.errors,
        "turns_mean": _number(result.turns_mean),
        "macro_success_rate": _number(result.macro_success_rate),
        "scores": {name: _number(mean) for name, mean in result.scores.items()},
        "scores_by_type": result.scores_by_type,
        "by_type": {name: {"n": n, "successes": solved} for name, (n, solved) in result.by_type.items()},
        "ends": {reason.value: count for reason, count in result.ends.items()},
        "tasks": {record.task_id: record.success for record in result.records},
        "task_ends": {record.task_id: record.end.value for record in result.records},
        "task_turns": {record.task_id: record.num_turns for record in result.records},
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
