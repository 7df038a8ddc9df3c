"""The settings of a run that are plain values, with their types and ranges.

Objects (``_target_``) are checked against their own constructors, see :mod:`sdar.config.targets`; here is the frame
around them, with the class that each place asks for, and the ranges of constructor settings that would otherwise be
noticed only after minutes of work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sdar.config.ranges import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, Range
from sdar.learning.supervision import Supervision
from sdar.objective.divergence import Divergence
from sdar.objective.estimator import AdvantageEstimator
from sdar.objective.gate import Gate
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.schedule import Schedules
from sdar.objective.shaping import Shaping

Node = dict[str, Any]
"""A mapping with ``_target_``."""


@dataclass(frozen=True)
class RolloutSettings:
    """Group ``rollout``: how many episodes, and how they are played.

    ``tasks_per_iteration``      different tasks of one iteration, over all processes
    ``group_size``               G, episodes per task
    ``max_concurrent_episodes``  bounds memory; what is sampled does not depend on it
    ``context``                  append: one growing conversation per episode; window: a fresh prompt every turn
    ``resample_rounds``          how often groups without spread of returns are replaced by other tasks' groups
    ``keep_equal_groups``        whether groups that are without spread in the end are learned from
    ``history_turns``            H, window only: past turns that a prompt shows
    ``max_prompt_tokens``        window only: longest prompt, past turns give way; null: no limit of its own
    ``sampling``                 temperature, filters and length of a response
    """

    tasks_per_iteration: Annotated[int, AT_LEAST_ONE]
    group_size: Annotated[int, Range(at_least=2)]
    max_concurrent_episodes: Annotated[int, AT_LEAST_ONE]
    context: Literal["append", "window"]
    resample_rounds: Annotated[int, NOT_NEGATIVE]
    keep_equal_groups: bool
    history_turns: Annotated[int, NOT_NEGATIVE]
    max_prompt_tokens: Annotated[int, AT_LEAST_ONE] | None
    sampling: Node


@dataclass(frozen=True)
class StatisticsSettings:
    """Group ``statistics``: over what advantages and losses are averaged.

    ``kind``              episode: over episodes, and over the tokens of an optimiser step; release: the paper's code
    ``micro_batch_rows``  release only: rows per micro-batch, over which it takes token means; null otherwise
    """

    kind: Literal["episode", "release"]
    micro_batch_rows: Annotated[int, AT_LEAST_ONE] | None


@dataclass(frozen=True)
class AlgorithmSettings:
    """Group ``algorithm``: one file per method.

    ``skills_in_prompt``  whether training rollouts have the teacher's text in their own prompt
    ``score_teacher``     whether the teacher is scored and the curriculum logged, also where no term uses it
    ``advantage``         credit of every turn
    ``shaping``           what the teacher makes of the advantages; null: nothing
    ``supervision``       rows that are imitated beside; null: none
    """

    name: str
    skills_in_prompt: bool
    score_teacher: bool
    objective: ObjectiveConfig
    advantage: AdvantageEstimator
    shaping: Shaping | None
    supervision: Supervision | None


@dataclass(frozen=True)
class EvaluationSettings:
    """Group ``evaluation``: the fixed panel and when it is played, beside before and after training.

    ``split``               where the panel's tasks come from
    ``panel_size``          number of tasks, all types equally
    ``every_n_iterations``  how often during training
    ``seed``                draws the panel and the sampled tokens; its own, so that runs share a panel
    ``sampling``            how the policy samples when it is evaluated
    ``baselines``           whether the random agent and the expert are played for the table
    """

    split: str
    panel_size: Annotated[int, AT_LEAST_ONE]
    every_n_iterations: Annotated[int, AT_LEAST_ONE]
    seed: Annotated[int, NOT_NEGATIVE]
    sampling: Node
    baselines: bool


@dataclass(frozen=True)
class RunSettings:
    """The whole of ``configs/train.yaml``.

    ``domain``    names the shipped skills and the shipped tiny model that belong to the environment
    ``skills``    the library that teachers read: a shipped one by its name, or a folder
    ``run_dir``   folder of this run; null: ``<logs_dir>/<name>/<date>_<time>``
    ``threads``   CPU threads of torch; null: as many as there are cores
    """

    name: str
    seed: Annotated[int, Range(at_least=0, at_most=2**32 - 1)]
    train: bool
    ckpt_path: str | None
    logs_dir: str
    domain: str
    skills: str
    run_dir: str | None
    threads: Annotated[int, AT_LEAST_ONE] | None
    environment: Node
    model: Node
    gate: Gate
    divergence: Divergence
    schedule: Schedules
    retrieval: Node
    teacher: Node | None
    rollout: Node
    statistics: Node
    algorithm: Node
    collector: Node
    module: Node
    datamodule: Node
    evaluation: Node
    callbacks: Node
    logger: Node
    trainer: Node


PLAIN_GROUPS: dict[str, type] = {
    "rollout": RolloutSettings,
    "statistics": StatisticsSettings,
    "algorithm": AlgorithmSettings,
    "evaluation": EvaluationSettings,
}
"""Mappings without a ``_target_``, and the fields they have."""

_SAMPLING = {
    "temperature": NOT_NEGATIVE,
    "top_p": Range(above=0, at_most=1),
    "top_k": NOT_NEGATIVE,
    "max_response_tokens": AT_LEAST_ONE,
}

RANGES: dict[str, Range] = {
    **{f"rollout.sampling.{name}": allowed for name, allowed in _SAMPLING.items()},
    **{f"evaluation.sampling.{name}": allowed for name, allowed in _SAMPLING.items()},
    # the student must be able to put its samples' probability into numbers: greedy rollouts teach nothing
    "rollout.sampling.temperature": POSITIVE,
    **{
        f"algorithm.objective.{name}": NOT_NEGATIVE
        for name in (
            "policy_coefficient",
            "kl_coefficient",
            "entropy_coefficient",
            "distillation_coefficient",
            "clip_high",
        )
    },
    "gate.beta": NOT_NEGATIVE,
    "gate.threshold": FRACTION,
    "divergence.top_k": AT_LEAST_ONE,
    "teacher.ema_decay": Range(at_least=0, below=1),
    "teacher.budget_tokens": AT_LEAST_ONE,
    "teacher.analyser.at_most": AT_LEAST_ONE,
    "teacher.analyser.max_tokens": AT_LEAST_ONE,
    "teacher.analyser.max_concurrent": AT_LEAST_ONE,
    "teacher.analyser.temperature": NOT_NEGATIVE,
    "teacher.parts.demonstration.keep": AT_LEAST_ONE,
    "retrieval.exploration": NOT_NEGATIVE,
    "retrieval.gap_slope": POSITIVE,
    "retrieval.top_k": AT_LEAST_ONE,
    "algorithm.objective.clip_low": Range(at_least=0, below=1),
    "algorithm.objective.dual_clip": Range(above=1),
    "algorithm.advantage.invalid_penalty": NOT_NEGATIVE,
    "algorithm.advantage.std_floor": POSITIVE,
    "algorithm.advantage.gamma": FRACTION,
    "algorithm.advantage.step_weight": NOT_NEGATIVE,
    "algorithm.supervision.coefficient": NOT_NEGATIVE,
    "algorithm.shaping.weight": FRACTION,
    "algorithm.shaping.clip": FRACTION,
    "algorithm.shaping.spread": FRACTION,
    "algorithm.shaping.gamma": FRACTION,
    "environment.max_turns": AT_LEAST_ONE,
    "model.lora.rank": AT_LEAST_ONE,
    "model.lora.alpha": POSITIVE,
    "model.lora.dropout": Range(at_least=0, below=1),
    "module.learning_rate": POSITIVE,
    "module.weight_decay": NOT_NEGATIVE,
    "module.warmup_steps": NOT_NEGATIVE,
    "module.max_grad_norm": POSITIVE,
    "module.episodes_per_step": AT_LEAST_ONE,
    "module.rows_per_step": AT_LEAST_ONE,
    "module.token_budget": AT_LEAST_ONE,
    "trainer.max_epochs": AT_LEAST_ONE,
    "trainer.num_nodes": AT_LEAST_ONE,
    # 0 would write no checkpoint at all
    "callbacks.checkpoint.every_n_epochs": AT_LEAST_ONE,
}
"""Ranges of settings that belong to constructors, by dotted path."""
