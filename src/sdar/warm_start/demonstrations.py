"""Demonstrations for a tiny model, with exactly the token ids of a rollout.

There are three kinds: right skills with a skilled demonstrator, no skills with a mediocre one, and wrong skills with
the mediocre one, so that the model does not trust a skill that does not fit the task. Tasks come from a separate split,
which has no training or validation task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdar.environments.demonstration import Step
from sdar.episode import Observation, Task
from sdar.policy.chat import ChatFormat
from sdar.randomness import keyed_generator
from sdar.warm_start.domain import SPLIT, Domain


@dataclass
class Mixture:
    """Shares of the three kinds of demonstrations, which sum to 1."""

    right: float = 0.42
    none: float = 0.42
    wrong: float = 0.16


@dataclass(frozen=True)
class Demonstration:
    """Token ids of an episode and the loss weight of each id.

    Imitated responses have weight 1. Observations have ``environment_weight``, which teaches copying names early.
    Prompts, skills and slips have weight 0.
    """

    ids: list[int]
    weights: list[float]


class DemonstrationStream:
    """An infinite, seekable stream of demonstrations. Number ``index`` depends on the seed and the index only."""

    def __init__(
        self,
        domain: Domain,
        chat: ChatFormat | None,
        *,
        seed: int,
        max_turns: int | None = None,
        mixture: Mixture | None = None,
        environment_weight: float = 0.2,
    ) -> None:
        """``chat`` may be None if only ``texts`` is used (before there is a tokenizer).

        ``max_turns``: turn limit of a demonstration; None: the domain's default.
        """
        self._domain = domain
        self._chat = chat
        self._seed = seed
        self._max_turns = max_turns or domain.max_turns
        self._mixture = mixture or Mixture()
        self._environment_weight = environment_weight
        self._environment = domain.environment(self._max_turns)
        self._teacher = domain.teacher()

    def __getitem__(self, index: int) -> Demonstration:
        rng = keyed_generator(self._seed, SPLIT, "kind", index)
        task, steps, kind = self.play(index, rng.random())
        return self._encode(task, steps, self.privileged(task, index, kind))

    def texts(self, count: int) -> Iterator[str]:
        """Raw texts of the first demonstrations, for the vocabulary."""
        for index in range(count):
            task, steps, kind = self.play(index, index / count)
            yield self.privileged(task, index, kind)
            for number, step in enumerate(steps):
                yield self._domain.shown(self._environment, task, number, step)
                yield self._domain.response(step)

    def play(self, index: int, draw: float) -> tuple[Task, list[Step], str]:
        """Task, steps and kind (right, none, wrong) of a demonstration; ``draw`` in [0, 1) selects the kind."""
        kind = "right" if draw < self._mixture.right else "none"
        if draw >= self._mixture.right + self._mixture.none:
            kind = "wrong"
        task = self._domain.task(self._seed, index)
        rng = keyed_generator(self._seed, SPLIT, "play", index)
        steps = self._domain.demonstrate(task, rng, skilled=kind == "right", max_turns=self._max_turns)
        return task, steps, kind

    def privileged(self, task: Task, index: int, kind: str) -> str:
        """The privileged text of a demonstration."""
        if kind == "none":
            return ""
        if kind == "wrong":
            task = self._domain.misleading(task, keyed_generator(self._seed, SPLIT, "wrong skill", index))
        return self._teacher.privileged_text(task)

    def _encode(self, task: Task, steps: list[Step], privileged: str) -> Demonstration:
        chat = self._chat
        assert chat is not None, "a demonstration needs a chat format"
        ids: list[int] = []
        weights: list[float] = []
        for number, step in enumerate(steps):
            observation = Observation(step.observation, None, "")
            if number == 0:
                context, splice = chat.opening(self._environment.opening(task, observation))
                block = chat.privileged(privileged)
                context = context[:splice] + block + context[splice:]
                context_weight = 0.0
            else:
                context = chat.between(self._environment.reply(observation))
                context_weight = self._environment_weight
            response = [*chat.privileged(self._domain.response(step)), chat.end_id]
            ids += context + response
            weights += [context_weight] * len(context) + [float(step.imitate)] * len(response)
        return Demonstration(ids, weights)
