"""Patient: people a partner has brought, and with `fhir.patients` whoever's document it can name.

A partner that brings somebody says by it that they have agreed; the hospital takes its word as it takes its
own desk's. Document numbers never stand in an address, and are never answered.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.domain.refusal import Reason
from engine.records import partners as records
from engine.records import patients as people
from engine.records.identity import IdentityFault, IdType, Person, identify, normal_id_number
from engine.records.partners import KnownPatient
from web import keys
from web.auditing import audited, noted_reading
from web.errors import Entry, Problem
from web.faults import Fault
from web.fresh_ids import new_id
from web.openapi import api
from web.partner.fhir import names, resources
from web.partner.fhir.answers import told, told_page
from web.partner.fhir.asking import Search, accept_json, asked, wrong_parameter
from web.partner.fhir.names import BASE, MEDIA
from web.partner.fhir.reading import Part, body_of
from web.partner.fhir.schedules import SEARCH, FhirPath
from web.partner.sight import Partner
from web.patient.patients import accepted, terms_of

Json = dict[str, Any]
_PLACE_OF: Final = {
    IdentityFault.INVALID_NAME: "name",
    IdentityFault.INVALID_ID_NUMBER: "identifier",
    IdentityFault.INVALID_BIRTH_DATE: "birthDate",
    IdentityFault.INVALID_SEX: "gender",
    IdentityFault.INVALID_PHONE: "telecom",
}
PERSON_FAULTS: Final[list[Reason | Fault]] = [
    *(Fault(fault.value) for fault in IdentityFault),
    Fault.IDENTITY_MISMATCH,
    Fault.TOO_MANY_PATIENTS,
    Fault.INVALID_RESOURCE,
]


@api.route(
    "POST",
    f"{BASE}/Patient",
    zh="带来患者（FHIR）",
    status=201,
    tags=["fhir"],
    errors=[*PERSON_FAULTS, Fault.NOT_ACCEPTABLE, Fault.DATABASE_DOWN],
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_create_patient(request: web.Request, *, partner: Partner) -> web.Response:
    """Brings a person: name, one document (an `identifier` with urn:xinglin:fhir:document:passport and the
    like), a telephone, and birth date and sex where the document does not say them. The same document is the
    same patient: 200 where this partner has brought them before, 201 where it has not."""
    accept_json(request)
    person = person_of(request, await body_of(request, "Patient"))
    known, is_new = await bring(request, partner, person)
    return told(request, resources.patient(known), 201 if is_new else 200)


@api.route(
    "GET",
    f"{BASE}/Patient/{{id}}",
    zh="患者（FHIR）",
    tags=["fhir"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.NOT_ACCEPTABLE, Fault.DATABASE_DOWN],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_patient(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """One that this partner has brought."""
    accept_json(request)
    found = await brought(request, partner, path.id)
    await noted_reading(request, "patient_read", [found.id])
    return told(request, resources.patient(found))


@api.route(
    "GET",
    f"{BASE}/Patient",
    zh="查找患者（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.PERSONAL_IN_ADDRESS, Fault.DATABASE_DOWN],
    answer=Json,
    media=MEDIA,
)
async def fhir_search_patients(request: web.Request, *, partner: Partner) -> web.Response:
    """By `_id`, or by our own `identifier`. Document numbers are searched by POST to Patient/_search."""
    search = await asked(request, ("identifier",))
    given = search.any_of("identifier")
    if given is not None and any(one.rpartition("|")[0] != names.PATIENT_ID for one in given):
        raise Problem(Fault.PERSONAL_IN_ADDRESS)
    return await _found(request, partner, search)


@api.route(
    "POST",
    f"{BASE}/Patient/_search",
    zh="按证件查找患者（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.UNSUPPORTED_MEDIA_TYPE, Fault.BODY_TOO_LARGE, Fault.DATABASE_DOWN],
    answer=Json,
    media=MEDIA,
)
async def fhir_post_search_patients(request: web.Request, *, partner: Partner) -> web.Response:
    """As a form: `identifier` with the kind of document before the bar. Finds whom this partner has brought;
    with the scope fhir.patients anybody, who counts as brought from then on."""
    search = await asked(request, ("identifier",))
    return await _found(request, partner, search)


async def _found(request: web.Request, partner: Partner, search: Search) -> web.Response:
    app = request.app
    pool, vault = app[keys.POOL], app[keys.VAULT]
    ids = None if (given := search.any_of("_id")) is None else [_id_of(one) for one in given]
    identifiers = search.any_of("identifier")
    if ids is None and identifiers is None:
        raise wrong_parameter("identifier", "missing")
    found: dict[bytes, KnownPatient] = {}
    if identifiers is None:
        wanted = [one for one in ids or () if one is not None]
        found = {one.id: one for one in await records.patients(pool, vault, partner.id, wanted)}
    for said in identifiers or ():
        system, bar, value = said.rpartition("|")
        if system == names.PATIENT_ID:
            known = await records.patients(pool, vault, partner.id, [_id_of(value) or b"\0" * 16])
        else:
            document = document_of(system, value) if bar else None
            if document is None:
                raise wrong_parameter("identifier", "string_pattern_mismatch")
            one = await records.patient_by_document(pool, vault, *document)
            if one is not None and "fhir.patients" in partner.scopes:
                await records.bring(pool, partner.id, one.id, datetime.now(UTC))
            known = [] if one is None else await records.patients(pool, vault, partner.id, [one.id])
        found.update((one.id, one) for one in known if ids is None or one.id in ids)
    page = list(found.values())[search.offset : search.offset + search.count]
    await noted_reading(request, "patient_read", [one.id for one in page])
    return told_page(request, search, [resources.patient(one) for one in page], len(found), "Patient")


# What the booking uses as well.


async def brought(request: web.Request, partner: Partner, told_id: str) -> KnownPatient:
    """Raises Problem no_such_patient, also for those that others have brought."""
    wanted = _id_of(told_id)
    app = request.app
    found = (
        []
        if wanted is None
        else await records.patients(app[keys.POOL], app[keys.VAULT], partner.id, [wanted])
    )
    if not found:
        raise Problem(Fault.NO_SUCH_PATIENT)
    return found[0]


async def bring(request: web.Request, partner: Partner, person: Person) -> tuple[KnownPatient, bool]:
    """The patient that this person is, who is the partner's from now on, and whether they were not before.
    Raises Problem identity_mismatch where the document is known under another name."""
    app, now = request.app, datetime.now(UTC)
    vault = app[keys.VAULT]
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        account_id = await people.account_of_desk(connection, vault, person, new_id(), now)
        patient = accepted(
            await people.add_patient(
                connection,
                vault,
                account_id,
                people.NewPatient(person, "self"),
                new_id(),
                terms_of(request),
                now,
            )
        )
        is_new = await _bring(connection, partner.id, patient.id, now)
        if is_new:
            await audited(request, connection, "patient_registered", subjects=(patient.id,))
    known = KnownPatient(patient.id, patient.name, patient.id_type.value, patient.birth_date, patient.sex)
    return known, is_new


async def _bring(connection: asyncpg.Connection, partner_id: bytes, patient_id: bytes, now: datetime) -> bool:
    is_new = not await records.has_brought(connection, partner_id, patient_id)
    await records.bring(connection, partner_id, patient_id, now)
    return is_new


def person_of(request: web.Request, part: Part) -> Person:
    """Raises Problem where the resource says too little of a person, or contradicts itself."""
    document = _document(part)
    today = datetime.now(request.app[keys.ZONE]).date()
    sex = part.code("gender", ("male", "female", "other", "unknown"))
    found = identify(
        _name(part),
        document[0],
        document[1],
        _phone(part),
        today,
        _birth_date(part),
        sex if sex in ("male", "female") else None,
    )
    if isinstance(found, IdentityFault):
        place = [*part.at, _PLACE_OF[found]]
        raise Problem(Fault(found.value), errors=[Entry(place, found.value)])
    return found


def _document(part: Part) -> tuple[IdType, str]:
    for one in part.children("identifier"):
        system, value = one.text("system"), one.text("value")
        kind = None if system is None else kind_of(system)
        if kind is not None:
            if value is None:
                raise one.wrong("value", "missing")
            return kind, value
    raise part.wrong("identifier", "missing")


def kind_of(system: str) -> IdType | None:
    """Which kind of document a system of identifiers is; None: none that we know."""
    if system == names.RESIDENT_OID:
        return IdType.RESIDENT_ID
    word = system.removeprefix(names.DOCUMENT)
    return IdType(word) if system.startswith(names.DOCUMENT) and word in set(IdType) else None


def document_of(system: str, value: str) -> tuple[IdType, str] | None:
    kind = kind_of(system)
    number = None if kind is None else normal_id_number(kind, value)
    return None if kind is None or number is None else (kind, number)


def _name(part: Part) -> str:
    """The whole name as text, or the parts of one: family name first where it is Chinese."""
    for one in part.children("name"):
        text = one.text("text")
        if text is not None:
            return text
        family = one.text("family") or ""
        given = _texts(one, "given")
        if family or given:
            if family.isascii() and all(word.isascii() for word in given):
                return " ".join((*given, family)).strip()
            return family + "".join(given)
    raise part.wrong("name", "missing")


def _texts(part: Part, name: str) -> Sequence[str]:
    found = part.value.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise part.wrong(name, "list_type")
    return found[:8]


def _phone(part: Part) -> str:
    for one in part.children("telecom"):
        if one.text("system") in ("phone", "sms"):
            value = one.text("value")
            if value is not None:
                return value
    raise part.wrong("telecom", "missing")


def _birth_date(part: Part) -> date | None:
    text = part.text("birthDate", 10)
    if text is None:
        return None
    try:
        if len(text) != 10:
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise part.wrong("birthDate", "iso_date") from None


def _id_of(told_id: str) -> bytes | None:
    try:
        return UUID(told_id).bytes
    except ValueError:
        return None
