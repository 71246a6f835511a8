"""Import and publication against a real PostgreSQL: whole or not at all, twice is once, booked days stay."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date, timedelta
from datetime import time as clock
from importlib import resources
from pathlib import Path

import asyncpg
import pytest

from engine.domain.calendar import SessionOverride, SessionTemplate
from engine.domain.planning import Plan
from engine.records.catalog import (
    NOT_IMPORTED,
    Campus,
    load_catalog,
    load_plan,
    load_schedules,
    publish_schedules,
)
from engine.records.hospital_file import HospitalFiles, read_hospital
from engine.records.hospital_import import import_hospital
from engine.records.hospital_rules import ImportRefused

DEMO = Path(__file__).parents[2] / "web" / "demo" / "hospital"
MONDAY = date(2026, 11, 23)
DAYS = 14


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def files() -> HospitalFiles:
    return read_hospital(DEMO)


async def version(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select version from catalog_version"))


async def open_schedule(connection: asyncpg.Connection, schedule_id: str) -> Plan:
    """As an actor's first flush does it."""
    await connection.execute("update schedule set opened = true where id = $1", schedule_id)
    plan = await load_plan(connection, schedule_id)
    assert plan is not None
    return plan


def with_templates(
    files: HospitalFiles, change: Callable[[SessionTemplate], SessionTemplate | None]
) -> HospitalFiles:
    changed = [change(template) for template in files.templates]
    return replace(files, templates=tuple(t for t in changed if t is not None), overrides=())


def without_practitioner(files: HospitalFiles, id_: str) -> HospitalFiles:
    kept = tuple(p for p in files.practitioners if p.id != id_)
    return replace(
        with_templates(files, lambda t: None if t.practitioner_id == id_ else t), practitioners=kept
    )


