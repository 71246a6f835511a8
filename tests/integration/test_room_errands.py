"""What a waiting room and a practitioner's day tell each other: done twice, late, in the other order, or by a
process that dies between asking and having done it, it comes to the same."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import web

from actors.directory import UNKNOWN, Directory
from actors.errands import Errands, TryAgain
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.refusal import Reason, Refusal
from engine.domain.waiting_room import Status
from engine.vault.vault import Vault
from tests.support.rooms import ask_room, check_room, host_of, publish_room, rows_of
from tests.support.stores import DAY, HOUR, PostgresWorld, Reply, Served, audit, confirm, doctor, hold, uid
from web import keys
from web.queues.errands import Attending

FAMOUS = doctor(1)
CARDIO = RoomKey("cardio", DAY)
ACCOUNT, PATIENT, BOOKED = uid("account"), uid("patient"), uid("booked")
TICKET = ticket_id(BOOKED)


@dataclass
class Clinic:
    """One booked patient, his doctor's day and the department's, and who runs between them."""

    world: PostgresWorld
    served: Served
    pool: asyncpg.Pool
    attending: Attending

    async def room(self, *commands: w.Command) -> list[Reply]:
        return await ask_room(self.served, CARDIO, *commands)

    async def day(self, *commands: s.Command) -> list[Reply]:
        return await self.served.ask(FAMOUS, *commands)

    async def check_in(self) -> None:
        starts_at = self.world.clock() + HOUR
        [told] = await self.room(
            w.CheckIn(
                uid("in"), PATIENT, "kiosk", -1, BOOKED, PATIENT, CARDIO.department_id,
                FAMOUS.practitioner_id, DAY, True, starts_at, starts_at + HOUR // 2, starts_at + HOUR, 1,
                by="staff:kiosk",
            )
        )  # fmt: skip
        assert isinstance(told, w.Told), told

    async def see(self) -> None:
        await self.room(
            w.OpenRoom(uid("open"), "R1", (FAMOUS.practitioner_id,), FAMOUS.practitioner_id),
            w.CallNext(uid("call"), "R1", "staff:doctor"),
            w.StartService(uid("start"), TICKET, "staff:doctor"),
        )
        [told] = await self.room(w.FinishTicket(uid("finish"), TICKET, "staff:doctor"))
        assert told.status == Status.FINISHED

    async def cancel(self) -> None:
        [told] = await self.day(s.CancelAppointment(BOOKED, ACCOUNT))
        assert isinstance(told, s.Answer), told

    async def errands(self) -> list[tuple[int, str, str, dict[str, Any]]]:
        rows = await self.pool.fetch("select id, kind, key, data::text from errand order by id")
        return [(row["id"], row["kind"], row["key"], orjson.loads(row["data"])) for row in rows]

    async def run(self, *, forgets: bool = False) -> int:
        """Does what is to be done, until nothing is. `forgets`: who does it dies before he can say so."""
        done = 0
        while due := await self.errands():
            for id_, kind, key, data in due:
                await self.attending.handlers()[kind](key, data)
                if forgets:
                    await self.attending.handlers()[kind](key, data)
                await self.pool.execute("delete from errand where id = $1", id_)
                done += 1
        return done

    async def status(self) -> int:
        return (await self.world.appointments())[BOOKED].status

    async def ticket(self) -> int:
        status = (await rows_of(self.world, CARDIO))[TICKET.hex()][6]
        assert isinstance(status, int)
        return status

    async def agree(self) -> None:
        await self.served.shard._activate({CARDIO.stream, FAMOUS.stream})  # they may have gone to rest
        await check_room(self.world, CARDIO, host_of(self.served, CARDIO).state)
        days = [host for stream, host in self.served.shard._hosts.items() if stream == FAMOUS.stream]
        histories = [event for event in await self.world.events(0) if event[1] == FAMOUS.stream]
        assert [s.replay([e for *_, e in histories]).appointments] == [h.state.appointments for h in days]  # type: ignore[misc, union-attr]


@pytest.fixture
async def clinic(database: str, vault: Vault) -> AsyncIterator[Clinic]:
    world = PostgresWorld(database)
    await publish_room(world, CARDIO, FAMOUS.practitioner_id)
    await world.register([(ACCOUNT, PATIENT)])
    served = await Served.open(world)
    pool = await world.pool()

    async def send(_: int, packed: bytes) -> bytes:
        return await served.unless_dead(served.shard.ask(packed))

    app = web.Application()
    app[keys.POOL], app[keys.DIRECTORY], app[keys.VAULT] = pool, Directory(send, 1), vault
    clinic = Clinic(world, served, pool, Attending(app))
    await clinic.day(hold(BOOKED, PATIENT, account=ACCOUNT), confirm(BOOKED, ACCOUNT))
    yield clinic
    await clinic.agree()
    await served.stop()
    await world.close()


@pytest.fixture(params=[False, True], ids=["", "done twice"])
def forgets(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_who_checks_in_has_arrived(clinic: Clinic, forgets: bool) -> None:
    await clinic.check_in()
    assert [(kind, key, data["status"]) for _, kind, key, data in await clinic.errands()] == [
        ("attendance", BOOKED.hex(), s.Status.ARRIVED)
    ]
    assert await clinic.status() == s.Status.BOOKED
    assert await clinic.run(forgets=forgets) == 1
    assert await clinic.status() == s.Status.ARRIVED
    written = [e for *_, e in await clinic.world.events(0) if isinstance(e, s.AttendanceRecorded)]
    assert written == [s.AttendanceRecorded(BOOKED, s.Status.ARRIVED, "staff:kiosk")]


async def test_who_was_seen_is_fulfilled_whether_or_not_anybody_heard_that_he_came(
    clinic: Clinic, forgets: bool
) -> None:
    await clinic.check_in()
    if forgets:
        await clinic.run(forgets=True)
    await clinic.see()
    assert [data["status"] for *_, data in await clinic.errands()] == [s.Status.FULFILLED]
    await clinic.run(forgets=forgets)
    assert await clinic.status() == s.Status.FULFILLED


async def test_the_first_errand_that_comes_after_the_second_changes_nothing(clinic: Clinic) -> None:
    """Whoever had it was slow; the other one was done by another process."""
    await clinic.check_in()
    [(_, kind, key, data)] = await clinic.errands()
    await clinic.see()
    await clinic.run()
    await clinic.attending.handlers()[kind](key, data)
    assert await clinic.status() == s.Status.FULFILLED
    assert await clinic.ticket() == Status.FINISHED


async def test_who_cancels_after_his_check_in_waits_no_more(clinic: Clinic, forgets: bool) -> None:
    await clinic.check_in()
    await clinic.run()
    await clinic.cancel()
    assert [kind for _, kind, *_ in await clinic.errands()] == ["leave_ticket"]
    assert await clinic.ticket() == Status.WAITING
    await clinic.run(forgets=forgets)
    assert await clinic.ticket() == Status.LEFT


async def test_who_cancels_before_anybody_has_told_of_his_check_in_waits_no_more(
    clinic: Clinic, forgets: bool
) -> None:
    """Both errands' order turned round: the day did not know of a ticket when it was cancelled."""
    await clinic.check_in()
    await clinic.cancel()
    await clinic.run(forgets=forgets)
    assert await clinic.status() == s.Status.CANCELLED
    assert await clinic.ticket() == Status.LEFT


