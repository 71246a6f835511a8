"""The contract, walked as a patient would: DESIGN section 6 against the running system.

Every answer is also held against /openapi.json when it comes: its status must be documented for its route,
and its body must be what the document says.
"""

import http.client
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.check import database_url
from engine.records.identity import check_digit
from tests.support.system import System, started
from web.auth import Tokens

ZONE = ZoneInfo("Asia/Shanghai")
ANSWER_SECONDS_MAX = 10.0
FEED_SECONDS_MAX = 1.0  # from a booking to the counts that others see
SETTLE_SECONDS_MAX = 10.0
TOKEN_SECONDS = 8
HOLDS_MAX = 5
ACTIVE_MAX = 10
DAY_MAX = 5
CHILDREN = "0704"
WOMEN = "0501"
Json = dict[str, Any]


# A client that believes nothing.


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Json:
        found: Json = json.loads(self.raw)
        return found

    def problem(self, status: int, code: str, **members: object) -> Json:
        """The body of a refusal that must be just this one."""
        assert (self.status, self.headers["Content-Type"]) == (status, "application/problem+json"), self.raw
        body = self.body
        assert (body["status"], body["code"], body["type"]) == (status, code, f"/problems/{code}")
        assert body["title"] and body["detail"]
        assert {name: body.get(name) for name in members} == members
        return body

    def good(self, status: int = 200) -> Json:
        assert self.status == status, self.raw
        assert self.headers["Content-Type"] == "application/json"
        return self.body


class Hospital:
    """One running system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.document: Json = {}
        self.document = self.call("GET", "/openapi.json").body
        self._routes = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), methods)
            for path, methods in self.document["paths"].items()
        ]

    def call(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: object = None,
        key: str | None = None,
        **headers: str,
    ) -> Answer:
        """`body` is bytes as they are, or anything else as JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if key is not None:
            sent["Idempotency-Key"] = key
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.system.port, timeout=ANSWER_SECONDS_MAX)
        try:
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]
        finally:
            connection.close()
        if self.document:
            self._is_documented(method, path.partition("?")[0], answer)
        return answer

    def _is_documented(self, method: str, path: str, answer: Answer) -> None:
        assert answer.status < 500 or answer.status == 503, answer.raw
        for pattern, methods in self._routes:
            if pattern.fullmatch(path) and method.lower() in methods:
                declared = methods[method.lower()]["responses"]
                assert str(answer.status) in declared, f"{method} {path} says {answer.status}: {answer.raw!r}"
                if answer.status == 304:
                    return
                content = declared[str(answer.status)]["content"]
                schema = content[answer.headers["Content-Type"]]["schema"]
                Draft202012Validator({**schema, "components": self.document["components"]}).validate(
                    answer.body
                )

    def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        return self.call("GET", path, token, **headers)

    def post(
        self,
        path: str,
        token: str | None = None,
        body: object = None,
        key: str | None = None,
        **headers: str,
    ) -> Answer:
        return self.call("POST", path, token, body, key, **headers)

    @cached_property
    def departments(self) -> dict[str, Json]:
        return {d["id"]: d for d in self.get("/api/v1/departments").good()["departments"]}

    @cached_property
    def schedules(self) -> list[Json]:
        """From three days ahead on: earlier days belong to other tests."""
        soon = datetime.now(ZONE).date() + timedelta(days=3)
        found: list[Json] = self.get(f"/api/v1/schedules?from={soon}").good()["schedules"]
        return found

    def slots(self, schedule_id: str) -> list[Json]:
        found: list[Json] = self.get(f"/api/v1/schedules/{schedule_id}/slots").good()["slots"]
        return found

    def free_days(self, suits: Callable[[Json], bool] = lambda schedule: True) -> Iterator[Json]:
        """Doctors' days of which every seat is free, in no order."""
        for schedule in random.sample(self.schedules, len(self.schedules)):
            if suits(schedule):
                slots = self.slots(schedule["id"])
                if all(slot["remaining"] == slot["capacity"] for slot in slots):
                    yield {**schedule, "slots": slots, "department": schedule["sessions"][0]["department_id"]}

    def free_slot(self, suits: Callable[[Json], bool] = lambda schedule: True) -> str:
        slot: str = random.choice(next(self.free_days(suits))["slots"])["id"]
        return slot

    def person(self, **document: str) -> "Person":
        """Somebody new, of whom neither age nor sex is known."""
        person = Person(self, self.token())
        person.add(**document)
        return person

    def resident(self, born: date, sex: str) -> "Person":
        order = random.randrange(500) * 2 + (sex == "male")
        first_17 = f"110105{born:%Y%m%d}{order:03d}"
        is_child = born > datetime.now(ZONE).date() - timedelta(days=14 * 365)
        return self.person(
            id_type="resident_id",
            id_number=first_17 + check_digit(first_17),
            relation="child" if is_child else "self",
        )

    def token(self, openid: str | None = None) -> str:
        code = f"sandbox:{openid or 'api-' + secrets.token_hex(8)}"
        token: str = self.post("/api/v1/sessions", body={"grant": "wechat", "code": code}).good(201)[
            "access_token"
        ]
        return token


def form(**changes: object) -> Json:
    whole = {
        "name": "测试者",
        "id_type": "passport",
        "id_number": "A" + secrets.token_hex(6).upper(),
        "phone": "13800000001",
        "relation": "self",
    }
    return {**whole, **changes}


@dataclass(slots=True)
class Person:
    hospital: Hospital
    token: str
    patient_id: str = ""
    patients: list[str] = field(default_factory=list)

    def add(self, **changes: object) -> Json:
        added: Json = self.hospital.post("/api/v1/patients", self.token, form(**changes)).good(201)
        self.patient_id = self.patient_id or added["id"]
        return added

    def hold(self, slot_id: str, key: str | None = None, patient_id: str | None = None) -> Answer:
        body = {"slot_id": slot_id, "patient_id": patient_id or self.patient_id}
        answer: Answer = self.hospital.post(
            "/api/v1/appointments", self.token, body, str(uuid4()) if key is None else key
        )
        return answer

    def change(self, appointment_id: str, what: str) -> Answer:
        answer: Answer = self.hospital.post(
            f"/api/v1/appointments/{appointment_id}/{what}", self.token, key=str(uuid4())
        )
        return answer

    def pay(self, bill_id: str, provider: str = "at_hospital") -> Answer:
        answer: Answer = self.hospital.post(
            f"/api/v1/bills/{bill_id}/payments", self.token, {"provider": provider}, str(uuid4())
        )
        return answer

    def read(self, appointment_id: str) -> Answer:
        answer: Answer = self.hospital.get(f"/api/v1/appointments/{appointment_id}", self.token)
        return answer

    def list(self, query: str = "") -> Json:
        found: Json = self.hospital.get(f"/api/v1/appointments{query}", self.token).good()
        return found


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(0.06)  # an account is answered twenty times a second, for long


