"""Checking in through a running server: by the app, at kiosks, at the desk; every refusal, and races."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from typing import TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from benchmarks.check import database_url
from engine.records.identity import check_digit
from tests.integration.test_api import Answer, Hospital, Json, Person, form, until
from tests.integration.test_desk_schedules import Colleague
from tests.support.front_door import PASSWORD
from tests.support.noon import (
    BLOOD,
    EMERGENCY,
    EVENING,
    HEART,
    LUNGS,
    SOON,
    SURGERY,
    noon_hospital,
    noon_zone,
)
from tests.support.system import System, run, started
from web.audit import audit_url
from web.auth import Tokens
from web.queues.arrivals import ARRIVALS_SECONDS

T = TypeVar("T")
HERE: Json = {"latitude": 40.0170, "longitude": 116.3916}
"""Some metres from where the demo hospital says that it is."""
FAR: Json = {"latitude": 40.0270, "longitude": 116.3916}
ERRAND_SECONDS = 10.0
FEED_SECONDS_MAX = 5.0
TRIES_MAX = 20


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Clinic"]:
    zone = ZoneInfo(noon_zone())
    with started(
        "--gateways", "2", "--shards", "2", hospital=noon_hospital(tmp_path_factory.mktemp("noon"))
    ) as system:
        yield Clinic(system, Hospital(system), zone)


@dataclass
class Clinic:
    """A day at a hospital where it is past noon."""

    system: System
    hospital: Hospital
    zone: ZoneInfo

    @cached_property
    def kiosk(self) -> Colleague:
        return Colleague(self.hospital, "demo-kiosk")

    @cached_property
    def nurse(self) -> Colleague:
        return Colleague(self.hospital, "demo-nurse")

    @cached_property
    def desk(self) -> Colleague:
        return Colleague(self.hospital, "demo-desk")

    @cached_property
    def manager(self) -> Colleague:
        return Colleague(self.hospital, "demo-manager")

    @cached_property
    def doctor(self) -> Colleague:
        return Colleague(self.hospital, "demo-doctor")

    def hired(self, username: str, role: str, department: str) -> Colleague:
        """Somebody of one department alone."""
        made = run(
            *("staff", "add", "--home", str(self.system.home), "--username", username, "--name", username),
            *("--role", role, "--department", department, "--keep-password"),
            typed=f"{PASSWORD}\n",
        )
        assert made.returncode == 0, made.stderr
        return Colleague(self.hospital, username, PASSWORD)

    @property
    def today(self) -> str:
        return datetime.now(self.zone).date().isoformat()

    def slot(self, practitioner: str, clock: str = SOON, days: int = 0) -> str:
        day = datetime.now(self.zone).date() + timedelta(days=days)
        return f"{practitioner}-{day:%Y%m%d}-{clock}"

    def person(self, **document: str) -> "Patient":
        """A grown-up woman, whom every department sees."""
        born = date(1960, 1, 1) + timedelta(days=secrets.randbelow(12_000))
        first_17 = f"110105{born:%Y%m%d}{secrets.randbelow(500) * 2:03d}"
        patient = Patient(self.hospital, self.hospital.token(), document=first_17 + check_digit(first_17))
        patient.add(
            **{"id_type": "resident_id", "id_number": patient.document, "name": "欧阳明月", **document}
        )
        return patient

    def booked(self, practitioner: str, clock: str = SOON, days: int = 0) -> "Patient":
        patient = self.person()
        patient.book(self.slot(practitioner, clock, days))
        return patient

    def at(self, machine: Colleague, body: Json, key: str | None = None, **headers: str) -> Answer:
        """A check-in at a kiosk or a desk."""
        return self.post(machine, "/api/v1/check-ins", body, key, **headers)

    def post(
        self,
        who: "Colleague | Patient",
        path: str,
        body: object = None,
        key: str | None = None,
        **headers: str,
    ) -> Answer:
        return self.hospital.post(path, who.token, body, key or str(uuid4()), **headers)

    def ticket(self, who: "Colleague | Patient", ticket_id: str) -> Json:
        return self.hospital.get(f"/api/v1/tickets/{ticket_id}", who.token).good()

    def queue(self, department: str, verb: str, body: Json) -> Answer:
        """What a nurse does in a waiting room."""
        return self.post(self.nurse, f"/api/v1/queues/{department}/{verb}", body)

    def open_room(
        self, department: str, room: str, queues: list[str], practitioner: str | None = None
    ) -> None:
        body: Json = {"queues": queues}
        if practitioner is not None:
            body["practitioner_id"] = practitioner
        self.queue(department, f"rooms/{room}/open", body).good()

    def step(self, ticket: Json, verb: str, **body: object) -> Json:
        path = f"tickets/{ticket['id']}/{verb}"
        return self.queue(ticket["department_id"], path, body).good()


@dataclass(slots=True)
class Patient(Person):
    document: str = ""
    appointment: str = ""

    def book(self, slot_id: str) -> str:
        held = self.hold(slot_id).good(201)
        self.change(held["id"], "confirm").good()
        self.appointment = held["id"]
        return self.appointment

    def check_in(self, place: Json | None = None, key: str | None = None, appointment: str = "") -> Answer:
        path = f"/api/v1/appointments/{appointment or self.appointment}/check-in"
        return self.hospital.post(path, self.token, HERE if place is None else place, key or str(uuid4()))

    def status(self, appointment: str = "") -> str:
        found: str = self.read(appointment or self.appointment).good()["status"]
        return found

    def becomes(self, status: str) -> None:
        until(lambda: self.status() == status, ERRAND_SECONDS, f"the appointment is {status}")

    @property
    def by_document(self) -> Json:
        return {"id_type": "resident_id", "id_number": self.document}


def at_once(*calls: Callable[[], T]) -> Sequence[T]:
    """All of them let go at one instant."""
    gate = threading.Barrier(len(calls))

    def wait_and(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and, calls))


def insisting(call: Callable[[str], Answer]) -> Answer:
    """As a client does who hears nothing, or 503: again, with the same key."""
    key = str(uuid4())
    for _ in range(TRIES_MAX):
        answer = call(key)
        if answer.status != 503:
            break
    return answer


# By the app.


def test_a_booked_patient_checks_in_by_the_app_and_has_arrived(clinic: Clinic) -> None:
    patient = clinic.booked("D0007")
    key = str(uuid4())
    ticket = patient.check_in(key=key).good(201)
    assert ticket["status"] == "waiting"
    assert ticket["appointment_id"] == patient.appointment
    assert ticket["patient_name"] == "欧阳明月"
    assert ticket["number"][-3:] == f"{patient.read(patient.appointment).good()['number']:03}"
    assert (ticket["department_id"], ticket["practitioner_id"]) == (LUNGS, "D0007")
    assert ticket["queue"]["name"] == {"zh": "胡琳", "en": "胡琳"}
    assert ticket["department"] == {"zh": "呼吸内科", "en": "Respiratory Medicine"}
    assert [stage["state"] for stage in ticket["journey"]] == ["now"]
    assert ticket["position"] == ticket["ahead"] + 1
    assert ticket["estimate"] is None or ticket["estimate"]["p50_minutes"] >= 0
    again = patient.check_in(key=key).good(201)
    assert (again["id"], again["number"]) == (ticket["id"], ticket["number"])
    patient.becomes("arrived")
    patient.check_in().problem(409, "already_checked_in", number=ticket["number"], ticket_id=ticket["id"])


@pytest.mark.parametrize(
    "place",
    [{}, {"latitude": HERE["latitude"]}, {**HERE, "accuracy_m": 5000.0}],
    ids=["nothing", "half of it", "a guess"],
)
def test_whoever_does_not_say_where_he_is_asks_at_a_kiosk(clinic: Clinic, place: Json) -> None:
    patient = clinic.booked("D0007")
    patient.check_in(place).problem(422, "place_unknown")
    assert patient.status() == "booked"
    patient.check_in({**HERE, "accuracy_m": 35.5}).good(201)


def test_whoever_is_too_far_away_is_told_how_far(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    body = patient.check_in(FAR).problem(409, "too_far", at_most=500)
    assert body["metres"] == pytest.approx(1_128, abs=5)
    patient.check_in({"latitude": 91.0, "longitude": 0.0}).problem(422, "invalid_body")
    patient.check_in({"latitude": "40", "longitude": 0.0}).problem(422, "invalid_body")
    patient.check_in().good(201)


def test_too_early_says_from_when_on(clinic: Clinic) -> None:
    patient = clinic.booked("D0007", EVENING)
    body = patient.check_in().problem(409, "check_in_too_early")
    opens = datetime.fromisoformat(body["from"])
    assert opens.strftime("%H:%M%z") == datetime.now(clinic.zone).strftime("17:00%z")
    assert f"{clinic.today} 17:00" in body["detail"]
    clinic.at(clinic.kiosk, patient.by_document).problem(409, "check_in_too_early")


def test_another_days_number_says_which_day(clinic: Clinic) -> None:
    patient = clinic.booked("D0007", days=1)
    tomorrow = (datetime.now(clinic.zone).date() + timedelta(days=1)).isoformat()
    patient.check_in().problem(409, "wrong_day", day=tomorrow)
    body = {"appointment_id": patient.appointment}
    clinic.at(clinic.kiosk, body).problem(409, "wrong_day", day=tomorrow)
    clinic.at(clinic.kiosk, patient.by_document).problem(404, "no_number_today")
    assert patient.status() == "booked"


def test_what_is_not_booked_says_what_it_is_instead(clinic: Clinic) -> None:
    patient = clinic.person()
    patient.appointment = patient.hold(clinic.slot("D0008")).good(201)["id"]
    refused = patient.check_in().problem(409, "not_booked", rule="booking_pending")
    assert "确认" in refused["detail"]
    patient.change(patient.appointment, "cancel").good()
    refused = patient.check_in().problem(409, "not_booked", rule="booking_cancelled")
    assert "取消" in refused["detail"]


def test_a_session_that_was_called_off_is_no_reason_to_wait(clinic: Clinic) -> None:
    patient = clinic.booked("D0079")
    schedule = f"D0079-{clinic.today.replace('-', '')}"
    answer = clinic.manager.change(schedule, "suspend", period="afternoon", reason="leave", note="")
    assert answer.status in (200, 202), answer.raw
    until(lambda: patient.read(patient.appointment).good()["fate"] is not None, ERRAND_SECONDS, "it is known")
    refused = patient.check_in().problem(409, "not_booked", rule="booking_suspended")
    assert "停诊" in refused["detail"]
    clinic.at(clinic.kiosk, patient.by_document).problem(409, "not_booked", rule="booking_suspended")

    def nobody_is_on_duty() -> bool:
        walk_in = {**clinic.person().by_document, "department_id": SURGERY}
        refused = clinic.post(clinic.kiosk, "/api/v1/walk-ins", walk_in)
        return refused.status == 409 and refused.problem(409, "no_walk_ins")["rule"] == "nobody_on_duty"

    until(nobody_is_on_duty, FEED_SECONDS_MAX, "a gateway has heard of it")


def test_another_account_learns_nothing(clinic: Clinic) -> None:
    patient, stranger = clinic.booked("D0008"), clinic.person()
    stranger.check_in(appointment=patient.appointment).problem(404, "no_such_appointment")
    stranger.check_in(appointment=str(uuid4())).problem(404, "no_such_appointment")
    path = f"/api/v1/appointments/{patient.appointment}/check-in"
    clinic.hospital.post(path, None, HERE, "k").problem(401, "unauthenticated")
    clinic.hospital.post(path, clinic.kiosk.token, HERE, "k").problem(401, "unauthenticated")
    clinic.hospital.post(path, patient.token, HERE).problem(400, "missing_idempotency_key")
    clinic.hospital.get(f"/api/v1/appointments/{patient.appointment}/qr", stranger.token).problem(
        404, "no_such_appointment"
    )
    clinic.hospital.get(f"/api/v1/patients/{patient.patient_id}/qr", stranger.token).problem(
        404, "no_such_patient"
    )
    assert patient.status() == "booked"


def test_a_missed_number_is_for_the_desk(clinic: Clinic) -> None:
    document = {"id_type": "passport", "id_number": "N" + secrets.token_hex(4).upper()}
    person = {**form(**document), "name": "赵敏"}
    del person["relation"]

    def registered() -> Answer:
        now = datetime.now(clinic.zone)
        running = f"{now.hour:02d}{'30' if now.minute >= 30 else '00'}"
        return clinic.desk.post("appointments", {"slot_id": clinic.slot("D0009", running), "patient": person})

    answer = registered()
    if answer.status == 409:  # the half hour was just over
        answer = registered()
    number = answer.good(201)["id"]
    clinic.desk.post(f"appointments/{number}/attendance", {"status": "noshow"}).good()
    clinic.at(clinic.kiosk, document).problem(409, "not_booked", rule="booking_noshow")
    ticket = clinic.at(clinic.desk, document).good(201)
    assert ticket["appointment_id"] == number


# At kiosks and desks.


@pytest.mark.parametrize("way", ["resident_id", "social_security_card", "number_qr", "patient_qr", "number"])
def test_a_kiosk_checks_in_for_any_department(clinic: Clinic, way: str) -> None:
    patient = clinic.booked("D0034")
    qr = f"/api/v1/appointments/{patient.appointment}/qr"
    ways: dict[str, Callable[[], Json]] = {
        "resident_id": lambda: patient.by_document,
        "social_security_card": lambda: {"id_type": "social_security_card", "id_number": patient.document},
        "number_qr": lambda: {"qr": clinic.hospital.get(qr, patient.token).good()["text"]},
        "patient_qr": lambda: {
            "qr": clinic.hospital.get(f"/api/v1/patients/{patient.patient_id}/qr", patient.token).good()[
                "token"
            ]
        },
        "number": lambda: {"appointment_id": patient.appointment},
    }
    key = str(uuid4())
    body = ways[way]()
    ticket = clinic.at(clinic.kiosk, body, key).good(201)
    assert ticket["department_id"] == HEART
    assert (ticket["patient_name"], ticket["priority"], ticket["emergency"]) == ("欧**月", None, None)
    assert clinic.at(clinic.kiosk, body, key).good(201)["id"] == ticket["id"]
    clinic.at(clinic.kiosk, body).problem(409, "already_checked_in", number=ticket["number"])
    assert clinic.ticket(patient, ticket["id"])["patient_name"] == "欧阳明月"
    patient.becomes("arrived")


def test_somebody_elses_document_is_told(clinic: Clinic) -> None:
    patient, other = clinic.booked("D0008"), clinic.person()
    body = {**other.by_document, "appointment_id": patient.appointment}
    clinic.at(clinic.kiosk, body).problem(409, "wrong_patient")
    assert patient.status() == "booked"


def test_where_he_stands_is_another_department(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    for body in (
        {**patient.by_document, "department_id": HEART},
        {"appointment_id": patient.appointment, "department_id": HEART},
    ):
        clinic.at(clinic.kiosk, body).problem(409, "wrong_department", department_id=LUNGS)
    clinic.at(clinic.kiosk, {**patient.by_document, "department_id": LUNGS}).good(201)


def test_several_numbers_of_today_are_listed_and_one_is_chosen(clinic: Clinic) -> None:
    patient = clinic.booked("D0034", "1330")
    first = patient.appointment
    second = patient.book(clinic.slot("D0007", "1400"))
    refused = clinic.at(clinic.kiosk, patient.by_document).problem(409, "several_numbers")
    listed = {choice["appointment_id"]: choice for choice in refused["choices"]}
    assert set(listed) == {first, second}
    assert {choice["state"] for choice in listed.values()} == {"check_in"}
    assert listed[first]["department"]["zh"] == "心血管内科"
    looked = clinic.hospital.post("/api/v1/check-ins/lookup", clinic.kiosk.token, patient.by_document).good()
    assert looked["patient_name"] == "欧**月"
    assert [choice["appointment_id"] for choice in looked["choices"]] == [first, second]
    chosen = clinic.at(clinic.kiosk, {**patient.by_document, "appointment_id": second}).good(201)
    assert chosen["department_id"] == LUNGS
    key = str(uuid4())
    other = clinic.at(clinic.kiosk, patient.by_document, key).good(201)
    assert other["department_id"] == HEART, "only one of them is left"
    assert clinic.at(clinic.kiosk, patient.by_document, key).good(201)["id"] == other["id"]
    looked = clinic.hospital.post("/api/v1/check-ins/lookup", clinic.kiosk.token, patient.by_document).good()
    assert [choice["state"] for choice in looked["choices"]] == ["waits", "waits"]
    clinic.at(clinic.kiosk, patient.by_document).problem(409, "already_checked_in")


def test_a_retry_is_not_taken_for_the_next_number(clinic: Clinic) -> None:
    """Its answer was lost; meanwhile the same patient has another number that could be checked in."""
    patient = clinic.booked("D0034", "1330")
    key = str(uuid4())
    first = clinic.at(clinic.kiosk, patient.by_document, key).good(201)
    second = patient.book(clinic.slot("D0007", "1400"))
    assert clinic.at(clinic.kiosk, patient.by_document, key).good(201)["id"] == first["id"]
    assert patient.status(second) == "booked"
    assert clinic.at(clinic.kiosk, patient.by_document).good(201)["appointment_id"] == second


def test_a_kiosk_believes_only_what_is_shown(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    clinic.at(clinic.kiosk, {}).problem(422, "say_who")
    clinic.at(clinic.kiosk, {"id_number": patient.document}).problem(422, "say_who")
    clinic.at(clinic.kiosk, {**patient.by_document, "qr": "x"}).problem(422, "say_who")
    wrong = patient.document[:-1] + ("1" if patient.document[-1] != "1" else "2")
    clinic.at(clinic.kiosk, {"id_type": "resident_id", "id_number": wrong}).problem(422, "invalid_id_number")
    nobody = {"id_type": "passport", "id_number": "NOBODY" + secrets.token_hex(3).upper()}
    clinic.at(clinic.kiosk, nobody).problem(404, "no_number_today")
    clinic.at(clinic.kiosk, {"appointment_id": str(uuid4())}).problem(404, "no_such_appointment")
    clinic.at(clinic.kiosk, {"ticket_id": str(uuid4())}).problem(404, "no_such_ticket")
    body = {**patient.by_document, "priority": "aged"}
    clinic.at(clinic.kiosk, body).problem(403, "forbidden")
    clinic.at(clinic.kiosk, {**patient.by_document, "emergency": 1}).problem(403, "forbidden")
    for token in (None, patient.token):
        clinic.hospital.post("/api/v1/check-ins", token, patient.by_document, "k").problem(
            401, "unauthenticated"
        )
    clinic.at(clinic.doctor, patient.by_document).problem(403, "forbidden")
    lookup = "/api/v1/check-ins/lookup"
    clinic.hospital.post(lookup, clinic.doctor.token, patient.by_document).problem(403, "forbidden")
    clinic.hospital.post(lookup, patient.token, patient.by_document).problem(401, "unauthenticated")
    assert patient.status() == "booked"


def test_a_code_is_good_for_two_minutes_and_for_nothing_else(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    answer = clinic.hospital.get(f"/api/v1/appointments/{patient.appointment}/qr", patient.token).good()
    assert answer["expires_in"] == 120
    assert answer["text"].endswith(answer["token"])
    secret = (clinic.system.home / "token.key").read_bytes()
    owner = UUID(patient.appointment).bytes
    old = Tokens(secret, 1800, 1800, lambda: time.time() - 121).issue_qr("qr_appointment", owner)
    clinic.at(clinic.kiosk, {"qr": old}).problem(422, "qr_expired")
    forged = Tokens(b"f" * 32, 1800, 1800).issue_qr("qr_appointment", owner)
    for text in (forged, patient.token, answer["token"][:-2], "https://example.com", "xinglin:"):
        clinic.at(clinic.kiosk, {"qr": text}).problem(422, "qr_invalid")
    clinic.hospital.get("/api/v1/patients", answer["token"]).problem(401, "unauthenticated")
    clinic.at(Impostor(answer["token"]), patient.by_document).problem(401, "unauthenticated")  # type: ignore[arg-type]
    fresh = Tokens(secret, 1800, 1800, lambda: time.time() - 100).issue_qr("qr_appointment", owner)
    clinic.at(clinic.kiosk, {"qr": fresh}).good(201)


@dataclass(frozen=True, slots=True)
class Impostor:
    token: str


def test_a_desk_names_a_class_and_only_a_nurse_says_how_urgent_it_is(clinic: Clinic) -> None:
    soldier, urgent, typo = clinic.booked("D0036"), clinic.booked("D0036"), clinic.booked("D0036")
    ticket = clinic.at(clinic.desk, {**soldier.by_document, "priority": "soldier"}).good(201)
    assert (ticket["priority"], ticket["patient_name"]) == ("soldier", "欧阳明月")
    body = {**urgent.by_document, "emergency": 2}
    clinic.at(clinic.desk, body).problem(403, "forbidden", roles=["nurse"])
    first = clinic.at(clinic.nurse, body).good(201)
    assert (first["emergency"], first["position"]) == (2, 1)
    clinic.at(clinic.desk, {**typo.by_document, "priority": "king"}).problem(422, "unknown_priority")


def test_a_desk_checks_in_for_its_own_department(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    there = clinic.hired("heart-desk", "desk", HEART)
    clinic.at(there, patient.by_document).problem(403, "forbidden")
    assert patient.status() == "booked"
    above = clinic.hired("inner-nurse", "nurse", "03")
    clinic.at(above, patient.by_document).good(201)


# Races, and what becomes of the number.


def test_one_patient_at_every_kiosk_and_by_the_app_at_once_has_one_ticket(clinic: Clinic) -> None:
    patient = clinic.booked("D0007", "1400")
    ways: list[Callable[[str], Answer]] = [
        lambda key: patient.check_in(key=key),
        lambda key: clinic.at(clinic.kiosk, patient.by_document, key),
    ]
    answers = at_once(*(partial(insisting, way) for way in ways * 4))
    [won] = [answer.body for answer in answers if answer.status == 201]
    lost = [answer.problem(409, "already_checked_in") for answer in answers if answer.status != 201]
    assert {(body["ticket_id"], body["number"]) for body in lost} == {(won["id"], won["number"])}


def test_whoever_checks_in_at_once_has_a_number_of_his_own(clinic: Clinic) -> None:
    people = [clinic.booked("D0008", "1400") for _ in range(12)]
    answers = at_once(*(partial(insisting, partial(patient.check_in, None)) for patient in people))
    tickets = [answer.good(201) for answer in answers]
    assert len({ticket["number"] for ticket in tickets}) == len(people)

    def stand_apart() -> bool:
        """Gateways are a tenth of a second apart."""
        found = (clinic.ticket(patient, t["id"]) for patient, t in zip(people, tickets, strict=True))
        return len({ticket["position"] for ticket in found}) == len(people)

    until(stand_apart, FEED_SECONDS_MAX, "everybody has a place of his own")


def test_whoever_cancels_after_checking_in_waits_no_more(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    ticket = patient.check_in().good(201)
    patient.becomes("arrived")
    clinic.desk.post(f"appointments/{patient.appointment}/cancel", {"note": "患者要求退号"}).good()
    until(
        lambda: clinic.ticket(patient, ticket["id"])["status"] == "left",
        ERRAND_SECONDS,
        "the ticket has left",
    )
    patient.check_in().problem(409, "not_booked", rule="booking_cancelled")


def test_who_cancels_while_he_checks_in_does_not_wait_for_nothing(clinic: Clinic) -> None:
    """Whichever comes first, both sides agree in the end."""
    people = [clinic.booked("D0034", "1400") for _ in range(6)]
    done = at_once(
        *(partial(insisting, partial(patient.check_in, None)) for patient in people),
        *(partial(patient.change, patient.appointment, "cancel") for patient in people),
    )
    tickets = [answer.body["id"] if answer.status == 201 else None for answer in done[: len(people)]]

    def agrees(patient: Patient, ticket: str | None) -> bool:
        status = None if ticket is None else clinic.ticket(patient, ticket)["status"]
        return (patient.status(), status) in (
            ("cancelled", None),
            ("cancelled", "left"),
            ("arrived", "waiting"),
        )

    for patient, ticket in zip(people, tickets, strict=True):
        until(partial(agrees, patient, ticket), ERRAND_SECONDS, "both sides agree")


def test_where_nobody_checks_in_a_number_waits_by_itself_when_its_time_is_near(clinic: Clinic) -> None:
    soon, later = clinic.booked("D0043"), clinic.booked("D0043", EVENING)

    def waiting() -> list[Json]:
        found: list[Json] = clinic.hospital.get("/api/v1/tickets", soon.token).good()["tickets"]
        return found

    until(lambda: bool(waiting()), 3 * ARRIVALS_SECONDS, "it waits by itself")
    (ticket,) = waiting()
    assert (ticket["appointment_id"], ticket["status"]) == (soon.appointment, "waiting")
    assert soon.status() == "booked"  # nobody knows whether he is here
    assert clinic.hospital.get("/api/v1/tickets", later.token).good()["tickets"] == []
    soon.check_in().problem(409, "already_checked_in", number=ticket["number"])
    clinic.open_room(BLOOD, "R0305.1", ["D0043"], "D0043")
    clinic.queue(BLOOD, "call-next", {"room_id": "R0305.1"}).good()
    clinic.step(ticket, "start")
    clinic.step(ticket, "finish")
    soon.becomes("fulfilled")


def test_whoever_was_seen_has_had_his_visit(clinic: Clinic) -> None:
    patient = clinic.person()
    patient.book(clinic.slot("D0190"))
    ticket = patient.check_in().good(201)
    assert [(stage["kind"], stage["state"]) for stage in ticket["journey"]] == [
        ("triage", "now"),
        ("visit", "ahead"),
    ]
    assert (ticket["stage"], ticket["stages"]) == (1, 2)
    clinic.open_room(EMERGENCY, "R2001.1", ["triage"])
    clinic.queue(EMERGENCY, f"tickets/{ticket['id']}/call", {"room_id": "R2001.1", "reason": "试"}).good()
    called = clinic.ticket(patient, ticket["id"])
    assert (called["status"], called["room"]["id"], called["position"]) == ("called", "R2001.1", None)
    assert called["called_at"] is not None
    clinic.step(ticket, "start")
    clinic.step(ticket, "finish")
    moved = clinic.ticket(patient, ticket["id"])
    assert (moved["status"], moved["stage"], moved["queue"]["kind"]) == ("waiting", 2, "visit")
    assert [stage["state"] for stage in moved["journey"]] == ["done", "now"]
    clinic.open_room(EMERGENCY, "R2001.2", ["D0190"], "D0190")
    clinic.queue(EMERGENCY, f"tickets/{ticket['id']}/call", {"room_id": "R2001.2", "reason": "试"}).good()
    clinic.step(ticket, "start")
    clinic.step(ticket, "finish")
    done = clinic.ticket(patient, ticket["id"])
    assert (done["status"], done["stage"], done["queue"]) == ("finished", 2, None)
    assert done["finished_at"] is not None
    patient.becomes("fulfilled")
    patient.check_in().problem(409, "not_booked", rule="booking_fulfilled")


def test_a_substitutes_patients_wait_for_the_substitute(clinic: Clinic) -> None:
    patient = clinic.booked("D0036")
    schedule = f"D0036-{clinic.today.replace('-', '')}"
    clinic.manager.change(schedule, "substitute", period="afternoon", practitioner_id="D0035").good()

    def known() -> bool:
        found = clinic.hospital.get(f"/api/v1/schedules?department={HEART}").good()["schedules"]
        return any(
            s["substitute_id"] == "D0035" for day in found if day["id"] == schedule for s in day["sessions"]
        )

    # Whichever gateway answers.
    until(lambda: all(known() for _ in range(8)), ERRAND_SECONDS, "the substitute is known")
    ticket = clinic.at(clinic.kiosk, patient.by_document).good(201)
    assert (ticket["practitioner_id"], ticket["practitioner_name"]) == ("D0035", "陈晓芸")
    walk_in = {**clinic.person().by_document, "department_id": HEART, "practitioner_id": "D0035"}
    assert clinic.post(clinic.kiosk, "/api/v1/walk-ins", walk_in).good(201)["practitioner_id"] == "D0035"
    walk_in = {**clinic.person().by_document, "department_id": HEART, "practitioner_id": "D0036"}
    clinic.post(clinic.kiosk, "/api/v1/walk-ins", walk_in).problem(404, "no_such_queue")


def test_the_words_of_a_refusal_come_in_english_too(clinic: Clinic) -> None:
    patient = clinic.booked("D0007", EVENING)
    refused = clinic.at(clinic.kiosk, patient.by_document, Accept_Language="en").problem(
        409, "check_in_too_early"
    )
    assert refused["detail"] == f"Check-in opens at {clinic.today} 17:00."


def test_the_audit_finds_all_of_it_in_its_place(clinic: Clinic) -> None:
    checks = asyncio.run(audit_url(database_url(clinic.system.home)))
    assert [(check.name, check.examples) for check in checks if not check.ok] == []
