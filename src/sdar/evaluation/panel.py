"""Panels: fixed, content-hashed selections of tasks that every evaluation of a run plays in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest

from sdar.environments.base import Environment
from sdar.environments.task_list import content_hash, shared_tasks, tasks_by_type
from sdar.episode import Task
from sdar.errors import UserError
from sdar.randomness import keyed_generator


@dataclass(frozen=True)
class Panel:
    """Tasks of one split; ``content_hash`` (hex) is equal for panels of the same tasks, in any order."""

    tasks: tuple[Task, ...]
    split: str
    content_hash: str

    def share(self, rank: int, world_size: int) -> tuple[Task, ...]:
        """The tasks that one of ``world_size`` processes plays. The shares are disjoint and cover the panel."""
        return self.tasks[rank::world_size]

    def counts(self) -> dict[str, int]:
        """Number of tasks of each type, types sorted."""
        return dict(sorted(Counter(task.task_type for task in self.tasks).items()))


def default_split(environment: Environment) -> str:
    """The split that the environment names for panels, or the only one that is not for training.

    Raises:
        UserError: there is none, or more than one.
    """
    splits = environment.splits()
    if environment.default_split in splits:
        return str(environment.default_split)
    try:
        others = [name for name in splits if name != environment.training_split()]
    except UserError:  # data for evaluation only
        others = list(splits)
    if len(others) != 1:
        known = " or ".join(map(repr, others)) or f"a split beside {splits[0]!r}, which is for training"
        raise UserError(f"evaluation.split must be {known}, got null")
    return others[0]


def make_panel(environment: Environment, split: str | None, size: int, seed: int) -> Panel:
    """Choose ``size`` tasks of a split (None: the default one), the task types taking turns.

    Types are equally frequent to within one, as long as each has tasks left. The choice depends only on (seed, split)
    and the tasks. A smaller panel of the same seed is the beginning of a larger one.

    Raises:
        UserError: an unknown split, a size below 1, or fewer tasks than ``size``.
    """
    if split is None:
        split = default_split(environment)
    if split not in environment.splits():
        known = " or ".join(map(repr, environment.splits()))
        raise UserError(f"evaluation.split must be {known}, got {split!r}")
    if size < 1:
        raise UserError(f"evaluation.panel_size must be >= 1, got {size}")
    tasks = environment.tasks(split)
    if size > len(tasks):
        raise UserError(
            f"evaluation.panel_size must be <= {len(tasks)}, the number of tasks of the split {split!r}, got {size}"
        )
    by_type = tasks_by_type(tasks)
    orders = {
        name: keyed_generator(seed, "panel", split, name).permutation(len(of_type)) for name, of_type in by_type.items()
    }
    rounds = zip_longest(*([by_type[name][index] for index in orders[name]] for name in sorted(by_type)))
    chosen = [task for task in chain.from_iterable(rounds) if task is not None][:size]
    return Panel(tuple(chosen), split, content_hash(chosen))


def assert_disjoint(panel: Panel, train_tasks: Iterable[Task]) -> None:
    """Raise UserError if a task of the panel, by name or by content, is also a training task."""
    shared = [task.task_id for task in shared_tasks(panel.tasks, train_tasks)]
    if shared:
        raise UserError(
            f"evaluation.split must be disjoint from training, got {panel.split!r}: {len(shared)} of the panel's "
            f"{len(panel.tasks)} tasks are training tasks, for example {shared[0]}"
        )
