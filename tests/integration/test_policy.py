"""The policy in PostgreSQL: stored, published by, brought by an import, and tried on recorded days."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import pytest
from rich.console import Console

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.policy import EVERYBODY, Channel, Policy, Pool, Terms
from engine.domain.refusal import Refusal
from engine.domain.release import release
from engine.journal.codec import EVENT_CODES, pack_event
from engine.records.catalog import load_plan, load_schedules, publish_schedules
from engine.records.hospital_file import HospitalFiles, read_hospital
from engine.records.hospital_import import import_hospital
from engine.records.policies import load_policy, policy_in_force, store_policy
from engine.records.policy_file import PolicyRefused, read_policy
from tests.support.stores import (
    ACCOUNT,
    LAVISH,
    PostgresWorld,
    Served,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)
from tests.support.system import ROOT, run
from web.policy_dry_run import compare, read_days, show

DEMO = ROOT / "web" / "demo" / "hospital"
MONDAY = date(2026, 11, 23)
SHANGHAI = ZoneInfo("Asia/Shanghai")
DAYS = 8
POOLS = """\
departments:
  "0304":
    classes:
      expert:
        pools: [{name: desk, percent: 25, channels: [window]}]
"""


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xinglin-policy-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def files() -> HospitalFiles:
    """The demo hospital's cardiology, without a policy."""
    demo = read_hospital(DEMO)
    practitioners = tuple(p for p in demo.practitioners if p.department_id == "0304")
    ids = {p.id for p in practitioners}
    return replace(
        demo,
        practitioners=practitioners,
        templates=tuple(t for t in demo.templates if t.practitioner_id in ids),
        overrides=tuple(o for o in demo.overrides if o.practitioner_id in ids),
        policy=None,
    )


