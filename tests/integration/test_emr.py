"""Records that go both ways: sent by a partner, asked of a record system, told of our visits. PostgreSQL is
real, the wire the sandbox's; test_emr_sekmet.py speaks with a server of somebody else's."""

import copy
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp.test_utils import TestServer

from actors.outbox import Committed, Message
from engine import embedded_postgres
from engine.domain import schedule as s
from engine.domain.policy import Channel
from engine.records import partners
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.connector import ConnectorFailed, OutcomeUnknown, TryAgain
from integrations.emr.client import EmrClient
from integrations.emr.emr import HIS_SYSTEM, PATIENT_SYSTEM, EmrAt
from integrations.emr.sandbox import Fault, Sandbox
from tests.support.beside import beside
from tests.support.people import VAULT
from tests.support.privacy import Office, Person, fresh_database, office, visit
from web import keys
from web.emr.system import Asking, ToEmr
from web.fresh_ids import new_id
from web.intake.intake import Intake
from web.partner.sight import Partners
from web.partner.tokens import PartnerTokens

TOKENS = PartnerTokens(b"0" * 32)
NAME = "王小明"
AT = "2026-11-20T09:00:00+08:00"


@pytest.fixture(scope="module")
def database_of_module(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@dataclass
class Ward:
    office: Office
    sandbox: Sandbox
    asking: Asking
    telling: ToEmr
    intake: Intake
    patient: Person
    patient_id: str
    authorization: str = ""

    async def send(self, document: Any, **more: str) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": self.authorization, "Content-Type": "application/fhir+json", **more}
        body = document if isinstance(document, bytes) else None
        given = {"data": body} if body is not None else {"json": document}
        path = "/api/v1/integrations/emr/fhir"
        async with self.office.client.post(path, headers=headers, **given) as answer:
            return answer.status, await answer.json()

    async def sent(self, document: Any) -> list[str]:
        status, told = await self.send(document)
        assert status == 200, told
        return [one["outcome"] for one in told["resources"]]

    async def shown(self, what: str, who: Person | None = None) -> list[dict[str, Any]]:
        answer = await (who or self.patient).ask("GET", f"/api/v1/patients/{self.patient_id}/{what}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer[what]
        return found

    def person(self, **changes: Any) -> dict[str, Any]:
        document = {"type": {"coding": [{"code": "NNCHN"}]}, "value": self.office.document(1)}
        return {
            "resourceType": "Patient",
            "id": f"p{self.office.test}",
            "identifier": [document, {"system": "urn:their:mrn", "value": f"M{self.office.test}"}],
            "name": [{"text": NAME}],
            **changes,
        }

    def condition(self, **changes: Any) -> dict[str, Any]:
        return {
            "resourceType": "Condition",
            "id": f"c{self.office.test}",
            "meta": {"versionId": "1", "lastUpdated": AT},
            "subject": {"reference": f"Patient/p{self.office.test}"},
            "clinicalStatus": {"coding": [{"code": "active"}]},
            "code": {"coding": [{"system": "icd", "code": "J20.900"}], "text": "急性支气管炎"},
            "recordedDate": AT,
            **changes,
        }


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"resource": one} for one in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


@pytest.fixture
async def ward(database_of_module: str, tmp_path: Path) -> AsyncIterator[Ward]:
    vault: Vault = VAULT
    sandbox = Sandbox("token")
    async with (
        TestServer(sandbox.app()) as server,
        office(database_of_module, vault, tmp_path) as here,
    ):
        at = EmrAt(f"{str(server.make_url('')).rstrip('/')}/fhir", "token")
        here.app._state[keys.SETTINGS] = Settings()
        here.app._state[keys.INTAKE] = Intake(here.pool, vault)
        here.app._state[keys.PARTNERS] = Partners(TOKENS, here.pool)
        await here.pool.execute("delete from feed_position")
        one = await here.person("o1")
        patient_id = (await one.add(1, name=NAME))["id"]
        async with here.pool.acquire() as connection:
            name = f"ward{here.test}"
            partner, _ = await partners.add(
                connection, name, ["emr.write"], Channel.REFERRAL, new_id(), datetime.now(UTC)
            )
        async with beside("emr", at, database_of_module, here.pool, vault) as app:
            client = EmrClient(app.client, at, seconds_max=5)
            intake = Intake(here.pool, vault)
            asking = Asking(app, client, intake)
            made = Ward(here, sandbox, asking, ToEmr(app, client), intake, one, patient_id)
            made.authorization = f"Bearer {TOKENS.issue(partner, partner.scopes)}"
            yield made


# In, from a partner.


async def test_a_bundle_is_kept_for_the_patient_that_it_names_and_shown(ward: Ward) -> None:
    encounter = {
        "resourceType": "Encounter",
        "id": "e1",
        "meta": {"versionId": "1", "lastUpdated": AT},
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/p{ward.office.test}"},
        "period": {"start": AT, "end": "2026-11-20T09:20:00+08:00"},
        "serviceProvider": {"display": "呼吸内科"},
    }
    medication = {
        "resourceType": "MedicationRequest",
        "id": "m1",
        "meta": {"lastUpdated": AT},
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/p{ward.office.test}"},
        "encounter": {"reference": "Encounter/e1"},
        "medicationCodeableConcept": {"text": "盐酸氨溴索口服溶液"},
        "dosageInstruction": [{"text": "一次10ml"}],
    }
    allergy = {
        "resourceType": "AllergyIntolerance",
        "id": "a1",
        "meta": {"lastUpdated": AT},
        "patient": {"reference": f"Patient/p{ward.office.test}"},
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "code": {"text": "青霉素"},
        "criticality": "high",
        "reaction": [{"manifestation": [{"text": "皮疹"}]}],
    }
    outcomes = await ward.sent(bundle(ward.person(), encounter, ward.condition(), medication, allergy))
    assert outcomes == ["accepted"] * 4
    (visit_,) = await ward.shown("encounters")
    assert (visit_["setting"], visit_["department"], visit_["status"]) == (
        "outpatient",
        "呼吸内科",
        "finished",
    )
    (condition,) = await ward.shown("conditions")
    assert (condition["title"], condition["code"]) == ("急性支气管炎", "J20.900")
    (medicine,) = await ward.shown("medications")
    assert (medicine["title"], medicine["dosage"]) == ("盐酸氨溴索口服溶液", "一次10ml")
    assert medicine["encounter_id"] == visit_["id"]
    (found,) = await ward.shown("allergies")
    assert (found["title"], found["criticality"], found["reactions"]) == ("青霉素", "high", ["皮疹"])


async def test_the_same_again_is_known_and_an_older_version_never_replaces_a_newer(ward: Ward) -> None:
    first = ward.condition()
    newer = ward.condition(meta={"versionId": "2", "lastUpdated": "2026-11-21T09:00:00+08:00"})
    newer["code"] = {"text": "肺炎"}
    assert await ward.sent(bundle(ward.person(), newer)) == ["accepted"]
    assert await ward.sent(bundle(ward.person(), newer)) == ["duplicate"]
    assert await ward.sent(bundle(ward.person(), first)) == ["accepted"]
    assert [one["title"] for one in await ward.shown("conditions")] == ["肺炎"]
    same_moment = copy.deepcopy(newer)
    same_moment["meta"]["versionId"], same_moment["code"] = "1", {"text": "误诊"}
    await ward.sent(bundle(ward.person(), same_moment))
    assert [one["title"] for one in await ward.shown("conditions")] == ["肺炎"]


async def test_what_was_taken_back_is_shown_no_more(ward: Ward) -> None:
    await ward.sent(bundle(ward.person(), ward.condition()))
    wrong = ward.condition(meta={"versionId": "2", "lastUpdated": "2026-11-21T09:00:00Z"})
    wrong["verificationStatus"] = {"coding": [{"code": "entered-in-error"}]}
    await ward.sent(bundle(ward.person(), wrong))
    assert await ward.shown("conditions") == []


async def test_what_is_of_nobody_we_know_waits_and_comes_when_the_patient_does(ward: Ward) -> None:
    document = {"type": {"coding": [{"code": "NNCHN"}]}, "value": ward.office.document(7)}
    person = ward.person(identifier=[document], id="p-new", name=[{"text": "诸葛亮"}])
    condition = ward.condition(id=f"later{ward.office.test}", subject={"reference": "Patient/p-new"})
    assert await ward.sent(bundle(person, condition)) == ["unclaimed"]
    added = await (await ward.office.person("o7")).add(7, name="诸葛亮")
    assert added.status == 201
    await ward.intake.retry_waiting()
    rows = await ward.office.pool.fetch(
        "select kind from clinical_entry where patient_id = $1", UUID(added["id"])
    )
    assert [row["kind"] for row in rows] == ["condition"]


async def test_one_bad_resource_stops_no_other_and_nobody_else_gets_the_record(ward: Ward) -> None:
    wrong_name = ward.person(
        id="p-wrong", name=[{"text": "李四"}], identifier=ward.person()["identifier"][:1]
    )
    bad = [
        ward.condition(id="x1", subject={"reference": "Patient/p-wrong"}),
        ward.condition(id="x2", clinicalStatus={"coding": [{"code": "perhaps"}]}),
        ward.condition(id="x3", meta={"lastUpdated": "2099-01-01T00:00:00Z"}),
        ward.condition(id="x4", recordedDate="yesterday"),
        ward.condition(id="x5", subject={}),
        ward.condition(id="x6", nonsense=1),
        {"resourceType": "Observation", "id": "x7", "status": "final", "code": {"text": "x"}},
    ]
    outcomes = await ward.sent(bundle(ward.person(), wrong_name, *bad, ward.condition()))
    assert outcomes == ["quarantined"] * 7 + ["accepted"]
    assert len(await ward.shown("conditions")) == 1
    reasons = await ward.office.pool.fetch("select reasons::text as said from intake_message")
    assert not any(word in row["said"] for row in reasons for word in ("李四", NAME, "yesterday"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<Bundle xmlns='http://hl7.org/fhir'/>", 400),
        (b"[]", 422),
        (b"{}", 200),
        (b'{"resourceType": "Bundle", "type": "history"}', 422),
        (b'{"resourceType": "Bundle", "type": "batch", "entry": [1]}', 422),
        (b'{"resourceType": "Bundle", "type": "batch", "entry": [' + b"{}," * 600 + b"{}]}", 422),
        (b"[" * 100_000, 400),
        (b'{"a": "' + b"x" * 2_200_000 + b'"}', 413),
    ],
)
async def test_bodies_that_are_no_fhir_are_told_so(ward: Ward, body: bytes, status: int) -> None:
    assert (await ward.send(body))[0] == status


async def test_xml_and_partners_without_the_scope_are_refused(ward: Ward) -> None:
    xml = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    assert (await ward.send(xml, **{"Content-Type": "application/fhir+xml"}))[0] == 415
    assert (await ward.send({}, Authorization="Bearer x"))[0] == 401
    async with ward.office.pool.acquire() as connection:
        other, _ = await partners.add(
            connection, f"x{ward.office.test}", ["lis.write"], Channel.REFERRAL, new_id(), datetime.now(UTC)
        )
    said = f"Bearer {TOKENS.issue(other, other.scopes)}"
    status, told = await ward.send({}, Authorization=said)
    assert (status, told["code"]) == (403, "scope_missing")


async def test_others_do_not_see_it_and_what_is_kept_is_sealed(ward: Ward) -> None:
    await ward.sent(bundle(ward.person(), ward.condition()))
    other = await ward.office.person("o2")
    for what in ("encounters", "conditions", "medications", "allergies"):
        assert (await other.ask("GET", f"/api/v1/patients/{ward.patient_id}/{what}")).status == 404
    rows = await ward.office.pool.fetch("select c::text as row from clinical_entry c")
    assert rows and not any("支气管" in row["row"] for row in rows)
    words = "支气管".encode().hex()
    assert not any(words in row["row"] for row in rows)


async def test_a_copy_of_ones_data_has_it(ward: Ward) -> None:
    await ward.sent(bundle(ward.person(), ward.condition()))
    told = (await ward.patient.ask("GET", "/api/v1/account/export")).body
    assert [one["content"]["title"] for one in told["clinical"]] == ["急性支气管炎"]


# In, asked for.


def put_patient(ward: Ward) -> str:
    return ward.sandbox.put(ward.person())


def put_condition(ward: Ward, patient: str, title: str, id_: str = "") -> str:
    resource = ward.condition(subject={"reference": f"Patient/{patient}"}, code={"text": title})
    del resource["id"], resource["meta"]
    return ward.sandbox.put(resource, id_)


async def test_what_is_new_there_comes_once_and_what_changes_comes_again(ward: Ward) -> None:
    patient = put_patient(ward)
    id_ = put_condition(ward, patient, "感冒")
    assert await ward.asking.look() == 1
    assert await ward.asking.look() == 0
    put_condition(ward, patient, "肺炎", id_)
    assert await ward.asking.look() == 1
    assert [one["title"] for one in await ward.shown("conditions")] == ["肺炎"]


async def test_more_than_a_page_comes_whole_and_an_outage_loses_nothing(ward: Ward) -> None:
    patient = put_patient(ward)
    for n in range(230):
        put_condition(ward, patient, f"第{n}次")
    ward.sandbox.fail("Condition", Fault.ERROR)
    with pytest.raises(ConnectorFailed):
        await ward.asking.look()
    assert await ward.asking.look() == 230
    assert len(await ward.shown("conditions")) == 230


# Out.


async def told(ward: Ward, **given: Any) -> tuple[UUID, Message]:
    ago = datetime.now(UTC) - timedelta(hours=1)
    id_ = await visit(ward.office.pool, ward.patient_id, ward.patient.id, ago, **given)
    event = s.AttendanceRecorded(id_.bytes, s.Status.FULFILLED, "staff")
    other = s.AttendanceRecorded(id_.bytes, s.Status.ARRIVED, "staff")
    async with ward.office.pool.acquire() as connection:
        drafts = await ward.telling.messages(connection, [committed(1, other), committed(2, event)])
    (draft,) = drafts
    assert draft.seq == 2 and draft.aggregate == id_.hex
    return id_, Message("0-2-0", draft.aggregate, draft.kind, draft.data, ago, 0, False)


def committed(seq: int, event: Any) -> Committed:
    return Committed(0, seq, "schedule/x", seq, datetime.now(UTC), event)


async def test_a_finished_visit_is_told_once_whatever_happens_on_the_way(ward: Ward) -> None:
    _, message = await told(ward)
    ward.sandbox.fail("Patient", Fault.BUSY)
    ward.sandbox.fail("Encounter", Fault.ERROR, Fault.APPLIED_THEN_CUT)
    tries = 0
    while True:
        tries += 1
        try:
            await ward.telling.deliver(message)
            break
        except (TryAgain, OutcomeUnknown):
            assert tries < 10
    await ward.telling.deliver(message)  # at least once is what the outbox promises
    (patient,) = ward.sandbox.kept["Patient"].values()
    (encounter,) = ward.sandbox.kept["Encounter"].values()
    systems = {one.get("system") for one in patient["identifier"]}
    assert PATIENT_SYSTEM in systems and HIS_SYSTEM not in systems
    assert encounter["identifier"][0]["value"] == message.data["appointment"]
    assert encounter["subject"]["reference"] == f"Patient/{patient['id']}" and tries > 1


async def test_a_visit_that_was_taken_back_is_not_told(ward: Ward) -> None:
    id_, message = await told(ward)
    await ward.office.pool.execute("update appointment set status = 2 where id = $1", id_)
    await ward.telling.deliver(message)
    assert ward.sandbox.ledger == []


async def test_what_their_doctor_writes_about_our_visit_comes_back_to_our_number(
    ward: Ward,
) -> None:
    ward.sandbox._writes_back = True
    id_, message = await told(ward)
    await ward.telling.deliver(message)
    await ward.asking.look()
    (encounter,) = await ward.shown("encounters")
    assert encounter["appointment_id"] == str(id_)
    (condition,) = await ward.shown("conditions")
    (medicine,) = await ward.shown("medications")
    assert condition["encounter_id"] == medicine["encounter_id"] == encounter["id"]


async def test_an_entry_never_moves_to_somebody_else(ward: Ward) -> None:
    await ward.sent(bundle(ward.person(), ward.condition()))
    other = await (await ward.office.person("o3")).add(3, name="诸葛亮")
    document = {"type": {"coding": [{"code": "NNCHN"}]}, "value": ward.office.document(3)}
    person = ward.person(id="p-other", identifier=[document], name=[{"text": "诸葛亮"}])
    moved = ward.condition(
        meta={"versionId": "9", "lastUpdated": "2026-11-22T09:00:00Z"},
        subject={"reference": "Patient/p-other"},
    )
    assert await ward.sent(bundle(person, moved)) == ["quarantined"]
    count = await ward.office.pool.fetchval(
        "select count(*) from clinical_entry where patient_id = $1", UUID(other["id"])
    )
    assert count == 0
