"""A client of OpenAI-style chat completions: bounded, retried, and with failures that have a kind.

The key of the API comes from an environment variable, goes into one header, and is taken out of every text that is
shown or written. Redirects are not followed and proxies of the shell not used, so it reaches the named server alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from sdar.config.fields import AtLeastOne, Positive, settings
from sdar.episode import Tool
from sdar.errors import UserError
from sdar.evaluation.chat_messages import Message
from sdar.evaluation.chat_wire import (
    ConversationTooLongError,
    EndpointError,
    Failure,
    Reply,
    decode_reply,
    is_too_long,
    model_names,
    words_of_refusal,
)
from sdar.exchange import (
    BrokenError,
    HttpReply,
    LateError,
    TooLargeError,
    api_key,
    exchange,
    has_password,
    is_base_url,
    limited_pools,
    without_key,
)
from sdar.files import parse_json
from sdar.output.printable import printable
from sdar.rollout.settings import SamplingConfig

MAX_REPLY = 1 << 22
"""Most bytes of a reply: several times what the longest responses of language models have."""
_LONGEST_WAIT_S = 60.0
_TOLD = 200
"""Characters of a server's own words that are shown."""


@settings(frozen=True)
class EndpointSettings:
    """A chat endpoint, and how it is asked.

    ``endpoint``     base URL, such as ``http://127.0.0.1:8080/v1``
    ``model``        name of the model; None: the only one that the endpoint lists
    ``api_key_env``  environment variable with the API's key. That of the default need not be set
    ``concurrency``  most requests at a time
    ``attempts``     most attempts of a request
    ``timeout_s``    time limit of an attempt in seconds, including the reply
    ``backoff_s``    pause before the second attempt; later ones double, up to 60 s. A server may ask for longer ones
                     (Retry-After), up to the same limit
    ``give_up_after``  so many requests in a row that all attempts failed for; the rest are not tried
    ``max_tokens_field``  how the limit of a response is called; some models of OpenAI's take the second name alone
    ``send_seed``    whether requests have a ``seed``, a different one for each turn and the same in every evaluation
    """

    endpoint: str
    model: str | None = None
    api_key_env: str = "SDAR_API_KEY"
    concurrency: Annotated[int, Ge(1), Le(256)] = 8
    attempts: AtLeastOne = 5
    timeout_s: Positive = 120.0
    backoff_s: Annotated[float, Ge(0.001), Le(60)] = 0.5
    give_up_after: AtLeastOne = 16
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_seed: bool = True

    def __post_init__(self) -> None:
        """UserError for an address that cannot be one."""
        if has_password(self.endpoint):
            raise UserError("endpoint must be a URL without a user's name and password, which would be written down")
        if not is_base_url(self.endpoint):
            raise UserError(
                f"endpoint must be the base URL of a chat API, such as http://127.0.0.1:8080/v1, got {self.endpoint!r}"
            )


