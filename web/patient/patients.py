"""The people an account books for."""

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

from aiohttp import web

from engine.records import patients as records
from engine.records.identity import (
    IdentityFault,
    IdType,
    identify,
    masked_id_number,
    masked_phone,
)
from web import keys
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import PatientAnswer, PatientBody, PatientsAnswer

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
        Fault.TOO_MANY_PATIENTS,
        Fault.DATABASE_DOWN,
    ],
)
async def add_patient(request: web.Request, *, account_id: bytes, body: PatientBody) -> PatientAnswer:
    """Adds a person to the account. Adding the same identity again gives the same patient.

    A resident's number says birth date and sex by itself; other documents may come without them.
    """
    now = datetime.now(UTC)
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
    new = records.NewPatient(person, body.relation)
    async with request.app[keys.POOL].acquire() as conn:
        added = await records.add_patient(conn, account_id, new, new_id(), now)
    if isinstance(added, records.PeopleRefusal):
        limit = records.ACCOUNT_PATIENTS_MAX if added is records.PeopleRefusal.TOO_MANY_PATIENTS else None
        raise Problem(Fault(added.value), limit=limit)
    return _answer(added)


@api.route("GET", "/api/v1/patients", zh="我的就诊人", tags=["patients"], errors=[Fault.DATABASE_DOWN])
async def list_patients(request: web.Request, *, account_id: bytes) -> PatientsAnswer:
    """The account's patients, first added first. Document and phone numbers are masked."""
    async with request.app[keys.POOL].acquire() as conn:
        found = await records.patients_of(conn, account_id)
    return PatientsAnswer([_answer(patient) for patient in found])


def new_id() -> bytes:
    """A UUIDv7 (RFC 9562, 5.7): ids made near in time lie near each other in an index."""
    value = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + secrets.token_bytes(10))
    value[6] = (value[6] & 0x0F) | 0x70
    value[8] = (value[8] & 0x3F) | 0x80
    return bytes(value)


def _answer(patient: records.Patient) -> PatientAnswer:
    return PatientAnswer(
        id=str(UUID(bytes=patient.id)),
        name=patient.name,
        id_type=patient.id_type.value,
        id_number=masked_id_number(patient.id_number),
        phone=masked_phone(patient.phone),
        relation=patient.relation,
        birth_date=patient.birth_date,
        sex=patient.sex,
    )
