"""What the journal writes beside the events of waiting rooms: the ticket table, errands, and the second line
behind the actors (law 5)."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.refusal import Reason, Refusal
from engine.domain.room_plan import GENERAL
from engine.domain.waiting_room import Status
from tests.support.rooms import ask_room, bury, check_room, history, host_of, publish_room, rows_of
from tests.support.stores import DAY, HOUR, Died, PostgresWorld, Served, doctor, hold, uid

CARDIO = RoomKey("cardio", DAY)
FAMOUS = doctor(1)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    await publish_room(world, CARDIO, FAMOUS.practitioner_id)
    yield world
    await world.close()


@pytest.fixture
async def served(world: PostgresWorld) -> AsyncIterator[Served]:
    served = await Served.open(world)
    yield served
    if not served.deaths:
        await served.stop()


def takes(n: int, patient: int) -> w.TakeNumber:
    return w.TakeNumber(uid("take", n), uid("patient", patient), "desk", GENERAL)


def ticket(n: int) -> bytes:
    return ticket_id(uid("take", n))


def leaves(n: int, which: int) -> w.LeaveTicket:
    return w.LeaveTicket(uid("leave", n), ticket(which), "nurse", "home")


async def check(world: PostgresWorld, served: Served) -> None:
    await check_room(world, CARDIO, host_of(served, CARDIO).state)


async def test_whoever_left_may_take_another_number_in_the_same_batch(
    world: PostgresWorld, served: Served
) -> None:
    """The table lets a patient wait once; in one statement, who is through comes first."""
    await ask_room(served, CARDIO, takes(1, 7))
    batch = [leaves(1, 1), takes(2, 7), leaves(2, 2), takes(3, 7)]
    assert not any(isinstance(reply, Refusal) for reply in await ask_room(served, CARDIO, *batch))
    assert {id_: row[6] for id_, row in (await rows_of(world, CARDIO)).items()} == {
        ticket(1).hex(): Status.LEFT,
        ticket(2).hex(): Status.LEFT,
        ticket(3).hex(): Status.WAITING,
    }
    await check(world, served)


async def test_a_ticket_that_is_taken_back_into_the_line_waits_once_too(
    world: PostgresWorld, served: Served
) -> None:
    await ask_room(served, CARDIO, takes(1, 7), leaves(1, 1), takes(2, 7))
    undo = w.UndoStep(uid("undo"), ticket(1), 2, "nurse", "it was not he")
    [refused] = await ask_room(served, CARDIO, undo)
    assert refused.reason is Reason.PATIENT_WAITS_ALREADY
    _, told = await ask_room(served, CARDIO, leaves(2, 2), undo)
    assert told.status == Status.WAITING
    await check(world, served)


async def test_many_steps_of_one_ticket_in_one_batch_leave_one_row(
    world: PostgresWorld, served: Served
) -> None:
    open_room = w.OpenRoom(uid("open"), "R1", (GENERAL,), "D9", "nurse")
    batch = [open_room, takes(1, 1), w.CallNext(uid("call"), "R1", "nurse")]
    batch += [
        w.StartService(uid("start"), ticket(1), "nurse"),
        w.FinishTicket(uid("end"), ticket(1), "nurse"),
    ]
    await ask_room(served, CARDIO, *batch)
    [row] = (await rows_of(world, CARDIO)).values()
    now = world.clock()
    assert row[4:] == [
        "A", 1, Status.FINISHED, "", "", "", 1, 1, 0, "", 0, None, now, now, now, now,
        [["visit", GENERAL, "R1", "D9", now, now, now]], 4,
    ]  # fmt: skip
    await check(world, served)


async def test_rooms_are_written_whole_also_where_a_day_in_the_same_batch_loses_a_claim(
    world: PostgresWorld,
) -> None:
    """The slower way of a flush writes tickets once, and the loser's compensation with them."""
    other = doctor(2)
    await publish_room(world, RoomKey("cardio", DAY), other.practitioner_id)
    await world.register([(uid("account"), uid("patient", 1))])
    served, rival = await Served.open(world, 0), await Served.open(world, 1)
    reads = served.shard._reads
    question = reads.facts

    async def facts(questions, now):  # noqa: ANN001, ANN202
        found = await question(questions, now)
        won = await rival.ask(other, hold(uid("b"), uid("patient", 1), "0830", uid("account")))
        assert isinstance(won[0], s.Answer)  # a moment too late to be seen
        return found

    reads.facts = facts  # type: ignore[method-assign]
    asks = [
        (CARDIO.stream, 60_000, takes(1, 1)),
        (FAMOUS.stream, 60_000, hold(uid("a"), uid("patient", 1), account=uid("account"))),
        (CARDIO.stream, 60_000, takes(2, 2)),
    ]
    first, lost, second = await served.send(asks)
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert (first.label, second.label) == ("A001", "A002")
    assert [type(e) for e in await history(world, CARDIO)].count(w.TicketIssued) == 2
    await check(world, served)
    await served.stop()
    await rival.stop()


