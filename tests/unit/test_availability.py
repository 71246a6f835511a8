"""Free seats in a gateway's memory: what feeds say, what snapshots say, and where else there is a seat."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.planning import Plan, PlannedSlot, Session, Share, Stage, plan_as_data
from engine.domain.policy import EVERYBODY, Channel, Policy, Terms
from engine.records.appointments import Taken
from engine.records.catalog import (
    NOT_IMPORTED,
    Catalog,
    Department,
    Practitioner,
    ScheduleRow,
    SessionOutline,
    schedule_row,
)
from engine.views.availability import ALTERNATIVES_MAX, FOREVER, Availability, OpenSlot

DAY = date(2026, 11, 24)
MS = 3_600_000
NOW = 0
PATIENT = Channel.MINI_PROGRAM


def department(id: str, parent: str | None = None) -> Department:
    return Department(id, parent, id, "", "east", "", "", None, None, None, 0)


def practitioner(id: str, title: str = "chief", of: str = "cardio") -> Practitioner:
    return Practitioner(id, id, title, of, "", "", 0)


CATALOG = Catalog(
    1,
    NOT_IMPORTED,
    {d.id: d for d in (department("inner"), department("cardio", "inner"), department("derma"))},
    {
        p.id: p
        for p in (
            practitioner("D1"),
            practitioner("D2"),
            practitioner("D3", "attending"),
            practitioner("D4", of="derma"),
        )
    },
    {},
    {},
)


def session(period: str, *clocks: str, of: str = "cardio", capacity: int = 2) -> SessionOutline:
    slots = tuple((c, int(c[:2]) * MS + (MS // 2 if c[2:] == "30" else 0), capacity) for c in clocks)
    return SessionOutline(period, of, "expert", None, 5000, slots)


def row(who: str, *sessions: SessionOutline, days: int = 0) -> ScheduleRow:
    return ScheduleRow(who, DAY + timedelta(days), False, sessions)


MORNING, AFTERNOON = session("morning", "0800", "0830", "0900"), session("afternoon", "1400")


@pytest.fixture
def view() -> Availability:
    return Availability(
        CATALOG,
        [
            row("D1", MORNING, AFTERNOON),
            row("D1", MORNING, days=1),
            row("D2", MORNING, AFTERNOON),
            row("D2", MORNING, days=1),
            row("D3", MORNING),
            row("D4", session("morning", "0800", of="derma")),
        ],
    )


def free(view: Availability, schedule_id: str) -> dict[str, int]:
    found = view.schedule(schedule_id)
    assert found is not None
    return {slot.clock: slot.remaining for slot in view.slots(found, PATIENT, NOW)}


D1, D2 = "D1-20261124", "D2-20261124"


def test_as_published_everything_is_free(view: Availability) -> None:
    assert free(view, D1) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}
    assert view.version(D1) == 0
    found = view.schedule(D1)
    assert found is not None
    first = next(iter(view.slots(found, PATIENT, NOW)))
    assert first.slot_id == "D1-20261124-0800"
    assert first.starts_at == found.midnight_utc + 8 * MS


def test_a_change_is_the_last_word_on_its_slot_and_on_no_other(view: Availability) -> None:
    view.change({f"{D1}-0800": 1, f"{D1}-0830": 0}, {}, 7)
    view.change({f"{D1}-0800": 0}, {}, 9)
    assert free(view, D1) == {"0800": 0, "0830": 0, "0900": 2, "1400": 2}
    assert free(view, D2) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}
    assert (view.version(D1), view.version(D2)) == (9, 0)


def test_a_version_never_goes_back(view: Availability) -> None:
    view.change({f"{D1}-0800": 1}, {}, 9)
    view.change({f"{D1}-0800": 2}, {}, 3)
    assert view.version(D1) == 9
    view.reset(None, Taken({}, {}), 5)
    assert view.version(D1) == 9
    view.reset(None, Taken({}, {}), 11)
    assert view.version(D1) == 11


def test_a_snapshot_replaces_what_was_said_before(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D1}-0830": 0}, {}, 3)
    view.reset(None, Taken({f"{D1}-0800": 1, f"{D2}-0900": 2}, {}), 5)
    assert free(view, D1) == {"0800": 1, "0830": 2, "0900": 2, "1400": 2}
    assert free(view, D2)["0900"] == 0
    assert (view.version(D1), view.version(D2)) == (5, 5)


def test_a_snapshot_of_one_shard_touches_no_other_shards_schedules(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D2}-0800": 0}, {}, 3)
    view.reset(frozenset([D1]), Taken({f"{D1}-0830": 1, f"{D2}-0830": 1}, {}), 5)
    assert free(view, D1) == {"0800": 2, "0830": 1, "0900": 2, "1400": 2}
    assert free(view, D2) == {"0800": 0, "0830": 2, "0900": 2, "1400": 2}


def test_a_snapshot_of_a_day_that_is_not_published_is_harmless(view: Availability) -> None:
    view.reset(None, Taken({"D9-20261124-0800": 1, f"{D1}-2300": 1, "nonsense": 1}, {}), 5)
    assert free(view, D1) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}


def test_a_new_catalog_keeps_what_the_actors_said(view: Availability) -> None:
    view.change({f"{D1}-0800": 0}, {}, 3)
    view.replace(CATALOG, [row("D1", MORNING)])
    assert free(view, D1) == {"0800": 0, "0830": 2, "0900": 2}
    assert view.schedule(D2) is None and len(view) == 1


def test_schedules_are_found_by_department_practitioner_title_and_day(view: Availability) -> None:
    def found(**wanted: object) -> list[str]:
        return [f"{r.practitioner_id}/{(r.day - DAY).days}" for r in view.schedules(**wanted)]  # type: ignore[arg-type]

    assert sorted(found(department_id="inner")) == ["D1/0", "D1/1", "D2/0", "D2/1", "D3/0"]
    assert found(department_id="inner")[-2:] == ["D1/1", "D2/1"], "by day"
    assert found(department_id="derma") == ["D4/0"]
    assert found(practitioner_id="D1") == ["D1/0", "D1/1"]
    assert found(practitioner_id="D1", department_id="derma") == []
    assert found(title="attending") == ["D3/0"]
    assert found(first=DAY + timedelta(1)) == ["D1/1", "D2/1"]
    assert sorted(found(last=DAY)) == ["D1/0", "D2/0", "D3/0", "D4/0"]
    assert found(department_id="nowhere") == found(practitioner_id="nobody") == []


def others(view: Availability, slot_id: str, now: int = NOW) -> list[str]:
    return [slot.slot_id for slot in view.alternatives(slot_id, now)]


def test_alternatives_are_ranked_near_time_then_same_title_then_next_days(view: Availability) -> None:
    view.change({f"{D1}-0830": 0}, {}, 1)
    assert others(view, f"{D1}-0830") == [
        "D1-20261124-0800",  # the same doctor, nearest first
        "D1-20261124-0900",
        "D1-20261124-1400",
        "D2-20261124-0830",  # the same department and title, the same half day
        "D2-20261124-0800",
        "D2-20261124-0900",
    ]
    view.change({f"{D1}-0800": 0, f"{D1}-0900": 0, f"{D2}-0800": 0, f"{D2}-0830": 0, f"{D2}-0900": 0}, {}, 2)
    assert others(view, f"{D1}-0830") == [
        "D1-20261124-1400",
        "D1-20261125-0800",  # the same doctor, the next day
        "D1-20261125-0830",
        "D1-20261125-0900",
        "D3-20261124-0830",  # anybody there that day
        "D3-20261124-0800",
    ]


def test_the_rest_of_the_department_is_looked_at_where_that_is_too_little() -> None:
    view = Availability(CATALOG, [row("D1", MORNING), *(row("D2", MORNING, days=n) for n in (1, 2))])
    view.change({f"{D1}-{clock}": 0 for clock in ("0800", "0830", "0900")}, {}, 1)
    assert others(view, f"{D1}-0800") == [
        f"D2-202611{day}-{clock}" for day in (25, 26) for clock in ("0800", "0830", "0900")
    ]


def test_an_alternative_is_in_the_same_department_in_the_future_and_free(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D1}-0900": 0}, {}, 1)
    found = view.schedule(D1)
    assert found is not None
    nine = found.midnight_utc + 9 * MS
    alternatives = view.alternatives(f"{D1}-0800", nine)
    assert alternatives and len(alternatives) <= ALTERNATIVES_MAX
    for slot in alternatives:
        assert slot.remaining > 0 and slot.starts_at > nine and slot.session.department_id == "cardio"


def test_there_are_no_alternatives_to_what_does_not_exist(view: Availability) -> None:
    assert others(view, "nonsense") == others(view, "D9-20261124-0800") == others(view, f"{D1}-2300") == []


def test_the_refused_slot_is_no_alternative(view: Availability) -> None:
    """The actor has just refused it, and this view has not heard of it yet."""
    assert free(view, D1)["0830"] == 2
    assert f"{D1}-0830" not in others(view, f"{D1}-0830")


# Shares: what a channel sees at a moment.

MIDNIGHT = row("D1").midnight_utc
RELEASE = MIDNIGHT - 7 * 24 * MS  # half of everybody's seats
AFTER = MIDNIGHT - 24 * MS  # the other half, and what the window has left
SHARES = (
    Share("", (Stage(RELEASE, EVERYBODY),)),
    Share("", (Stage(AFTER, EVERYBODY),)),
    Share("window", (Stage(RELEASE, Channel.WINDOW), Stage(AFTER, EVERYBODY))),
)
RUNS = ((0, 2), (2, 1), (1, 2))


def shared(*clocks: str, status: str = "open", shares: tuple[Share, ...] = SHARES) -> Plan:
    slots = tuple(PlannedSlot(c, MIDNIGHT + int(c[:2]) * MS, 5, RUNS) for c in clocks)
    return (Session("morning", "cardio", "expert", None, 5000, slots, shares, status),)


def of_plan(plan: Plan, who: str = "D1") -> ScheduleRow:
    return schedule_row(who, DAY, True, plan)


def seen(view: Availability, now: int, channel: Channel = PATIENT) -> dict[str, tuple[int, int, int | None]]:
    found = view.schedule(D1)
    assert found is not None
    return {s.clock: (s.remaining, s.capacity, s.opens_at) for s in view.slots(found, channel, now)}


def test_a_row_and_its_plan_are_the_same() -> None:
    plan = (*shared("0800", "0900"), Session("night", "derma", "x", "r", 1, (PlannedSlot("1900", 5, 1),)))
    assert of_plan(plan).plan == plan


def test_a_channel_sees_the_shares_that_are_open_to_it_now() -> None:
    view = Availability(CATALOG, [of_plan(shared("0800"))])
    window = Channel.WINDOW
    assert seen(view, RELEASE - 1) == {"0800": (0, 0, RELEASE)}
    assert seen(view, RELEASE) == {"0800": (2, 2, AFTER)}
    assert seen(view, RELEASE, window) == {"0800": (3, 3, AFTER)}
    assert seen(view, AFTER) == seen(view, AFTER, window) == {"0800": (5, 5, None)}
    begins = MIDNIGHT + 8 * MS
    assert seen(view, begins - 1) == {"0800": (5, 5, None)}
    assert seen(view, begins) == {"0800": (0, 5, None)}, "it has begun"


def test_free_seats_are_told_by_share() -> None:
    view = Availability(CATALOG, [of_plan(shared("0800", "0900"))])
    view.change({f"{D1}-0800": [1, 2, 0]}, {}, 4)
    assert seen(view, RELEASE) == {"0800": (1, 2, AFTER), "0900": (2, 2, AFTER)}
    assert seen(view, AFTER) == {"0800": (3, 5, None), "0900": (5, 5, None)}
    view.change({f"{D1}-0800": 9}, {}, 5)
    assert seen(view, RELEASE)["0800"] == (2, 2, AFTER), "told of another plan: never more than there are"


@pytest.mark.parametrize("status", ["paused", "suspended"])
def test_what_is_paused_or_called_off_has_nothing_left(status: str) -> None:
    view = Availability(CATALOG, [of_plan(shared("0800", status=status)), row("D2", MORNING)])
    assert seen(view, RELEASE) == {"0800": (0, 2, None)}
    assert {slot[:2] for slot in others(view, f"{D2}-0800", RELEASE)} == {"D2"}
    view.change({}, {D1: plan_as_data(shared("0800"))}, 3)
    assert seen(view, RELEASE)["0800"] == (2, 2, AFTER)


def test_a_slot_closes_before_it_begins_to_patients_and_after_it_begins_to_staff() -> None:
    policy = Policy(terms={("", ""): Terms(closes_minutes=30), ("derma", ""): Terms()})
    view = Availability(CATALOG, [row("D1", MORNING)], policy)
    closes, begins = MIDNIGHT + 8 * MS - MS // 2, MIDNIGHT + 8 * MS
    window = Channel.WINDOW
    assert [seen(view, now)["0800"][0] for now in (closes - 1, closes)] == [2, 0]
    assert [seen(view, now, window)["0800"][0] for now in (begins, begins + MS // 2 - 1)] == [2, 2]
    assert seen(view, begins + MS // 2, window)["0800"][0] == 0
    found = view.schedule(D1)
    assert found is not None and view.stretch(found, PATIENT, closes - 1)[1] == closes
    # Other rules, and everything that can be seen is another.
    stamp = view.stamp(D1)
    heard = view.replace(CATALOG, [row("D1", MORNING)], policy=Policy())
    assert heard.days == {D1} and view.stamp(D1) != stamp and view.touched(stamp) is None
    assert [seen(view, now)["0800"][0] for now in (closes, begins)] == [2, 0]
    assert not view.replace(CATALOG, [row("D1", MORNING)], policy=Policy())


def test_alternatives_are_open_to_whoever_asks() -> None:
    mine = (Share("window", (Stage(RELEASE, Channel.WINDOW),)),)
    slots = (PlannedSlot("0800", MIDNIGHT + 8 * MS, 1, ((0, 1),)),)
    plan = (Session("morning", "cardio", "expert", None, 5000, slots, mine),)
    view = Availability(CATALOG, [of_plan(plan), row("D2", MORNING)])
    full = f"{D2}-0800"
    assert f"{D1}-0800" not in others(view, full, RELEASE)
    assert f"{D1}-0800" in [s.slot_id for s in view.alternatives(full, RELEASE, channel=Channel.WINDOW)]
    assert f"{D1}-0800" not in [
        s.slot_id for s in view.alternatives(full, RELEASE - 1, channel=Channel.WINDOW)
    ]


def test_a_snapshot_takes_seats_out_of_their_shares() -> None:
    view = Availability(CATALOG, [of_plan(shared("0800"))])
    slot = f"{D1}-0800"
    view.reset(None, Taken({slot: 3}, {}, {slot: [0, 2, 4]}), 5)
    assert seen(view, RELEASE) == {"0800": (1, 2, AFTER)}
    assert seen(view, RELEASE, Channel.WINDOW) == {"0800": (1, 3, AFTER)}
    assert seen(view, AFTER) == {"0800": (2, 5, None)}


def test_a_snapshot_brings_the_plans_of_opened_days() -> None:
    view = Availability(CATALOG, [row("D1", MORNING), row("D2", MORNING)])
    heard = view.reset(frozenset([D1]), Taken({}, {}, {}, [of_plan(shared("0900")), row("D2", AFTERNOON)]), 5)
    assert heard.days == {D1}
    assert list(seen(view, AFTER)) == ["0900"]
    assert list(free(view, D2)) == ["0800", "0830", "0900"], "another shard's"


# Days that change.


def test_a_plan_replaces_the_day_and_keeps_what_is_said_of_its_slots(view: Availability) -> None:
    view.change({f"{D1}-0800": 1, f"{D1}-1400": 0}, {}, 3)
    moved = (
        Session(
            "morning",
            "derma",
            "expert",
            "R9",
            6000,
            (PlannedSlot("0800", MIDNIGHT + 8 * MS, 4), PlannedSlot("1000", MIDNIGHT + 10 * MS, 3)),
        ),
    )
    heard = view.change({f"{D1}-0800": 3}, {D1: plan_as_data(moved)}, 7)
    assert (heard.days, heard.slots) == ({D1}, {D1: {"0800"}})
    assert free(view, D1) == {"0800": 3, "1000": 3}
    assert view.version(D1) == 7
    assert D1 in [r.id for r in view.schedules(department_id="derma")]
    assert D1 not in [r.id for r in view.schedules(department_id="inner")]
    # Back as it was: of 14:00, which was not there, nothing old is remembered.
    view.change({}, {D1: plan_as_data(row("D1", MORNING, AFTERNOON).plan)}, 8)
    assert free(view, D1) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}


def test_a_day_that_had_no_clinic_gets_one_and_loses_it_again(view: Availability) -> None:
    new = "D3-20261125"
    view.change({f"{new}-0800": 1}, {new: plan_as_data(shared("0800"))}, 3)
    assert [r.id for r in view.schedules(practitioner_id="D3")] == ["D3-20261124", new]
    days = [r.day for r in view.schedules()]
    assert days == sorted(days)
    heard = view.change({}, {new: []}, 4)
    assert heard.days == {new} and view.schedule(new) is None
    assert [r.id for r in view.schedules(practitioner_id="D3")] == ["D3-20261124"]


def test_a_day_of_somebody_unknown_waits_for_the_catalog(view: Availability) -> None:
    view.change({}, {"D9-20261124": plan_as_data(shared("0800"))}, 3)
    assert "D9" not in {r.practitioner_id for r in view.schedules()}
    assert "D9" not in {slot[:2] for slot in others(view, f"{D2}-0800")}


def test_a_plan_that_came_while_the_catalog_was_read_is_newer_than_it(view: Availability) -> None:
    view.change({}, {D2: plan_as_data(shared("0900"))}, 2)  # known to the read below: it is in the database
    read_at = view.changes
    view.change({}, {D1: plan_as_data(shared("1000")), "D3-20261130": plan_as_data(shared("0800"))}, 3)
    view.change({}, {"D4-20261124": []}, 4)
    view.replace(CATALOG, [row("D1", MORNING), row("D2", MORNING, AFTERNOON), row("D4", AFTERNOON)], read_at)
    assert list(free(view, D1)) == ["1000"]
    assert list(free(view, D2)) == ["0800", "0830", "0900", "1400"], "an older plan gives way"
    assert view.schedule("D3-20261130") is not None and view.schedule("D4-20261124") is None


def test_what_has_changed_is_told(view: Availability) -> None:
    heard = view.change({f"{D1}-0800": 1}, {}, 3)
    assert (heard.slots, heard.days) == ({D1: {"0800"}}, set())
    heard = view.reset(None, Taken({f"{D1}-0800": 1, f"{D2}-0800": 1}, {}), 3)
    assert heard.slots == {D2: {"0800"}}, "the other was known"
    rows = [row("D1", MORNING, AFTERNOON), row("D2", MORNING), row("D9", MORNING)]
    assert view.replace(CATALOG, rows).days == {
        "D1-20261125",  # gone
        D2,  # another
        "D2-20261125",
        "D3-20261124",
        "D4-20261124",
        "D9-20261124",  # come
    }
    renamed = {**CATALOG.practitioners, "D1": practitioner("D1", "attending")}
    other = Catalog(2, NOT_IMPORTED, CATALOG.departments, renamed, {}, {})
    assert view.replace(other, rows).days == {D1}


def test_stamps_differ_whenever_something_can_be_seen_to_differ(view: Availability) -> None:
    stamps = [view.stamp(D1)]
    view.change({f"{D1}-0800": 1}, {}, 3)
    stamps.append(view.stamp(D1))
    view.change({}, {D1: plan_as_data(shared("0800"))}, 4)
    stamps.append(view.stamp(D1))
    view.reset(None, Taken({}, {}), 9)
    stamps.append(view.stamp(D1))
    view.replace(CATALOG, [row("D1", AFTERNOON)])
    stamps.append(view.stamp(D1))
    assert len(set(stamps)) == len(stamps)
    assert view.stamp("D1-20261125") != 0, "gone, and if it comes back it is another"


def test_it_is_told_what_was_touched_since(view: Availability) -> None:
    at = view.changes
    assert view.touched(at) == set()
    view.change({f"{D1}-0800": 1}, {}, 3)
    between = view.changes
    view.change({f"{D2}-0800": 1}, {}, 4)
    assert (view.touched(at), view.touched(between)) == ({D1, D2}, {D2})
    for n in range(300):
        view.change({f"{D2}-0800": n % 2}, {}, n)
    assert view.touched(at) is None, "too long ago"
    at = view.changes
    view.change({}, {D1: plan_as_data(shared("0800"))}, 4)
    assert view.touched(at) is None, "another structure"


# Time.


@settings(deadline=None)
@given(st.lists(st.integers(-30, 20), min_size=1, max_size=8))
def test_nothing_changes_by_itself_within_a_stretch_and_what_does_is_named(hours: list[int]) -> None:
    stages = [
        Stage(MIDNIGHT + h * MS, (EVERYBODY, 0, Channel.WINDOW)[n % 3]) for n, h in enumerate(sorted(hours))
    ]
    one = Share("x", tuple(stages))
    plan = shared("0800", "0900", shares=(one, SHARES[1], SHARES[2]))
    view = Availability(CATALOG, [of_plan(plan)])
    found = view.schedule(D1)
    assert found is not None

    def at(now: int) -> list[OpenSlot]:
        return list(view.slots(found, PATIENT, now))

    now = MIDNIGHT - 10 * 24 * MS
    while now < MIDNIGHT + 24 * MS:
        since, until = view.stretch(found, PATIENT, now)
        assert since <= now < until
        assert at(max(since, now - 1)) == at(now) == at(min(until, MIDNIGHT + 25 * MS) - 1)
        if until == FOREVER:
            break
        others = {a.clock for a, b in zip(at(now), at(until), strict=True) if a != b}
        assert others <= view.turned(found, PATIENT, now, until)
        assert view.turned(found, PATIENT, until, until) == set()
        now = until
