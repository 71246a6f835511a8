"""One actor's stream as it lies in the journal, for those who look at it and never write it."""

from datetime import UTC, datetime, timedelta
from typing import Final, cast

import asyncpg

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import BillKey, RoomKey
from engine.domain.recorded import Recorded
from engine.journal.codec import unpack_event

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def read_stream(connection: asyncpg.Connection, stream: str) -> list[Recorded]:
    """Of a practitioner's day: all that is committed, in order; empty where nothing ever happened."""
    rows = await connection.fetch(
        "select version, at, type, data from event where stream = $1 order by version", stream
    )
    return [
        Recorded(
            row["version"],
            (row["at"] - _EPOCH) // timedelta(milliseconds=1),
            cast(s.Event, unpack_event(row["type"], row["data"])),
        )
        for row in rows
    ]


async def read_bill(connection: asyncpg.Connection | asyncpg.Pool, key: BillKey) -> p.Bill:
    """A bill as it is committed; one that was never opened has `opened` None."""
    rows = await connection.fetch(
        "select type, data from event where stream = $1 order by version", key.stream
    )
    return p.replay([cast(p.Event, unpack_event(row["type"], row["data"])) for row in rows])


async def read_room(connection: asyncpg.Connection, key: RoomKey) -> list[w.Event]:
    """The same of a waiting room, whose events say themselves when they happened."""
    rows = await connection.fetch(
        "select type, data from event where stream = $1 order by version", key.stream
    )
    return [cast(w.Event, unpack_event(row["type"], row["data"])) for row in rows]
