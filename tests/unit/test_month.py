"""The bytes that are kept of schedules: always what they would be if they were made now, and their tags."""

from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.planning import PlannedSlot, Session, Share, Stage, plan_as_data
from engine.domain.policy import EVERYBODY, Channel, Policy, Terms
from engine.records.appointments import Taken
from engine.records.catalog import (
    NOT_IMPORTED,
    Catalog,
    Department,
    Practitioner,
    ScheduleRow,
    schedule_row,
)
from engine.views.availability import Availability
from tests.support.virtual_time import run
from web.conditional import etag_of, unchanged
from web.patient import pages as pages_module
from web.patient.pages import Pages, Wanted

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 11, 24)
HOUR = 3_600_000
MIDNIGHT = schedule_row("D0", DAY, False, ()).midnight_utc
DOCTORS = 4
DAYS = 3


def catalog(*names: str) -> Catalog:
    departments = [
        Department(id, parent, id, "", "", "", "", None, None, None, 0)
        for id, parent in (("in", None), ("cardio", "in"), ("derma", None))
    ]
    people = [Practitioner(f"D{n}", name, "chief", "cardio", "", "", n) for n, name in enumerate(names)]
    return Catalog(1, NOT_IMPORTED, {d.id: d for d in departments}, {p.id: p for p in people}, {}, {})


PLAIN = catalog("Zhang", "Li", "王", "Zhao")
RENAMED = catalog("Zhang", "Li", "Wang", "Zhao")


