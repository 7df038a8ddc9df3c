"""``sdar evaluate endpoint=URL model=NAME environment=NAME``: an environment's panel against a chat endpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from signal import Signals
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from sdar.config.arguments import named_values
from sdar.config.command_line import CommandLine, only, parse_command_line
from sdar.config.fields import settings
from sdar.config.paths import at_home
from sdar.config.plugins import allowing
from sdar.errors import USER_ERROR, RunFailed, Stopped, UserError, command, run_command
from sdar.output.printable import printable

if TYPE_CHECKING:
    from lightning import Trainer

    from sdar.environments.base import Environment
    from sdar.episode import Episode
    from sdar.evaluation.endpoint import Endpoint, EndpointSettings
    from sdar.evaluation.panel import Panel
    from sdar.evaluation.result import EvaluationResult
    from sdar.evaluation.settings import EvaluationSettings
    from sdar.rollout.settings import RolloutSettings
    from sdar.run.assembly import Assembly
    from sdar.teacher.base import Teacher

_HELP = """\
usage: sdar evaluate endpoint=URL [model=NAME] [run=RUN] [environment=NAME] [evaluation.SETTING=VALUE ...]
                     [concurrency=8] [attempts=5] [timeout_s=120] [api_key_env=SDAR_API_KEY] [with_skills=true]
                     [logs_dir=logs] [name=evaluate] [run_dir=FOLDER] [--config-dir DIR] [--allow PACKAGE]

Plays the fixed panel of an environment against an OpenAI-style chat endpoint, without skills and with, and prints the
table of sdar train. With run=RUN, environment, panel, skills and sampling are those of a training run. The key of the
API is read from the environment variable that api_key_env names. Results are written to a run folder.
"""

_GROUPS = ("environment", "rollout", "evaluation", "teacher", "retrieval", "skills", "search_engine")
_KEPT = ("environment", "rollout", "evaluation", "teacher")
"""Groups that decide what is played; they stand in the run folder's ``config.yaml``."""


@settings(frozen=True)
class EvaluateSettings:
    """What is played besides the groups of a configuration, and where the results go.

    ``run``          a run's folder, or a checkpoint in it, whose panel is played; None: the settings given here
    ``with_skills``  whether the panel is also played with the teacher's text in the prompts
    ``logs_dir``, ``name``, ``run_dir``  as for ``sdar train``
    """

    run: str | None = None
    with_skills: bool = True
    logs_dir: str = "logs"
    name: str = "evaluate"
    run_dir: str | None = None


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    line = parse_command_line(arguments)
    if line.help or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    only(line, "sdar evaluate", "--config-dir", "--config-name")
    with allowing(line.allow):
        return _evaluate(line, arguments)


def _evaluate(line: CommandLine, arguments: Sequence[str]) -> int:
    from sdar.evaluation.endpoint import Endpoint, EndpointSettings
    from sdar.run.signals import StopSignals

    own, rest = _split(line.overrides, EvaluateSettings)
    asked, overrides = _split(rest, EndpointSettings)
    given = EvaluateSettings(**named_values(own, "sdar.commands.evaluate.EvaluateSettings"))
    endpoint = Endpoint(EndpointSettings(**named_values(asked, "sdar.evaluation.endpoint.EndpointSettings")))
    _check_place(given)
    config = _config(given, overrides, line)
    setup = _setup(config, with_skills=given.with_skills)
    model = endpoint.find_model()
    started = datetime.now()
    folder = _folder(given, started, config)
    about = {"started": started.isoformat(timespec="microseconds"), "command": ["sdar", "evaluate", *arguments]}
    results: list[EvaluationResult] = []
    signals = StopSignals()
    try:
        with signals.held():
            _play(setup, endpoint, model, folder, results)
    except Stopped as stopped:
        reason = f"stopped by {Signals(stopped.number).name}"
        if all(result.name != model for result in results):  # it is played alone first
            raise Stopped(stopped.number, f"{reason}; no agent was played") from None
        _conclude(setup, endpoint, model, folder, results, {**about, "stopped": True})
        raise Stopped(stopped.number, f"{reason}; the agents that were played are in {folder}") from None
    else:
        _conclude(setup, endpoint, model, folder, results, about)
    finally:
        endpoint.close()
    return 0


def _split(overrides: Sequence[str], owner: type) -> tuple[list[str], list[str]]:
    """Arguments that are settings of a class, and the others."""
    names = {field.name for field in fields(owner)}
    own = [text for text in overrides if text.partition("=")[0] in names]
    return own, [text for text in overrides if text not in own]


