"""A rollout of verifiers whose model is the policy: it waits for each response until somebody brings it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

from sdar.environments.tools import calls_in, without_calls

_LEAVE_S = 10.0
"""How long an episode that is given up may take to clean up after itself."""


class Rollout:
    """A rollout and its model, which asks for responses and waits for them."""

    def __init__(self, package: Any, types: Any) -> None:
        self.types = types
        self.requests: asyncio.Queue[tuple[list[Any], list[Any]]] = asyncio.Queue()
        self.answers: asyncio.Queue[str] = asyncio.Queue()
        self.last: list[Any] = []
        self.turns = 0
        self.said: tuple[list[Any], list[Any]] | None = None
        self.running: asyncio.Future[Any]

        async def get_response(_: Any, prompt: list[Any], *__: Any, tools: Any = None, **___: Any) -> Any:
            self.requests.put_nowait((list(prompt), list(tools or ())))
            return self._spoken(await self.answers.get())

        ours = {**dict.fromkeys(package.Client.__abstractmethods__), "get_response": get_response}
        self.client = type("Policy", (package.Client,), ours)(None)

    async def begin(self, rollout: Coroutine[Any, Any, Any]) -> None:
        """Start, and wait for the first request."""
        self.running = asyncio.ensure_future(rollout)
        await self.listen()

    async def hear(self, response: str) -> None:
        """Go on with a response, and wait for the next request."""
        self.answers.put_nowait(response)
        await self.listen()

    async def leave(self) -> None:
        """Cancel a rollout that is not over, and let it clean up."""
        self.running.cancel()
        await asyncio.wait({self.running}, timeout=_LEAVE_S)
        if self.running.done() and not self.running.cancelled():
            self.running.exception()  # it was told

    async def listen(self) -> None:
        """Wait for what the rollout says next, ``said``: new messages and tools of a request; None: it is over."""
        asked = asyncio.ensure_future(self.requests.get())
        await asyncio.wait({self.running, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            self.said = None
            return
        prompt, tools = asked.result()
        # The next messages follow the last prompt and its response; else the prompt was written anew.
        known = len(self.last)
        new = prompt[known + 1 :] if self.last and prompt[:known] == self.last else prompt
        self.last = prompt
        self.said = new, tools

    def _spoken(self, response: str) -> Any:
        calls, _ = calls_in(response)
        made = [
            self.types.ToolCall(id=f"call_{self.turns}_{place}", name=call.name, arguments=json.dumps(call.arguments))
            for place, call in enumerate(calls)
        ]
        self.turns += 1
        reason = "tool_calls" if made else "stop"
        content = without_calls(response) if made else response
        message = self.types.ResponseMessage(
            content=content, tool_calls=made or None, finish_reason=reason, is_truncated=False
        )
        return self.types.Response(id=f"{self.turns}", created=int(time.time()), model="policy", message=message)