class Endpoint:
    """Asks a chat endpoint. Calls may come from several threads.

    ``failures``  requests that were not answered, by kind; ``retries`` are the attempts that failed before another one
    ``tokens``    what the replies say they cost: ``prompt_tokens`` and ``completion_tokens``

    UserError: the environment variable of the key is not set, or cannot be a key.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self._url = settings.endpoint.rstrip("/")
        self._key = _key(settings.api_key_env)
        self._pool = limited_pools(num_pools=1, maxsize=settings.concurrency)
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.failures: Counter[Failure] = Counter()
        self.retries = 0
        self.tokens: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Endpoint({self._url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def find_model(self) -> str:
        """The name of the model, once the endpoint was asked for those it has. UserError: it cannot be used.

        An endpoint that answers but lists no models is believed.
        """
        wanted, known = self.settings.model, None
        try:
            known = model_names(self._request("GET", "/models", None))
        except EndpointError as error:
            if error.status in (401, 403):
                told = "refuses the key of" if self._key else "needs a key: set"
                raise UserError(
                    f"endpoint={self._url} {told} the environment variable {self.settings.api_key_env} ({error})"
                ) from None
            if error.status is None:
                raise UserError(
                    f"endpoint must be the address of a server that answers, got {self._url} ({error})"
                ) from None
        if wanted is None:
            if known is None or len(known) != 1:
                listed = ", ".join(known) if known else "none"
                raise UserError(f"model must be the name of a model of {self._url}, which lists {printable(listed)}")
            return known[0]
        if known and wanted not in known:
            listed = ", ".join(known[:20])
            raise UserError(f"model must be one of those of {self._url} ({printable(listed)}), got {wanted}")
        return wanted

    def ask(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: SamplingConfig,
        seed: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> Reply:
        """The response to a conversation, after as many attempts as it takes.

        Raises EndpointError, or ConversationTooLongError.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.settings.max_tokens_field: sampling.max_response_tokens,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # not of OpenAI's API; vLLM, llama.cpp and sdar serve have it
        if tools:
            body["tools"] = [tool.form() for tool in tools]
        if seed is not None and self.settings.send_seed:
            body["seed"] = seed
        for attempt in range(1, self.settings.attempts + 1):
            try:
                self._check_worth_trying()
                reply = decode_reply(self._request("POST", "/chat/completions", json.dumps(body).encode()))
            except EndpointError as error:
                if error.kind.is_final or attempt == self.settings.attempts:
                    self._count(error.kind)
                    raise
                with self._lock:
                    self.retries += 1
                growing = self.settings.backoff_s * 2 ** min(attempt - 1, 20)
                time.sleep(min(max(growing, error.wait_s), _LONGEST_WAIT_S))
            else:
                self._count(None)
                with self._lock:
                    self.tokens.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
                return reply
        raise AssertionError("unreachable")

    def _check_worth_trying(self) -> None:
        with self._lock:
            tried = self._in_a_row < self.settings.give_up_after
        if not tried:
            raise EndpointError(Failure.NOT_TRIED, f"{self.settings.give_up_after} requests in a row had failed")

    def _count(self, kind: Failure | None) -> None:
        with self._lock:
            self._in_a_row = 0 if kind is None else self._in_a_row + 1
            if kind is not None:
                self.failures[kind] += 1

    def _request(self, method: str, path: str, body: bytes | None) -> Any:
        """The JSON value of one reply. Raises EndpointError, or ConversationTooLongError."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            reply = exchange(
                self._pool,
                method,
                f"{self._url}{path}",
                body=body,
                headers=headers,
                seconds=self.settings.timeout_s,
                max_bytes=MAX_REPLY,
            )
        except LateError as error:
            raise EndpointError(Failure.TIMEOUT, str(error)) from None
        except BrokenError as error:
            raise EndpointError(Failure.CONNECTION, without_key(str(error), self._key)) from None
        except TooLargeError as error:
            raise EndpointError(Failure.INVALID_REPLY, str(error)) from None
        if reply.status != 200:
            self._refused(reply)
        try:
            return parse_json(reply.content.decode())
        except ValueError as error:
            raise EndpointError(Failure.INVALID_REPLY, f"the reply is no JSON ({error})") from None

    def _refused(self, reply: HttpReply) -> None:
        said = without_key(words_of_refusal(reply.content), self._key)
        if reply.status in (400, 413) and is_too_long(said):
            raise ConversationTooLongError(said)
        kind = Failure.RATE_LIMIT if reply.status == 429 else Failure.SERVER if reply.may_pass else Failure.REFUSED
        told = f"status {reply.status}: {said[:_TOLD]}"
        raise EndpointError(kind, told, wait_s=reply.wait_s, status=reply.status)


def _key(variable: str) -> str | None:
    """The key in an environment variable; None: the default one is not set. UserError, without the key."""
    key = api_key(variable)
    if key is None and variable != EndpointSettings.api_key_env:
        raise UserError(f"api_key_env={variable}: this environment variable must be set to the API's key")
    return key