async def test_the_demo_hospital_is_imported_and_a_second_run_changes_nothing(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    assert (await load_catalog(connection)).hospital == NOT_IMPORTED
    before = await version(connection)
    report = await import_hospital(connection, files, MONDAY, DAYS)
    assert report.tables["practitioner"].added == len(files.practitioners)
    assert report.tables["hospital"].added == 1
    assert report.schedules > 1000
    assert report.kept == 0
    assert await version(connection) == before + 1

    catalog = await load_catalog(connection)
    assert catalog.hospital == files.hospital
    assert tuple(catalog.departments.values()) == files.departments
    assert tuple(catalog.practitioners.values()) == files.practitioners
    assert tuple(catalog.campuses.values()) == files.campuses
    assert set(catalog.rooms.values()) == set(files.rooms)
    assert set(catalog.number_classes.values()) == set(files.number_classes)
    assert catalog.version == before + 1

    again = await import_hospital(connection, files, MONDAY, DAYS)
    assert again.changes == 0
    assert await version(connection) == before + 1


async def test_a_department_is_where_its_campus_is(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    catalog = await load_catalog(connection)
    here, there = (campus.place for campus in files.campuses)
    assert (catalog.place_of("0304"), catalog.place_of("0704")) == (here, there)
    assert catalog.place_of("none") is None

    first, second = files.campuses
    moved = replace(files, campuses=(first, Campus(second.name, position=second.position)))
    report = await import_hospital(connection, moved, MONDAY, DAYS)
    assert (report.tables["campus"].changed, report.changes) == (1, 1)
    catalog = await load_catalog(connection)
    assert (catalog.place_of("0304"), catalog.place_of("0704")) == (here, None)

    renamed = replace(files, campuses=(replace(first, name="新院"), second))
    report = await import_hospital(connection, renamed, MONDAY, DAYS)
    assert (report.tables["campus"].added, report.tables["campus"].removed) == (1, 1)
    assert (await load_catalog(connection)).place_of("0304") is None, "its department names another one"


async def test_a_hospital_of_before_has_its_campuses_by_name(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    migration = resources.files("engine") / "migrations" / "0012_campus_place.sql"
    await connection.execute("drop table campus; " + migration.read_text(encoding="utf-8"))
    catalog = await load_catalog(connection)
    assert list(catalog.campuses) == [campus.name for campus in files.campuses]
    assert catalog.place_of("0304") is None
    report = await import_hospital(connection, files, MONDAY, DAYS)
    assert report.tables["campus"].changed == len(files.campuses)
    assert tuple((await load_catalog(connection)).campuses.values()) == files.campuses


async def test_what_is_published_is_what_the_templates_say(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    rows = await load_schedules(connection, MONDAY)
    assert rows == sorted(rows, key=lambda row: (row.day, row.practitioner_id))
    assert {row.day for row in rows} == {MONDAY + timedelta(n) for n in range(DAYS)}
    for row in rows[:50]:
        assert await load_plan(connection, row.id) == row.plan
    only = await load_schedules(connection, MONDAY, MONDAY)
    assert {row.day for row in only} == {MONDAY}
    first = only[0].plan[0].slots[0]
    expected = {"0800": 0, "1400": 6, "1800": 10}[first.clock]  # Shanghai is eight hours ahead
    assert first.starts_at == only[0].midnight_utc + expected * 3_600_000
    assert await load_plan(connection, "D0001-19990101") is None


async def test_whoever_listens_hears_of_a_change_and_of_nothing_else(
    connection: asyncpg.Connection, files: HospitalFiles, database: str
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    await listener.add_listener("catalog", lambda *message: heard.put_nowait(message[3]))
    await import_hospital(connection, files, MONDAY, DAYS)
    await import_hospital(connection, files, MONDAY, DAYS)
    assert await publish_schedules(connection, MONDAY, DAYS) == 0
    assert await publish_schedules(connection, MONDAY + timedelta(1), DAYS) > 100
    assert [await asyncio.wait_for(heard.get(), 10) for _ in range(2)] == ["2", "3"]
    await listener.fetchval("select 1")
    assert heard.empty()
    await listener.close()


async def test_a_booked_day_keeps_its_plan(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    rows = await load_schedules(connection, MONDAY)
    booked, free, *_ = (row for row in rows if row.practitioner_id == rows[0].practitioner_id)
    plan = await open_schedule(connection, booked.id)
    fewer = with_templates(files, lambda t: replace(t, capacity=1))
    report = await import_hospital(connection, fewer, MONDAY, DAYS)
    assert report.kept == 1
    assert report.tables["session_template"].changed == len(files.templates)
    assert await load_plan(connection, booked.id) == plan
    changed = await load_plan(connection, free.id)
    assert changed is not None
    assert {slot.capacity for session in changed for slot in session.slots} == {1}


async def test_a_clinic_that_is_gone_is_taken_away_unless_booked(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    id_ = (await load_schedules(connection, MONDAY))[0].practitioner_id
    booked, free, *_ = (r for r in await load_schedules(connection, MONDAY) if r.practitioner_id == id_)
    await open_schedule(connection, booked.id)
    without = with_templates(files, lambda t: None if t.practitioner_id == id_ else t)
    report = await import_hospital(connection, without, MONDAY, DAYS)
    assert report.kept == 1
    assert await load_plan(connection, booked.id) is not None
    assert await load_plan(connection, free.id) is None


async def test_days_beyond_a_shorter_horizon_follow_too(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    await import_hospital(connection, with_templates(files, lambda t: replace(t, capacity=1)), MONDAY, 1)
    rows = await load_schedules(connection, MONDAY)
    assert rows[-1].day == MONDAY + timedelta(DAYS - 1)
    assert {slot[2] for row in rows for session in row.sessions for slot in session.slots} == {1}


async def test_past_days_are_left_alone(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    before = await load_schedules(connection, MONDAY, MONDAY)
    fewer = with_templates(files, lambda t: replace(t, capacity=1))
    await import_hospital(connection, fewer, MONDAY + timedelta(1), DAYS)
    assert await load_schedules(connection, MONDAY, MONDAY) == before


async def test_an_override_and_its_end(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    plain = replace(files, overrides=())
    await import_hospital(connection, plain, MONDAY, DAYS)
    row = (await load_schedules(connection, MONDAY))[0]
    period = row.sessions[0].period
    late = SessionOverride(row.practitioner_id, row.day, period, False, clock(11), None, None)
    if period != "morning":
        late = replace(late, starts=clock(15))
    report = await import_hospital(connection, replace(plain, overrides=(late,)), MONDAY, DAYS)
    assert (report.schedules, report.tables["session_override"].added, report.changes) == (1, 1, 2)
    report = await import_hospital(connection, plain, MONDAY, DAYS)
    assert (report.schedules, report.tables["session_override"].removed, report.changes) == (1, 1, 2)
    assert await load_plan(connection, row.id) == row.plan


async def test_who_is_gone_is_removed_with_everything_unbooked(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    # From a day on which some of the practitioner's days are past, and were never opened.
    later = MONDAY + timedelta(DAYS)
    report = await import_hospital(connection, without_practitioner(files, "D0001"), later, DAYS)
    assert report.tables["practitioner"].removed == 1
    assert "D0001" not in (await load_catalog(connection)).practitioners
    assert not await connection.fetchval("select count(*) from schedule where practitioner_id = 'D0001'")


async def test_who_is_booked_cannot_go(connection: asyncpg.Connection, files: HospitalFiles) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    row = (await load_schedules(connection, MONDAY))[0]
    plan = await open_schedule(connection, row.id)
    id_, room_id = row.practitioner_id, plan[0].room_id
    before = await version(connection)
    gone = without_practitioner(files, id_)
    gone = with_templates(gone, lambda t: replace(t, room_id=None if t.room_id == room_id else t.room_id))
    gone = replace(gone, rooms=tuple(r for r in files.rooms if r.id != room_id))
    with pytest.raises(ImportRefused) as refused:
        await import_hospital(connection, gone, MONDAY, DAYS)
    practitioner, room = refused.value.errors
    assert (practitioner.file, room.file) == ("practitioners.csv", "rooms.csv")
    assert id_ in practitioner.reason
    assert row.id in practitioner.reason
    assert str(room_id) in room.reason
    assert await version(connection) == before
    assert id_ in (await load_catalog(connection)).practitioners
    assert (await import_hospital(connection, files, MONDAY, DAYS)).changes == 0


async def test_what_another_table_needs_cannot_go(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    await import_hospital(connection, files, MONDAY, DAYS)
    await connection.execute("create table visit (practitioner_id text references practitioner (id))")
    await connection.execute("insert into visit values ('D0001')")
    with pytest.raises(ImportRefused) as refused:
        await import_hospital(connection, without_practitioner(files, "D0001"), MONDAY, DAYS)
    (error,) = refused.value.errors
    assert error.file == "practitioners.csv"
    assert "D0001" in error.reason
    assert "visit" in error.reason


async def test_two_imports_at_once_are_one_after_the_other(
    connection: asyncpg.Connection, files: HospitalFiles, database: str
) -> None:
    other = await asyncpg.connect(database)
    reports = await asyncio.gather(
        import_hospital(connection, files, MONDAY, DAYS), import_hospital(other, files, MONDAY, DAYS)
    )
    assert sorted(report.changes > 0 for report in reports) == [False, True]
    await other.close()


async def test_an_import_does_not_stop_a_booked_day(
    connection: asyncpg.Connection, files: HospitalFiles, database: str
) -> None:
    """While an import is under way, the days it does not change can be opened by their actors."""
    await import_hospital(connection, files, MONDAY, DAYS)
    row = (await load_schedules(connection, MONDAY))[0]
    other = await asyncpg.connect(database)
    transaction = connection.transaction()
    await transaction.start()
    await import_hospital(connection, files, MONDAY, DAYS)
    await asyncio.wait_for(open_schedule(other, row.id), 5)
    await transaction.rollback()
    await other.close()


async def test_1500_doctors_take_seconds_and_little_memory(
    connection: asyncpg.Connection, files: HospitalFiles
) -> None:
    crowd = replace(
        files,
        practitioners=tuple(replace(p, id=f"{p.id}.{n}") for n in range(5) for p in files.practitioners),
        templates=tuple(
            replace(t, practitioner_id=f"{t.practitioner_id}.{n}") for n in range(5) for t in files.templates
        ),
        overrides=(),
    )
    # The same sessions on every day of the week: 14 schedules a doctor, the most there can be.
    first = {t.practitioner_id: t for t in crowd.templates}
    week = tuple(
        replace(t, weekday=weekday, period="morning", starts=clock(8), ends=clock(12))
        for t in list(first.values())[:1500]
        for weekday in range(1, 8)
    )
    started = time.perf_counter()
    report = await import_hospital(connection, replace(crowd, templates=week), MONDAY, DAYS)
    assert time.perf_counter() - started < 30  # a few seconds; the bound leaves room for a busy machine
    assert report.schedules == 1500 * DAYS
    tracemalloc.start()
    rows = await load_schedules(connection, MONDAY)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 21_000
    assert held < 4_000_000
