"""A small record system in memory, for demo and tests: a FHIR R4 server of a few resources that can be told
to fail.

    sandbox = Sandbox("token")
    sandbox.put({"resourceType": "Condition", …})       # its id; versions and lastUpdated are the sandbox's
    sandbox.fail("Encounter", Fault.APPLIED_THEN_CUT)   # the next request about that type
    sandbox.ledger                                      # what was asked, in order: (method, type, status)
    sandbox.kept["Encounter"]                           # id -> newest version

With `writes_back` whoever is told of a visit gets a diagnosis and a prescription for it, now and then an
allergy, as a doctor would write them; `on_visit` hears of each. All of them are made up.

Over HTTP: /fhir/{type} GET (search by identifier, _lastUpdated, _id; _sort, _count, pages) and POST (with
If-None-Exist), /fhir/{type}/{id} GET and PUT (with If-Match), /fhir/metadata. For people: GET /sandbox.
"""

import asyncio
import hmac
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import orjson
from aiohttp import web

Json = dict[str, Any]
TYPES: Final = (
    "Patient",
    "Encounter",
    "Condition",
    "MedicationRequest",
    "MedicationStatement",
    "AllergyIntolerance",
)
KEPT_MAX: Final = 20_000
_ALLERGY_EACH: Final = 5  # one visit in so many


class Fault(StrEnum):
    TIMEOUT = "timeout"  # nothing is done, and nothing comes back
    APPLIED_THEN_TIMEOUT = "applied_then_timeout"
    CUT = "cut"  # nothing is done, and the line breaks
    APPLIED_THEN_CUT = "applied_then_cut"
    ERROR = "error"  # 500, nothing is done
    APPLIED_ERROR = "applied_error"  # 500, and it is done
    BUSY = "busy"  # 429
    REFUSED = "refused"  # 422
    REDIRECT = "redirect"  # to somewhere else
    UNREADABLE = "unreadable"  # 200, and no FHIR


_APPLIED: Final = (Fault.APPLIED_THEN_TIMEOUT, Fault.APPLIED_THEN_CUT, Fault.APPLIED_ERROR)


@dataclass(frozen=True, slots=True)
class _Case:
    """What somebody came with, and left with."""

    title: str
    code: str
    medicine: str
    dosage: str
    days: int


_CASES: Final = (
    _Case("急性上呼吸道感染", "J06.900", "复方氨酚烷胺片", "口服，一次1片，一日2次", 3),
    _Case("急性支气管炎", "J20.900", "盐酸氨溴索口服溶液", "口服，一次10ml，一日2次", 5),
    _Case("原发性高血压", "I10.x00", "苯磺酸氨氯地平片", "口服，一次5mg，一日1次", 28),
    _Case("2型糖尿病", "E11.900", "盐酸二甲双胍片", "口服，一次0.5g，一日2次，随餐服用", 28),
    _Case("慢性胃炎", "K29.500", "奥美拉唑肠溶胶囊", "口服，一次20mg，一日1次，早餐前", 14),
    _Case("腰肌劳损", "M62.600", "双氯芬酸二乙胺乳胶剂", "外用，一日3次", 7),
    _Case("过敏性鼻炎", "J30.400", "氯雷他定片", "口服，一次10mg，一日1次", 10),
)
_ALLERGIES: Final = (("青霉素", "皮疹"), ("头孢类抗生素", "荨麻疹"), ("海鲜", "瘙痒"), ("花粉", "打喷嚏"))
_ICD: Final = "http://hl7.org/fhir/sid/icd-10"
_STATES: Final = "http://terminology.hl7.org/CodeSystem"


