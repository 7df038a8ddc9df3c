"""``python -m sdar.play environment=NAME``: play a task in the terminal, or watch, and see what the model would see."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.commands.players import Person, Player, PolicyPlayer, Read, Solution, Write, load_policy, run_settings
from sdar.config.build import build
from sdar.config.compose import compose_config
from sdar.config.targets import check_arguments, check_node
from sdar.environments.base import Environment, PastTurn
from sdar.episode import StepOutcome, Task
from sdar.errors import UserError
from sdar.rollout.sampling import SamplingConfig
from sdar.run.rules.schema import RANGES, RolloutSettings
from sdar.teacher.base import Teacher, join

HINT = "(type a command, ? for the commands that are possible now, or Ctrl-D to leave)"

_ALLOWED = ("environment", "rollout", "teacher", "retrieval", "skills", "search_engine")


@dataclass(frozen=True)
class _Setup:
    """``history_turns``: past turns of a prompt; None: one growing conversation. ``teacher``: settings of skills."""

    environment: Environment
    history_turns: int | None
    sampling: SamplingConfig
    teacher: dict[str, Any] | None


def main(arguments: Sequence[str], read: Read = input, write: Write = print) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    try:
        options = _parser().parse_intermixed_args(list(arguments))
        setup = _setup(options)
        task = _task(setup.environment, options.split, options.index)
        player = _player(options, setup, task, read, write)
        watched = options.expert or options.policy is not None
        write(f"{task.split} task {task.task_id} ({task.task_type})" + ("" if watched else f"  {HINT}"))
        play(setup.environment, task, player, write, setup.history_turns)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        write("\nleft")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows what is allowed")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sdar.play", description="Play a task and see what the model would see.")
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
    for override in options.settings:
        if override.lstrip("+~").partition("=")[0].split(".")[0] not in _ALLOWED:
            raise UserError(
                f"{override}: only settings of the environment, of rollout and of the teacher are allowed here, such "
                "as environment=alfworld and rollout=window"
            )
    if options.policy is None and options.skills:
        raise UserError("--skills: they are for a model that plays; give one with --policy")
    if options.policy is not None and options.expert:
        raise UserError("--policy and --expert: only one of them can play")
    known = None if options.policy is None or options.settings else run_settings(options.policy)
    config = compose_config(options.settings) if known is None else OmegaConf.create(known)
    assert isinstance(config, DictConfig)
    if options.data_dir is not None:
        config["environment"]["data_dir"] = options.data_dir
    environment, rollout = (_plain(config, name) for name in ("environment", "rollout"))
    check_node(environment, "environment", ranges=RANGES)
    check_arguments(RolloutSettings, rollout, "rollout", ranges=RANGES)
    teacher = None if config["teacher"] is None else _plain(config, "teacher")
    sampling = SamplingConfig(options.temperature, 1.0, 0, rollout["sampling"]["max_response_tokens"])
    built = build(environment, "environment")
    assert isinstance(built, Environment)
    return _Setup(built, rollout["history_turns"] if rollout["context"] == "window" else None, sampling, teacher)


def _plain(config: DictConfig, name: str) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", OmegaConf.to_container(config[name], resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: a value cannot be resolved: {str(error).splitlines()[0]}") from error


def _player(options: argparse.Namespace, setup: _Setup, task: Task, read: Read, write: Write) -> Player:
    if options.expert:
        return Solution(setup.environment, task)
    if options.policy is None:
        return Person(setup.environment, read, write)
    teacher: Teacher | None = None
    if options.skills:
        if setup.teacher is None:
            raise UserError("--skills: teacher=none has none to read")
        check_node(setup.teacher, "teacher", ranges=RANGES)
        teacher = build(setup.teacher, "teacher")
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
        raise UserError(f"--split {chosen}: allowed are {', '.join(splits)}")
    tasks = environment.tasks(chosen)
    if not 0 <= index < len(tasks):
        raise UserError(f"--index {index}: {chosen} has {len(tasks)} tasks, so 0 to {len(tasks) - 1} are allowed")
    return tasks[index]


def play(environment: Environment, task: Task, player: Player, write: Write, history_turns: int | None = None) -> bool:
    """Play one episode; returns whether it was won.

    Shown are the texts of the messages that a model would get, and after each what the player does: those of one
    growing conversation, or, with ``history_turns``, a whole prompt that shows so many past turns (fewer where the
    player has no room for them).
    """
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
