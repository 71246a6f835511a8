"""A provider that fails again and again is left alone for a while: one asks, the others wait.

Errands come back by themselves, and each has a pause of its own that grows; but a thousand bills are a
thousand errands. So after FAILURES_MIN failures in a row nobody asks for a moment, then one does, and the
moment doubles for as long as that fails, too.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from integrations.connector import OutcomeUnknown, TryAgain

T = TypeVar("T")

FAILURES_MIN: Final = 5
SECONDS_MIN: Final = 1.0
SECONDS_MAX: Final = 30.0


class Circuit:
    """Of one provider, in one gateway."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    async def through(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises what `ask` raises; TryAgain without asking while the provider is left alone."""
        now = self._clock()
        if now < self._until:
            raise TryAgain(f"{self._name}: left alone for now", self._until - now)
        if self._failures >= FAILURES_MIN:
            self._until = now + self._pause()  # this one asks, the others wait for what comes of it
        try:
            answer = await ask()
        except (TryAgain, OutcomeUnknown):
            self._failures += 1
            if self._failures >= FAILURES_MIN:
                self._until = self._clock() + self._pause()
            raise
        except BaseException:
            self._rest()  # Refused: they are there
            raise
        self._rest()
        return answer

    def _rest(self) -> None:
        self._failures, self._until = 0, 0.0

    def _pause(self) -> float:
        return min(SECONDS_MIN * 2.0 ** min(self._failures - FAILURES_MIN, 16), SECONDS_MAX)
