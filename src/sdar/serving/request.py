"""A chat completion request, read from JSON: what is asked, and nothing that would be passed over in silence.

A field that would change the text and is not supported is refused unless it has the value that changes nothing; so is
an unknown one. Source of the names: OpenAI's API reference, "Create chat completion"; ``top_k`` is vLLM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar.episode import Preface
from sdar.errors import UserError
from sdar.evaluation.chat_messages import Told
from sdar.files import parse_json
from sdar.rollout.settings import SamplingConfig
from sdar.serving.errors import ApiError, wrong
from sdar.serving.messages import Said, conversation_of, tools_of

_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "web_search_options": (),
}
"""Fields that are not supported, with the values (null apart) under which they are understood."""

_IGNORED = frozenset({"user", "metadata", "store", "service_tier", "prompt_cache_key", "safety_identifier"})
"""Fields that change no text."""

_TAKEN = frozenset(
    {"model", "messages", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stream"}
    | {"stream_options", "tools"}
)

_WITHOUT_TOOLS: Mapping[str, tuple[Any, ...]] = {"parallel_tool_calls": (False,)}
"""Further values that change nothing where there are no tools."""

_LONGEST_NAME = 60


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for.

    ``preface``     system message and tools
    ``told``        texts of the user's messages and results of calls, at least one
    ``said``        the assistant's messages between them, one fewer
    ``may_call``    whether calls of the tools are read from the response; else it is a text
    ``sampling``    how the response is sampled; its length is the limit that the client or the server has set
    ``asked_limit`` whether the client has set that limit
    ``seed``        of the sampled tokens; None: a new one
    ``stream``      whether the response comes in pieces, and ``usage`` whether with the counts of tokens at the end
    """

    model: str
    preface: Preface
    told: tuple[Told, ...]
    said: tuple[Said, ...]
    may_call: bool
    sampling: SamplingConfig
    asked_limit: bool
    seed: int | None
    stream: bool
    usage: bool


def read_request(body: bytes, defaults: SamplingConfig) -> ChatRequest:
    """The request of a JSON body; what it says nothing of is as in ``defaults``. ApiError 400: it cannot be met."""
    try:
        asked = parse_json(body.decode())
    except ValueError as error:  # of UTF-8, too
        raise ApiError(400, f"the body must be JSON: {error}", code="invalid_json") from None
    if not isinstance(asked, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    asked = {name: value for name, value in asked.items() if value is not None}
    tools = tools_of(asked.get("tools", []))
    for name, value in asked.items():
        _check_known(name, value, () if tools else _WITHOUT_TOOLS.get(name, ()))
    if not isinstance(asked.get("model"), str):
        raise wrong("model", "the name of a model that GET /v1/models lists")
    system, told, said = conversation_of(asked.get("messages"), with_tools=bool(tools))
    options = asked.get("stream_options", {})
    if not isinstance(options, dict):
        raise wrong("stream_options", "an object")
    limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
    return ChatRequest(
        model=asked["model"],
        preface=Preface(system, tools),
        told=told,
        said=said,
        may_call=bool(tools) and asked.get("tool_choice") != "none",
        sampling=_sampling(asked, limit, defaults),
        asked_limit=limit is not None,
        seed=_seed(asked.get("seed")),
        stream=_flag(asked, "stream"),
        usage=_flag(options, "include_usage"),
    )


def _check_known(name: str, value: Any, further: tuple[Any, ...]) -> None:
    if name in _WITHOUT_EFFECT:
        neutral = (*_WITHOUT_EFFECT[name], *further)
        if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral):
            told = f"{name} is not supported here; leave it out"
            raise ApiError(400, told, param=name, code="unsupported_parameter")
    elif name not in _TAKEN and name not in _IGNORED:
        name = name if name.isprintable() and len(name) <= _LONGEST_NAME else ascii(name)[:_LONGEST_NAME]
        raise ApiError(400, f"{name} is not a parameter here", param=name, code="unknown_parameter")


def _flag(asked: Mapping[str, Any], name: str) -> bool:
    value = asked.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, "true or false")
    return bool(value)


def _seed(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63):
        raise wrong("seed", "a whole number of 64 bits")
    return value


def _sampling(asked: Mapping[str, Any], limit: Any, defaults: SamplingConfig) -> SamplingConfig:
    """UserErrors of the settings that rollouts have, with the names that a client uses."""
    given = {name: asked.get(name, getattr(defaults, name)) for name in ("temperature", "top_p", "top_k")}
    try:
        return SamplingConfig(**given, max_response_tokens=defaults.max_response_tokens if limit is None else limit)
    except UserError as error:
        name, _, rest = str(error).removeprefix("SamplingConfig.").partition(" must be ")
        name = name.replace("max_response_tokens", "max_tokens")
        raise wrong(name, rest) from None
