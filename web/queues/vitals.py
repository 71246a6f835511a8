"""Vitals at triage (分诊测量): a nurse measures; doctors and nurses of the department read; nobody else."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from aiohttp import web
from pydantic import Field

from engine.domain.refusal import Reason
from engine.records import vitals as records
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import Id, IdPath, Request
from web.queues.rights import Sight, sight_of
from web.queues.sight import find_ticket, key_of


class VitalsBody(Request):
    """至少填一项 / at least one of them."""

    systolic: Annotated[int | None, Field(ge=30, le=300, description="收缩压 / mmHg")] = None
    diastolic: Annotated[int | None, Field(ge=10, le=200, description="舒张压 / mmHg")] = None
    pulse: Annotated[int | None, Field(ge=0, le=300, description="脉搏 / beats a minute")] = None
    temperature: Annotated[float | None, Field(ge=25, le=45, description="体温 / °C")] = None
    spo2: Annotated[int | None, Field(ge=30, le=100, description="血氧饱和度 / per cent")] = None
    height_cm: Annotated[float | None, Field(ge=20, le=260, description="身高 / cm")] = None
    weight_kg: Annotated[float | None, Field(ge=0.3, le=600, description="体重 / kg")] = None
    note: Annotated[str, Field(max_length=500, description="备注 / what else was seen")] = ""


@dataclass(frozen=True, slots=True)
class VitalsAnswer:
    id: Id
    systolic: int | None
    diastolic: int | None
    pulse: int | None
    temperature: float | None
    spo2: int | None
    height_cm: float | None
    weight_kg: float | None
    note: str
    by_name: Annotated[str, Field(description="测量者 / who measured")]
    at: datetime


@dataclass(frozen=True, slots=True)
class AllVitalsAnswer:
    vitals: list[VitalsAnswer]


@api.route(
    "POST",
    "/api/v1/tickets/{id}/vitals",
    zh="登记生命体征",
    status=201,
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, Reason.KEY_REUSED, Fault.DATABASE_DOWN],
)
async def record_vitals(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: VitalsBody
) -> VitalsAnswer:
    """What was measured of a patient at the triage desk. What was mistyped is measured again: both stay."""
    app = request.app
    patient_id = await _must_see(app, staff, path)
    measured = _measured(body)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        kept = await records.add_vitals(
            connection,
            app[keys.VAULT],
            path.id.bytes,
            measured,
            staff.id,
            idempotency_key,
            datetime.now(UTC),
        )
        if kept is None:
            raise Problem(Reason.KEY_REUSED)
        await audited(
            request, connection, "vitals_recorded", subjects=(patient_id,), object=("ticket", str(path.id))
        )
    return vitals_answer(app, kept)


@api.route(
    "GET",
    "/api/v1/tickets/{id}/vitals",
    zh="查看生命体征",
    tags=["queues"],
    errors=[Reason.NO_SUCH_TICKET, Fault.DATABASE_DOWN],
)
async def read_vitals(request: web.Request, *, staff: Staff, path: IdPath) -> AllVitalsAnswer:
    """Everything that was measured at this ticket, newest first."""
    patient_id = await _must_see(request.app, staff, path)
    found = await records.vitals_of(request.app[keys.POOL], request.app[keys.VAULT], path.id.bytes)
    await audited(
        request,
        request.app[keys.POOL],
        "vitals_read",
        subjects=(patient_id,),
        object=("ticket", str(path.id)),
    )
    return AllVitalsAnswer([vitals_answer(request.app, one) for one in found])


async def _must_see(app: web.Application, staff: Staff, path: IdPath) -> bytes:
    """Of their own department alone; of others it is not told whether there is such a ticket. The patient."""
    found = await find_ticket(app, path.id.bytes)
    if sight_of(app, staff, key_of(found)) is not Sight.WHOLE:
        raise Problem(Reason.NO_SUCH_TICKET)
    return found.patient_id


def _measured(body: VitalsBody) -> records.Measured:
    values = (
        body.systolic,
        body.diastolic,
        body.pulse,
        _tenths(body.temperature),
        body.spo2,
        _tenths(body.height_cm),
        _tenths(body.weight_kg),
    )
    if all(value is None for value in values) and not body.note.strip():
        raise Problem(Fault.INVALID_BODY, errors=[Entry(["body"], "missing")])
    if body.systolic is not None and body.diastolic is not None and body.systolic <= body.diastolic:
        raise Problem(Fault.INVALID_BODY, errors=[Entry(["body", "systolic"], "below_diastolic")])
    return records.Measured(*values, body.note.strip())


def _tenths(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(value).quantize(Decimal("0.1"))


def vitals_answer(app: web.Application, kept: records.Vitals) -> VitalsAnswer:
    one = kept.measured
    return VitalsAnswer(
        uuid(kept.id),
        one.systolic,
        one.diastolic,
        one.pulse,
        _float(one.temperature),
        one.spo2,
        _float(one.height_cm),
        _float(one.weight_kg),
        one.note,
        kept.by_name,
        kept.at.astimezone(app[keys.ZONE]),
    )


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
