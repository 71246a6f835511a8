"""From what a desk asks for to commands: hours on the wall, also where daylight saving leaves some out."""

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import Channel, Policy, Pool, Terms
from engine.records.catalog import (
    Catalog,
    Department,
    Hospital,
    NumberClass,
    Practitioner,
    Room,
    ScheduleRow,
    schedule_row,
)
from engine.records.policy_file import PolicyRefused, read_policy
from engine.views.availability import Availability
from web import keys
from web.desk import schedule_bodies as bodies
from web.desk.commands import commands_of
from web.desk.day import Day
from web.errors import Problem
from web.keys import PolicyInForce

ZONE = ZoneInfo("America/New_York")
SPRING = date(2027, 3, 14)  # 02:00 is left out
PLAIN = date(2027, 3, 15)
COMMAND = bytes(16)
PEOPLE = {
    id: Practitioner(id, id, title, department, "", "", 0)
    for id, title, department in (
        ("D1", "associate_chief", "0304"),
        ("D2", "chief", "0304"),
        ("D3", "chief", "0301"),
        ("D4", "chief", "0501"),
        ("D5", "attending", "0304"),
    )
}
CATALOG = Catalog(
    1,
    Hospital("h", "h", ZONE.key),
    {
        id: Department(id, parent, id, id, "", "", "", None, None, None, 0)
        for id, parent in (("03", None), ("0304", "03"), ("0301", "03"), ("05", None), ("0501", "05"))
    },
    PEOPLE,
    {id: Room(id, id, "0304") for id in ("R1", "R2")},
    {"expert": NumberClass("expert", "专家", 1000)},
)


def ms(day: date, clock: str) -> int:
    local = datetime(day.year, day.month, day.day, int(clock[:2]), int(clock[2:]), tzinfo=ZONE)
    return int(local.timestamp() * 1000)


def session(day: date, *clocks: str, period: str = "morning", **more: Any) -> Session:
    slots = tuple(PlannedSlot(clock, ms(day, clock), 2) for clock in clocks)
    return Session(period, "0304", "expert", more.pop("room_id", "R1"), 1000, slots, **more)


def day_of(day: date, *sessions: Session) -> Day:
    state = s.Schedule()
    if sessions:
        s.apply(state, s.ScheduleOpened(sessions))
    return Day(ScheduleKey("D1", day.isoformat()), PEOPLE["D1"], state, [])


def app_of(*rows: ScheduleRow, policy: Policy | None = None) -> web.Application:
    app = web.Application()
    app[keys.AVAILABILITY] = Availability(CATALOG, rows)
    app[keys.ZONE] = ZONE
    app[keys.POLICY] = PolicyInForce(policy or Policy())
    return app


async def asked(day: Day, body: Any, app: web.Application | None = None) -> s.Structural:
    (found,) = await commands_of(app or app_of(), day, body, COMMAND, "staff:x")
    return found


async def refused(day: Day, body: Any, app: web.Application | None = None) -> tuple[str, dict[str, object]]:
    with pytest.raises(Problem) as caught:
        await commands_of(app or app_of(), day, body, COMMAND, "staff:x")
    return caught.value.code.value, caught.value.members


def move(starts: str | None = None, **more: Any) -> bodies.MoveBody:
    return bodies.MoveBody(revision=0, period="morning", starts=starts, **more)


async def test_a_move_is_on_the_clock_on_the_wall_and_keeps_gaps() -> None:
    found = await asked(day_of(PLAIN, session(PLAIN, "0800", "0830", "1000")), move("09:30"))
    assert isinstance(found, s.MoveSession)
    assert found.moves == tuple(
        (old, new, ms(PLAIN, new)) for old, new in (("0800", "0930"), ("0830", "1000"), ("1000", "1130"))
    )
    assert found.room_id == "R1"


async def test_what_daylight_saving_leaves_out_is_no_hour_to_move_to() -> None:
    early = day_of(SPRING, session(SPRING, "0030", "0100"))
    assert (await refused(early, move("01:30")))[0] == "invalid_times"  # the second would begin at 02:00
    found = await asked(early, move("03:00"))
    assert isinstance(found, s.MoveSession)
    # Three hours and a half on the wall, of which one does not exist.
    assert found.moves[0] == ("0030", "0300", ms(SPRING, "0030") + int(1.5 * 3_600_000))
    await asked(day_of(PLAIN, session(PLAIN, "0030", "0100")), move("01:30"))  # on any other day


