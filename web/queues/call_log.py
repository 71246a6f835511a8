"""The calls of one department's day as screens are told them: each once, in order, as bytes made once."""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from engine.domain import waiting_room as w
from engine.domain.limits import CALLS_KEPT
from engine.domain.waiting_terms import ScreenTerms
from web.queues.screen_bodies import sequence_of

SHOWN: Final = ("called", "recalled")
"""Kinds of calls that a list of last calls has."""


class Told(NamedTuple):
    sequence: int  # of its day: 1, 2, 3
    kind: str
    room_id: str
    body: bytes


class CallLog:
    """What is kept reaches back as far as the room's own list of calls does."""

    def __init__(self, day: str) -> None:
        self._day = day
        self._calls: deque[Told] = deque(maxlen=CALLS_KEPT)
        self._terms: ScreenTerms | None = None
        self.last = 0
        """Every call up to this one is in here, or is too long ago."""

    @property
    def version(self) -> int:
        return sequence_of(self._day, self.last)

    def missing(self, room: w.WaitingRoom, terms: ScreenTerms) -> tuple[w.Call, ...]:
        """Calls that are to be taken in."""
        return tuple(room.calls) if terms != self._terms else self._new(room)

    def take(
        self, room: w.WaitingRoom, terms: ScreenTerms, body: Callable[[w.WaitingRoom, w.Call], bytes]
    ) -> bool:
        """All that the room has; True: something was new. Under other terms all of it is made anew: what
        screens may show of a name may be less than before."""
        before = self.last
        if terms != self._terms:
            self._calls.clear()
            self._terms = terms
            calls = tuple(room.calls)
        else:
            calls = self._new(room)  # where some were never seen here, there are enough to push out the old
        self._calls.extend(Told(c.sequence, c.kind, c.room_id, body(room, c)) for c in calls)
        self.last = max(self.last, room.call_sequence)
        return self.last != before

    def since(self, n: int, room_id: str | None) -> list[Told] | None:
        """After the call with that number of the day, at one room or all; None: too long ago, or never."""
        first = self._calls[0].sequence if self._calls else self.last + 1
        if not first - 1 <= n <= self.last:
            return None
        found: list[Told] = []
        for call in reversed(self._calls):
            if call.sequence <= n:
                break
            if room_id is None or call.room_id == room_id:
                found.append(call)
        found.reverse()
        return found

    def latest(self, room_id: str | None, most: int) -> list[bytes]:
        """The last ones that were called out, the newest last."""
        found: list[bytes] = []
        for call in reversed(self._calls):
            if len(found) == most:
                break
            if call.kind in SHOWN and (room_id is None or call.room_id == room_id):
                found.append(call.body)
        found.reverse()
        return found

    def _new(self, room: w.WaitingRoom) -> tuple[w.Call, ...]:
        told = w.calls_since(room, self.last)
        if not told.whole:
            return told.calls
        return tuple(room.calls) if room.call_sequence > self.last else ()
