"""The FHIR R4 face over the wire: every answer is validated with fhir.resources as it passes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from engine.embedded_postgres import EmbeddedPostgres
from tests.support.copies import copied, migrated
from tests.support.fhir_face import FEE, Face, Said, opened

DOCUMENT = "urn:xinglin:fhir:document:passport"
EXTENSION = "urn:xinglin:fhir:"


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def face(original: str) -> AsyncIterator[Face]:
    async with copied(original) as database, opened(database) as face:
        yield face


def extension(resource: dict[str, Any], name: str) -> Any:
    """The value of one of ours; None where it is not there."""
    for one in resource.get("extension", ()):
        if one["url"] == EXTENSION + name:
            (value,) = [value for key, value in one.items() if key != "url"]
            return value
    return None


async def remaining(face: Face, slot: str) -> int:
    """As the gateway's memory has it by now: the feed comes soon after the commit."""
    found: int = extension((await face.ask("GET", f"Slot/{slot}")).body, "remaining")
    return found


async def becomes(face: Face, slot: str, wanted: int) -> None:
    async with asyncio.timeout(30):
        while await remaining(face, slot) != wanted:
            pass


def parameters(**said: Any) -> dict[str, Any]:
    named = [
        {"name": name.replace("_", "-"), **(value if isinstance(value, dict) else {"valueString": value})}
        for name, value in said.items()
    ]
    return {"resourceType": "Parameters", "parameter": named}


def slot_parameter(slot: str) -> dict[str, Any]:
    return {"valueReference": {"reference": f"Slot/{slot}"}}


async def test_what_there_is_is_read_and_searched(face: Face) -> None:
    said = await face.ask("GET", "metadata", by=None)
    assert (said.status, said.body["fhirVersion"], said.headers["Cache-Control"]) == (
        200, "4.0.1", "private, no-cache",
    )  # fmt: skip
    served = {one["type"]: one for one in said.body["rest"][0]["resource"]}
    assert served.keys() == {"Practitioner", "Schedule", "Slot", "Patient", "Appointment"}

    day, next_day = f"{face.day:%Y%m%d}", face.day + timedelta(1)
    said = await face.ask("GET", f"Schedule/D0001-{day}")
    assert said.body["actor"][0]["reference"] == "Practitioner/D0001"
    assert said.body["specialty"][0]["coding"][0] == {
        "system": "urn:xinglin:fhir:department", "code": "cardio", "display": "心内科",
    }  # fmt: skip
    version = said.headers["ETag"]
    assert version == f'W/"{said.body["meta"]["versionId"]}"'
    again = await face.ask("GET", f"Schedule/D0001-{day}", headers={"If-None-Match": version})
    assert (again.status, again.body) == (304, {})
    said = await face.ask("GET", "Practitioner/d--2")
    assert said.body["identifier"][0]["value"] == "d_2", "ids of FHIR have no '_'"

    async def found(path: str) -> list[str]:
        said = await face.ask("GET", path)
        assert said.status == 200, said.body
        assert said.body["total"] == len(said.resources)
        return [one["id"] for one in said.resources]

    assert await found("Schedule?actor=Practitioner/D0001") == [f"D0001-{day}", f"D0001-{next_day:%Y%m%d}"]
    assert await found(f"Schedule?actor=d--2&date={face.day}") == [f"d--2-{day}"]
    assert await found(f"Schedule?date=gt{face.day}&specialty=inner") == [f"D0001-{next_day:%Y%m%d}"]
    assert await found("Schedule?specialty=urn:xinglin:fhir:department|neuro&_count=200&active=true") == [
        f"d--2-{day}", f"d--2-{next_day:%Y%m%d}",
    ]  # fmt: skip
    assert await found(f"Slot?schedule=Schedule/D0001-{day}&status=free") == [face.slot(), face.slot("0930")]
    morning = f"start=ge{face.day}T09:30:00%2B08:00&start=lt{next_day}"
    assert await found(f"Slot?schedule.actor=D0001&{morning}") == [face.slot("0930")]
    assert await found(f"Slot?start={face.day}") == [
        face.slot(), face.slot("0930"), face.slot("1400", "d_2"), face.slot("1430", "d_2"),
    ]  # fmt: skip
    assert await found(f"Slot?_id={face.slot()}&status=busy") == []
    assert await found("Practitioner?identifier=urn:xinglin:fhir:practitioner|D0001") == ["D0001"]
    slot = (await face.ask("GET", f"Slot/{face.slot()}")).body
    assert (extension(slot, "remaining"), extension(slot, "capacity"), slot["status"]) == (3, 3, "free")
    assert extension(slot, "fee") == {"value": FEE / 100, "currency": "CNY"}

    # In pages, each reached by the link of the one before.
    said = await face.ask("GET", f"Slot?start={face.day}&_count=3")
    ids = [one["id"] for one in said.resources]
    (following,) = [link["url"] for link in said.body["link"] if link["relation"] == "next"]
    assert following.startswith(f"{face.base}/Slot?")
    said = await face.ask("GET", following.removeprefix(f"{face.base}/"))
    assert said.body["total"] == 4 and not [x for x in said.body["link"] if x["relation"] == "next"]
    assert ids + [one["id"] for one in said.resources] == await found(f"Slot?start={face.day}")
    assert (await face.ask("GET", f"Slot?start={face.day}&_count=0")).resources == []


