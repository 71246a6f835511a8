"""Data that is wrong, put right at a desk with the document in hand."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field

from engine.domain.refusal import Reason
from engine.records import corrections as records
from engine.records.corrections import NotCorrected
from engine.records.identity import IdentityFault
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import Id, IdPath, PersonBody
from web.patient.conduct_bodies import Prose
from web.patient.patients import person_of

FieldWord = Literal["name", "birth_date", "sex"]


class CorrectionBody(PersonBody):
    """As the document says it; the phone is only checked."""

    reason: Annotated[Prose, Field(description="更正原因 / why it was wrong")]


@dataclass(frozen=True, slots=True)
class CorrectionAnswer:
    patient_id: Id
    changed: Annotated[list[FieldWord], Field(description="更正的项目 / what was put right")]
    at: datetime


@api.route(
    "POST",
    "/api/v1/desk/patients/{id}/correction",
    zh="更正就诊人信息",
    tags=["desk"],
    errors=[
        Fault.NO_SUCH_PATIENT,
        Fault.CORRECTION_REFUSED,
        Reason.KEY_REUSED,
        *(Fault(fault.value) for fault in IdentityFault),
        Fault.DATABASE_DOWN,
    ],
)
async def correct_patient(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: CorrectionBody
) -> CorrectionAnswer:
    """Name, birth date and sex as the document says that the clerk has looked at. Its number must be the
    patient's: another number is another person. What was there before is kept, sealed."""
    now = datetime.now(UTC)
    person = person_of(request, body, now)
    patient_id = path.id.bytes
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        try:
            done = await records.correct(
                connection,
                request.app[keys.VAULT],
                patient_id,
                person,
                body.id_type,
                body.reason,
                staff.id,
                idempotency_key,
                now,
            )
        except NotCorrected as refused:
            raise Problem(
                Reason.KEY_REUSED if refused.code == Reason.KEY_REUSED else Fault(refused.code)
            ) from None
        if done.is_new:
            await audited(
                request,
                connection,
                "patient_corrected",
                subjects=(patient_id,),
                detail={"changed": list(done.changed), "document": body.id_type},
            )
    return CorrectionAnswer(
        str(UUID(bytes=patient_id)),
        [_word(one) for one in done.changed],
        now.astimezone(request.app[keys.ZONE]),
    )


def _word(field: str) -> FieldWord:
    return "name" if field == "name" else "birth_date" if field == "birth_date" else "sex"
