"""Live schedule work through a running server: every change once, what refuses it, who must agree, what is
foreseen and what then happens, and the history of it all."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from tests.integration.test_api import ZONE, Answer, Hospital, Json, Person, until
from tests.support.system import System, run, started
from web.demo_staff import DEMO_PASSWORD

SEEN_SECONDS_MAX = 5.0
POLICY = """\
approvals:
  suspend: manager
  open_session: manager
  change_template: manager
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with started("--gateways", "1", "--shards", "2") as system:
        file = tmp_path_factory.mktemp("policy") / "policy.yaml"
        file.write_text(POLICY)
        applied = run("policy", "apply", str(file), "--home", str(system.home), "--who", "test")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        yield system


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


class Colleague:
    """One of the demo's staff, or whoever has this password."""

    def __init__(self, hospital: Hospital, username: str, password: str = DEMO_PASSWORD) -> None:
        grant = {"grant": "password", "username": username, "password": password}
        self.hospital = hospital
        self.token: str = hospital.post("/api/v1/sessions", body=grant).good(201)["access_token"]

    def post(self, path: str, body: object = None, key: str | None = None, **headers: str) -> Answer:
        key = str(uuid4()) if key is None else key
        return self.hospital.post(f"/api/v1/desk/{path}", self.token, body, key, **headers)

    def put(self, path: str, body: object, key: str | None = None) -> Answer:
        key = str(uuid4()) if key is None else key
        return self.hospital.call("PUT", f"/api/v1/desk/{path}", self.token, body, key)

    def get(self, path: str, **headers: str) -> Answer:
        return self.hospital.get(f"/api/v1/desk/{path}", self.token, **headers)

    def sheet(self, schedule_id: str) -> Json:
        return self.get(f"schedules/{schedule_id}").good()

    def change(
        self, schedule_id: str, what: str, key: str | None = None, revision: int | None = None, **body: Any
    ) -> Answer:
        """On the revision that is there, unless another one is given."""
        if revision is None:
            revision = self.sheet(schedule_id)["revision"]
        return self.post(f"schedules/{schedule_id}/{what}", {"revision": revision, **body}, key)

    def preview(self, schedule_id: str, command: str, **body: Any) -> Json:
        revision = body.pop("revision", None)
        if revision is None:
            revision = self.sheet(schedule_id)["revision"]
        told = {"command": command, "revision": revision, **body}
        return self.post(f"schedules/{schedule_id}/preview", told).good()


@pytest.fixture(scope="module")
def manager(hospital: Hospital) -> Colleague:
    return Colleague(hospital, "demo-manager")


@pytest.fixture(scope="module")
def desk(hospital: Hospital) -> Colleague:
    return Colleague(hospital, "demo-desk")


@dataclass(slots=True)
class Day:
    """A doctor's day that no other test is at, in a department that takes everybody."""

    row: Json

    @property
    def id(self) -> str:
        found: str = self.row["id"]
        return found

    @property
    def session(self) -> Json:
        found: Json = self.row["sessions"][0]
        return found

    @property
    def period(self) -> str:
        found: str = self.session["period"]
        return found

    @property
    def slots(self) -> list[Json]:
        found: list[Json] = self.row["slots"]
        return found


USED: set[str] = set()


def day_of(hospital: Hospital, suits: Any = lambda row: True) -> Day:
    def mine(row: Json) -> bool:
        departments = {s["department_id"] for s in row["sessions"]}
        open_to_all = all(
            hospital.departments[d][rule] is None
            for d in departments
            for rule in ("sex", "age_min", "age_max")
        )
        return bool(
            open_to_all
            and row["id"] not in USED
            and len(row["sessions"]) == 1
            and all(s["status"] == "open" for s in row["sessions"])
            and suits(row)
        )

    row = next(hospital.free_days(mine))
    USED.add(row["id"])
    return Day(row)


@pytest.fixture
def day(hospital: Hospital) -> Day:
    return day_of(hospital, lambda row: row["sessions"][0]["period"] == "morning")


def booked(hospital: Hospital, slot_id: str) -> tuple[Person, str]:
    person = hospital.person()
    held = person.hold(slot_id).good(201)
    person.change(held["id"], "confirm").good()
    return person, held["id"]


def slots_of(sheet: Json, period: str | None = None) -> list[Json]:
    return [x for s in sheet["sessions"] if period in (None, s["period"]) for x in s["slots"]]


def clock(slot: Json) -> str:
    return f"{datetime.fromisoformat(slot['start']):%H:%M}"


# Looking.


def test_the_day_sheet_tells_who_is_booked_and_masks_the_names_for_others(
    hospital: Hospital, desk: Colleague, day: Day
) -> None:
    person, appointment_id = booked(hospital, day.slots[0]["id"])
    sheet = desk.sheet(day.id)
    (told,) = sheet["appointments"]
    assert (told["id"], told["patient_name"], told["status"]) == (appointment_id, "测试者", "booked")
    assert told["patient_id"] == person.patient_id
    slot = slots_of(sheet)[0]
    assert (slot["taken"], slot["free"]) == (1, slot["capacity"] - 1)
    doctor = Colleague(hospital, "demo-doctor")  # of another department
    (told,) = doctor.sheet(day.id)["appointments"]
    assert (told["patient_name"], told["patient_id"]) == ("测**", None)


