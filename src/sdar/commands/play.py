"""``sdar play environment=NAME``: play a task in the terminal, or watch a model, and see what the model sees."""

from __future__ import annotations

import argparse
from collections.abc import MutableMapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdar.config.command_line import Parser
from sdar.config.paths import at_home
from sdar.config.plugins import allowing
from sdar.config.words import shown
from sdar.errors import UserError, command, run_command
from sdar.output.printable import printable
from sdar.output.terminal import show_wrapped

if TYPE_CHECKING:
    from sdar.commands.players import Player, Read, Write
    from sdar.environments.base import Environment
    from sdar.episode import StepOutcome, Task
    from sdar.rollout.settings import RolloutSettings

HINT = "(type a command, ? for the possible commands, or Ctrl-D to leave)"

_ALLOWED = ("environment", "rollout", "teacher", "retrieval", "skills", "search_engine")


@command
def main(arguments: Sequence[str], read: Read = input, write: Write = show_wrapped) -> int:
    """Run a command line and return the exit code."""
    options = _parser().parse_intermixed_args(list(arguments))
    with allowing(options.allow):
        return _play(options, read, lambda text: write(printable(text)))


def _play(options: argparse.Namespace, read: Read, write: Write) -> int:
    environment, task, player, history_turns = _prepare(options, read, write)
    watched = options.expert or options.policy is not None
    write(f"{task.split} task {task.task_id} ({task.task_type})" + ("" if watched else f"  {HINT}"))
    try:
        play(environment, task, player, write, history_turns)
    except (EOFError, KeyboardInterrupt):
        write("\nleft")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sdar play", description="Play a task and see what the model would see.")
    parser.add_argument(
        "settings", nargs="*", metavar="SETTING", help="as for sdar train: environment=alfworld, rollout=window"
    )
    parser.add_argument(
        "--policy",
        type=at_home,
        metavar="MODEL",
        help="watch a model: a checkpoint, a folder, a shipped name, or the URL of a chat endpoint",
    )
    parser.add_argument("--model", metavar="NAME", help="of the chat endpoint, where it has several models")
    parser.add_argument("--skills", action="store_true", help="the watched model also reads the skills of its task")
    parser.add_argument("--temperature", type=float, default=0.4, help="of the watched model (0: greedy)")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens of the watched model")
    parser.add_argument("--split", help="tasks to choose from (default: the training split)")
    parser.add_argument("--index", type=int, default=0, help="number of the task in its split, from 0")
    parser.add_argument(
        "--data-dir", type=at_home, help="folder of the published games, short for environment.data_dir=FOLDER"
    )
    parser.add_argument("--expert", action="store_true", help="show a solution instead of asking for commands")
    parser.add_argument("--config-dir", metavar="DIR", help="find configuration files of your own there, too")
    parser.add_argument(
        "--allow", metavar="PACKAGE", action="append", default=[], help="use an environment or model of this package"
    )
    return parser


