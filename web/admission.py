"""How much may be under way at one gateway: bookings, patients' other requests, payments that are begun. Past
the bound the answer is a fast refusal, never a slow one: what is admitted is then still answered in time.

Without a bound a gateway that was too slow for a moment stays so: those who gave up waiting ask again, and
what they asked first is still being worked on (seen for good, after a shard was killed amid payments)."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from engine.domain.refusal import Reason
from web.errors import Problem

_AGAIN_SECONDS = (1, 4)  # spread, so that they do not all come back in the same moment


class Admission:
    def __init__(self, limit: int, shed: Counter, admitted: Gauge) -> None:
        self._limit = limit
        self._shed = shed
        self._gauge = admitted
        self._admitted = 0
        admitted.set_function(lambda: self._admitted)

    @property
    def is_full(self) -> bool:
        return self._admitted >= self._limit

    def count_shed(self) -> None:
        """One refused before it was even read."""
        self._shed.inc()

    def enter(self) -> bool:
        """False: full, and counted as shed. True: pair it with one `leave`."""
        if self.is_full:
            self._shed.inc()
            return False
        self._admitted += 1
        return True

    def leave(self) -> None:
        self._admitted -= 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """For as long as the context lasts. Raises Problem `busy`."""
        self.must_enter()
        try:
            yield
        finally:
            self.leave()

    def must_enter(self) -> None:
        """Pair it with one `leave`. Raises Problem `busy`."""
        if not self.enter():
            raise Problem(Reason.BUSY, retry_after=random.randint(*_AGAIN_SECONDS))  # nosec B311  # jitter


def unwatched(limit: int) -> Admission:
    """Nobody's figures: for an app that is not a gateway's."""
    counted = Counter("shed", "not shown", registry=None)
    return Admission(limit, counted, Gauge("admitted", "not shown", registry=None))
