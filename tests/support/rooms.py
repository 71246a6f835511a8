"""Waiting rooms over both stores: published, asked, and held against what the store has of them."""

import asyncio
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID

import orjson

from actors.feed import Changes
from actors.room_host import RoomHost
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ScheduleKey
from engine.domain.room_plan import RoomPlan
from engine.journal.codec import unpack_event
from engine.journal.rooms import row_of
from tests.support.stores import HOUR, MemoryWorld, PostgresWorld, Reply, Served, plan

Rows = dict[str, list[object]]
"""ticket -> its row, as engine/journal/rooms.py writes it."""


async def publish_room(world: MemoryWorld | PostgresWorld, key: RoomKey, *practitioners: str) -> None:
    """A department that exists, and whose practitioners see patients for two hours from the next hour on."""
    if isinstance(world, MemoryWorld):
        closes_at = world.clock() + 3 * HOUR
        world.store.room_plans[key.stream] = RoomPlan(key.department_id, key.day, closes_at, practitioners)
        return
    pool = await world.pool()
    await pool.execute(
        "insert into hospital (name, timezone) values ('h', 'Asia/Shanghai') on conflict do nothing"
    )
    await pool.execute(
        "insert into department (id, name, campus, position) values ($1, $1, 'east', 0)"
        " on conflict do nothing",
        key.department_id,
    )
    for practitioner_id in practitioners:
        sessions = plan(world.clock() + HOUR, 10, 10, 10, 10, department=key.department_id)
        await world.publish(ScheduleKey(practitioner_id, key.day), sessions)


async def ask_room(served: Served, key: RoomKey, *commands: w.Command) -> list[Reply]:
    """In messages of a gateway's size, sent together."""
    return await served.send([(key.stream, 60_000, command) for command in commands])


def host_of(served: Served, key: RoomKey) -> RoomHost:
    host = served.shard._hosts[key.stream]
    assert isinstance(host, RoomHost)
    return host


async def history(world: MemoryWorld | PostgresWorld, key: RoomKey, shard_id: int = 0) -> list[w.Event]:
    written = await world.events(shard_id)
    mine = [(version, event) for _, stream, version, event in written if stream == key.stream]
    assert [version for version, _ in mine] == list(range(1, len(mine) + 1)), "a version is missing or twice"
    return [cast(w.Event, event) for _, event in mine]


async def rows_of(world: MemoryWorld | PostgresWorld, key: RoomKey) -> Rows:
    """What the table has of one room."""
    if isinstance(world, MemoryWorld):
        rows = world.store.tickets.items()
        return {id_: row for id_, row in rows if row[:2] == [key.department_id, key.day]}
    pool = await world.pool()
    found = await pool.fetch(
        "select * from ticket where department_id = $1 and day = $2",
        key.department_id,
        date.fromisoformat(key.day),
    )
    return {row["id"].hex: _as_written(row) for row in found}


async def check_room(world: MemoryWorld | PostgresWorld, key: RoomKey, room: w.WaitingRoom) -> None:
    """Live, replayed and in the table must be one. For a moment when everything has been committed."""
    events = await history(world, key)
    assert w.replay(events) == room, "replayed is not live"
    rows = await rows_of(world, key)
    assert rows == {id_.hex(): row_of(key, ticket) for id_, ticket in room.tickets.items()}
    assert w.conservation_error(room) == 0


class Listener:
    """A gateway's ear: every event of every room that the feed has told, in order."""

    def __init__(self, served: Served) -> None:
        self.at = served.shard.feed.epoch, served.shard.feed.seq
        self.rooms: dict[str, list[tuple[int, w.Event]]] = {}
        self.wire: list[dict[str, list[Any]]] = []
        """As they came, for others who want to hear it again."""

    async def hear(self, served: Served) -> None:
        """All that there is. Where the shard was started anew, from its beginning."""
        feed = served.shard.feed
        if self.at[0] != feed.epoch:
            self.at = feed.epoch, feed._first
        while self.at != (feed.epoch, feed.seq):
            news = Changes.unpack(await served.unless_dead(served.shard.changes(*self.at)))
            assert news.remaining is not None, "the feed has gone on without us"
            self.at = news.epoch, news.seq
            self.wire.append(cast(dict[str, list[Any]], news.rooms))
            for stream, events in news.rooms.items():
                heard = self.rooms.setdefault(stream, [])
                heard += [
                    (version, cast(w.Event, unpack_event(code, data))) for version, code, data in events
                ]


async def bury(served: Served) -> None:
    """A shard that has died, or is not to be heard of any more. Its tasks' errors are looked at here: else
    they are told whenever the garbage collector comes by, in the middle of anything."""
    for task in served.shard._tasks:
        task.cancel()
    await asyncio.gather(*served.shard._tasks, return_exceptions=True)


async def time_comes(served: Served) -> None:
    """What the timers would do by now."""
    while due := served.shard._timers.due():
        await served.unless_dead(served.shard._expire(due))
    await served.unless_dead(served.shard._commit.drain())


def _as_written(row: Any) -> list[object]:
    names = (
        "prefix number status queue_id practitioner_id room_id stage stages visit priority emergency"
        " starts_at arrived_at first_called_at started_at finished_at done version"
    )
    values = [_plain(row[name]) for name in names.split()]
    patient, appointment = (None if row[x] is None else row[x].hex for x in ("patient_id", "appointment_id"))
    return [row["department_id"], row["day"].isoformat(), patient, appointment, *values]


def _plain(value: object) -> object:
    match value:
        case datetime():
            return round(value.astimezone(UTC).timestamp() * 1000)
        case UUID():
            return value.hex
        case str() if value.startswith("["):  # asyncpg gives jsonb as its text
            return orjson.loads(value)
        case _:
            return value