async def test_find_hold_book_confirm_cancel_reschedule(face: Face) -> None:
    start, end = f"{face.day}", f"{face.day}"
    said = await face.ask("GET", f"Appointment/$find?start={start}&end={end}&practitioner=Practitioner/D0001")
    assert [one["status"] for one in said.resources] == ["proposed", "proposed"]
    proposed = said.resources[1]
    asked = {"start": {"valueDate": start}, "end": {"valueDate": end}, "practitioner": "D0001"}
    again = await face.ask("POST", "Appointment/$find", parameters(**asked))
    assert again.resources == said.resources

    # What was found is held as it is.
    patient = await face.patient()
    key = {"Idempotency-Key": "hold-1"}
    take = parameters(appt_resource={"resource": proposed}, patient_id=patient)
    held = await face.ask("POST", "Appointment/$hold", take, headers=key)
    assert held.status == 200, held.body
    (pending,) = held.resources
    assert (pending["status"], pending["slot"]) == ("pending", proposed["slot"])
    assert extension(pending, "held-until") is not None and extension(pending, "number") == 4
    assert (await face.ask("POST", "Appointment/$hold", take, headers=key)).resources == [pending], "a retry"
    await becomes(face, face.slot("0930"), 2)
    booked = await face.ask("POST", "Appointment/$book", parameters(appt_id=pending["id"]))
    assert booked.resources[0]["status"] == "booked", booked.body
    confirmed = await face.ask("POST", f"Appointment/{pending['id']}/$confirm")
    assert confirmed.body == booked.resources[0], "it was confirmed already"

    # Changed: the new number, or none.
    to = parameters(slot=slot_parameter(face.slot("1400", "d_2")))
    stale = {"Idempotency-Key": "c", "If-Match": 'W/"1"'}
    refused = await face.ask("POST", f"Appointment/{pending['id']}/$reschedule", to, headers=stale)
    assert (refused.status, refused.code) == (412, "version_stale")
    fresh = {"Idempotency-Key": "c", "If-Match": confirmed.headers["ETag"]}
    changed = await face.ask("POST", f"Appointment/{pending['id']}/$reschedule", to, headers=fresh)
    assert changed.status == 200, changed.body
    assert changed.body["status"] == "booked" and changed.body["slot"] == [
        {"reference": f"Slot/{face.slot('1400', 'd_2')}"}
    ]
    assert extension(changed.body, "replaces") == {"reference": f"Appointment/{pending['id']}"}
    old = await face.ask("GET", f"Appointment/{pending['id']}")
    assert old.body["status"] == "cancelled"
    assert extension(old.body, "replaced-by") == {"reference": f"Appointment/{changed.body['id']}"}
    await becomes(face, face.slot("0930"), 3)

    cancelled = await face.ask("POST", f"Appointment/{changed.body['id']}/$cancel")
    assert cancelled.body["status"] == "cancelled"
    assert cancelled.body["cancelationReason"]["coding"][0]["code"] == "cancelled"
    again = await face.ask("POST", f"Appointment/{changed.body['id']}/$cancel")
    assert again.body == cancelled.body
    assert [row["by_kind"] for row in await face.audit("appointment_held")] == ["partner"]
    assert [row["by_name"] for row in await face.audit("appointment_changed")] == ["city"]


