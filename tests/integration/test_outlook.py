"""Waiting times through a running server: outlooks, notices, and what staff see of how good they were."""

import asyncio
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from benchmarks.check import database_url
from tests.integration.test_api import Hospital, Json, until
from tests.integration.test_check_in import FAR, HERE, Clinic, Patient
from tests.support.noon import HEART, LUNGS, noon_hospital, noon_zone
from tests.support.system import run, started

NOTICE_SECONDS = 10.0


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    hospital = noon_hospital(tmp_path_factory.mktemp("noon"))
    with started("--gateways", "1", "--shards", "2", hospital=hospital) as system:
        yield Clinic(system, Hospital(system), ZoneInfo(noon_zone()))


def outlook(clinic: Clinic, patient: Patient, query: str = "") -> Json:
    path = f"/api/v1/appointments/{patient.appointment}/outlook{query}"
    return clinic.hospital.get(path, patient.token).good()


def at(told: str) -> datetime:
    return datetime.fromisoformat(told)


def kept(clinic: Clinic, patient: Patient, kind: str) -> int:
    """Notices to a patient, asked of the database: the server thinks little of whoever asks all the time."""

    async def count() -> int:
        connection = await asyncpg.connect(database_url(clinic.system.home))
        try:
            found: int = await connection.fetchval(
                "select count(*)::int from notice where patient_id = $1 and kind = $2",
                UUID(patient.patient_id),
                kind,
            )
            return found
        finally:
            await connection.close()

    return asyncio.run(count())


def test_before_check_in_it_says_when_and_when_to_set_out(clinic: Clinic) -> None:
    patient = clinic.booked("D0034")
    told = outlook(clinic, patient, "?way_minutes=20")
    half_past_one = at(told["appointed_at"])
    assert (half_past_one.hour, half_past_one.minute) == (13, 30)
    assert told["ticket_id"] is None and told["why"] is None and told["late_minutes"] == 0
    turn = told["turn"]
    assert at(turn["p10_at"]) <= at(turn["p50_at"]) <= at(turn["p90_at"])
    assert at(turn["p90_at"]) >= half_past_one, "nobody is called before his time who is not here"
    assert turn["light"] in ("green", "yellow", "red")
    assert (told["way_minutes"], told["way"], told["margin_minutes"]) == (20, "asked", 10)
    leave = at(told["leave_home_at"])
    assert half_past_one - timedelta(minutes=30) <= leave <= half_past_one
    further = outlook(clinic, patient, "?way_minutes=50")
    assert abs(at(further["leave_home_at"]) - (leave - timedelta(minutes=30))) < timedelta(minutes=2)


def test_the_way_may_be_where_the_phone_is_and_is_kept_when_said(clinic: Clinic) -> None:
    patient = clinic.booked("D0034")
    assert outlook(clinic, patient)["way"] == "assumed"
    near = outlook(clinic, patient, f"?latitude={FAR['latitude']}&longitude={FAR['longitude']}")
    assert (near["way_minutes"], near["way"]) == (5, "asked")
    far = outlook(clinic, patient, f"?latitude={HERE['latitude'] + 0.1}&longitude={HERE['longitude']}")
    assert 40 <= far["way_minutes"] <= 50, "eleven kilometres"
    path = f"/api/v1/appointments/{patient.appointment}/way"
    put = clinic.hospital.call
    assert put("PUT", path, patient.token, {"minutes": 70}).good() == {"minutes": 70}
    assert (outlook(clinic, patient)["way_minutes"], outlook(clinic, patient)["way"]) == (70, "kept")
    assert (
        put("PUT", path, patient.token, {"latitude": 40.1169, "longitude": 116.3916}).good()["minutes"] > 30
    )
    put("PUT", path, patient.token, {}).problem(422, "way_unknown")
    put("PUT", path, patient.token, {"minutes": 1441}).problem(422, "invalid_body")
    stranger = clinic.person()
    put("PUT", path, stranger.token, {"minutes": 7}).problem(404, "no_such_appointment")
    clinic.hospital.get(f"/api/v1/appointments/{patient.appointment}/outlook", stranger.token).problem(
        404, "no_such_appointment"
    )
    clinic.hospital.get(f"/api/v1/appointments/{uuid4()}/outlook?way_minutes=-1", patient.token).problem(
        422, "invalid_query"
    )


def test_another_day_is_told_on_that_day(clinic: Clinic) -> None:
    patient = clinic.booked("D0036", days=1)
    told = outlook(clinic, patient, "?way_minutes=20")
    assert told["turn"] is None and told["why"]["code"] == "other_day" and told["why"]["text"]["zh"]
    assert at(told["leave_home_at"]) == at(told["appointed_at"]) - timedelta(minutes=30)
    patient.change(patient.appointment, "cancel").good()
    told = outlook(clinic, patient)
    assert (told["why"]["code"], told["leave_home_at"]) == ("not_expected", None)


