"""One actor's stream as it lies in the journal, for those who look at it and never write it."""

from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from engine.domain.recorded import Recorded
from engine.journal.codec import unpack_event

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def read_stream(connection: asyncpg.Connection, stream: str) -> list[Recorded]:
    """Every event that is committed, in their order; empty where nothing ever happened."""
    rows = await connection.fetch(
        "select version, at, type, data from event where stream = $1 order by version", stream
    )
    return [
        Recorded(
            row["version"],
            (row["at"] - _EPOCH) // timedelta(milliseconds=1),
            unpack_event(row["type"], row["data"]),
        )
        for row in rows
    ]
