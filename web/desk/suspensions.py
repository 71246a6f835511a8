"""What became of everybody whose session was called off: the proof that nobody was forgotten."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import Field

from engine.domain.refusal import Reason
from engine.records.appointments import Affected, affected_of
from web import keys
from web.auditing import noted_reading
from web.auth import Staff, may_manage
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import FateWord, Id, WordPath


@dataclass(frozen=True, slots=True)
class AffectedAnswer:
    """一位受影响的患者 / one of those who were booked."""

    appointment_id: Id
    patient_name: str
    slot_id: str
    fate: FateWord
    replaced_by: Annotated[Id | None, Field(description="改到的预约、留的号或候补 / what came in its place")]
    refund_due: Annotated[int, Field(description="应退金额，分 / fen that are owed back")]
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class SuspensionAnswer:
    """停诊安排 / how a day's suspension was dealt with."""

    schedule_id: str
    affected: Annotated[int, Field(description="停诊时已预约的人数 / booked when it was called off")]
    undecided: Annotated[int, Field(description="尚未安排的人数，应为 0 / not looked after yet: should be 0")]
    moved: int
    offered: int
    waitlisted: int
    refunded: int
    refund_due: Annotated[int, Field(description="应退总额，分 / fen that are owed back in all")]
    appointments: list[AffectedAnswer]


@api.route(
    "GET",
    "/api/v1/desk/schedules/{id}/suspension",
    zh="停诊安排报告",
    tags=["desk"],
    errors=[Reason.NO_SUCH_SCHEDULE, Fault.DATABASE_DOWN],
)
async def read_suspension(request: web.Request, *, staff: Staff, path: WordPath) -> SuspensionAnswer:
    """Everybody whose session on this day was called off, each with exactly one fate."""
    app = request.app
    row = app[keys.AVAILABILITY].schedule(path.id)
    if row is None:
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    departments = app[keys.AVAILABILITY].catalog.departments
    if not any(may_manage(staff, x.department_id, row.practitioner_id, departments) for x in row.sessions):
        raise Problem(Fault.FORBIDDEN)
    found = await affected_of(app[keys.POOL], app[keys.VAULT], path.id)
    await noted_reading(
        request, "suspension_read", [one.patient_id.bytes for one in found], object=("schedule", path.id)
    )
    counted = Counter(one.fate for one in found)
    return SuspensionAnswer(
        path.id,
        len(found),
        counted["affected"],
        counted["moved"],
        counted["offered"],
        counted["waitlisted"],
        counted["refunded"],
        sum(map(_owed, found)),
        [_answer(one, app) for one in found],
    )


def _answer(one: Affected, app: web.Application) -> AffectedAnswer:
    return AffectedAnswer(
        str(one.id),
        one.patient_name,
        one.slot_id,
        one.fate,  # type: ignore[arg-type]  # the engine's words are the contract's
        None if one.successor is None else str(one.successor),
        _owed(one),
        one.updated_at.astimezone(app[keys.ZONE]),
    )


def _owed(one: Affected) -> int:
    return one.fee_fen if one.fate in ("refunded", "waitlisted") else 0
