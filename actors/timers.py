"""When to look at an actor again: a heap of (time, actor). A nudge only: what is true, decide says."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable

TICK_SECONDS = 0.25


class Timers:
    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._heap: list[tuple[int, str]] = []
        self._set: dict[str, int] = {}

    def set(self, key: str, when: int) -> None:
        """The earlier of this and what was set before."""
        before = self._set.get(key)
        if before is None or when < before:
            self._set[key] = when
            heapq.heappush(self._heap, (when, key))

    def due(self) -> list[str]:
        """Takes out every key whose time has come."""
        keys = []
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            when, key = heapq.heappop(self._heap)
            if self._set.get(key) == when:  # else an earlier time has been set since
                del self._set[key]
                keys.append(key)
        return keys

    async def run(self, fire: Callable[[list[str]], Awaitable[None]]) -> None:
        while True:
            keys = self.due()
            if keys:
                await fire(keys)
            await asyncio.sleep(TICK_SECONDS)
