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

from sdar.environments.base import Environment, training_tasks
from sdar.environments.task_list import tasks_by_type
from sdar.episode import Episode, Task
from sdar.errors import RunFailed, UserError
from sdar.learning.method import Method
from sdar.learning.ranks import Ranks
from sdar.policy.sharding import gathered
from sdar.randomness import keyed_generator
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.dynamic import SampledGroups, sample_groups
from sdar.rollout.settings import RolloutSettings
from sdar.rollout.troubles import first_error
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
    if count * rounds > len(tasks):
        raise UserError(f"{count} x {rounds} different tasks are needed, but there are only {len(tasks)}")
    generator = keyed_generator(seed, "tasks", iteration)
    by_type = tasks_by_type(tasks)
    types = sorted(by_type)
    queues = {name: generator.permutation(len(by_type[name])) for name in types}
    left = {name: len(by_type[name]) for name in types}
    drawn: list[Task] = []
    turn = iteration * count
    while len(drawn) < count * rounds:
        name = types[turn % len(types)]
        if left[name]:
            left[name] -= 1
            drawn.append(by_type[name][int(queues[name][left[name]])])
        turn += 1
    return drawn


def check_task_count(rollout: RolloutSettings, available: int) -> None:
    """UserError where an iteration may need more tasks than there are."""
    count, rounds = rollout.tasks_per_iteration, rollout.resample_rounds + 1
    if count > available:
        raise UserError(
            f"rollout.tasks_per_iteration must be <= {available}, the number of training tasks, got {count}"
        )
    if count * rounds > available:
        raise UserError(
            f"rollout.resample_rounds={rounds - 1} may take {count * rounds} different tasks per iteration, but there "
            f"are only {available} training tasks; it must be <= {available // count - 1}"
        )


class RolloutDataModule(LightningDataModule):
    """Collects the episodes of each iteration with the policy that is being trained.

    Args:
        collector: plays episodes; it holds the policy that :class:`sdar.learning.module.SDARModule` trains.
        environment: where the tasks come from (its first split is the training split).
        method: whether the policy itself reads the teacher's text while it plays (Skill-GRPO).
        rollout: how many episodes are played; the collector's.
        seed: seed of the tasks and of every sampled token.
        teacher: told of every iteration before it is played; None: that of the module, if it has one.

    Attributes:
        bad_iterations: iterations in a row, up to the present one, of which a larger share than
            ``rollout.max_error_fraction`` ended by errors, over all ranks. While it is above 0 nothing should be saved
            that a run continues from: its continuation repeats these iterations.
    """

    def __init__(
        self,
        collector: Collector,
        environment: Environment,
        method: Method,
        rollout: RolloutSettings,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.collector = collector
        self.environment = environment
        self.rollout = rollout
        self.seed = seed
        self.teacher = teacher
        self.bad_iterations = 0
        self._first_error = ""
        self.privileged: Callable[[Task, int], str] | None = None
        method.check_prompts(teacher)
        if method.skills_in_prompt and teacher is not None:
            self.privileged = teacher.privileged_text
        self._train_tasks: Sequence[Task] | None = None

    @property
    def train_tasks(self) -> Sequence[Task]:
        """All tasks of the training split (built when first asked for)."""
        if self._train_tasks is None:
            self._train_tasks = training_tasks(self.environment)
        return self._train_tasks

    def collect(self, iteration: int, *, rank: int = 0, world_size: int = 1) -> Iteration:
        """Play one iteration's episodes of one rank.

        Tasks are drawn for all ranks together and dealt out in turn, whole groups at a time: what is sampled for a
        task depends on (seed, iteration, task, member, turn) and never on the rank that plays it.
        """
        count, rounds = self.rollout.tasks_per_iteration, self.rollout.resample_rounds + 1
        group_size, keep_equal = self.rollout.group_size, self.rollout.keep_equal_groups
        tasks = sample_tasks(self.train_tasks, count, seed=self.seed, iteration=iteration, rounds=rounds)
        if (teacher := self._teacher()) is not None:
            teacher.begin(tasks, iteration=iteration, seed=self.seed)
        timings: dict[str, float] = {}

        def play(chosen: Sequence[Task]) -> list[list[Episode]]:
            requests = [EpisodeRequest(task, member) for task in chosen for member in range(group_size)]
            collected = self.collector.collect(
                requests, seed=self.seed, key=("train", iteration), privileged=self.privileged
            )
            for name, seconds in collected.timings.items():
                timings[name] = timings.get(name, 0.0) + seconds
            episodes = collected.episodes
            return [episodes[i : i + group_size] for i in range(0, len(episodes), group_size)]

        places = [tasks[count * number : count * (number + 1)][rank::world_size] for number in range(rounds)]
        with gathered(self.collector.policy.model):
            found = sample_groups(places, play, keep_equal_groups=keep_equal)
        dynamic = rounds > 1 or not keep_equal
        episodes = [episode for group in found.groups for episode in group]
        return Iteration(iteration, episodes, timings, tasks, found if dynamic else None)

    def _teacher(self) -> Teacher | None:
        if self.teacher is not None or self.trainer is None:
            return self.teacher
        found: Teacher | None = getattr(self.trainer.lightning_module, "teacher", None)
        return found

    def judge(self, iteration: Iteration, ranks: Ranks) -> None:
        """Count the errors of a collected iteration over all ranks, before anything is learned from it.

        Raises:
            RunFailed: it is the last of ``rollout.max_bad_iterations`` bad ones in a row, or no episode has a response
                although not all ended by errors.
        """
        episodes = [*iteration.episodes, *iteration.replaced]
        said = any(turn.response_ids for episode in episodes for turn in episode.turns)
        own = sum(episode.end.is_error for episode in episodes), len(episodes), first_error(episodes), said
        found = ranks.gather([own])
        failed, total = sum(share[0] for share in found), sum(share[1] for share in found)
        if failed < total and not any(share[3] for share in found):
            raise RunFailed(
                f"training stopped in iteration {iteration.index + 1}: none of its {total} episodes has a response; "
                "the first prompts do not fit into the model's context of "
                f"{self.collector.policy.context_tokens} tokens"
            )
        if failed <= self.rollout.max_error_fraction * total:
            self.bad_iterations = 0
            return
        if self.bad_iterations == 0:
            self._first_error = next(share[2] for share in found if share[2] is not None)
        self.bad_iterations += 1
        limit = self.rollout.max_bad_iterations
        if limit is not None and self.bad_iterations >= limit:
            good = iteration.index + 1 - self.bad_iterations
            how = f"continue after iteration {good} with ckpt_path=last" if good > 0 else "start again"
            raise RunFailed(
                f"training stopped in iteration {iteration.index + 1}: more than {self.rollout.max_error_fraction:.0%} "
                f"of the episodes ended by errors in {self.bad_iterations} iterations in a row "
                f"(rollout.max_bad_iterations={limit}), {failed} of {total} in this one, the first: "
                f"{self._first_error}; mend the environment and {how}"
            )

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Refuse more tasks per iteration than there are."""
        check_task_count(self.rollout, len(self.train_tasks))

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
        iteration = self._datamodule.collect(
            trainer.current_epoch, rank=trainer.global_rank, world_size=trainer.world_size
        )
        self._datamodule.judge(iteration, Ranks(size=trainer.world_size))
        yield iteration