async def test_one_wish_is_one_number_however_it_is_said_again(face: Face) -> None:
    patient = await face.patient()
    identifier = {"system": "urn:city", "value": "order-77"}
    wish = face.wish(patient, face.slot(), identifier=[identifier])
    first = await face.ask("POST", "Appointment", wish)
    assert (first.status, identifier in first.body["identifier"]) == (201, True)
    assert first.headers["Location"] == f"{face.base}/Appointment/{first.body['id']}"
    again = await face.ask("POST", "Appointment", wish)
    assert (again.status, again.body) == (200, first.body)
    condition = {"If-None-Exist": "identifier=urn%3Acity%7Corder-77"}
    by_header = await face.ask("POST", "Appointment", face.wish(patient, face.slot()), headers=condition)
    assert (by_header.status, by_header.body["id"]) == (200, first.body["id"])
    found = await face.ask("GET", "Appointment?identifier=urn:city|order-77")
    assert [one["id"] for one in found.resources] == [first.body["id"]]
    other = await face.ask(
        "POST", "Appointment", {**wish, "slot": [{"reference": f"Slot/{face.slot('0930')}"}]}
    )
    assert (other.status, other.code) == (422, "key_reused")
    # Twenty at once, and one number.
    patient = await face.patient()
    answers = await asyncio.gather(*(face.book(patient, face.slot("0930"), "same") for _ in range(20)))
    assert {one.status for one in answers} <= {200, 201} and len({one.body["id"] for one in answers}) == 1
    taken = "select count(*) from appointment where slot_id = $1 and status = 2"
    assert await face.pool.fetchval(taken, face.slot("0930")) == 1
    # Another partner's key is another wish.
    bare = await face.ask("POST", "Appointment", face.wish(patient, face.slot()))
    assert (bare.status, bare.code) == (400, "missing_idempotency_key")


async def test_it_never_overbooks_and_says_where_else(face: Face) -> None:
    """A slot of one seat, and eight partners' patients who want it at once."""
    patients = [await face.patient() for _ in range(8)]
    slot = face.slot("1400", "d_2")
    answers = await asyncio.gather(*(face.book(one, slot, f"k{n}") for n, one in enumerate(patients)))
    assert sorted(one.status for one in answers) == [201] + [409] * 7
    refused = next(one for one in answers if one.status == 409)
    assert refused.code == "slot_full" and refused.body["issue"][0]["code"] == "conflict"
    alternatives = [one["valueReference"]["reference"] for one in refused.body["issue"][0]["extension"]]
    assert alternatives[0] == f"Slot/{face.slot('1430', 'd_2')}"
    # The rules are everybody's: one number a day with one department, none twice at a time.
    winner = patients[[one.status for one in answers].index(201)]
    again = await face.book(winner, face.slot("1430", "d_2"), "again")
    assert (again.status, again.code, again.body["issue"][0]["code"]) == (409, "already_booked", "duplicate")
    await becomes(face, slot, 0)
    full = await face.ask("GET", f"Slot/{slot}")
    assert full.body["status"] == "busy"
    proposed = await face.ask("GET", f"Appointment/$find?start={face.day}&end={face.day}&specialty=neuro")
    assert [one["slot"][0]["reference"] for one in proposed.resources] == alternatives[:1]