# Signing in, and for whom.


def test_a_person_signs_in_and_the_refresh_token_buys_the_next_pair(hospital: Hospital) -> None:
    grant = {"grant": "wechat", "code": f"sandbox:{secrets.token_hex(8)}"}
    first = hospital.post("/api/v1/sessions", body=grant).good(201)
    assert set(first) == {"access_token", "refresh_token", "expires_in"}
    assert first["expires_in"] == 1800
    again = {"grant": "refresh", "refresh_token": first["refresh_token"]}
    second = hospital.post("/api/v1/sessions", body=again).good(201)
    for token in (first["access_token"], second["access_token"]):
        assert hospital.get("/api/v1/patients", token).good() == {"patients": []}
    # Neither kind passes for the other.
    wrong = {"grant": "refresh", "refresh_token": first["access_token"]}
    hospital.post("/api/v1/sessions", body=wrong).problem(401, "unauthenticated")
    hospital.get("/api/v1/patients", first["refresh_token"]).problem(401, "unauthenticated")


def test_two_sign_ins_of_one_person_are_one_account(hospital: Hospital) -> None:
    openid = "twice-" + secrets.token_hex(6)
    added = hospital.post("/api/v1/patients", hospital.token(openid), form()).good(201)
    assert hospital.get("/api/v1/patients", hospital.token(openid)).good()["patients"] == [added]


@pytest.mark.parametrize(
    ("grant", "status", "code"),
    [
        ({"grant": "wechat", "code": "nobody's"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": "sandbox:\u0000"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": ""}, 422, "invalid_body"),
        ({"grant": "refresh", "refresh_token": "x.y.z"}, 401, "unauthenticated"),
        ({"grant": "password", "username": "a", "password": "b"}, 401, "sign_in_refused"),
        ({"grant": "magic"}, 422, "invalid_body"),
    ],
)
def test_who_cannot_sign_in_is_told_why(hospital: Hospital, grant: Json, status: int, code: str) -> None:
    hospital.post("/api/v1/sessions", body=grant).problem(status, code)


def test_a_patient_added_again_is_the_same_patient(hospital: Hospital) -> None:
    token, person = hospital.token(), form()
    first = hospital.post("/api/v1/patients", token, person).good(201)
    again = hospital.post("/api/v1/patients", token, {**person, "relation": "parent"}).good(201)
    assert again == {**first, "relation": "parent", "expires_at": again["expires_at"]}
    assert first["expires_at"] is None and again["expires_at"] is not None
    assert hospital.get("/api/v1/patients", token).good() == {"patients": [again]}
    assert person["id_number"] not in json.dumps(again) and person["phone"] not in json.dumps(again)


def test_one_identity_in_two_accounts_is_one_patient_whose_number_is_one(hospital: Hospital) -> None:
    mother, father = hospital.person(), Person(hospital, hospital.token())
    child = form(relation="child")
    one = hospital.post("/api/v1/patients", mother.token, child).good(201)["id"]
    father.patient_id = hospital.post("/api/v1/patients", father.token, child).good(201)["id"]
    assert father.patient_id == one
    day = next(hospital.free_days())
    held = mother.hold(day["slots"][0]["id"], patient_id=one).good(201)
    father.hold(day["slots"][1]["id"]).problem(409, "already_booked", appointment_id=held["id"])
    father.read(held["id"]).problem(404, "no_such_appointment")
    wrong = hospital.post("/api/v1/patients", father.token, {**child, "name": "别人"})
    wrong.problem(409, "identity_mismatch")


def test_an_account_has_a_bounded_number_of_patients(hospital: Hospital) -> None:
    person = hospital.person()
    statuses = []
    while not statuses or (statuses[-1] == 201 and len(statuses) < 50):
        last = hospital.post("/api/v1/patients", person.token, form(relation="child"))
        statuses.append(last.status)
    assert last.problem(409, "too_many_patients")["limit"] == len(statuses)
    assert len(hospital.get("/api/v1/patients", person.token).good()["patients"]) == len(statuses)


@pytest.mark.parametrize(
    "name", ["𠮷野", "㛃", "买买提·艾力", "王𬒈", "〇", "Nguyễn Văn", "O’Brien-Smith", "ابن سينا", "文" * 64]
)
def test_rare_names_are_kept_as_they_are(hospital: Hospital, name: str) -> None:
    person = Person(hospital, hospital.token())
    assert person.add(name=name)["name"] == name
    assert hospital.get("/api/v1/patients", person.token).good()["patients"][0]["name"] == name
    held = person.hold(hospital.free_slot()).good(201)
    assert person.read(held["id"]).good()["patient_name"] == name


@pytest.mark.parametrize(
    "name",
    ["小明😀", "👨‍👩‍👧", "❤️", "王2", "李\u200b明", "a\u0000b", "<b>王</b>", "文" * 65, " ", "\u202e王"],
)
def test_what_is_no_name_is_refused_and_not_said_back(hospital: Hospital, name: str) -> None:
    token = hospital.token()
    answer = hospital.post("/api/v1/patients", token, form(name=name))
    body = answer.problem(422, "invalid_name")
    assert body["errors"][0]["loc"] == ["body", "name"]
    assert not name.strip() or name not in answer.raw.decode()
    assert hospital.get("/api/v1/patients", token).good() == {"patients": []}


# Looking.


def test_departments_have_two_levels_and_a_campus(hospital: Hospital) -> None:
    departments = hospital.departments
    assert len({d["campus"] for d in departments.values()}) == 2
    seconds = [d for d in departments.values() if d["parent_id"] is not None]
    assert len(seconds) >= 40
    for department in seconds:
        assert departments[department["parent_id"]]["parent_id"] is None
    assert departments[CHILDREN]["age_max"] == 14 and departments[WOMEN]["sex"] == "female"


def test_a_department_has_the_practitioners_of_those_below_it(hospital: Hospital) -> None:
    def of(department_id: str) -> list[Json]:
        found: list[Json] = hospital.get(f"/api/v1/departments/{department_id}/practitioners").good()[
            "practitioners"
        ]
        return found

    below = [d["id"] for d in hospital.departments.values() if d["parent_id"] == "07"]
    assert {p["id"] for p in of("07")} == {p["id"] for each in below for p in of(each)}
    one = of(CHILDREN)[0]
    assert one["department_id"] == CHILDREN and one["name"] and one["title"]
    assert hospital.get(f"/api/v1/practitioners/{one['id']}").good() == one


