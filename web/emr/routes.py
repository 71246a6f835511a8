"""Records that other systems keep of patients: sent to us by a partner, read by who may see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import orjson
from aiohttp import web
from aiohttp.helpers import parse_content_type
from pydantic import Field

from engine.records.encounters import ClinicalEntry, Kind, entries_of
from integrations.emr.emr import Unreadable
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.emr.sight import must_see
from web.emr.taking import Told, take_all, use_of
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.partner.sight import Partner
from web.patient.appointments import uuid
from web.patient.bodies import Id, IdPath

BUNDLE_BYTES_MAX: Final = 2 * 1024 * 1024
MEDIA: Final = "application/fhir+json"
OutcomeWord = Literal["accepted", "duplicate", "quarantined", "unclaimed"]


@dataclass(frozen=True, slots=True)
class UnfitAnswer:
    field: str
    rule: str
    expected: str


@dataclass(frozen=True, slots=True)
class TakenAnswer:
    where: Annotated[str, Field(description="哪一个资源 / which resource: entry[3], Condition/77")]
    outcome: Annotated[
        OutcomeWord,
        Field(
            description="quarantined：已隔离，原因见 reasons；unclaimed：患者尚未建档，建档后自动归入"
            " / put aside with its reasons; kept until its patient is known here"
        ),
    ]
    reasons: list[UnfitAnswer]


@dataclass(frozen=True, slots=True)
class AllTakenAnswer:
    resources: Annotated[list[TakenAnswer], Field(description="按来文次序 / in the order in which they came")]


@dataclass(frozen=True, slots=True)
class EncounterAnswer:
    """就诊 / a visit or a stay."""

    id: Id
    source: Annotated[str, Field(description="记录来自哪个系统 / whose record it is")]
    appointment_id: Id | None
    status: str | None
    setting: Annotated[str, Field(description="outpatient emergency inpatient online home other")]
    title: str | None
    department: str | None
    practitioner: str | None
    reason: str | None
    begins_at: datetime | None
    ends_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ConditionAnswer:
    """诊断 / a diagnosis."""

    id: Id
    source: str
    encounter_id: Id | None
    status: str | None
    certainty: str | None
    title: str | None
    code: str | None
    code_system: str | None
    note: str | None
    begins_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MedicationAnswer:
    """用药 / a medicine that is ordered or taken."""

    id: Id
    source: str
    encounter_id: Id | None
    status: str | None
    intent: Annotated[str, Field(description="order：医嘱；statement：自述 / ordered, or said to be taken")]
    title: str | None
    code: str | None
    code_system: str | None
    dosage: str | None
    days: str | None
    quantity: str | None
    note: str | None
    begins_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AllergyAnswer:
    """过敏与不耐受 / an allergy or intolerance."""

    id: Id
    source: str
    encounter_id: Id | None
    status: str | None
    certainty: str | None
    title: str | None
    code: str | None
    code_system: str | None
    categories: list[str]
    criticality: str | None
    reactions: list[str]
    note: str | None
    begins_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EncountersAnswer:
    encounters: Annotated[list[EncounterAnswer], Field(description="新的在前 / newest first")]


@dataclass(frozen=True, slots=True)
class ConditionsAnswer:
    conditions: list[ConditionAnswer]


@dataclass(frozen=True, slots=True)
class MedicationsAnswer:
    medications: list[MedicationAnswer]


@dataclass(frozen=True, slots=True)
class AllergiesAnswer:
    allergies: list[AllergyAnswer]


@api.route(
    "POST",
    "/api/v1/integrations/emr/fhir",
    zh="接收电子病历（FHIR）",
    tags=["integration"],
    errors=[Fault.FHIR_UNREADABLE, Fault.DATABASE_DOWN],
    takes=dict[str, Any],
    body_media=MEDIA,
    answer=AllTakenAnswer,
)
async def take_emr(request: web.Request, *, partner: Partner) -> web.StreamResponse:
    """An Encounter, Condition, MedicationRequest, MedicationStatement or AllergyIntolerance, or a Bundle of
    them with their Patients. Each is kept, put aside with its reasons, or known already; a version that is
    older than ours changes nothing. At most 2 MiB and 500 resources."""
    app = request.app
    document = await _document(request)
    use = use_of(app[keys.POOL], app[keys.VAULT], lambda: datetime.now(UTC))
    try:
        told = await take_all(app[keys.INTAKE], use, document, partner.name, app[keys.ZONE])
    except Unreadable as error:
        raise Problem(Fault.FHIR_UNREADABLE, problem=error.why, place=error.place) from None
    outcomes: dict[str, int] = {}
    for one in told:
        outcomes[one.taken.outcome.value] = outcomes.get(one.taken.outcome.value, 0) + 1
    await audited(request, app[keys.POOL], "emr_taken", detail=outcomes)
    body = orjson.dumps(AllTakenAnswer([_taken(one) for one in told]))
    return web.Response(body=body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})


async def _document(request: web.Request) -> Any:
    """Raises Problem."""
    kind, parameters = parse_content_type(request.headers.get("Content-Type", ""))
    charset = parameters.get("charset", "utf-8").lower()
    if kind not in (MEDIA, "application/json") or charset not in ("utf-8", "utf8"):
        raise Problem(Fault.UNSUPPORTED_MEDIA_TYPE)
    if (request.content_length or 0) > BUNDLE_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=BUNDLE_BYTES_MAX)
    pieces, have = [], 0
    # Not request.read(): the application's own limit is that of people's requests.
    async for piece in request.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > BUNDLE_BYTES_MAX:
            raise Problem(Fault.BODY_TOO_LARGE, limit=BUNDLE_BYTES_MAX)
        pieces.append(piece)
    try:
        return orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError:
        raise Problem(Fault.MALFORMED_JSON) from None


def _taken(told: Told) -> TakenAnswer:
    return TakenAnswer(
        told.where,
        told.taken.outcome.value,
        [UnfitAnswer(one.field, one.rule, one.expected) for one in told.taken.reasons],
    )


_READ_ERRORS: Final = [Fault.NO_SUCH_PATIENT, Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN]


@api.route("GET", "/api/v1/patients/{id}/encounters", zh="就诊记录", tags=["encounters"], errors=_READ_ERRORS)
async def list_encounters(request: web.Request, *, who: bytes | Staff, path: IdPath) -> EncountersAnswer:
    """Visits and stays, as record systems told of them. Noted."""
    return EncountersAnswer(
        [
            EncounterAnswer(
                uuid(one.id),
                one.system,
                None if one.appointment_id is None else uuid(one.appointment_id),
                said("status"),
                said("setting") or "other",
                said("title"),
                said("department"),
                said("practitioner"),
                said("reason"),
                _local(request, one.begins_at),
                _local(request, _moment(said("ends_at"))),
                one.updated_at.astimezone(request.app[keys.ZONE]),
            )
            for one, said in await _entries(request, who, path, Kind.ENCOUNTER)
        ]
    )


@api.route("GET", "/api/v1/patients/{id}/conditions", zh="诊断", tags=["encounters"], errors=_READ_ERRORS)
async def list_conditions(request: web.Request, *, who: bytes | Staff, path: IdPath) -> ConditionsAnswer:
    """Diagnoses, as record systems told of them. Noted."""
    return ConditionsAnswer(
        [
            ConditionAnswer(
                uuid(one.id),
                one.system,
                None if one.encounter_id is None else uuid(one.encounter_id),
                said("status"),
                said("certainty"),
                said("title"),
                said("code"),
                said("code_system"),
                said("note"),
                _local(request, one.begins_at),
                one.updated_at.astimezone(request.app[keys.ZONE]),
            )
            for one, said in await _entries(request, who, path, Kind.CONDITION)
        ]
    )


@api.route("GET", "/api/v1/patients/{id}/medications", zh="用药", tags=["encounters"], errors=_READ_ERRORS)
async def list_medications(request: web.Request, *, who: bytes | Staff, path: IdPath) -> MedicationsAnswer:
    """Medicines that were ordered, or that the patient is said to take. Noted."""
    return MedicationsAnswer(
        [
            MedicationAnswer(
                uuid(one.id),
                one.system,
                None if one.encounter_id is None else uuid(one.encounter_id),
                said("status"),
                said("intent") or "statement",
                said("title"),
                said("code"),
                said("code_system"),
                said("dosage"),
                said("days"),
                said("quantity"),
                said("note"),
                _local(request, one.begins_at),
                one.updated_at.astimezone(request.app[keys.ZONE]),
            )
            for one, said in await _entries(request, who, path, Kind.MEDICATION)
        ]
    )


@api.route("GET", "/api/v1/patients/{id}/allergies", zh="过敏史", tags=["encounters"], errors=_READ_ERRORS)
async def list_allergies(request: web.Request, *, who: bytes | Staff, path: IdPath) -> AllergiesAnswer:
    """Allergies and intolerances. An empty list says that no system told of any, not that there are none.
    Noted."""
    return AllergiesAnswer(
        [
            AllergyAnswer(
                uuid(one.id),
                one.system,
                None if one.encounter_id is None else uuid(one.encounter_id),
                said("status"),
                said("certainty"),
                said("title"),
                said("code"),
                said("code_system"),
                list(one.content.get("categories") or ()),
                said("criticality"),
                list(one.content.get("reactions") or ()),
                said("note"),
                _local(request, one.begins_at),
                one.updated_at.astimezone(request.app[keys.ZONE]),
            )
            for one, said in await _entries(request, who, path, Kind.ALLERGY)
        ]
    )


class _Said:
    """Texts of an entry's content by name."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def __call__(self, name: str) -> str | None:
        value = self._content.get(name)
        return None if value is None else str(value)


async def _entries(
    request: web.Request, who: bytes | Staff, path: IdPath, kind: Kind
) -> list[tuple[ClinicalEntry, _Said]]:
    app = request.app
    await must_see(request, who, path.id.bytes, _ACTIONS[kind])
    found = await entries_of(app[keys.POOL], app[keys.VAULT], path.id.bytes, kind)
    return [(one, _Said(one.content)) for one in found]


_ACTIONS: Final = {
    Kind.ENCOUNTER: "encounters_read",
    Kind.CONDITION: "conditions_read",
    Kind.MEDICATION: "medications_read",
    Kind.ALLERGY: "allergies_read",
}


def _moment(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said)


def _local(request: web.Request, at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(request.app[keys.ZONE])
