"""The training data of reinforcement learning: one item per epoch, and the item is a whole iteration.

Lightning's epoch is the RL iteration. The train loader has a stated length of one and collects when it is iterated
(not when it is built), so that resuming from an end-of-epoch checkpoint collects nothing twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from sdar.environments.base import Environment
from sdar.episode import Episode, Task
from sdar.errors import UserError
from sdar.policy.sharding import gathered
from sdar.randomness import keyed_generator
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.dynamic import SampledGroups, sample_groups
from sdar.teacher.base import Teacher


class Iteration:
    """What one RL iteration learns from.

    ``index``     0-based number of the iteration (Lightning's epoch).
    ``episodes``  this rank's episodes, the members of a group side by side.
    ``timings``   seconds spent while collecting: ``generate_s``, ``environment_s``.
    ``tasks``     the iteration's tasks over all ranks, in the order in which they were drawn; with dynamic sampling
                  also those in waiting, of which not all were played.
    ``sampled``   what dynamic sampling did; None: it is off.

    Not a dataclass on purpose: Lightning and torch walk into dataclasses to move tensors, and would copy every
    episode (and fail on the frozen ones).
    """

    def __init__(
        self,
        index: int,
        episodes: list[Episode],
        timings: Mapping[str, float],
        tasks: Sequence[Task],
        sampled: SampledGroups | None = None,
    ) -> None:
        self.index = index
        self.episodes = episodes
        self.timings = dict(timings)
        self.tasks = list(tasks)
        self.sampled = sampled

    @property
    def drawn(self) -> list[Episode]:
        """Episodes of this rank's tasks as they were drawn, before dynamic sampling replaced or left out any."""
        return self.episodes if self.sampled is None else [e for group in self.sampled.first for e in group]

    @property
    def replaced(self) -> list[Episode]:
        """Episodes of this rank that were played, and thrown away for those of another task."""
        return [] if self.sampled is None else [e for group in self.sampled.replaced for e in group]


def sample_tasks(tasks: Sequence[Task], count: int, *, seed: int, iteration: int, rounds: int = 1) -> list[Task]:
    """Draw ``count`` different tasks for an iteration, the task types taking turns.

    With more ``rounds`` than one, ``count`` more follow for each further round, all different; the first round is the
    same whatever their number.

    The draw depends on (seed, iteration) and the tasks alone, so every rank and a resumed run see the same. Turns are
    handed on from iteration to iteration: over many of them the types appear equally often, also when ``count`` is
    not a multiple of their number. A type that runs out is passed over.

    Raises:
        UserError: there are fewer tasks than ``count`` times ``rounds``.
    """
    check_task_count(count, rounds, len(tasks))
    generator = keyed_generator(seed, "tasks", iteration)
    by_type: dict[str, list[Task]] = {}
    for task in tasks:
        by_type.setdefault(task.task_type, []).append(task)
    types = sorted(by_type)
    queues = {name: [by_type[name][i] for i in generator.permutation(len(by_type[name]))] for name in types}
    drawn: list[Task] = []
    turn = iteration * count
    while len(drawn) < count * rounds:
        queue = queues[types[turn % len(types)]]
        if queue:
            drawn.append(queue.pop())
        turn += 1
    return drawn


def check_task_count(count: int, rounds: int, available: int) -> None:
    """UserError where an iteration may need more tasks than there are."""
    if count > available:
        raise UserError(
            f"rollout.tasks_per_iteration is {count}, but the environment has only {available} training tasks"
        )
    if count * rounds > available:
        raise UserError(
            f"rollout.resample_rounds is {rounds - 1}, which may take {count * rounds} different tasks an iteration, "
            f"but the environment has only {available} training tasks; allowed are at most "
            f"{available // count - 1} rounds"
        )


class RolloutDataModule(LightningDataModule):
    """Collects the episodes of each iteration with the policy that is being trained.

    Args:
        collector: plays episodes; it holds the policy that :class:`sdar.learning.module.SDARModule` trains.
        environment: where the tasks come from (its first split is the training split).
        tasks_per_iteration: different tasks per iteration over all ranks; at least 1, a multiple of the ranks.
        group_size: episodes per task (G), at least 2.
        seed: seed of the tasks and of every sampled token.
        teacher: told of every iteration before it is played; None: there is none.
        resample_rounds: how often groups without spread are replaced by those of other tasks; 0: never.
        keep_equal_groups: whether groups that are without spread in the end are learned from.
        skills_in_prompt: whether the policy itself reads the teacher's text while it plays (Skill-GRPO).
    """

    def __init__(
        self,
        collector: Collector,
        environment: Environment,
        *,
        tasks_per_iteration: int,
        group_size: int,
        seed: int,
        teacher: Teacher | None = None,
        skills_in_prompt: bool = False,
        resample_rounds: int = 0,
        keep_equal_groups: bool = True,
    ) -> None:
        super().__init__()
        if tasks_per_iteration < 1:
            raise UserError(f"rollout.tasks_per_iteration is {tasks_per_iteration}, but it must be at least 1")
        if group_size < 2:
            raise UserError(
                f"rollout.group_size is {group_size}, but a group needs at least 2 episodes, which are compared"
            )
        if resample_rounds < 0:
            raise UserError(f"rollout.resample_rounds is {resample_rounds}, but it must be at least 0")
        self.collector = collector
        self.environment = environment
        self.tasks_per_iteration = tasks_per_iteration
        self.group_size = group_size
        self.seed = seed
        self.resample_rounds = resample_rounds
        self.keep_equal_groups = keep_equal_groups
        self.teacher = teacher
        self.privileged: Callable[[Task, int], str] | None = None
        if skills_in_prompt:
            if teacher is None or not teacher.known_before:
                what = "there is no teacher" if teacher is None else "its text is only known after the episode"
                raise UserError(f"algorithm.skills_in_prompt is true, but {what}; allowed is false, or teacher=skills")
            self.privileged = teacher.privileged_text
        self._train_tasks: Sequence[Task] | None = None

    @property
    def train_tasks(self) -> Sequence[Task]:
        """All tasks of the training split (built when first asked for)."""
        if self._train_tasks is None:
            self._train_tasks = self.environment.tasks(self.environment.splits()[0])
        return self._train_tasks

    def collect(self, iteration: int, *, rank: int = 0, world_size: int = 1) -> Iteration:
        """Play one iteration's episodes of one rank.

        Tasks are drawn for all ranks together and dealt out in turn, whole groups at a time: what is sampled for a
        task depends on (seed, iteration, task, member, turn) and never on the rank that plays it.
        """
        count, rounds = self.tasks_per_iteration, self.resample_rounds + 1
        tasks = sample_tasks(self.train_tasks, count, seed=self.seed, iteration=iteration, rounds=rounds)
        if self.teacher is not None:
            self.teacher.begin(tasks, iteration=iteration, seed=self.seed)
        timings: dict[str, float] = {}

        def play(chosen: Sequence[Task]) -> list[list[Episode]]:
            members = range(self.group_size)
            requests = [EpisodeRequest(task=task, member=member) for task in chosen for member in members]
            collected = self.collector.collect(
                requests, seed=self.seed, key=("train", iteration), privileged=self.privileged
            )
            for name, seconds in collected.timings.items():
                timings[name] = timings.get(name, 0.0) + seconds
            episodes = collected.episodes
            return [episodes[i : i + self.group_size] for i in range(0, len(episodes), self.group_size)]

        places = [tasks[count * number : count * (number + 1)][rank::world_size] for number in range(rounds)]
        with gathered(self.collector.policy.model):
            found = sample_groups(places, play, keep_equal_groups=self.keep_equal_groups)
        dynamic = rounds > 1 or not self.keep_equal_groups
        episodes = [episode for group in found.groups for episode in group]
        return Iteration(iteration, episodes, timings, tasks, found if dynamic else None)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Check the settings against the number of tasks and ranks."""
        check_task_count(self.tasks_per_iteration, self.resample_rounds + 1, len(self.train_tasks))
        world_size = self.trainer.world_size if self.trainer is not None else 1
        if self.tasks_per_iteration % world_size != 0:
            raise UserError(
                f"rollout.tasks_per_iteration is {self.tasks_per_iteration}, but it must be a multiple of the "
                f"{world_size} processes of the run"
            )

    def train_dataloader(self) -> DataLoader[Iteration]:
        """A loader of exactly one item; an iterable loader's items beyond its stated length would be dropped."""
        # The stated length is exact, and there are no workers to multiply it.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return DataLoader(_OneIteration(self), batch_size=None, num_workers=0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Episodes stay where they are; the module moves the micro-batches it makes of them."""
        return batch


class _OneIteration(IterableDataset[Iteration]):
    """The iteration that the trainer's current epoch names, collected when it is asked for."""

    def __init__(self, datamodule: RolloutDataModule) -> None:
        self._datamodule = datamodule

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iteration]:
        trainer = self._datamodule.trainer
        if trainer is None:
            raise RuntimeError("the train loader collects for a trainer; without one, call RolloutDataModule.collect")
        yield self._datamodule.collect(trainer.current_epoch, rank=trainer.global_rank, world_size=trainer.world_size)
