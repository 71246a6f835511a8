"""From a week to a date: holidays, 调休, overrides, and clocks that jump."""

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from engine.domain.calendar import Holiday, SessionOverride, SessionTemplate, plan_day, sessions_on
from engine.domain.planning import overlapping
from engine.domain.policy import Channel, Policy, Pool, Terms

SHANGHAI = ZoneInfo("Asia/Shanghai")
TUESDAY = date(2026, 11, 24)
FEES = {"ordinary": 1500, "emergency": 2000}


def template(
    weekday: int = 2,
    period: str = "morning",
    starts: time = time(8),
    ends: time = time(10),
    number_class_id: str = "ordinary",
    fee_fen: int | None = None,
) -> SessionTemplate:
    return SessionTemplate("D1", weekday, period, starts, ends, 4, number_class_id, "0304", "R1", fee_fen)


def override(
    period: str = "morning",
    closed: bool = False,
    starts: time | None = None,
    ends: time | None = None,
    capacity: int | None = None,
) -> dict[tuple[date, str], SessionOverride]:
    return {(TUESDAY, period): SessionOverride("D1", TUESDAY, period, closed, starts, ends, capacity)}


def clocks(plan: object) -> list[str]:
    assert isinstance(plan, tuple)
    return [slot.clock for session in plan for slot in session.slots]


def test_a_session_is_cut_into_half_hours() -> None:
    plan = plan_day(TUESDAY, [template()], {}, {}, FEES, SHANGHAI)
    assert plan is not None
    (session,) = plan
    assert (session.period, session.department_id, session.number_class_id) == ("morning", "0304", "ordinary")
    assert (session.room_id, session.fee_fen) == ("R1", 1500)
    assert clocks(plan) == ["0800", "0830", "0900", "0930"]
    assert [slot.capacity for slot in session.slots] == [4] * 4
    eight = datetime(2026, 11, 24, 8, tzinfo=SHANGHAI).timestamp() * 1000
    assert [slot.starts_at for slot in session.slots] == [eight + n * 1_800_000 for n in range(4)]


def test_a_template_may_have_its_own_fee_also_none_at_all() -> None:
    for fee_fen in (9900, 0):
        plan = plan_day(TUESDAY, [template(fee_fen=fee_fen)], {}, {}, FEES, SHANGHAI)
        assert plan is not None
        assert plan[0].fee_fen == fee_fen


def test_sessions_come_in_the_order_of_the_day() -> None:
    week = [
        template(period="night", starts=time(18), ends=time(20, 30)),
        template(period="afternoon", starts=time(14), ends=time(17, 30)),
        template(),
    ]
    plan = plan_day(TUESDAY, week, {}, {}, FEES, SHANGHAI)
    assert plan is not None
    assert [session.period for session in plan] == ["morning", "afternoon", "night"]
    assert overlapping(plan) is None


def test_no_clinic_is_no_plan() -> None:
    assert plan_day(TUESDAY, [template(weekday=3)], {}, {}, FEES, SHANGHAI) is None
    assert plan_day(TUESDAY, [], {}, {}, FEES, SHANGHAI) is None
    assert plan_day(TUESDAY, [template()], override(closed=True), {}, FEES, SHANGHAI) is None


def test_a_holiday_closes_all_but_the_emergency() -> None:
    holidays = {TUESDAY: Holiday(TUESDAY, "国庆节", None)}
    assert plan_day(TUESDAY, [template()], {}, holidays, FEES, SHANGHAI) is None
    emergency = template(number_class_id="emergency")
    assert plan_day(TUESDAY, [emergency], {}, holidays, FEES, SHANGHAI) is not None


def test_a_worked_holiday_has_the_other_weekdays_sessions() -> None:
    saturday = date(2026, 10, 10)
    holidays = {saturday: Holiday(saturday, "调休", 3)}
    own, wednesday = template(weekday=6), template(weekday=3, number_class_id="emergency")
    assert sessions_on(saturday, [own, wednesday], holidays) == [wednesday]