async def test_who_is_being_seen_already_is_not_sent_away_by_a_cancellation(clinic: Clinic) -> None:
    await clinic.check_in()
    await clinic.run()
    await clinic.cancel()
    due = await clinic.errands()
    await clinic.see()
    await clinic.run()
    assert len(due) == 1 and await clinic.ticket() == Status.FINISHED
    assert await clinic.status() == s.Status.CANCELLED


async def test_who_was_given_up_as_absent_and_was_seen_is_fulfilled(clinic: Clinic, forgets: bool) -> None:
    await clinic.check_in()
    clinic.world.clock.advance(ms=2 * HOUR)
    [told] = await clinic.day(s.RecordAttendance(BOOKED, s.Status.NOSHOW, "system"))
    assert told.status == s.Status.NOSHOW
    await clinic.see()  # before anybody has told of the check-in
    await clinic.run(forgets=forgets)
    assert await clinic.status() == s.Status.FULFILLED


async def test_who_was_given_up_as_absent_and_came_has_arrived(clinic: Clinic) -> None:
    await clinic.check_in()
    clinic.world.clock.advance(ms=2 * HOUR)
    await clinic.day(s.RecordAttendance(BOOKED, s.Status.NOSHOW, "system"))
    await clinic.run()
    assert await clinic.status() == s.Status.ARRIVED


