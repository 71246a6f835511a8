"""Absences that time marks, through PostgreSQL and a real shard; nights that learn from the table; and the
calling list, calls and what-if of a running server."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from math import log
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import web

from actors.directory import Directory
from benchmarks.check import database_url
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.no_show_night import ASSUMED_SHARE
from engine.domain.policy import ConductRule, Offence, Policy, Subject
from engine.domain.service_times import Sums, Tally
from engine.records import no_show_models, service_times
from engine.records.conduct import review_recent
from engine.views.forecasting import FIRST
from tests.integration.test_api import Hospital, Json
from tests.integration.test_desk_appointments import day_of, patient_of, register, someone
from tests.integration.test_desk_schedules import Colleague
from tests.support.stores import HOUR, Clock, PostgresWorld, Served, cancel, confirm, doctor, hold, plan, uid
from tests.support.system import System, run, started
from web import keys
from web.attendance import LOOK_BACK_DAYS, mark_no_shows
from web.no_show_round import learn, learn_nightly

ZONE = ZoneInfo("Asia/Shanghai")
ONE, TWO, THREE = doctor(1), doctor(2), doctor(3)
PEOPLE = [uid("patient", n) for n in range(8)]
NUMBERS = [uid("number", n) for n in range(8)]
AFTER_MINUTES = 30


class Marking:
    """A hospital four hours ago, when everybody booked; `go_on` is now."""

    def __init__(self, world: PostgresWorld, served: Served, app: web.Application) -> None:
        self.world = world
        self.served = served
        self.app = app

    def policy(self, policy: Policy) -> None:
        self.app[keys.POLICY].policy = policy

    async def round(self) -> None:
        await mark_no_shows(self.app)

    async def statuses(self) -> dict[bytes, int]:
        return {id_: shown.status for id_, shown in (await self.world.appointments()).items()}


@pytest.fixture
async def marking(database: str) -> AsyncIterator[Marking]:
    clock = Clock()
    clock.advance(seconds=-4 * 3600)
    world = PostgresWorld(database, clock)
    await world.publish(ONE, plan(clock() + HOUR, 4, 1))  # three hours ago by now
    await world.publish(TWO, plan(clock() + HOUR, 1, department="derma"))
    await world.publish(THREE, plan(clock() + 4 * HOUR - HOUR // 2, 1, department="eyes"))  # is going on
    await world.register([(uid("account", n), patient) for n, patient in enumerate(PEOPLE)])
    served = await Served.open(world)
    app = web.Application()
    app[keys.POOL] = await world.pool()
    app[keys.POLICY] = keys.PolicyInForce(Policy(no_show_after_minutes=AFTER_MINUTES))

    async def send(shard_id: int, packed: bytes) -> bytes:
        return await served.shard.ask(packed)

    app[keys.DIRECTORY] = Directory(send, 1)
    for n, (key, slot) in enumerate(
        [
            (ONE, "0800"),
            (ONE, "0800"),
            (ONE, "0800"),
            (ONE, "0800"),
            (ONE, "0830"),
            (TWO, "0800"),
            (THREE, "0800"),
        ]
    ):
        account = uid("account", n)
        held = await served.ask(key, hold(NUMBERS[n], PEOPLE[n], slot, account))
        assert isinstance(held[0], s.Answer), held
        await served.ask(key, cancel(NUMBERS[n], account) if n == 4 else confirm(NUMBERS[n], account))
    # The second came, the third was seen, the fifth gave the number back, the sixth's session is called off.
    await served.ask(ONE, s.RecordAttendance(NUMBERS[1], s.Status.ARRIVED, "staff:1"))
    await served.ask(ONE, s.RecordAttendance(NUMBERS[2], s.Status.FULFILLED, "staff:1"))
    await served.ask(TWO, s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill"))
    clock.advance(seconds=4 * 3600)
    yield Marking(world, served, app)
    await app[keys.DIRECTORY].close()
    await served.stop()
    await world.close()


async def test_time_marks_who_did_not_come_and_nobody_else(marking: Marking) -> None:
    before = await marking.statuses()
    await marking.round()
    after = await marking.statuses()
    assert {NUMBERS[n] for n in (0, 3)} == {one for one in after if after[one] == s.Status.NOSHOW}
    changed = {one for one in after if after[one] != before[one]}
    assert changed == {NUMBERS[0], NUMBERS[3]}
    assert after[NUMBERS[1]] == s.Status.ARRIVED and after[NUMBERS[2]] == s.Status.FULFILLED
    assert after[NUMBERS[5]] == s.Status.BOOKED, "its session was called off"
    assert after[NUMBERS[6]] == s.Status.BOOKED, "its time is not over"


async def test_marked_twice_is_marked_once_and_says_who_did_it(marking: Marking) -> None:
    await marking.round()
    told = await marking.world.events(0)
    await marking.round()
    assert await marking.world.events(0) == told
    noted = [event for _, _, _, event in told if isinstance(event, s.AttendanceRecorded)]
    assert [event.by for event in noted if event.status == s.Status.NOSHOW] == [SYSTEM, SYSTEM]


async def test_who_arrives_between_the_look_and_the_mark_has_arrived(marking: Marking) -> None:
    """What the round saw is a moment old; the actor knows better."""
    await marking.served.ask(ONE, s.RecordAttendance(NUMBERS[0], s.Status.ARRIVED, "staff:1"))
    [refused] = await marking.served.ask(ONE, s.RecordAttendance(NUMBERS[0], s.Status.NOSHOW, SYSTEM))
    assert refused.reason == "wrong_state"
    [refused] = await marking.served.ask(TWO, s.RecordAttendance(NUMBERS[5], s.Status.NOSHOW, SYSTEM))
    assert refused.reason == "session_suspended"
    await marking.round()
    assert (await marking.statuses())[NUMBERS[0]] == s.Status.ARRIVED


async def test_who_has_a_ticket_has_arrived(marking: Marking) -> None:
    """The waiting room's errand to the practitioner's day may be late; its ticket is there."""
    pool = await marking.world.pool()
    await pool.execute(
        "insert into ticket (id, department_id, day, patient_id, appointment_id, prefix, number, status,"
        " queue_id, practitioner_id, room_id, stage, stages, visit, priority, emergency, arrived_at, done,"
        " version)"
        " values ($1, 'cardio', current_date, $2, $3, '', 1, 1, '', '', '', 1, 1, 0, '', 0, now(), '[]', 1)",
        UUID(bytes=uid("ticket")),
        UUID(bytes=PEOPLE[0]),
        UUID(bytes=NUMBERS[0]),
    )
    await marking.round()
    found = await marking.statuses()
    assert (found[NUMBERS[0]], found[NUMBERS[3]]) == (s.Status.BOOKED, s.Status.NOSHOW)


async def test_nothing_is_marked_without_the_rule_or_long_after(marking: Marking) -> None:
    before = await marking.statuses()
    marking.policy(Policy())
    await marking.round()
    marking.policy(Policy(no_show_after_minutes=10_000))
    await marking.round()
    marking.policy(Policy(no_show_after_minutes=AFTER_MINUTES))
    pool = await marking.world.pool()
    await pool.execute(
        "update appointment set starts_at = starts_at - make_interval(days => $1)", LOOK_BACK_DAYS
    )
    await marking.round()
    assert await marking.statuses() == before


async def test_an_absence_that_time_marks_counts_as_a_desks_does(marking: Marking) -> None:
    pool = await marking.world.pool()
    rule = ConductRule("once", Offence.NO_SHOW, Subject.PATIENT, 1, 90, 90)
    marking.policy(Policy(no_show_after_minutes=AFTER_MINUTES, conduct=(rule,)))
    await marking.round()
    async with pool.acquire() as connection:
        await review_recent(connection, marking.app[keys.POLICY].policy, datetime.now(UTC))
    blocked = {row["subject"].bytes for row in await pool.fetch("select subject from penalty")}
    assert blocked == {PEOPLE[0], PEOPLE[3]}


# Nights.

DEPARTMENT = "cardio"


async def visited(
    connection: asyncpg.Connection,
    today: date,
    n: int,
    department: str = DEPARTMENT,
    practitioners: Iterable[str] = ("D0001", "D0002"),
) -> None:
    """So many visits of the last 40 days, of n/3 patients: who books long before misses more often."""
    dice = Random(11)
    who = list(practitioners)
    account = uid("old", 0)
    await connection.execute(
        "insert into account values ($1, $2, now()) on conflict do nothing",
        UUID(bytes=account),
        account.hex(),
    )
    patients = [uid("old", n) for n in range(1, n // 3 + 1)]
    await connection.executemany(
        "insert into patient (id, id_type, birth_date, sex, created_at)"
        " values ($1, 'passport', $2, 'male', now()) on conflict do nothing",
        [(UUID(bytes=one), date(1980, 1, 1)) for one in patients],
    )
    rows = []
    for number in range(n):
        day = today - timedelta(dice.randrange(1, 40))
        lead = dice.choice((0, 1, 2, 5, 9, 14, 20, 38))
        starts = datetime.combine(day, time(8 + dice.randrange(4)), ZONE)
        booked = starts - timedelta(lead, hours=1)
        missed = dice.random() < 0.02 + 0.015 * lead
        doctor_id = dice.choice(who)
        status = s.Status.NOSHOW if missed else s.Status.FULFILLED
        rows.append(
            (
                UUID(bytes=uid("visit", number)), f"{doctor_id}-{day:%Y%m%d}", f"old-{number}",
                UUID(bytes=dice.choice(patients)), UUID(bytes=account), int(status), starts, booked,
                department,
            )
        )  # fmt: skip
    await connection.executemany(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        " status, fee_fen, starts_at, created_at, updated_at, department_id)"
        " values ($1, $2, $3, 0, 1, 1, $4, $5, $6, 0, $7, $8, $7, $9)",
        rows,
    )


async def test_a_night_reads_learns_and_keeps(database: str) -> None:
    connection = await asyncpg.connect(database)
    now = datetime.now(UTC)
    nothing = await no_show_models.latest(connection)
    assert nothing.learned_at is None and nothing.night.model is None
    few = await learn(connection, now)
    assert (few.night.rows, few.night.why) == (0, "too_few")
    await visited(connection, now.astimezone(ZONE).date(), 3_000)
    # What ran out unpaid was no booking, what the hospital called off has no outcome.
    await connection.execute(
        "update appointment set status = 5, reason = 'expired' where id = $1", UUID(bytes=uid("visit", 1))
    )
    await connection.execute(
        "update appointment set fate = 'affected' where id = $1", UUID(bytes=uid("visit", 2))
    )
    today = now.astimezone(ZONE).date()
    read = {visit.one.id: visit.one.missed async for visit in no_show_models.visits(connection, ZONE, today)}
    assert len(read) == 2_999 and uid("visit", 1).hex() not in read
    assert read[uid("visit", 2).hex()] is None
    learned = await learn(connection, now)
    assert learned.night.why is None and learned.night.rows == 2_998
    assert learned.night.judged is not None and learned.night.judged.auc > 0.6
    kept = await no_show_models.latest(connection)
    assert kept.id == learned.id and kept.learned_at == now
    assert kept.night.model == learned.night.model
    assert kept.night.judged == learned.night.judged
    share = ("cardio", "D0001", 0, 9)
    assert kept.night.rates.share(*share) == learned.night.rates.share(*share)
    assert kept.night.rates.share(*share).chance != ASSUMED_SHARE
    for _ in range(no_show_models.KEPT):
        last = await no_show_models.keep(connection, few.night, now)
    found = await no_show_models.nights(connection)
    assert [one.id for one in found] == list(range(last, last - no_show_models.KEPT, -1))
    await connection.close()


async def test_the_round_learns_once_a_night_in_a_process_of_its_own(database: str) -> None:
    pool = await asyncpg.create_pool(database, min_size=1, max_size=1)
    async with pool.acquire() as connection:
        await visited(connection, datetime.now(ZONE).date(), 2_500)
    app = web.Application()
    app[keys.POOL], app[keys.ZONE] = pool, ZONE
    await learn_nightly(app, database)
    nights = no_show_models.Nights(pool)
    learned = await nights.latest()
    assert learned.night.rows == 2_500 and learned.night.why is None
    await learn_nightly(app, database)
    assert await nights.latest() is learned, "it has been learned today"
    await pool.close()


# A running server.


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with started("--gateways", "1", "--shards", "1") as system:
        yield system


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


@pytest.fixture(scope="module")
def desk(hospital: Hospital) -> Colleague:
    return Colleague(hospital, "demo-desk")


@pytest.fixture(scope="module")
def learned(system: System) -> str:
    """What `xinglin no-show learn` says of a hospital that has a past."""

    async def past() -> None:
        connection = await asyncpg.connect(database_url(system.home))
        await visited(connection, datetime.now(ZONE).date(), 3_000, "0304", ("D0040", "D0041"))
        await connection.close()

    asyncio.run(past())
    shown = run("no-show", "show", "--home", str(system.home))
    assert shown.returncode == 0 and "nothing was learned yet" in shown.stdout
    done = run("no-show", "learn", "--home", str(system.home))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_learns_and_shows(system: System, learned: str) -> None:
    assert "the model is used" in learned and "AUC 0." in learned
    shown = run("no-show", "show", "--home", str(system.home)).stdout
    for word in ("3000 visits", "told %", "points", "learned at"):
        assert word in shown, word
    nowhere = run("no-show", "show", "--home", str(system.home / "nowhere"))
    assert nowhere.returncode == 1 and "there is no database" in nowhere.stderr


def listed(desk: Colleague, day: str, **query: object) -> Json:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return desk.get(f"calling-list?department=0304&day={day}{more}").good()


def test_whom_to_ring_and_what_came_of_it(
    system: System, hospital: Hospital, desk: Colleague, learned: str
) -> None:
    day = day_of(hospital, "0304")
    numbers = {}
    for n in range(4):
        told = register(desk, day["slots"][n % 2]["id"], someone(name=f"赵{'一二三四'[n]}"))
        numbers[told["patient_id"]] = told["id"]

    async def booked_before(days: dict[str, int]) -> None:
        """When they booked decides how likely they come."""
        connection = await asyncpg.connect(database_url(system.home))
        for patient, ago in days.items():
            await connection.execute(
                "update appointment set created_at = now() - make_interval(days => $2) where patient_id = $1",
                UUID(patient),
                ago,
            )
        await connection.close()

    long_ago, soon, *others = numbers
    asyncio.run(booked_before({long_ago: 25, soon: 0, **dict.fromkeys(others, 3)}))

    first = listed(desk, day["date"])
    mine = [one for one in first["people"] if one["patient_id"] in numbers]
    assert len(mine) == 4
    assert first["learned"]["source"] == "model" and first["learned"]["auc"] > 0.6
    assert [one["gain"] for one in mine] == sorted((one["gain"] for one in mine), reverse=True)
    assert mine[0]["patient_id"] == long_ago
    told = mine[0]["numbers"][0]
    assert told["chance"] > mine[-1]["numbers"][0]["chance"]
    assert told["facts"]["lead_days"] >= 25 and told["facts"]["earlier"] == 0
    assert len(told["reasons"]) == 3 and {"fact", "value", "points"} == set(told["reasons"][0])
    assert mine[0]["phone"] == "13900139000" and mine[0]["patient_name"].startswith("赵")

    # Pages hold everybody once, in one order.
    pages, after = [], ""
    while True:
        page = listed(desk, day["date"], limit=1, **({"after": after} if after else {}))
        pages += page["people"]
        after = page["after"]
        if after is None:
            break
    assert [one["patient_id"] for one in pages] == [one["patient_id"] for one in first["people"]]

    # Roles that do not ring see no telephone.
    office = Colleague(hospital, "demo-office")
    masked = [one for one in listed(office, day["date"])["people"] if one["patient_id"] == long_ago]
    assert masked[0]["phone"] == "139****9000" and masked[0]["patient_name"] == "赵*"
    body = {"outcome": "not_reached"}
    office.post(f"appointments/{numbers[soon]}/calls", body).problem(403, "forbidden")
    doctor_ = Colleague(hospital, "demo-doctor")
    doctor_.get(f"calling-list?department=0304&day={day['date']}").problem(403, "forbidden")

    # What came of it.
    def call(patient: str, outcome: str, key: str | None = None, **more: str) -> Json:
        path = f"appointments/{numbers[patient]}/calls"
        return desk.post(path, {"outcome": outcome, **more}, key).good()

    silent, coming = others
    assert call(silent, "not_reached", "ring-1", note="占线")["status"] == "booked"
    assert call(silent, "not_reached", "ring-1", note="占线")["status"] == "booked"
    desk.post(f"appointments/{numbers[silent]}/calls", {"outcome": "will_come"}, "ring-1").problem(
        422, "key_reused"
    )
    assert call(coming, "will_come") == {
        "appointment_id": numbers[coming], "outcome": "will_come", "status": "booked", "will_come": True,
    }  # fmt: skip
    gone = call(long_ago, "will_not_come", "ring-2", note="改去外地")
    assert gone["status"] == "cancelled"
    assert call(long_ago, "will_not_come", "ring-2", note="改去外地") == gone
    left = [one for one in listed(desk, day["date"])["people"] if one["patient_id"] in numbers]
    assert {one["patient_id"] for one in left} == {soon, silent}
    [tried] = [one["numbers"][0]["calls"] for one in left if one["patient_id"] == silent]
    assert [(one["outcome"], one["note"]) for one in tried] == [("not_reached", "占线")]
    lines = desk.get(f"schedules/{day['id']}/history").good()["lines"]
    assert any(line["what"] == "cancelled" and "电话确认不来" in (line["note"] or "") for line in lines)

    async def looks() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url(system.home))
        found = await connection.fetch(
            "select s.username, l.in_full, l.patient_ids"
            "  from calling_list_look l join staff s on s.id = l.staff_id where l.day = $1 order by l.id",
            date.fromisoformat(day["date"]),
        )
        await connection.close()
        return list(found)

    noted = asyncio.run(looks())
    assert ("demo-office", False) in {(row["username"], row["in_full"]) for row in noted}
    assert UUID(long_ago) in noted[0]["patient_ids"] and noted[0]["in_full"]


def test_one_call_settles_all_of_a_patients_numbers_and_who_has_confirmed_is_left_alone(
    hospital: Hospital, desk: Colleague, learned: str
) -> None:
    """Two departments below one, two times of one day."""
    slots = two_of_a_day(hospital)
    day = slots[0]["start"][:10]
    person = patient_of(hospital)
    for slot in slots:
        held = person.hold(slot["id"]).good(201)
        person.change(held["id"], "confirm").good()

    def mine() -> list[Json]:
        people = desk.get(f"calling-list?department=03&day={day}&limit=200").good()["people"]
        return [one for one in people if one["patient_id"] == person.patient_id]

    [line] = mine()
    assert [one["slot_id"] for one in line["numbers"]] == [slot["id"] for slot in slots]
    chances = [one["chance"] for one in line["numbers"]]
    assert line["gain"] == pytest.approx(0.6 * 0.35 * sum(chances), rel=0.01), "seats are free: no refill"
    person.change(line["numbers"][0]["appointment_id"], "attend").good()
    [line] = mine()
    assert [one["slot_id"] for one in line["numbers"]] == [slots[1]["id"]]
    person.change(line["numbers"][0]["appointment_id"], "attend").good()
    assert mine() == []


def two_of_a_day(hospital: Hospital) -> list[Json]:
    """Free slots of two departments below 03 on one date, an hour apart or more, the earlier one first."""
    rows = hospital.get("/api/v1/schedules?department=03").good()["schedules"]
    by_day: dict[str, dict[str, Json]] = {}
    for row in rows:
        departments = {session["department_id"] for session in row["sessions"]}
        if len(departments) == 1 and row["remaining"] >= 8 and departments <= {"0303", "0304"}:
            by_day.setdefault(row["date"], {}).setdefault(departments.pop(), row)
    for _, pair in sorted(by_day.items(), reverse=True):
        if len(pair) == 2:
            found = [
                [
                    slot
                    for slot in hospital.get(f"/api/v1/schedules/{row['id']}/slots").good()["slots"]
                    if slot["remaining"] > 1
                ]
                for row in pair.values()
            ]
            first, last = found[0][0], found[1][-1]
            if first["start"] < last["start"]:
                return [first, last]
    raise AssertionError("no such day in the demo hospital")


def test_lists_that_cannot_be(desk: Colleague, learned: str) -> None:
    day = (datetime.now(ZONE) + timedelta(days=1)).date().isoformat()
    desk.get(f"calling-list?department=nowhere&day={day}").problem(404, "no_such_department")
    desk.get("calling-list?department=0304&day=2020-01-01").problem(409, "in_the_past")
    desk.get(f"calling-list?department=0304&day={day}&after=x").problem(422, "invalid_query")
    desk.get(f"calling-list?department=0304&day={day}&limit=0").problem(422, "invalid_query")
    nobody = f"appointments/{UUID(bytes=secrets.token_bytes(16))}/calls"
    desk.post(nobody, {"outcome": "will_come"}).problem(404, "no_such_appointment")
    desk.post(nobody, {"outcome": "perhaps"}).problem(422, "invalid_body")


async def worked(system: System, department_id: str, practitioner_id: str, seconds: float) -> None:
    """Yesterday's night has learned of 400 turns of this median."""
    mu = log(seconds)
    sums = Sums(400.0, 400 * mu, 400 * (mu * mu + 0.1))
    seen = Tally({(department_id, practitioner_id, FIRST, 0): sums}, {}, {}, 0.0, 0.0)
    yesterday = datetime.now(ZONE).date() - timedelta(days=1)
    connection = await asyncpg.connect(database_url(system.home))
    await service_times.keep(
        connection, service_times.Learned(yesterday, seen), datetime.now(UTC), 400, 0, {}
    )
    await connection.close()


