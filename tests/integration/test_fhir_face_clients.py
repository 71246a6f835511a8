"""The FHIR face as clients see it that were not written here: fhirpy, the client of the FHIR server
sekmet-fhir, and bodies of HL7's own examples."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from engine.embedded_postgres import EmbeddedPostgres
from tests.support.copies import copied, migrated
from tests.support.fhir_face import Face, opened, valid


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def face(original: str) -> AsyncIterator[Face]:
    async with copied(original) as database, opened(database) as face:
        yield face


def client_of(face: Face, key: str = "k", **headers: str) -> AsyncFHIRClient:
    sent = {"Idempotency-Key": key, "Accept-Language": "en", **headers}
    return AsyncFHIRClient(face.base, authorization=face.bearer(), extra_headers=sent)


async def test_fhirpy_finds_books_changes_and_cancels(face: Face) -> None:
    client = client_of(face)
    statement = await client.execute("metadata", method="get")
    assert statement["fhirVersion"] == "4.0.1"
    schedule = await client.resources("Schedule").search(actor="Practitioner/D0001", date=str(face.day)).get()
    assert schedule.to_reference().reference == f"Schedule/D0001-{face.day:%Y%m%d}"
    slots = client.resources("Slot").search(schedule=schedule.to_reference().reference, status="free")
    # It counts with a parameter of another server's, which only a lenient search passes over.
    lenient = client_of(face, Prefer="handling=lenient")
    assert await lenient.resources("Slot").search(start=str(face.day)).count() == 4
    one_by_one = [slot.id async for slot in slots.limit(1)]
    assert one_by_one == [face.slot(), face.slot("0930")], "page by page, along our links"

    patient = client.resource("Patient", **face.patient_resource())
    await patient.save()
    assert patient.id
    again = await client.reference("Patient", patient.id).to_resource()
    assert again.name[0]["text"] == "欧阳明月"

    appointment = client.resource("Appointment", **face.wish(patient.id, one_by_one[0]))
    await appointment.save()
    assert appointment.status == "booked"
    found = (
        await client.resources("Appointment").search(patient=patient.to_reference(), status="booked").fetch()
    )
    assert [one.id for one in found] == [appointment.id]
    twin = client.resource("Appointment", **face.wish(patient.id, one_by_one[0]))
    await twin.save()
    assert twin.id == appointment.id, "the same Idempotency-Key"

    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "slot", "valueReference": {"reference": f"Slot/{face.slot('1400', 'd_2')}"}}],
    }
    changed = await client.execute(f"Appointment/{appointment.id}/$reschedule", method="post", data=body)
    cancelled = await client.execute(f"Appointment/{changed['id']}/$cancel", method="post", data={})
    assert cancelled["status"] == "cancelled"
    with pytest.raises(ResourceNotFound):
        await client.reference("Appointment", "nothing").to_resource()
    with pytest.raises(OperationOutcome) as raised:
        await client.resources("Slot").search(nonsense="1").fetch()
    assert "invalid_query" in str(raised.value)


async def test_another_fhir_server_is_our_client(face: Face) -> None:
    """sekmet-fhir, as it talks to its peers: with a token that it fetches, XML-minded headers, and pages."""
    peer_module, config = pytest.importorskip("sekmet.client.peer"), pytest.importorskip("sekmet.config")
    partner, secret = face.partners["city"]
    peer = config.Peer(
        base_url=face.base,
        auth=config.PeerAuth(
            type="client_credentials",
            client_id=str(UUID(bytes=partner.id)),
            client_secret=secret,
            token_url=f"{face.one.address}/api/v1/partner/token",
            scope="fhir.read fhir.book",
        ),
    )

    def visit() -> None:
        client = peer_module.PeerClient("xinglin", peer)
        try:
            assert client.capabilities().raise_for_status().body["fhirVersion"] == "4.0.1"
            slots = client.search_all("Slot", {"schedule": f"Schedule/D0001-{face.day:%Y%m%d}", "_count": 1})
            assert [slot["id"] for slot in slots] == [face.slot(), face.slot("0930")], "along our pages"
            person = client.create(face.patient_resource()).raise_for_status()
            assert person.location[0] == "Patient" and person.resource is not None
            patient = client.read("Patient", person.resource["id"]).raise_for_status().resource
            wish = face.wish(patient["id"], slots[0]["id"])
            client.extra_headers = {"Idempotency-Key": "from-sekmet"}
            booked = client.create(wish).raise_for_status().resource
            assert booked["status"] == "booked"
            assert client.create(wish).resource["id"] == booked["id"], "sent again, booked once"
            found = client.search("Appointment", {"patient": f"Patient/{patient['id']}"}, post=True)
            assert [one["id"] for one in found.entries()] == [booked["id"]]
            cancelled = client.operation(f"Appointment/{booked['id']}/$cancel", {}).raise_for_status()
            assert cancelled.resource["status"] == "cancelled"
            with pytest.raises(peer_module.PeerError, match="404"):
                client.read("Appointment", "nothing").raise_for_status()
            refused = client.create({**wish, "status": "arrived"})
            assert not refused.ok and "error" in refused.outcome_text()
        finally:
            client.close()

    await asyncio.to_thread(visit)


async def test_two_clients_want_the_last_number(face: Face) -> None:
    slot = face.slot("1400", "d_2")

    async def wants(n: int) -> Any:
        client = client_of(face, f"k{n}")
        patient = client.resource("Patient", **face.patient_resource())
        await patient.save()
        appointment = client.resource("Appointment", **face.wish(patient.id, slot))
        try:
            await appointment.save()
        except OperationOutcome as refused:
            return refused
        return appointment.status

    told = await asyncio.gather(*map(wants, range(4)))
    refused = [one for one in told if one != "booked"]
    assert len(refused) == 3 and all("slot_full" in str(one) for one in refused)


EXAMPLE: dict[str, Any] = {
    "resourceType": "Appointment",
    "id": "example",
    "text": {"status": "generated",
             "div": '<div xmlns="http://www.w3.org/1999/xhtml">Brian MRI results discussion</div>'},
    "status": "booked",
    "serviceCategory": [{"coding": [{"system": "http://example.org/service-category", "code": "gp",
                                     "display": "General Practice"}]}],
    "serviceType": [{"coding": [{"code": "52", "display": "General Discussion"}]}],
    "specialty": [{"coding": [{"system": "http://snomed.info/sct", "code": "394814009",
                               "display": "General practice"}]}],
    "appointmentType": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276",
                                    "code": "FOLLOWUP",
                                    "display": "A follow up visit from a previous appointment"}]},
    "reasonReference": [{"reference": "Condition/example", "display": "Severe burn of left ear"}],
    "priority": 5,
    "description": "Discussion on the results of your recent MRI",
    "start": "2013-12-10T09:00:00Z",
    "end": "2013-12-10T11:00:00Z",
    "created": "2013-10-10",
    "comment": "Further expand on the results of the MRI and determine the next actions that may be"
               " appropriate.",
    "basedOn": [{"reference": "ServiceRequest/myringotomy"}],
    "participant": [
        {"actor": {"reference": "Patient/example", "display": "Peter James Chalmers"}, "required": "required",
         "status": "accepted"},
        {"type": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                               "code": "ATND"}]}],
         "actor": {"reference": "Practitioner/example", "display": "Dr Adam Careful"}, "required": "required",
         "status": "accepted"},
        {"actor": {"reference": "Location/1", "display": "South Wing, second floor"}, "required": "required",
         "status": "accepted"},
    ],
}  # fmt: skip
"""HL7's own example of an Appointment (hl7.fhir.r4.examples, CC0-1.0)."""


