"""The schema is the second line (law 5): each constraint stops what a broken actor would write.

Each test writes what no sound actor writes. With the constraint the journal refuses; with the constraint
taken out of this test's database the write succeeds, so it is the constraint that stops it.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from engine.domain import schedule as s
from engine.journal.journal import AppointmentRow, Entry, Loss
from tests.support.stores import ACCOUNT, HOUR, PostgresWorld, doctor, entry, plan, uid

KEY = doctor(1)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    await world.publish(KEY, plan(world.clock() + HOUR, 1))
    yield world
    await world.close()


def nobody_loses(losers: list[Loss]) -> list[Entry]:
    raise AssertionError(losers)


def hold(world: PostgresWorld, name: str, version: int, *gains: s.Claim, seat: int = 0) -> Entry:
    now = world.clock()
    row = AppointmentRow(
        id=uid(name),
        schedule_id=KEY.schedule_id,
        slot_id=KEY.slot_id("0800"),
        seat=seat,
        capacity=1,
        number=seat + 1,
        patient_id=uid(name),
        account_id=ACCOUNT,
        status=s.Status.PENDING,
        reason=None,
        fee_fen=0,
        starts_at=now + HOUR,
        hold_until=now + HOUR // 2,
        at=now,
    )
    held = s.SeatHeld(uid(name), "0800", seat, uid(name), ACCOUNT, row.hold_until)
    return entry(KEY, held, version, now, row=row, gains=gains)


async def oversell(world: PostgresWorld) -> None:
    """One seat for two, as after a check-then-insert or a decrement too many."""
    journal = await world.journal(0)
    await journal.take_over()
    await journal.append([hold(world, "a", 1)], nobody_loses)
    await journal.append([hold(world, "b", 2)], nobody_loses)


async def overfill(world: PostgresWorld) -> None:
    """A second seat in a slot of one, as after count()+1."""
    journal = await world.journal(0)
    await journal.take_over()
    await journal.append([hold(world, "a", 1), hold(world, "b", 2, seat=1)], nobody_loses)


async def rewrite_history(world: PostgresWorld) -> None:
    """Two events of one version, as from a state that was loaded before the takeover."""
    journal = await world.journal(0)
    await journal.take_over()
    await journal.append([entry(KEY, s.SeatBooked(uid("a")), 1, world.clock())], nobody_loses)
    await journal.append([entry(KEY, s.SeatBooked(uid("b")), 1, world.clock())], nobody_loses)


LINES = [
    (oversell, "drop index appointment_seat_once"),
    (overfill, "alter table appointment drop constraint appointment_within_capacity"),
    (rewrite_history, "alter table event drop constraint event_stream_version_key"),
]


@pytest.mark.parametrize(("damage", "removal"), LINES, ids=lambda x: getattr(x, "__name__", ""))
async def test_the_schema_stops_it(world: PostgresWorld, damage, removal: str) -> None:  # noqa: ANN001
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await damage(world)
    written = len(await world.events(0))
    assert written == len(await world.appointments()) or damage is rewrite_history, "half a batch was written"


@pytest.mark.parametrize(("damage", "removal"), LINES, ids=lambda x: getattr(x, "__name__", ""))
async def test_nothing_else_would_have_stopped_it(world: PostgresWorld, damage, removal: str) -> None:  # noqa: ANN001
    await (await world.pool()).execute(removal)
    await damage(world)
    assert len(await world.events(0)) == 2