async def test_a_partner_sees_its_own_people_and_numbers_alone(face: Face) -> None:
    patient = await face.patient()
    booked = await face.book(patient, face.slot(), "mine")
    number = booked.body["id"]
    for path in (f"Appointment/{number}", f"Patient/{patient}"):
        assert (await face.ask("GET", path)).status == 200
        theirs = await face.ask("GET", path, by="other")
        nobody = await face.ask("GET", f"{path.partition('/')[0]}/{uuid4()}", by="other")
        assert (theirs.status, theirs.body) == (404, nobody.body), "whether it is there is not told"
    for operation in ("$confirm", "$cancel"):
        assert (await face.ask("POST", f"Appointment/{number}/{operation}", by="other")).status == 404
    to = parameters(slot=slot_parameter(face.slot("0930")))
    assert (await face.ask("POST", f"Appointment/{number}/$reschedule", to, by="other")).status in (400, 404)
    for query in (
        "",
        f"?_id={number}",
        f"?patient={patient}",
        f"?identifier=urn:xinglin:fhir:appointment|{number}",
    ):
        assert (await face.ask("GET", f"Appointment{query}", by="other")).body["total"] == 0
    wish = face.wish(patient, face.slot("0930"), identifier=[{"system": "a", "value": "b"}])
    assert (await face.ask("POST", "Appointment", wish, by="other")).code == "no_such_patient"

    mine = await face.ask("GET", f"Appointment?patient=Patient/{patient}&status=booked&date={face.day}")
    assert [one["id"] for one in mine.resources] == [number]
    for query in ("status=cancelled", f"date=gt{face.day}", "practitioner=d--2", f"slot={face.slot('0930')}"):
        assert (await face.ask("GET", f"Appointment?{query}")).body["total"] == 0, query
    # What came in its place is found from it, though nobody noted that it is this partner's.
    await face.pool.execute("delete from partner_appointment where appointment_id <> $1", number)
    to = parameters(slot=slot_parameter(face.slot("0930")))
    changed = await face.ask(
        "POST", f"Appointment/{number}/$reschedule", to, headers={"Idempotency-Key": "z"}
    )
    assert changed.status == 200, changed.body
    await face.pool.execute("delete from partner_appointment where appointment_id <> $1", number)
    both = await face.ask("GET", f"Appointment?patient={patient}")
    assert {one["id"] for one in both.resources} == {number, changed.body["id"]}
    read = [row for row in await face.audit("appointment_read") if row["by_name"] == "city"]
    assert [str(row["subjects"][0]) for row in read] == [patient], "each reading is noted, once an hour"


async def test_people_are_brought_and_found_by_their_document(face: Face) -> None:
    resource = face.patient_resource()
    first = await face.ask("POST", "Patient", resource)
    assert (first.status, first.body["name"][0]["text"]) == (201, "欧阳明月")
    number = resource["identifier"][0]["value"]
    assert number not in json.dumps(first.body) and "13712345678" not in json.dumps(first.body)
    again = await face.ask("POST", "Patient", resource)
    assert (again.status, again.body["id"]) == (200, first.body["id"])
    parts = {**resource, "name": [{"family": "欧阳", "given": ["明月"]}]}
    assert (await face.ask("POST", "Patient", parts)).body["id"] == first.body["id"]
    somebody = {**resource, "name": [{"text": "司徒晓峰"}]}
    refused = await face.ask("POST", "Patient", somebody)
    assert (refused.status, refused.code) == (409, "identity_mismatch")

    async def searched(by: str, value: str = number) -> Said:
        form = {"identifier": f"{DOCUMENT}|{value}"}
        headers = {"Authorization": face.bearer(by), "Content-Type": "application/x-www-form-urlencoded"}
        from urllib.parse import urlencode

        return await face.ask("POST", "Patient/_search", urlencode(form), headers=headers)

    assert [one["id"] for one in (await searched("city")).resources] == [first.body["id"]]
    assert (await searched("other")).body["total"] == 0, "who has not brought them does not find them"
    assert (await searched("his")).body["total"] == 1, "fhir.patients does"
    assert (await face.ask("GET", f"Patient/{first.body['id']}", by="his")).status == 200
    assert (await searched("his", "P9999999")).body["total"] == 0
    in_address = await face.ask("GET", f"Patient?identifier={DOCUMENT}|{number}")
    assert (in_address.status, in_address.code) == (400, "personal_in_address")
    ours = await face.ask("GET", f"Patient?identifier=urn:xinglin:fhir:patient|{first.body['id']}")
    assert ours.body["total"] == 1

    # Brought with the booking itself: contained, or as a parameter.
    contained = {**face.patient_resource(), "id": "p"}
    wish = face.wish("x", face.slot(), contained=[contained], identifier=[{"system": "a", "value": "1"}])
    wish["participant"][0]["actor"] = {"reference": "#p"}
    booked = await face.ask("POST", "Appointment", wish)
    assert (booked.status, booked.body["status"]) == (201, "booked"), booked.body
    take = parameters(
        slot=slot_parameter(face.slot()), patient_resource={"resource": face.patient_resource()}
    )
    held = await face.ask("POST", "Appointment/$hold", take, headers={"Idempotency-Key": "h"})
    assert held.resources[0]["status"] == "pending"
    sealed = "select count(*) from patient where name is null or id_number is null"
    assert await face.pool.fetchval(sealed) == 0