@pytest.mark.parametrize(
    ("changes", "expected", "capacity"),
    [
        (override(starts=time(9)), ["0900", "0930"], 4),
        (override(ends=time(8, 30)), ["0800"], 4),
        (override(capacity=9), ["0800", "0830", "0900", "0930"], 9),
        (override(starts=time(7, 30), ends=time(8, 30), capacity=1), ["0730", "0800"], 1),
        (override(period="night", closed=True), ["0800", "0830", "0900", "0930"], 4),
    ],
)
def test_overrides(
    changes: dict[tuple[date, str], SessionOverride], expected: list[str], capacity: int
) -> None:
    plan = plan_day(TUESDAY, [template()], changes, {}, FEES, SHANGHAI)
    assert clocks(plan) == expected
    assert plan is not None
    assert {slot.capacity for slot in plan[0].slots} == {capacity}


def test_a_local_time_that_does_not_exist_is_left_out() -> None:
    sunday = date(2026, 3, 29)  # Berlin: 02:00 becomes 03:00
    week = [template(weekday=7, starts=time(1), ends=time(4))]
    plan = plan_day(sunday, week, {}, {}, FEES, ZoneInfo("Europe/Berlin"))
    assert clocks(plan) == ["0100", "0130", "0300", "0330"]
    assert plan is not None
    assert overlapping(plan) is None
    one = datetime(2026, 3, 29, 0, tzinfo=UTC).timestamp() * 1000
    assert [slot.starts_at for slot in plan[0].slots] == [one + n * 1_800_000 for n in range(4)]


def test_of_a_local_time_that_comes_twice_the_first_counts() -> None:
    sunday = date(2026, 10, 25)  # Berlin: 03:00 becomes 02:00
    week = [template(weekday=7, starts=time(2), ends=time(3, 30))]
    plan = plan_day(sunday, week, {}, {}, FEES, ZoneInfo("Europe/Berlin"))
    assert plan is not None
    hours = [datetime.fromtimestamp(slot.starts_at / 1000, UTC).strftime("%H%M") for slot in plan[0].slots]
    assert clocks(plan) == ["0200", "0230", "0300"]
    assert hours == ["0000", "0030", "0200"]
    assert overlapping(plan) is None


def test_a_day_whose_hours_all_vanish_has_no_clinic() -> None:
    sunday = date(2026, 3, 29)
    week = [template(weekday=7, starts=time(2), ends=time(3))]
    assert plan_day(sunday, week, {}, {}, FEES, ZoneInfo("Europe/Berlin")) is None


def test_a_clock_that_jumps_by_half_an_hour() -> None:
    sunday = date(2026, 10, 4)  # Lord Howe: 02:00 becomes 02:30
    week = [template(weekday=7, starts=time(1, 30), ends=time(3, 30))]
    plan = plan_day(sunday, week, {}, {}, FEES, ZoneInfo("Australia/Lord_Howe"))
    assert clocks(plan) == ["0130", "0230", "0300"]
    assert plan is not None
    assert overlapping(plan) is None


def test_the_policy_of_department_and_class_divides_the_session() -> None:
    kept = Terms(pools=(Pool("window", 25, Channel.WINDOW),))
    policy = Policy(terms={("0304", "ordinary"): kept})
    week = [
        template(),
        template(period="afternoon", starts=time(14), ends=time(15), number_class_id="emergency"),
    ]
    plan = plan_day(TUESDAY, week, {}, {}, FEES, SHANGHAI, policy)
    assert plan is not None
    morning, afternoon = plan
    assert [share.pool for share in morning.shares] == ["window", ""]
    assert sum(n for slot in morning.slots for share, n in slot.runs if share == 0) == 4
    assert afternoon.shares == ()
    assert plan_day(TUESDAY, week, {}, {}, FEES, SHANGHAI) != plan
