"""Agents without a model, the floor and ceiling of a panel: a random admissible agent and the expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdar.environments.base import Environment
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task, Turn
from sdar.randomness import keyed_generator
from sdar.rollout.collector import waves
from sdar.rollout.guard import GuardedPool, guarded

Choose = Callable[[Task, int, Observation], str | StepOutcome | None]
"""The action for (task, turn, observation); None: the agent gives up; an outcome: it failed with that error."""


def play_random(
    environment: Environment, tasks: Sequence[Task], seed: int, *, max_concurrent_episodes: int = 64
) -> list[Episode] | None:
    """Play every task once with uniformly drawn admissible actions, keyed by (seed, task, turn).

    None if the environment does not list admissible actions.
    """
    missing = False

    def choose(task: Task, turn: int, observation: Observation) -> str | None:
        nonlocal missing
        if not observation.actions:
            missing = missing or observation.actions is None
            return None
        draw = keyed_generator(seed, "random_agent", task.task_id, turn).integers(len(observation.actions))
        return observation.actions[int(draw)]

    episodes = _play(environment, tasks, choose, max_concurrent_episodes)
    return None if missing else episodes


def play_expert(
    environment: Environment, tasks: Sequence[Task], *, max_concurrent_episodes: int = 64
) -> list[Episode] | None:
    """Play every task once with the environment's expert; None if no task has one."""
    return play_plans(environment, tasks, environment.expert, max_concurrent_episodes=max_concurrent_episodes)


def play_plans(
    environment: Environment,
    tasks: Sequence[Task],
    plan_of: Callable[[Task], list[str] | None],
    *,
    max_concurrent_episodes: int = 64,
) -> list[Episode] | None:
    """Play every task once by its own plan; None if no task has one.

    A task without a plan counts as a failure, and so does a plan that ends before the episode.
    """
    plans: dict[str, list[str] | StepOutcome | None] = {}
    for task in tasks:
        plans[task.task_id] = guarded(lambda task=task: plan_of(task))  # type: ignore[misc]
    if all(plan is None for plan in plans.values()):
        return None

    def choose(task: Task, turn: int, _: Observation) -> str | StepOutcome | None:
        plan = plans[task.task_id]
        if isinstance(plan, StepOutcome):
            return plan
        return plan[turn] if plan is not None and turn < len(plan) else None

    return _play(environment, tasks, choose, max_concurrent_episodes)


@dataclass
class _Game:
    """A live episode and what its agent sees."""

    episode: Episode
    observation: Observation
    live: bool = True

    def finish(self, end: EndReason, outcome: StepOutcome | None = None) -> None:
        self.live = False
        self.episode.end = end
        if outcome is not None:
            self.episode.success = outcome.success and not end.is_error
            self.episode.scores = dict(outcome.scores)
            self.episode.error = outcome.error


def _play(environment: Environment, tasks: Sequence[Task], choose: Choose, max_concurrent: int) -> list[Episode]:
    """Episodes in the order of the tasks; their turns hold actions and rewards, but no tokens."""
    episodes: list[Episode] = []
    with GuardedPool(environment) as pool:
        for wave in waves(len(tasks), max_concurrent):
            episodes += _play_wave(environment, [tasks[index] for index in wave], choose, pool)
    return episodes


def _play_wave(environment: Environment, tasks: Sequence[Task], choose: Choose, pool: GuardedPool) -> list[Episode]:
    games = [_open(task, start) for task, start in zip(tasks, pool.reset(tasks), strict=True)]
    while any(game.live for game in games):
        actions: dict[int, str] = {}
        for slot, game in enumerate(games):
            action = _choose(choose, game) if game.live else None
            if action is not None:
                actions[slot] = action
        for slot, outcome in pool.step(actions).items():
            _take(games[slot], actions[slot], outcome, environment.max_turns)
    return [game.episode for game in games]


def _open(task: Task, start: Observation | StepOutcome) -> _Game:
    episode = Episode(task, member=0, turns=[], end=EndReason.FAILURE, success=False)
    if isinstance(start, StepOutcome):
        game = _Game(episode, start.observation)
        game.finish(start.end or EndReason.ERROR_ENVIRONMENT, start)
        return game
    episode.opening = start.text
    return _Game(episode, start)


def _choose(choose: Choose, game: _Game) -> str | None:
    """The agent's action; an agent that gives up or fails ends its episode."""
    action = choose(game.episode.task, len(game.episode.turns), game.observation)
    if isinstance(action, StepOutcome):
        game.finish(action.end or EndReason.ERROR_ENVIRONMENT, action)
        return None
    if action is None:
        game.finish(EndReason.FAILURE)
    return action


def _take(game: _Game, action: str, outcome: StepOutcome, max_turns: int) -> None:
    turn = Turn([], [], action, action, True, game.observation, reward=outcome.reward)
    game.episode.turns.append(turn)
    game.observation = outcome.observation
    if outcome.done:
        game.finish(outcome.end or EndReason.FAILURE, outcome)
    elif len(game.episode.turns) >= max_turns:
        game.finish(EndReason.TURN_LIMIT, outcome)