async def test_what_cannot_be_booked_is_not_left_held(original: str) -> None:
    """Where the hospital wants to be paid first, $book is refused and its seat is free again; $hold works."""
    policy = "payment:\n  at_hospital: no\n"
    async with copied(original) as database, opened(database, policy) as face:
        patient = await face.patient()
        refused = await face.book(patient, face.slot(), "k")
        assert (refused.status, refused.code) == (403, "at_hospital_not_allowed")
        found = await face.ask("GET", "Appointment")
        assert [one["status"] for one in found.resources] == ["cancelled"]
        held = await face.book(patient, face.slot(), "k2", status="pending")
        assert (held.status, held.body["status"]) == (201, "pending")
        taken = await face.pool.fetchval("select count(*) from appointment where status < 5")
        assert taken == 1


BAD_BODIES: list[tuple[str, dict[str, str], int, str]] = [
    ("<Appointment xmlns='http://hl7.org/fhir'/>", {"Content-Type": "application/fhir+xml"}, 415,
     "unsupported_media_type"),
    ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', {"Content-Type": "application/xml"},
     415, "unsupported_media_type"),
    ("<a/>", {}, 400, "malformed_json"),
    ("{", {}, 400, "malformed_json"),
    ("", {}, 400, "malformed_json"),
    ('"\\ud800"', {}, 400, "malformed_json"),
    ("[" * 9_000, {}, 400, "malformed_json"),
    ('{"resourceType": "Appointment", "resourceType": "Patient"}', {}, 400, "duplicate_key"),
    ("null", {}, 422, "invalid_resource"),
    ("[]", {}, 422, "invalid_resource"),
    ('{"resourceType": "Observation"}', {}, 422, "invalid_resource"),
    ('{"resourceType": ["Appointment"]}', {}, 422, "invalid_resource"),
    (json.dumps({"resourceType": "Appointment", "comment": "x" * 20_000}), {}, 413, "body_too_large"),
]  # fmt: skip


async def test_bad_input_is_an_operation_outcome_and_never_a_crash(face: Face) -> None:
    key = {"Idempotency-Key": "bad"}
    for body, headers, status, code in BAD_BODIES:
        said = await face.ask("POST", "Appointment", body, headers={**key, **headers})
        assert (said.status, said.code) == (status, code), body[:60]
    patient = await face.patient()
    good = face.wish(patient, face.slot())
    for wrong, place in (
        ({"status": "wrong"}, "Appointment.status"),
        ({"status": 5}, "Appointment.status"),
        ({"status": "fulfilled"}, "Appointment.status"),
        ({"slot": []}, "Appointment.slot"),
        ({"slot": good["slot"] * 2}, "Appointment.slot"),
        ({"slot": "Slot/x"}, "Appointment.slot"),
        ({"slot": [{"reference": "Schedule/x"}]}, "Appointment.slot.0.reference"),
        ({"slot": [{"reference": "http://elsewhere/Slot/x"}]}, "Appointment.slot.0.reference"),
        ({"slot": [{"reference": {"a": 1}}]}, "Appointment.slot.0.reference"),
        ({"participant": []}, "Appointment.participant"),
        ({"participant": good["participant"] * 2}, "Appointment.participant"),
        ({"participant": [None]}, "Appointment.participant.0"),
        ({"start": f"{face.day}T10:00:00+08:00"}, "Appointment.start"),
        ({"start": "soon"}, "Appointment.start"),
        ({"modifierExtension": [{"url": "x"}]}, "Appointment.modifierExtension"),
        ({"participants": []}, "Appointment.participants"),
    ):
        said = await face.ask("POST", "Appointment", {**good, **wrong}, headers=key)
        assert (said.status, said.code, said.places) == (422, "invalid_resource", [place]), wrong
    person = face.patient_resource()
    for wrong, place in (
        ({"identifier": [{"system": "urn:x", "value": "1"}]}, "Patient.identifier"),
        ({"identifier": [{"system": DOCUMENT, "value": "一"}]}, "Patient.identifier"),
        ({"gender": "x"}, "Patient.gender"),
        ({"birthDate": "1980-1-1"}, "Patient.birthDate"),
        ({"birthDate": "2190-01-01"}, "Patient.birthDate"),
        ({"name": [{"text": "\u0007"}]}, "Patient.name"),
        ({"telecom": []}, "Patient.telecom"),
        ({"telecom": [{"system": "phone", "value": "1"}]}, "Patient.telecom"),
    ):
        said = await face.ask("POST", "Patient", {**person, **wrong})
        assert (said.status, said.places) == (422, [place]), (wrong, said.body)
    missing = await face.ask("POST", "Appointment/$hold", {"resourceType": "Parameters"}, headers=key)
    assert (missing.status, missing.places) == (422, ["Parameters.parameter"])
    unknown = await face.ask("POST", "Appointment", face.wish(patient, "D0001-20200101-0900"), headers=key)
    assert (unknown.status, unknown.code) == (404, "no_such_slot")
    assert await face.pool.fetchval("select count(*) from appointment") == 0


