"""Is what the database holds the truth, and all of it? Replays the journal and compares it with the tables.

Everything is read in one repeatable-read snapshot, so a database in use may be audited: bookings that are
being made meanwhile are wholly in it or not at all. Nothing is written or locked.

What each check compares:

    acknowledged bookings      what clients were told, with the appointment table
    seats within capacity      the appointment table, with itself
    one patient a seat         the appointment table, with itself
    numbers unique             the appointment table, with the sessions of the replayed plan
    journal numbers            events of a shard, with the shard's counter
    stream versions            events of a stream, with each other
    events replay              events, with the state machine that they must have come from
    appointments as replayed   the appointment table, with the replayed schedules
    seats conserved            replayed schedules, with themselves
    plans as opened            the schedule table, with the replayed schedules
    nobody before the release  each number's seat and channel, with the moments at which its share opened
    waiting lists              the wish table, with the wishes on the replayed schedules' lists
    seats out of use           the schedule table's blocked and cooling seats, with the replayed schedules
    claims                     the claim table, with the claims of the replayed appointments
    rooms replay               events of waiting rooms, with the state machine that they must have come from
    tickets as replayed        the ticket table, with the replayed rooms
    ticket numbers unique      the ticket table and the replayed rooms, with themselves
    nobody in two places       the ticket table and the replayed rooms, with themselves
    calls in sequence          the calls that screens show and the times of a room's events, with each other
    who came has arrived       the appointment table, with the tickets of those who checked in and were seen
    bills replay               events of bills, with the state machine that they must have come from
    bills as replayed          the tables of bills, payments and refunds, with the replayed bills
    ledger as replayed         the postings, with the replayed bills and with themselves: they sum to 0
    paid numbers are booked    the replayed bills, with the appointment table
    bills looked after         what replayed bills wait for, with the errands
    indicators as recounted    what the follower has counted, and has yet to count, with the appointment table

A number that is held for a change may have the claims already that the old one passes on. Where a session has
moved, a time that somebody else has stays his.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import database
from engine.settings import Settings
from web.audit_bills import BillComparison
from web.audit_replay import Check, Comparison, word
from web.audit_rooms import RoomComparison
from web.importing import database_of
from web.indicators_follower import check_indicators


@dataclass(frozen=True, slots=True)
class Acked:
    """A booking as its client was told of it."""

    id: UUID
    slot_id: str
    number: int
    statuses: frozenset[int]  # more than one where the last answer never came


def audit_database(settings: Settings) -> list[Check]:
    """Of the given database or the home's. Raises DatabaseFailed or PostgresFailed."""
    home = settings.home.resolve()
    if settings.database_url is None and not (home / "postgres").exists():
        raise database.DatabaseFailed(f"there is no database in {home}: pass its --home, or --database-url")
    with database_of(settings) as url:
        return asyncio.run(audit_url(url))


async def audit_url(url: str, acked: Sequence[Acked] | None = None) -> list[Check]:
    connection = await database.connect(url)
    try:
        return await audit(connection, acked)
    except asyncpg.UndefinedTableError:
        where = database.address_of(url)
        raise database.DatabaseFailed(f"{where} is not Xinglin's, or not yet: it has no journal") from None
    finally:
        await connection.close()


