"""A journal to be read on from, and somebody outside who fails in every way there is."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from actors.outbox import Committed, Draft, Message
from engine.domain import schedule as s
from engine.journal.codec import EVENT_CODES, pack_event
from integrations.connector import OutcomeUnknown, Refused, TryAgain

DAY = datetime(2026, 11, 24, tzinfo=UTC)


async def happen(connection: asyncpg.Connection, shard: int, *events: tuple[str, s.Event]) -> list[int]:
    """Commits events of this shard, as a flush does: the fence's number and the rows in one transaction."""
    async with connection.transaction():
        await connection.execute("insert into shard (id) values ($1) on conflict do nothing", shard)
        last = await connection.fetchval(
            "update shard set seq = seq + $2 where id = $1 returning seq", shard, len(events)
        )
        seqs = list(range(last - len(events) + 1, last + 1))
        for seq, (stream, event) in zip(seqs, events, strict=True):
            await connection.execute(
                "insert into event (shard, seq, stream, version, type, at, data)"
                " select $1, $2, $3, coalesce(max(version), 0) + 1, $4, clock_timestamp(), $5"
                "   from event where stream = $3",
                shard,
                seq,
                stream,
                EVENT_CODES[type(event)],
                pack_event(event),
            )
    return seqs


def booked(number: int) -> s.SeatBooked:
    return s.SeatBooked(number.to_bytes(16, "big"))


def aggregate_of(event: object) -> str:
    assert isinstance(event, s.SeatBooked)
    return event.appointment_id.hex()


@dataclass(slots=True)
class Outside:
    """A subscriber whose system keeps a ledger. `say` decides what becomes of a try: None, or what it raises,
    and whether it was done all the same."""

    name: str = "outside"
    kinds: frozenset[type] = frozenset({s.SeatBooked})
    say: Callable[[Message], Exception | None] = lambda message: None
    applied: list[tuple[str, str]] = field(default_factory=list)  # (aggregate, message id), once each
    tries: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)  # uncertain ones that were looked up
    busy: set[str] = field(default_factory=set)
    inversions: list[str] = field(default_factory=list)
    seen: list[Committed] = field(default_factory=list)

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        self.seen += events
        return [
            Draft(one.shard, one.seq, aggregate_of(one.event), "booked", {"stream": one.stream})
            for one in events
        ]

    async def deliver(self, message: Message) -> None:
        if message.aggregate in self.busy:
            self.inversions.append(f"two at once of {message.aggregate}")
        self.busy.add(message.aggregate)
        try:
            await asyncio.sleep(0)
            self.tries[message.id] += 1
            said = self.say(message)
            if said is None or isinstance(said, OutcomeUnknown) and str(said) == "done":
                self._apply(message)
            if said is not None:
                raise said
        finally:
            self.busy.discard(message.aggregate)

    def _apply(self, message: Message) -> None:
        if message.is_uncertain:
            self.asked[message.id] += 1
        if (message.aggregate, message.id) not in self.applied:
            self.applied.append((message.aggregate, message.id))

    def by_aggregate(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for aggregate, message_id in self.applied:
            found[aggregate].append(message_id)
        return found


def failing(word: str) -> Exception | None:
    """What a word of a test's plan stands for."""
    return {
        "ok": None,
        "again": TryAgain("busy", 0.0),
        "lost": OutcomeUnknown("not done"),
        "done": OutcomeUnknown("done"),
        "no": Refused("unknown_department"),
        "fault": ValueError("ours"),
    }[word]