def _prepare(options: argparse.Namespace, read: Read, write: Write) -> tuple[Environment, Task, Player, int | None]:
    """What is played, by whom, and the past turns of a prompt (None: one growing conversation).

    Only settings of environment, search engine, rollout and teacher are accepted. A checkpoint without further settings
    plays what its run played.
    """
    from sdar.run.folder import run_config
    from sdar.run.parts import build_part, compose_parts, part

    if options.policy is None and options.skills:
        raise UserError("--skills needs a model that plays; set --policy")
    if options.policy is not None and options.expert:
        raise UserError("--policy and --expert cannot be combined: only one of them can play")
    is_endpoint = (options.policy or "").startswith(("http://", "https://"))
    if options.model is not None and not is_endpoint:
        raise UserError(f"--model needs the URL of a chat endpoint as --policy, got --policy {options.policy}")
    known = None if options.policy is None or options.settings else run_config(options.policy)
    # A model behind an endpoint gets the prompts of pretrained ones, see sdar evaluate.
    given, allowed = (
        (["model=hf", *options.settings], (*_ALLOWED, "model")) if is_endpoint else (options.settings, _ALLOWED)
    )
    config: Any = known or compose_parts(given, allowed, config_dir=options.config_dir)
    if options.data_dir is not None:
        settings = config.get("environment")
        if not isinstance(settings, MutableMapping):
            raise UserError(f"environment must be the settings of an environment, got {shown(settings)}")
        settings["data_dir"] = options.data_dir
    teacher_settings = part(config, "teacher") if options.skills else None
    if options.skills and teacher_settings is None:
        raise UserError("--skills needs a teacher that reads skills, got teacher=none")
    from sdar.commands.players import Person, PolicyPlayer, Solution, load_policy
    from sdar.config.build import build, build_settings
    from sdar.environments.asked import ANSWER_S, answering
    from sdar.environments.worker import Worker
    from sdar.rollout.readiness import check_ready
    from sdar.rollout.settings import RolloutSettings, SamplingConfig

    built: Environment = build_part(config, "environment")
    check_ready(built, ANSWER_S)
    environment = answering(built, Worker(ANSWER_S))
    rollout: RolloutSettings = build_settings(RolloutSettings, part(config, "rollout"), "rollout")
    sampling = SamplingConfig(options.temperature, 1.0, 0, rollout.sampling.max_response_tokens)
    history_turns = rollout.history_turns if rollout.context == "window" else None
    task = _task(environment, options.split, options.index)
    if options.expert:
        return environment, task, Solution(environment, task), history_turns
    if options.policy is None:
        return environment, task, Person(environment, read, write), history_turns
    if is_endpoint:
        rollout = replace(rollout, sampling=sampling)
        player = _endpoint_player(options, environment, task, rollout, teacher_settings, built, write)
        return environment, task, player, history_turns
    policy, privileged = load_policy(options.policy), None
    if teacher_settings is not None:
        from sdar.teacher.base import Teacher, join

        teacher: Teacher = build(teacher_settings, "teacher", later=("other",))
        join(teacher, built, policy)
        privileged = teacher.evaluation_text(task)
        write(f"the model also reads:\n{privileged}")
    watched = PolicyPlayer(
        policy, environment, task, sampling, window=history_turns is not None, privileged=privileged, seed=options.seed
    )
    return environment, task, watched, history_turns


def _endpoint_player(
    options: argparse.Namespace,
    environment: Environment,
    task: Task,
    rollout: RolloutSettings,
    teacher_settings: Any,
    built: Environment,
    write: Write,
) -> Player:
    """A model behind a chat endpoint; its key is in the environment variable of ``sdar evaluate``."""
    from sdar.commands.evaluate import message_teacher
    from sdar.commands.players import EndpointPlayer
    from sdar.evaluation.endpoint import Endpoint, EndpointSettings
    from sdar.evaluation.endpoint_panel import ChatPlayer
    from sdar.policy.chat import Position

    teacher = None if teacher_settings is None else message_teacher(teacher_settings)
    endpoint = Endpoint(EndpointSettings(endpoint=options.policy, model=options.model))
    player = ChatPlayer(endpoint, endpoint.find_model(), rollout, options.seed, "play")
    if teacher is not None:
        teacher.connect(built, len)
        text = teacher.evaluation_text(task)
        write(f"the model also reads:\n{text}")
        player = replace(player, privileged=lambda _: text, system=teacher.position == Position.SYSTEM)
    return EndpointPlayer(player, environment, task)


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
    """Play one episode and return whether it was won.

    Shows the messages that a model would get, and the player's answer to each: the messages of one growing
    conversation, or, with ``history_turns``, whole prompts with that many past turns (fewer if the player has no room).
    """
    from sdar.environments.base import PastTurn
    from sdar.environments.tools import as_text
    from sdar.episode import StepOutcome

    with closing(environment.open_pool()) as pool:
        (first,) = pool.reset([task])
        if isinstance(first, StepOutcome):
            raise UserError(f"task {task.task_id} cannot be played: {first.error}")
        observation = first
        preface = environment.preface(task)
        if preface:
            write(f"\n[before the first turn]\n{as_text(preface)}")
        player.begin(preface)
        texts = [environment.opening(task, observation)]
        past: list[PastTurn] = []
        for turn in range(1, environment.max_turns + 1):
            if history_turns is not None:
                shown = past[max(0, len(past) - history_turns) :]
                starts = range(len(shown) + 1)
                texts = [environment.window_prompt(task, shown[n:], observation, len(past)) for n in starts]
            text = next((text for text in texts if player.fits(text, observation)), None)
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


def _ending(outcome: StepOutcome, turn: int) -> str:
    if outcome.error is not None:
        return f"ended by an error: {outcome.error}"
    return f"{'solved' if outcome.success else 'not solved'} in {turn} turns, reward {outcome.reward:g}"


if __name__ == "__main__":
    run_command(main)
