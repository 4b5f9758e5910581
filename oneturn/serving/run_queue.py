"""The results of a run, on their way from its thread to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from oneturn.errors import AgentError


class RunQueue:
    """The results of a run, from its thread to the event loop, with one wake-up for all that are queued.

    Attributes:
        started: whether there was a result.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.started = False
        self._loop = loop
        self._queue: deque[Any] = deque()
        self._filled = asyncio.Event()
        self._wake_scheduled = False

    def put(self, value: Any) -> None:
        """Add a result, or an ``AgentError``; called from the run's thread."""
        self.started = True
        self._queue.append(value)
        if not self._wake_scheduled:
            self._wake_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._filled.set)

    def end(self) -> None:
        """Mark the end; called from the run's thread."""
        self.put(None)

    async def first(self) -> Any:
        """Wait for the first result.

        Raises:
            AgentError: it is an error.
        """
        value = await self._next()
        if isinstance(value, AgentError):
            raise value
        return value

    async def rest(self, first: bytes) -> AsyncIterator[bytes]:
        """Yield the first chunk and those after it; chunks that wait for each other are joined."""
        chunk: bytes | None = first
        while chunk is not None:
            while self._queue and self._queue[0] is not None:
                chunk += self._queue.popleft()
            yield chunk
            chunk = await self._next()

    async def _next(self) -> Any:
        while not self._queue:
            await self._filled.wait()
            self._filled.clear()
            self._wake_scheduled = False  # reset before reading the queue: a later put schedules a new wake-up
        return self._queue.popleft()
