"""The audit of waiting rooms finds what is planted, each kind of damage by the checks meant for it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg
import pytest

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.refusal import Refusal
from engine.journal.codec import EVENT_CODES, pack_event, unpack_event
from tests.support.rooms import ask_room, publish_room
from tests.support.stores import DAY, HOUR, PostgresWorld, Served, confirm, doctor, hold, uid
from web.audit import audit
from web.audit_replay import Check

CARDIO, NEURO = RoomKey("cardio", DAY), RoomKey("neuro", DAY)
FAMOUS = doctor(1)
ROOMS = {
    "rooms replay", "tickets as replayed", "ticket numbers unique", "nobody in two places",
    "calls in sequence", "who came has arrived",
}  # fmt: skip
BOOKED = 5
"""So many have a number, of whom the first three have come: one was seen, one waits, one has just come in."""


@dataclass(slots=True)
class Morning:
    connection: asyncpg.Connection

    async def checks(self) -> list[Check]:
        return await audit(self.connection)

    async def failed(self) -> set[str]:
        return {check.name for check in await self.checks() if not check.ok}


def appointment(n: int) -> bytes:
    return uid("a", n)


@pytest.fixture
async def morning(database: str) -> AsyncIterator[Morning]:
    """Three booked patients and three walk-ins in one department, and a walk-in in another one."""
    world = PostgresWorld(database)
    await publish_room(world, CARDIO, FAMOUS.practitioner_id)
    await publish_room(world, NEURO)
    await world.register([(uid("account", n), uid("patient", n)) for n in range(BOOKED)])
    served = await Served.open(world)
    for n in range(BOOKED):
        await served.ask(
            FAMOUS,
            hold(appointment(n), uid("patient", n), account=uid("account", n)),
            confirm(appointment(n), uid("account", n)),
        )
    starts_at = world.clock() + HOUR
    commands: list[w.Command] = [
        w.CheckIn(
            uid("in", n), uid("patient", n), "kiosk", -1, appointment(n), uid("patient", n), "cardio",
            FAMOUS.practitioner_id, DAY, True, starts_at, starts_at + HOUR // 2, starts_at + HOUR, n + 1,
        )
        for n in range(3)
    ]  # fmt: skip
    commands += [w.TakeNumber(uid("in", n), uid("patient", n), "desk", "general") for n in (10, 11, 12)]
    commands += [
        w.OpenRoom(uid("open", 1), "R1", (FAMOUS.practitioner_id,), FAMOUS.practitioner_id),
        w.OpenRoom(uid("open", 2), "R2", ("general",)),
        w.CallNext(uid("call", 1), "R1", "doctor"),
        w.StartService(uid("start"), ticket_id(appointment(0)), "doctor"),
        w.FinishTicket(uid("finish"), ticket_id(appointment(0)), "doctor"),
        w.CallNext(uid("call", 2), "R2", "nurse"),
        w.LeaveTicket(uid("leave"), ticket_id(uid("in", 12)), "nurse", "home"),
    ]
    replies = await ask_room(served, CARDIO, *commands)
    replies += await ask_room(
        served, NEURO, w.TakeNumber(uid("in", 20), uid("patient", 10), "desk", "general")
    )
    assert not any(isinstance(reply, Refusal) for reply in replies), replies
    # The errands of the first two are done; the third one's is on its way.
    for n, status in ((0, s.Status.FULFILLED), (1, s.Status.ARRIVED)):
        await served.ask(FAMOUS, s.RecordAttendance(appointment(n), status, "system"))
        await (await world.pool()).execute("delete from errand where key = $1", appointment(n).hex())
    await served.stop()
    connection = await asyncpg.connect(database)
    yield Morning(connection)
    await connection.close()
    await world.close()


async def test_what_is_right_is_found_right(morning: Morning) -> None:
    checks = await morning.checks()
    assert [(check.name, check.examples) for check in checks if not check.ok] == []
    assert {check.name: check.examined for check in checks if check.name in ROOMS} == {
        "rooms replay": 19,
        "tickets as replayed": 7,
        "ticket numbers unique": 7,
        "nobody in two places": 7,
        "calls in sequence": 2,
        "who came has arrived": 3,
    }


def of(n: int) -> str:
    return f"id = '{UUID(bytes=ticket_id(appointment(n) if n < 3 else uid('in', n)))}'"


def booked(n: int) -> str:
    return f"id = '{UUID(bytes=appointment(n))}'"


TICKETS, REPLAY = "tickets as replayed", "rooms replay"
DAMAGE = {
    "a ticket is gone": (f"delete from ticket where {of(10)}", {TICKETS}),
    "a ticket from nowhere": (
        "insert into ticket select gen_random_uuid(), department_id, day, gen_random_uuid(), null, prefix,"
        f" 77, status, queue_id, practitioner_id, '', stage, stages, visit, priority, emergency, starts_at,"
        f" arrived_at, null, null, null, done, version from ticket where {of(11)}",
        {TICKETS},
    ),
    "a ticket of a day that never was": (
        f"update ticket set day = day + 1 where {of(11)}",
        {TICKETS},
    ),
    "another status": (f"update ticket set status = 9 where {of(11)}", {TICKETS}),
    "another queue": (f"update ticket set queue_id = 'D0001' where {of(11)}", {TICKETS}),
    "another practitioner": (f"update ticket set practitioner_id = 'D0001' where {of(11)}", {TICKETS}),
    "another room": (f"update ticket set room_id = 'R1' where {of(10)}", {TICKETS}),
    "another stage": (f"update ticket set stage = 2, stages = 3 where {of(11)}", {TICKETS}),
    "another class": (f"update ticket set priority = 'aged' where {of(11)}", {TICKETS}),
    "another level": (f"update ticket set emergency = 1 where {of(11)}", {TICKETS}),
    "another visit": (f"update ticket set visit = 1 where {of(11)}", {TICKETS}),
    "another appointed time": (f"update ticket set starts_at = now() where {of(11)}", {TICKETS}),
    "another arrival": (
        f"update ticket set arrived_at = arrived_at - interval '1 millisecond' where {of(11)}",
        {TICKETS},
    ),
    "another call": (f"update ticket set first_called_at = null where {of(10)}", {TICKETS}),
    "another start": (f"update ticket set started_at = null where {of(0)}", {TICKETS}),
    "another end": (f"update ticket set finished_at = now() where {of(0)}", {TICKETS}),
    "another journey": (f"update ticket set done = '[]' where {of(0)}", {TICKETS}),
    "another version": (f"update ticket set version = version + 1 where {of(11)}", {TICKETS}),
    "another appointment": (
        f"update ticket set appointment_id = '{UUID(bytes=appointment(4))}' where {of(11)}",
        {TICKETS},
    ),
    "a number that is another's": (
        "alter table ticket drop constraint ticket_department_id_day_prefix_number_key;"
        f" update ticket set number = 1 where {of(11)}",
        {TICKETS, "ticket numbers unique"},
    ),
    "a patient who waits twice": (
        "drop index ticket_waits_once;"
        f" update ticket set patient_id = (select patient_id from ticket where {of(10)}) where {of(11)}",
        {TICKETS, "nobody in two places"},
    ),
    "two who are called to one room": (
        f"update ticket set status = 3, room_id = 'R2' where {of(11)}",
        {TICKETS, "nobody in two places"},
    ),
    "somebody who is called to nowhere": (
        f"update ticket set room_id = '' where {of(10)}",
        {TICKETS, "nobody in two places"},
    ),
    "the first event of a room is lost": (
        "delete from event where stream like 'room/neuro/%' and version = 1",
        {"journal numbers", "stream versions", REPLAY},
    ),
    "a lost check-in": (
        f"delete from event where type = {EVENT_CODES[w.TicketIssued]} and version = 4"
        " and stream like 'room/cardio/%'",
        {"journal numbers", "stream versions", REPLAY},
    ),
    "all of a room is lost": (
        "delete from event where stream like 'room/neuro/%'",
        {"journal numbers", TICKETS},
    ),
    "bytes that are no event": (
        "update event set data = '\\x00' where stream like 'room/cardio/%' and version = 5",
        {REPLAY},
    ),
    "an event of an unknown type": (
        "update event set type = 199 where stream like 'room/cardio/%' and version = 5",
        {REPLAY},
    ),
    "who came has not arrived": (
        f"update appointment set status = 2 where {booked(1)}",
        {"appointments as replayed", "who came has arrived"},
    ),
    "who was seen has only arrived": (
        f"update appointment set status = 3 where {booked(0)}",
        {"appointments as replayed", "who came has arrived"},
    ),
    "who came is absent": (
        f"update appointment set status = 6 where {booked(1)}",
        {"appointments as replayed", "claims", "who came has arrived"},
    ),
    "whose number was cancelled waits": (
        f"update appointment set status = 5, reason = 'cancelled' where {booked(1)}",
        {"appointments as replayed", "claims", "who came has arrived"},
    ),
    "a ticket of no appointment": (
        f"delete from appointment where {booked(1)}",
        {"appointments as replayed", "who came has arrived"},
    ),
    "an errand that nobody does": (
        "delete from errand",
        {"who came has arrived"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_each_damage_is_told_by_the_checks_for_it(morning: Morning, damage: str) -> None:
    statement, expected = DAMAGE[damage]
    await morning.connection.execute("set session_replication_role = replica")  # past the trigger
    await morning.connection.execute(statement)
    checks = await morning.checks()
    failed = {check.name for check in checks if not check.ok}
    assert expected & ROOMS <= failed, f"not told by {expected - failed}"
    assert failed - expected <= {"claims", "indicators as recounted"} | (
        ROOMS - expected if REPLAY in expected else set()
    )
    assert all(check.examples for check in checks if not check.ok)


async def rewrite(morning: Morning, version: int, changed: Callable[[w.Event], w.Event]) -> None:
    """One event of the journal, as somebody with a key to the database would."""
    where = "where stream = $1 and version = $2"
    row = await morning.connection.fetchrow(f"select type, data from event {where}", CARDIO.stream, version)
    event = changed(unpack_event(row["type"], row["data"]))  # type: ignore[arg-type]
    await morning.connection.execute("set session_replication_role = replica")  # past the trigger
    await morning.connection.execute(
        f"update event set data = $3 {where}", CARDIO.stream, version, pack_event(event)
    )


async def test_a_number_that_was_given_twice_is_told(morning: Morning) -> None:
    def again(event: w.Event) -> w.Event:
        assert isinstance(event, w.TicketIssued)
        return replace(event, number=event.number - 1)

    await rewrite(morning, 8, again)
    assert await morning.failed() & ROOMS == {TICKETS, "ticket numbers unique"}


async def test_an_event_that_comes_before_the_one_before_it_is_told(morning: Morning) -> None:
    await rewrite(morning, 10, lambda event: replace(event, at=event.at - 1))
    assert await morning.failed() & ROOMS == {"calls in sequence"}


async def test_somebody_who_is_called_while_another_is_inside_is_told(morning: Morning) -> None:
    def elsewhere(event: w.Event) -> w.Event:
        assert isinstance(event, w.TicketCalled)
        return replace(event, room_id="R1")

    await rewrite(morning, 15, elsewhere)
    assert await morning.failed() & ROOMS == {TICKETS}


async def test_what_staff_took_back_by_hand_is_no_fault(morning: Morning) -> None:
    """He had not arrived after all: it was another patient of that name."""
    served = await Served.open(PostgresWorld(await _url(morning)))
    [told] = await served.ask(FAMOUS, s.RecordAttendance(appointment(1), s.Status.BOOKED, "desk"))
    assert told.status == s.Status.BOOKED
    assert await morning.failed() - {"indicators as recounted"} == set()
    await served.stop()


async def _url(morning: Morning) -> str:
    database = await morning.connection.fetchval("select current_database()")
    address = morning.connection._params
    host, port = morning.connection._addr
    return f"postgresql://{address.user}:{address.password}@{host}:{port}/{database}"
