"""Numbers at the window and by the HIS, who came, and who said that they would: through a running server."""

import asyncio
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

from benchmarks.check import database_url
from tests.integration.test_api import Hospital, Json, Person, form, until
from tests.integration.test_desk_schedules import Colleague
from tests.support.system import System, run, started
from web.audit import audit_url

POOLED, ASKED = "0303", "0305"
POLICY = f"""\
departments:
  "{POOLED}":
    pools:
      - {{name: window, percent: 50, channels: [window]}}
  "{ASKED}":
    attendance: {{from: 30d, by: 20d}}
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


@pytest.fixture(scope="module")
def desk(hospital: Hospital) -> Colleague:
    return Colleague(hospital, "demo-desk")


USED: set[str] = set()


def day_of(hospital: Hospital, department: str) -> Json:
    """A day that no other test is at, with its slots as patients see them."""

    def fresh() -> list[Json]:
        found = hospital.get(f"/api/v1/schedules?department={department}").good()["schedules"]
        return [day for day in found if day["id"] not in USED and day["remaining"] >= 4]

    until(lambda: bool(fresh()), 10, "a day to book")
    day = fresh()[-1]
    USED.add(day["id"])
    slots = hospital.get(f"/api/v1/schedules/{day['id']}/slots").good()["slots"]
    return {**day, "slots": slots}


def someone(**changes: object) -> Json:
    """Who stands at the window."""
    told = {"name": "赵敏", "id_type": "passport", "id_number": "E" + secrets.token_hex(4)[:8].upper()}
    return {**told, "phone": "13900139000", "sex": "female", "birth_date": "1980-01-01", **changes}


def register(desk: Colleague, slot_id: str, patient: Json | None = None, key: str | None = None) -> Json:
    body = {"slot_id": slot_id, "patient": patient or someone()}
    return desk.post("appointments", body, key).good(201)


def patient_of(hospital: Hospital) -> Person:
    person = Person(hospital, hospital.token("desk-" + secrets.token_hex(6)))
    person.add(**{k: v for k, v in form().items() if k not in ("id_number",)})
    return person


def test_the_window_books_through_the_same_actor_and_a_retry_finds_its_number(
    hospital: Hospital, desk: Colleague
) -> None:
    slot = day_of(hospital, "0304")["slots"][0]
    patient = someone()
    first = register(desk, slot["id"], patient, "window-1")
    assert (first["status"], first["channel"]) == ("booked", "window")
    assert register(desk, slot["id"], patient, "window-1") == first
    refused = desk.post("appointments", {"slot_id": slot["id"], "patient": patient})
    refused.problem(409, "already_booked", appointment_id=first["id"])


def test_seats_kept_for_the_window_are_not_the_mini_programs(hospital: Hospital, desk: Colleague) -> None:
    """Half of the seats are the window's. Patients see and get the other half, the window gets all."""
    day = day_of(hospital, POOLED)
    [sheet] = [x for x in desk.sheet(day["id"])["sessions"] if x["period"] == day["sessions"][0]["period"]]
    slot = next(x for x in day["slots"] if x["remaining"])
    seats = next(x for x in sheet["slots"] if x["slot_id"] == slot["id"])["capacity"]
    assert 0 < slot["capacity"] < seats
    people = [patient_of(hospital) for _ in range(slot["capacity"] + 1)]
    for person in people[:-1]:
        person.hold(slot["id"]).good(201)
    people[-1].hold(slot["id"]).problem(409, "slot_full")
    for _ in range(seats - slot["capacity"]):
        register(desk, slot["id"])
    full = desk.post("appointments", {"slot_id": slot["id"], "patient": someone()})
    full.problem(409, "slot_full")
    assert full.body["alternatives"], "the clerk is told where else there is room"


def test_the_his_has_its_own_channel(hospital: Hospital) -> None:
    partner = Colleague(hospital, "demo-his")
    slot = day_of(hospital, "0304")["slots"][1]
    assert register(partner, slot["id"])["channel"] == "his"


def test_a_bad_identity_is_told_field_by_field(hospital: Hospital, desk: Colleague) -> None:
    slot = day_of(hospital, "0304")["slots"][0]
    wrong = someone(id_type="resident_id", id_number="110101199003078031")
    answer = desk.post("appointments", {"slot_id": slot["id"], "patient": wrong})
    answer.problem(422, "invalid_id_number")


def test_who_came_is_recorded_and_may_be_corrected(hospital: Hospital, desk: Colleague) -> None:
    number = register(desk, day_of(hospital, "0304")["slots"][0]["id"])["id"]

    def record(status: str) -> Json:
        found: Json = desk.post(f"appointments/{number}/attendance", {"status": status}).body
        return found

    assert record("arrived")["status"] == "arrived"
    assert record("arrived")["status"] == "arrived"
    assert record("booked")["status"] == "booked"
    assert record("noshow")["code"] == "wrong_state", "the visit is still ahead"
    assert record("fulfilled")["status"] == "fulfilled"
    assert record("arrived")["code"] == "wrong_state"