async def audit(connection: asyncpg.Connection, acked: Sequence[Acked] | None = None) -> list[Check]:
    """Every check with what it found. `acked`: also that these bookings are there."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        checks = [await _acknowledged(connection, acked)] if acked is not None else []
        return [
            *checks,
            await _within_capacity(connection),
            await _seat_once(connection),
            await _journal_numbers(connection),
            await _stream_versions(connection),
            *await Comparison(connection).run(),
            *await RoomComparison(connection).run(),
            *await BillComparison(connection).run(),
            await check_indicators(connection),
        ]


def as_table(checks: Iterable[Check]) -> Table:
    table = Table("audit", "examined", "faults", "", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    for check in checks:
        verdict = Text("OK", "green") if check.ok else Text("FAILED", "red")
        table.add_row(check.name, f"{check.examined:,}", f"{check.faults:,}", verdict)
    return table


def show(checks: Sequence[Check], console: Console) -> None:
    """The table, and then what is wrong, a line each however long."""
    console.print(as_table(checks))
    for check in checks:
        for example in check.examples:
            console.print(Text(f"{check.name}: {example}", "red"), soft_wrap=True)


async def _acknowledged(connection: asyncpg.Connection, acked: Sequence[Acked]) -> Check:
    check = Check("acknowledged bookings")
    rows = await connection.fetch(
        "select id, slot_id, number, status from appointment where id = any ($1::uuid[])",
        [booking.id for booking in acked],
    )
    found = {UUID(bytes=row["id"].bytes): row for row in rows}
    for booking in acked:
        check.examined += 1
        row = found.get(booking.id)
        if row is None:
            check.wrong(f"{booking.id} on {booking.slot_id} was acknowledged and is not there")
        elif (row["slot_id"], row["number"]) != (booking.slot_id, booking.number):
            check.wrong(
                f"{booking.id} was acknowledged as number {booking.number} of {booking.slot_id}"
                f" and is number {row['number']} of {row['slot_id']}"
            )
        elif row["status"] not in booking.statuses:
            expected = " or ".join(word(status) for status in sorted(booking.statuses))
            check.wrong(f"{booking.id} is {word(row['status'])}, was acknowledged as {expected}")
    return check


# What SQL can tell by itself.

_CAPACITY: Final = """
select slot_id, count(*) as taken, max(capacity) as capacity, max(seat) as seat,
       bool_or(seat >= capacity) as beyond
  from appointment where status <= 4 group by slot_id"""


async def _within_capacity(connection: asyncpg.Connection) -> Check:
    check = Check("seats within capacity")
    check.examined = await connection.fetchval(f"select count(*) from ({_CAPACITY}) slot")
    for row in await connection.fetch(
        f"select * from ({_CAPACITY}) slot where taken > capacity or beyond order by slot_id"
    ):
        check.wrong(
            f"{row['slot_id']}: {row['taken']} taken of {row['capacity']}, the last seat {row['seat']}"
        )
    return check


async def _seat_once(connection: asyncpg.Connection) -> Check:
    check = Check("one patient a seat")
    check.examined = await connection.fetchval("select count(*) from appointment where status <= 4")
    for row in await connection.fetch(
        "select slot_id, seat, count(*) as n from appointment where status <= 4"
        " group by slot_id, seat having count(*) > 1 order by slot_id"
    ):
        check.wrong(f"{row['slot_id']}: seat {row['seat']} is given {row['n']} times")
    return check


async def _journal_numbers(connection: asyncpg.Connection) -> Check:
    check = Check("journal numbers")
    check.examined = await connection.fetchval("select count(*) from event")
    for row in await connection.fetch(
        "select shard, before, seq from (select shard, seq,"
        "   lag(seq, 1, 0::bigint) over (partition by shard order by seq) as before from event) e"
        " where seq <> before + 1 order by shard, seq"
    ):
        check.wrong(f"shard {row['shard']}: after {row['before']} comes {row['seq']}")
    for row in await connection.fetch(
        "select s.id, s.seq, coalesce(max(e.seq), 0) as last"
        "  from shard s left join event e on e.shard = s.id"
        " group by s.id having s.seq <> coalesce(max(e.seq), 0)"
    ):
        check.wrong(f"shard {row['id']}: has counted to {row['seq']}, its last event is {row['last']}")
    return check


async def _stream_versions(connection: asyncpg.Connection) -> Check:
    check = Check("stream versions")
    check.examined = await connection.fetchval("select count(distinct stream) from event")
    for row in await connection.fetch(
        "select stream, count(*) as n, min(version) as first, max(version) as last from event"
        " group by stream having min(version) <> 1 or max(version) <> count(*) order by stream"
    ):
        check.wrong(f"{row['stream']}: {row['n']} events, versions {row['first']} to {row['last']}")
    return check
