"""Pools and openings divide every session exactly, at every size; moments are wall-clock in every zone."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.planning import PlannedSlot, Session, session_as_data, session_from_data
from engine.domain.policy import EVERYBODY, Channel, Flow, Moment, Opening, Pool, Terms
from engine.domain.release import apportion, instant, release

ZONES = [
    ZoneInfo(name)
    for name in (
        "Asia/Shanghai",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",  # half an hour of daylight saving
        "America/Santiago",  # at midnight
        "Pacific/Apia",  # left a whole day out in 2011
        "Asia/Kathmandu",
    )
]
DAYS = st.dates(date(2011, 12, 1), date(2027, 12, 31))
MOMENTS = st.builds(Moment, st.integers(0, 30), st.integers(0, 1439))
CHANNELS = st.integers(1, 255).map(Channel)


@st.composite
def percents(draw: st.DrawFn, total: int, parts_max: int = 6) -> list[int]:
    """At least one each, together `total`."""
    cuts = sorted(draw(st.sets(st.integers(1, total - 1), max_size=parts_max - 1))) if total > 1 else []
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    openings: list[Opening] = []
    if draw(st.booleans()):
        openings = [Opening(percent, draw(MOMENTS)) for percent in draw(percents(100))]
    pools: list[Pool] = []
    if draw(st.booleans()):
        for number, percent in enumerate(draw(percents(draw(st.integers(1, 100))))):
            flows = draw(st.lists(st.builds(Flow, MOMENTS, CHANNELS), max_size=3))
            flows.sort(key=lambda flow: (-flow.at.days_before, flow.at.minute))
            pools.append(Pool(f"p{number}", percent, draw(CHANNELS), tuple(flows)))
    return Terms(openings=tuple(openings), pools=tuple(pools))


def session(capacities: list[int], starts_at: int = 0) -> Session:
    slots = tuple(
        PlannedSlot(f"{8 + n // 2:02}{n % 2 * 3}0", starts_at + n, size) for n, size in enumerate(capacities)
    )
    return Session("morning", "0304", "expert", None, 5000, slots)


CAPACITIES = st.lists(st.integers(1, 12), min_size=1, max_size=16)


@settings(deadline=None)
@given(st.integers(0, 5_000), st.integers(1, 12).flatmap(lambda n: percents(100, n)))
def test_apportioned_seats_are_all_and_within_one_of_their_percent(seats: int, parts: list[int]) -> None:
    found = apportion(seats, parts)
    assert sum(found) == seats
    for count, percent in zip(found, parts, strict=True):
        assert seats * percent // 100 <= count <= -(-seats * percent // 100)


@settings(deadline=None)
@given(CAPACITIES, terms(), DAYS, st.sampled_from(ZONES))
def test_every_seat_is_in_one_share_and_every_pool_has_its_percent(
    capacities: list[int], terms: Terms, day: date, zone: ZoneInfo
) -> None:
    found = release(session(capacities), terms, day, zone)
    assert session_from_data(session_as_data(found)) == found
    if not terms.openings and not terms.pools:
        assert found == session(capacities)
        return
    totals = [0] * len(found.shares)
    for slot in found.slots:
        assert sum(seats for _, seats in slot.runs) == slot.capacity
        assert all(seats > 0 for _, seats in slot.runs)
        assert [share for share, _ in slot.runs] == sorted({share for share, _ in slot.runs})
        for share, seats in slot.runs:
            totals[share] += seats
    assert all(totals), "a share without seats says nothing"
    everything = sum(capacities)
    rest = 100 - sum(pool.percent for pool in terms.pools)
    for name, percent in [*((pool.name, pool.percent) for pool in terms.pools), ("", rest)]:
        seats = sum(n for n, share in zip(totals, found.shares, strict=True) if share.pool == name)
        assert everything * percent // 100 <= seats <= -(-everything * percent // 100)
    assert release(session(capacities), terms, day, zone) == found, "equal terms, equal seats"


@settings(deadline=None)
@given(CAPACITIES, terms(), DAYS, st.sampled_from(ZONES))
def test_a_share_is_spread_over_the_slots(
    capacities: list[int], terms: Terms, day: date, zone: ZoneInfo
) -> None:
    """However the session is cut, the first part has of each share what is due to it, within a seat or two
    of each share's neighbours."""
    found = release(session(capacities), terms, day, zone)
    everything = sum(capacities)
    for number in range(len(found.shares)):
        total = sum(dict(slot.runs).get(number, 0) for slot in found.slots)
        had = seen = 0
        for slot in found.slots:
            had += dict(slot.runs).get(number, 0)
            seen += slot.capacity
            assert abs(had - total * seen / everything) <= 1 + len(found.shares) / 2


@settings(deadline=None)
@given(CAPACITIES, terms(), DAYS, st.sampled_from(ZONES))
def test_nothing_is_open_before_its_opening_and_all_channels_of_a_pool_open_at_one_instant(
    capacities: list[int], terms: Terms, day: date, zone: ZoneInfo
) -> None:
    found = release(session(capacities), terms, day, zone)
    openings = {instant(opening.at, day, zone) for opening in terms.openings} or {0}
    pools = {pool.name: pool for pool in terms.pools}
    for share in found.shares:
        pool = pools.get(share.pool, Pool("", 0, EVERYBODY))
        first = share.stages[0].at
        assert first in openings
        assert share.channels(first - 1) == 0
        assert [stage.at for stage in share.stages] == sorted({stage.at for stage in share.stages})
        flows = [(max(first, instant(flow.at, day, zone)), flow.channels) for flow in pool.flows]
        if all(at > first for at, _ in flows):
            assert share.channels(first) == pool.channels
        for at, _ in flows:
            assert share.channels(at) == [to for when, to in flows if when == at][-1]


JUMPS = st.sampled_from(
    [
        (ZoneInfo("Europe/Berlin"), date(2026, 3, 29)),
        (ZoneInfo("Europe/Berlin"), date(2026, 10, 25)),
        (ZoneInfo("America/New_York"), date(2026, 3, 8)),
        (ZoneInfo("America/New_York"), date(2026, 11, 1)),
        (ZoneInfo("Australia/Lord_Howe"), date(2026, 10, 4)),
        (ZoneInfo("Australia/Lord_Howe"), date(2026, 4, 5)),
        (ZoneInfo("America/Santiago"), date(2026, 9, 6)),
        (ZoneInfo("Pacific/Apia"), date(2011, 12, 30)),
    ]
)


@settings(deadline=None)
@given(JUMPS, st.integers(0, 240))
def test_a_moment_on_a_day_whose_clock_jumps(jump: tuple[ZoneInfo, date], minute: int) -> None:
    zone, day = jump
    check_instant(Moment(0, minute), day, zone)


@settings(deadline=None)
@given(MOMENTS, DAYS, st.sampled_from(ZONES))
def test_a_moment_is_the_first_instant_at_which_the_clock_is_there_or_beyond(
    moment: Moment, day: date, zone: ZoneInfo
) -> None:
    check_instant(moment, day, zone)


def check_instant(moment: Moment, day: date, zone: ZoneInfo) -> None:
    wanted = datetime.combine(day - timedelta(moment.days_before), datetime.min.time())
    wanted += timedelta(minutes=moment.minute)

    def clock(ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).replace(tzinfo=None)

    at = instant(moment, day, zone)
    assert clock(at) >= wanted
    assert clock(at - 1) < wanted
