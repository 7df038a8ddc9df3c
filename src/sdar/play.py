"""``python -m sdar.play environment=alfworld``: play a task in the terminal and see what the model would see."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.build import build
from sdar.config.compose import compose_config
from sdar.config.schema import RANGES, RolloutSettings
from sdar.config.targets import check_arguments, check_node
from sdar.environments.base import Environment, PastTurn
from sdar.episode import Observation, StepOutcome, Task
from sdar.errors import UserError

HINT = "(type a command, ? for the commands that are possible now, or Ctrl-D to leave)"
PROMPT = "> "

Read = Callable[[str], str]
"""Asks for a line, as ``input`` does: raises EOFError at the end of the input."""

Write = Callable[[str], object]
"""Shows a text, as ``print`` does."""


def main(arguments: Sequence[str], read: Read = input, write: Write = print) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    try:
        options = _parser().parse_intermixed_args(list(arguments))
        environment, history = _environment(options.settings, options.data_dir)
        task = _task(environment, options.split, options.index)
        commands = _solution(environment, task) if options.expert else _typed(read, write)
        write(f"{task.split} task {task.task_id} ({task.task_type})" + ("" if options.expert else f"  {HINT}"))
        play(environment, task, commands, write, history)
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
    parser.add_argument("--split", help="which tasks to choose from; the default is the training split")
    parser.add_argument("--index", type=int, default=0, help="number of the task in its split, from 0")
    parser.add_argument("--data-dir", help="folder of the published games; short for environment.data_dir=FOLDER")
    parser.add_argument("--expert", action="store_true", help="show a solution instead of asking for commands")
    return parser


def _environment(overrides: Sequence[str], data_dir: str | None) -> tuple[Environment, int | None]:
    """The environment that the settings describe, and how many past turns a prompt shows (None: a conversation).

    All settings but those of environment and rollout belong to training and are refused.
    """
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].split(".")[0] not in ("environment", "rollout"):
            raise UserError(
                f"{override}: only settings of the environment and of rollout are allowed here, such as "
                "environment=alfworld and rollout=window"
            )
    config = compose_config(overrides)
    node = config["environment"]
    if data_dir is not None:
        node["data_dir"] = data_dir
    try:
        settings = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
        rollout = cast("dict[str, Any]", OmegaConf.to_container(config["rollout"], resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(f"environment: a value cannot be resolved: {str(error).splitlines()[0]}") from error
    check_node(settings, "environment", ranges=RANGES)
    check_arguments(RolloutSettings, rollout, "rollout", ranges=RANGES)
    environment = build(settings, "environment")
    assert isinstance(environment, Environment)
    return environment, rollout["history_turns"] if rollout["context"] == "window" else None


def _task(environment: Environment, split: str | None, index: int) -> Task:
    splits = environment.splits()
    chosen = splits[0] if split is None else split
    if chosen not in splits:
        raise UserError(f"--split {chosen}: allowed are {', '.join(splits)}")
    tasks = environment.tasks(chosen)
    if not 0 <= index < len(tasks):
        raise UserError(f"--index {index}: {chosen} has {len(tasks)} tasks, so 0 to {len(tasks) - 1} are allowed")
    return tasks[index]


Commands = Callable[[Observation], str | None]
"""What to do next; None: there is nothing left to do."""


def _typed(read: Read, write: Write) -> Commands:
    def ask(observation: Observation) -> str:
        while True:
            line = read(PROMPT).strip()
            if line == "?":
                write("\n".join(observation.actions) if observation.actions else "this environment lists no commands")
            elif line:
                return line

    return ask


def _solution(environment: Environment, task: Task) -> Commands:
    solution = environment.expert(task)
    if solution is None:
        raise UserError(f"--expert: no solution of task {task.task_id} is known")
    remaining: Iterator[str] = iter(solution)
    return lambda _: next(remaining, None)


def play(
    environment: Environment, task: Task, commands: Commands, write: Write, history_turns: int | None = None
) -> bool:
    """Play one episode; returns whether it was won.

    Shown are the texts of the messages that a model would get, and after each the command: those of one growing
    conversation, or, with ``history_turns``, a whole prompt that shows so many past turns. What is typed is taken as
    the action itself, or, when it has an action tag, as a whole response that is projected as a model's would be.
    """
    pool = environment.open_pool()
    try:
        (first,) = pool.reset([task])
        if isinstance(first, StepOutcome):
            raise UserError(f"task {task.task_id} cannot be played: {first.error}")
        observation = first
        text = environment.opening(task, observation)
        past: list[PastTurn] = []
        for turn in range(1, environment.max_turns + 1):
            if history_turns is not None:
                shown = past[max(0, len(past) - history_turns) :]
                text = environment.window_prompt(task, shown, observation, len(past))
            write(f"\n[turn {turn} of {environment.max_turns}]\n{text}")
            command = commands(observation)
            if command is None:
                break
            action = environment.project(command).action if "<action>" in command else command
            write(f"\naction: {action}")
            outcome = pool.step({0: action})[0]
            past.append(PastTurn(observation.text, action))
            observation, text = outcome.observation, environment.reply(outcome.observation)
            if outcome.done:
                write(f"\n{text}\n{_ending(outcome, turn)}")
                return outcome.success
        write(f"\n{text}\nnot solved")
        return False
    finally:
        pool.close()


def _ending(outcome: StepOutcome, turn: int) -> str:
    if outcome.error is not None:
        return f"ended by an error: {outcome.error}"
    return f"{'solved' if outcome.success else 'not solved'} in {turn} turns, reward {outcome.reward:g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
