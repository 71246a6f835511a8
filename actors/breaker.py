"""Somebody who fails nearly every time is left alone for a while: then one call asks, and the others wait.

Failing now and then is not being away: a system that refuses every fourth call gets them all, and each is
tried again by itself. Pure: time and chance are arguments.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

OUTCOMES: Final = 20  # the last so many calls decide
FAILURES_MAX: Final = 17  # of these
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 10.0


class State(IntEnum):
    CLOSED = 0  # all go
    HALF_OPEN = 1  # one goes, the others wait for what becomes of it
    OPEN = 2  # none go


class Breaker:
    """Of one subscriber. `chance` gives numbers from 0 up to 1."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._failed: deque[bool] = deque(maxlen=OUTCOMES)
        self._openings = 0
        self._until = 0.0
        self._is_open = False
        self._is_asking = False

    @property
    def state(self) -> State:
        if not self._is_open:
            return State.CLOSED
        return State.OPEN if self._clock() < self._until else State.HALF_OPEN

    def room(self, room: int, under_way: int) -> int:
        """How many may go now, of `room`, while so many are under way."""
        match self.state:
            case State.CLOSED:
                return room
            case State.HALF_OPEN:
                return min(room, 0 if self._is_asking or under_way else 1)
            case State.OPEN:
                return 0

    def began(self) -> None:
        """As many as there was room for have left."""
        self._is_asking = self._is_open

    def heard(self, has_failed: bool) -> bool:
        """What became of one. True: whoever was away is there again."""
        self._failed.append(has_failed)
        if self._is_open:
            if not has_failed:
                self._is_open, self._is_asking, self._openings = False, False, 0
                self._failed.clear()
                return True
            if self._is_asking:  # those that were under way when it opened say nothing new
                self._open()
        elif sum(self._failed) >= FAILURES_MAX:
            self._open()
        return False

    def _open(self) -> None:
        pause = min(PAUSE_SECONDS_MIN * 2.0 ** min(self._openings, 16), PAUSE_SECONDS_MAX)
        self._openings += 1
        self._is_open, self._is_asking = True, False
        self._until = self._clock() + pause * (0.5 + self._chance() / 2)
