"""Deliveries under way: as many at once as there is room for, and what became of each.

Nothing of this is written here: whoever runs them (actors/outbox.py) takes what became of them and writes it
many at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from actors.breaker import Breaker
from engine.records.outbox import Again, Dead, Taken
from integrations.connector import OutcomeUnknown, Refused, TryAgain

log = logging.getLogger(__name__)

DELIVER_SECONDS_MAX: Final = 60.0  # connectors have deadlines of their own, and shorter ones
PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 60.0
ASKED_SECONDS_MAX: Final = 3600.0  # of waiting because they asked for it
CANCEL_SECONDS_MAX: Final = 1.0
FAULTS_MAX: Final = 8  # tries of one that fails by an error of ours


@dataclass(frozen=True, slots=True)
class Message:
    """Something that somebody outside is to be told. At least once, and in order within its aggregate."""

    id: str
    """Stable for ever: what the outside knows it by. Whoever hears it twice is to do it once."""
    aggregate: str
    kind: str
    data: dict[str, object]  # ids; never who somebody is
    at: datetime  # of the event that it follows from
    tries: int  # before this one
    is_uncertain: bool
    """An earlier try may have done it: ask first, unless the same id does nothing twice over there."""


class Deliver(Protocol):
    async def __call__(self, message: Message) -> None:
        """Raises TryAgain, Refused, OutcomeUnknown."""


@dataclass(slots=True)
class Settled:
    """What became of messages, to be written."""

    done: list[int] = field(default_factory=list)
    again: list[Again] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.done or self.again or self.dead)


class Heard(Protocol):
    """Counts what becomes of deliveries: `outcome` is a word, `at` of the event."""

    def __call__(self, outcome: str, at: datetime) -> None: ...


class Deliveries:
    """Of one subscriber. `chance` gives numbers from 0 up to 1."""

    def __init__(
        self,
        name: str,
        deliver: Deliver,
        breaker: Breaker,
        in_flight_max: int,
        chance: Callable[[], float],
        heard: Heard,
    ) -> None:
        self._name = name
        self._deliver = deliver
        self._breaker = breaker
        self._in_flight_max = in_flight_max
        self._chance = chance
        self._heard = heard
        self._under_way: set[asyncio.Task[None]] = set()
        self._settled = Settled()
        self._unwritten = 0
        self.news = asyncio.Event()
        """Something has become of one."""
        self.is_back = False
        """They were away and are there again; whoever has seen it says so."""

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def room(self) -> int:
        """How many more may begin."""
        free = self._in_flight_max - len(self._under_way) - self._unwritten
        return self._breaker.room(max(0, free), len(self._under_way))

    def begin(self, taken: Sequence[Taken]) -> None:
        if taken:
            self._breaker.began()
        for one in taken:
            task = asyncio.create_task(self._do(one))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def settled(self) -> Settled:
        """What has become of some since it was asked last."""
        found, self._settled, self._unwritten = self._settled, Settled(), 0
        self.news.clear()
        return found

    async def finish(self, seconds_max: float) -> None:
        """Nothing new begins. Waits for those under way, and gives the others up."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds_max)
        given_up = [*self._under_way]
        for task in given_up:
            task.cancel()
        if given_up:
            await asyncio.wait(given_up, timeout=CANCEL_SECONDS_MAX)

    async def _do(self, one: Taken) -> None:
        message = Message(
            f"{one.shard}-{one.seq}-{one.n}",
            one.aggregate,
            one.kind,
            one.data,
            one.at,
            one.tries,
            one.is_uncertain,
        )
        outcome = "delivered"
        try:
            async with asyncio.timeout(DELIVER_SECONDS_MAX):
                await self._deliver(message)
            self._settled.done.append(one.position)
        except Refused as refused:
            outcome = "refused"
            log.error("%s refused message %s (%s): %s", self._name, message.id, one.kind, refused.code)
            self._settled.dead.append(Dead(one.position, f"refused: {refused.code}"))
        except TryAgain as again:
            outcome = "try_again"
            self._again(one, again.after, False, str(again))
        except OutcomeUnknown as unknown:
            outcome = "unknown"
            self._again(one, None, True, f"outcome unknown: {unknown}")
        except TimeoutError:
            outcome = "unknown"
            self._again(one, None, True, f"no outcome after {DELIVER_SECONDS_MAX:.0f} s")
        except Exception as error:
            outcome = "fault"
            log.exception("message %s (%s) to %s fails by an error of ours", message.id, one.kind, self._name)
            if one.tries + 1 < FAULTS_MAX:
                self._again(one, None, True, f"our error: {type(error).__name__}")
            else:
                self._settled.dead.append(Dead(one.position, f"our error: {type(error).__name__}"))
        self.is_back |= self._breaker.heard(outcome not in ("delivered", "refused"))
        self._heard(outcome, one.at)
        self._unwritten += 1
        self.news.set()

    def _again(self, one: Taken, after: float | None, is_uncertain: bool, why: str) -> None:
        """After a pause that grows, by lot: a thousand that failed together do not come back together."""
        if after is None:
            longest = min(PAUSE_SECONDS_MIN * 2.0 ** min(one.tries, 16), PAUSE_SECONDS_MAX)
            after = self._chance() * longest
        else:
            after = min(max(after, 0.0), ASKED_SECONDS_MAX)
        self._settled.again.append(Again(one.position, after, is_uncertain, why))
