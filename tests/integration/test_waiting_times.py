"""Waiting times over a shard and PostgreSQL: days are played, learned at night, and the next told by them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.calibration import Score
from engine.domain.ids import RoomKey
from engine.domain.queue_order import Rules
from engine.domain.waiting_terms import NoticeTerms, WaitingTerms
from engine.journal.streams import read_room
from engine.records import notices as notice_records
from engine.records import service_times as records
from engine.records.catalog import load_catalog, load_schedules
from engine.records.expected import keep_way
from engine.records.no_show_models import Nights
from engine.views.availability import Availability
from engine.views.forecasting import Known, tell
from engine.views.foretold import relive
from tests.integration.test_room_stream import NURSE, Gateway, Watcher
from tests.support.clinic import DEPARTMENT, HOUR, MINUTE, ZONE, ClinicDay, found_hospital, midnight
from tests.support.rooms import host_of
from tests.support.stores import LAVISH, Clock, PostgresWorld, Served
from web import keys
from web.queues.copies import Copies
from web.queues.estimates import estimate_of, why_no_estimate
from web.queues.forecasts import CROWD_MS, Forecasts
from web.queues.notices import Noticing, follow_notices, words_of
from web.waiting_time_round import is_over, learn, learn_day

SEED = 4
DAYS = 12
JUDGED = 5
TERMS = WaitingTerms(replace(Rules(), early_minutes=None), notices=NoticeTerms(ahead=(3,), late_minutes=30))
POLICY = replace(LAVISH, waiting={"": TERMS})
FIRST_DAY = date(2026, 9, 7)


class Department:
    """A hospital of one department, day after day."""

    def __init__(self, world: PostgresWorld, served: Served) -> None:
        self.world = world
        self.served = served

    async def day(self, number: int, until: int | None = None) -> ClinicDay:
        """`until`: ms after midnight."""
        day = FIRST_DAY + timedelta(days=number)
        self.world.clock.ms = midnight(day) + 7 * HOUR
        clinic = ClinicDay(self.world, self.served, day, SEED)
        if until is not None:
            clinic.until = midnight(day) + until
        await clinic.publish()
        return await clinic.play()

    async def night(self, number: int) -> list[object]:
        """The one after that day."""
        at = datetime.fromtimestamp((midnight(FIRST_DAY + timedelta(days=number + 1)) + 3 * HOUR) / 1000, UTC)
        pool = await self.world.pool()
        async with pool.acquire() as connection:
            return list(await learn(connection, POLICY, at))

    async def dump(self) -> list[object]:
        """All that was learned, but for when."""
        pool = await self.world.pool()
        return [
            [tuple(row) for row in await pool.fetch(query)]
            for query in (
                "select day, visits, told, data::text from service_time_model order by day",
                "select day, department_id, data::text from waiting_time_calibration order by 1, 2",
                "select * from waiting_time_report order by day, department_id, distance",
            )
        ]

    async def app(self) -> web.Application:
        app = web.Application()
        pool = await self.world.pool()
        async with pool.acquire() as connection:
            catalog = await load_catalog(connection)
            rows = await load_schedules(connection, FIRST_DAY - timedelta(days=1))
        app[keys.POOL], app[keys.ZONE] = pool, ZONE
        app[keys.POLICY] = keys.PolicyInForce(POLICY)
        app[keys.AVAILABILITY] = view = Availability(catalog, rows)
        app[keys.ROOMS] = Copies(pool, app[keys.POLICY], self.world.clock)
        app[keys.FORECASTS] = Forecasts(pool, app[keys.ROOMS], view, Nights(pool), ZONE, self.world.clock)
        return app


@pytest.fixture
async def department(database: str) -> AsyncIterator[Department]:
    world = PostgresWorld(database, Clock(midnight(FIRST_DAY)))
    await found_hospital(world)
    served = await Served.open(world, policy=POLICY)
    yield Department(world, served)
    await served.stop()
    await world.close()


# Nights.


async def test_days_are_learned_and_the_next_ones_are_told_well(department: Department) -> None:
    """Seeded. Each of the last days is told with what the days before it have taught, and its tickets' P90
    holds for nine in ten or so; and what was learned tells better than what is assumed of every hospital."""
    for number in range(DAYS):
        await department.day(number)
        assert len(await department.night(number)) == 1
    pool = await department.world.pool()
    found = await records.report(pool, FIRST_DAY, FIRST_DAY + timedelta(days=DAYS))
    since = FIRST_DAY + timedelta(days=DAYS - JUDGED)
    judged = sum((one.score for one in found if one.day >= since), Score())
    assert judged.n > 300
    assert (
        judged.coverage_p10 is not None
        and judged.coverage_p50 is not None
        and judged.coverage_p90 is not None
    )
    assert judged.coverage_p10 < 0.25 and 0.3 < judged.coverage_p50 < 0.7, judged
    assert 0.8 < judged.coverage_p90 < 0.98, judged
    untaught = Score()
    for number in range(DAYS - JUDGED, DAYS):
        key = RoomKey(DEPARTMENT, (FIRST_DAY + timedelta(days=number)).isoformat())
        async with pool.acquire() as connection:
            events = await read_room(connection, key)
        untaught += sum(relive(events, TERMS.rules, Known()).scores.values(), Score())
    assert untaught.n > 0.9 * judged.n, "the same moments, but for those before a room was open"
    assert judged.pinball_p50 / judged.n < 0.9 * untaught.pinball_p50 / untaught.n
    assert judged.pinball_p90 / judged.n < 0.9 * untaught.pinball_p90 / untaught.n
    [night, *_] = await records.nights(pool)
    assert night.day == FIRST_DAY + timedelta(days=DAYS - 1) and night.visits > 20
    assert len(await records.nights(pool)) == records.DAYS_KEPT


async def test_a_day_is_learned_once_and_missed_days_are_made_up_for(department: Department) -> None:
    """Learned night by night, or all in one night: the same. Learned again: nothing."""
    for number in range(3):
        await department.day(number)
        await department.night(number)
    night_by_night = await department.dump()
    assert len(night_by_night[0]) == 3  # type: ignore[arg-type]
    assert await department.night(2) == []
    pool = await department.world.pool()
    async with pool.acquire() as connection:
        again = await learn_day(connection, POLICY, FIRST_DAY + timedelta(days=1), ZONE, datetime.now(UTC))
    assert again is None
    assert await department.dump() == night_by_night
    await pool.execute("delete from service_time_model")
    await pool.execute("delete from waiting_time_report")
    assert len(await department.night(2)) == 3
    assert await department.dump() == night_by_night


async def test_nobody_sees_today_or_tomorrow(department: Department) -> None:
    """What a day is told by is the same whether or not that day and the next were learned already."""
    pool = await department.world.pool()
    for number in range(2):
        await department.day(number)
        await department.night(number)
    today = FIRST_DAY + timedelta(days=2)
    before = await records.latest(pool, today)
    assert before.day == FIRST_DAY + timedelta(days=1)
    clinic = await department.day(2, until=9 * HOUR)
    told = await forecast_of(department, clinic)
    clinic.until = None
    await clinic.play_on()
    await department.night(2)
    await department.day(3)
    await department.night(3)
    assert await records.latest(pool, today) == before
    assert (await records.latest(pool, today + timedelta(days=5))).day == FIRST_DAY + timedelta(days=3)
    department.world.clock.ms = midnight(today) + 9 * HOUR
    assert await forecast_of(department, clinic, events_until=midnight(today) + 9 * HOUR) == told


async def forecast_of(department: Department, clinic: ClinicDay, events_until: int | None = None) -> object:
    """What a gateway tells that starts now; of the waiting room as it was at a moment."""
    app = await department.app()
    await app[keys.FORECASTS].learn()
    copy = await app[keys.ROOMS].look(clinic.key)
    await app[keys.FORECASTS].ready(copy)
    async with app[keys.POOL].acquire() as connection:
        events = await read_room(connection, clinic.key)
    room = w.replay(event for event in events if events_until is None or event.at <= events_until)
    now = midnight(clinic.day) + 9 * HOUR
    return tell(room, TERMS.rules, now, app[keys.FORECASTS].known(clinic.key))


def test_a_day_is_over_when_its_night_has_come() -> None:
    at = datetime(2026, 9, 8, 1, 59, tzinfo=ZONE)
    assert is_over(at) == date(2026, 9, 7)
    assert is_over(at + timedelta(minutes=1)) == date(2026, 9, 8)


# The day.


async def test_every_ticket_of_today_is_told_its_time_and_of_no_other_day(department: Department) -> None:
    await department.day(0)
    await department.night(0)
    clinic = await department.day(1, until=int(8.6 * HOUR))
    app = await department.app()
    await app[keys.FORECASTS].learn()
    copy = await app[keys.ROOMS].look(clinic.key)
    told = await app[keys.FORECASTS].ready(copy)
    assert told is not None and told.booked, "some are still to come"
    waiting = [t for q in copy.room.queues.values() for t in q.line]
    assert len(waiting) > 3
    for id_ in waiting:
        estimate = estimate_of(app, copy, id_)
        assert estimate is not None
        assert estimate.p10_minutes <= estimate.p50_minutes <= estimate.p90_minutes
        assert estimate.leave_home_at is None, "checked in at a kiosk"
    served = [t for t in copy.room.tickets if t not in waiting]
    assert all(estimate_of(app, copy, id_) is None for id_ in served)
    assert {why_no_estimate(app, copy, id_) for id_ in served} <= {"called", "not_waiting"}
    department.world.clock.ms += 24 * HOUR
    assert estimate_of(app, copy, waiting[0]) is None
    assert why_no_estimate(app, copy, waiting[0]) == "other_day"


async def test_forecasts_are_made_anew_when_something_happens_or_time_goes_on(department: Department) -> None:
    clinic = await department.day(0, until=9 * HOUR)
    app = await department.app()
    forecasts, rooms = app[keys.FORECASTS], app[keys.ROOMS]
    copy = await rooms.look(clinic.key)
    first = await forecasts.ready(copy)
    assert forecasts.of(copy) is first
    department.world.clock.advance(seconds=16)
    second = forecasts.of(copy)
    assert second is not None and first is not None and second.at == first.at + 16_000
    await clinic.walk_in()
    rooms.lost(lambda _: True)
    copy = await rooms.look(clinic.key)
    assert forecasts.of(copy) is second, "not more often than it can be read"
    department.world.clock.advance(seconds=1)
    third = forecasts.of(copy)
    assert third is not second and third is not None and len(third.tickets) > len(second.tickets)
    pool = await department.world.pool()
    coming = next(iter(third.booked))
    await pool.execute("update appointment set status = 5 where id = $1", UUID(bytes=coming))
    department.world.clock.advance(ms=CROWD_MS)
    forecasts.of(copy)
    await forecasts._reading[clinic.key.stream]
    department.world.clock.advance(seconds=16)
    fourth = forecasts.of(copy)
    assert fourth is not None and coming not in fourth.booked, "was given up"


# Notices.


async def rows_of(department: Department) -> dict[tuple[bytes, str, str], notice_records.Notice]:
    pool = await department.world.pool()
    ids = [row["id"] for row in await pool.fetch("select id from notice")]
    found = await notice_records.notices_by_id(pool, ids)
    assert len({(one.subject, one.kind, one.step) for one in found}) == len(found)
    return {(one.subject, one.kind, one.step): one for one in found}


async def test_notices_are_decided_once_whoever_decides(department: Department) -> None:
    clinic = await department.day(0, until=int(8.5 * HOUR))
    first = Noticing(await department.app(), department.world.clock)
    second = Noticing(await department.app(), department.world.clock)
    await first.look()
    told = await rows_of(department)
    kinds = {kind for _, kind, _ in told}
    assert kinds >= {"ahead", "leave_home"}, kinds
    await first.look()
    await second.look()  # another process, which has the lock now
    department.world.clock.advance(seconds=30)
    forgetful = Noticing(await department.app(), department.world.clock)
    await forgetful._find()
    for followed in forgetful._followed.values():
        followed.told.clear()  # decided at the same moment as by another
    await forgetful.look()
    again = await rows_of(department)
    assert {key: one.id for key, one in again.items() if key in told} == {
        k: one.id for k, one in told.items()
    }
    host = host_of(department.served, clinic.key)
    for (subject, kind, step), one in told.items():
        if kind == "ahead":
            assert step == "1/3" and one.data["ahead"] <= 3
            assert one.patient_id == host.state.tickets[subject].patient_id
        else:
            assert subject in clinic.booked


async def test_a_call_brings_three_ahead_within_two_looks(department: Department) -> None:
    clinic = await department.day(0, until=int(9.5 * HOUR))
    app = await department.app()
    noticing = Noticing(app, department.world.clock)
    await noticing.look()
    before = await rows_of(department)
    for _ in range(40):
        if not clinic.agenda:
            break
        clinic.until = clinic.agenda[0][0] + 1
        await clinic.play_on()
        app[keys.ROOMS].lost(lambda _: True)  # as the feed would tell
        department.world.clock.advance(seconds=2)
        await noticing.look()
        after = await rows_of(department)
        new = [one for key, one in after.items() if key not in before and one.kind == "ahead"]
        if new:
            assert new[0].data["ahead"] <= 3
            return
    pytest.fail("nobody came so far")


async def test_who_watches_the_ticket_hears_the_notice(department: Department) -> None:
    """At a gateway that has not decided it: the row's commit tells it."""
    clinic = await department.day(0, until=int(8.5 * HOUR))
    gateway = await Gateway.open(department.world, department.served, TERMS)
    copy = await gateway.copies.look(clinic.key)
    three_ahead = [
        at.ticket_id
        for queue_id in copy.room.queues
        for at in w.positions(copy.room, queue_id, TERMS.rules, department.world.clock())
        if at.ahead <= 3
    ]
    watcher = Watcher(gateway, NURSE)
    for id_ in three_ahead:
        await watcher.watch(f"ticket/{UUID(bytes=id_)}")
    following = asyncio.create_task(follow_notices(gateway.app, department.world.url))
    pool = await department.world.pool()
    async with asyncio.timeout(10):
        while not await pool.fetchval("select count(*) from pg_stat_activity where query ilike 'listen%'"):
            await asyncio.sleep(0)
        await Noticing(await department.app(), department.world.clock).look()
        heard: list[dict[str, Any]] = []
        while len([one for one in heard if "notice" in one]) < len(three_ahead):
            heard += await watcher.heard()
            await asyncio.sleep(0)
    following.cancel()
    told = [one for one in heard if "notice" in one]
    assert {one["topic"] for one in told} == {f"ticket/{UUID(bytes=id_)}" for id_ in three_ahead}
    assert {one["notice"]["kind"] for one in told} == {"ahead"}
    assert all(one["notice"]["text"]["zh"] and one["notice"]["text"]["en"] for one in told)


