"""The people an account books for."""

from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
from aiohttp import web

from engine.domain.refusal import Reason
from engine.records import patients as records
from engine.records import real_names
from engine.records.delegations import Asked
from engine.records.identity import (
    IdentityFault,
    IdType,
    Person,
    identify,
    masked_id_number,
    masked_phone,
)
from web import keys
from web.auditing import audited, noted_delegation
from web.errors import Entry, Problem
from web.faults import Fault
from web.fresh_ids import new_id as new_id
from web.openapi import PRIVATE_HEADERS, api
from web.patient.bodies import (
    IdPath,
    PatientAnswer,
    PatientBody,
    PatientsAnswer,
    PersonBody,
    RightsAnswer,
)
from web.patient.conduct_bodies import RenewalBody
from web.patient.delegation_answers import asked_answer
from web.patient.delegation_bodies import AskedAnswer
from web.patient.real_names import checked
from web.privacy.consents import check_consents

_FIELD_OF = {
    IdentityFault.INVALID_NAME: "name",
    IdentityFault.INVALID_ID_NUMBER: "id_number",
    IdentityFault.INVALID_BIRTH_DATE: "birth_date",
    IdentityFault.INVALID_SEX: "sex",
    IdentityFault.INVALID_PHONE: "phone",
}


@api.route(
    "POST",
    "/api/v1/patients",
    zh="添加就诊人",
    status=201,
    tags=["patients"],
    errors=[
        *(Fault(fault.value) for fault in IdentityFault),
        Fault.IDENTITY_MISMATCH,
        Reason.CONSENT_NEEDED,
        Fault.REAL_NAME_MISMATCH,
        Fault.TOO_MANY_MISMATCHES,
        Fault.GUARDIAN_NEEDED,
        Fault.DELEGATION_REVOKED,
        Fault.TOO_MANY_PATIENTS,
        Fault.DATABASE_DOWN,
    ],
    answer=PatientAnswer,
    accepted=AskedAnswer,
)
async def add_patient(
    request: web.Request, *, account_id: bytes, body: PatientBody
) -> PatientAnswer | web.Response:
    """Adds a person to the account, with the right to act for them until `expires_at`: oneself for good, a
    child until 18, a grown-up for a time and as long as they consent. Adding the same identity again gives
    the same patient, and the right anew. Who adds somebody else says that they, or for a child its guardian,
    have consented.

    Who has an account of their own is asked there first: 202, and nothing is theirs to see until the person
    has said yes (`GET /api/v1/delegations`). Who is under 14 is added by a guardian, never as `self`.

    A resident's number says birth date and sex by itself; other documents may come without them. Name and
    number are looked up in the register of real names where there is one.
    """
    app, now = request.app, datetime.now(UTC)
    new = records.NewPatient(person_of(request, body, now), body.relation)
    async with app[keys.POOL].acquire() as conn:
        await check_consents(request, conn, account_id)
    guess_id = new_id()
    verification = await checked(request, account_id, guess_id, new.person, now)
    async with app[keys.POOL].acquire() as conn, conn.transaction():
        added = await records.add_patient(
            conn, app[keys.VAULT], account_id, new, new_id(), terms_of(request), now, verification
        )
        if added is records.PeopleRefusal.IDENTITY_MISMATCH:
            await real_names.note_miss(conn, guess_id)
        else:
            await real_names.end_guess(conn, guess_id)
        if isinstance(added, Asked):
            await _noted(request, conn, "delegation_asked", added.patient_id, {"relation": added.relation})
        elif isinstance(added, records.Patient):
            await _noted(request, conn, "patient_added", added.id, {"relation": added.relation})
    if isinstance(added, Asked):
        asked = asked_answer(added, app[keys.ZONE])
        return web.Response(body=orjson.dumps(asked), status=202, headers=PRIVATE_HEADERS)
    return _answer(accepted(added), request, now)


