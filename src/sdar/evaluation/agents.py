"""Agents without a model, the floor and ceiling of a panel: a random admissible agent and the expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sdar.environments.base import Environment
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task, Turn
from sdar.randomness import keyed_generator
from sdar.rollout.answers import checked_plan
from sdar.rollout.guard import GuardedPool, answers_in_time
from sdar.rollout.live import LiveEpisode
from sdar.rollout.settings import ENVIRONMENT_TIMEOUT_S
from sdar.rollout.waves import waves

Choose = Callable[[Task, int, Observation], str | StepOutcome | None]
"""The action for (task, turn, observation); None: the agent gives up; an outcome: it failed with that error."""


def play_random(
    environment: Environment,
    tasks: Sequence[Task],
    seed: int,
    *,
    max_concurrent_episodes: int = 64,
    timeout_s: float | None = ENVIRONMENT_TIMEOUT_S,
) -> list[Episode] | None:
    """Play every task once with uniformly drawn admissible actions, keyed by (seed, task, turn).

    None if the environment does not list admissible actions. ``timeout_s`` as in
    :class:`~sdar.rollout.guard.GuardedPool`.
    """
    unlisted: list[Task] = []

    def choose(task: Task, turn: int, observation: Observation) -> str | None:
        if observation.actions is None:
            unlisted.append(task)
        if not observation.actions:
            return None
        draw = keyed_generator(seed, "random_agent", task.task_id, turn).integers(len(observation.actions))
        return observation.actions[int(draw)]

    episodes = _play(environment, tasks, choose, max_concurrent_episodes, timeout_s)
    return None if unlisted else episodes


def play_expert(
    environment: Environment,
    tasks: Sequence[Task],
    *,
    max_concurrent_episodes: int = 64,
    timeout_s: float | None = ENVIRONMENT_TIMEOUT_S,
) -> list[Episode] | None:
    """Play every task once with the environment's expert; None if no task has one."""
    return play_plans(
        environment, tasks, environment.expert, max_concurrent_episodes=max_concurrent_episodes, timeout_s=timeout_s
    )


def play_plans(
    environment: Environment,
    tasks: Sequence[Task],
    plan_of: Callable[[Task], list[str] | None],
    *,
    max_concurrent_episodes: int = 64,
    timeout_s: float | None = ENVIRONMENT_TIMEOUT_S,
) -> list[Episode] | None:
    """Play every task once by its own plan; None if no task has one.

    A task without a plan counts as a failure, and so does a plan that ends before the episode.
    """
    asked = {task.task_id: partial(_plan, plan_of, task) for task in tasks}
    plans = answers_in_time("a plan", asked, timeout_s)
    if all(plan is None for plan in plans.values()):
        return None

    def choose(task: Task, turn: int, _: Observation) -> str | StepOutcome | None:
        plan = plans[task.task_id]
        if isinstance(plan, StepOutcome):
            return plan
        return plan[turn] if plan is not None and turn < len(plan) else None

    return _play(environment, tasks, choose, max_concurrent_episodes, timeout_s)


def _plan(plan_of: Callable[[Task], list[str] | None], task: Task) -> list[str] | None:
    return checked_plan(plan_of(task))


def _play(
    environment: Environment, tasks: Sequence[Task], choose: Choose, max_concurrent: int, timeout_s: float | None
) -> list[Episode]:
    """Episodes in the order of the tasks; their turns hold actions and rewards, but no tokens."""
    episodes: list[Episode] = []
    with GuardedPool(environment, timeout_s) as pool:
        for wave in waves(len(tasks), max_concurrent):
            chosen = [tasks[index] for index in wave]
            games = [LiveEpisode(task, 0, start) for task, start in zip(chosen, pool.reset(chosen), strict=True)]
            for game in games:
                game.episode.opening = game.observation.text
            while live := {slot: game for slot, game in enumerate(games) if game.live}:
                actions = {slot: action for slot, game in live.items() if (action := _act(choose, game)) is not None}
                for slot, outcome in pool.step(actions).items():
                    games[slot].take(outcome, environment.max_turns)
            episodes += [game.episode for game in games]
    return episodes


def _act(choose: Choose, game: LiveEpisode) -> str | None:
    """The agent's action, as a new turn; an agent that gives up or fails ends its episode."""
    action = choose(game.episode.task, len(game.episode.turns), game.observation)
    if isinstance(action, StepOutcome):
        game.finish(action.end or EndReason.ERROR_ENVIRONMENT, action)
        return None
    if action is None:
        game.finish(EndReason.FAILURE)
    else:
        game.episode.turns.append(Turn([], [], action, action, True, game.observation))
    return action