def test_nobody_changes_what_is_not_theirs(hospital: Hospital, day: Day) -> None:
    doctor = Colleague(hospital, "demo-doctor")
    doctor.change(day.id, "status", period=day.period, status="paused").problem(403, "forbidden")
    his = Colleague(hospital, "demo-his")
    his.get(f"schedules/{day.id}").problem(403, "forbidden")
    hospital.get(f"/api/v1/desk/schedules/{day.id}", hospital.token()).problem(401, "unauthenticated")
    doctor.get("schedules/D9999-20261201").problem(404, "no_such_schedule")
    doctor.get(f"schedules/{day.id[:5]}-20261399").problem(404, "no_such_schedule")


# Every change.


def test_seats_are_taken_away_and_given_back(hospital: Hospital, desk: Colleague, day: Day) -> None:
    slot = day.slots[0]
    before = slot["capacity"]
    foreseen = desk.preview(day.id, "change_capacity", period=day.period, delta=-1)
    assert foreseen["seats_closed"] == len(day.slots) and not foreseen["affected"]
    done = desk.change(day.id, "capacity", period=day.period, delta=-1).good()
    assert (done["status"], done["revision"]) == ("done", 1)
    assert {x["free"] for x in slots_of(desk.sheet(day.id))} == {before - 1}
    until(lambda: all(x["remaining"] == before - 1 for x in hospital.slots(day.id)), SEEN_SECONDS_MAX, "seen")
    desk.change(day.id, "capacity", period=day.period, slot=clock(slot), delta=3).good()
    now = slots_of(desk.sheet(day.id))
    assert now[0]["free"] == before + 2 and {x["free"] for x in now[1:]} == {before - 1}


def test_never_below_what_is_sold(hospital: Hospital, desk: Colleague, day: Day) -> None:
    slot = day.slots[0]
    people = [booked(hospital, slot["id"]) for _ in range(slot["capacity"])]
    told = desk.change(day.id, "capacity", period=day.period, slot=clock(slot), delta=-1)
    told.problem(409, "below_sold", clock=clock(slot).replace(":", ""), sold=len(people))
    foreseen = desk.preview(day.id, "change_capacity", period=day.period, slot=clock(slot), delta=-1)
    assert foreseen["refusal"]["code"] == "below_sold"
    desk.change(day.id, "capacity", period="night", delta=1).problem(404, "no_such_session")
    desk.change(day.id, "capacity", period=day.period, slot="05:00", delta=1).problem(404, "no_such_slot")
    desk.change(day.id, "capacity", period=day.period, delta=0).problem(409, "nothing_to_change")


def test_extra_seats_for_one_channel_are_not_for_patients(
    hospital: Hospital, desk: Colleague, day: Day
) -> None:
    slot = day.slots[0]
    body = {"slot": clock(slot), "count": 2, "channel": "window"}
    desk.change(day.id, "extra-seats", **body).good()
    told = slots_of(desk.sheet(day.id))[0]
    assert (told["capacity"], told["added"]) == (slot["capacity"] + 2, 2)
    assert {p["name"]: (p["seats"], p["channels"]) for p in told["pools"]}["added"] == (2, ["window"])
    until(
        lambda: desk.hospital.slots(day.id)[0]["capacity"] == slot["capacity"], SEEN_SECONDS_MAX, "as before"
    )
    desk.change(day.id, "extra-seats", slot=clock(slot), count=2).good()
    until(
        lambda: desk.hospital.slots(day.id)[0]["capacity"] == slot["capacity"] + 2, SEEN_SECONDS_MAX, "seen"
    )


def test_a_patient_is_added_to_a_full_slot_once(hospital: Hospital, desk: Colleague, day: Day) -> None:
    slot = day.slots[0]
    for _ in range(slot["capacity"]):
        booked(hospital, slot["id"])
    person = hospital.person()
    key = str(uuid4())
    body = {"slot": clock(slot), "patient_id": person.patient_id, "note": "复查"}
    revision = desk.sheet(day.id)["revision"]
    foreseen = desk.preview(day.id, "add_patient", **body)
    assert [x["effect"] for x in foreseen["affected"]] == ["added"]
    done = desk.change(day.id, "extra-patient", key, revision, **body).good()
    assert done["appointment"]["slot_id"] == slot["id"] and done["appointment"]["status"] == "booked"
    assert done["appointment"]["number"] == foreseen["affected"][0]["number"]
    assert desk.change(day.id, "extra-patient", key, revision, **body).good() == done
    mine = person.read(done["appointment"]["id"]).good()
    assert (mine["status"], mine["channel"]) == ("booked", "doctor")
    desk.change(day.id, "extra-patient", **body).problem(409, "already_booked")
    unknown = {**body, "patient_id": str(uuid4())}
    desk.change(day.id, "extra-patient", **unknown).problem(404, "no_such_patient")
    other = {**body, "note": "别的"}
    desk.change(day.id, "extra-patient", key, revision, **other).problem(422, "key_reused")


