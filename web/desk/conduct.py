"""Appeals against penalties, as the staff see and decide them."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from uuid import UUID

from aiohttp import web

from engine.domain.policy import Subject
from engine.domain.refusal import Reason
from engine.records import conduct as records
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath
from web.patient.conduct import accepted, penalty_answer
from web.patient.conduct_bodies import AppealsAnswer, AppealsQuery, DecisionBody, DeskPenaltyAnswer


@api.route(
    "GET",
    "/api/v1/desk/appeals",
    zh="待处理的申诉",
    tags=["desk"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_appeals(request: web.Request, *, query: AppealsQuery) -> AppealsAnswer:
    """Open appeals, who has waited longest first, with what was counted and what they say."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        found = await records.open_appeals(conn, request.app[keys.VAULT], query.after, query.limit + 1)
        page = found[: query.limit]
        if page:
            await audited(request, conn, "appeals_read", subjects=_patients(page))
    zone = request.app[keys.ZONE]
    more = page[-1].appealed_at if len(found) > query.limit else None
    return AppealsAnswer([_answer(one, zone, now) for one in page], more)


@api.route(
    "POST",
    "/api/v1/desk/appeals/{id}/decision",
    zh="处理申诉",
    tags=["desk"],
    errors=[Fault.NO_SUCH_PENALTY, Fault.NO_OPEN_APPEAL, Reason.KEY_REUSED, Fault.DATABASE_DOWN],
)
async def decide_appeal(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: DecisionBody
) -> DeskPenaltyAnswer:
    """Lifts a penalty at once and forgives what it counted, or lets it stand. `id` is the penalty's."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        found = await records.decide(
            conn,
            request.app[keys.VAULT],
            request.app[keys.POLICY].policy,
            path.id.bytes,
            lift=body.decision == "lift",
            reason=body.reason,
            staff_id=staff.id,
            username=staff.username,
            key=idempotency_key,
            now=now,
        )
        penalty = accepted(found)
        await audited(
            request,
            conn,
            "appeal_decided",  # why is sealed with the penalty, and not told here
            subjects=_patients([penalty]),
            object=("penalty", str(path.id)),
            detail={"decision": body.decision},
        )
    return _answer(penalty, request.app[keys.ZONE], now)


def _patients(penalties: Sequence[records.Penalty]) -> list[bytes]:
    return [one.subject_id for one in penalties if one.subject is Subject.PATIENT]


def _answer(penalty: records.Penalty, zone: tzinfo, now: datetime) -> DeskPenaltyAnswer:
    of_account = penalty.subject is Subject.ACCOUNT
    return DeskPenaltyAnswer(
        penalty=penalty_answer(penalty, zone, now),
        account_id=str(UUID(bytes=penalty.subject_id)) if of_account else None,
        appealed_at=None if penalty.appealed_at is None else penalty.appealed_at.astimezone(zone),
        decided_by=penalty.decided_by,
    )