async def test_the_specifications_own_example_is_booked_once_it_names_what_is_here(face: Face) -> None:
    valid(EXAMPLE)
    key = {"Idempotency-Key": "example"}
    told = await face.ask("POST", "Appointment", EXAMPLE, headers=key)
    assert (told.status, told.places) == (422, ["Appointment.slot"]), "it names no slot"
    patient = await face.patient()
    participants = [{"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}]
    ours = {
        **EXAMPLE,
        "slot": [{"reference": f"Slot/{face.slot()}"}],
        "participant": participants + EXAMPLE["participant"][1:],
    }
    told = await face.ask("POST", "Appointment", ours, headers=key)
    assert (told.status, told.places) == (422, ["Appointment.start"]), "it is at another time"
    ours["start"] = f"{face.day}T01:00:00Z"
    told = await face.ask("POST", "Appointment", ours, headers=key)
    assert (told.status, told.code) == (403, "not_eligible"), "HL7's own code says a follow-up"
    assert told.body["issue"][0]["details"]["coding"][1]["code"] == "not_a_follow_up"
    ours["appointmentType"] = {"coding": [{**EXAMPLE["appointmentType"]["coding"][0], "code": "ROUTINE"}]}
    told = await face.ask("POST", "Appointment", ours, headers=key)
    assert (told.status, told.body["status"]) == (201, "booked"), told.body