def test_a_session_moves_with_its_people(hospital: Hospital, desk: Colleague, day: Day) -> None:
    person, appointment_id = booked(hospital, day.slots[1]["id"])
    before = person.read(appointment_id).good()
    first = datetime.fromisoformat(day.slots[0]["start"])
    later = f"{first + timedelta(minutes=30):%H:%M}"
    foreseen = desk.preview(day.id, "move_session", period=day.period, starts=later)
    (affected,) = foreseen["affected"]
    assert (affected["effect"], affected["conflicts"]) == ("moved", [])
    desk.change(day.id, "move", period=day.period, starts=later, note="会诊").good()
    after = person.read(appointment_id).good()
    assert after["start"] == affected["new_start"] != before["start"]
    assert after["number"] == before["number"]
    moved = [datetime.fromisoformat(x["start"]) for x in slots_of(desk.sheet(day.id))]
    assert moved == [datetime.fromisoformat(x["start"]) + timedelta(minutes=30) for x in day.slots]
    until(lambda: hospital.slots(day.id)[0]["start"] == moved[0].isoformat(), SEEN_SECONDS_MAX, "seen")
    told = desk.change(day.id, "move", period=day.period, starts=later)
    told.problem(409, "nothing_to_change")
    desk.change(day.id, "move", period=day.period, starts="22:30").problem(422, "invalid_times")


def test_a_move_into_another_visit_of_a_patient_is_foreseen(hospital: Hospital, desk: Colleague) -> None:
    one = day_of(hospital, lambda row: row["sessions"][0]["period"] == "morning")
    two = day_of(
        hospital,
        lambda row: (
            row["date"] == one.row["date"]
            and row["sessions"][0]["period"] == "morning"
            and row["sessions"][0]["department_id"] != one.session["department_id"]
        ),
    )
    person = hospital.person()
    for day, n in ((one, 0), (two, 1)):
        held = person.hold(day.slots[n]["id"]).good(201)
        person.change(held["id"], "confirm").good()
    later = f"{datetime.fromisoformat(two.slots[1]['start']):%H:%M}"
    foreseen = desk.preview(one.id, "move_session", period=one.period, starts=later)
    assert foreseen["conflict_count"] == 1
    (conflict,) = foreseen["affected"][0]["conflicts"]
    assert (conflict["schedule_id"], conflict["slot_id"]) == (two.id, two.slots[1]["id"])


def test_a_room_has_one_session_at_a_time(hospital: Hospital, desk: Colleague, manager: Colleague) -> None:
    one = day_of(
        hospital, lambda row: row["sessions"][0]["period"] == "morning" and _room(manager, row["id"])
    )
    taken = _room(manager, one.id)
    two = day_of(
        hospital,
        lambda row: (
            row["date"] == one.row["date"]
            and row["sessions"][0]["period"] == "morning"
            and _room(manager, row["id"]) != taken
        ),
    )
    told = desk.change(two.id, "move", period=two.period, room_id=taken)
    problem = told.problem(409, "room_taken", room=taken)
    assert problem["schedule_id"].endswith(one.id[-8:])
    desk.change(two.id, "move", period=two.period, room_id=taken, force=True).problem(409, "room_taken")
    desk.change(two.id, "move", period=two.period, room_id=taken, force=True, note="挤一挤").good()
    assert _room(manager, two.id) == taken
    desk.change(two.id, "move", period=two.period, room_id="R0").problem(422, "no_such_room", room="R0")


def _room(staff: Colleague, schedule_id: str) -> str | None:
    found: str | None = staff.sheet(schedule_id)["sessions"][0]["room_id"]
    return found


def test_a_pause_stops_booking_and_nothing_else(hospital: Hospital, desk: Colleague, day: Day) -> None:
    person, appointment_id = booked(hospital, day.slots[0]["id"])
    foreseen = desk.preview(day.id, "set_status", period=day.period, status="paused")
    desk.change(day.id, "status", period=day.period, status="paused").good()
    assert foreseen["seats_closed"] == sum(x["capacity"] for x in day.slots) - 1
    hospital.person().hold(day.slots[1]["id"]).problem(409, "session_paused")
    assert person.read(appointment_id).good()["status"] == "booked"
    desk.change(day.id, "status", period=day.period, status="open").good()
    hospital.person().hold(day.slots[1]["id"]).good(201)