TEMPLATE = {
    "weekday": 1, "period": "morning", "starts": "08:00", "ends": "10:00", "capacity": 2,
    "number_class_id": "expert", "department_id": "0304",
}  # fmt: skip


def test_a_week_is_tried_out_before_it_is_published(system: System, hospital: Hospital, learned: str) -> None:
    manager = Colleague(hospital, "demo-manager")
    body = {
        "templates": [TEMPLATE],
        "wait_minutes": 30,
        "chance_max": 0.2,
        "extras_max": 3,
        "service": {"minutes": 11, "minutes_sd": 6},
    }
    found = manager.post("practitioners/D0040/templates/what-if", body).good()
    assert found["source"] == "model"
    [session] = found["sessions"]
    curve = session["curve"]
    assert session["seats"] == 8 and [one["added"] for one in curve] == list(range(len(curve)))
    assert session["most"] == max(one["added"] for one in curve if one["keeps"])
    assert all(one["long_wait"] <= 0.2 for one in curve if one["keeps"])
    assert [one["overtime_minutes"] for one in curve] == sorted(one["overtime_minutes"] for one in curve)
    assert [sum(one["by_slot"]) for one in curve] == [one["added"] for one in curve]
    assert [one["start"] for one in session["absences"]] == ["08:00", "08:30", "09:00", "09:30"]
    assert session["absences"][0]["group"] in ("session", "practitioner")
    assert session["service"] == {"minutes": 11.0, "minutes_sd": 6.0, "source": "given", "turns": 0}

    # Longer consultations bear fewer seats; a plan that is too full says so.
    slow = {**body, "service": {"minutes": 25, "minutes_sd": 10}}
    [full] = manager.post("practitioners/D0040/templates/what-if", slow).good()["sessions"]
    assert (full["most"], full["why"], len(full["curve"])) == (0, "too_full", 1)
    huge = {**body, "templates": [{**TEMPLATE, "capacity": 500}]}
    [large] = manager.post("practitioners/D0040/templates/what-if", huge).good()["sessions"]
    assert (large["most"], large["why"], large["curve"]) == (None, "too_large", [])

    del body["service"]
    [assumed] = manager.post("practitioners/D0040/templates/what-if", body).good()["sessions"]
    assert assumed["service"]["source"] == "assumed"
    asyncio.run(worked(system, "0304", "D0040", 420.0))
    [known] = manager.post("practitioners/D0040/templates/what-if", body).good()["sessions"]
    assert (known["service"]["source"], known["service"]["turns"]) == ("learned", 400)
    assert 6 < known["service"]["minutes"] < 9 < assumed["service"]["minutes"]
    assert known["most"] > assumed["most"]
    manager.post("practitioners/nobody/templates/what-if", body).problem(404, "no_such_practitioner")
    wrong = {**body, "templates": [{**TEMPLATE, "department_id": "nowhere"}]}
    manager.post("practitioners/D0040/templates/what-if", wrong).problem(422, "invalid_week")
    stranger = Colleague(hospital, "demo-doctor")
    stranger.post("practitioners/D0040/templates/what-if", body).problem(403, "forbidden")
