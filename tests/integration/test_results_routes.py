"""Reports, through a whole gateway: a laboratory delivers, its patient reads, the rest is held."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from engine.domain.policy import Channel
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import partners
from engine.records.partners import Partner
from engine.records.sealed_people import NAME as NAME_FIELD
from engine.records.sealed_people import record_key
from engine.records.staff import NewStaff, Role, Staff, add_staff
from tests.support.copies import copied, migrated
from tests.support.fhir_face import Face, opened
from tests.support.one_process import SECRET
from tests.support.people import add_person, add_right
from web import keys
from web.fresh_ids import new_id
from web.partner.tokens import PartnerTokens

BASE = "/api/v1/integrations/lis/fhir"
NAME = "欧阳若兰"
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Ward:
    """A gateway, a laboratory that delivers, a patient with an account, and an administrator."""

    face: Face
    lab: Partner
    patient: bytes
    account: bytes
    admin: Staff

    def of(self, who: Partner | Staff | bytes) -> dict[str, str]:
        tokens = self.face.one.tokens
        if isinstance(who, Partner):
            return {"Authorization": f"Bearer {PartnerTokens(SECRET).issue(who, who.scopes)}"}
        pair = tokens.issue_staff(who) if isinstance(who, Staff) else tokens.issue(who)
        return {"Authorization": f"Bearer {pair.access_token}"}

    async def ask(
        self, who: Any, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/fhir+json", **headers, **self.of(who)}
        if not path.startswith(BASE):
            sent["Content-Type"] = "application/json"
        async with self.face.http.request(method, path, data=data, headers=sent) as answer:
            assert answer.status != 500
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw and "json" in answer.content_type else raw

    def report(self, number: str = "F1", **changed: Any) -> dict[str, Any]:
        return {
            "resourceType": "DiagnosticReport",
            "contained": [
                {
                    "resourceType": "Observation",
                    "id": "g",
                    "code": {"coding": [{"code": "GLU", "display": "葡萄糖"}]},
                    "valueQuantity": {"value": 7.9, "unit": "mmol/L"},
                    "interpretation": [{"coding": [{"code": "H"}]}],
                }
            ],
            "identifier": [{"value": number}],
            "status": "final",
            "code": {"text": "葡萄糖测定"},
            "subject": {"identifier": {"system": "urn:xinglin:patient", "value": self.patient.hex()}},
            "issued": NOW.isoformat(),
            "result": [{"reference": "#g"}],
            "presentedForm": [
                {
                    "contentType": "text/plain",
                    "title": "说明",
                    "data": base64.b64encode(b"<b>hi</b>").decode(),
                }
            ],
            **changed,
        }

    @property
    def listed(self) -> str:
        return f"/api/v1/patients/{UUID(bytes=self.patient)}/reports"


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def ward(original: str) -> AsyncIterator[Ward]:
    async with copied(original) as database, opened(database) as face:
        vault = face.one.gateway._runner.app[keys.VAULT]
        patient, account = new_id(), new_id()
        async with face.pool.acquire() as connection:
            lab, _ = await partners.add(connection, "lab", ["lis.write"], Channel.HIS, new_id(), NOW)
            await connection.execute(
                "insert into account values ($1, $2, now())", UUID(bytes=account), account.hex()
            )
            await add_person(connection, vault, patient, name=NAME)
            await add_right(connection, vault, account, patient)
            new = NewStaff("admin", "某某", "no hash", (Role.SYSTEM_ADMIN,), None, None)
            admin = await add_staff(connection, new, new_id(), NOW, roles_later=True)
        yield Ward(face, lab, patient, account, admin)


async def test_what_a_laboratory_delivers_its_patient_reads(ward: Ward) -> None:
    status, told = await ward.ask(ward.lab, "POST", f"{BASE}/DiagnosticReport", ward.report())
    assert (status, told) == (200, {"reports": [{"outcome": "accepted"}]})
    status, told = await ward.ask(ward.lab, "POST", f"{BASE}/DiagnosticReport", ward.report())
    assert told == {"reports": [{"outcome": "duplicate"}]}
    corrected = ward.report(status="corrected", issued=(NOW + timedelta(minutes=1)).isoformat())
    corrected["contained"][0]["valueQuantity"]["value"] = 5.9
    entries = [{"resource": corrected}, {"resource": ward.report("F2", status="preliminary")}]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    status, told = await ward.ask(ward.lab, "POST", f"{BASE}/Bundle", bundle)
    assert (status, told) == (200, {"reports": [{"outcome": "accepted"}] * 2})

    status, told = await ward.ask(ward.account, "GET", ward.listed)
    (summary,) = told["reports"]  # what nobody has signed is not there
    assert (summary["title"], summary["status"], summary["version"], summary["abnormal"]) == (
        "葡萄糖测定",
        "corrected",
        2,
        1,
    )
    status, told = await ward.ask(ward.account, "GET", f"/api/v1/reports/{summary['id']}")
    newest, first = told["versions"]
    assert (told["newest"], newest["version"], first["version"]) == (2, 2, 1)
    assert newest["observations"][0]["value"] == "5.9" and first["changes"] == []
    assert [(one["what"], one["before"], one["after"]) for one in newest["changes"]] == [
        ("status", "final", "corrected"),
        ("value", "7.9", "5.9"),
    ]
    path = f"/api/v1/reports/{summary['id']}/attachments/1"
    async with ward.face.http.get(path, headers=ward.of(ward.account)) as answer:
        assert (answer.status, await answer.read()) == (200, b"<b>hi</b>")
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for other in (f"{path}?version=1", f"{path}?version=2"):
        assert (await ward.ask(ward.account, "GET", other))[0] == 200
    for gone in (path.replace("/1", "/2"), f"{path}?version=9", f"/api/v1/reports/{UUID(bytes=new_id())}"):
        assert (await ward.ask(ward.account, "GET", gone))[0] == 404
    stranger = new_id()
    assert (await ward.ask(stranger, "GET", f"/api/v1/reports/{summary['id']}"))[0] == 404
    received = await ward.face.pool.fetch(
        "select by_name, detail from audit_entry where action = 'reports_received'"
    )
    assert [row["by_name"] for row in received] == ["lab"] * 3
    assert NAME not in repr([dict(row) for row in received])


async def test_what_is_held_back_is_listed_without_its_content_and_tried_again(ward: Ward) -> None:
    bad = ward.report(subject={"identifier": {"system": "urn:xinglin:patient", "value": ward.patient.hex()},
                               "display": "欧阳若男"})  # fmt: skip
    status, told = await ward.ask(ward.lab, "POST", f"{BASE}/DiagnosticReport", bad)
    assert (status, told["code"]) == (422, "held_at_intake")
    assert told["findings"][0]["rule"] == "another_person"
    status, listed = await ward.ask(ward.admin, "GET", "/api/v1/admin/intake")
    (message,) = listed["messages"]
    assert message["interface"] == "lis.report" and message["findings"][0]["field"] == "patient.name"
    assert listed["waiting"][0]["quarantined"] == 1
    assert NAME not in repr(listed) and "若男" not in repr(listed)
    # The name is mended here: a retry lets it in, without another word of the laboratory.
    app = ward.face.one.gateway._runner.app
    wrapped = await ward.face.pool.fetchval(
        "select record_key from patient where id = $1", UUID(bytes=ward.patient)
    )
    key = record_key(ward.patient, wrapped)
    sealed = app[keys.VAULT].seal(key, NAME_FIELD, ward.patient, "欧阳若男")
    await ward.face.pool.execute(
        "update patient set name = $2 where id = $1", UUID(bytes=ward.patient), sealed
    )
    status, told = await ward.ask(ward.admin, "POST", f"/api/v1/admin/intake/{message['id']}/retry")
    assert (status, told["retrying"]) == (200, True)
    await app[keys.INTAKE].retry_waiting()
    assert len((await ward.ask(ward.account, "GET", ward.listed))[1]["reports"]) == 1
    path = f"/api/v1/admin/intake/{message['id']}"
    assert (await ward.ask(ward.admin, "POST", f"{path}/retry"))[0] == 404
    await ward.ask(ward.lab, "POST", f"{BASE}/DiagnosticReport", ward.report("F9", status="banana"))
    (message,) = (await ward.ask(ward.admin, "GET", "/api/v1/admin/intake"))[1]["messages"]
    status, told = await ward.ask(
        ward.admin, "POST", f"/api/v1/admin/intake/{message['id']}/drop", {"reason": "测试报文"}
    )
    assert (status, told["state"], told["settled_why"]) == (200, "dropped", "测试报文")
    actions = await ward.face.pool.fetch(
        "select action from audit_entry where action like 'intake%' order by id"
    )
    assert [row["action"] for row in actions] == ["intake_retried", "intake_dropped"]


async def test_bad_bodies_are_refused_and_the_next_one_is_taken(ward: Ward) -> None:
    path = f"{BASE}/DiagnosticReport"
    xml = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><DiagnosticReport>&e;</DiagnosticReport>'
    for body, headers, wanted in (
        (xml, {"Content-Type": "application/fhir+xml"}, 415),
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"resourceType": "\\ud800"}', {}, 400),
        (b" " * (8 * 1024 * 1024 + 1), {}, 413),
        (b"[]", {}, 422),
        (b'{"resourceType": "Patient"}', {}, 422),
        (b'{"resourceType": "DiagnosticReport", "contained": 7}', {}, 422),
    ):
        status, told = await ward.ask(ward.lab, "POST", path, body, **headers)
        assert status == wanted, (body[:20], told)
    assert (await ward.ask(ward.lab, "POST", path, ward.report()))[0] == 200