async def test_what_is_said_last_of_a_visit_is_what_its_day_is_told(
    world: PostgresWorld, served: Served
) -> None:
    """One errand an appointment: came and was seen, before anybody had told of the coming."""
    patient, starts_at = uid("patient", 1), world.clock() + HOUR
    came = w.CheckIn(
        uid("in"), patient, "kiosk", -1, uid("a"), patient, "cardio", FAMOUS.practitioner_id, DAY, True,
        starts_at, starts_at + 1, starts_at + 2, 3, by="staff:1",
    )  # fmt: skip
    who, own = FAMOUS.practitioner_id, ticket_id(uid("a"))
    await ask_room(served, CARDIO, came, w.OpenRoom(uid("open"), "R1", (who,), who))
    pool = await world.pool()

    async def errands() -> list[tuple[str, int]]:
        rows = await pool.fetch("select kind, data::text from errand")
        return [(row["kind"], orjson.loads(row["data"])["status"]) for row in rows]

    assert await errands() == [("attendance", s.Status.ARRIVED)]
    await ask_room(served, CARDIO, w.CallNext(uid("call"), "R1", "d"), w.StartService(uid("s"), own, "d"))
    examination = (("examination", "", "", 0), ("visit", who, "", 1))
    await ask_room(served, CARDIO, w.FinishTicket(uid("f1"), own, "d", examination))
    assert await errands() == [("attendance", s.Status.ARRIVED)], "he is to come back to the doctor"
    back = w.ReturnTicket(uid("back"), own, "desk")
    await ask_room(served, CARDIO, back, w.CallNext(uid("call", 2), "R1", "d"))
    await ask_room(served, CARDIO, w.FinishTicket(uid("f2"), own, "d"))
    assert await errands() == [("attendance", s.Status.FULFILLED)]
    await check(world, served)


# The second line: what an actor gone wrong could not write.


@pytest.mark.parametrize(
    "damage",
    [
        "insert into ticket select gen_random_uuid(), department_id, day, gen_random_uuid(), null, prefix,"
        " number, 9, queue_id, practitioner_id, room_id, stage, stages, visit, priority, emergency, null,"
        " arrived_at, null, null, null, done, 1 from ticket limit 1",
        "insert into ticket select gen_random_uuid(), department_id, day, patient_id, null, prefix, 999,"
        " 1, queue_id, practitioner_id, room_id, stage, stages, visit, priority, emergency, starts_at,"
        " arrived_at, null, null, null, done, 1 from ticket limit 1",
    ],
    ids=["a number twice", "a patient who waits twice"],
)
async def test_the_table_refuses_what_no_actor_does(
    world: PostgresWorld, served: Served, damage: str
) -> None:
    await ask_room(served, CARDIO, takes(1, 1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await (await world.pool()).execute(damage)


async def test_an_actor_that_gives_a_number_twice_dies_before_anybody_hears_of_it(
    world: PostgresWorld, served: Served
) -> None:
    await ask_room(served, CARDIO, takes(1, 1))
    room = host_of(served, CARDIO).state
    room.queues[GENERAL].next_number = 1
    room.numbers.clear()
    asking = asyncio.ensure_future(ask_room(served, CARDIO, takes(2, 2)))
    with pytest.raises(Died, match="the journal failed"):
        await asking
    await bury(served)
    assert len(await rows_of(world, CARDIO)) == 1
    again = await Served.open(world)
    [told] = await ask_room(again, CARDIO, takes(2, 2))
    assert told.label == "A002"
    await check(world, again)
    await again.stop()