def test_a_suspension_is_foreseen_and_leaves_nobody_behind(
    hospital: Hospital, manager: Colleague, day: Day
) -> None:
    person, appointment_id = booked(hospital, day.slots[0]["id"])
    holder = hospital.person()
    held = holder.hold(day.slots[1]["id"]).good(201)
    foreseen = manager.preview(day.id, "suspend", period="all", reason="doctor_ill")
    assert sorted(x["effect"] for x in foreseen["affected"]) == ["released", "suspended"]
    assert foreseen["elsewhere"]["same_title_same_day"] >= 0 and foreseen["elsewhere"]["waitlist"]
    manager.change(day.id, "suspend", period="all", reason="other").problem(422, "invalid_body")
    manager.change(day.id, "suspend", period="night", reason="leave").problem(404, "no_such_session")
    done = manager.change(day.id, "suspend", period="all", reason="doctor_ill", note="发热").good()
    assert done["revision"] == foreseen["revision"]
    assert holder.read(held["id"]).good()["status"] == "cancelled"
    assert person.read(appointment_id).good()["fate"] is not None
    report = manager.get(f"schedules/{day.id}/suspension").good()
    assert [x["appointment_id"] for x in report["appointments"]] == [appointment_id]
    hospital.person().hold(day.slots[2]["id"]).problem(409, "session_suspended")
    again = manager.change(day.id, "suspend", period="all", reason="doctor_ill")
    again.problem(409, "nothing_to_change")


def test_a_session_is_opened_where_there_is_no_clinic(hospital: Hospital, manager: Colleague) -> None:
    used = {row["id"] for row in hospital.schedules}
    free = next(
        f"D{n:04d}-{row['id'][-8:]}"
        for row in hospital.schedules
        for n in range(1, 60)
        if f"D{n:04d}-{row['id'][-8:]}" not in used | USED
    )
    USED.add(free)
    assert manager.sheet(free)["sessions"] == []
    body = {
        "period": "night",
        "starts": "18:00",
        "ends": "20:00",
        "capacity": 3,
        "number_class_id": "expert",
        "note": "加开",
    }
    wrong = {**body, "starts": "20:00", "ends": "18:00"}
    manager.change(free, "sessions", **wrong).problem(422, "invalid_times")
    manager.change(free, "sessions", **{**body, "number_class_id": "x"}).problem(422, "no_such_number_class")
    manager.change(free, "sessions", **{**body, "department_id": "03"}).problem(404, "no_such_department")
    past = f"{free[:5]}-20260105"
    manager.change(past, "sessions", **body).problem(409, "in_the_past")
    foreseen = manager.preview(free, "open_session", **body)
    assert foreseen["seats_opened"] == 12 and foreseen["revision"] == 1
    assert manager.change(free, "sessions", **body).good()["revision"] == 1
    assert [x["free"] for x in slots_of(manager.sheet(free))] == [3] * 4
    until(
        lambda: hospital.get(f"/api/v1/schedules/{free}/slots").status == 200, SEEN_SECONDS_MAX, "published"
    )
    booked(hospital, hospital.slots(free)[0]["id"])
    told = manager.change(
        free, "sessions", **{**body, "period": "afternoon", "starts": "17:00", "ends": "18:30"}
    )
    told.problem(409, "sessions_overlap")
    (line, *_) = manager.get(f"schedules/{free}/history").good()["lines"]
    assert (line["what"], line["by_name"], line["note"]) == ("session_opened", "演示门诊部主任", "加开")