def test_schedules_are_found_by_every_filter_and_by_all_together(hospital: Hospital) -> None:
    def found(**query: str) -> list[Json]:
        told = "&".join(f"{name}={value}" for name, value in query.items())
        return list(hospital.get(f"/api/v1/schedules?{told}").good()["schedules"])

    everything = found()
    today = datetime.now(ZONE).date()
    assert {date.fromisoformat(s["date"]) for s in everything} <= {
        today + timedelta(days=n) for n in range(14 + 1)
    }
    assert [s["date"] for s in everything] == sorted(s["date"] for s in everything)
    one = random.choice(hospital.schedules)
    day, title, who = one["date"], one["title"], one["practitioner_id"]
    department = one["sessions"][0]["department_id"]
    parent = hospital.departments[department]["parent_id"]

    def ids(schedules: list[Json]) -> set[str]:
        return {s["id"] for s in schedules}

    assert ids(found(practitioner=who)) == {s["id"] for s in everything if s["practitioner_id"] == who}
    assert ids(found(title=title)) == {s["id"] for s in everything if s["title"] == title}
    assert ids(found(**{"from": day, "to": day})) == {s["id"] for s in everything if s["date"] == day}
    in_department = {
        s["id"] for s in everything if any(x["department_id"] == department for x in s["sessions"])
    }
    assert ids(found(department=department)) == in_department
    assert in_department <= ids(found(department=parent))
    query = {"department": department, "practitioner": who, "title": title, "from": day, "to": day}
    assert ids(found(**query)) == {one["id"]}
    # The past is over, whatever is asked; and a range the wrong way round holds nothing.
    assert found(**{"from": "2020-01-01", "to": "2020-12-31"}) == []
    assert found(**{"from": "9999-12-31"}) == found(**{"from": day, "to": "2020-01-01"}) == []
    assert ids(found(**{"from": "2020-01-01"})) == ids(everything)


def test_a_schedule_says_what_its_slots_add_up_to(hospital: Hospital) -> None:
    day = next(hospital.free_days(lambda s: len(s["sessions"]) > 1))
    slots = day["slots"]
    assert day["capacity"] == sum(slot["capacity"] for slot in slots)
    assert sum(s["capacity"] for s in day["sessions"]) == day["capacity"]
    assert {s["period"] for s in day["sessions"]} <= {"morning", "afternoon", "night"}
    for slot in slots:
        start, end = (datetime.fromisoformat(slot[name]) for name in ("start", "end"))
        assert end - start == timedelta(minutes=30) and start.utcoffset() == timedelta(hours=8)
        assert start.date().isoformat() == day["date"]
        session = next(s for s in day["sessions"] if s["start"] <= slot["start"] and slot["end"] <= s["end"])
        assert slot["fee"] == session["fee"] > 0
    assert type(hospital.get(f"/api/v1/schedules/{day['id']}/slots").good()["version"]) is int


# Booking.


def test_a_number_is_held_and_others_see_it_within_a_second(hospital: Hospital) -> None:
    person, day = hospital.person(), next(hospital.free_days())
    slot = random.choice(day["slots"])
    before = hospital.get(f"/api/v1/schedules/{day['id']}/slots").good()
    held = person.hold(slot["id"]).good(201)
    assert set(held) == {"id", "status", "number", "slot_id", "pay_by", "bill_id"}
    assert (held["status"], held["slot_id"]) == ("pending", slot["id"])
    assert held["number"] >= 1
    UUID(held["id"]), UUID(held["bill_id"])
    left = datetime.fromisoformat(held["pay_by"]) - datetime.now(ZONE)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15, seconds=5)

    def after() -> Json:
        found: Json = hospital.get(f"/api/v1/schedules/{day['id']}/slots").good()
        return found

    expected = [{**s, "remaining": s["remaining"] - (s["id"] == slot["id"])} for s in before["slots"]]
    until(lambda: after()["slots"] == expected, FEED_SECONDS_MAX, "one seat less in its slot alone")
    assert after()["version"] > before["version"]
    schedule = next(
        s
        for s in hospital.get(f"/api/v1/schedules?practitioner={day['practitioner_id']}").good()["schedules"]
        if s["id"] == day["id"]
    )
    assert schedule["remaining"] == day["capacity"] - 1
    # Given back, it is free again.
    person.change(held["id"], "cancel").good()
    until(lambda: after()["slots"] == before["slots"], FEED_SECONDS_MAX, "the seat is free again")


def test_a_key_is_one_booking_and_a_key_for_another_is_refused(hospital: Hospital) -> None:
    person, day = hospital.person(), next(hospital.free_days())
    first = person.hold(day["slots"][0]["id"], "k")
    assert [person.hold(day["slots"][0]["id"], "k").good(201) for _ in range(3)] == [first.good(201)] * 3
    # Another slot of that doctor; another doctor, day and department; another patient.
    person.hold(day["slots"][1]["id"], "k").problem(422, "key_reused")
    other = hospital.free_slot(lambda s: s["date"] != day["date"])
    person.hold(other, "k").problem(422, "key_reused")
    second = person.add()["id"]
    person.hold(day["slots"][0]["id"], "k", second).problem(422, "key_reused")
    assert [a["id"] for a in person.list()["appointments"]] == [first.body["id"]]
    # The key is this account's: somebody else's is another.
    neighbour = hospital.person().hold(day["slots"][0]["id"], "k").good(201)
    assert neighbour["id"] != first.body["id"] and neighbour["number"] != first.body["number"]


def test_a_key_remembers_what_became_of_its_booking(hospital: Hospital) -> None:
    person = hospital.person()
    slot = hospital.free_slot()
    held = person.hold(slot, "k").good(201)
    person.change(held["id"], "cancel").good()
    assert person.hold(slot, "k").good(201)["id"] == held["id"]  # no second one under that key
    assert person.read(held["id"]).good()["status"] == "cancelled"
    assert person.hold(slot, "another").good(201)["id"] != held["id"]


def test_one_number_for_a_patient_a_department_and_a_day(hospital: Hospital) -> None:
    person = hospital.person()
    for day in hospital.free_days(lambda s: len(s["sessions"]) == 1):

        def is_colleague(s: Json, day: Json = day) -> bool:
            return (
                s["id"] != day["id"]
                and s["date"] == day["date"]
                and {x["department_id"] for x in s["sessions"]} == {day["department"]}
            )

        colleague = next(hospital.free_days(is_colleague), None)
        if colleague is not None:
            break
    else:
        raise AssertionError("no department has two doctors on a day")
    held = person.hold(day["slots"][0]["id"]).good(201)
    clock = day["slots"][0]["id"][-4:]
    later = next(slot["id"] for slot in colleague["slots"] if not slot["id"].endswith(clock))
    person.hold(later).problem(409, "already_booked", appointment_id=held["id"])
    person.hold(day["slots"][1]["id"]).problem(409, "already_booked", appointment_id=held["id"])
    # Given back, the way is free.
    person.change(held["id"], "cancel").good()
    person.hold(later).good(201)