async def test_a_move_past_the_end_of_the_day_or_to_where_it_is_is_none() -> None:
    day = day_of(PLAIN, session(PLAIN, "0800", "0830"))
    assert (await refused(day, move("23:00")))[0] == "invalid_times"
    assert (await refused(day, move("08:00")))[0] == "nothing_to_change"
    assert (await refused(day, move(room_id="R1")))[0] == "nothing_to_change"
    found = await asked(day, move(room_id="R2"))
    assert isinstance(found, s.MoveSession) and (found.moves, found.room_id) == ((), "R2")


def opening(starts: str, ends: str, **more: Any) -> bodies.ExtraSessionBody:
    told = {"period": "night", "capacity": 1, "number_class_id": "expert", **more}
    return bodies.ExtraSessionBody(revision=0, starts=starts, ends=ends, **told)


async def test_an_opened_session_has_the_hours_that_exist() -> None:
    found = await asked(day_of(PLAIN), opening("01:30", "03:30"))
    assert isinstance(found, s.OpenSession)
    assert [x.clock for x in found.session.slots] == ["0130", "0200", "0230", "0300"]
    assert (found.session.fee_fen, found.session.department_id) == (1000, "0304")
    assert (await refused(day_of(SPRING), opening("01:30", "03:30")))[0] == "invalid_times"
    assert (await refused(day_of(PLAIN), opening("08:00", "08:00")))[0] == "invalid_times"
    assert (await refused(day_of(PLAIN), opening("09:00", "08:00")))[0] == "invalid_times"
    assert (await refused(day_of(PLAIN), opening("08:00", "09:00", department_id="03")))[0] == (
        "no_such_department"
    )


async def test_an_opened_session_has_the_pools_that_the_policy_wants() -> None:
    terms = Terms(pools=(Pool("窗口", 50, Channel.WINDOW),))
    app = app_of(policy=Policy(terms={("0304", ""): terms}))
    found = await asked(day_of(PLAIN), opening("18:00", "20:00"), app)
    assert isinstance(found, s.OpenSession)
    assert [share.pool for share in found.session.shares] == ["窗口", ""]
    assert sum(seats for x in found.session.slots for share, seats in x.runs if share == 0) == 2
    more = await asked(day_of(PLAIN, session(PLAIN, "1800", period="night")), opening("18:30", "20:00"), app)
    assert isinstance(more, s.OpenSession) and more.session.shares == ()


async def test_a_room_is_taken_only_while_somebody_is_in_it() -> None:
    other = schedule_row("D2", PLAIN, False, (session(PLAIN, "0800", "0830", room_id="R2"),))
    day = day_of(PLAIN, session(PLAIN, "0830", "0900"))
    code, members = await refused(day, move(room_id="R2"), app_of(other))
    assert (code, members["schedule_id"], members["start"], members["end"]) == (
        "room_taken",
        "D2-20270315",
        "08:00",
        "09:00",
    )
    await asked(day, move("09:00", room_id="R2"), app_of(other))
    suspended = schedule_row(
        "D2", PLAIN, False, (session(PLAIN, "0800", "0830", room_id="R2", status="suspended"),)
    )
    await asked(day, move(room_id="R2"), app_of(suspended))
    elsewhen = schedule_row("D2", SPRING, False, (session(SPRING, "0800", "0830", room_id="R2"),))
    await asked(day, move(room_id="R2"), app_of(elsewhen))
    assert (await refused(day, move(room_id="R2", force=True), app_of(other)))[0] == "room_taken"
    await asked(day, move(room_id="R2", force=True, note="商量好了"), app_of(other))


async def test_what_is_so_already_is_no_change() -> None:
    day = day_of(PLAIN, session(PLAIN, "0800", substitute_id="D2", status="paused"))
    for body in (
        bodies.StatusBody(revision=0, period="morning", status="paused"),
        substitute("D2"),
        bodies.CapacityBody(revision=0, period="morning", delta=0),
    ):
        assert (await refused(day, body))[0] == "nothing_to_change"
    await asked(day, bodies.StatusBody(revision=0, period="morning", status="open"))
    await asked(day, substitute(None))


def substitute(practitioner_id: str | None) -> bodies.SubstituteBody:
    return bodies.SubstituteBody(revision=0, period="morning", practitioner_id=practitioner_id)


