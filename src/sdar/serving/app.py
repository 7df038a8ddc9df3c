"""``POST /v1/chat/completions`` and ``GET /v1/models`` over a chat model, as an ASGI application.

One response is sampled at a time; requests behind it wait in order, a bounded number of them. Needs the extra
``sdar[serve]``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from sdar.errors import RunFailed
from sdar.serving.chat import Answer, ChatModel
from sdar.serving.errors import ApiError
from sdar.serving.request import ChatRequest, read_request

log = logging.getLogger(__name__)

REQUEST_S = 60.0
"""How long a client may take to send a request, or to read a piece of the response, in seconds."""
MAX_READING = 1 << 26
"""Bytes of requests that may be on their way at the same time; a single one may always have ``max_bytes``."""

T = TypeVar("T")
Step = tuple[ChatRequest, Answer, str]
"""A request, its answer so far, and the answer's newest piece."""


class Service:
    """A chat model and who may use it.

    ``name``         of the model, which requests must give
    ``max_waiting``  requests that may wait while another is answered; further ones get status 429. A client that leaves
                     gives its place up
    ``max_bytes``    of a request's body; larger ones get status 413
    ``stopping``     set when the server ends: what is being answered ends with an error of status 503
    ``inside``       requests that are being answered or wait, now
    ``reading``      bytes of requests that are on their way, now
    """

    def __init__(self, model: ChatModel, name: str, *, max_waiting: int, max_bytes: int) -> None:
        self.model = model
        self.name = name
        self.max_waiting = max_waiting
        self.max_bytes = max_bytes
        self.stopping = False
        self._created = int(time.time())
        self.inside = 0
        self.reading = 0
        self._turn = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="generate")

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._completions, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
                Route("/v1/models/{name:path}", self._model, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such_place},
        )

    def close(self) -> None:
        """Wait for the token that is being computed, and start no other."""
        self.stopping = True
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(self._card()) if name == self.name else _refusal(self._unknown(name))

    def _card(self) -> dict[str, Any]:
        """``max_model_len``, the context in tokens, is a name of vLLM's."""
        about = {"id": self.name, "object": "model", "created": self._created, "owned_by": "sdar"}
        return {**about, "max_model_len": self.model.policy.context_tokens}

    def _unknown(self, name: str) -> ApiError:
        told = f"the model {name[:100]!r} does not exist; this server has {self.name!r}"
        return ApiError(404, told, param="model", code="model_not_found")

    async def _completions(self, request: Request) -> Response:
        steps = self._answer(request)
        try:
            asked, answer, piece = await anext(steps)
            if asked.stream:
                # Mistakes are told with their status: nothing is sent before the first token.
                return _Events(steps, self._events(steps, asked, answer, piece))
            async with aclosing(steps):
                async for _ in steps:
                    pass
        except ApiError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        choice = {"index": 0, "message": answer.said.message(_calls()), "logprobs": None}
        record = _record("chat.completion", self.name)
        choices = [{**choice, "finish_reason": answer.finish_reason}]
        return JSONResponse({**record, "choices": choices, "usage": _usage(answer)})

    async def _answer(self, request: Request) -> AsyncGenerator[Step]:
        """The steps of an answer, a token each. Everything that goes wrong is an ApiError or a ClientDisconnect."""
        body = await self._body(request)  # first: who sends slowly keeps nobody else out
        if self.inside > self.max_waiting:
            told = f"{self.inside} requests are answered or waiting already; try again later"
            raise ApiError(429, told, code="rate_limit_exceeded")
        self.inside += 1
        try:
            asked = read_request(body, self.model.defaults)
            if asked.model != self.name:
                raise self._unknown(asked.model)
            async with self._turn_of(request):
                if await request.is_disconnected():
                    raise ClientDisconnect
                answer = await self._work(lambda: self.model.answer(asked))
                pieces = iter(answer)
                while answer.finish_reason is None:
                    piece = await self._work(lambda: next(pieces, ""))
                    yield asked, answer, piece
                    if not asked.stream and await request.is_disconnected():
                        raise ClientDisconnect
        except (ApiError, ClientDisconnect):
            raise
        except RunFailed as error:
            raise ApiError(500, str(error), code="generation_failed") from error
        except Exception as error:
            log.exception("a request failed")
            raise ApiError(500, f"the request failed ({type(error).__name__})", code="internal_error") from error
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def _turn_of(self, request: Request) -> AsyncIterator[None]:
        """The turn to be answered, in the order of asking. ClientDisconnect: the client left while it waited."""
        turn, left = asyncio.create_task(self._turn.acquire()), asyncio.create_task(_left(request))
        try:
            await asyncio.wait((turn, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                await left
                raise ClientDisconnect
            await turn
            left.cancel()  # from here on, others look for it
            yield
        finally:
            left.cancel()
            # One that is cancelled while it waits passes its turn on by itself.
            if not turn.cancel() and not turn.cancelled():
                self._turn.release()

    async def _work(self, call: Callable[[], T]) -> T:
        """Call in the thread that computes."""
        if self.stopping:
            raise ApiError(503, "the server is ending", code="server_ending")
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def _body(self, request: Request) -> bytes:
        too_large = ApiError(413, f"the body must have at most {self.max_bytes} bytes", code="request_too_large")
        given = request.headers.get("content-length", "")
        if given.isdecimal() and int(given[:20]) > self.max_bytes:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(REQUEST_S):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self.reading += len(part)
                    if size > self.max_bytes:
                        raise too_large
                    if self.reading > max(MAX_READING, self.max_bytes):
                        raise ApiError(429, "too much is being sent at once", code="rate_limit_exceeded")
        except TimeoutError:
            raise ApiError(408, f"the request did not come within {REQUEST_S:g} s", code="request_timeout") from None
        finally:
            self.reading -= size
        return b"".join(parts)

    async def _events(
        self, steps: AsyncIterator[Step], asked: ChatRequest, answer: Answer, piece: str
    ) -> AsyncIterator[str]:
        """The answer as server-sent events; an error that comes up on the way is the last of them."""
        record = _record("chat.completion.chunk", self.name)
        usage: dict[str, Any] = {"usage": None} if asked.usage else {}

        def chunk(delta: Mapping[str, Any], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return _event({**record, "choices": [choice], **usage})

        yield chunk({"role": "assistant", "content": piece})
        try:
            async for _, _, newer in steps:
                if newer:
                    yield chunk({"content": newer})
        except ApiError as error:
            yield _event(error.body())
            return
        if answer.said.calls:
            calls = answer.said.message(_calls())["tool_calls"]
            yield chunk({"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]})
        yield chunk({}, answer.finish_reason)
        if asked.usage:
            yield _event({**record, "choices": [], "usage": _usage(answer)})
        yield "data: [DONE]\n\n"


async def _left(request: Request) -> None:
    """Wait until the client of a request that was read has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Events(StreamingResponse):
    """Server-sent events of an answer, which is given up when the client leaves."""

    def __init__(self, steps: AsyncGenerator[Step], events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(REQUEST_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_soon)
        except (TimeoutError, ClientDisconnect):
            log.info("a client has stopped reading")
        finally:
            await self._steps.aclose()


def _record(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _calls() -> str:
    """What the ids of the calls of a response begin with."""
    return f"call_{secrets.token_hex(8)}_"


def _usage(answer: Answer) -> dict[str, int]:
    said = len(answer.ids)
    total = answer.prompt_tokens + said
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": said, "total_tokens": total}


def _event(record: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(record)}\n\n"


def _refusal(error: ApiError) -> Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _no_such_place(request: Request, error: Exception) -> Response:
    """Paths and methods that there are none of."""
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path[:100]}: there are POST /v1/chat/completions and GET /v1/models"
    return _refusal(ApiError(error.status_code, told, code="not_found" if error.status_code == 404 else None))