async def test_a_walk_in_tells_no_day_anything(clinic: Clinic) -> None:
    await clinic.room(w.TakeNumber(uid("take"), uid("walker"), "desk", FAMOUS.practitioner_id))
    assert await clinic.errands() == []


async def test_while_the_shard_is_away_nothing_is_forgotten(clinic: Clinic, vault: Vault) -> None:
    """The handler says that it must be tried again, so its row stays."""
    await clinic.check_in()

    class Away:
        def ask(self, *_: object) -> asyncio.Future[Any]:
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            answer.set_result(answers.pop(0))
            return answer

    answers: list[Any] = [UNKNOWN, Refusal(Reason.AWAY), Refusal(Reason.BUSY), Refusal(Reason.TOO_LATE)]
    app = web.Application()
    app[keys.POOL], app[keys.DIRECTORY], app[keys.VAULT] = clinic.pool, Away(), vault  # type: ignore[misc]
    [(_, kind, key, data)] = await clinic.errands()
    for _ in range(4):
        with pytest.raises(TryAgain):
            await Attending(app).handlers()[kind](key, data)
    assert not answers
    await clinic.run()
    assert await clinic.status() == s.Status.ARRIVED


async def test_the_runner_does_them_and_leaves_nothing(clinic: Clinic) -> None:
    """The real one, with its leases; one that had a row and died is followed by another."""
    await clinic.check_in()
    await clinic.pool.execute("update errand set tries = 1, due_at = now()")  # somebody had it, and died
    done = asyncio.Event()

    async def attendance(key: str, data: dict[str, Any]) -> None:
        await clinic.attending.attendance(key, data)
        done.set()

    errands = Errands(clinic.world.url, clinic.pool, {"attendance": attendance})
    running = asyncio.create_task(errands.run())
    await asyncio.wait_for(done.wait(), 20)
    while errands._running:
        await asyncio.gather(*errands._running)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await clinic.errands() == []
    assert await clinic.status() == s.Status.ARRIVED


async def test_a_day_that_has_been_told_all_is_a_sound_day(clinic: Clinic) -> None:
    await clinic.check_in()
    await clinic.run()
    rooms = await rows_of(clinic.world, CARDIO)
    assert len(rooms) == 1
    days = [clinic.served.shard._hosts[FAMOUS.stream]]
    histories = [stream for _, stream, *_ in await clinic.world.events(0)]
    assert set(histories) == {FAMOUS.stream, CARDIO.stream}
    await audit(clinic.world, days, [0])  # type: ignore[arg-type]


async def test_who_ends_late_takes_away_nothing_that_was_asked_for_meanwhile(clinic: Clinic) -> None:
    """One runner is still telling that he came while another one takes over that he was seen, and fails."""
    await clinic.check_in()
    came, seen = asyncio.Event(), asyncio.Event()
    slow, again = asyncio.Event(), asyncio.Event()

    async def attendance(key: str, data: dict[str, Any]) -> None:
        if data["status"] == s.Status.ARRIVED:
            came.set()
            await slow.wait()
            await clinic.attending.attendance(key, data)
        else:
            seen.set()
            await again.wait()
            raise TryAgain("the shard is away", 3_600)

    errands = Errands(clinic.world.url, clinic.pool, {"attendance": attendance})
    running = asyncio.create_task(errands.run())
    await asyncio.wait_for(came.wait(), 10)
    await clinic.see()
    await asyncio.wait_for(seen.wait(), 10)
    slow.set()
    await asyncio.wait(set(errands._running), return_when=asyncio.FIRST_COMPLETED)
    again.set()
    while left := set(errands._running):
        await asyncio.wait(left)
    running.cancel()
    assert await clinic.errands()
