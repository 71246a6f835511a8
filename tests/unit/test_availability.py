"""Free seats in a gateway's memory: what feeds say, what snapshots say, and where else there is a seat."""

from datetime import date, timedelta

import pytest

from engine.records.catalog import (
    NOT_IMPORTED,
    Catalog,
    Department,
    Practitioner,
    ScheduleRow,
    SessionOutline,
)
from engine.views.availability import ALTERNATIVES_MAX, Availability

DAY = date(2026, 11, 24)
MS = 3_600_000
NOW = 0


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
    return {slot.clock: slot.remaining for slot in view.slots(found)}


D1, D2 = "D1-20261124", "D2-20261124"


def test_as_published_everything_is_free(view: Availability) -> None:
    assert free(view, D1) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}
    assert view.version(D1) == 0
    found = view.schedule(D1)
    assert found is not None
    first = next(iter(view.slots(found)))
    assert first.slot_id == "D1-20261124-0800"
    assert first.starts_at == found.midnight_utc + 8 * MS


def test_a_change_is_the_last_word_on_its_slot_and_on_no_other(view: Availability) -> None:
    view.change({f"{D1}-0800": 1, f"{D1}-0830": 0}, 7)
    view.change({f"{D1}-0800": 0}, 9)
    assert free(view, D1) == {"0800": 0, "0830": 0, "0900": 2, "1400": 2}
    assert free(view, D2) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}
    assert (view.version(D1), view.version(D2)) == (9, 0)


def test_a_version_never_goes_back(view: Availability) -> None:
    view.change({f"{D1}-0800": 1}, 9)
    view.change({f"{D1}-0800": 2}, 3)
    assert view.version(D1) == 9
    view.reset(None, {}, 5)
    assert view.version(D1) == 9
    view.reset(None, {}, 11)
    assert view.version(D1) == 11


def test_a_snapshot_replaces_what_was_said_before(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D1}-0830": 0}, 3)
    view.reset(None, {f"{D1}-0800": 1, f"{D2}-0900": 2}, 5)
    assert free(view, D1) == {"0800": 1, "0830": 2, "0900": 2, "1400": 2}
    assert free(view, D2)["0900"] == 0
    assert (view.version(D1), view.version(D2)) == (5, 5)


def test_a_snapshot_of_one_shard_touches_no_other_shards_schedules(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D2}-0800": 0}, 3)
    view.reset(frozenset([D1]), {f"{D1}-0830": 1, f"{D2}-0830": 1}, 5)
    assert free(view, D1) == {"0800": 2, "0830": 1, "0900": 2, "1400": 2}
    assert free(view, D2) == {"0800": 0, "0830": 2, "0900": 2, "1400": 2}


def test_a_snapshot_of_a_day_that_is_not_published_is_harmless(view: Availability) -> None:
    view.reset(None, {"D9-20261124-0800": 1, f"{D1}-2300": 1, "nonsense": 1}, 5)
    assert free(view, D1) == {"0800": 2, "0830": 2, "0900": 2, "1400": 2}


def test_a_new_catalog_keeps_what_the_actors_said(view: Availability) -> None:
    view.change({f"{D1}-0800": 0}, 3)
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
    view.change({f"{D1}-0830": 0}, 1)
    assert others(view, f"{D1}-0830") == [
        "D1-20261124-0800",  # the same doctor, nearest first
        "D1-20261124-0900",
        "D1-20261124-1400",
        "D2-20261124-0830",  # the same department and title, the same half day
        "D2-20261124-0800",
        "D2-20261124-0900",
    ]
    view.change({f"{D1}-0800": 0, f"{D1}-0900": 0, f"{D2}-0800": 0, f"{D2}-0830": 0, f"{D2}-0900": 0}, 2)
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
    view.change({f"{D1}-{clock}": 0 for clock in ("0800", "0830", "0900")}, 1)
    assert others(view, f"{D1}-0800") == [
        f"D2-202611{day}-{clock}" for day in (25, 26) for clock in ("0800", "0830", "0900")
    ]


def test_an_alternative_is_in_the_same_department_in_the_future_and_free(view: Availability) -> None:
    view.change({f"{D1}-0800": 0, f"{D1}-0900": 0}, 1)
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
