"""One bandit per task type: it chooses the skill that has helped most, or has been tried least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sdar.config.fields import NotNegative, Positive, checked
from sdar.episode import Task, TaskOutcome
from sdar.errors import UserError
from sdar.skills.controls import one_of
from sdar.skills.library import Skill, SkillLibrary
from sdar.skills.retrieval import Choice, Draw, Retrieval

SQRT_2 = math.sqrt(2)


@dataclass(frozen=True)
class Arm:
    """One skill of one task type: how often it was chosen, and its rewards in [0, 1]."""

    chosen: int = 0
    rewards: float = 0.0
    rewarded: int = 0

    def chosen_again(self) -> Arm:
        """The arm after one more choice."""
        return replace(self, chosen=self.chosen + 1)

    @property
    def mean(self) -> float:
        """Mean reward; 0 before the first."""
        return self.rewards / self.rewarded if self.rewarded else 0.0

    def score(self, queries: int, exploration: float) -> float:
        """Mean + c sqrt(ln N / n) (arXiv 2605.15155, section 2.1); infinite for a skill that was never chosen."""
        if self.chosen == 0:
            return math.inf
        return self.mean + exploration * math.sqrt(math.log(queries) / self.chosen)


class UCBRetrieval(Retrieval):
    """The task skill with the highest upper confidence bound, chosen per task, for all members of its group.

    For each task type, score(e) = mean(e) + c sqrt(ln N / n(e)), where N is the number of tasks of the type so far and
    n(e) is how often skill e was chosen. Tasks choose in the order in which they were drawn, over all ranks, and n is
    updated after each choice, so that several tasks of a type in one iteration try several skills. Skills that were
    never chosen come first; ties keep the library's order. Rewards are added at the end of the iteration, in the order
    of the tasks. A task without a reward does not change the mean of its skill, and a task without an episode (not
    played, or all ended by errors) is not counted. A group that was replaced by dynamic sampling counts like any other.

    Args:
        general: whether to add the library's general skills.
        exploration: c. The paper does not give its value; UCB1 uses the square root of 2.
        reward: ``return``: the group's mean return divided by that of a solved episode, clipped to [0, 1];
            ``gap_on_success``: sigmoid(gap_slope x mean gap of the tokens of the group's solved episodes), which
            measures how much the skill makes the teacher endorse successful tokens. If the skill is not in the
            rollout's prompt, it does not affect this iteration's return, and ``return`` carries little information.
        gap_slope: slope per nat.
    """

    @checked
    def __init__(
        self,
        general: bool = True,
        exploration: NotNegative = SQRT_2,
        reward: Literal["return", "gap_on_success"] = "return",
        gap_slope: Positive = 5.0,
    ) -> None:
        super().__init__(general)
        self.exploration = exploration
        self.reward = reward
        self.gap_slope = gap_slope
        self._arms: dict[str, dict[str, Arm]] = {}
        """task type -> name of a skill -> its record over all iterations so far"""
        self._chosen: dict[str, str] = {}
        """task -> name of its skill in this iteration"""

    def begin(self, library: SkillLibrary, tasks: Sequence[Task]) -> None:
        """Choose for every task in order. Each choice is counted before the next."""
        arms = {task_type: dict(found) for task_type, found in self._arms.items()}
        self._chosen = {}
        for task in tasks:
            of_type = arms.setdefault(task.task_type, {})
            choice = self._best(library, of_type)
            if choice is not None:
                name = choice.skill.name
                of_type[name] = of_type.get(name, Arm()).chosen_again()
                self._chosen[task.task_id] = name

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """The choice of this iteration; for other tasks, the next choice."""
        name = self._chosen.get(task.task_id)
        if name is not None:
            return [Choice(skill, "chosen for this iteration") for skill in library.task if skill.name == name]
        best = self._best(library, self._arms.get(task.task_type, {}))
        return [] if best is None else [best]

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:  # noqa: ARG002
        """Any one task skill."""
        return one_of(library, library.task, self.general)

    def _best(self, library: SkillLibrary, arms: Mapping[str, Arm]) -> Choice | None:
        queries = sum(arm.chosen for arm in arms.values())
        bounds = [arms.get(skill.name, Arm()).score(queries, self.exploration) for skill in library.task]
        if not bounds:
            return None
        bound = max(bounds)
        skill = library.task[bounds.index(bound)]
        arm = arms.get(skill.name, Arm())
        if arm.chosen == 0:
            return Choice(skill, "never tried for this task type")
        return Choice(skill, f"bound {bound:.3f}: mean {arm.mean:.3f}, chosen {arm.chosen} of {queries} times")

    def observe(self, outcomes: Sequence[TaskOutcome], solved_return: float) -> None:
        """Count the choices and add the rewards, in task order."""
        for outcome in outcomes:
            name = self._chosen.get(outcome.task.task_id)
            if name is None or outcome.episodes == 0:
                continue
            of_type = self._arms.setdefault(outcome.task.task_type, {})
            arm = of_type.get(name, Arm()).chosen_again()
            reward = self._reward(outcome, solved_return)
            if reward is not None:
                arm = Arm(arm.chosen, arm.rewards + reward, arm.rewarded + 1)
            of_type[name] = arm
        self._chosen = {}

    def _reward(self, outcome: TaskOutcome, solved_return: float) -> float | None:
        """A reward in [0, 1]; None if the group has none."""
        if self.reward == "return":
            return min(max(outcome.mean_return / solved_return, 0.0), 1.0)
        gap = outcome.gap_on_success
        if gap is None or not math.isfinite(gap):  # the update was skipped, too
            return None
        return 0.5 * (1.0 + math.tanh(0.5 * self.gap_slope * gap))  # sigmoid without overflow

    def metrics(self) -> dict[str, float]:
        """Mean reward and share of the choices, by task type and skill."""
        figures: dict[str, float] = {}
        for task_type, arms in self._arms.items():
            queries = sum(arm.chosen for arm in arms.values())
            for name, arm in arms.items():
                figures[f"skills/ucb_mean/{task_type}/{name}"] = arm.mean
                figures[f"skills/ucb_share/{task_type}/{name}"] = arm.chosen / queries
        return figures

    def record(self) -> dict[str, Any]:
        """Task type -> skill -> how often chosen, mean reward, number of rewards."""
        return {
            "ucb": {
                task_type: {
                    name: {"chosen": arm.chosen, "mean": round(arm.mean, 6), "rewards": arm.rewarded}
                    for name, arm in arms.items()
                }
                for task_type, arms in self._arms.items()
            }
        }

    def state(self) -> dict[str, Any]:
        """All arms, and the kind of reward."""
        arms = {
            task_type: {name: [arm.chosen, arm.rewards, arm.rewarded] for name, arm in found.items()}
            for task_type, found in self._arms.items()
        }
        return {"ucb": arms, "reward": self.reward}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint. Raises UserError if it is of another strategy, or of another kind of reward."""
        if state.get("reward") != self.reward:
            raise UserError(
                "ckpt_path names a checkpoint of a run with another retrieval; it must be retrieval=ucb with "
                f"retrieval.reward={self.reward}"
            )
        self._chosen = {}
        self._arms = {
            task_type: {name: Arm(int(n), float(total), int(count)) for name, (n, total, count) in found.items()}
            for task_type, found in state["ucb"].items()
        }