def test_one_patient_is_at_one_place_at_a_time(hospital: Hospital) -> None:
    person, day = hospital.person(), next(hospital.free_days())
    clocks = {slot["id"][-4:] for slot in day["slots"]}
    departments = {s["department_id"] for s in day["sessions"]}
    for elsewhere in hospital.free_days(
        lambda s: (
            s["date"] == day["date"]
            and not departments & {x["department_id"] for x in s["sessions"]}
            and len(s["sessions"]) == 1
        )
    ):
        both = [slot["id"] for slot in elsewhere["slots"] if slot["id"][-4:] in clocks]
        if both and len(elsewhere["slots"]) > 1:
            break
    else:
        raise AssertionError("nobody else has that time")
    held = person.hold(f"{day['id']}-{both[0][-4:]}").good(201)
    person.hold(both[0]).problem(409, "time_conflict", appointment_id=held["id"])
    person.hold(next(s["id"] for s in elsewhere["slots"] if s["id"] != both[0])).good(201)


def test_a_full_slot_offers_three_ranked_others_that_can_be_booked(hospital: Hospital) -> None:
    day = next(hospital.free_days(lambda s: len(s["sessions"]) == 1))
    slot = day["slots"][0]
    numbers = [hospital.person().hold(slot["id"]).good(201)["number"] for _ in range(slot["capacity"])]
    assert sorted(numbers) == list(range(1, slot["capacity"] + 1))  # the first of its session
    until(
        lambda: hospital.slots(day["id"])[0]["remaining"] == 0, FEED_SECONDS_MAX, "the slot is seen as full"
    )
    late = hospital.person()
    offered = late.hold(slot["id"]).problem(409, "slot_full")["alternatives"]
    assert len(offered) >= 3
    assert len({o["slot_id"] for o in offered}) == len(offered)
    wanted_at = datetime.fromisoformat(slot["start"])

    def rank(offer: Json) -> tuple[int, timedelta]:
        same_doctor = offer["practitioner_id"] == day["practitioner_id"]
        same_day = offer["start"][:10] == day["date"]
        start = datetime.fromisoformat(offer["start"])
        same_half = (start.hour < 12) == (wanted_at.hour < 12)
        kind = (
            0
            if same_doctor and same_day
            else 1
            if same_day and offer["title"] == day["title"] and same_half
            else 2
            if same_doctor
            else 3
            if same_day
            else 4
        )
        return kind, abs(start - wanted_at)

    assert [rank(o) for o in offered] == sorted(rank(o) for o in offered), "best first"
    assert slot["id"] not in [o["slot_id"] for o in offered]
    for offer in offered:
        assert offer["remaining"] > 0 and offer["department_id"] == day["department"]
        assert offer["slot_id"].startswith(offer["schedule_id"])
        hospital.person().hold(offer["slot_id"]).good(201)
    # And the late one gets the best of them.
    late.hold(offered[0]["slot_id"]).good(201)


def test_who_may_not_book_is_told_the_rule(hospital: Hospital) -> None:
    man = hospital.resident(date(1970, 1, 1) + timedelta(days=random.randrange(9_000)), "male")
    woman = hospital.resident(date(1970, 1, 1) + timedelta(days=random.randrange(9_000)), "female")
    child = hospital.resident(datetime.now(ZONE).date() - timedelta(days=365 * 6), "male")

    def of(department: str) -> Callable[[Json], bool]:
        return lambda s: {x["department_id"] for x in s["sessions"]} == {department}

    among_children = man.hold(hospital.free_slot(of(CHILDREN)))
    body = among_children.problem(403, "not_eligible", rule="department_age", limit=14)
    assert "14" in body["detail"]
    man.hold(hospital.free_slot(of(WOMEN))).problem(403, "not_eligible", rule="department_sex")
    woman.hold(hospital.free_slot(of(WOMEN))).good(201)
    child.hold(hospital.free_slot(of(CHILDREN))).good(201)
    child.hold(hospital.free_slot(of("0310"))).problem(403, "not_eligible", rule="department_age", limit=60)
    man.hold(hospital.free_slot(), patient_id=child.patient_id).problem(
        403, "not_eligible", rule="patient_of_another_account"
    )
    man.hold(hospital.free_slot(), patient_id=str(uuid4())).problem(
        403, "not_eligible", rule="patient_of_another_account"
    )
    assert man.list()["appointments"] == []


def _apart(hospital: Hospital, count: int) -> list[str]:
    """Slots that one patient may have side by side: other days and departments, other times, few a day."""
    found: dict[tuple[str, str], str] = {}
    for day in hospital.free_days():
        if sum(date == day["date"] for date, _ in found) == DAY_MAX - 1:
            continue
        found.setdefault((day["date"], day["department"]), day["slots"][len(found) % len(day["slots"])]["id"])
        slots = list(found.values())
        if len({slot[-13:] for slot in slots}) < len(slots):  # two at one time
            found.popitem()
        elif len(found) == count:
            break
    return list(found.values())


def test_unpaid_and_open_numbers_are_bounded(hospital: Hospital) -> None:
    person = hospital.person()
    slots = _apart(hospital, ACTIVE_MAX + 1)
    held = [person.hold(slot).good(201) for slot in slots[:HOLDS_MAX]]
    person.hold(slots[HOLDS_MAX]).problem(403, "not_eligible", rule="account_holds_max", limit=HOLDS_MAX)
    for each in held:
        person.change(each["id"], "confirm").good()
    for slot in slots[HOLDS_MAX:ACTIVE_MAX]:
        person.change(person.hold(slot).good(201)["id"], "confirm").good()
    person.hold(slots[ACTIVE_MAX]).problem(
        403, "not_eligible", rule="active_appointments_max", limit=ACTIVE_MAX
    )
    # A retry of what is there is no new one.
    assert len(person.list()["appointments"]) == ACTIVE_MAX