def _check_place(given: EvaluateSettings) -> None:
    """Refuse a place for the results in which nothing can be written, or which holds others."""
    from sdar.run.folder import RESULTS_FILE, RUN_FILE, check_writable
    from sdar.run.rules.names import check_name

    check_name(given.name)
    if given.run_dir is None:
        check_writable("logs_dir", given.logs_dir)
        return
    check_writable("run_dir", given.run_dir)
    if any((Path(given.run_dir) / file).exists() for file in (RESULTS_FILE, RUN_FILE)):
        raise UserError(f"run_dir={given.run_dir} holds a run already; set another folder")


def _config(given: EvaluateSettings, overrides: Sequence[str], line: CommandLine) -> dict[str, Any]:
    """The groups that decide what is played, in plain values: of a run, or composed for a pretrained model."""
    from sdar.run.folder import CONFIG_FILE, read_config, run_config
    from sdar.run.parts import compose_parts, part

    if given.run is None:
        if wrong := [text for text in overrides if text.lstrip("+~").startswith("model")]:
            raise UserError(
                f"{wrong[0]}: only settings of {', '.join(_GROUPS)} can be given here; model=NAME is the endpoint's"
            )
        composed = compose_parts(
            ["model=hf", *overrides], (*_GROUPS, "model"), config_dir=line.config_dir, config_name=line.config_name
        )
        return {name: part(composed, name) for name in _KEPT}
    place = Path(at_home(given.run))
    known = read_config(place) if (place / CONFIG_FILE).is_file() else run_config(place)
    if known is None:
        raise UserError(f"run must be the folder of a run, or a checkpoint in it, got {given.run}")
    _change(known, overrides)
    return {name: part(known, name) for name in _KEPT}


