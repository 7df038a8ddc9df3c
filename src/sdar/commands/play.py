"""``sdar play environment=NAME``: play a task in the terminal, or watch, and see what the model would see."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdar.config.command_line import Parser
from sdar.errors import UserError, command

if TYPE_CHECKING:
    from sdar.commands.players import Player
    from sdar.environments.base import Environment
    from sdar.episode import StepOutcome, Task
    from sdar.rollout.settings import SamplingConfig
    from sdar.teacher.base import Teacher

Read = Callable[[str], str]
Write = Callable[[str], object]

HINT = "(type a command, ? for the commands that are possible now, or Ctrl-D to leave)"

_ALLOWED = ("environment", "rollout", "teacher", "retrieval", "skills", "search_engine")


@dataclass(frozen=True)
class _Setup:
    """``history_turns``: past turns of a prompt; None: one growing conversation. ``teacher``: settings of skills."""

    environment: Environment
    history_turns: int | None
    sampling: SamplingConfig
    teacher: dict[str, Any] | None


@command
def main(arguments: Sequence[str], read: Read = input, write: Write = print) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    options = _parser().parse_intermixed_args(list(arguments))
    setup = _setup(options)
    task = _task(setup.environment, options.split, options.index)
    player = _player(options, setup, task, read, write)
    watched = options.expert or options.policy is not None
    write(f"{task.split} task {task.task_id} ({task.task_type})" + ("" if watched else f"  {HINT}"))
    try:
        play(setup.environment, task, player, write, setup.history_turns)
    except (EOFError, KeyboardInterrupt):
        write("\nleft")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sdar play", description="Play a task and see what the model would see.")
    parser.add_argument(
        "settings", nargs="*", metavar="SETTING", help="as for training: environment=alfworld, rollout=window"
    )
    parser.add_argument("--policy", metavar="MODEL", help="watch a model play: a checkpoint, a folder, a shipped name")
    parser.add_argument("--skills", action="store_true", help="the watched model reads the skills of its task")
    parser.add_argument("--temperature", type=float, default=0.4, help="of the watched model; 0: greedy")
    parser.add_argument("--seed", type=int, default=0, help="of the watched model's tokens")
    parser.add_argument("--split", help="which tasks to choose from; the default is the training split")
    parser.add_argument("--index", type=int, default=0, help="number of the task in its split, from 0")
    parser.add_argument("--data-dir", help="folder of the published games; short for environment.data_dir=FOLDER")
    parser.add_argument("--expert", action="store_true", help="show a solution instead of asking for commands")
    return parser


def _setup(options: argparse.Namespace) -> _Setup:
    """What the settings describe. A checkpoint without further settings plays what its run played.

    All settings but those of environment, search engine, rollout and teacher belong to training and are refused.
    """
    if options.policy is None and options.skills:
        raise UserError("--skills: they are for a model that plays; give one with --policy")
    if options.policy is not None and options.expert:
        raise UserError("--policy and --expert: only one of them can play")
    from omegaconf import DictConfig, OmegaConf

    from sdar.commands.players import run_config
    from sdar.config.build import build, build_settings
    from sdar.rollout.settings import RolloutSettings, SamplingConfig
    from sdar.run.parts import compose_parts, part

    known = None if options.policy is None or options.settings else run_config(options.policy)
    config = compose_parts(options.settings, _ALLOWED) if known is None else OmegaConf.create(known)
    assert isinstance(config, DictConfig)
    if options.data_dir is not None:
        config["environment"]["data_dir"] = options.data_dir
    environment, rollout = part(config, "environment"), part(config, "rollout")
    teacher = None if config["teacher"] is None else part(config, "teacher")
    settings = build_settings(RolloutSettings, rollout, "rollout")
    return _Setup(
        environment=build(environment, "environment"),
        history_turns=settings.history_turns if settings.context == "window" else None,
        sampling=SamplingConfig(options.temperature, 1.0, 0, settings.sampling.max_response_tokens),
        teacher=teacher,
    )


def _player(options: argparse.Namespace, setup: _Setup, task: Task, read: Read, write: Write) -> Player:
    from sdar.commands.players import Person, PolicyPlayer, Solution, load_policy
    from sdar.config.build import build
    from sdar.teacher.base import join

    if options.expert:
        return Solution(setup.environment, task)
    if options.policy is None:
        return Person(setup.environment, read, write)
    teacher: Teacher | None = None
    if options.skills:
        if setup.teacher is None:
            raise UserError("--skills: teacher=none has none to read")
        teacher = build(setup.teacher, "teacher", later=("other",))
    policy, privileged = load_policy(options.policy), None
    if teacher is not None:
        join(teacher, setup.environment, policy)
        privileged = teacher.evaluation_text(task)
        write(f"the model also reads:\n{privileged}")
    return PolicyPlayer(
        policy,
        setup.environment,
        task,
        setup.sampling,
        window=setup.history_turns is not None,
        privileged=privileged,
        seed=options.seed,
    )


def _task(environment: Environment, split: str | None, index: int) -> Task:
    splits = environment.splits()
    chosen = splits[0] if split is None else split
    if chosen not in splits:
        raise UserError(f"--split must be one of {', '.join(splits)}, got {chosen}")
    tasks = environment.tasks(chosen)
    if not 0 <= index < len(tasks):
        raise UserError(f"--index must be 0 to {len(tasks) - 1}, as {chosen} has {len(tasks)} tasks, got {index}")
    return tasks[index]


def play(environment: Environment, task: Task, player: Player, write: Write, history_turns: int | None = None) -> bool:
    """Play one episode; returns whether it was won.

    Shown are the texts of the messages that a model would get, and after each what the player does: those of one
    growing conversation, or, with ``history_turns``, a whole prompt that shows so many past turns (fewer where the
    player has no room for them).
    """
    from sdar.environments.base import PastTurn
    from sdar.episode import StepOutcome

    pool = environment.open_pool()
    try:
        (first,) = pool.reset([task])
        if isinstance(first, StepOutcome):
            raise UserError(f"task {task.task_id} cannot be played: {first.error}")
        observation = first
        texts = [environment.opening(task, observation)]
        past: list[PastTurn] = []
        for turn in range(1, environment.max_turns + 1):
            if history_turns is not None:
                shown = past[max(0, len(past) - history_turns) :]
                texts = [
                    environment.window_prompt(task, shown[n:], observation, len(past)) for n in range(len(shown) + 1)
                ]
            text = next((text for text in texts if player.fits(text)), None)
            write(f"\n[turn {turn} of {environment.max_turns}]\n{texts[0] if text is None else text}")
            if text is None:
                write("\nnot solved: the model's context has no room left")
                return False
            move = player.move(text, observation)
            if move is None:
                break
            if move.response is not None:
                write(f"\nresponse{'' if move.valid else ' (not in the format)'}: {move.response}")
            write(f"\naction: {move.action}")
            outcome = pool.step({0: move.action})[0]
            past.append(PastTurn(observation.text, move.action))
            observation, texts = outcome.observation, [environment.reply(outcome.observation)]
            if outcome.done:
                write(f"\n{texts[0]}\n{_ending(outcome, turn)}")
                return outcome.success
        write(f"\n{texts[0]}\nnot solved")
        return False
    finally:
        pool.close()


def _ending(outcome: StepOutcome, turn: int) -> str:
    if outcome.error is not None:
        return f"ended by an error: {outcome.error}"
    return f"{'solved' if outcome.success else 'not solved'} in {turn} turns, reward {outcome.reward:g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
