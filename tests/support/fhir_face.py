"""A hospital with a FHIR face and two partners, in one process: real HTTP, real actors, real PostgreSQL.

Every answer that looks like a resource is validated with fhir.resources (R4B, which reads R4) as it passes.
"""

import importlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import ClientSession, encode_basic_auth

from engine.domain.ids import ScheduleKey
from engine.domain.policy import Channel
from engine.records import partners as records
from engine.records.partners import Partner
from engine.records.policies import store_policy
from tests.support.one_process import SECRET, OneProcess, serving
from tests.support.stores import PostgresWorld, plan
from web.fresh_ids import new_id
from web.partner.tokens import PartnerTokens

Json = dict[str, Any]
ZONE = ZoneInfo("Asia/Shanghai")
ALL = ("fhir.read", "fhir.book")
FEE = 5000
FHIR = "application/fhir+json"
CHECKED = ("Appointment", "Bundle", "CapabilityStatement", "OperationOutcome", "Patient")
CHECKED += ("Practitioner", "Schedule", "Slot")


def valid(resource: Json) -> Json:
    """Raises where it is no FHIR R4 resource, also of those in a Bundle."""
    kind = resource["resourceType"]
    assert kind in CHECKED, kind
    module = importlib.import_module(f"fhir.resources.R4B.{kind.lower()}")
    getattr(module, kind).model_validate_json(json.dumps(resource))
    for entry in resource.get("entry", ()):
        valid(entry["resource"])
    return resource


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    body: Json
    headers: Any

    @property
    def code(self) -> str:
        """Ours, of an OperationOutcome."""
        assert self.body["resourceType"] == "OperationOutcome", self.body
        found: str = self.body["issue"][0]["details"]["coding"][0]["code"]
        return found

    @property
    def places(self) -> list[str]:
        return [place for issue in self.body["issue"] for place in issue.get("expression", ())]

    @property
    def resources(self) -> list[Json]:
        assert self.body["resourceType"] == "Bundle", self.body
        return [entry["resource"] for entry in self.body.get("entry", ())]


@dataclass
class Face:
    one: OneProcess
    http: ClientSession
    pool: asyncpg.Pool
    day: date
    """Two days from now, on which D0001 and d_2 are here; all its slots lie ahead in any zone."""
    partners: dict[str, tuple[Partner, str]]
    """Name -> the partner and its secret."""
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def base(self) -> str:
        return f"{self.one.address}/fhir/r4"

    def bearer(self, name: str = "city", scopes: tuple[str, ...] = ()) -> str:
        partner, _ = self.partners[name]
        return f"Bearer {PartnerTokens(SECRET).issue(partner, frozenset(scopes) or partner.scopes)}"

    async def token(self, name: str, **form: str) -> tuple[int, Json, Any]:
        partner, secret = self.partners[name]
        headers = {"Authorization": encode_basic_auth(str(UUID(bytes=partner.id)), secret)}
        body = {"grant_type": "client_credentials", **form}
        async with self.http.post("/api/v1/partner/token", data=body, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: str | None = "city",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Said:
        """`path` below the face's; what it answers is validated."""
        sent = {"Accept-Language": "en", **(headers or {})}
        if by is not None:
            sent.setdefault("Authorization", self.bearer(by))
        if body is not None:
            sent.setdefault("Content-Type", FHIR)
            more["data"] = body if isinstance(body, (bytes, str)) else json.dumps(body)
        async with self.http.request(method, f"/fhir/r4/{path}", headers=sent, **more) as answer:
            raw = await answer.read()
            assert answer.status < 500 or answer.status in (503, 504), raw
            if not raw:
                return Said(answer.status, {}, answer.headers)
            assert answer.content_type == FHIR, (answer.content_type, raw)
            return Said(answer.status, valid(json.loads(raw)), answer.headers)

    def slot(self, clock: str = "0900", doctor: str = "D0001") -> str:
        return f"{doctor.replace('_', '--')}-{self.day:%Y%m%d}-{clock}"

    def patient_resource(self, number: int | None = None, **more: Any) -> Json:
        number = next(self.numbers) if number is None else number
        return {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:xinglin:fhir:document:passport", "value": f"P{number:07}"}],
            "name": [{"text": "欧阳明月"}],
            "telecom": [{"system": "phone", "value": "13712345678"}],
            "gender": "female",
            "birthDate": "1980-01-01",
            **more,
        }

    async def patient(self, by: str = "city") -> str:
        """A new one's id."""
        said = await self.ask("POST", "Patient", self.patient_resource(), by=by)
        assert said.status == 201, said.body
        found: str = said.body["id"]
        return found

    def wish(self, patient: str, slot: str, status: str = "booked", **more: Any) -> Json:
        return {
            "resourceType": "Appointment",
            "status": status,
            "slot": [{"reference": f"Slot/{slot}"}],
            "participant": [{"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}],
            **more,
        }

    async def book(self, patient: str, slot: str, key: str, **more: Any) -> Said:
        """Through create; the answer may be a refusal."""
        headers = {"Idempotency-Key": key}
        return await self.ask("POST", "Appointment", self.wish(patient, slot, **more), headers=headers)

    async def audit(self, action: str) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self.pool.fetch(
            "select * from audit_entry where action = $1 order by id", action
        )
        return found


@asynccontextmanager
async def opened(database: str, policy: str = "", **given: Any) -> AsyncIterator[Face]:
    """`policy`: as its file has it; `given`: settings."""
    world = PostgresWorld(database)
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('市第一医院', $1)", str(ZONE))
    await pool.execute(
        "insert into department (id, parent_id, name, campus, position) values"
        " ('inner', null, '内科', 'east', 0), ('cardio', 'inner', '心内科', 'east', 1),"
        " ('neuro', null, '神经科', 'east', 2)"
    )
    await pool.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家号', $1)", FEE)
    day = datetime.now(ZONE).date() + timedelta(2)
    for doctor, department, hour, seats in (("D0001", "cardio", 9, 3), ("d_2", "neuro", 14, 1)):
        for ahead in (0, 1):
            date_ = day + timedelta(ahead)
            starts = int(datetime.combine(date_, time(hour), ZONE).timestamp() * 1000)
            session = plan(starts, seats, seats, department=department, clock=hour * 60)
            await world.publish(ScheduleKey(doctor, date_.isoformat()), session)
    partners = {}
    if policy:
        async with pool.acquire() as connection, connection.transaction():
            assert await store_policy(connection, policy, "test")
    async with pool.acquire() as connection:
        for name, scopes in (("city", ALL), ("other", ALL), ("his", (*ALL, "fhir.patients"))):
            partners[name] = await records.add(
                connection, name, scopes, Channel.REFERRAL, new_id(), datetime.now(UTC)
            )
    async with serving(world, **given) as one, ClientSession(one.address) as http:
        yield Face(one, http, pool, day, partners)
    await world.close()
