"""``sdar serve RUN_OR_CHECKPOINT``: a trained policy behind OpenAI's chat completions API."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar.config.arguments import named_values
from sdar.config.command_line import only, parse_command_line
from sdar.config.paths import at_home
from sdar.config.plugins import allowing
from sdar.errors import USER_ERROR, UserError, command, run_command
from sdar.processes import cores
from sdar.run.folder import CONFIG_FILE, checkpoints_of, run_config
from sdar.serving.settings import ServeSettings

if TYPE_CHECKING:
    import socket

    from sdar.rollout.settings import SamplingConfig
    from sdar.serving.server import ChatServer

_HELP = """\
usage: sdar serve RUN_OR_CHECKPOINT [host=127.0.0.1] [port=8080] [model_name=NAME] [max_waiting=16]
                  [max_request_kb=4000] [kept_cache_mb=1000] [temperature=T] [top_p=P] [top_k=K] [max_tokens=N]
                  [threads=N] [--allow PACKAGE]

Serves a policy: POST /v1/chat/completions and GET /v1/models, as in OpenAI's API. The policy is a run's (its newest
checkpoint), a checkpoint's, an exported model's folder or a shipped model's name. Ctrl-C ends it.
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    line = parse_command_line(arguments)
    if line.help or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    only(line, "sdar serve")
    source, *others = line.overrides or ("",)
    if not source or source.partition("=")[0] in {field.name for field in fields(ServeSettings)}:
        raise UserError("RUN_OR_CHECKPOINT is missing: sdar serve RUN_OR_CHECKPOINT [port=8080]")
    given = ServeSettings(**named_values(others, "sdar.serving.settings.ServeSettings"))
    if given.threads is not None and given.threads > cores():
        raise UserError(f"threads={given.threads}, but this process may use only {cores()} cores")
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UserError("sdar serve needs starlette and uvicorn, which are not installed: pip install 'sdar[serve]'")
    with allowing(line.allow):
        return _serve(at_home(source), given)


def _serve(source: str, given: ServeSettings) -> int:
    from sdar.serving.server import listen

    policy_source, name = _policy_source(source)
    sampling = _sampling(given, run_config(policy_source))
    with listen(given.host, given.port) as listening:  # before a model is loaded for nothing
        server = _server(policy_source, given.model_name or name, sampling, given, listening)
        if not _is_loopback(given.host):
            print(
                f"warning: whoever reaches host={given.host} may use the model: there is neither encryption nor access "
                "control",
                file=sys.stderr,
            )
        print(f"{server.service.name} at {server.url} (Ctrl-C ends it)", flush=True)
        server.serve_until_stopped()
    print("ended", flush=True)
    return 0


def _server(
    source: str, name: str, sampling: SamplingConfig, given: ServeSettings, listening: socket.socket
) -> ChatServer:
    import torch
    import transformers

    from sdar.commands.players import load_policy
    from sdar.serving.app import Service
    from sdar.serving.chat import ChatModel
    from sdar.serving.server import ChatServer

    transformers.utils.logging.disable_progress_bar()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    model = ChatModel(load_policy(source), sampling, kept_bytes=1_000_000 * given.kept_cache_mb)
    bounds = {"max_waiting": given.max_waiting, "max_bytes": 1000 * given.max_request_kb}
    return ChatServer(Service(model, name, **bounds), listening)


def _policy_source(source: str) -> tuple[str, str]:
    """What is loaded, and what it is called: a checkpoint, a model's folder, or a shipped model's name."""
    place = Path(source)
    if place.is_file():
        if run_config(place) is None:
            raise UserError(
                f"RUN_OR_CHECKPOINT must be a run's folder, a checkpoint inside it, a model's folder or a shipped "
                f"model's name, got {source}"
            )
        return source, place.resolve().parent.parent.name
    if (place / CONFIG_FILE).is_file():
        found = next(iter(checkpoints_of(place)), None)
        if found is None:
            raise UserError(f"{source} has no checkpoint yet; RUN_OR_CHECKPOINT must be a run that has one")
        if run_config(found) is None:
            raise UserError(f"{source} keeps its checkpoints elsewhere, in {found.parent}; export one: sdar export")
        return str(found), place.resolve().name
    return source, place.resolve().name if place.is_dir() else source


def _sampling(given: ServeSettings, settings: Mapping[str, Any] | None) -> SamplingConfig:
    """As the command line says, else as the run evaluates, else as models are sampled by default."""
    from sdar.config.build import build_settings
    from sdar.evaluation.settings import EvaluationSettings
    from sdar.rollout.settings import SamplingConfig
    from sdar.run.parts import part

    sampling = SamplingConfig()
    if settings is not None and "evaluation" in settings:
        evaluated: EvaluationSettings = build_settings(EvaluationSettings, part(settings, "evaluation"), "evaluation")
        sampling = evaluated.sampling
    return SamplingConfig(
        temperature=sampling.temperature if given.temperature is None else given.temperature,
        top_p=sampling.top_p if given.top_p is None else given.top_p,
        top_k=sampling.top_k if given.top_k is None else given.top_k,
        max_response_tokens=sampling.max_response_tokens if given.max_tokens is None else given.max_tokens,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    run_command(main)