def test_a_substitute_fits_and_the_patient_is_asked(hospital: Hospital, desk: Colleague) -> None:
    people: dict[str, list[Json]] = {}
    for d in hospital.departments:
        people[d] = hospital.get(f"/api/v1/departments/{d}/practitioners").good()["practitioners"]
    ranks = ["chief", "associate_chief", "attending", "resident"]

    def mates(row: Json) -> list[Json]:
        return [p for p in people[row["sessions"][0]["department_id"]] if p["id"] != row["practitioner_id"]]

    def own(row: Json) -> Json:
        return next(
            p for p in people[row["sessions"][0]["department_id"]] if p["id"] == row["practitioner_id"]
        )

    ids = {row["id"] for row in hospital.schedules}
    day = day_of(
        hospital,
        lambda row: (
            own(row)["title"] == "associate_chief"
            and any(
                ranks.index(p["title"]) <= 1 and f"{p['id']}-{row['id'][-8:]}" not in ids | USED
                for p in mates(row)
            )
            and any(ranks.index(p["title"]) > 1 for p in mates(row))
        ),
    )
    fit = next(
        p["id"]
        for p in mates(day.row)
        if ranks.index(p["title"]) <= 1 and f"{p['id']}-{day.id[-8:]}" not in ids | USED
    )
    lower = next(p["id"] for p in mates(day.row) if ranks.index(p["title"]) > 1)
    stranger = next(
        p["id"]
        for d, found in people.items()
        for p in found
        if p["department_id"] != day.session["department_id"] and p["title"] == "chief"
    )

    def ask(practitioner_id: str | None) -> Answer:
        return desk.change(day.id, "substitute", period=day.period, practitioner_id=practitioner_id)

    ask(lower).problem(409, "substitute_unfit", unfit="title")
    ask(stranger).problem(409, "substitute_unfit", unfit="department")
    ask(day.row["practitioner_id"]).problem(409, "substitute_unfit", unfit="self")
    ask("D9999").problem(404, "no_such_practitioner")
    ask(None).problem(409, "no_substitute")
    agrees, yes = booked(hospital, day.slots[0]["id"])
    declines, no = booked(hospital, day.slots[1]["id"])
    body = {"accepted": True}
    path = f"/api/v1/appointments/{yes}/substitute"
    hospital.post(path, agrees.token, body, str(uuid4())).problem(409, "no_substitute")
    foreseen = desk.preview(day.id, "substitute", period=day.period, practitioner_id=fit)
    assert {x["appointment_id"] for x in foreseen["affected"]} == {yes, no}
    ask(fit).good()
    sheet = desk.sheet(day.id)
    assert sheet["sessions"][0]["substitute_id"] == fit
    assert [x["consent"] for x in sheet["appointments"]] == [None, None]
    hospital.post(path, agrees.token, body, str(uuid4())).good()
    path = f"/api/v1/appointments/{no}/substitute"
    hospital.post(path, agrees.token, body, str(uuid4())).problem(404, "no_such_appointment")
    assert (
        hospital.post(path, declines.token, {"accepted": False}, str(uuid4())).good()["status"] == "cancelled"
    )
    assert [x["consent"] for x in desk.sheet(day.id)["appointments"]] == [True]
    # Who substitutes is nowhere else at that time.
    until(lambda: _is_away(hospital, day, fit), SEEN_SECONDS_MAX, "the substitute is seen")
    first, last = day.slots[0]["start"], day.slots[-1]["end"]
    opened = Colleague(hospital, "demo-manager").change(
        f"{fit}-{day.id[-8:]}",
        "sessions",
        period=day.period,
        starts=f"{datetime.fromisoformat(first):%H:%M}",
        ends=f"{datetime.fromisoformat(last):%H:%M}",
        capacity=1,
        number_class_id="expert",
    )
    opened.problem(409, "practitioner_busy", schedule_id=day.id)


def _is_away(hospital: Hospital, day: Day, substitute: str) -> bool:
    rows = hospital.get(f"/api/v1/schedules?practitioner={day.row['practitioner_id']}").good()["schedules"]
    return any(
        s["substitute_id"] == substitute for row in rows if row["id"] == day.id for s in row["sessions"]
    )


def test_a_doctor_changes_the_own_day(hospital: Hospital) -> None:
    doctor = Colleague(hospital, "demo-doctor")
    mine = next(
        row for row in hospital.schedules if row["practitioner_id"] == "D0001" and row["id"] not in USED
    )
    USED.add(mine["id"])
    period = mine["sessions"][0]["period"]
    slot = hospital.slots(mine["id"])[0]
    booked(hospital, slot["id"])
    doctor.change(mine["id"], "extra-seats", slot=clock(slot), count=1, channel="doctor").good()
    doctor.change(mine["id"], "capacity", period=period, delta=1).good()
    sheet = doctor.sheet(mine["id"])
    assert (sheet["revised_by"], sheet["revision"]) == ("演示医生", 2)
    assert sheet["appointments"][0]["patient_name"] == "测试者"
    asked = doctor.change(mine["id"], "suspend", period=period, reason="leave").good(202)
    assert (asked["status"], asked["role"]) == ("pending", "manager")


def test_nobody_is_added_where_they_cannot_be(hospital: Hospital, desk: Colleague) -> None:
    one = day_of(hospital, lambda row: row["sessions"][0]["period"] == "morning")
    two = day_of(
        hospital,
        lambda row: (
            row["date"] == one.row["date"]
            and row["sessions"][0]["period"] == "morning"
            and row["sessions"][0]["department_id"] != one.session["department_id"]
        ),
    )
    person, _ = booked(hospital, one.slots[0]["id"])
    body = {"slot": clock(one.slots[0]), "patient_id": person.patient_id}
    assert clock(one.slots[0]) in {clock(slot) for slot in two.slots}
    desk.change(two.id, "extra-patient", **body).problem(409, "time_conflict")
    # Nothing was done: no seat, no revision.
    sheet = desk.sheet(two.id)
    assert (sheet["revision"], sheet["appointments"]) == (0, [])
    stranger = {**body, "account_id": str(uuid4()), "slot": clock(two.slots[1])}
    desk.change(two.id, "extra-patient", **stranger).problem(403, "not_eligible")


# Two desks.


