"""Indicators are what the tables say: whatever happened, and whoever died while it was counted."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import pytest
from pydantic import TypeAdapter

import web.desk.indicators as boards
import web.indicators_follower as following
from actors.directory import shard_of
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Refusal
from engine.journal.journal import enact
from engine.records import indicators as records
from engine.records.indicators import VISIT_NAMES, Cell, Counts
from engine.views.availability import Availability
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    PostgresWorld,
    Served,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)
from tests.unit.test_boards import MANAGER
from tests.unit.test_stream import CATALOG
from web.audit import audit as audit_tables
from web.desk.indicators import IndicatorBoard, IndicatorsAnswer
from web.errors import Problem
from web.indicators_follower import Follower, check_indicators
from web.patient.pages import Pages
from web.stream import Connection, Stream

ZONE = "Asia/Shanghai"
SECONDS_MAX = 20
CLOCKS = ("0800", "0830")
PATIENTS = [uid("patient", n) for n in range(30)]
CHANNELS = (1, 2, 4, 128)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    yield world
    await world.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


def nonzero(counts: Counts) -> Counts:
    return {cell: count for cell, count in counts.items() if count}


async def in_step(follower: Follower, connection: asyncpg.Connection) -> Counts:
    """Steps until everything is counted; then what is kept must be what the tables say."""
    while not await records.is_in_step(connection):
        await follower.step()
    counts = nonzero(await records.kept(connection))
    assert counts == await records.recount(connection, ZONE)
    return counts


class Clinic:
    """Three doctors of two departments, served by two shards, and somebody who does at random what can be
    done there."""

    def __init__(self, world: PostgresWorld, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.keys = [doctor(n) for n in (1, 2, 3)]
        self.shards: list[Served] = []
        self.known: list[tuple[ScheduleKey, bytes, bytes]] = []
        """Where, which number, whose."""
        self.asked: dict[bytes, tuple[ScheduleKey, bytes, bytes]] = {}
        self.changing: list[tuple[ScheduleKey, bytes, ScheduleKey, bytes]] = []
        self.made = 0
        self.replies: Counter[str] = Counter()

    async def open(self) -> None:
        for n, key in enumerate(self.keys):
            starts = self.world.clock() + HOUR + n * HOUR // 4
            department = "derma" if n == 2 else "cardio"
            await self.world.publish(key, plan(starts, 9, 6, department=department))
        await self.world.register([(ACCOUNT, patient) for patient in PATIENTS])
        await self.serve(2)

    async def serve(self, shards: int) -> None:
        """From now on there are so many."""
        for served in self.shards:
            await served.stop()
        self.shards = [await Served.open(self.world, n, shards) for n in range(shards)]

    async def happen(self, count: int) -> None:
        """Some commands at once, in both shards."""
        asked: list[list[tuple[str, int, s.Command]]] = [[] for _ in self.shards]
        for _ in range(count):
            key, command = self.command()
            asked[shard_of(key.stream, len(self.shards))].append((key.stream, 60_000, command))
        sent = [served.send(asks) for served, asks in zip(self.shards, asked, strict=True) if asks]
        commands = [command for asks in asked for _, _, command in asks]
        replies = [reply for replies in await asyncio.gather(*sent) for reply in replies]
        for command, reply in zip(commands, replies, strict=True):
            self.replies["ok" if not isinstance(reply, Refusal) else str(reply.reason)] += 1
            match command:
                case s.HoldSeat() | s.AddPatient() if not isinstance(reply, Refusal):
                    self.known.append(self.asked[command.appointment_id])
                case s.HoldGroup() if not isinstance(reply, Refusal):
                    self.known += [self.asked[appointment_id] for appointment_id, _ in command.members]
                case _:
                    pass

    def command(self) -> tuple[ScheduleKey, s.Command]:
        pick = self.random.choice
        kind = self.random.random()
        key = pick(self.keys)
        if kind < 0.3 or not self.known:
            return self.hold(key)
        if kind < 0.34:
            patients = self.random.sample(PATIENTS, 2)
            members = tuple((self.new_id(key, patient), patient) for patient in patients)
            return key, s.HoldGroup(members, pick(CLOCKS), ACCOUNT, 900, pick(CHANNELS))
        if kind < 0.37:
            patient = pick(PATIENTS)
            new = self.new_id(key, patient)
            return key, s.AddPatient(new, -1, "staff:1", "", pick(CLOCKS), new, patient, ACCOUNT)
        if kind < 0.5 and self.changing:
            return self.change_on(*pick(self.changing[-3:]))
        if kind < 0.52:
            self.made += 1
            status = pick(("suspended", "open", "open", "paused", "open"))
            command_id = uid("revision", self.made)
            return key, s.SetSessionStatus(command_id, -1, "staff:1", "", "morning", status, "other")
        key, known, _ = pick(self.known[-30:])
        if kind < 0.75:
            return key, confirm(known)
        if kind < 0.82:
            return key, cancel(known)
        status = pick((s.Status.ARRIVED, s.Status.FULFILLED, s.Status.NOSHOW, s.Status.BOOKED))
        return key, s.RecordAttendance(known, status, "staff:1")

    def hold(self, key: ScheduleKey) -> tuple[ScheduleKey, s.Command]:
        pick = self.random.choice
        patient, clock, channel = pick(PATIENTS), pick(CLOCKS), pick(CHANNELS)
        if self.known and self.random.random() < 0.3:  # a change
            old_key, old, patient = pick(self.known[-30:])
            new = self.new_id(key, patient)
            self.changing.append((old_key, old, key, new))
            return key, s.HoldSeat(new, clock, patient, ACCOUNT, 900, channel, replaces=old, changes=1)
        if self.known and self.random.random() < 0.2:  # an id that is taken, perhaps elsewhere
            return key, hold(pick(self.known)[1], patient, clock)
        new = self.new_id(key, patient)
        return key, s.HoldSeat(new, clock, patient, ACCOUNT, pick((60, 900, 900)), channel)

    def change_on(
        self, old_key: ScheduleKey, old: bytes, key: ScheduleKey, new: bytes
    ) -> tuple[ScheduleKey, s.Command]:
        if self.random.random() < 0.5:
            department = "derma" if key == self.keys[2] else "cardio"
            return old_key, s.LeaveFor(old, new, ACCOUNT, department, True, self.world.clock() + HOUR)
        return key, s.SettleChange(new, False)

    def new_id(self, key: ScheduleKey, patient: bytes) -> bytes:
        self.made += 1
        made = uid("number", self.made)
        self.asked[made] = key, made, patient
        return made


async def killed(follower: Follower, turns: int) -> None:
    """Steps, and is gone after so many turns of the loop."""
    stepping = asyncio.ensure_future(follower.step())
    for _ in range(turns):
        await asyncio.sleep(0)
    stepping.cancel()
    with suppress(asyncio.CancelledError):
        await stepping
    follower.close()


@pytest.mark.parametrize("seed", range(6))
async def test_counted_is_recounted_whatever_happens_and_whoever_dies(
    world: PostgresWorld, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(following, "CHUNK_EVENTS", 7)
    monkeypatch.setattr(following, "NUMBERS_KEPT_MAX", (5, 60_000)[seed % 2])
    clinic = Clinic(world, seed)
    await clinic.open()
    followers = [Follower(world.url), Follower(world.url)]
    await followers[0].step()  # everything is counted from the first event on
    began = (await records.read_counted(connection)).counted
    for turn in range(40):
        await clinic.happen(clinic.random.randrange(1, 16))
        follower = clinic.random.choice(followers)
        match clinic.random.randrange(4):
            case 0:
                await follower.step()
            case 1:
                await killed(follower, clinic.random.randrange(400))
            case 2:
                await asyncio.gather(*(x.step() for x in followers))
            case _:
                pass
        if turn % 8 == 0:  # whether or not it lags
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                check = await check_indicators(connection)
            assert check.ok, (seed, check.examples)
        if turn == 20:  # other shards: days go on in another one's journal, before they are counted
            await clinic.happen(60)
            await clinic.serve(1)
            await clinic.happen(40)
            await followers[0].step()
        if turn == 25:
            world.clock.advance(seconds=120)  # the short holds end
        if turn == 30:
            world.clock.advance(seconds=2 * 3600)  # everybody should have come
    counts = await in_step(followers[0], connection)
    assert (await records.read_counted(connection)).counted == began, f"seed {seed}: it had to count anew"
    assert clinic.replies["ok"] > 60, clinic.replies
    assert len({cell.name for cell in counts}) > 5, counts
    checks = {check.name: check for check in await audit_tables(connection)}
    assert checks["indicators as recounted"].examined >= len(counts)
    assert checks["indicators as recounted"].ok
    for follower in followers:
        follower.close()
    for served in clinic.shards:
        await served.stop()


async def test_each_number_counts_once_in_what_it_is_and_once_in_what_was_taken(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    key = doctor(1)
    await world.publish(key, plan(world.clock() + HOUR // 60, 9))
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    served = await Served.open(world)
    numbers = [uid("number", n) for n in range(8)]
    await served.ask(key, *(hold(a, p) for a, p in zip(numbers, PATIENTS, strict=False)))
    pending, booked, arrived, fulfilled, missed, given_back, lapsed, at_the_window = numbers
    await served.ask(key, *(confirm(a) for a in numbers if a not in (pending, lapsed)))
    await served.ask(key, cancel(given_back), cancel(lapsed))
    today = datetime.fromtimestamp(world.clock() / 1000, ZoneInfo(ZONE)).date()
    world.clock.advance(seconds=120)  # it has begun
    await served.ask(
        key,
        *(
            s.RecordAttendance(a, status, "staff:1")
            for a, status in (
                (arrived, s.Status.ARRIVED),
                (fulfilled, s.Status.ARRIVED),
                (fulfilled, s.Status.FULFILLED),
                (missed, s.Status.NOSHOW),
                (at_the_window, s.Status.ARRIVED),
                (at_the_window, s.Status.BOOKED),
            )
        ),
    )
    follower = Follower(world.url)
    counts = await in_step(follower, connection)

    def cell(name: str, day: date) -> Cell:
        return Cell(day, "cardio", key.practitioner_id, 1, name)

    expected = dict.fromkeys(VISIT_NAMES, 1) | {"booked": 2}
    del expected["changed"]
    assert counts == {
        **{cell(name, date.fromisoformat(key.day)): count for name, count in expected.items()},
        cell("taken", today): 8,
        cell("confirmed", today): 6,
    }
    follower.close()
    await served.stop()


async def test_what_was_taken_back_at_once_was_never_confirmed(
    world: PostgresWorld, connection: asyncpg.Connection
) -> None:
    """Histories that need a race: written as the actors write them."""
    key = doctor(1)
    await world.publish(key, plan(world.clock() + HOUR, 9))
    journal, day = await world.journal(0), s.Schedule()
    await journal.take_over()
    late, lost, moved = uid("late"), uid("lost"), uid("moved")

    def held(number: bytes, clock: str, seat: int) -> s.SeatHeld:
        return s.SeatHeld(number, clock, seat, uid("patient", seat), ACCOUNT, world.clock() + HOUR)

    async def write(*events: s.Event, never: bool = False) -> None:
        entries = []
        for event in events:
            entry = enact(day, key, event, world.clock())
            version[0] += 1
            entry.version = version[0]
            if never:  # as GroupCommit leaves what has lost a claim, and what undoes it
                entry.row, entry.change, entry.gains, entry.drops, entry.more = None, None, (), (), None
            entries.append(entry)
        await journal.append(entries, lambda losers: [])

    version = [0]
    follower = Follower(world.url)
    await in_step(follower, connection)
    starts = world.clock() + HOUR
    await write(s.ScheduleOpened(plan(starts, 9)))
    # Confirmed too late: somebody else had the claim, and the caller was told that the hold had ended.
    await write(held(late, "0800", 0), s.SeatBooked(late), s.SeatReleased(late, "expired"))
    # Added by a doctor, lost, tried again under the same id, and given up before it was confirmed.
    await write(held(lost, "0800", 1), s.SeatBooked(lost), s.SeatReleased(lost, "lost_claim"), never=True)
    assert Counter(cell.name for cell in await in_step(follower, connection)) == {"lapsed": 1, "taken": 1}
    await connection.execute(  # what a waiting room says is passed by
        "with next as (update shard set seq = seq + 1 returning id, seq) insert into event"
        " select id, seq, 'room/cardio/2026-11-24', 1, 21, now(), '\\xc0' from next"
    )
    await write(held(lost, "0800", 1))
    await write(s.SeatReleased(lost, "cancelled"))
    # The session is at another time now, and still the same department's.
    await write(s.SessionMoved("morning", (("0800", "0930", starts + HOUR),), None))
    await write(held(moved, "0930", 2), s.SeatBooked(moved))
    await write(s.SeatReleased(moved, "cancelled"))
    await write(s.SeatRestored(moved, s.Status.BOOKED))
    counts = await in_step(follower, connection)
    assert {cell.name: count for cell, count in counts.items()} == {
        "lapsed": 2,
        "booked": 1,
        "taken": 3,
        "confirmed": 1,
    }
    assert {cell.department_id for cell in counts} == {"cardio"}
    assert (await records.read_counted(connection)).counted == 1
    follower.close()


async def test_doubt_is_ended_by_counting_anew(world: PostgresWorld, connection: asyncpg.Connection) -> None:
    key = doctor(1)
    await world.publish(key, plan(world.clock() + HOUR, 9))
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    served = await Served.open(world)
    follower = Follower(world.url)

    async def counted_anew_at(*commands: s.Command) -> int:
        assert not any(isinstance(reply, Refusal) for reply in await served.ask(key, *commands))
        await in_step(follower, connection)
        return (await records.read_counted(connection)).counted

    first, second, third, fourth = (hold(uid("number", n), PATIENTS[n]) for n in range(4))
    began = await counted_anew_at(first)
    assert await counted_anew_at(second) == began, "nothing was doubtful"
    await connection.execute(
        "update indicator_position set seq = seq + 1000"
    )  # another database was restored
    restored = await counted_anew_at(third)
    assert restored > began
    await connection.execute("update indicator set value = 0 where name = 'pending'")
    negative = await counted_anew_at(cancel(uid("number", 0)))
    assert negative > restored
    await connection.execute("update indicator_state set definition = 99")  # of another program
    assert await counted_anew_at(fourth) > negative
    follower.close()
    await served.stop()


async def test_the_audit_finds_a_wrong_count(world: PostgresWorld, connection: asyncpg.Connection) -> None:
    key = doctor(1)
    await world.publish(key, plan(world.clock() + HOUR, 9))
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    served = await Served.open(world)
    follower = Follower(world.url)
    await served.ask(key, hold(uid("number"), PATIENTS[0]))
    await in_step(follower, connection)
    await served.ask(key, confirm(uid("number")))  # it is not counted yet, and that is no fault

    async def failed() -> set[str]:
        return {check.name for check in await audit_tables(connection) if not check.ok}

    assert await failed() == set()
    await connection.execute("update indicator set value = value + 1 where name = 'taken'")
    assert await failed() == {"indicators as recounted"}
    follower.close()
    await served.stop()


async def test_watchers_patch_what_they_have_into_what_is(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "LOOK_SECONDS", 0.01)
    clinic, follower = Clinic(world, 7), Follower(world.url)
    await clinic.open()
    view = Availability(CATALOG, [])
    stream = Stream(view, Pages(view, ZoneInfo(ZONE)), ZoneInfo(ZONE))
    now = datetime(2026, 11, 24, 1, tzinfo=UTC)
    board = IndicatorBoard(await world.pool(), view, stream, ZoneInfo(ZONE), lambda: now)
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(message: bytes) -> None:
        messages.put_nowait(json.loads(message))

    watcher = Connection(take, "en", MANAGER)
    sending = asyncio.create_task(watcher.run(stream.messages))
    running = asyncio.create_task(board.run())
    seen: dict[str, dict[str, Any]] = {}
    patches = 0
    for _ in range(8):
        await clinic.happen(20)
        await follower.step()
        for topic in ("indicators/all", "indicators/cardio"):
            if topic not in seen:
                stream.subscribe(watcher, topic)
        wanted = {
            f"indicators/{name}": json.loads(orjson.dumps(await board.of(board.day, department_id)))
            for name, department_id in (("all", None), ("cardio", "cardio"))
        }
        async with asyncio.timeout(SECONDS_MAX):
            while any(told(seen.get(topic)) != told(whole) for topic, whole in wanted.items()):
                message = await messages.get()
                if "snapshot" in message:
                    topic = message.pop("snapshot")
                    seen[topic] = message
                else:
                    patches += 1
                    topic = message["patch"]
                    seen[topic] = laid(seen[topic], message["changes"]) | {"version": message["version"]}
    assert patches > 4
    assert seen["indicators/all"]["registrations"]["expected"] > 0
    assert set(seen["indicators/cardio"]["departments"]) <= {"cardio"}
    TypeAdapter(IndicatorsAnswer).validate_python(seen["indicators/all"])
    for task in (running, sending):
        task.cancel()
    follower.close()
    for served in clinic.shards:
        await served.stop()


def test_who_may_see_which_department() -> None:
    view = Availability(CATALOG, [])
    stream = Stream(view, Pages(view, ZoneInfo(ZONE)), ZoneInfo(ZONE))
    nowhere: Any = None
    board = IndicatorBoard(nowhere, view, stream, ZoneInfo(ZONE))
    inner = replace(MANAGER, department_id="in")
    assert board.visible(MANAGER, None) is None
    assert board.visible(inner, "cardio") == "cardio", "below theirs"
    for staff, department_id, code in (
        (inner, None, "forbidden"),
        (inner, "derma", "forbidden"),
        (MANAGER, "nowhere", "no_such_department"),
    ):
        with pytest.raises(Problem) as refused:
            board.visible(staff, department_id)
        assert refused.value.code == code
    with pytest.raises(Problem):
        board.rows("all", bytes(16))


def told(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """A version alone is told to nobody."""
    return None if document is None else {**document, "version": 0}


def laid(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = {**old} if isinstance(old, dict) else {}
    for key, value in patch.items():
        found[key] = laid(found.get(key), value)
        if value is None:
            del found[key]
    return found


async def test_who_waits_is_read_from_the_tickets(connection: asyncpg.Connection) -> None:
    now = datetime(2026, 11, 24, 2, tzinfo=UTC)
    day = date(2026, 11, 24)
    rows = [  # status, minutes since arrival, minutes from arrival until seen
        (1, 30, None),
        (2, 10, None),
        (1, 90, 40),  # back from an examination: waits, but not for the first time
        (4, 50, 20),
        (8, 100, 60),
        (9, 5, None),
    ]
    for n, (status, arrived, seen) in enumerate(rows):
        at = now - timedelta(minutes=arrived)
        await connection.execute(
            "insert into ticket (id, department_id, day, patient_id, prefix, number, status, queue_id,"
            " practitioner_id, room_id, stage, stages, visit, priority, emergency, arrived_at, started_at,"
            " done, version) values ($1, 'cardio', $2, $1, 'A', $3, $4, 'q', '', '', 1, 1, 0, '', 0, $5, $6,"
            " '[]', 1)",
            uid("ticket", n).hex(),
            day,
            n + 1,
            status,
            at,
            None if seen is None else at + timedelta(minutes=seen),
        )
    found = await records.queues(connection, day, now)
    assert found == {"cardio": records.Queue(3, 2, 40 * 60, 30 * 60, 1, 3, 120 * 60, walk_ins=5)}
