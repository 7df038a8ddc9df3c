"""An event loop in a thread, for libraries that are asynchronous.

It runs all the time: connections are kept alive while the policy generates.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

_LEAVE_S = 10.0
"""How long the thread may take to end."""


class Loop:
    """Runs coroutines for a caller that is not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="adapter", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                return self._loop.run_forever()
            except BaseException:  # sys.exit in somebody's coroutine, whose task has it as its error
                continue

    def run(self, *coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
        """What they return, side by side. What the first of them raises is raised."""
        return asyncio.run_coroutine_threadsafe(_together(coroutines), self._loop).result()

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LEAVE_S)
        if not self._thread.is_alive():
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


async def _together(coroutines: tuple[Coroutine[Any, Any, Any], ...]) -> list[Any]:
    return await asyncio.gather(*coroutines)
