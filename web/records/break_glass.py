"""Breaking the glass: reading a patient whom one does not treat, for an hour and for a reason."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field

from engine.domain.refusal import Reason
from engine.records import break_glass as records
from engine.records.request_keys import KeyUse
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import Id, Request

log = logging.getLogger(__name__)

GlassKind = Literal["emergency", "consultation", "handover", "complaint", "other"]
Because = Annotated[
    str,
    # Ten characters that say something: blanks at the ends do not count.
    Field(min_length=10, max_length=500, pattern=r"^[^\x00-\x20](?:[^\x00-\x08\x0b-\x1f]*)[^\x00-\x20]$"),
]


class BreakGlassBody(Request):
    patient_id: UUID
    kind: Annotated[
        GlassKind,
        Field(description="抢救、会诊、交接、投诉处理、其他 / what for"),
    ]
    reason: Annotated[Because, Field(description="理由，安全管理员逐条复核 / why; every one is reviewed")]


@dataclass(frozen=True, slots=True)
class BrokenGlassAnswer:
    id: Id
    patient_id: Id
    expires_at: datetime


@api.route(
    "POST",
    "/api/v1/break-glass",
    zh="紧急授权查阅",
    status=201,
    tags=["records"],
    errors=[Fault.NO_SUCH_PATIENT, Reason.KEY_REUSED, Fault.DATABASE_DOWN],
)
async def break_the_glass(
    request: web.Request, *, staff: Staff, idempotency_key: str, body: BreakGlassBody
) -> BrokenGlassAnswer:
    """Opens one patient's record to you for 60 minutes. Security administrators are told, and review it."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        told = await records.break_glass(
            connection,
            app[keys.VAULT],
            staff.id,
            body.patient_id.bytes,
            body.kind,
            body.reason,
            idempotency_key,
            datetime.now(UTC),
        )
        if told is None:
            raise Problem(Fault.NO_SUCH_PATIENT)
        if isinstance(told, KeyUse):
            raise Problem(Reason.KEY_REUSED)
        broken, is_new = told
        if is_new:
            await audited(
                request,
                connection,
                "glass_broken",
                subjects=(broken.patient_id,),
                object=("break_glass", uuid(broken.id)),
                detail={"kind": broken.kind},
            )
    if is_new:
        app[keys.METRICS].break_glass.labels(broken.kind).inc()
        log.warning(
            "staff %s broke the glass (%s): see /api/v1/admin/break-glass", uuid(staff.id), broken.kind
        )
    return BrokenGlassAnswer(
        uuid(broken.id), uuid(broken.patient_id), broken.expires_at.astimezone(app[keys.ZONE])
    )
