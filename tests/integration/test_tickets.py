"""Tickets through a running server: who sees what of them, what patients do with them, walk-ins, vitals."""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import partial
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from benchmarks.check import database_url
from tests.integration.test_api import Answer, Hospital, Json
from tests.integration.test_check_in import FAR, HERE, Clinic, Patient, at_once, insisting
from tests.integration.test_desk_schedules import Colleague
from tests.support.noon import (
    BRAIN,
    EMERGENCY,
    GENERAL_PRACTICE,
    HEART,
    LUNGS,
    STOMACH,
    SURGERY,
    WOMEN,
    noon_hospital,
    noon_zone,
)
from tests.support.system import started
from web.audit import audit_url


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    hospital = noon_hospital(tmp_path_factory.mktemp("noon"))
    with started("--gateways", "1", "--shards", "2", hospital=hospital) as system:
        yield Clinic(system, Hospital(system), ZoneInfo(noon_zone()))


def waiting(clinic: Clinic, practitioner: str, clock: str = "1330") -> tuple[Patient, Json]:
    patient = clinic.booked(practitioner, clock)
    return patient, patient.check_in().good(201)


def do(clinic: Clinic, patient: Patient, ticket: Json, verb: str, body: object = None, key: str = "") -> Json:
    path = f"/api/v1/tickets/{ticket['id']}/{verb}"
    return clinic.post(patient, path, body, key or str(uuid4())).good()


def call(clinic: Clinic, ticket: Json, room: str) -> None:
    body = {"room_id": room, "reason": "试叫"}
    clinic.queue(ticket["department_id"], f"tickets/{ticket['id']}/call", body).good()


def missed(clinic: Clinic, ticket: Json, room: str) -> None:
    """Called, and was not there."""
    call(clinic, ticket, room)
    clinic.step(ticket, "pass")


# Who sees what.