@api.route("GET", "/api/v1/patients", zh="我的就诊人", tags=["patients"], errors=[Fault.DATABASE_DOWN])
async def list_patients(request: web.Request, *, account_id: bytes) -> PatientsAnswer:
    """The account's patients, first added first, also those whose right has ended. Numbers are masked."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn:
        found = await records.patients_of(conn, request.app[keys.VAULT], account_id)
    await noted_delegation(request, account_id, "patient_read", [one.id for one in found])
    return PatientsAnswer([_answer(patient, request, now) for patient in found])


@api.route(
    "POST",
    "/api/v1/patients/{id}/renewal",
    zh="续期代预约权限",
    tags=["patients"],
    errors=[
        Fault.NO_SUCH_PATIENT,
        Fault.DELEGATION_REVOKED,
        Fault.CHILD_IS_GROWN_UP,
        Fault.ID_DIGITS_MISMATCH,
        Fault.PERSON_MUST_CONSENT,
        Fault.TOO_MANY_PATIENTS,
        Reason.KEY_REUSED,
        Fault.DATABASE_DOWN,
    ],
)
async def renew_patient(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: RenewalBody
) -> PatientAnswer:
    """Gives the right to book for a grown-up anew, from now on. Rights that end otherwise stay as they are.

    A child who has turned 18 is a grown-up: add them again, with their consent and their whole number. So is
    who has an account of their own by now: added again, they are asked there.
    """
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        renewed = await records.renew(
            conn,
            request.app[keys.VAULT],
            account_id,
            path.id.bytes,
            body.id_digits,
            idempotency_key,
            terms_of(request),
            now,
        )
        if isinstance(renewed, records.Patient):
            await _noted(request, conn, "patient_renewed", renewed.id)
    return _answer(accepted(renewed), request, now)


@api.route(
    "DELETE",
    "/api/v1/patients/{id}",
    zh="撤销代预约权限",
    tags=["patients"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.DATABASE_DOWN],
)
async def revoke_patient(request: web.Request, *, account_id: bytes, path: IdPath) -> PatientAnswer:
    """Takes the right back at once; again changes nothing. What was booked stays, and may be cancelled."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        revoked = await records.revoke(conn, request.app[keys.VAULT], account_id, path.id.bytes, now)
        if isinstance(revoked, records.Patient):
            await _noted(request, conn, "patient_revoked", revoked.id)
    return _answer(accepted(revoked), request, now)


def person_of(request: web.Request, body: PersonBody, now: datetime) -> Person:
    """Raises Problem where the document does not hold together."""
    person = identify(
        body.name,
        IdType(body.id_type),
        body.id_number,
        body.phone,
        now.astimezone(request.app[keys.ZONE]).date(),
        body.birth_date,
        body.sex,
    )
    if isinstance(person, IdentityFault):
        raise Problem(Fault(person.value), errors=[Entry(["body", _FIELD_OF[person]], person.value)])
    return person


def terms_of(request: web.Request) -> records.DelegationTerms:
    policy = request.app[keys.POLICY].policy
    return records.DelegationTerms(
        policy.delegation_days, request.app[keys.ZONE], policy.guardian_required, policy.word_is_enough
    )


def accepted(outcome: records.Patient | Asked | records.PeopleRefusal) -> records.Patient:
    """Raises Problem for a refusal. Nobody is asked about what a desk does."""
    if isinstance(outcome, records.PeopleRefusal):
        if outcome is records.PeopleRefusal.KEY_REUSED:
            raise Problem(Reason.KEY_REUSED)
        is_full = outcome is records.PeopleRefusal.TOO_MANY_PATIENTS
        raise Problem(Fault(outcome.value), limit=records.ACCOUNT_PATIENTS_MAX if is_full else None)
    assert isinstance(outcome, records.Patient)
    return outcome


async def _noted(
    request: web.Request,
    conn: asyncpg.Connection,
    action: str,
    patient_id: bytes,
    detail: dict[str, object] | None = None,
) -> None:
    await audited(request, conn, action, subjects=(patient_id,), detail=detail)


def _answer(patient: records.Patient, request: web.Request, now: datetime) -> PatientAnswer:
    ends = patient.ends_at
    return PatientAnswer(
        id=str(UUID(bytes=patient.id)),
        name=patient.name,
        id_type=patient.id_type.value,
        id_number=masked_id_number(patient.id_number),
        phone=masked_phone(patient.phone),
        relation=patient.relation,
        birth_date=patient.birth_date,
        sex=patient.sex,
        expires_at=None if ends is None else ends.astimezone(request.app[keys.ZONE]),
        is_expired=patient.is_expired(now),
        rights=RightsAnswer(patient.rights.book, patient.rights.see_visits, patient.rights.pay),
        verification=patient.verification,
    )
