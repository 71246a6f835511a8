"""What a command wrote to a waiting room's journal: said there, and the same whenever it is asked for."""

from typing import Final, NamedTuple, cast

import asyncpg

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.journal.codec import unpack_event


class Written(NamedTuple):
    version: int  # of the event in its stream
    event: w.Event


async def written_by(
    connection: asyncpg.Connection, key: RoomKey, command_id: bytes, version: int
) -> Written | None:
    """The last event of a command, which bears its id; None where it wrote none. Looked for at `version`
    first, where it is if the command has just been done, and then everywhere."""
    for query, told in ((_AT, version), (_WITH, command_id)):
        for row in await connection.fetch(query, key.stream, told):
            event = cast(w.Event, unpack_event(row["type"], row["data"]))
            if not isinstance(event, w.TicketReleased) and event.command_id == command_id:
                return Written(row["version"], event)
    return None


async def last_version(pool: asyncpg.Pool, key: RoomKey) -> int:
    """Events written so far."""
    found: int = await pool.fetchval(
        "select coalesce(max(version), 0) from event where stream = $1", key.stream
    )
    return found


_AT: Final = "select version, type, data from event where stream = $1 and version = $2"
_WITH: Final = """
    select version, type, data from event where stream = $1 and position($2::bytea in data) > 0
     order by version desc
"""
