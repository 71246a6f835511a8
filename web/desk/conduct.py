"""Appeals against penalties, as the staff see and decide them."""

from datetime import UTC, datetime, tzinfo
from typing import Final
from uuid import UUID

from aiohttp import web

from engine.domain.policy import Subject
from engine.domain.refusal import Reason
from engine.records import conduct as records
from engine.records.staff import Role
from web import keys
from web.auth import Staff
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath
from web.patient.conduct import accepted, penalty_answer
from web.patient.conduct_bodies import AppealsAnswer, AppealsQuery, DecisionBody, DeskPenaltyAnswer

DECIDING: Final = (Role.DESK, Role.SCHEDULE_OFFICE, Role.MANAGER)


@api.route(
    "GET",
    "/api/v1/desk/appeals",
    zh="待处理的申诉",
    tags=["desk"],
    security="staff",
    roles=DECIDING,
    errors=[Fault.DATABASE_DOWN],
)
async def list_appeals(request: web.Request, *, query: AppealsQuery) -> AppealsAnswer:
    """Open appeals, who has waited longest first, with what was counted and what they say."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn:
        found = await records.open_appeals(conn, query.after, query.limit + 1)
    page = found[: query.limit]
    zone = request.app[keys.ZONE]
    more = page[-1].appealed_at if len(found) > query.limit else None
    return AppealsAnswer([_answer(one, zone, now) for one in page], more)


@api.route(
    "POST",
    "/api/v1/desk/appeals/{id}/decision",
    zh="处理申诉",
    tags=["desk"],
    security="staff",
    roles=DECIDING,
    errors=[Fault.NO_SUCH_PENALTY, Fault.NO_OPEN_APPEAL, Reason.KEY_REUSED, Fault.DATABASE_DOWN],
)
async def decide_appeal(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: DecisionBody
) -> DeskPenaltyAnswer:
    """Lifts a penalty at once and forgives what it counted, or lets it stand. `id` is the penalty's."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as conn:
        found = await records.decide(
            conn,
            request.app[keys.POLICY].policy,
            path.id.bytes,
            lift=body.decision == "lift",
            reason=body.reason,
            staff_id=staff.id,
            username=staff.username,
            key=idempotency_key,
            now=now,
        )
    return _answer(accepted(found), request.app[keys.ZONE], now)


def _answer(penalty: records.Penalty, zone: tzinfo, now: datetime) -> DeskPenaltyAnswer:
    of_account = penalty.subject is Subject.ACCOUNT
    return DeskPenaltyAnswer(
        penalty=penalty_answer(penalty, zone, now),
        account_id=str(UUID(bytes=penalty.subject_id)) if of_account else None,
        appealed_at=None if penalty.appealed_at is None else penalty.appealed_at.astimezone(zone),
        decided_by=penalty.decided_by,
    )