def test_a_number_is_confirmed_and_confirming_again_changes_nothing(hospital: Hospital) -> None:
    person = hospital.person()
    held = person.hold(hospital.free_slot()).good(201)
    booked = person.change(held["id"], "confirm").good()
    assert booked == {"id": held["id"], "status": "booked", **{k: held[k] for k in ("number", "slot_id")}}
    read = person.read(held["id"]).good()
    assert person.change(held["id"], "confirm").good() == booked
    assert person.read(held["id"]).good() == read
    assert (read["status"], read["pay_by"], read["reason"]) == ("booked", None, None)


def test_a_bill_is_paid_at_the_hospital_if_nowhere_else(hospital: Hospital) -> None:
    person = hospital.person()
    held = person.hold(hospital.free_slot()).good(201)
    for provider in ("wechat_pay", "alipay"):
        begun = person.pay(held["bill_id"], provider).good(201)  # in the demo, a sandbox takes it
        assert (begun["status"], begun["bill_id"]) == ("waiting", held["bill_id"])
        assert begun["provider"] == provider and begun["client"]
    person.pay(held["bill_id"], "beads").problem(422, "invalid_body")
    assert person.read(held["id"]).good()["status"] == "pending"
    paid = person.pay(held["bill_id"]).good(201)
    fee = person.read(held["id"]).good()["fee"]
    assert paid == {
        "bill_id": held["bill_id"],
        "provider": "at_hospital",
        "status": "at_hospital",
        "fee": fee,
        "client": {},
    }
    assert person.read(held["id"]).good()["status"] == "booked"
    assert person.pay(held["bill_id"]).good(201) == paid
    hospital.person().pay(held["bill_id"]).problem(404, "no_such_bill")
    person.pay(str(uuid4())).problem(404, "no_such_bill")


@pytest.mark.parametrize("confirmed", [False, True], ids=["held", "booked"])
def test_a_number_is_cancelled_once_and_stays_cancelled(hospital: Hospital, confirmed: bool) -> None:
    person = hospital.person()
    held = person.hold(hospital.free_slot()).good(201)
    if confirmed:
        person.change(held["id"], "confirm").good()
    cancelled = person.change(held["id"], "cancel").good()
    assert cancelled["status"] == "cancelled"
    read = person.read(held["id"]).good()
    assert (read["status"], read["reason"]) == ("cancelled", "cancelled")
    assert person.change(held["id"], "cancel").good() == cancelled
    assert person.read(held["id"]).good() == read
    person.change(held["id"], "confirm").problem(409, "already_cancelled")
    person.pay(held["bill_id"]).problem(409, "already_cancelled")


def test_appointments_are_listed_newest_first_by_page_and_by_status(hospital: Hospital) -> None:
    person = hospital.person()
    made = [person.hold(slot).good(201)["id"] for slot in _apart(hospital, HOLDS_MAX)]
    person.change(made[0], "cancel").good()
    person.change(made[1], "confirm").good()
    assert [a["id"] for a in person.list()["appointments"]] == made[::-1]
    assert person.list()["before"] is None
    pages, query = [], "?limit=2"
    while True:
        page = person.list(query)
        pages.append([a["id"] for a in page["appointments"]])
        if page["before"] is None:
            break
        query = f"?limit=2&before={page['before'].replace('+', '%2B')}"
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sum(pages, []) == made[::-1]
    by = {
        word: [a["id"] for a in person.list(f"?status={word}")["appointments"]]
        for word in ("pending", "booked", "cancelled", "noshow")
    }
    assert by == {
        "pending": made[:1:-1],
        "booked": [made[1]],
        "cancelled": [made[0]],
        "noshow": [],
    }
    both = person.list("?status=booked&status=cancelled")["appointments"]
    assert [a["id"] for a in both] == [made[1], made[0]]


def test_an_appointment_read_alone_says_what_the_list_says_and_what_the_catalog_says(
    hospital: Hospital,
) -> None:
    person, day = hospital.person(), next(hospital.free_days())
    slot = day["slots"][-1]
    held = person.hold(slot["id"]).good(201)
    read = person.read(held["id"]).good()
    assert person.list()["appointments"] == [read]
    assert read["practitioner_name"] == day["practitioner_name"]
    assert read["department_name"] == hospital.departments[read["department_id"]]["name"]
    told = {name: slot[name] for name in ("start", "end", "fee")}
    assert {name: read[name] for name in told} == told
    assert (read["patient_name"], read["patient_id"]) == ("测试者", person.patient_id)
    assert {name: read[name] for name in held} == held


def test_another_account_sees_and_changes_nothing(hospital: Hospital) -> None:
    person, stranger = hospital.person(), hospital.person()
    held = person.hold(hospital.free_slot()).good(201)
    stranger.read(held["id"]).problem(404, "no_such_appointment")
    for what in ("confirm", "cancel"):
        stranger.change(held["id"], what).problem(404, "no_such_appointment")
    stranger.pay(held["bill_id"]).problem(404, "no_such_bill")
    assert stranger.list()["appointments"] == []
    assert person.read(held["id"]).good()["status"] == "pending"


