"""Release and pools by example."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from engine.domain.planning import PlannedSlot, Session, Share, Stage
from engine.domain.policy import EVERYBODY, Channel, Flow, Moment, Opening, Pool, Terms
from engine.domain.release import ALWAYS, instant, release

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
TUESDAY = date(2026, 11, 24)
WINDOW = Channel.WINDOW | Channel.REFERRAL


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def session(slots: int, capacity: int) -> Session:
    return Session(
        "morning",
        "0304",
        "expert",
        "r1",
        5000,
        tuple(PlannedSlot(f"{8 + n // 2:02}{n % 2 * 3}0", n, capacity) for n in range(slots)),
    )


def test_without_openings_and_pools_a_session_stays_as_it_is() -> None:
    assert release(session(8, 4), Terms(), TUESDAY, SHANGHAI) == session(8, 4)


def test_terms_that_no_longer_divide_take_the_shares_away() -> None:
    divided = release(session(2, 4), Terms(pools=(Pool("window", 50, WINDOW),)), TUESDAY, SHANGHAI)
    assert divided.shares
    assert release(divided, Terms(), TUESDAY, SHANGHAI) == session(2, 4)


def test_a_tenth_of_thirty_two_seats_is_three_spread_over_the_morning() -> None:
    terms = Terms(pools=(Pool("window", 10, WINDOW),))
    found = release(session(8, 4), terms, TUESDAY, SHANGHAI)
    assert found.shares == (
        Share("window", (Stage(ALWAYS, WINDOW),)),
        Share("", (Stage(ALWAYS, EVERYBODY),)),
    )
    assert [dict(slot.runs).get(0, 0) for slot in found.slots] == [0, 1, 0, 1, 0, 0, 1, 0]
    assert found.slots[1].runs == ((0, 1), (1, 3)), "the pool's seats come first"
    assert found.slots[0].runs == ((1, 4),)


def test_half_opens_a_week_before_and_half_the_day_before() -> None:
    terms = Terms(openings=(Opening(50, Moment(7, 450)), Opening(50, Moment(1, 450))))
    found = release(session(2, 3), terms, TUESDAY, SHANGHAI)
    assert [share.stages for share in found.shares] == [
        (Stage(ms("2026-11-16 23:30"), EVERYBODY),),  # 07:30 in Shanghai
        (Stage(ms("2026-11-22 23:30"), EVERYBODY),),
    ]
    assert [sum(n for part, n in s.runs if part == 0) for s in found.slots] == [2, 1]


def test_a_pool_flows_on_and_never_opens_before_its_opening() -> None:
    flows = (Flow(Moment(8, 0), Channel.KIOSK), Flow(Moment(1, 1200), EVERYBODY))
    terms = Terms(openings=(Opening(100, Moment(7, 450)),), pools=(Pool("w", 100, WINDOW, flows),))
    found = release(session(1, 1), terms, TUESDAY, SHANGHAI)
    (share,) = found.shares
    # The flow to the kiosk came before the opening, so it counts from the opening on.
    assert share.stages == (
        Stage(ms("2026-11-16 23:30"), Channel.KIOSK),
        Stage(ms("2026-11-23 12:00"), EVERYBODY),
    )


def test_a_flow_to_the_same_channels_is_no_stage() -> None:
    terms = Terms(pools=(Pool("w", 50, WINDOW, (Flow(Moment(1, 0), WINDOW),)),))
    assert release(session(1, 2), terms, TUESDAY, SHANGHAI).shares[0].stages == (Stage(ALWAYS, WINDOW),)


def test_of_equal_remainders_the_first_in_the_policy_wins() -> None:
    pools = (Pool("a", 25, WINDOW), Pool("b", 25, WINDOW), Pool("c", 50, WINDOW))
    found = release(session(1, 2), Terms(pools=pools), TUESDAY, SHANGHAI)
    assert [share.pool for share in found.shares] == ["a", "c"]


@pytest.mark.parametrize(
    ("day", "minute", "expected"),
    [
        (date(2026, 3, 29), 150, "2026-03-29 01:00"),  # 02:30 is left out: 03:00 summer time
        (date(2026, 3, 29), 120, "2026-03-29 01:00"),
        (date(2026, 3, 29), 180, "2026-03-29 01:00"),
        (date(2026, 3, 29), 119, "2026-03-29 00:59"),
        (date(2026, 10, 25), 150, "2026-10-25 00:30"),  # 02:30 comes twice: the first
    ],
)
def test_moments_around_daylight_saving(day: date, minute: int, expected: str) -> None:
    assert instant(Moment(0, minute), day, BERLIN) == ms(expected)


def test_the_day_before_is_a_day_of_the_calendar_not_24_hours() -> None:
    assert instant(Moment(1, 450), date(2026, 3, 30), BERLIN) == ms("2026-03-29 05:30")
    assert instant(Moment(2, 450), date(2026, 3, 30), BERLIN) == ms("2026-03-28 06:30")