def test_a_ticket_is_seen_by_those_whom_it_concerns(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0007")
    path = f"/api/v1/tickets/{ticket['id']}"
    get = clinic.hospital.get
    spouse = clinic.person()
    get(path, spouse.token).problem(404, "no_such_ticket")
    get(f"{path}/ahead", spouse.token).problem(404, "no_such_ticket")
    clinic.post(spouse, f"{path}/leave").problem(404, "no_such_ticket")
    added = spouse.add(name="欧阳明月", relation="spouse", **patient.by_document)
    assert added["id"] == patient.patient_id
    assert get(path, spouse.token).good()["patient_name"] == "欧阳明月", "one of the account's patients now"
    clinic.hospital.call("DELETE", f"/api/v1/patients/{added['id']}", spouse.token).good()
    get(path, spouse.token).problem(404, "no_such_ticket")

    at_kiosk = get(path, clinic.kiosk.token).good()
    assert (at_kiosk["patient_name"], at_kiosk["priority"], at_kiosk["emergency"]) == ("欧**月", None, None)
    assert get(path, clinic.nurse.token).good()["patient_name"] == "欧阳明月"
    get(path, clinic.doctor.token).problem(404, "no_such_ticket")  # of another department
    get(path, Colleague(clinic.hospital, "demo-screen").token).problem(403, "forbidden")
    get(path).problem(401, "unauthenticated")
    get(f"/api/v1/tickets/{uuid4()}", patient.token).problem(404, "no_such_ticket")
    get("/api/v1/tickets/17", patient.token).problem(404, "not_found")


def test_a_ticket_that_is_as_it_was_is_not_sent_again(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0007")
    path = f"/api/v1/tickets/{ticket['id']}"
    first = clinic.hospital.get(path, patient.token)
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = clinic.hospital.call("GET", path, patient.token, If_None_Match=first.headers["ETag"])
    assert (again.status, again.raw) == (304, b"")
    do(clinic, patient, ticket, "delay", {"ahead": 3})
    changed = clinic.hospital.call("GET", path, patient.token, If_None_Match=first.headers["ETag"])
    assert changed.good()["version"] > first.body["version"]


def test_an_account_lists_the_tickets_of_all_its_patients(clinic: Clinic) -> None:
    patient, first = waiting(clinic, "D0034")
    child = patient.add(name="小明", relation="child", id_number="C" + secrets.token_hex(5).upper())
    held = patient.hold(clinic.slot("D0007"), patient_id=child["id"]).good(201)
    patient.change(held["id"], "confirm").good()
    second = patient.check_in(appointment=held["id"]).good(201)
    get = clinic.hospital.get
    found = get("/api/v1/tickets", patient.token).good()["tickets"]
    assert [(one["id"], one["patient_name"]) for one in found] == [
        (second["id"], "小明"),
        (first["id"], "欧阳明月"),
    ]
    assert all(one["status"] == "waiting" and one["position"] == one["ahead"] + 1 for one in found)
    tomorrow = date.fromisoformat(clinic.today) + timedelta(days=1)
    assert get(f"/api/v1/tickets?from={tomorrow}", patient.token).good()["tickets"] == []
    assert len(get(f"/api/v1/tickets?from={clinic.today}", patient.token).good()["tickets"]) == 2
    get("/api/v1/tickets?from=today", patient.token).problem(422, "invalid_query")
    get("/api/v1/tickets", clinic.nurse.token).problem(401, "unauthenticated")
    do(clinic, patient, first, "leave")
    [_, left] = get("/api/v1/tickets", patient.token).good()["tickets"]
    assert (left["status"], left["position"], left["room"]) == ("left", None, None)


def test_everybody_ahead_has_a_reason_and_no_name(clinic: Clinic) -> None:
    """Booked at 13:30 and at 14:00, a soldier, an emergency, and one whom the nurse has moved."""
    patient, mine = waiting(clinic, "D0036", "1400")
    _, earlier = waiting(clinic, "D0036", "1330")
    soldier = clinic.booked("D0036", "1400")
    urgent = clinic.booked("D0036", "1400")
    moved, at_front = waiting(clinic, "D0036", "1400")
    privileged = clinic.at(clinic.desk, {**soldier.by_document, "priority": "soldier"}).good(201)
    first = clinic.at(clinic.nurse, {**urgent.by_document, "emergency": 1}).good(201)
    clinic.queue(HEART, f"tickets/{at_front['id']}/move", {"ahead": 0, "reason": "隐私原因"}).good()
    answer = clinic.hospital.get(f"/api/v1/tickets/{mine['id']}/ahead", patient.token)
    found = answer.good()
    assert found["number"] == mine["number"]
    people = {one["number"]: one for one in found["people"]}
    assert len(people) == len(found["people"]) == found["position"] - 1
    assert people[first["number"]]["why"]["code"] == "emergency"
    assert people[at_front["number"]]["why"]["code"] == "moved"
    assert people[earlier["number"]]["why"]["code"] == "earlier_time"
    said = people[earlier["number"]]["why"]["text"]
    assert said["zh"] == "预约时间 13:30 早于您的 14:00。"
    assert said["en"] == "Has the earlier appointment: 13:30, and yours is at 14:00."
    assert people[privileged["number"]]["why"]["code"] == "lane_turn"
    assert people[privileged["number"]]["lane"] == {"zh": "优先类别", "en": "those with priority"}
    told = answer.raw.decode()
    for hidden in ("欧阳", "soldier", "隐私原因", "staff:", moved.patient_id, first["id"]):
        assert hidden not in told
    # Whoever is being seen is ahead as well; whoever does not wait has nobody ahead.
    clinic.open_room(HEART, "R0304.1", ["D0036"], "D0036")
    call(clinic, first, "R0304.1")
    found = clinic.hospital.get(f"/api/v1/tickets/{mine['id']}/ahead", patient.token).good()
    assert [(one["number"], one["why"]["code"]) for one in found["people"][:1]] == [
        (first["number"], "called")
    ]
    inside = clinic.hospital.get(f"/api/v1/tickets/{first['id']}/ahead", urgent.token).good()
    assert (inside["people"], inside["position"]) == ([], None)


# What patients do.


def test_a_patient_lets_others_go_first_and_cannot_go_forward(clinic: Clinic) -> None:
    waiting(clinic, "D0034", "1330")
    patient, ticket = waiting(clinic, "D0034", "1330")
    others = [waiting(clinic, "D0034", "1400") for _ in range(3)]
    before = clinic.ticket(patient, ticket["id"])["position"]
    assert before > 1
    key = str(uuid4())
    moved = do(clinic, patient, ticket, "delay", {"ahead": 2}, key)
    assert moved["position"] == before + 2
    assert do(clinic, patient, ticket, "delay", {"ahead": 2}, key)["position"] == before + 2, "a retry"
    assert clinic.ticket(others[0][0], others[0][1]["id"])["position"] < moved["position"]
    ahead = clinic.hospital.get(f"/api/v1/tickets/{ticket['id']}/ahead", patient.token).good()["people"]
    assert ahead[-1]["why"]["text"]["zh"] == "您申请了延后，排在其后。"
    path = f"/api/v1/tickets/{ticket['id']}/delay"
    for ahead_by in (0, -1, 21, 1.5):
        clinic.post(patient, path, {"ahead": ahead_by}).problem(422, "invalid_body")
    clinic.open_room(HEART, "R0304.2", ["D0034"], "D0034")
    call(clinic, ticket, "R0304.2")
    clinic.post(patient, path, {"ahead": 1}).problem(409, "wrong_status", ticket_status="called")


def test_who_gives_up_waits_no_more(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0007")
    key = str(uuid4())
    left = do(clinic, patient, ticket, "leave", key=key)
    assert (left["status"], left["position"]) == ("left", None)
    assert do(clinic, patient, ticket, "leave", key=key)["status"] == "left"
    path = f"/api/v1/tickets/{ticket['id']}"
    clinic.post(patient, f"{path}/leave").problem(409, "wrong_status", ticket_status="left")
    clinic.post(patient, f"{path}/return", HERE).problem(409, "wrong_status")
    patient.check_in().problem(409, "already_checked_in")


def test_a_missed_call_is_made_good_by_the_app_or_at_a_kiosk(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0008")
    clinic.open_room(LUNGS, "R0301.1", ["D0008"], "D0008")
    path = f"/api/v1/tickets/{ticket['id']}/return"
    clinic.post(patient, path, HERE).problem(409, "wrong_status", ticket_status="waiting")
    missed(clinic, ticket, "R0301.1")
    passed = clinic.ticket(patient, ticket["id"])
    assert (passed["status"], passed["passes"], passed["position"]) == ("passed", 1, None)
    clinic.post(patient, path, FAR).problem(409, "too_far")
    clinic.post(patient, path, {}).problem(422, "place_unknown")
    key = str(uuid4())
    assert clinic.post(patient, path, HERE, key).good()["status"] == "waiting"
    missed(clinic, ticket, "R0301.1")
    assert clinic.post(patient, path, HERE, key).good()["status"] == "passed", "a retry brings nobody back"
    # Twice is as often as the rules allow; now the desk has to look at it.
    clinic.post(patient, path, HERE).problem(409, "passed_too_often", times=2)
    clinic.at(clinic.kiosk, patient.by_document).problem(409, "passed_too_often")
    assert clinic.at(clinic.desk, patient.by_document).good(201)["status"] == "waiting"


def test_a_kiosk_takes_back_who_was_passed_over(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0009")
    clinic.open_room(LUNGS, "R0301.2", ["D0009"], "D0009")
    missed(clinic, ticket, "R0301.2")
    looked = clinic.hospital.post("/api/v1/check-ins/lookup", clinic.kiosk.token, patient.by_document).good()
    assert [choice["state"] for choice in looked["choices"]] == ["return"]
    key = str(uuid4())
    back = clinic.at(clinic.kiosk, patient.by_document, key).good(201)
    assert (back["id"], back["status"], back["patient_name"]) == (ticket["id"], "waiting", "欧**月")
    call(clinic, ticket, "R0301.2")
    assert clinic.at(clinic.kiosk, patient.by_document, key).good(201)["status"] == "called", "a retry"
    clinic.at(clinic.kiosk, patient.by_document).problem(409, "already_checked_in")


def test_back_from_an_examination_at_a_kiosk(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0079")
    clinic.open_room(SURGERY, "R0401.1", ["D0079"], "D0079")
    call(clinic, ticket, "R0401.1")
    clinic.step(ticket, "start")
    stages = [{"kind": "examination"}, {"kind": "visit", "queue_id": "D0079", "comes_back": True}]
    clinic.step(ticket, "finish", stages=stages)
    away = clinic.ticket(patient, ticket["id"])
    assert (away["status"], away["queue"], away["stage"], away["stages"]) == ("away", None, 2, 3)
    assert [stage["state"] for stage in away["journey"]] == ["done", "now", "ahead"]
    other = clinic.person()
    body = {**other.by_document, "ticket_id": ticket["id"]}
    clinic.at(clinic.kiosk, body).problem(409, "wrong_patient")
    back = clinic.at(clinic.kiosk, {**patient.by_document, "ticket_id": ticket["id"]}).good(201)
    assert (back["status"], back["stage"], back["queue"]["id"]) == ("waiting", 3, "D0079")
    assert [stage["state"] for stage in back["journey"]] == ["done", "done", "now"]


# Walk-ins.


def walk_in(clinic: Clinic, who: Patient | Colleague, department: str, **body: object) -> Answer:
    key = str(body.pop("key", uuid4()))
    return clinic.post(who, "/api/v1/walk-ins", {"department_id": department, **body}, key)


def test_a_number_without_an_appointment(clinic: Clinic) -> None:
    patient = clinic.person()
    mine = {"patient_id": patient.patient_id}
    walk_in(clinic, patient, LUNGS, **mine).problem(422, "place_unknown")
    walk_in(clinic, patient, LUNGS, **mine, **FAR).problem(409, "too_far")
    key = str(uuid4())
    ticket = walk_in(clinic, patient, LUNGS, **mine, **HERE, key=key).good(201)
    assert (ticket["appointment_id"], ticket["queue"]["id"]) == (None, "general")
    assert ticket["queue"]["name"] == {"zh": "普通候诊", "en": "General"}
    assert ticket["number"].startswith("A")
    assert walk_in(clinic, patient, LUNGS, **mine, **HERE, key=key).good(201)["number"] == ticket["number"]
    refused = walk_in(clinic, patient, LUNGS, **mine, **HERE).problem(409, "patient_waits_already")
    assert (refused["number"], refused["ticket_id"]) == (ticket["number"], ticket["id"])


def test_each_campus_is_where_it_is(clinic: Clinic) -> None:
    """The women's clinic is in the east: whoever stands in the main building is eleven kilometres away."""
    patient = clinic.booked("D0209")
    assert patient.check_in().problem(409, "too_far")["metres"] == pytest.approx(11_077, abs=20)
    patient.check_in({"latitude": 39.9432, "longitude": 116.4789}).good(201)


def test_who_waits_already_needs_no_second_ticket_of_the_department(clinic: Clinic) -> None:
    patient = clinic.person()
    first = walk_in(clinic, clinic.kiosk, LUNGS, **patient.by_document).good(201)
    patient.book(clinic.slot("D0007"))
    patient.check_in().problem(409, "patient_waits_already", number=first["number"])
    do(clinic, patient, first, "leave")
    patient.check_in().good(201)


def test_a_range_has_an_end(clinic: Clinic) -> None:
    body = {"kind": "visit", "prefix": "Z", "first": 7, "last": 7}
    path = f"/api/v1/queues/{BRAIN}/queues/general"
    clinic.hospital.call("PUT", path, clinic.nurse.token, body, str(uuid4())).good()
    first, second = clinic.person(), clinic.person()
    assert walk_in(clinic, clinic.desk, BRAIN, **first.by_document).good(201)["number"] == "Z007"
    refused = walk_in(clinic, clinic.desk, BRAIN, **second.by_document)
    refused.problem(409, "numbers_exhausted", last=7)


def test_one_key_in_two_departments_is_two_tickets_and_none_is_overwritten(clinic: Clinic) -> None:
    patient, other, key = clinic.person(), clinic.person(), str(uuid4())
    first = walk_in(clinic, clinic.kiosk, LUNGS, **patient.by_document, key=key).good(201)
    walk_in(clinic, clinic.kiosk, LUNGS, **other.by_document, key=key).problem(422, "key_reused")
    second = walk_in(clinic, clinic.kiosk, HEART, **patient.by_document, key=key).good(201)
    listed = clinic.hospital.get("/api/v1/tickets", patient.token).good()["tickets"]
    assert {(one["id"], one["department_id"], one["status"]) for one in listed} == {
        (first["id"], LUNGS, "waiting"),
        (second["id"], HEART, "waiting"),
    }


def test_a_number_for_one_practitioner_is_of_her_own_range(clinic: Clinic) -> None:
    patient = clinic.person()
    mine = {"patient_id": patient.patient_id, **HERE}
    walk_in(clinic, patient, LUNGS, **mine, practitioner_id="D0034").problem(404, "no_such_queue")
    ticket = walk_in(clinic, patient, LUNGS, **mine, practitioner_id="D0007").good(201)
    assert ticket["practitioner_id"] == "D0007"
    assert int(ticket["number"][1:]) >= 501


def test_a_stranger_is_nobodys_patient(clinic: Clinic) -> None:
    patient, stranger = clinic.person(), clinic.person()
    body = {"patient_id": patient.patient_id, **HERE}
    walk_in(clinic, stranger, LUNGS, **body).problem(404, "no_such_patient")
    walk_in(clinic, patient, LUNGS, **HERE).problem(422, "say_who")
    walk_in(clinic, patient, LUNGS, **HERE, **patient.by_document).problem(422, "say_who")
    walk_in(clinic, patient, LUNGS, **body, qr="x").problem(422, "say_who")
    walk_in(clinic, patient, LUNGS, **body, priority="aged").problem(403, "forbidden")
    walk_in(clinic, patient, LUNGS, **body, emergency=1).problem(403, "forbidden", roles=["nurse"])
    walk_in(clinic, patient, "03", **body).problem(404, "no_such_department")
    walk_in(clinic, patient, "9999", **body).problem(404, "no_such_department")
    walk_in(clinic, clinic.doctor, LUNGS, **patient.by_document).problem(403, "forbidden")


def test_where_nobody_walks_in_the_desk_may_all_the_same(clinic: Clinic) -> None:
    patient = clinic.person()
    body = {"patient_id": patient.patient_id, **HERE}
    walk_in(clinic, patient, GENERAL_PRACTICE, **body).problem(409, "no_walk_ins")
    walk_in(clinic, clinic.kiosk, GENERAL_PRACTICE, **patient.by_document).problem(409, "no_walk_ins")
    told = walk_in(clinic, patient, BRAIN, **body).problem(409, "no_walk_ins", rule="nobody_on_duty")
    assert "没有医生" in told["detail"]
    ticket = walk_in(clinic, clinic.desk, GENERAL_PRACTICE, **patient.by_document, priority="aged").good(201)
    assert ticket["priority"] == "aged"


def test_after_the_last_session_only_the_desk_gives_numbers(clinic: Clinic) -> None:
    patient = clinic.person()
    closed = walk_in(clinic, clinic.kiosk, STOMACH, **patient.by_document).problem(409, "check_in_too_late")
    assert datetime.fromisoformat(closed["until"]).strftime("%H:%M") == "12:00"
    walk_in(clinic, clinic.desk, STOMACH, **patient.by_document).good(201)


def test_whom_a_department_does_not_see(clinic: Clinic) -> None:
    person = {"name": "赵强", "id_type": "passport", "phone": "13900139000", "birth_date": "1980-01-01"}
    he = {**person, "id_number": "M" + secrets.token_hex(4).upper(), "sex": "male"}
    walk_in(clinic, clinic.kiosk, WOMEN, person=he).problem(403, "not_eligible", rule="department_sex")
    she = {**person, "id_number": "F" + secrets.token_hex(4).upper(), "sex": "female"}
    ticket = walk_in(clinic, clinic.kiosk, WOMEN, person=she).good(201)
    assert ticket["patient_name"] == "赵*"
    walk_in(clinic, clinic.kiosk, WOMEN, person={**she, "name": "钱强"}).problem(409, "identity_mismatch")
    walk_in(clinic, clinic.kiosk, WOMEN, person={**she, "phone": "1"}).problem(422, "invalid_phone")


def test_whoever_has_a_number_checks_in_with_it(clinic: Clinic) -> None:
    patient = clinic.booked("D0034")
    refused = walk_in(clinic, clinic.kiosk, HEART, **patient.by_document).problem(409, "already_booked")
    assert refused["appointment_id"] == patient.appointment
    walk_in(clinic, clinic.kiosk, LUNGS, **patient.by_document).good(201)


def test_in_an_emergency_the_nurse_asks_for_nothing_else(clinic: Clinic) -> None:
    patient = clinic.person()
    walk_in(clinic, clinic.desk, EMERGENCY, **patient.by_document, emergency=1).problem(403, "forbidden")
    walk_in(clinic, clinic.kiosk, EMERGENCY, patient_id=patient.patient_id).problem(403, "forbidden")
    ticket = walk_in(clinic, clinic.nurse, EMERGENCY, patient_id=patient.patient_id, emergency=1).good(201)
    assert (ticket["emergency"], ticket["position"], ticket["queue"]["kind"]) == (1, 1, "triage")
    assert ticket["queue"]["name"] == {"zh": "预检分诊台", "en": "Triage"}
    assert ticket["number"].startswith("E")


def test_numbers_that_are_taken_at_once_are_each_of_their_own(clinic: Clinic) -> None:
    people = [clinic.person() for _ in range(16)]

    def take(patient: Patient, key: str) -> Answer:
        return walk_in(clinic, clinic.kiosk, HEART, **patient.by_document, key=key)

    answers = at_once(*(partial(insisting, partial(take, patient)) for patient in people))
    numbers = sorted(int(answer.good(201)["number"][1:]) for answer in answers)
    assert numbers == list(range(numbers[0], numbers[0] + len(people)))


# Vitals.

VITALS = {"systolic": 135, "diastolic": 85, "pulse": 78, "temperature": 36.7, "spo2": 98}


def test_vitals_are_for_doctors_and_nurses_of_the_department(clinic: Clinic) -> None:
    patient, ticket = waiting(clinic, "D0001")
    path = f"/api/v1/tickets/{ticket['id']}/vitals"
    key = str(uuid4())
    first = clinic.post(clinic.nurse, path, {**VITALS, "height_cm": 171.5}, key).good(201)
    assert (first["temperature"], first["height_cm"], first["weight_kg"]) == (36.7, 171.5, None)
    assert first["by_name"] == "演示分诊护士"
    assert clinic.post(clinic.nurse, path, {**VITALS, "height_cm": 171.5}, key).good(201) == first
    clinic.post(clinic.nurse, path, VITALS, key).problem(422, "key_reused")
    second = clinic.post(clinic.nurse, path, {"weight_kg": 70, "note": "复测"}).good(201)
    found = clinic.hospital.get(path, clinic.doctor.token).good()["vitals"]
    assert found == [second, first]
    for colleague in (clinic.desk, clinic.kiosk, clinic.manager):
        clinic.hospital.get(path, colleague.token).problem(403, "forbidden")
    clinic.post(clinic.doctor, path, VITALS).problem(403, "forbidden")
    clinic.hospital.get(path, patient.token).problem(401, "unauthenticated")
    _, elsewhere = waiting(clinic, "D0034")
    other = f"/api/v1/tickets/{elsewhere['id']}/vitals"
    clinic.hospital.get(other, clinic.doctor.token).problem(404, "no_such_ticket")
    clinic.post(clinic.nurse, f"/api/v1/tickets/{uuid4()}/vitals", VITALS).problem(404, "no_such_ticket")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"note": "  "},
        {"systolic": 80, "diastolic": 80},
        {"systolic": 301},
        {"temperature": 24.9},
        {"temperature": 367},
        {"spo2": 101},
        {"pulse": 78.5},
        {"weight_kg": "70"},
        {"mood": 3},
    ],
)
def test_vitals_that_cannot_be(clinic: Clinic, wrong: Json) -> None:
    _, ticket = waiting(clinic, "D0007")
    path = f"/api/v1/tickets/{ticket['id']}/vitals"
    refused = clinic.post(clinic.nurse, path, wrong).problem(422, "invalid_body")
    assert all("?" not in entry["msg"] for entry in refused["errors"])
    assert clinic.hospital.get(path, clinic.nurse.token).good()["vitals"] == []


def test_the_audit_finds_all_of_it_in_its_place(clinic: Clinic) -> None:
    checks = asyncio.run(audit_url(database_url(clinic.system.home)))
    assert [(check.name, check.examples) for check in checks if not check.ok] == []