def row(doctor: int, day: int, kind: int = 0) -> ScheduleRow:
    """One of a few shapes of a day."""
    midnight = MIDNIGHT + day * 24 * HOUR
    starts = [midnight + hour * HOUR for hour in (0, 1, 6)]
    shares: tuple[Share, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
    if kind in (1, 2):
        shares = (
            Share("", (Stage(midnight - 2 * HOUR, EVERYBODY),)),
            Share("w", (Stage(midnight - 5 * HOUR, Channel.WINDOW), Stage(midnight - HOUR, EVERYBODY))),
        )
        runs = ((0, 2), (1, 1))
    slots = tuple(PlannedSlot(f"{8 + n:02}00", at, 3, runs) for n, at in enumerate(starts))
    status = "paused" if kind == 2 else "open"
    substitute = "D3" if kind == 3 else None
    department = "derma" if kind == 4 else "cardio"
    session = Session("morning", department, "expert", None, 5000, slots, shares, status, substitute)
    return schedule_row(f"D{doctor}", DAY + timedelta(day), False, (session,))


EVERYTHING = Wanted()
SELECTIONS = (EVERYTHING, Wanted("in"), Wanted("derma"), Wanted(None, "D1"), Wanted(first=DAY + timedelta(1)))
days = st.tuples(st.integers(0, DOCTORS - 1), st.integers(0, DAYS - 1))
steps = st.one_of(
    st.tuples(st.just("seats"), days, st.integers(0, 3)),
    st.tuples(st.just("plan"), days, st.integers(0, 5)),
    st.tuples(st.just("snapshot"), days, st.integers(0, 3)),
    st.tuples(st.just("catalog"), days, st.integers(0, 3)),
    st.tuples(st.just("time"), days, st.integers(-3 * HOUR, 30 * HOUR)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, max_size=12))
def test_unchanged_is_said_of_nothing_that_differs_in_a_byte(
    news: list[tuple[str, tuple[int, int], int]],
) -> None:
    """After any news, and at any time, every answer is what a gateway that has just started would make of
    the same state, and equal tags mean equal bytes."""

    async def live() -> None:
        rows = [row(doctor, day) for doctor in range(DOCTORS) for day in range(DAYS)]
        view = Availability(PLAIN, rows)
        pages = Pages(view, ZONE)
        now = MIDNIGHT - 6 * HOUR
        bodies: dict[str, bytes] = {}
        for version, (kind, (doctor, day), n) in enumerate([("time", (0, 0), 0), *news]):
            found = row(doctor, day, n)
            slot = f"{found.id}-0900"
            if kind == "seats":
                view.change({slot: n}, {}, version)
            elif kind == "plan":
                view.change({}, {found.id: plan_as_data(found.plan) if n < 5 else []}, version)
            elif kind == "snapshot":
                view.reset(None, Taken({slot: n}, {}, {slot: list(range(n))}), version)
            elif kind == "catalog":
                rules = Policy(terms={("", ""): Terms(closes_minutes=n * 30)})
                view.replace(RENAMED if n > 1 else PLAIN, rows[: len(rows) - n % 2], policy=rules)
            else:
                now += n
            for wanted in SELECTIONS:
                selection = await pages.selection(wanted, now)
                body = selection.body()
                fresh = await Pages(view, ZONE).selection(wanted, now)
                assert (body, selection.etag) == (fresh.body(), fresh.etag)
                assert bodies.setdefault(selection.etag, body) == body
                assert [s["id"] for s in orjson.loads(body)["schedules"]] == [
                    r.id for r in view.schedules(*wanted)
                ]
            for each in view.schedules():
                fresh_pages = Pages(view, ZONE)
                assert pages.slots(each, now) == fresh_pages.slots(each, now)
                assert pages.counts(each, now) == fresh_pages.counts(each, now)

    run(live())


def test_the_parts_of_what_has_not_changed_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    really = Pages._make_schedule

    def counting(self: Pages, row: ScheduleRow, now: int) -> pages_module.Part:
        made.append(row.id)
        return really(self, row, now)

    monkeypatch.setattr(Pages, "_make_schedule", counting)

    async def live() -> None:
        view = Availability(PLAIN, [row(doctor, day) for doctor in range(DOCTORS) for day in range(DAYS)])
        pages = Pages(view, ZONE)
        now = MIDNIGHT - HOUR
        first = (await pages.selection(EVERYTHING, now)).etag
        assert len(made) == DOCTORS * DAYS
        made.clear()
        assert (await pages.selection(EVERYTHING, now + 1)).etag == first and made == []
        view.change({"D1-20261124-0800": 1}, {}, 1)
        assert (await pages.selection(EVERYTHING, now)).etag != first and made == ["D1-20261124"]
        made.clear()
        await pages.selection(EVERYTHING, MIDNIGHT)  # the first slots of this day begin
        assert sorted(made) == [f"D{n}-20261124" for n in range(DOCTORS)]
        made.clear()
        view.change({}, {"D2-20261125": plan_as_data(row(2, 1, 3).plan)}, 2)
        await pages.selection(EVERYTHING, MIDNIGHT)
        assert made == ["D2-20261125"], "another structure, but the same days"

    run(live())


def test_a_list_says_what_its_slots_add_up_to() -> None:
    async def live() -> None:
        view = Availability(PLAIN, [row(0, 0, 1)])
        pages = Pages(view, ZONE)
        now = MIDNIGHT - 2 * HOUR
        (listed,) = orjson.loads((await pages.selection(EVERYTHING, now)).body())["schedules"]
        (session,) = listed["sessions"]
        assert (session["capacity"], session["remaining"], session["status"]) == (6, 6, "open")
        assert session["opens_at"] == "2026-11-24T07:00:00+08:00"
        slots = orjson.loads(pages.slots(view.schedule("D0-20261124"), now).body)  # type: ignore[arg-type]
        assert [s["opens_at"] for s in slots["slots"]] == ["2026-11-24T07:00:00+08:00"] * 3
        assert (slots["practitioner_id"], slots["substitutes"], slots["version"]) == ("D0", [], 0)
        view.change({}, {"D0-20261124": plan_as_data(row(0, 0, 3).plan)}, 8)
        (listed,) = orjson.loads((await pages.selection(EVERYTHING, now)).body())["schedules"]
        assert listed["sessions"][0]["substitute_name"] == "Zhao"
        slots = orjson.loads(pages.slots(view.schedule("D0-20261124"), now).body)  # type: ignore[arg-type]
        assert [s["practitioner_name"] for s in slots["substitutes"]] == ["Zhao"]

    run(live())


def test_lists_that_are_kept_ready_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "SELECTIONS_MAX", 3)

    async def live() -> None:
        pages = Pages(Availability(PLAIN, [row(0, 0)]), UTC)
        for n in range(10):
            await pages.selection(Wanted(first=DAY - timedelta(n)), 0)
        assert len(pages._selections) == 3

    run(live())


@pytest.mark.parametrize(
    ("given_tag", "holds"),
    [
        (None, False),
        ("{}", True),
        ("W/{}", True),
        ('"other", {}', True),
        ("*", True),
        ('"other"', False),
        ("nonsense", False),
        ("", False),
    ],
)
async def test_a_tag_holds_however_it_is_spelled(given_tag: str | None, holds: bool) -> None:
    etag = etag_of([b"x"])
    headers = {} if given_tag is None else {"If-None-Match": given_tag.format(etag)}
    answer = unchanged(make_mocked_request("GET", "/", headers=headers), etag)
    assert (answer is not None) == holds
    if answer is not None:
        assert isinstance(answer, web.Response) and answer.status == 304
        assert answer.headers["ETag"] == etag and answer.body is None
