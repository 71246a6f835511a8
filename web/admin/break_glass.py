"""Every breaking of the glass is looked at afterwards, by a security administrator."""

from datetime import UTC, datetime, tzinfo

from aiohttp import web

from engine.domain.masking import masked
from engine.records import break_glass as records
from engine.records.break_glass import BrokenGlass
from web import keys
from web.admin import bodies
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath


@api.route(
    "GET", "/api/v1/admin/break-glass", zh="紧急授权记录", tags=["admin"], errors=[Fault.DATABASE_DOWN]
)
async def list_broken_glass(request: web.Request, *, query: bodies.GlassQuery) -> bodies.GlassesAnswer:
    """Who read a patient whom they do not treat, when and why; newest first."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await records.list_broken(
            connection, app[keys.VAULT], query.unreviewed, query.before, query.limit + 1
        )
        waiting = await records.count_unreviewed(connection)
        page = found[: query.limit]
        if page:
            await audited(
                request,
                connection,
                "break_glass_read",
                subjects=tuple({one.patient_id: None for one in page}),
            )
    zone = app[keys.ZONE]
    more = page[-1].at.astimezone(zone) if len(found) > query.limit else None
    return bodies.GlassesAnswer([_answer(one, zone) for one in page], waiting, more)


@api.route(
    "POST",
    "/api/v1/admin/break-glass/{id}/review",
    zh="复核紧急授权",
    tags=["admin"],
    errors=[Fault.NO_SUCH_BREAK_GLASS, Fault.ALREADY_REVIEWED, Fault.NOT_BY_ONESELF, Fault.DATABASE_DOWN],
)
async def review_broken_glass(
    request: web.Request, *, staff: Staff, path: IdPath, body: bodies.ReviewBody
) -> bodies.GlassAnswer:
    """Says once whether it was justified. Nobody reviews their own."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await records.broken_glass(connection, app[keys.VAULT], path.id.bytes)
        if found is None:
            raise Problem(Fault.NO_SUCH_BREAK_GLASS)
        if found.staff_id == staff.id:
            raise Problem(Fault.NOT_BY_ONESELF)
        if found.verdict is not None:
            raise Problem(Fault.ALREADY_REVIEWED)
        judged = await records.review(
            connection, app[keys.VAULT], found, staff.id, body.verdict, body.note, datetime.now(UTC)
        )
        await audited(
            request,
            connection,
            "break_glass_reviewed",
            subjects=(found.patient_id,),
            object=("break_glass", uuid(found.id)),
            detail={"verdict": body.verdict},
        )
    return _answer(judged, app[keys.ZONE])


def _answer(one: BrokenGlass, zone: tzinfo) -> bodies.GlassAnswer:
    return bodies.GlassAnswer(
        uuid(one.id),
        uuid(one.staff_id),
        one.username,
        one.staff_name,
        uuid(one.patient_id),
        masked(one.patient_name),
        one.kind,  # type: ignore[arg-type]  # the table's words are the contract's
        one.reason,
        one.at.astimezone(zone),
        one.expires_at.astimezone(zone),
        one.reviewed_by,
        None if one.reviewed_at is None else one.reviewed_at.astimezone(zone),
        one.verdict,  # type: ignore[arg-type]
        one.review_note,
    )
