"""From the journal's events to public ones: decodes them and looks up what they do not say themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias

import asyncpg

from engine.domain.ids import BILL_PREFIX, BillKey
from engine.domain.messages import Event
from engine.journal.codec import EVENT_CODES, unpack_event
from engine.records import event_feed
from engine.records.event_feed import RawEvent
from web.events.vocabulary import (
    PUBLISHED,
    BookedFor,
    Facts,
    PublicEvent,
    appointment_of,
    ticket_of,
    told,
)

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

CODES: Final = sorted(EVENT_CODES[kind] for kind in PUBLISHED)
"""Of the journal's kinds that may be told."""


class Decoded(Protocol):
    """An event of the journal, read: actors.outbox.Committed is one."""

    @property
    def shard(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def event(self) -> Event: ...


@dataclass(frozen=True, slots=True)
class _One:
    shard: int
    seq: int
    stream: str
    at: datetime
    event: Event


async def public(executor: Executor, events: Sequence[Decoded]) -> list[PublicEvent]:
    """In the same order, without those that are not told."""
    wanted = [one for one in events if type(one.event) in PUBLISHED]
    appointments = {found for one in wanted if (found := appointment_of(one.event)) is not None}
    tickets = {found for one in wanted if (found := ticket_of(one.event)) is not None}
    bills = {BillKey.of_stream(one.stream).bill_id for one in wanted if one.stream.startswith(BILL_PREFIX)}
    booked = await event_feed.booked(executor, sorted(appointments))
    facts = Facts(
        {
            id_: BookedFor(one.patient_id, one.schedule_id, one.department_id, one.number)
            for id_, one in booked.items()
        },
        await event_feed.patients_of_tickets(executor, sorted(tickets)),
        await event_feed.billed(executor, sorted(bills)),
    )
    made = []
    for one in wanted:
        said = told(one.stream, one.event, facts)
        if said is not None:
            type_, subject, data = said
            made.append(PublicEvent(one.shard, one.seq, one.stream, type_, subject, one.at, data))
    return made


async def public_of_raw(executor: Executor, events: Sequence[RawEvent]) -> list[PublicEvent]:
    return await public(
        executor,
        [_One(one.shard, one.seq, one.stream, one.at, unpack_event(one.type, one.data)) for one in events],
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which types somebody asked for: whole words, families as `appointment.*`, or `*`."""

    words: tuple[str, ...]

    def has(self, type_: str) -> bool:
        family = f"{type_.partition('.')[0]}.*"
        return any(word in ("*", type_, family) for word in self.words)
