"""Where a wish could be met, and what is said where it could not."""

from dataclasses import replace
from datetime import date

import pytest

from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import Policy, Terms, Waitlist
from engine.domain.refusal import Reason, Refusal
from engine.records.catalog import Catalog, Department, Hospital, Practitioner, ScheduleRow, schedule_row
from engine.records.wishes import Member, Wanted
from engine.views import places as p
from web.faults import WISHES

DAY = date(2026, 12, 1)
MIDNIGHT = 1_796_083_200_000  # of that day, UTC
HOUR = 3_600_000
NOW = MIDNIGHT - 24 * HOUR
PATIENT = Member(b"p" * 16, date(1980, 1, 1), "male")


def department(id: str, parent: str | None = None, age_max: int | None = None) -> Department:
    return Department(id, parent, id, id, "", "", "", None, None, age_max, 0)


def person(id: str, title: str = "chief") -> Practitioner:
    return Practitioner(id, id, title, "A1", "", "", 0)


CATALOG = Catalog(
    1,
    Hospital("", "", "UTC"),
    {d.id: d for d in (department("A"), department("A1", "A"), department("KIDS", "A", 14), department("B"))},
    {x.id: x for x in (person("D1"), person("D2", "attending"))},
    {},
    {},
)


def session(period: str, hours: tuple[int, ...], of: str = "A1", status: str = "open") -> Session:
    slots = tuple(PlannedSlot(f"{hour:02}00", MIDNIGHT + hour * HOUR, 2) for hour in hours)
    return Session(period, of, "expert", None, 0, slots, status=status)


def row(practitioner: str = "D1", *sessions: Session) -> ScheduleRow:
    return schedule_row(
        practitioner, DAY, False, sessions or (session("morning", (8, 9)), session("afternoon", (14, 15)))
    )


WANTED = Wanted("A", DAY, DAY)


def find(
    wanted: Wanted = WANTED,
    *rows: ScheduleRow,
    policy: Policy | None = None,
    members: tuple[Member, ...] = (PATIENT,),
    now: int = NOW,
) -> p.Found:
    return p.find_places(rows or (row(),), CATALOG, policy or Policy(), wanted, members, now)


def test_any_of_the_day_is_just_that() -> None:
    assert find().places == {"D1-20261201": []}
    assert find(replace(WANTED, department_id="A1")).places == {"D1-20261201": []}


@pytest.mark.parametrize(
    ("changes", "clocks"),
    [
        ({"periods": ("afternoon",)}, ["1400", "1500"]),
        ({"not_before": "0900"}, ["0900", "1400", "1500"]),
        ({"not_after": "0830"}, ["0800"]),
        ({"not_before": "0900", "not_after": "1400"}, ["0900", "1400"]),
        ({"before": MIDNIGHT + 9 * HOUR}, ["0800"]),
    ],
)
def test_times_of_day_name_their_slots(changes: dict[str, object], clocks: list[str]) -> None:
    assert find(replace(WANTED, **changes)).places == {"D1-20261201": clocks}  # type: ignore[arg-type]


def test_a_day_that_has_begun_is_still_any_of_what_is_left() -> None:
    off = Policy(terms={("", ""): Terms(waitlist=Waitlist(closes_minutes=0))})
    assert find(policy=off, now=MIDNIGHT + 8 * HOUR).places == {"D1-20261201": []}
    # Where a list has closed on some that are still to come, those that are left are named.
    assert find(now=MIDNIGHT + 7 * HOUR).places == {"D1-20261201": ["1400", "1500"]}


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (replace(WANTED, department_id="B"), p.NO_SESSION),
        (replace(WANTED, practitioner_ids=("D2",)), p.NO_SESSION),
        (replace(WANTED, title="resident"), p.NO_SESSION),
        (replace(WANTED, first_day=date(2026, 12, 2), last_day=date(2026, 12, 3)), p.NO_SESSION),
        (replace(WANTED, periods=("night",)), p.NOT_AT_THESE_TIMES),
        (replace(WANTED, before=MIDNIGHT + 8 * HOUR), p.NOT_EARLIER),
    ],
)
def test_the_reason_is_what_took_the_last_place_away(wanted: Wanted, why: str) -> None:
    assert find(wanted) == p.Found({}, why)


def test_what_is_over_or_off_is_no_place() -> None:
    assert find(now=MIDNIGHT + 13 * HOUR).why_not == p.OVER
    assert find(WANTED, row("D1", session("morning", (8,), status="suspended"))).why_not == p.SUSPENDED
    paused = find(WANTED, row("D1", session("morning", (8,), status="paused")))
    assert paused.places, "a pause passes"
    none = Policy(terms={("", ""): Terms(waitlist=Waitlist(enabled=False))})
    assert find(policy=none).why_not == p.NO_WAITLIST


def test_departments_see_whom_they_see() -> None:
    kids = row("D1", session("morning", (8,), "KIDS"))
    refused = find(WANTED, kids).why_not
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.detail["rule"]) == (Reason.NOT_ELIGIBLE, "department_age")
    assert refused.detail["patient_id"] == PATIENT.patient_id.hex()
    both = row("D1", session("morning", (8,), "KIDS"), session("afternoon", (14,)))
    assert find(WANTED, both).places == {"D1-20261201": ["1400"]}
    child = Member(b"c" * 16, date(2020, 1, 1), "female")
    assert find(WANTED, kids, members=(child,)).places == {"D1-20261201": []}
    assert find(WANTED, kids, members=(child, PATIENT)).places == {}, "all or nobody"


def test_who_is_not_verified_waits_nowhere_that_wants_real_names() -> None:
    unknown = replace(PATIENT, is_verified=False)
    assert find(members=(unknown,)).places
    refused = find(members=(PATIENT, unknown), policy=Policy(real_name_required=True)).why_not
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.detail["rule"]) == (Reason.NOT_ELIGIBLE, "real_name_required")
    assert find(members=(PATIENT,), policy=Policy(real_name_required=True)).places


def test_one_number_a_day_and_department_and_one_place_at_a_time() -> None:
    here = replace(PATIENT, visits=[("A1", "20261201", MIDNIGHT + 8 * HOUR)])
    assert find(members=(here,)) == p.Found({}, p.BOOKED)
    elsewhere = replace(PATIENT, visits=[("B", "20261201", MIDNIGHT + 9 * HOUR)])
    assert find(members=(elsewhere,)).places == {"D1-20261201": ["0800", "1400", "1500"]}
    tomorrow = replace(PATIENT, visits=[("A1", "20261202", MIDNIGHT + 33 * HOUR)])
    assert find(members=(tomorrow,)).places == {"D1-20261201": []}


def test_several_doctors_are_several_places() -> None:
    assert set(find(WANTED, row("D1"), row("D2")).places) == {"D1-20261201", "D2-20261201"}
    assert set(find(replace(WANTED, title="attending"), row("D1"), row("D2")).places) == {"D2-20261201"}


def test_every_reason_has_words() -> None:
    reasons = {
        p.NO_SESSION,
        p.NOT_AT_THESE_TIMES,
        p.NOT_EARLIER,
        p.OVER,
        p.NO_WAITLIST,
        p.SUSPENDED,
        p.BOOKED,
    }
    assert reasons | {"another_patient", "wishes_max"} == set(WISHES)
