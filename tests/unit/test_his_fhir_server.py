"""The FHIR form against a server of somebody else's (sekmet-fhir), and against the model of R4 itself."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from integrations.connector import Refused
from integrations.fhir.client import CONFLICT, FhirClient, Server
from integrations.his.fhir_form import FhirHis
from integrations.his.fhir_words import STATUSES, Words
from integrations.his.his import DaySession, Kind, Person, Status
from integrations.his.his_at import HisAt
from tests.support.his import DAY, PERSON, ZONE, booking
from tests.support.sekmet import sekmet

WORDS = Words("urn:xinglin", ZONE)


def theirs(type_: str, what: str, code: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": type_, "identifier": [WORDS.identifier(what, code)], **more}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_server_of_somebody_elses(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """One start of it for all: it takes seconds."""
    async with sekmet(tmp_path) as base:
        his = FhirHis(HisAt("fhir", base, seconds_max=30), session)
        client = FhirClient(session, Server(base, seconds_max=30))
        slots = await planted(client)
        await bookings_live_there(his, client)
        await places_are_theirs(his, client, slots)
        await master_data_comes_from_there(his)
        await versions_are_kept_apart(client, slots[0])


async def planted(client: FhirClient) -> list[dict[str, Any]]:
    department = await client.create(
        theirs(
            "Organization",
            "department",
            "0201",
            name="全科门诊",
            active=True,
            type=[
                {
                    "coding": [
                        {"system": "http://terminology.hl7.org/CodeSystem/organization-type", "code": "dept"}
                    ]
                }
            ],
        )
    )
    doctor = await client.create(theirs("Practitioner", "practitioner", "D0001", name=[{"text": "郝思涵"}]))
    await client.create(
        {
            "resourceType": "PractitionerRole",
            "practitioner": {"reference": f"Practitioner/{doctor['id']}"},
            "organization": {"reference": f"Organization/{department['id']}"},
            "code": [{"text": "主任医师"}],
        }
    )
    schedule = await client.create(
        {
            "resourceType": "Schedule",
            "actor": [{"reference": f"Practitioner/{doctor['id']}"}],
            "serviceType": [{"coding": [{"system": "urn:xinglin:department", "code": "0201"}]}],
        }
    )
    return [
        await client.create(
            {
                "resourceType": "Slot",
                "schedule": {"reference": f"Schedule/{schedule['id']}"},
                "status": status,
                "start": (booking(1).starts_at + timedelta(minutes=5 * n)).isoformat(),
                "end": (booking(1).starts_at + timedelta(minutes=5 * n + 5)).isoformat(),
            }
        )
        for n, status in enumerate(("free", "busy", "free"))
    ]


async def bookings_live_there(his: FhirHis, client: FhirClient) -> None:
    assert await his.find(booking(1).id) is None
    first = await his.tell("0-1-0", Kind.BOOKED, booking(1))
    assert await his.tell("0-1-0", Kind.BOOKED, booking(1)) == first
    await his.tell("0-2-0", Kind.BOOKED, booking(2))
    later = booking(1, starts_at=booking(1).starts_at + timedelta(hours=1))
    later = replace(later, ends_at=later.starts_at + timedelta(minutes=30))
    assert await his.tell("0-3-0", Kind.CHANGED, later) == first
    await his.tell("0-4-0", Kind.RESCHEDULED, booking(3), before=later)
    await his.tell("0-5-0", Kind.ARRIVED, booking(3))
    await his.tell("0-6-0", Kind.CANCELLED, booking(2), reason="病人来电")
    rows = {row.booking_id: row for row in await his.registrations(DAY)}
    assert {n: rows[booking(n).id].status for n in (1, 2, 3)} == {
        1: Status.CANCELLED,
        2: Status.CANCELLED,
        3: Status.ARRIVED,
    }
    assert (rows[booking(3).id].practitioner, rows[booking(3).id].department) == ("D0001", "0201")
    assert rows[booking(1).id].starts_at == later.starts_at
    with pytest.raises(Refused):
        await his.tell("0-7-0", Kind.CANCELLED, booking(9))
    found = await his.patient(PERSON.id_type, PERSON.id_number)
    assert found is not None
    assert (found.name, found.birth_date, found.phone) == (PERSON.name, PERSON.birth_date, PERSON.phone)
    assert len(await client.search("Patient", {})) == 1
    assert await his.registrations(DAY + timedelta(days=1)) == []


async def places_are_theirs(his: FhirHis, client: FhirClient, slots: list[dict[str, Any]]) -> None:
    outcomes = await asyncio.gather(*(his.lock(booking(n)) for n in range(10, 15)), return_exceptions=True)
    locked = [one for one in outcomes if not isinstance(one, BaseException)]
    assert len(locked) == 2
    assert sorted(one.number for one in locked) == [1, 3]
    assert all(
        isinstance(one, Refused) and one.code == "slot_full" for one in outcomes if isinstance(one, Exception)
    )
    n = next(10 + n for n, one in enumerate(outcomes) if not isinstance(one, BaseException))
    assert await his.lock(booking(n)) in locked
    await his.unlock(booking(n).id)
    statuses = sorted([(await client.read("Slot", one["id"]) or {})["status"] for one in slots])
    assert statuses == ["busy", "busy-tentative", "free"]
    assert (await his.lock(booking(20))).number in (1, 3)


async def master_data_comes_from_there(his: FhirHis) -> None:
    assert [(one.code, one.name) for one in await his.departments()] == [("0201", "全科门诊")]
    (doctor,) = await his.practitioners()
    assert (doctor.code, doctor.name, doctor.title, doctor.department) == (
        "D0001",
        "郝思涵",
        "主任医师",
        "0201",
    )
    (day,) = await his.schedules(DAY, DAY)
    assert (day.practitioner, day.sessions) == ("D0001", (DaySession("morning", 3, "open"),))


async def versions_are_kept_apart(client: FhirClient, slot: dict[str, Any]) -> None:
    """`slot` is of a version that is long gone."""
    with pytest.raises(Refused) as refused:
        await client.update({**slot, "status": "busy"})
    assert refused.value.code == CONFLICT
    assert await client.read("Slot", "there-is-none") is None


@pytest.mark.parametrize("status", list(STATUSES))
def test_the_model_of_r4_takes_what_we_write(status: Status) -> None:
    appointment = pytest.importorskip("fhir.resources.R4B.appointment")
    patient = pytest.importorskip("fhir.resources.R4B.patient")
    actor = {"type": "Practitioner", "identifier": WORDS.identifier("practitioner", "D0001")}
    told = WORDS.appointment(booking(1), status, "0-1-0", "Patient/1", actor)
    assert appointment.Appointment.model_validate(told).status == STATUSES[status]
    changed = WORDS.changed({**told, "id": "1"}, Status.CANCELLED, "0-2-0", "来电")
    assert appointment.Appointment.model_validate(changed).cancelationReason.text == "来电"
    assert WORDS.value(changed, "message") == "0-2-0"
    for person in (PERSON, Person("ab" * 16, None, "某", None, None, "", "", "")):
        patient.Patient.model_validate(WORDS.patient(person))