@pytest.mark.parametrize(
    ("practitioner_id", "reach", "unfit"),
    [
        ("D2", "department", None),
        ("D5", "department", "title"),
        ("D1", "department", "self"),
        ("D3", "department", "department"),
        ("D3", "first_level", None),
        ("D4", "first_level", "department"),
        ("D4", "hospital", None),
    ],
)
async def test_who_may_substitute(practitioner_id: str, reach: str, unfit: str | None) -> None:
    day = day_of(PLAIN, session(PLAIN, "0800", "0830"))
    app = app_of(policy=Policy(substitutes=reach))
    if unfit is None:
        found = await asked(day, substitute(practitioner_id), app)
        assert isinstance(found, s.SubstituteSession) and found.practitioner_id == practitioner_id
    else:
        assert await refused(day, substitute(practitioner_id), app) == ("substitute_unfit", {"unfit": unfit})


def test_the_policy_says_how_far_a_substitute_may_come_from() -> None:
    assert read_policy("substitutes: first_level\n", Policy()).substitutes == "first_level"
    assert read_policy("{}\n", Policy()).substitutes == "department"
    with pytest.raises(PolicyRefused, match="substitutes: is 'anywhere': it must be one of department"):
        read_policy("substitutes: anywhere\n", Policy())


async def test_a_substitute_is_in_one_place_at_a_time() -> None:
    day = day_of(PLAIN, session(PLAIN, "0800", "0830"))
    own = schedule_row("D2", PLAIN, False, (session(PLAIN, "0830", "0900", room_id="R2"),))
    code, members = await refused(day, substitute("D2"), app_of(own))
    assert (code, members["schedule_id"], members["practitioner_id"]) == (
        "practitioner_busy",
        "D2-20270315",
        "D2",
    )
    given_away = schedule_row("D2", PLAIN, False, (session(PLAIN, "0800", room_id="R2", substitute_id="D3"),))
    await asked(day, substitute("D2"), app_of(given_away))
    elsewhere = schedule_row("D5", PLAIN, False, (session(PLAIN, "0800", room_id="R2", substitute_id="D2"),))
    assert (await refused(day, substitute("D2"), app_of(elsewhere)))[0] == "practitioner_busy"
    later = schedule_row("D2", PLAIN, False, (session(PLAIN, "0900", room_id="R2"),))
    await asked(day, substitute("D2"), app_of(later))
    # Who substitutes elsewhere opens nothing at that time.
    away = schedule_row("D2", PLAIN, False, (session(PLAIN, "1800", room_id="R2", substitute_id="D1"),))
    assert (await refused(day, opening("18:00", "19:00"), app_of(away)))[0] == "practitioner_busy"


async def test_a_suspended_day_is_one_command_for_each_session_that_is_held() -> None:
    day = day_of(
        PLAIN, session(PLAIN, "0800"), session(PLAIN, "1400", period="afternoon", status="suspended"),
        session(PLAIN, "1800", period="night"),
    )  # fmt: skip
    body = bodies.SuspendBody(revision=3, period="all", reason="leave")
    found = await commands_of(app_of(), day, body, COMMAND, "staff:x")
    assert [(x.period, x.expected, x.reason) for x in found if isinstance(x, s.SetSessionStatus)] == [
        ("morning", 3, "leave"),
        ("night", -1, "leave"),
    ]
    assert len({x.command_id for x in found}) == 2
    # What is over is not called off with the rest of the day, and by itself only its actor can refuse it.
    again = bodies.SuspendBody(revision=3, period="afternoon", reason="leave")
    assert (await refused(day, again))[0] == "nothing_to_change"
    past = date(2020, 3, 16)
    tomorrow = date(2100, 3, 16)
    half = day_of(tomorrow, session(past, "0800"), session(tomorrow, "1400", period="afternoon"))
    found = await commands_of(app_of(), half, body, COMMAND, "staff:x")
    assert [x.period for x in found if isinstance(x, s.SetSessionStatus)] == ["afternoon"]
    assert isinstance(await asked(half, body.model_copy(update={"period": "morning"})), s.SetSessionStatus)
    over = day_of(past, session(past, "0800"))
    assert (await refused(over, body))[0] == "nothing_to_change"
    other = bodies.SuspendBody(revision=3, period="morning", reason="other", note=" ")
    assert (await refused(day, other))[0] == "invalid_body"
