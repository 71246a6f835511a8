"""Our side of FHIR against a record system of somebody else's: sekmet-fhir, strict about what it is sent."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import ClientSession

from integrations.emr import translate
from integrations.emr.client import EmrClient
from integrations.emr.emr import APPOINTMENT_SYSTEM, EmrAt, Person, Visit
from tests.support.sekmet import sekmet

ZONE = ZoneInfo("Asia/Shanghai")
PERSON = Person("ab" * 16, "王小明", "passport", "E12345678", date(1990, 3, 7), "male", ("H0001",))
VISIT = Visit(
    "cd" * 16,
    PERSON,
    "0304",
    "呼吸内科",
    "D0001",
    "张医生",
    datetime(2026, 11, 20, 9, tzinfo=ZONE),
    datetime(2026, 11, 20, 9, 20, tzinfo=ZONE),
)


async def test_a_visit_is_told_once_and_what_is_written_there_is_read_back(tmp_path: Path) -> None:
    async with sekmet(tmp_path) as base, ClientSession() as session:
        client = EmrClient(session, EmrAt(base), seconds_max=60)
        began = datetime.now(UTC) - timedelta(minutes=5)
        encounter = await client.tell_visit(VISIT)
        assert await client.tell_visit(VISIT) == encounter

        told = (await client.changed("Encounter", began)).resources
        assert [one["id"] for one in told] == [encounter]
        patient = str(told[0]["subject"]["reference"]).removeprefix("Patient/")
        condition: dict[str, Any] = {
            "resourceType": "Condition",
            "subject": {"reference": f"Patient/{patient}"},
            "encounter": {"reference": f"Encounter/{encounter}"},
            "clinicalStatus": {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
                        "code": "active",
                    }
                ]
            },
            "code": {"text": "急性支气管炎"},
        }
        kind = {"Content-Type": "application/fhir+json"}
        async with session.post(f"{base}/Condition", json=condition, headers=kind) as answer:
            assert answer.status == 201, await answer.text()

        (found,) = (await client.changed("Condition", began)).resources
        whose = await client.patient(patient)
        bundle = {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [
                {"fullUrl": f"Patient/{patient}", "resource": whose},
                {"resource": told[0]},
                {"resource": found},
            ],
        }
        visit, diagnosis = translate.read(bundle, "emr", ZONE)
        assert visit.body is not None and diagnosis.body is not None, (visit.problem, diagnosis.problem)
        assert visit.body["appointment"] == VISIT.id
        assert {"system": "xinglin", "number": PERSON.id} in visit.body["patient"]["numbers"]
        assert visit.body["patient"]["documents"] == [{"type": "passport", "number": "E12345678"}]
        assert visit.body["patient"]["name"] == "王小明"
        assert diagnosis.body["encounter"] == f"Encounter/{encounter}"
        assert diagnosis.body["content"]["title"] == "急性支气管炎"
        later = datetime.now(UTC) + timedelta(minutes=5)
        assert (await client.changed("Condition", later)).resources == []
        assert told[0]["identifier"][0]["system"] == APPOINTMENT_SYSTEM