# What must not get in. The table is run as a whole, and then SQL is asked whether anything has changed.


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who sends bad input: a good person, a good slot, a number held, and an expired token."""

    person: Person
    slot: str
    held: str
    key: str
    expired: str

    def booking(self, **changes: object) -> Json:
        return {"slot_id": self.slot, "patient_id": self.person.patient_id, **changes}


Bad = tuple[str, str, int, str, dict[str, Any]]


def _bad(s: Stranger) -> dict[str, Bad]:
    a, p, m = "/api/v1/appointments", "/api/v1/patients", s.person.token
    good, form_ = s.booking(), form()
    text = json.dumps(good).encode()
    signed = {"token": m, "key": "new"}
    yesterday = datetime.now(ZONE).date() - timedelta(days=1)
    doctor = s.slot.split("-")[0]

    def hold(status: int, code: str, body: object, **more: Any) -> Bad:
        return "POST", a, status, code, {**signed, "body": body, **more}

    def patient(status: int, code: str, body: object, **more: Any) -> Bad:
        return "POST", p, status, code, {"token": m, "body": body, **more}

    def look(path: str, status: int, code: str) -> Bad:
        return "GET", path, status, code, {"token": m}

    return {
        # Ids.
        "unknown slot": hold(404, "no_such_slot", s.booking(slot_id=s.slot[:-4] + "0330")),
        "unknown doctor": hold(404, "no_such_schedule", s.booking(slot_id="D9999-20261130-0800")),
        "malformed slot": hold(404, "no_such_slot", s.booking(slot_id="tomorrow")),
        "slot with signs": hold(422, "invalid_body", s.booking(slot_id="'; drop table appointment;--")),
        "malformed patient": hold(422, "invalid_body", s.booking(patient_id="12")),
        "unknown patient": hold(403, "not_eligible", s.booking(patient_id=str(uuid4()))),
        "unknown appointment": look(f"{a}/{uuid4()}", 404, "no_such_appointment"),
        "malformed appointment": look(f"{a}/12", 404, "not_found"),
        "appointment with NUL": look(f"{a}/%00", 404, "not_found"),
        "confirm of nothing": ("POST", f"{a}/{uuid4()}/confirm", 404, "no_such_appointment", signed),
        "cancel of nonsense": ("POST", f"{a}/nonsense/cancel", 404, "not_found", signed),
        "unknown department": look("/api/v1/departments/9999/practitioners", 404, "no_such_department"),
        "malformed department": look("/api/v1/departments/%E7%A7%91/practitioners", 404, "not_found"),
        "unknown practitioner": look("/api/v1/practitioners/D9999", 404, "no_such_practitioner"),
        "unknown schedule": look("/api/v1/schedules/D9999-20261130/slots", 404, "no_such_schedule"),
        "malformed schedule": look("/api/v1/schedules/%00/slots", 404, "not_found"),
        "schedules of nobody": look("/api/v1/schedules?practitioner=D9999", 404, "no_such_practitioner"),
        "schedules of nowhere": look("/api/v1/schedules?department=9999", 404, "no_such_department"),
        "schedules by no title": look("/api/v1/schedules?title=wizard", 422, "invalid_query"),
        # Times.
        "a past slot": hold(404, "no_such_schedule", s.booking(slot_id=f"{doctor}-{yesterday:%Y%m%d}-0900")),
        "long past": hold(404, "no_such_schedule", s.booking(slot_id=f"{doctor}-19700101-0900")),
        "far ahead": hold(404, "no_such_schedule", s.booking(slot_id=f"{doctor}-99991231-0900")),
        "no such day": hold(404, "no_such_schedule", s.booking(slot_id=f"{doctor}-20260230-0900")),
        "no such hour": hold(404, "no_such_slot", s.booking(slot_id=f"{doctor}-20261130-2400")),
        "time without zone": look(f"{a}?before=2026-11-23T08:00:00", 422, "invalid_query"),
        "a date for a time": look(f"{a}?before=2026-11-23", 422, "invalid_query"),
        "seconds for a time": look(f"{a}?before=1700000000", 422, "invalid_query"),
        "a time for a date": look("/api/v1/schedules?from=2026-11-23T08:00:00Z", 422, "invalid_query"),
        "a date that is none": look("/api/v1/schedules?from=2026-02-30", 422, "invalid_query"),
        "an impossible year": look("/api/v1/schedules?to=10000-01-01", 422, "invalid_query"),
        # Bodies.
        "no body": hold(415, "unsupported_media_type", None),
        "an empty body": hold(400, "malformed_json", b""),
        "half a body": hold(400, "malformed_json", text[:-3]),
        "a key twice": hold(400, "duplicate_key", text[:-1] + b',"slot_id":"x"}'),
        "a key twice in a patient": patient(
            400,
            "duplicate_key",
            json.dumps(form_).encode()[:-1] + ',"name":"乙"}'.encode(),
        ),
        "NaN": hold(400, "malformed_json", b'{"slot_id":NaN}'),
        "not UTF-8": patient(400, "malformed_json", json.dumps(form_).encode("utf-16")),
        "GBK": patient(400, "malformed_json", json.dumps(form_, ensure_ascii=False).encode("gbk")),
        "a lone surrogate": patient(400, "malformed_json", json.dumps({**form_, "name": "\ud800"}).encode()),
        "20 kB of booking": hold(413, "body_too_large", s.booking(slot_id="x" * 20_000)),
        "20 kB of patient": patient(413, "body_too_large", {**form_, "name": "文" * 20_000}),
        "2 MB": hold(413, "body_too_large", b'"' + b"x" * 2_000_000 + b'"'),
        "deeply nested": hold(400, "malformed_json", b"[" * 8_000 + b"]" * 8_000),
        "unknown field": hold(422, "invalid_body", s.booking(price=1)),
        "a list": hold(422, "invalid_body", []),
        "wrong types": hold(422, "invalid_body", {"slot_id": 1, "patient_id": True}),
        "XML": hold(415, "unsupported_media_type", b"<a/>", Content_Type="application/xml"),
        # Keys.
        "no key": hold(400, "missing_idempotency_key", good, key=None),
        "a key with spaces": hold(400, "invalid_idempotency_key", good, key="a b"),
        "a long key": hold(400, "invalid_idempotency_key", good, key="x" * 129),
        "confirm without a key": (
            "POST",
            f"{a}/{s.held}/confirm",
            400,
            "missing_idempotency_key",
            {"token": m},
        ),
        "a key reused": hold(422, "key_reused", s.booking(), key=s.key),
        # Who asks.
        "no token": hold(401, "unauthenticated", good, token=None),
        "nonsense for a token": hold(401, "unauthenticated", good, token="x" * 40),
        "an expired token": hold(401, "token_expired", good, token=s.expired),
        "an expired token, reading": ("GET", a, 401, "token_expired", {"token": s.expired}),
        "an expired token, adding": patient(401, "token_expired", form_, token=s.expired),
        # People.
        "an emoji": patient(422, "invalid_name", {**form_, "name": "小明😀"}),
        "no name": patient(422, "invalid_body", {**form_, "name": ""}),
        "a wrong check digit": patient(
            422, "invalid_id_number", {**form_, "id_type": "resident_id", "id_number": "110105199003070012"}
        ),
        "a birthday to come": patient(422, "invalid_birth_date", {**form_, "birth_date": "2190-01-01"}),
        "a birthday with a time": patient(
            422, "invalid_body", {**form_, "birth_date": "1990-01-01T00:00:00Z"}
        ),
        "no phone of anybody": patient(422, "invalid_phone", {**form_, "phone": "12345678901"}),
        "an unknown relation": patient(422, "invalid_body", {**form_, "relation": "cat"}),
        "a NUL in a number": patient(422, "invalid_id_number", {**form_, "id_number": "A123\u000045"}),
        # Queries.
        "limit 0": look(f"{a}?limit=0", 422, "invalid_query"),
        "limit 101": look(f"{a}?limit=101", 422, "invalid_query"),
        "limit of words": look(f"{a}?limit=all", 422, "invalid_query"),
        "a filter twice": look("/api/v1/schedules?from=2026-11-24&from=2026-11-25", 422, "invalid_query"),
        "an unknown filter": look("/api/v1/schedules?doctor=D0001", 422, "invalid_query"),
        "an unknown status": look(f"{a}?status=lost", 422, "invalid_query"),
        # Addresses and methods.
        "an unknown address": look("/api/v1/nothing", 404, "not_found"),
        "an address outside": look("/../../etc/passwd", 404, "not_found"),
        "an asset outside": look("/docs/assets/../../../../etc/passwd", 404, "not_found"),
        "delete": ("DELETE", f"{a}/{s.held}", 405, "method_not_allowed", signed),
        "put": ("PUT", a, 405, "method_not_allowed", {**signed, "body": good}),
    }


async def _counted(system: System) -> Json:
    connection = await asyncpg.connect(database_url(system.home))
    try:
        return {
            table: await connection.fetchval(f"select count(*) from {table}")
            for table in ("appointment", "patient", "account", "account_patient")
        }
    finally:
        await connection.close()


async def test_bad_input_is_refused_with_its_code_and_changes_nothing(hospital: Hospital) -> None:
    person, stranger = hospital.person(), hospital.person()
    held = person.hold(hospital.free_slot(), "used").good(201)
    tokens = Tokens((hospital.system.home / "token.key").read_bytes(), 1800, 1800, lambda: time.time() - 3600)
    sender = Stranger(
        person,
        hospital.free_slot(lambda s: not held["slot_id"].startswith(s["id"])),
        held["id"],
        "used",
        tokens.issue(uuid4().bytes).access_token,
    )
    table = _bad(sender)
    theirs = sender.booking(patient_id=stranger.patient_id)
    table["a patient of another account"] = (
        "POST",
        "/api/v1/appointments",
        403,
        "not_eligible",
        {"token": person.token, "key": "new", "body": theirs},
    )
    before, read = await _counted(hospital.system), person.read(held["id"]).good()
    wrong = []
    for name, (method, path, status, code, sent) in table.items():
        answer = hospital.call(method, path, **sent)
        try:
            answer.problem(status, code)
        except AssertionError:
            wrong.append(f"{name}: {answer.status} {answer.raw[:200].decode()}")
    assert not wrong, "\n".join(wrong)
    assert await _counted(hospital.system) == before
    assert person.read(held["id"]).good() == read
    # And the very same, done right, is done.
    hospital.post("/api/v1/appointments", person.token, sender.booking(), "new").good(201)


def test_a_slot_that_has_begun_is_past(hospital: Hospital) -> None:
    now = datetime.now(ZONE)
    today = hospital.get(f"/api/v1/schedules?to={now.date()}").good()["schedules"]
    begun = [s for s in today if datetime.fromisoformat(s["sessions"][0]["start"]) <= now]
    if not begun:
        pytest.skip("nobody has begun yet today, in Shanghai")
    slot = hospital.slots(random.choice(begun)["id"])[0]
    assert datetime.fromisoformat(slot["start"]) <= now
    person = hospital.person()
    person.hold(slot["id"]).problem(409, "slot_past")
    assert person.list()["appointments"] == []


def test_a_method_that_is_not_allowed_names_those_that_are(hospital: Hospital) -> None:
    answer = hospital.call("DELETE", "/api/v1/appointments")
    answer.problem(405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(","))


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        (None, "zh-CN"),
        ("en", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("en;q=0.3,zh;q=0.7", "zh-CN"),
        ("fr,en;q=0.1", "en"),
        ("de", "zh-CN"),
        ("*", "zh-CN"),
        ("en;q=0", "zh-CN"),
        ("en;q=x", "zh-CN"),
        (",;=" * 100, "zh-CN"),
    ],
)
def test_problems_are_told_in_the_language_that_is_asked_for(
    hospital: Hospital, asked: str | None, spoken: str
) -> None:
    headers = {} if asked is None else {"Accept_Language": asked}
    for call in (
        partial(hospital.get, "/api/v1/nothing"),
        partial(hospital.get, "/api/v1/appointments"),
        partial(hospital.post, "/api/v1/sessions", body={}),
        partial(hospital.post, "/api/v1/appointments"),
        partial(hospital.call, "DELETE", "/healthz"),
    ):
        answer = call(**headers)
        assert answer.headers["Content-Language"] == spoken
        assert answer.headers["Vary"] == "Accept-Language"
        assert answer.body["title"].isascii() == answer.body["detail"].isascii() == (spoken == "en")


# For machines.


def test_health_and_readiness(hospital: Hospital) -> None:
    assert (hospital.get("/healthz").status, hospital.get("/healthz").body) == (200, {"status": "ok"})
    assert (hospital.get("/readyz").status, hospital.get("/readyz").body) == (200, {"status": "ready"})


def test_metrics_are_what_prometheus_reads_and_nothing_is_in_two_states(hospital: Hospital) -> None:
    person = hospital.person()
    slot = hospital.free_slot()
    person.hold(slot).good(201)
    person.hold(slot).problem(409, "already_booked")

    answer = hospital.get("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.raw.decode())}
    kinds = {
        "xinglin_bookings": "counter",
        "xinglin_http_requests": "counter",
        "xinglin_http_seconds": "histogram",
        "xinglin_batch_commands": "histogram",
        "xinglin_flush_entries": "histogram",
        "xinglin_flush_seconds": "histogram",
        "xinglin_mailbox_wait_seconds": "histogram",
        "xinglin_loop_lag_seconds": "histogram",
        "xinglin_commands": "counter",
        "xinglin_shed": "counter",
        "xinglin_admitted": "gauge",
        "xinglin_conservation_error": "gauge",
    }
    assert {name: families[name].type for name in kinds if name in families} == kinds

    def total(name: str, sample: str, **labels: str) -> float:
        return sum(
            s.value for s in families[name].samples if s.name == sample and labels.items() <= s.labels.items()
        )

    assert total("xinglin_bookings", "xinglin_bookings_total", outcome="held") >= 1
    assert total("xinglin_bookings", "xinglin_bookings_total", outcome="already_booked") >= 1
    route = {"route": "POST /api/v1/appointments"}
    assert total("xinglin_http_seconds", "xinglin_http_seconds_count", **route) >= 2
    assert total("xinglin_http_requests", "xinglin_http_requests_total", status="201", **route) >= 1
    for name in ("batch_commands", "flush_entries", "flush_seconds", "mailbox_wait_seconds"):
        assert total(f"xinglin_{name}", f"xinglin_{name}_count") >= 1, name
    errors = [s.value for s in families["xinglin_conservation_error"].samples]
    assert errors and set(errors) == {0.0}
    for family in families.values():
        spelled = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
        assert len(spelled) == len(set(spelled)), f"{family.name} has a sample twice"


def test_the_document_is_valid_and_has_every_route_of_the_contract(hospital: Hospital) -> None:
    answer = hospital.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(answer.body).validate()
    routes = {(m.upper(), path) for path, methods in answer.body["paths"].items() for m in methods}
    assert routes >= {
        ("POST", "/api/v1/sessions"),
        ("POST", "/api/v1/patients"),
        ("GET", "/api/v1/patients"),
        ("GET", "/api/v1/departments"),
        ("GET", "/api/v1/departments/{id}/practitioners"),
        ("GET", "/api/v1/schedules"),
        ("GET", "/api/v1/schedules/{id}/slots"),
        ("POST", "/api/v1/appointments"),
        ("GET", "/api/v1/appointments"),
        ("GET", "/api/v1/appointments/{id}"),
        ("POST", "/api/v1/appointments/{id}/cancel"),
        ("POST", "/api/v1/appointments/{id}/confirm"),
        ("POST", "/api/v1/bills/{id}/payments"),
        ("POST", "/api/v1/bills/{id}/payments/{payment}/check"),
        ("GET", "/api/v1/bills/{id}"),
        ("GET", "/api/v1/bills"),
        ("POST", "/api/v1/callbacks/wechat_pay"),
        ("POST", "/api/v1/callbacks/alipay"),
    }


def test_the_docs_bring_all_that_they_name_from_here(hospital: Hospital) -> None:
    page = hospital.get("/docs")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = page.raw.decode()
    assert not re.findall(r"""(?:src|href|url)\s*[=:]\s*["'](?:https?:)?//""", text), "nothing from elsewhere"
    named = re.findall(r"""(?:src|href)="([^"]+)"|url: "([^"]+)\"""", text)
    assert len(named) >= 4
    for one, other in named:
        asset = hospital.get(one or other)
        assert asset.status == 200 and asset.raw, one or other


