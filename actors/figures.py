"""What each actor of a shard has to do, and how the shard keeps up: for those who watch (docs/INDICATORS.md).

Counted always, in plain ints, and put together only when somebody asks. Rates are of a sliding window, so
one look is enough, and whoever looks from several gateways sees the same. When there are too many actors,
those that were not asked for longest are forgotten. Times are ms of the shard's clock, durations µs.
"""

from array import array
from collections.abc import Mapping
from heapq import nlargest, nsmallest
from typing import Any, Final, Protocol

import msgpack

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.limits import SHARD_MAILBOX_MAX
from engine.domain.refusal import Refusal
from engine.journal.codec import Ask
from engine.journal.group_commit import Flushed

WINDOW_MS: Final = 4_000  # rates are of the last so many ms
RECENT: Final = 512  # batches and flushes of which percentiles are told
ACTORS_KEPT_MAX: Final = SHARD_MAILBOX_MAX  # those with an ask in the mailbox are always kept
ACTORS_SHOWN_MAX: Final = 50  # the busiest


class Shown(Protocol):
    """What is read of a host, when somebody looks."""

    state: Any  # s.Schedule or w.WaitingRoom
    unsettled: int
    last_used: int


class Rate:
    """How often something happens. Two slices of time: this one, and the one before it."""

    __slots__ = ("_before", "_now", "_slice", "total")

    def __init__(self) -> None:
        self.total = 0
        self._slice = 0
        self._now = 0
        self._before = 0

    def add(self, count: int, now: int) -> None:
        if now // WINDOW_MS != self._slice:
            self._turn(now // WINDOW_MS)
        self.total += count
        self._now += count

    def per_second(self, now: int) -> float:
        """Of the last WINDOW_MS, as if what came before the current slice had come evenly."""
        if now // WINDOW_MS != self._slice:
            self._turn(now // WINDOW_MS)
        rest = WINDOW_MS - now % WINDOW_MS
        return round((self._now + self._before * rest / WINDOW_MS) * 1000 / WINDOW_MS, 2)

    def _turn(self, to: int) -> None:
        self._before = self._now if to == self._slice + 1 else 0
        self._slice, self._now = to, 0


class Recent:
    """The last RECENT measurements, in one block of memory."""

    __slots__ = ("_at", "_filled", "_values")

    def __init__(self) -> None:
        self._values = array("I", bytes(4 * RECENT))
        self._at = 0
        self._filled = 0

    def add(self, value: int) -> None:
        self._values[self._at] = min(value, 0xFFFFFFFF)
        self._at = (self._at + 1) % RECENT
        self._filled = min(self._filled + 1, RECENT)

    def told(self) -> dict[str, int]:
        """p50, p99 and the largest; zeros where nothing was measured."""
        found = sorted(self._values[: self._filled]) or [0]
        last = len(found) - 1
        return {"p50": found[last // 2], "p99": found[(99 * last + 99) // 100], "max": found[last]}


class _Actor:
    __slots__ = ("commands", "flush_us", "refused", "used", "waiting")

    def __init__(self) -> None:
        self.waiting = 0  # asks that have come and are not answered
        self.commands = Rate()
        self.refused: dict[str, Rate] = {}  # by reason
        self.flush_us = 0  # of the last transaction with an event of this actor
        self.used = 0


class Figures:
    """Of one shard."""

    def __init__(self) -> None:
        self._actors: dict[str, _Actor] = {}
        self._commands = Rate()
        self._refused: dict[str, Rate] = {}
        self._entries = Rate()
        self._batches = Recent()
        self._flushed_entries = Recent()
        self._flushes = Recent()
        self._lag = Recent()

    def came(self, asks: list[Ask]) -> None:
        """A message with these is in the mailbox. `left` must follow, whatever becomes of it."""
        actors = self._actors
        self._batches.add(len(asks))
        for stream, _, _ in asks:
            actor = actors.get(stream)
            if actor is None:
                if len(actors) >= ACTORS_KEPT_MAX:
                    self._forget_the_quiet()
                actor = actors[stream] = _Actor()
            actor.waiting += 1

    def left(self, asks: list[Ask], replies: list[Any] | None, now: int) -> None:
        """They were answered; or (None) nobody knows."""
        actors = self._actors
        self._commands.add(len(asks), now)
        for n, (stream, _, _) in enumerate(asks):
            actor = actors[stream]
            actor.waiting -= 1
            actor.used = now
            actor.commands.add(1, now)
            if replies is not None and type(reply := replies[n]) is Refusal:
                _rate(actor.refused, reply.reason).add(1, now)
                _rate(self._refused, reply.reason).add(1, now)

    def turned_away(self, count: int, reason: str, now: int) -> None:
        """The mailbox was full: no actor ever saw them."""
        _rate(self._refused, reason).add(count, now)

    def flushed(self, flushed: Flushed, now: int) -> None:
        took = int(flushed.seconds * 1_000_000)
        self._flushes.add(took)
        self._flushed_entries.add(flushed.entries)
        self._entries.add(flushed.entries, now)
        actors = self._actors
        for work in flushed.works:
            if work.entries and (actor := actors.get(work.entries[0].stream)) is not None:
                actor.flush_us = took

    def late(self, seconds: float) -> None:
        """The event loop woke so late."""
        self._lag.add(int(seconds * 1_000_000))

    def told(
        self, shard_id: int, epoch: int, mailbox: int, hosts: Mapping[str, Shown], now: int
    ) -> dict[str, Any]:
        """The shard, and those of its actors of which most was asked lately, with the busiest first."""

        def activity(named: tuple[str, _Actor]) -> tuple[int, float, int]:
            actor = named[1]
            return actor.waiting, actor.commands.per_second(now), actor.used

        busiest = nlargest(ACTORS_SHOWN_MAX, self._actors.items(), activity)
        return {
            "shard": shard_id,
            "epoch": epoch,
            "mailbox": mailbox,
            "hosts": len(hosts),
            "commands": self._commands.total,
            "commands_per_second": self._commands.per_second(now),
            "refused_per_second": _rates(self._refused, now),
            "entries_per_second": self._entries.per_second(now),
            "batch": self._batches.told(),
            "flush_entries": self._flushed_entries.told(),
            "flush_us": self._flushes.told(),
            "lag_us": self._lag.told(),
            "actors": [_of_actor(stream, actor, hosts.get(stream), now) for stream, actor in busiest],
        }

    def pack(self, shard_id: int, epoch: int, mailbox: int, hosts: Mapping[str, Shown], now: int) -> bytes:
        """The same, on its way to a gateway."""
        packed: bytes = msgpack.packb(self.told(shard_id, epoch, mailbox, hosts, now))
        return packed

    def _forget_the_quiet(self) -> None:
        """A quarter of them, so that this is rare; never one that is waited for."""
        quiet = ((actor.used, stream) for stream, actor in self._actors.items() if not actor.waiting)
        for _, stream in nsmallest(ACTORS_KEPT_MAX // 4, quiet):
            del self._actors[stream]


def _rate(rates: dict[str, Rate], reason: str) -> Rate:
    found = rates.get(reason)
    if found is None:
        found = rates[reason] = Rate()
    return found


def _rates(rates: dict[str, Rate], now: int) -> dict[str, float]:
    """Of what has happened lately."""
    told = {str(reason): rate.per_second(now) for reason, rate in rates.items()}
    return {reason: rate for reason, rate in told.items() if rate}


def _of_actor(stream: str, actor: _Actor, host: Shown | None, now: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "actor": stream,
        "mailbox": actor.waiting,
        "commands": actor.commands.total,
        "commands_per_second": actor.commands.per_second(now),
        "refused": {str(reason): rate.total for reason, rate in actor.refused.items()},
        "refused_per_second": _rates(actor.refused, now),
        "flush_us": actor.flush_us,
        "unsettled": 0 if host is None else host.unsettled,
        "last_used": actor.used if host is None else host.last_used,
        "is_alive": host is not None,
    }
    match None if host is None else host.state:
        case s.Schedule() as day:
            told |= {"holds": len(day.holds) + len(day.changes), "wishes": len(day.wishes)}
        case w.WaitingRoom() as room:
            told["waiting"] = sum(len(queue.line) for queue in room.queues.values())
        case _:
            pass
    return told
