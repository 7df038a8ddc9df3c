"""The requests of a vLLM server that rollouts need, and what it answers.

``/v1/models`` and ``/v1/completions`` with token ids, ``/collective_rpc`` and ``/reset_prefix_cache`` (vLLM 0.32,
``vllm/entrypoints/openai/completion/protocol.py``, ``vllm/entrypoints/serve/dev``). The last two exist where the server
was started with ``VLLM_SERVER_DEV_MODE=1``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sdar.errors import RunFailed
from sdar.exchange import BrokenError, LateError, TooLargeError, api_key, exchange, limited_pools, without_key
from sdar.files import parse_json
from sdar.output.printable import printable
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.interface import Sampled

API_KEY = "SDAR_API_KEY"
"""Environment variable with the server's key, where it has one."""
MAX_REPLY = 1 << 28
"""Most bytes of a reply."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before a request is sent again."""
_LONGEST_WAIT_S = 60.0
_QUICK_S = 30.0
"""Time limit of a request that computes nothing."""
_TOLD = 300
"""Characters of a server's own words that are shown."""
_PLAIN = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
"""Settings for which a server would otherwise take the model's own."""

T = TypeVar("T")


class RefusedError(Exception):
    """The server answered, with another status than 200. ``status``: which."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class _PassingError(Exception):
    """A failure after which the same request may be answered. ``wait_s``: the pause that the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Wire:
    """Requests to one server, several at a time. ``connections`` are kept open; ``timeout_s`` is that of a request.

    A lost connection and the statuses 408, 429 and 5xx may pass: such a request is sent again, at most as often as
    there are :data:`WAITS_S`. RunFailed: it still failed, or took too long. RefusedError: another status.
    """

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        self._pool = limited_pools(num_pools=1, maxsize=connections)
        self._key = api_key(API_KEY)

    def models(self) -> dict[str, int | None]:
        """The models that the server has by name, and their context in tokens where it says so."""
        return self._ask("GET", "/v1/models", None, _models, seconds=_QUICK_S)

    def complete(
        self, model: str, prompt: Sequence[int], seed: int, sampling: SamplingConfig, ends: Sequence[int]
    ) -> Sampled:
        """One response to a prompt."""
        body = _PLAIN | {
            "model": model,
            "prompt": list(prompt),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_response_tokens,
            "seed": seed,
            "stop_token_ids": list(ends),
            "ignore_eos": True,  # the chat format's end tokens alone
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        return self._ask("POST", "/v1/completions", body, _sampled)

    def prompt_log_probs(self, model: str, ids: Sequence[int]) -> list[float]:
        """Of the tokens of a text but its first, temperature 1, nats."""
        body = _PLAIN | {
            "model": model,
            "prompt": list(ids),
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": 1,
            "prompt_logprobs": 0,
        }

        def read(reply: Any) -> list[float]:
            given = reply["choices"][0]["prompt_logprobs"]
            return [float(entry[str(token)]["logprob"]) for token, entry in zip(ids[1:], given[1:], strict=True)]

        return self._ask("POST", "/v1/completions", body, read)

    def forget(self) -> bool:
        """Drop keys and values of earlier weights, also outside the cards.

        False: it could not for some seconds, because requests are being answered.
        """
        path = "/reset_prefix_cache?reset_external=true"
        for wait in (*WAITS_S, None):
            if self._ask("POST", path, {}, lambda reply: bool(reply["success"]), seconds=_QUICK_S):
                return True
            if wait is not None:
                time.sleep(wait)
        return False

    def load_weights(self, folder: str) -> None:
        """Let every worker take the weights of a folder."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self._ask("POST", "/collective_rpc", body, lambda _: None, passing=False)

    def _ask(
        self,
        method: str,
        path: str,
        body: Any,
        read: Callable[[Any], T],
        *,
        seconds: float | None = None,
        passing: bool = True,
    ) -> T:
        """``passing``: whether statuses may pass; lost connections always do."""
        content = None if body is None else json.dumps(body).encode()
        limit = self._timeout_s if seconds is None else min(seconds, self._timeout_s)
        for wait in (*WAITS_S, None):
            try:
                return self._once(method, path, content, read, limit, passing=passing)
            except _PassingError as error:
                if wait is None:
                    raise RunFailed(f"the vLLM server {self.url} does not answer {path}: {error}") from error
                time.sleep(min(max(wait, error.wait_s), _LONGEST_WAIT_S))
        raise AssertionError("unreachable")

    def _once(
        self, method: str, path: str, content: bytes | None, read: Callable[[Any], T], limit: float, *, passing: bool
    ) -> T:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            reply = exchange(
                self._pool,
                method,
                self.url + path,
                body=content,
                headers=headers,
                seconds=limit,
                max_bytes=MAX_REPLY,
            )
        except BrokenError as error:
            raise _PassingError(without_key(str(error), self._key)) from error
        except LateError as error:
            hint = f"; rollout.vllm.timeout_s={self._timeout_s:g}" if limit == self._timeout_s else ""
            raise RunFailed(f"the vLLM server {self.url} does not answer {path}: {error}{hint}") from error
        except TooLargeError as error:
            raise RunFailed(f"the vLLM server {self.url} answers {path} with too much: {error}") from error
        if reply.status != 200:
            words = without_key(printable(reply.content.decode(errors="replace")), self._key)[:_TOLD]
            reason = f"status {reply.status}: {words}"
            if passing and reply.may_pass:
                raise _PassingError(reason, reply.wait_s)
            raise RefusedError(reason, reply.status)
        try:
            return read(parse_json(reply.content.decode()) if reply.content else None)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise RunFailed(
                f"{self.url}{path} must answer as vLLM 0.32 does, but {type(error).__name__}: {printable(str(error))}"
            ) from error


def _models(reply: Any) -> dict[str, int | None]:
    """One name for each model: a server may give several to the same."""
    found = {model.get("root", model["id"]): model for model in reversed(reply["data"])}
    return {str(model["id"]): model.get("max_model_len") for model in found.values()}


def _sampled(reply: Any) -> Sampled:
    (choice,) = reply["choices"]
    ids = [int(token) for token in choice["token_ids"]]
    log_probs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    if len(ids) != len(log_probs) or not ids:
        raise ValueError(f"{len(ids)} tokens with {len(log_probs)} log-probs")
    return Sampled(ids, log_probs)