# A system whose holds live a second, and which admits one booking at a time.


@pytest.fixture(scope="module")
def hasty() -> Iterator[Hospital]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XINGLIN_HOLD_SECONDS", "1")
        environment.setenv("XINGLIN_ADMITTED_MAX", "1")
        environment.setenv("XINGLIN_ACCESS_TOKEN_SECONDS", str(TOKEN_SECONDS))
        with started() as system:
            yield Hospital(system)


def test_an_unpaid_hold_ends_by_itself_and_its_seat_goes_to_the_next(hasty: Hospital) -> None:
    day = next(hasty.free_days())
    slot = min(day["slots"], key=lambda s: s["capacity"])
    people = [hasty.person() for _ in range(slot["capacity"] + 1)]
    paid, *unpaid, late = people
    kept = paid.hold(slot["id"], "k").good(201)
    paid.change(kept["id"], "confirm").good()
    held = [person.hold(slot["id"], "k").good(201) for person in unpaid]
    ends = max(datetime.fromisoformat(each["pay_by"]) for each in held)
    assert timedelta(0) < ends - datetime.now(ZONE) < timedelta(seconds=2)

    def are_over() -> bool:
        read = [person.read(each["id"]).good()["status"] for person, each in zip(unpaid, held, strict=True)]
        return set(read) == {"cancelled"}

    def remaining() -> int:
        found: int = hasty.slots(day["id"])[day["slots"].index(slot)]["remaining"]
        return found

    until(are_over, SETTLE_SECONDS_MAX, "what nobody paid ends")
    until(lambda: remaining() == slot["capacity"] - 1, FEED_SECONDS_MAX, "and is free again")
    for person, each in zip(unpaid, held, strict=True):
        read = person.read(each["id"]).good()
        assert (read["status"], read["reason"]) == ("cancelled", "expired")
        person.change(each["id"], "confirm").problem(409, "hold_expired")
        person.pay(each["bill_id"]).problem(409, "hold_expired")
        assert person.hold(slot["id"], "k").good(201)["id"] == each["id"]  # the key's first answer
    taken = late.hold(slot["id"]).good(201)
    assert taken["number"] in [each["number"] for each in held]
    assert paid.read(kept["id"]).good()["status"] == "booked"  # a paid one never ends