def test_the_desk_cancels_and_changes_for_somebody_with_a_reason(hospital: Hospital, desk: Colleague) -> None:
    one, other = day_of(hospital, "0304"), day_of(hospital, "0304")
    number = register(desk, one["slots"][0]["id"])["id"]
    desk.post(f"appointments/{number}/cancel", {"note": ""}).problem(422, "invalid_body")
    body = {"slot_id": other["slots"][0]["id"]}
    moved = desk.post(f"appointments/{number}/reschedule", body, "change-1").good()
    assert moved["status"] == "booked" and moved["id"] != number
    assert desk.post(f"appointments/{number}/reschedule", body, "change-1").good() == moved
    cancelled = desk.post(f"appointments/{moved['id']}/cancel", {"note": "患者来电要求退号"}).good()
    assert cancelled["status"] == "cancelled"
    lines = desk.get(f"schedules/{other['id']}/history").good()["lines"]
    [line] = [x for x in lines if x["what"] == "cancelled"]
    assert line["note"] == "患者来电要求退号"


def test_others_than_their_department_are_not_the_desks_to_touch(hospital: Hospital) -> None:
    doctor, manager = Colleague(hospital, "demo-doctor"), Colleague(hospital, "demo-manager")
    number = register(manager, day_of(hospital, "0304")["slots"][0]["id"])["id"]
    doctor.post(f"appointments/{number}/cancel", {"note": "x"}).problem(403, "forbidden")


def test_whoever_does_not_say_that_he_comes_gives_his_number_back(system: System, hospital: Hospital) -> None:
    """Asked 30 days before, until 20 days before. Two of them have booked long ago: the database says so."""
    day = day_of(hospital, ASKED)
    silent, coming, late = (patient_of(hospital) for _ in range(3))
    numbers = []
    for person in (silent, coming, late):
        held = person.hold(day["slots"][0]["id"]).good(201)
        numbers.append(held["id"])
    coming_id = numbers[1]
    for person, number in zip((coming, late), numbers[1:], strict=True):
        person.change(number, "confirm").good()
    assert coming.read(coming_id).good()["attend_by"] is None, "who books after the question is not asked"
    assert coming.change(coming_id, "attend").good()["status"] == "booked"
    assert coming.change(coming_id, "attend").good()["status"] == "booked"

    async def counted() -> bool:
        """The indicators have taken in what has happened: the day of a booking must not change before."""
        connection = await asyncpg.connect(database_url(system.home))
        behind: int = await connection.fetchval(
            "select count(*) from shard s left join indicator_position p on p.shard = s.id"
            " where s.seq > coalesce(p.seq, 0)"
        )
        await connection.close()
        return not behind

    async def booked_earlier(days: int) -> None:
        connection = await asyncpg.connect(database_url(system.home))
        await connection.execute(
            "update appointment set created_at = created_at - make_interval(days => $2)"
            " where id = any ($1::uuid[])",
            numbers[:2],
            days,
        )
        await connection.close()

    silent.change(numbers[0], "confirm").good()
    until(lambda: asyncio.run(counted()), 20, "all that has happened is counted")
    asyncio.run(booked_earlier(90))
    until(
        lambda: silent.read(numbers[0]).good()["status"] == "cancelled", 20, "the silent one's seat is back"
    )
    gone = silent.read(numbers[0]).good()
    assert (gone["reason"], gone["refund_due"]) == ("unconfirmed", gone["fee"])
    assert coming.read(coming_id).good()["status"] == "booked"
    until(lambda: asyncio.run(counted()), 20, "all that has happened is counted")
    asyncio.run(booked_earlier(-90))  # the audit counts what was booked on which day
    assert coming.read(coming_id).good()["will_come"] is True
    assert late.read(numbers[2]).good()["status"] == "booked"


def test_any_doctor_of_a_department(hospital: Hospital) -> None:
    person = patient_of(hospital)
    day = day_of(hospital, "0304")
    body = {"department": "0304", "date": day["date"], "patient_id": person.patient_id, "near": "09:00"}
    first = hospital.post("/api/v1/appointments/any-doctor", person.token, body, "any-1").good(201)
    assert first["slot_id"].split("-")[1] == day["date"].replace("-", "")
    again = hospital.post("/api/v1/appointments/any-doctor", person.token, body, "any-1").good(201)
    assert (again["id"], again["slot_id"], again["number"]) == (
        first["id"],
        first["slot_id"],
        first["number"],
    )
    hospital.post("/api/v1/appointments/any-doctor", person.token, body, "any-2").problem(
        409, "already_booked"
    )
    body["department"] = "nowhere"
    hospital.post("/api/v1/appointments/any-doctor", person.token, body, "any-3").problem(
        404, "no_such_department"
    )


def test_the_audit_finds_all_of_it_in_its_place(system: System) -> None:
    checks = asyncio.run(audit_url(database_url(system.home)))
    assert [(c.name, c.examples) for c in checks if not c.ok] == []
    assert next(c.examined for c in checks if c.name == "nobody before the release")