async def test_searches_are_strict_unless_asked_not_to_be(face: Face) -> None:
    for query, place in (
        ("Slot?statuss=free", "query.statuss"),
        (f"Slot?schedule=D0001-{face.day:%Y%m%d}&status=wrong", "query.status"),
        ("Slot?status=free", "query.start"),
        (f"Slot?start=ge{face.day}", "query.start"),
        ("Slot?start=tomorrow", "query.start"),
        ("Slot?schedule=Patient/x", "query.schedule"),
        ("Schedule?specialty=nowhere", "query.specialty"),
        ("Schedule?specialty=http://snomed.info/sct|cardio", "query.specialty"),
        ("Schedule?_count=-1", "query._count"),
        ("Schedule?_count=1&_count=2", "query._count"),
        ("Schedule?_include=Schedule:actor", "query._include"),
        ("Schedule?actor:missing=true", "query.actor:missing"),
        ("Appointment?patient=Slot/x", "query.patient"),
        ("Appointment/$find?practitioner=D0001&when=now", "query.when"),
        ("Patient", "query.identifier"),
    ):
        said = await face.ask("GET", query)
        assert (said.status, said.code, said.places) == (422, "invalid_query", [place]), (query, said.body)
    lenient = {"Prefer": "respond-async, handling=lenient"}
    said = await face.ask("GET", f"Slot?start={face.day}&foo=1", headers=lenient)
    assert said.status == 200 and said.body["total"] == 4
    assert all("foo" not in link["url"] for link in said.body["link"])

    assert (await face.ask("GET", "metadata?_format=json")).status == 200
    for path, headers in (
        ("metadata?_format=xml", {}),
        ("Schedule", {"Accept": "application/fhir+xml"}),
        ("Slot/x?_format=turtle", {}),
    ):
        said = await face.ask("GET", path, headers=headers)
        assert (said.status, said.code) == (406, "not_acceptable")
    for method, path, status, code in (
        ("GET", "Nothing", 404, "not_found"),
        ("GET", "Slot/x%20y", 404, "not_found"),
        ("GET", "Slot/nothing", 404, "no_such_slot"),
        ("GET", f"Slot/{face.slot('0915')}", 404, "no_such_slot"),
        ("DELETE", f"Slot/{face.slot()}", 405, "method_not_allowed"),
        ("PUT", "Appointment/x", 405, "method_not_allowed"),
    ):
        said = await face.ask(method, path)
        assert (said.status, said.code) == (status, code), (method, path)


async def test_texts_are_chinese_first(face: Face) -> None:
    said = await face.ask("GET", "Slot/nothing", headers={"Accept-Language": "zh-CN"})
    assert any(sign >= "\u4e00" for sign in said.body["issue"][0]["details"]["text"])
    said = await face.ask("GET", "Slot/nothing", by=None)
    assert (said.status, said.code, said.body["issue"][0]["code"]) == (401, "unauthenticated", "login")
    assert said.headers["WWW-Authenticate"].startswith("Bearer")
