"""Penalties as those see them whom they block, and their appeals."""

from datetime import UTC, datetime, tzinfo
from typing import Final
from uuid import UUID

from aiohttp import web

from engine.domain.policy import Subject
from engine.domain.refusal import Reason
from engine.records import conduct as records
from web import keys
from web.auditing import audited, noted_delegation
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath
from web.patient.conduct_bodies import (
    AppealAnswer,
    AppealBody,
    EvidenceAnswer,
    PenaltiesAnswer,
    PenaltyAnswer,
)

_CODES: Final[dict[records.ConductRefusal, Reason | Fault]] = {
    records.ConductRefusal.NO_SUCH_PENALTY: Fault.NO_SUCH_PENALTY,
    records.ConductRefusal.PENALTY_OVER: Fault.PENALTY_OVER,
    records.ConductRefusal.ALREADY_APPEALED: Fault.ALREADY_APPEALED,
    records.ConductRefusal.NO_OPEN_APPEAL: Fault.NO_OPEN_APPEAL,
    records.ConductRefusal.KEY_REUSED: Reason.KEY_REUSED,
}


@api.route("GET", "/api/v1/penalties", zh="我的处罚记录", tags=["conduct"], errors=[Fault.DATABASE_DOWN])
async def list_penalties(request: web.Request, *, account_id: bytes) -> PenaltiesAnswer:
    """Blocks of this account and of the patients it may book for, latest first, the ended ones too."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn:
        found = await records.penalties_of(conn, request.app[keys.VAULT], account_id, now)
    patients = [one.subject_id for one in found if one.subject is Subject.PATIENT]
    await noted_delegation(request, account_id, "penalty_read", patients)
    return PenaltiesAnswer([penalty_answer(one, request.app[keys.ZONE], now) for one in found])


@api.route(
    "POST",
    "/api/v1/penalties/{id}/appeals",
    zh="申诉",
    status=201,
    tags=["conduct"],
    errors=[
        Fault.NO_SUCH_PENALTY,
        Fault.PENALTY_OVER,
        Fault.ALREADY_APPEALED,
        Reason.KEY_REUSED,
        Fault.DATABASE_DOWN,
    ],
)
async def appeal_penalty(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: AppealBody
) -> PenaltyAnswer:
    """Asks the hospital to look at a penalty again, once, while it stands. Meanwhile it blocks."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        penalty = accepted(
            await records.appeal(
                conn, request.app[keys.VAULT], account_id, path.id.bytes, body.text, idempotency_key, now
            )
        )
        subjects = (penalty.subject_id,) if penalty.subject is Subject.PATIENT else ()
        await audited(request, conn, "penalty_appealed", subjects=subjects, object=("penalty", str(path.id)))
    return penalty_answer(penalty, request.app[keys.ZONE], now)


def accepted(found: records.Penalty | records.ConductRefusal) -> records.Penalty:
    """Raises Problem for a refusal."""
    if isinstance(found, records.ConductRefusal):
        raise Problem(_CODES[found])
    return found


def penalty_answer(penalty: records.Penalty, zone: tzinfo, now: datetime) -> PenaltyAnswer:
    of_patient = penalty.subject is Subject.PATIENT
    appeal = None
    if penalty.appealed_at is not None:
        appeal = AppealAnswer(
            penalty.appeal_text or "",
            penalty.appealed_at.astimezone(zone),
            _local(penalty.decided_at, zone),
            penalty.decision_reason,
        )
    return PenaltyAnswer(
        id=str(UUID(bytes=penalty.id)),
        subject=penalty.subject.value,
        patient_id=str(UUID(bytes=penalty.subject_id)) if of_patient else None,
        patient_name=penalty.patient_name,
        rule=penalty.rule,
        offence=penalty.offence.value,
        begins=penalty.begins.astimezone(zone),
        until=penalty.ends.astimezone(zone),
        is_in_force=penalty.is_in_force(now),
        evidence=[
            EvidenceAnswer(
                str(UUID(bytes=one.appointment_id)),
                one.schedule_id.rpartition("-")[0],
                one.starts_at.astimezone(zone),
            )
            for one in penalty.evidence
        ],
        appeal_state=penalty.appeal.value,
        appeal=appeal,
        lifted_at=_local(penalty.lifted_at, zone),
    )


def _local(at: datetime | None, zone: tzinfo) -> datetime | None:
    return None if at is None else at.astimezone(zone)