async def version(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select version from catalog_version"))


async def store(connection: asyncpg.Connection, text: str) -> bool:
    async with connection.transaction():
        return await store_policy(connection, text, "test")


async def divided(connection: asyncpg.Connection) -> set[tuple[str, str]]:
    """(department, class) of the published sessions that have shares."""
    return {
        (session.department_id, session.number_class_id)
        for row in await load_schedules(connection, MONDAY)
        for session in row.plan
        if session.shares
    }


async def test_as_long_as_there_is_none_the_settings_hold(connection: asyncpg.Connection) -> None:
    fallback = Policy(hold_seconds=77, account_holds_max=3)
    assert await policy_in_force(connection) is None
    assert await load_policy(connection, fallback) == fallback


async def test_the_last_one_is_in_force_and_the_same_again_is_nothing_new(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    before = await version(connection)
    assert await store(connection, "wishes_max: 1")
    assert await store(connection, POOLS)
    assert not await store(connection, POOLS)
    assert await version(connection) == before + 2
    record = await policy_in_force(connection)
    assert record is not None
    assert (record.version, record.yaml, record.who) == (2, POOLS, "test")
    policy = await load_policy(connection, Policy(hold_seconds=77))
    assert policy.terms_of("0304", "expert").pools[0].channels == Channel.WINDOW
    assert policy.terms_of("0304", "expert").hold_seconds == 77
    assert policy.wishes_max == Policy().wishes_max, "a policy is whole: nothing is left of the one before"


async def test_whoever_listens_hears_of_it(
    connection: asyncpg.Connection, files: HospitalFiles, database: str
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    await listener.add_listener("catalog", lambda *message: heard.put_nowait(message[3]))
    await store(connection, POOLS)
    assert await asyncio.wait_for(heard.get(), 10) == str(await version(connection))
    await listener.close()


async def test_unknown_ids_are_refused_and_nothing_is_written(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    before = await version(connection)
    with pytest.raises(PolicyRefused) as refused:
        await store(connection, 'departments:\n  "03": {}\n  "0999": {}\nclasses:\n  gold: {}')
    assert [(e.line, e.reason.partition(":")[0]) for e in refused.value.errors] == [
        (2, "departments.03"),
        (3, "departments.0999"),
        (5, "classes.gold"),
    ]
    assert await policy_in_force(connection) is None
    assert await version(connection) == before


async def test_published_days_follow_the_policy_and_opened_ones_do_not(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    assert await divided(connection) == set()
    rows = await load_schedules(connection, MONDAY)
    cardiology = [
        row
        for row in rows
        if any((x.department_id, x.number_class_id) == ("0304", "expert") for x in row.plan)
    ]
    booked, free, *_ = cardiology
    await connection.execute("update schedule set opened = true where id = $1", booked.id)

    await store(connection, POOLS)
    assert await publish_schedules(connection, MONDAY, DAYS) == len(cardiology) - 1
    assert await load_plan(connection, booked.id) == booked.plan, "what is opened is its actor's"
    published = await load_plan(connection, free.id)
    assert published is not None
    (session, *_) = (x for x in published if x.shares)
    assert [(share.pool, share.stages[0].channels) for share in session.shares] == [
        ("desk", Channel.WINDOW),
        ("", EVERYBODY),
    ]
    seats = sum(slot.capacity for slot in session.slots)
    kept = sum(n for slot in session.slots for share, n in slot.runs if share == 0)
    assert abs(kept - seats / 4) < 1
    (row,) = (row for row in await load_schedules(connection, MONDAY) if row.id == free.id)
    assert row.plan == published, "what gateways read is what actors open with"
    assert await publish_schedules(connection, MONDAY, DAYS) == 0

    await store(connection, "defaults: {}")
    assert await publish_schedules(connection, MONDAY, DAYS) == len(cardiology) - 1
    assert await divided(connection) == set()


async def test_openings_are_moments_of_each_day(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    await store(connection, 'defaults: {openings: [{percent: 100, days_before: 7, at: "07:30"}]}')
    await publish_schedules(connection, MONDAY, DAYS)
    for row in await load_schedules(connection, MONDAY):
        opens = datetime(row.day.year, row.day.month, row.day.day, tzinfo=UTC) - timedelta(days=7, minutes=30)
        for session in row.plan:
            (share,) = session.shares
            (stage,) = share.stages
            assert stage.at == int(opens.timestamp()) * 1000  # 07:30 in Shanghai


async def test_an_import_brings_the_policy_of_its_folder(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    report = await import_hospital(connection, replace(files, policy=POOLS), MONDAY, DAYS)
    assert report.tables["policy"].added == 1
    assert await divided(connection) == {("0304", "expert")}
    again = await import_hospital(connection, replace(files, policy=POOLS), MONDAY, DAYS)
    assert again.changes == 0
    without = await import_hospital(connection, files, MONDAY, DAYS)
    assert without.changes == 0, "a hospital without policy.yaml keeps what is in force"
    assert await divided(connection) == {("0304", "expert")}
    other = await import_hospital(connection, replace(files, policy="defaults: {}"), MONDAY, DAYS)
    assert other.tables["policy"].changed == 1
    assert await divided(connection) == set()


async def test_the_demo_is_open_but_for_one_department_s_class(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, read_hospital(DEMO), MONDAY, DAYS)
    assert await divided(connection) == {("0304", "special")}


# Recorded days.

NOON = int(datetime(2026, 11, 24, 4, tzinfo=UTC).timestamp() * 1000)  # 12:00 in Shanghai
HOUR = 3_600_000
KEY = ScheduleKey("D0034", "2026-11-24")
WHO, PATIENT = UUID(int=1), UUID(int=2)


async def record(connection: asyncpg.Connection, *happened: tuple[int, s.Event]) -> None:
    """An actor's journal, by hours before 08:00 of the visit's day."""
    await connection.execute("insert into shard (id) values (0) on conflict do nothing")
    await connection.executemany(
        "insert into event (shard, seq, stream, version, type, at, data)"
        " values (0, $1::int, $2, $1::int, $3, to_timestamp($4::float8 / 1000), $5)",
        [
            (
                n,
                KEY.stream,
                EVENT_CODES[type(event)],
                NOON - (4 + hours) * HOUR,
                pack_event(event),
            )
            for n, (hours, event) in enumerate(happened, start=1)
        ],
    )


async def record_a_day(connection: asyncpg.Connection) -> None:
    """Cardiology's special session: one number booked and missed, one cancelled late, one held in vain."""
    slots = (PlannedSlot("0800", NOON - 4 * HOUR, 4),)
    session = Session("morning", "0304", "special", None, 30000, slots)

    def held(number: int, hours: int) -> s.SeatHeld:
        until = NOON - (4 + hours) * HOUR + HOUR // 4
        return s.SeatHeld(UUID(int=number).bytes, "0800", number - 11, PATIENT.bytes, WHO.bytes, until)

    another = UUID(int=3).bytes
    third = UUID(int=4).bytes
    await record(
        connection,
        (200, s.ScheduleOpened((session,))),
        (200, held(11, 200)),
        (200, s.SeatBooked(UUID(int=11).bytes)),
        (100, replace(held(12, 100), patient_id=another)),
        (100, s.SeatBooked(UUID(int=12).bytes)),
        (1, s.SeatReleased(UUID(int=12).bytes, "cancelled")),
        (50, replace(held(13, 50), patient_id=third)),
        (49, s.SeatReleased(UUID(int=13).bytes, "expired")),
    )
    await connection.execute(
        "insert into schedule (id, practitioner_id, day, plan, opened) values ($1, $2, $3, $4, true)"
        " on conflict (id) do update set plan = excluded.plan, opened = true",
        KEY.schedule_id,
        KEY.practitioner_id,
        date.fromisoformat(KEY.day),
        orjson.dumps(plan_as_data((session,))).decode(),
    )
    await connection.execute(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        " status, fee_fen, starts_at, created_at, updated_at)"
        " values ($1, $2, $3, 0, 4, 1, $4, $5, 6, 30000, to_timestamp($6::float8 / 1000), now(), now())",
        UUID(int=11),
        KEY.schedule_id,
        KEY.slot_id("0800"),
        PATIENT,
        WHO,
        NOON - 4 * HOUR,
    )


STRICT = """\
late_cancel: 2h
conduct:
  - {name: one_no_show, offence: no_show, subject: patient, count: 1, window: 1d, block: 7d}
  - {name: one_dropped, offence: dropped_hold, subject: account, count: 1, window: 1d, block: 7d}
  - {name: one_late, offence: late_cancel, subject: patient, count: 1, window: 1d, block: 7d}
defaults:
  cancel_closes: 30m
classes:
  special:
    openings: [{percent: 100, days_before: 7, at: "07:30"}]
    pools: [{name: desk, percent: 25, channels: [window]}]
"""


async def test_a_dry_run_tells_what_would_differ_and_changes_nothing(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    await record_a_day(connection)
    days = await read_days(connection, MONDAY, MONDAY + timedelta(1))
    assert len(days.events) == 9, "eight events and the no-show of the table"
    found = compare(days, Policy(), read_policy(STRICT, Policy()))
    assert found.before.refused == []
    assert [(r.what, r.rule, r.slot_id) for r in found.after.refused] == [
        ("book", "not_released", KEY.slot_id("0800"))  # eight days before
    ]
    assert {(b.verdict.rule.name, b.id) for b in found.after.blocked} == {
        ("one_late", UUID(int=3).bytes),
        ("one_dropped", WHO.bytes),
    }, "the no-show is of a booking that would not have been"
    shares = {key[2]: n for key, n in found.shares_after.items() if key[:2] == ("0304", "special")}
    assert shares["desk"] >= 1
    assert not found.shares_before
    told = StringIO()
    show(found, Console(width=220, file=told))
    text = told.getvalue()
    assert "not_released" in text
    assert "one_dropped" in text
    assert "7d before at 07:30: window" in text


async def test_what_a_shard_wrote_down_can_be_rehearsed(
    connection: asyncpg.Connection, database: str
) -> None:
    """Under its own policy everything would be as it was; under another who came first is not who gets it."""
    world = PostgresWorld(database)
    key = doctor(1, datetime.fromtimestamp(world.clock() / 1000 + 86_400, SHANGHAI).date().isoformat())
    day = date.fromisoformat(key.day)
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=SHANGHAI).timestamp() * 1000)
    terms = Terms(pools=(Pool("desk", 50, Channel.WINDOW),))
    policy = replace(LAVISH, terms={("", ""): terms})
    (session,) = plan(noon, 2, 2, clock=12 * 60)
    await world.publish(key, (release(session, terms, day, SHANGHAI),))
    people = [uid("patient", n) for n in range(4)]
    await world.register([(ACCOUNT, person) for person in people])
    served = await Served.open(world, policy=policy)
    ids = [uid("booking", n) for n in range(4)]
    one, two, three, four = (hold(id_, who, "1200") for id_, who in zip(ids, people, strict=True))
    first, second, third = await served.ask(key, one, two, replace(three, channel=int(Channel.WINDOW)))
    assert isinstance(first, s.Answer)
    assert isinstance(second, Refusal), "the other one is the desk's"
    assert isinstance(third, s.Answer)
    await served.ask(key, confirm(ids[0]))
    await served.ask(key, cancel(ids[0]))
    (again,) = await served.ask(key, replace(four, clock="1200"))
    assert isinstance(again, s.Answer)
    await served.stop()
    await world.close()

    days = await read_days(connection, day, day)
    open_to_all = replace(LAVISH, terms={("", ""): Terms(cancel_minutes=30 * 24 * 60)})
    found = compare(days, policy, open_to_all)
    assert found.before.refused == []
    assert dict(found.before.asked) == {"book": 3, "confirm": 1, "cancel": 1}
    assert [(r.what, r.rule, r.appointment_id) for r in found.after.refused] == [
        ("cancel", "cancel_too_late", ids[0]),
        ("book", "slot_full", ids[3]),
    ]
    assert {n for key, n in found.shares_before.items() if key[2] == "desk"} == {2}
    assert not found.shares_after


async def test_days_without_anything_recorded(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    found = compare(await read_days(connection, MONDAY, MONDAY), Policy(), Policy(terms={("", ""): Terms()}))
    assert found.before == found.after
    assert found.shares_after == found.shares_before


# The command line.


async def test_check_apply_show_and_dry_run(
    connection: asyncpg.Connection, files: HospitalFiles, database: str, folder: Path
) -> None:
    today = datetime.now(files.hospital.zone).date()
    await import_hospital(connection, files, today, DAYS)
    file = folder / "mine.yaml"
    at = ("--database-url", database)

    file.write_text('departments:\n  "0999": {hold: 15}\n')
    done = run("policy", "check", str(file), *at)
    assert done.returncode == 1
    first, second, last = done.stderr.splitlines()
    assert first.startswith(f"{file}:2:3: departments.0999: the hospital has no such department")
    assert second.startswith(
        f"{file}:2:18: departments.0999.hold: is '15': write a whole number and its unit"
    )
    assert last == "xinglin: 2 errors"
    assert run("policy", "apply", str(file), *at).returncode == 1

    shown = run("policy", "show", *at)
    assert (shown.returncode, shown.stdout) == (0, "")

    file.write_text(POOLS)
    assert run("policy", "check", str(file), *at).returncode == 0
    done = run("policy", "apply", str(file), "--who", "院办", *at)
    assert done.returncode == 0, done.stderr
    assert "is in force: " in done.stdout
    assert ("0304", "expert") in {
        (x.department_id, x.number_class_id)
        for row in await load_schedules(connection, today)
        for x in row.plan
        if x.shares
    }
    assert "in force already" in run("policy", "apply", str(file), *at).stdout
    shown = run("policy", "show", *at)
    assert shown.stdout == POOLS
    assert "院办" in shown.stderr

    await connection.execute("delete from schedule where id = $1", KEY.schedule_id)
    await record_a_day(connection)
    file.write_text(STRICT)
    before = await version(connection)
    done = run("policy", "dry-run", str(file), "--from", "2026-11-24", "--to", "2026-11-24", *at)
    assert done.returncode == 0, done.stderr
    assert "not_released" in done.stdout
    assert await version(connection) == before
    assert run("policy", "show", *at).stdout == POOLS


def test_without_a_database_ids_are_not_checked(folder: Path) -> None:
    file = folder / "policy.yaml"
    file.write_text(POOLS)
    done = run("policy", "check", str(file), "--home", str(folder / "home"))
    assert done.returncode == 0, done.stderr
    assert "ids were not checked" in done.stdout
    assert not (folder / "home").exists()
    done = run("policy", "dry-run", str(file), "--from", "2026-11-24", "--to", "2026-11-23")
    assert done.returncode == 1
    assert "is before" in done.stderr
    assert run("policy", "check", str(folder / "none.yaml")).returncode == 1