def test_past_the_bound_the_answer_is_a_fast_503_and_the_same_key_succeeds_later(hasty: Hospital) -> None:
    day = next(hasty.free_days(lambda s: s["capacity"] >= 16))
    people = [hasty.person() for _ in range(16)]
    slots = [slot["id"] for slot in day["slots"] for _ in range(slot["capacity"])][:16]
    start = threading.Barrier(len(people))
    refusals: list[Answer] = []
    held: list[Json] = []

    def book(person: Person, slot_id: str) -> None:
        start.wait()
        ends = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            answer = person.hold(slot_id, "k")
            if answer.status != 503:
                held.append(answer.good(201))
                return
            refusals.append(answer)
            assert time.monotonic() < ends, "never admitted"
            time.sleep(random.random() / 10)

    threads = [threading.Thread(target=book, args=pair) for pair in zip(people, slots, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == len(people)
    assert refusals, "sixteen at once and nobody was refused"
    for answer in refusals:
        assert answer.problem(503, "busy", retry_after=1)
        assert answer.headers["Retry-After"] == "1"
    assert len({(each["slot_id"], each["number"]) for each in held}) == len(people)


def test_a_token_ends_and_says_so(hasty: Hospital) -> None:
    grant = {"grant": "wechat", "code": "sandbox:" + secrets.token_hex(8)}
    pair = hasty.post("/api/v1/sessions", body=grant).good(201)
    assert pair["expires_in"] == TOKEN_SECONDS
    assert hasty.get("/api/v1/patients", pair["access_token"]).status == 200
    # Seen as good before, so it comes from the gateway's memory, which must forget in time.
    until(
        lambda: hasty.get("/api/v1/patients", pair["access_token"]).status == 401,
        TOKEN_SECONDS + 2,
        "the token ends",
    )
    refused = hasty.get("/api/v1/patients", pair["access_token"])
    refused.problem(401, "token_expired")
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    again = {"grant": "refresh", "refresh_token": pair["refresh_token"]}
    token = hasty.post("/api/v1/sessions", body=again).good(201)["access_token"]
    assert hasty.get("/api/v1/patients", token).status == 200


@pytest.mark.parametrize(
    "before",
    [
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_a_time_at_the_end_of_the_calendar_is_no_fault_of_ours(hospital: Hospital, before: str) -> None:
    answer = hospital.get(f"/api/v1/appointments?before={before}", hospital.token())
    assert answer.status in (200, 422)


def test_fenced_writers_are_counted_in_the_metrics(hospital: Hospital) -> None:
    families = text_string_to_metric_families(hospital.get("/metrics").raw.decode())
    assert any("fenced" in family.name for family in families)