def test_of_two_desks_with_one_revision_one_wins(hospital: Hospital, desk: Colleague, day: Day) -> None:
    office = Colleague(hospital, "demo-office")
    for turn in range(5):
        answers: dict[str, Answer] = {}
        body = {"period": day.period, "delta": 1, "note": f"{turn}"}

        def change(
            name: str,
            staff: Colleague,
            turn: int = turn,
            body: Json = body,
            answers: dict[str, Answer] = answers,
        ) -> None:
            answers[name] = staff.change(day.id, "capacity", None, turn, **body)

        both = [
            threading.Thread(target=change, args=each)
            for each in (("演示窗口", desk), ("演示门诊办公室", office))
        ]
        for one in both:
            one.start()
        for one in both:
            one.join()
        won = [name for name, answer in answers.items() if answer.status == 200]
        assert len(won) == 1
        (lost,) = (answer for answer in answers.values() if answer.status != 200)
        lost.problem(409, "stale_revision", revision=turn + 1, by=won[0])
    assert desk.sheet(day.id)["revision"] == 5
    assert slots_of(desk.sheet(day.id))[0]["free"] == day.slots[0]["capacity"] + 5


def test_a_retry_changes_nothing_more(hospital: Hospital, desk: Colleague, day: Day) -> None:
    key = str(uuid4())
    first = desk.change(day.id, "capacity", key, 0, period=day.period, delta=1).good()
    assert desk.change(day.id, "capacity", key, 0, period=day.period, delta=1).good() == first
    desk.change(day.id, "capacity", key, 1, period=day.period, delta=2).problem(422, "key_reused")
    assert slots_of(desk.sheet(day.id))[0]["free"] == day.slots[0]["capacity"] + 1


# Consent.


def waiting(staff: Colleague, request_id: str, status: str = "waiting") -> Json:
    found = staff.get(f"change-requests?status={status}&limit=100").good()["requests"]
    return next(x for x in found if x["id"] == request_id)


def test_what_the_policy_binds_to_consent_waits_for_it(
    hospital: Hospital, desk: Colleague, manager: Colleague, day: Day
) -> None:
    key = str(uuid4())
    booked(hospital, day.slots[0]["id"])
    assert manager.preview(day.id, "suspend", period=day.period, reason="leave")["needs_role"] is None
    assert desk.preview(day.id, "suspend", period=day.period, reason="leave")["needs_role"] == "manager"
    body = {"period": day.period, "reason": "leave", "note": "出差"}
    asked = desk.change(day.id, "suspend", key, 0, **body).good(202)
    assert (asked["status"], asked["role"]) == ("pending", "manager")
    assert desk.change(day.id, "suspend", key, 0, **body).good(202) == asked
    assert desk.sheet(day.id)["sessions"][0]["status"] == "open"
    told = waiting(manager, asked["request_id"])
    assert (told["command"], told["asked_by"], told["note"]) == ("suspend", "演示窗口", "出差")
    path = f"change-requests/{told['id']}/decision"
    consent = {"decision": "approve", "reason": "同意"}
    desk.post(path, consent).problem(403, "forbidden", roles=["manager"])
    done = manager.post(path, consent, "consent-1" + key).good()
    assert (done["status"], done["decided_by"], done["reason"]) == ("approved", "演示门诊部主任", "同意")
    assert manager.post(path, consent, "consent-1" + key).good() == done
    manager.post(path, {"decision": "reject", "reason": "不"}).problem(409, "request_decided")
    assert desk.sheet(day.id)["sessions"][0]["status"] == "suspended"
    assert desk.change(day.id, "suspend", key, 0, **body).good(202)["status"] == "approved"
    lines = desk.get(f"schedules/{day.id}/history").good()["lines"]
    line = next(x for x in lines if x["what"] == "session_suspended")
    assert (line["by_name"], line["approved_by"], line["reason"]) == ("演示窗口", "演示门诊部主任", "leave")


def test_consent_to_a_stale_revision_is_refused_and_the_request_stays(
    hospital: Hospital, desk: Colleague, manager: Colleague, day: Day
) -> None:
    asked = desk.change(day.id, "suspend", None, 0, period=day.period, reason="meeting").good(202)
    desk.change(day.id, "status", period=day.period, status="paused").good()
    path = f"change-requests/{asked['request_id']}/decision"
    told = manager.post(path, {"decision": "approve", "reason": "好"})
    told.problem(409, "stale_revision", revision=1, by="演示窗口")
    assert waiting(manager, asked["request_id"])["status"] == "pending"
    done = manager.post(path, {"decision": "reject", "reason": "情况有变"}).good()
    assert (done["status"], done["reason"]) == ("rejected", "情况有变")
    assert waiting(desk, asked["request_id"], "rejected")["decided_by"] == "演示门诊部主任"
    assert desk.sheet(day.id)["sessions"][0]["status"] == "paused"
    manager.post(f"change-requests/{uuid4()}/decision", {"decision": "approve", "reason": "好"}).problem(
        404, "no_such_request"
    )


def test_what_cannot_be_is_refused_before_anybody_is_asked(desk: Colleague, day: Day) -> None:
    body = {"period": "afternoon", "starts": "08:00", "ends": "12:00", "capacity": 1}
    told = desk.change(day.id, "sessions", number_class_id="expert", **body)
    told.problem(409, "sessions_overlap")
    assert not [x for x in desk.get("change-requests?limit=100").good()["requests"] if x["target"] == day.id]