async def test_words(department: Department) -> None:
    await department.day(0, until=7 * HOUR)
    app = await department.app()
    day = FIRST_DAY
    one = notice_records.Notice(1, b"1" * 16, "ahead", "", b"2" * 16, DEPARTMENT, day, datetime.now(UTC), {})

    def said(kind: str, **data: object) -> str:
        return words_of(app, replace(one, kind=kind, data=data)).en

    eight = midnight(day) + 8 * HOUR
    assert said("ahead", ahead=3, number="A012") == "A012: 3 people are ahead. Please wait near the room."
    assert said("ahead", ahead=0, number="A012") == "A012: you are next."
    late = said("late", late_minutes=30, practitioner_id="D0001")
    assert late.startswith("D0001 is about 30 minutes behind the appointed times.")
    assert said("late", late_minutes=30, practitioner_id="D9").startswith("The practitioner is about 30")
    home = said("leave_home", way_minutes=25, assumed=False, arrive_by=eight)
    assert home == "Time to set out: please be here by 08:00 (with a way of 25 minutes)."
    home = said("leave_home", way_minutes=25, assumed=False, arrive_by=eight, turn_at=eight + 65 * MINUTE)
    assert home == "Time to set out: you will be called at about 09:05 (with a way of 25 minutes)."


async def test_the_account_reads_its_notices_and_nobody_elses(department: Department) -> None:
    await department.day(0, until=int(8.5 * HOUR))
    await Noticing(await department.app(), department.world.clock).look()
    pool = await department.world.pool()
    mine, now = UUID(int=7).bytes, datetime.now(UTC)
    found = await notice_records.notices_for(pool, mine, None, 3, now)
    assert len(found) == 3
    older = await notice_records.notices_for(pool, mine, found[-1].id, 100, now)
    assert older and max(one.id for one in older) < found[-1].id
    assert await notice_records.notices_for(pool, UUID(int=8).bytes, None, 100, now) == []
    await pool.execute("update account_patient set revoked_at = now()")
    assert await notice_records.notices_for(pool, mine, None, 100, now) == []


async def test_who_said_how_far_it_is_leaves_by_that(department: Department) -> None:
    clinic = await department.day(0, until=int(7.4 * HOUR))
    pool = await department.world.pool()
    rows = await pool.fetch(
        "select id from appointment where starts_at = $1 order by number",
        datetime.fromtimestamp((midnight(clinic.day) + 9 * HOUR) / 1000, UTC),
    )
    near, far = rows[0]["id"].bytes, rows[1]["id"].bytes
    await keep_way(pool, near, 5, datetime.now(UTC))
    await keep_way(pool, far, 100, datetime.now(UTC))
    await keep_way(pool, far, 90, datetime.now(UTC))
    await Noticing(await department.app(), department.world.clock).look()
    told = await rows_of(department)
    assert (far, "leave_home", "") in told and (near, "leave_home", "") not in told
    assert told[far, "leave_home", ""].data["way_minutes"] == 90
