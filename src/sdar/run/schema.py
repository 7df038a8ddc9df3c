"""The frame of a configuration: what stands at the top of ``configs/train.yaml``, and of which class each place is.

It is read as source text (:mod:`sdar.config.signatures`), so that names and types are checked before anything heavy is
imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from sdar.config.fields import AtLeastOne

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from sdar.environments.base import Environment
    from sdar.evaluation.settings import EvaluationSettings
    from sdar.learning.method import LossAggregation, Method
    from sdar.learning.optimizer import OptimizerSettings
    from sdar.objective.divergence import Divergence
    from sdar.objective.gate import Gate
    from sdar.objective.schedule import Schedules
    from sdar.policy.language_model import LanguageModel
    from sdar.rollout.settings import RolloutSettings
    from sdar.skills.retrieval import Retrieval
    from sdar.teacher.base import Teacher


@dataclass(frozen=True)
class Configuration:
    """The whole of a configuration.

    ``name``       folder under ``logs_dir``
    ``seed``       of tasks and sampled tokens; the same seed gives the same curve
    ``train``      False: only evaluate ``ckpt_path``, or the start weights
    ``ckpt_path``  a checkpoint, or ``last``: continue from it; ``last_or_new``: start afresh where there is none
    ``domain``     names the shipped skills and the shipped tiny model that belong to the environment
    ``skills``     the library that teachers read: a shipped one by its name, or a folder
    ``run_dir``    folder of this run; null: ``<logs_dir>/<name>/<date>_<time>``
    ``threads``    CPU threads of torch; null: as many as there are cores
    ``rank_timeout_minutes``  with several processes, the run ends when one gives no sign of life for so long
    """

    name: str
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    train: bool
    ckpt_path: str | None
    logs_dir: str
    domain: str
    skills: str
    run_dir: str | None
    threads: AtLeastOne | None
    rank_timeout_minutes: Annotated[float, Ge(0.05), Le(1440)]
    trainer: Trainer
    gate: Gate
    divergence: Divergence
    schedule: Schedules
    retrieval: Retrieval
    loss_aggregation: LossAggregation
    rollout: RolloutSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    environment: Environment
    model: LanguageModel
    teacher: Teacher | None
    algorithm: Method
    callbacks: dict[str, Callback | None]
    logger: dict[str, Logger | None]