# Who is looking.


async def test_who_looks_at_the_day_hears_of_it(hospital: Hospital, desk: Colleague, day: Day) -> None:
    async with (
        ClientSession() as session,
        session.ws_connect(f"{hospital.system.address}/api/v1/stream") as ws,
    ):
        await ws.send_json({"subscribe": [f"schedule/{day.id}"]})
        while "snapshot" not in await ws.receive_json(timeout=SEEN_SECONDS_MAX):
            pass
        body = {"period": day.period, "status": "paused"}
        changed = await asyncio.to_thread(desk.change, day.id, "status", **body)
        changed.good()
        heard: Json = {}
        while "plan" not in heard:
            heard = await ws.receive_json(timeout=SEEN_SECONDS_MAX)
        assert heard["plan"]["schedule_id"] == day.id
        (told,) = heard["plan"]["schedule"]["sessions"]
        assert told["status"] == "paused"


# History.


def test_the_history_of_a_number_tells_when_what_who_and_why(
    hospital: Hospital, desk: Colleague, day: Day
) -> None:
    person, appointment_id = booked(hospital, day.slots[0]["id"])
    later = f"{datetime.fromisoformat(day.slots[1]['start']):%H:%M}"
    desk.change(day.id, "status", period=day.period, status="paused").good()
    desk.change(day.id, "move", period=day.period, starts=later, note="内部说明").good()
    desk.change(day.id, "capacity", period=day.period, delta=1).good()
    person.change(appointment_id, "cancel").good()
    path = f"/api/v1/appointments/{appointment_id}/history"
    lines = hospital.get(path, person.token, Accept_Language="en").good()["lines"]
    assert [(x["what"], x["by"], x["by_name"], x["note"]) for x in lines] == [
        ("held", "self", None, None),
        ("booked", "self", None, None),
        ("session_moved", "staff", None, None),
        ("excused", "self", None, None),
    ]
    assert lines[0]["text"].startswith(f"Held {clock(day.slots[0])}, number ")
    assert hospital.get(path, person.token).good()["lines"][1]["text"] == "预约成功"
    hospital.get(path, hospital.token()).problem(404, "no_such_appointment")
    told = desk.get(f"schedules/{day.id}/history?limit=2").good()
    more = desk.get(f"schedules/{day.id}/history?after={told['after']}").good()
    assert more["after"] is None
    whole = desk.get(f"schedules/{day.id}/history").good()["lines"]
    assert told["lines"] + more["lines"] == whole
    assert [x["what"] for x in whole] == [
        "day_opened",
        "held",
        "booked",
        "session_paused",
        "session_moved",
        "capacity_changed",
        "excused",
    ]
    assert whole[4]["note"] == "内部说明" and whole[4]["by_name"] == "演示窗口"


# Weeks.


def test_a_week_is_foreseen_changed_and_followed(
    hospital: Hospital, desk: Colleague, manager: Colleague
) -> None:
    def as_in_the_week(row: Json) -> bool:
        overrides = manager.get(f"practitioners/{row['practitioner_id']}/templates").good()["overrides"]
        return row["sessions"][0]["period"] == "morning" and row["date"] not in [x["day"] for x in overrides]

    day = day_of(hospital, as_in_the_week)
    who = day.row["practitioner_id"]
    week = manager.get(f"practitioners/{who}/templates").good()
    booked(hospital, day.slots[0]["id"])
    body = {
        "revision": week["revision"],
        "note": "每节多一个号",
        "templates": [{**t, "capacity": t["capacity"] + 1} for t in week["templates"]],
    }
    path = f"practitioners/{who}/templates"
    foreseen = manager.put(f"{path}?preview=true", body).good()
    assert foreseen["status"] == "preview"
    assert manager.get(path).good() == week
    kept = {x["schedule_id"]: x for x in foreseen["days"] if x["effect"] == "kept"}
    assert kept[day.id]["booked"] == 1
    assert kept[day.id]["needed"] == [{"command": "change_capacity", "period": "morning"}]
    waits = desk.put(path, body).good(202)
    assert manager.get(path).good() == week
    consent = {"decision": "approve", "reason": "好"}
    done = manager.post(f"change-requests/{waits['request_id']}/decision", consent).good()
    assert done["status"] == "approved"
    after = manager.get(path).good()
    assert (after["templates"], after["revision"]) == (
        foreseen["week"]["templates"],
        foreseen["week"]["revision"],
    )
    assert after["changed_by"] == "演示窗口"
    changed = [x["schedule_id"] for x in foreseen["days"] if x["effect"] == "rewritten"]
    before = {(x["weekday"], x["period"]): x["capacity"] for x in week["templates"]}
    special = {(x["day"], x["period"]) for x in week["overrides"]}
    for schedule_id in changed:
        sheet = manager.sheet(schedule_id)
        weekday = datetime.fromisoformat(sheet["day"]).isoweekday()
        for session in sheet["sessions"]:
            if (sheet["day"], session["period"]) not in special:
                wanted = before[weekday, session["period"]] + 1
                assert {x["capacity"] for x in session["slots"]} == {wanted}
    assert changed
    assert slots_of(manager.sheet(day.id))[0]["capacity"] == day.slots[0]["capacity"]
    manager.put(path, body).problem(409, "stale_revision", revision=after["revision"], by="演示窗口")
    back = {"revision": after["revision"], "templates": week["templates"]}
    key = str(uuid4())
    first = manager.put(path, back, key).good()
    assert first["week"]["revision"] == week["revision"]
    assert manager.put(path, back, key).good()["week"]["templates"] == week["templates"]
    told = manager.get(f"{path}/history?limit=1").good()
    (last,) = told["changes"]
    assert (last["by_name"], last["kind"]) == ("演示门诊部主任", "templates")
    (first_change,) = manager.get(f"{path}/history?before={told['before']}").good()["changes"]
    assert (first_change["by_name"], first_change["note"]) == ("演示窗口", "每节多一个号")
    assert first_change["after"] == last["before"] and first_change["before"] == last["after"]


