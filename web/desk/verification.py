"""Who is who, at a desk: a clerk looks at the papers, and settles what people cannot from their accounts."""

from datetime import UTC, datetime

import asyncpg
from aiohttp import web

from engine.domain.masking import masked
from engine.records import delegations, real_names
from engine.records.identity import masked_id_number
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath
from web.patient.delegation_answers import asked_answer
from web.patient.delegation_bodies import (
    DecidedAnswer,
    DeskApprovalBody,
    RightsBody,
    VerificationAnswer,
    VerificationBody,
)
from web.patient.delegations import approved


@api.route(
    "GET",
    "/api/v1/desk/patients/{id}/verification",
    zh="查看实名核验",
    tags=["desk"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.DATABASE_DOWN],
)
async def read_verification(request: web.Request, *, staff: Staff, path: IdPath) -> VerificationAnswer:
    """Whether a real name is verified, and which requests about the person are open. Names are masked."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = await _verification(request, connection, path.id.bytes)
        await audited(request, connection, "verification_read", subjects=(path.id.bytes,))
    return found


@api.route(
    "POST",
    "/api/v1/desk/patients/{id}/verification",
    zh="核验证件",
    tags=["desk"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.DATABASE_DOWN],
)
async def verify_at_desk(
    request: web.Request, *, staff: Staff, path: IdPath, body: VerificationBody
) -> VerificationAnswer:
    """Says that the papers were looked at, and whether they fit what is written. The last word counts."""
    now = datetime.now(UTC)
    is_right = body.outcome == "verified"
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        known = await real_names.seen_at_desk(connection, path.id.bytes, staff.username, is_right, now)
        if not known:
            raise Problem(Fault.NO_SUCH_PATIENT)
        await audited(
            request,
            connection,
            "identity_verified" if is_right else "identity_refused",
            subjects=(path.id.bytes,),
            detail={"document": body.document},
        )
        return await _verification(request, connection, path.id.bytes)


@api.route(
    "POST",
    "/api/v1/desk/delegations/{id}/approve",
    zh="窗口核验后同意代办申请",
    tags=["desk"],
    errors=[
        Fault.NO_SUCH_DELEGATION,
        Fault.DELEGATION_DECIDED,
        Fault.TOO_MANY_PATIENTS,
        Fault.DATABASE_DOWN,
    ],
)
async def approve_at_desk(
    request: web.Request, *, staff: Staff, path: IdPath, body: DeskApprovalBody
) -> DecidedAnswer:
    """Gives what was asked, because the person stands here with their papers and cannot, or not any more, say
    yes from their account. `id` is the request's."""
    return await approved(
        request, path.id.bytes, None, RightsBody(), staff.username, ends_others=body.ends_others
    )


async def _verification(
    request: web.Request, connection: asyncpg.Connection, patient_id: bytes
) -> VerificationAnswer:
    """Raises Problem."""
    app, vault = request.app, request.app[keys.VAULT]
    zone = app[keys.ZONE]
    found = await real_names.verification_of(connection, vault, patient_id)
    if found is None:
        raise Problem(Fault.NO_SUCH_PATIENT)
    asked = await delegations.asked_for(connection, vault, patient_id, datetime.now(UTC))
    at = found.verification.at
    return VerificationAnswer(
        patient_id=uuid(patient_id),
        name=masked(found.name),
        id_type=found.id_type.value,
        id_number=masked_id_number(found.id_number) if found.id_number else "",
        state=found.verification.state,
        verified_at=None if at is None else at.astimezone(zone),
        verified_by=found.verification.by,
        requests=[asked_answer(one, zone) for one in asked],
    )
