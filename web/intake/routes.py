"""For the system administrator: what waits in quarantine and why, tried again or given up.

What a message says is opened at the machine alone (`xinglin intake show`): administrators see no patients.
"""

from datetime import UTC, datetime, tzinfo

from aiohttp import web

from engine.records import intake as records
from engine.records.intake import Kept
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.intake import bodies
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath


@api.route("GET", "/api/v1/admin/intake", zh="隔离的报文", tags=["integration"], errors=[Fault.DATABASE_DOWN])
async def list_intake(request: web.Request, *, query: bodies.IntakeQuery) -> bodies.IntakeAnswer:
    """Messages of other systems that broke a rule, newest first, with the rules they broke."""
    app = request.app
    zone = app[keys.ZONE]
    found = await records.listed(
        app[keys.POOL], query.interface, [query.state], query.limit + 1, query.before
    )
    waiting = await records.waiting(app[keys.POOL])
    page = found[: query.limit]
    return bodies.IntakeAnswer(
        [_answer(one, zone) for one in page],
        [
            bodies.IntakeWaitingAnswer(
                interface, one.quarantined, None if one.oldest is None else one.oldest.astimezone(zone)
            )
            for interface, one in sorted(waiting.items())
        ],
        page[-1].first_at.astimezone(zone) if len(found) > query.limit else None,
    )


@api.route(
    "POST",
    "/api/v1/admin/intake/{id}/retry",
    zh="重新处理报文",
    tags=["integration"],
    errors=[Fault.NO_SUCH_MESSAGE, Fault.DATABASE_DOWN],
)
async def retry_intake(request: web.Request, *, path: IdPath) -> bodies.IntakeMessageAnswer:
    """With the rules and the data of now, within seconds."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        asked = await records.ask_retry(connection, datetime.now(UTC), id_=path.id.bytes)
        found = await records.one(connection, path.id.bytes)
        if not asked or found is None:
            raise Problem(Fault.NO_SUCH_MESSAGE)
        await audited(request, connection, "intake_retried", object=("intake_message", uuid(found.id)))
    return _answer(found, app[keys.ZONE])


@api.route(
    "POST",
    "/api/v1/admin/intake/{id}/drop",
    zh="放弃报文",
    tags=["integration"],
    errors=[Fault.NO_SUCH_MESSAGE, Fault.DATABASE_DOWN],
)
async def drop_intake(
    request: web.Request, *, staff: Staff, path: IdPath, body: bodies.DropBody
) -> bodies.IntakeMessageAnswer:
    """It is not used, and its content is deleted; what waits behind it goes on."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        interface = await records.drop(
            connection, path.id.bytes, staff.username, body.reason, datetime.now(UTC)
        )
        found = await records.one(connection, path.id.bytes)
        if interface is None or found is None:
            raise Problem(Fault.NO_SUCH_MESSAGE)
        await audited(
            request,
            connection,
            "intake_dropped",
            object=("intake_message", uuid(found.id)),
            reason=body.reason,
            detail={"interface": interface},
        )
    return _answer(found, app[keys.ZONE])


def _answer(one: Kept, zone: tzinfo) -> bodies.IntakeMessageAnswer:
    return bodies.IntakeMessageAnswer(
        uuid(one.id),
        one.interface,
        one.state,
        one.first_at.astimezone(zone),
        one.last_at.astimezone(zone),
        one.times,
        [bodies.FindingAnswer(each.field, each.rule, each.expected) for each in one.reasons],
        one.is_due,
        None if one.settled_at is None else one.settled_at.astimezone(zone),
        one.settled_by,
        one.settled_why,
    )