class Sandbox:
    def __init__(
        self,
        token: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        writes_back: bool = False,
        on_visit: Callable[[Json, Json], Awaitable[None]] | None = None,
    ) -> None:
        """`on_visit` gets the encounter and its patient."""
        self._expected = f"Bearer {token}" if token else ""
        self._clock = clock
        self._writes_back = writes_back
        self._on_visit = on_visit
        self._last = datetime.min.replace(tzinfo=UTC)
        self._faults: dict[str, deque[Fault]] = {}
        self._stuck = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.kept: dict[str, dict[str, Json]] = {type_: {} for type_ in TYPES}
        self.ledger: list[tuple[str, str, int]] = []

    # What tests and demos do.

    def put(self, resource: Mapping[str, Any], id_: str = "") -> str:
        """Creates it, or makes a new version of what has this id."""
        type_ = resource["resourceType"]
        id_ = id_ or secrets.token_hex(8)
        before = self.kept[type_].get(id_)
        version = 1 if before is None else int(before["meta"]["versionId"]) + 1
        # Each change has a moment of its own, so that whoever asks "since" misses none.
        self._last = max(self._clock(), self._last + timedelta(milliseconds=1))
        meta = {"versionId": str(version), "lastUpdated": self._last.isoformat(timespec="milliseconds")}
        self.kept[type_].pop(id_, None)  # the newest is the last
        self.kept[type_][id_] = {**resource, "id": id_, "meta": meta}
        while len(self.kept[type_]) > KEPT_MAX:
            del self.kept[type_][next(iter(self.kept[type_]))]
        return id_

    def fail(self, type_: str, *faults: Fault) -> None:
        self._faults.setdefault(type_, deque()).extend(faults)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_get("/fhir/metadata", self._metadata)
        app.router.add_get("/fhir/{type}", self._told(self._search))
        app.router.add_post("/fhir/{type}", self._told(self._create))
        app.router.add_get("/fhir/{type}/{id}", self._told(self._read))
        app.router.add_put("/fhir/{type}/{id}", self._told(self._update))
        app.router.add_get("/sandbox", self._page)
        return app

    # The wire.

    def _told(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            type_ = request.match_info["type"]
            answer = await self._answered(request, handler, type_)
            self.ledger.append((request.method, type_, answer.status))
            return answer

        return handle

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.Response]], type_: str
    ) -> web.Response:
        said = request.headers.get("Authorization", "").encode()
        if self._expected and not hmac.compare_digest(said, self._expected.encode()):
            return _outcome(401, "login")
        if type_ not in TYPES:
            return _outcome(404, "not-supported")
        queue = self._faults.get(type_)
        fault = queue.popleft() if queue else None
        answer = await handler(request) if fault is None or fault in _APPLIED else None
        match fault:
            case Fault.TIMEOUT | Fault.APPLIED_THEN_TIMEOUT:
                await self._stuck.wait()
            case Fault.CUT | Fault.APPLIED_THEN_CUT:
                if request.transport is not None:
                    request.transport.abort()
            case Fault.ERROR | Fault.APPLIED_ERROR:
                return _outcome(500, "exception")
            case Fault.BUSY:
                return web.Response(status=429, headers={"Retry-After": "3"})
            case Fault.REFUSED:
                return _outcome(422, "processing")
            case Fault.REDIRECT:
                return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
            case Fault.UNREADABLE:
                return web.Response(body=b"<html>", content_type="application/fhir+json")
        return answer or _outcome(500, "exception")

    async def _search(self, request: web.Request) -> web.Response:
        type_ = request.match_info["type"]
        found = list(self.kept[type_].values())
        query = request.query
        if "identifier" in query:
            system, _, value = query["identifier"].rpartition("|")
            found = [one for one in found if _has(one, system, value)]
        if "_id" in query:
            found = [one for one in found if one["id"] == query["_id"]]
        if query.get("_lastUpdated", "").startswith("ge"):
            since = datetime.fromisoformat(query["_lastUpdated"][2:])
            found = [one for one in found if datetime.fromisoformat(one["meta"]["lastUpdated"]) >= since]
        offset, count = int(query.get("_offset", "0")), min(int(query.get("_count", "50")), 200)
        bundle: Json = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "entry": [{"resource": one} for one in found[offset : offset + count]],
        }
        if offset + count < len(found):
            more = request.url.update_query({"_offset": str(offset + count), "_count": str(count)})
            bundle["link"] = [{"relation": "next", "url": str(more)}]
        return _json(bundle)

    async def _create(self, request: web.Request) -> web.Response:
        type_ = request.match_info["type"]
        resource = await _resource(request, type_)
        if resource is None:
            return _outcome(400, "invalid")
        wanted = request.headers.get("If-None-Exist", "")
        if wanted:
            from yarl import URL

            system, _, value = (
                URL.build(query_string=wanted, encoded=True).query["identifier"].rpartition("|")
            )
            known = [one for one in self.kept[type_].values() if _has(one, system, value)]
            if len(known) > 1:
                return _outcome(412, "multiple-matches")
            if known:
                return _json(known[0])
        made = self.kept[type_][self.put(resource)]
        if type_ == "Encounter":
            await self._write_back(made)
        return _json(made, 201)

    async def _read(self, request: web.Request) -> web.Response:
        found = self.kept[request.match_info["type"]].get(request.match_info["id"])
        return _outcome(404, "not-found") if found is None else _json(found)

    async def _update(self, request: web.Request) -> web.Response:
        type_, id_ = request.match_info["type"], request.match_info["id"]
        resource = await _resource(request, type_)
        if resource is None or resource.get("id") != id_:
            return _outcome(400, "invalid")
        before = self.kept[type_].get(id_)
        expected = request.headers.get("If-Match", "")
        if expected and before is not None and expected != f'W/"{before["meta"]["versionId"]}"':
            return _outcome(412, "conflict")
        self.put(resource, id_)
        return _json(self.kept[type_][id_], 200 if before else 201)

    async def _metadata(self, request: web.Request) -> web.Response:
        return _json(
            {
                "resourceType": "CapabilityStatement",
                "status": "active",
                "date": "2026-11-23",
                "kind": "instance",
                "fhirVersion": "4.0.1",
                "format": ["json"],
                "rest": [{"mode": "server", "resource": [{"type": type_} for type_ in TYPES]}],
            }
        )

    # The doctor.

    async def _write_back(self, encounter: Json) -> None:
        reference = encounter.get("subject", {}).get("reference", "")
        patient = self.kept["Patient"].get(reference.removeprefix("Patient/"))
        if patient is not None and self._on_visit is not None:
            await self._on_visit(encounter, patient)
        if not self._writes_back:
            return
        chance = random.Random(encounter["id"])  # nosec B311  # what somebody of a demo suffers from
        case = chance.choice(_CASES)
        at = encounter.get("period", {}).get("end") or self._clock().isoformat()
        about = {
            "subject": {"reference": reference},
            "encounter": {"reference": f"Encounter/{encounter['id']}"},
        }
        self.put(
            {
                "resourceType": "Condition",
                **about,
                "clinicalStatus": _state("condition-clinical", "active"),
                "verificationStatus": _state("condition-ver-status", "confirmed"),
                "code": {"coding": [{"system": _ICD, "code": case.code}], "text": case.title},
                "recordedDate": at,
            }
        )
        self.put(
            {
                "resourceType": "MedicationRequest",
                **about,
                "status": "active",
                "intent": "order",
                "medicationCodeableConcept": {"text": case.medicine},
                "authoredOn": at,
                "dosageInstruction": [{"text": case.dosage}],
                "dispenseRequest": {"expectedSupplyDuration": {"value": case.days, "unit": "天"}},
            }
        )
        if chance.randrange(_ALLERGY_EACH) == 0:
            what, reaction = chance.choice(_ALLERGIES)
            self.put(
                {
                    "resourceType": "AllergyIntolerance",
                    "patient": about["subject"],
                    "encounter": about["encounter"],
                    "clinicalStatus": _state("allergyintolerance-clinical", "active"),
                    "verificationStatus": _state("allergyintolerance-verification", "confirmed"),
                    "code": {"text": what},
                    "criticality": "low",
                    "reaction": [{"manifestation": [{"text": reaction}]}],
                    "recordedDate": at,
                }
            )

    # For people.

    async def _page(self, request: web.Request) -> web.Response:
        """How many there are, and what was asked; nobody's names."""
        return _json(
            {
                "kept": {type_: len(own) for type_, own in self.kept.items()},
                "asked": self.ledger[-50:],
                "conditions": [one["code"]["text"] for one in list(self.kept["Condition"].values())[-20:]],
            }
        )


def _state(system: str, code: str) -> Json:
    return {"coding": [{"system": f"{_STATES}/{system}", "code": code}]}


def _has(resource: Json, system: str, value: str) -> bool:
    return any(
        one.get("value") == value and system in ("", one.get("system"))
        for one in resource.get("identifier", ())
    )


async def _resource(request: web.Request, type_: str) -> Json | None:
    try:
        found = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and found.get("resourceType") == type_ else None


def _json(told: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(told), content_type="application/fhir+json")


def _outcome(status: int, code: str) -> web.Response:
    return _json({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]}, status)