def test_after_check_in_the_ticket_has_an_estimate_as_long_as_a_room_may_call_it(clinic: Clinic) -> None:
    """D0009, whose session has begun: she is not expected back when her room has closed."""
    clinic.open_room(LUNGS, "R0301.1", ["D0009"], "D0009")
    people = first, second = clinic.booked("D0009"), clinic.booked("D0009", "1400")
    tickets = [clinic.at(clinic.kiosk, patient.by_document).good(201) for patient in people]
    told = [outlook(clinic, patient) for patient in people]
    assert [one["ticket_id"] for one in told] == [ticket["id"] for ticket in tickets]
    assert told[0]["leave_home_at"] is None, "is here"
    assert at(told[0]["turn"]["p50_at"]) < at(told[1]["turn"]["p50_at"])
    estimate = clinic.ticket(second, tickets[1]["id"])["estimate"]
    assert estimate["p10_minutes"] <= estimate["p50_minutes"] <= estimate["p90_minutes"]
    found = clinic.hospital.get(f"/api/v1/queues/{LUNGS}/forecast", second.token).good()
    mine = {queue["queue_id"]: queue for queue in found["queues"]}["D0009"]
    assert mine["p50_minutes"] >= estimate["p50_minutes"] and mine["light"]
    clinic.queue(LUNGS, "rooms/R0301.1/close", {"keeps": True}).good()

    def has_none() -> bool:
        return clinic.ticket(second, tickets[1]["id"])["estimate"] is None

    until(has_none, 5, "no estimate without a room")
    assert outlook(clinic, second)["turn"] is None
    assert outlook(clinic, second)["why"]["code"] == "no_room"
    clinic.hospital.get("/api/v1/queues/9999/forecast", second.token).problem(404, "no_such_waiting_room")


def test_who_has_far_to_go_is_told_to_leave_home_once(clinic: Clinic) -> None:
    patient = clinic.booked("D0036")
    path = f"/api/v1/appointments/{patient.appointment}/way"
    clinic.hospital.call("PUT", path, patient.token, {"minutes": 300}).good()

    def notices() -> list[Json]:
        found: list[Json] = clinic.hospital.get("/api/v1/notices", patient.token).good()["notices"]
        return found

    # Who is booked in a department is read twice a minute, and time is looked at three times.
    until(lambda: kept(clinic, patient, "leave_home") == 1, 70, "a notice")
    [notice] = notices()
    assert (notice["kind"], notice["appointment_id"]) == ("leave_home", patient.appointment)
    assert notice["department_id"] == HEART and notice["day"] == clinic.today
    assert "现在出发" in notice["text"]["zh"] and "set out" in notice["text"]["en"]
    assert clinic.hospital.get("/api/v1/notices", clinic.person().token).good()["notices"] == []
    clinic.hospital.get("/api/v1/notices").problem(401, "unauthenticated")
    clinic.hospital.get("/api/v1/notices", clinic.nurse.token).problem(401, "unauthenticated")
    assert len(notices()) == 1


def test_three_ahead_is_told_soon_after_check_in(clinic: Clinic) -> None:
    patient = clinic.booked("D0008")
    ticket = clinic.at(clinic.kiosk, patient.by_document).good(201)

    def told() -> list[Json]:
        found = clinic.hospital.get("/api/v1/notices", patient.token).good()["notices"]
        return [one for one in found if one["kind"] == "ahead"]

    until(lambda: kept(clinic, patient, "ahead") == 1, NOTICE_SECONDS, "three ahead")
    [notice] = told()
    assert notice["ticket_id"] == ticket["id"] and notice["appointment_id"] is None
    assert ticket["number"] in notice["text"]["zh"]


def test_staff_read_how_good_it_was(clinic: Clinic) -> None:
    path = "/api/v1/desk/waiting-times/calibration"
    for who in (clinic.manager, clinic.nurse, clinic.desk):
        told = clinic.hospital.get(path, who.token).good()
        assert told == {"learned_until": None, "all": None, "by_day": [], "by_distance": []}
    clinic.hospital.get(path, clinic.kiosk.token).problem(403, "forbidden")
    clinic.hospital.get(path, clinic.person().token).problem(401, "unauthenticated")
    today = date.fromisoformat(clinic.today)
    late = f"{path}?from={today}&to={today - timedelta(days=1)}"
    clinic.hospital.get(late, clinic.manager.token).problem(422, "invalid_query")
    clinic.hospital.get(f"{path}?department=03", clinic.manager.token).good()


def test_the_command_line_learns_and_reports(clinic: Clinic) -> None:
    home = str(clinic.system.home)
    learned = run("waiting-times", "learn", "--home", home)
    assert (learned.returncode, learned.stdout) == (0, "there is no day that was not learned from\n"), learned
    reported = run("waiting-times", "report", "--home", home)
    assert reported.returncode == 0 and reported.stdout.startswith("nothing was judged in that time")