def _change(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set single settings of a run's configuration, which is data: nothing in it is composed or resolved."""
    from sdar.config.compose import parse

    for override in parse(overrides, several=False):
        *path, name = override.key_or_group.split(".")
        node: Any = config
        for step in path:
            node = node.get(step) if isinstance(node, Mapping) else None
        if not path or path[0] not in _KEPT or not isinstance(node, MutableMapping) or override.is_delete():
            raise UserError(
                f"{override.input_line}: with run=RUN only single settings of {', '.join(_KEPT)} can be given, such as "
                "evaluation.panel_size=20"
            )
        node[name] = override.value()


@dataclass(frozen=True)
class _Setup:
    """What is played. ``teacher``: whose text is read in the evaluation with skills; None: there is none."""

    environment: Environment
    panel: Panel
    rollout: RolloutSettings
    evaluation: EvaluationSettings
    teacher: Teacher | None


def _setup(config: Mapping[str, Any], *, with_skills: bool) -> _Setup:
    """Build what is played. UserError: settings that are wrong, or that an endpoint cannot be played with."""
    from sdar.config.build import build, build_settings
    from sdar.environments.base import training_tasks
    from sdar.evaluation.panel import assert_disjoint, make_panel
    from sdar.evaluation.settings import EvaluationSettings
    from sdar.rollout.readiness import check_ready
    from sdar.rollout.settings import RolloutSettings

    evaluation: EvaluationSettings = build_settings(EvaluationSettings, config["evaluation"], "evaluation")
    rollout: RolloutSettings = build_settings(RolloutSettings, config["rollout"], "rollout")
    rollout = replace(rollout, sampling=evaluation.sampling)
    if rollout.context == "window" and rollout.max_prompt_tokens is not None:
        raise UserError(
            f"rollout.max_prompt_tokens must be null for an endpoint, whose tokens cannot be counted here, got "
            f"{rollout.max_prompt_tokens}"
        )
    teacher = message_teacher(config["teacher"]) if with_skills and config["teacher"] is not None else None
    environment: Environment = build(config["environment"], "environment")
    check_ready(environment, rollout.environment_timeout_s)
    panel = make_panel(environment, evaluation.split, evaluation.panel_size, evaluation.seed)
    assert_disjoint(panel, training_tasks(environment, needed=False))
    if teacher is not None:
        teacher.connect(environment, len)
    return _Setup(environment, panel, rollout, evaluation, teacher)


def message_teacher(node: Mapping[str, Any]) -> Teacher | None:
    """The teacher whose text can be a message; None: it has no text before an episode is played."""
    from sdar.config.build import build
    from sdar.policy.chat import Position

    teacher: Teacher = build(node, "teacher", later=("other",))
    if not teacher.known_before:
        return None
    if teacher.position == Position.BEFORE_TEMPLATE:
        raise UserError(
            "teacher.position must be user_turn or system for an endpoint, which takes messages, got before_template"
        )
    if (budget := getattr(teacher, "budget_tokens", None)) is not None:
        raise UserError(
            f"teacher.budget_tokens must be null for an endpoint, whose tokens cannot be counted here, got {budget}"
        )
    return teacher


def _folder(given: EvaluateSettings, started: datetime, config: Mapping[str, Any]) -> Path:
    """The new run folder, with what is played in it."""
    import yaml

    from sdar.run.folder import CONFIG_FILE, make_run_folder, write_whole

    folder = make_run_folder(given.logs_dir, given.name, started) if given.run_dir is None else Path(given.run_dir)
    write_whole(folder / CONFIG_FILE, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    return folder


def _play(setup: _Setup, endpoint: Endpoint, model: str, folder: Path, results: list[EvaluationResult]) -> None:
    """The agents without a model, and the model: alone, and with skills where there is a teacher.

    ``results``: gets those of each agent when it has been played.
    """
    from sdar.callbacks.episode_log import EpisodeLog
    from sdar.evaluation.endpoint_panel import ChatPlayer
    from sdar.evaluation.result import summarise
    from sdar.policy.chat import Position
    from sdar.run.results import play_baselines

    panel, seed, teacher = setup.panel, setup.evaluation.seed, setup.teacher
    _say(f"run folder: {folder}")
    _say(f"panel: {len(panel.tasks)} tasks of {panel.split}, content hash {panel.content_hash[:12]}")
    log = EpisodeLog(folder)
    results += play_baselines(_as_assembly(setup, model), seed) if setup.evaluation.baselines else []
    alone = ChatPlayer(endpoint, model, setup.rollout, seed)
    players = {model: alone}
    if teacher is not None:
        players[f"{model}, with skills"] = replace(
            alone,
            name="val_with_skills",
            privileged=teacher.evaluation_text,
            system=teacher.position == Position.SYSTEM,
        )
    for name, player in players.items():
        done = 0

        def played(episodes: Sequence[Episode], name: str = name) -> None:
            nonlocal done
            done += len(episodes)
            # The directory is given, so the trainer is not asked for its own.
            log.write_evaluation(cast("Trainer", None), summarise(name, episodes))
            if done < len(panel.tasks):
                print(f"{printable(name)}: {done} of {len(panel.tasks)} tasks played", file=sys.stderr, flush=True)

        episodes = player.play(setup.environment, panel.tasks, played)
        results.append(summarise(name, episodes, panel.content_hash))
        _say(results[-1].line())


def _as_assembly(setup: _Setup, model: str) -> Assembly:
    """What :mod:`sdar.run.results` reads of a run's objects; there is no module, and no weights are known."""
    parts = {
        "environment": setup.environment,
        "panel": setup.panel,
        "policy": SimpleNamespace(name=model, content_hash=None),
        "eval_collector": SimpleNamespace(settings=setup.rollout),
    }
    return cast("Assembly", SimpleNamespace(**parts))


def _conclude(
    setup: _Setup,
    endpoint: Endpoint,
    model: str,
    folder: Path,
    results: Sequence[EvaluationResult],
    about: Mapping[str, Any],
) -> None:
    from sdar.evaluation.report import final_table
    from sdar.rollout.troubles import first_error
    from sdar.run.folder import git_revision, read_record, versions, write_record
    from sdar.run.results import write_results

    panel = setup.panel
    _say(final_table(results, title=f"Success on {len(panel.tasks)} tasks of {panel.split}"))
    for result in results:
        if result.errors and (error := first_error(result.episodes)) is not None:
            _say(f"{result.name}: the first error is that of {error}")
    file = write_results(folder, _as_assembly(setup, model), results)
    asked: EndpointSettings = endpoint.settings
    record = {
        **(read_record(file) or {}),
        **about,
        "endpoint": {
            **asdict(asked),
            "model": model,
            "failures": {kind.value: count for kind, count in sorted(endpoint.failures.items())},
            "retries": endpoint.retries,
            "tokens": dict(endpoint.tokens),
        },
        "evaluation_seed": setup.evaluation.seed,
        "sampling": asdict(setup.evaluation.sampling),
        "git": git_revision(),
        "versions": versions(),
    }
    write_record(file, record)
    _say(f"figures: {file}")
    for result in results:
        if 2 * result.errors > len(result.records):
            raise RunFailed(
                f"{result.errors} of the {len(result.records)} episodes of {printable(result.name)!r} ended by errors, "
                "so the table says nothing about it; see that the endpoint and the environment answer, and play again"
            )


def _say(text: str) -> None:
    print(printable(text), flush=True)


if __name__ == "__main__":
    run_command(main)