def test_a_week_that_cannot_be_is_refused_with_every_fault(manager: Colleague) -> None:
    week = manager.get("practitioners/D0002/templates").good()
    one = {
        "weekday": 1,
        "period": "morning",
        "starts": "08:00",
        "ends": "12:00",
        "capacity": 2,
        "number_class_id": "expert",
    }
    wrong = [
        one,
        {**one, "starts": "09:00"},
        {**one, "period": "afternoon", "starts": "11:30", "ends": "14:00"},
        {**one, "weekday": 2, "starts": "12:00", "ends": "08:00"},
        {**one, "weekday": 3, "number_class_id": "x", "room_id": "R0", "department_id": "03"},
    ]
    told = manager.put(
        "practitioners/D0002/templates", {"revision": week["revision"], "templates": wrong}
    ).problem(422, "invalid_week")
    assert sorted((x["loc"][2], x["code"]) for x in told["errors"]) == [
        (1, "session_twice"),
        (2, "session_overlap"),
        (2, "session_overlap"),  # with each of the two
        (3, "invalid_times"),
        (4, "department_above"),
        (4, "no_such_number_class"),
        (4, "no_such_room"),
    ]
    manager.get("practitioners/D9999/templates").problem(404, "no_such_practitioner")


def test_one_date_is_closed_and_opened_again(hospital: Hospital, desk: Colleague, manager: Colleague) -> None:
    day = day_of(hospital, lambda row: row["sessions"][0]["period"] == "morning")
    who = day.row["practitioner_id"]
    path = f"practitioners/{who}/overrides/{day.row['date']}/morning"
    revision = manager.get(f"practitioners/{who}/templates").good()["revision"]
    foreseen = manager.put(f"{path}?preview=true", {"revision": revision, "closed": True}).good()
    assert [(x["schedule_id"], x["effect"]) for x in foreseen["days"]] == [(day.id, "withdrawn")]
    done = manager.put(path, {"revision": revision, "closed": True, "note": "院庆"}).good()
    assert done["days"] == foreseen["days"]
    until(
        lambda: hospital.get(f"/api/v1/schedules/{day.id}/slots").status == 404, SEEN_SECONDS_MAX, "withdrawn"
    )
    assert manager.sheet(day.id)["sessions"] == []
    hospital.person().hold(day.slots[0]["id"]).problem(404, "no_such_schedule")
    both = {"revision": done["week"]["revision"], "closed": True, "capacity": 3}
    told = manager.put(path, both).problem(422, "invalid_week")
    assert told["errors"][0]["code"] == "closed_with_hours"
    none = f"practitioners/{who}/overrides/{day.row['date']}/night"
    told = manager.put(none, {"revision": done["week"]["revision"], "closed": True}).problem(
        422, "invalid_week"
    )
    assert told["errors"][0]["code"] == "no_such_session"
    yesterday = datetime.now(ZONE).date() - timedelta(days=1)
    past = f"practitioners/{who}/overrides/{yesterday}/morning"
    manager.put(past, {"revision": done["week"]["revision"], "closed": True}).problem(409, "in_the_past")
    # The desk asks for consent to have it as in the week again.
    waits = desk.put(path, {"revision": done["week"]["revision"]}).good(202)
    decision = f"change-requests/{waits['request_id']}/decision"
    manager.post(decision, {"decision": "approve", "reason": "好"}).good()
    assert manager.get(f"practitioners/{who}/templates").good()["revision"] == revision
    assert slots_of(manager.sheet(day.id))[0]["capacity"] == day.slots[0]["capacity"]


def test_after_all_of_this_the_books_agree(system: System) -> None:
    audited = run("audit", "--home", str(system.home))
    assert audited.returncode == 0, audited.stdout + audited.stderr
