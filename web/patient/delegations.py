"""Rights to act for somebody, in the hands of whom they are about: asked for, given, changed, taken back.

A right begins where somebody is added to an account (web/patient/patients.py). Who has an account of their
own is asked there first, and answers here.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

import asyncpg
from aiohttp import web

from engine.domain.delegation import Rights
from engine.records import delegations as records
from engine.records.delegations import DelegationRefusal
from engine.records.patients import CONSENT_VERSION, account_has_room
from web import keys
from web.auditing import audited
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath
from web.patient.delegation_answers import asked_answer, given_answer
from web.patient.delegation_bodies import DecidedAnswer, DelegationsAnswer, RightsBody
from web.patient.patients import terms_of


@api.route("GET", "/api/v1/delegations", zh="代办授权", tags=["patients"], errors=[Fault.DATABASE_DOWN])
async def list_delegations(request: web.Request, *, account_id: bytes) -> DelegationsAnswer:
    """Who may act for me, who would like to, and whom I have asked. I am who is `self` in this account."""
    app, now = request.app, datetime.now(UTC)
    vault, zone = app[keys.VAULT], app[keys.ZONE]
    async with app[keys.POOL].acquire() as connection:
        given = await records.given_by(connection, vault, account_id, now)
        of_me = await records.asked_of(connection, vault, account_id, now)
        by_me = await records.asked_by(connection, vault, account_id, now)
    return DelegationsAnswer(
        [given_answer(one, zone) for one in given],
        [asked_answer(one, zone) for one in of_me],
        [asked_answer(one, zone) for one in by_me],
    )


@api.route(
    "POST",
    "/api/v1/delegations/{id}/approve",
    zh="同意代办申请",
    tags=["patients"],
    errors=[
        Fault.NO_SUCH_DELEGATION,
        Fault.DELEGATION_DECIDED,
        Fault.INVALID_BODY,
        Fault.TOO_MANY_PATIENTS,
        Fault.DATABASE_DOWN,
    ],
)
async def approve_delegation(
    request: web.Request, *, account_id: bytes, path: IdPath, body: RightsBody
) -> DecidedAnswer:
    """Lets somebody act for me, as far and as long as I say. `id` is the request's. Again changes nothing."""
    return await approved(request, path.id.bytes, account_id, body)


@api.route(
    "POST",
    "/api/v1/delegations/{id}/reject",
    zh="拒绝代办申请",
    tags=["patients"],
    errors=[Fault.NO_SUCH_DELEGATION, Fault.DELEGATION_DECIDED, Fault.DATABASE_DOWN],
)
async def reject_delegation(request: web.Request, *, account_id: bytes, path: IdPath) -> DecidedAnswer:
    """Says no. Again changes nothing."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = _done(await records.reject(connection, path.id.bytes, account_id, now))
        await _noted(request, connection, found)
    return _answer(found, request.app[keys.ZONE])


@api.route(
    "PUT",
    "/api/v1/delegations/{id}",
    zh="修改代办权限",
    tags=["patients"],
    errors=[Fault.NO_SUCH_DELEGATION, Fault.INVALID_BODY, Fault.DATABASE_DOWN],
)
async def change_delegation(
    request: web.Request, *, account_id: bytes, path: IdPath, body: RightsBody
) -> DecidedAnswer:
    """What somebody may do for me from now on, and until when."""
    now = datetime.now(UTC)
    ends = _until(request, body, now) or _longest(request, now)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = _done(await records.change(connection, path.id.bytes, account_id, _rights(body), ends, now))
        await _noted(request, connection, found, body)
    return _answer(found, request.app[keys.ZONE])


@api.route(
    "DELETE",
    "/api/v1/delegations/{id}",
    zh="收回代办权限或撤回申请",
    tags=["patients"],
    errors=[Fault.NO_SUCH_DELEGATION, Fault.DELEGATION_DECIDED, Fault.DATABASE_DOWN],
)
async def end_delegation(request: web.Request, *, account_id: bytes, path: IdPath) -> DecidedAnswer:
    """Takes back what I let somebody do, at once; or a request of mine that nobody has answered. What was
    booked stays booked. Again changes nothing."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = _done(await records.take_back(connection, path.id.bytes, account_id, now))
        await _noted(request, connection, found)
    return _answer(found, request.app[keys.ZONE])


async def approved(
    request: web.Request,
    request_id: bytes,
    person: bytes | None,
    body: RightsBody,
    by: str | None = None,
    *,
    ends_others: bool = False,
) -> DecidedAnswer:
    """Also at a desk, which is `by` somebody and no `person` of its own. Raises Problem."""
    app, now = request.app, datetime.now(UTC)
    until = _until(request, body, now)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        asking = await records.asking(connection, request_id)
        if asking is None:
            raise Problem(Fault.NO_SUCH_DELEGATION)
        if not await account_has_room(connection, asking.account_id, asking.patient_id, now):
            raise Problem(Fault.TOO_MANY_PATIENTS, limit=None)
        longest = terms_of(request).ends(asking.relation, asking.birth_date, now)
        found = _done(
            await records.approve(
                connection,
                app[keys.VAULT],
                request_id,
                person,
                by or uuid(person or b""),
                _rights(body),
                until or longest,
                CONSENT_VERSION,
                now,
            )
        )
        if ends_others and found.is_new:
            await records.end_other_selves(connection, asking.patient_id, asking.account_id, now)
        await _noted(request, connection, found, body, {"ends_others": ends_others})
    return _answer(found, app[keys.ZONE])


def _rights(body: RightsBody) -> Rights:
    return Rights(body.book, body.see_visits, body.pay)


def _until(request: web.Request, body: RightsBody, now: datetime) -> datetime | None:
    """The moment after the last day that was said. Raises Problem unless it lies ahead, and near enough."""
    if body.until is None:
        return None
    zone = request.app[keys.ZONE]
    days = terms_of(request).days
    if not 0 <= (body.until - now.astimezone(zone).date()).days <= days:
        raise Problem(
            Fault.INVALID_BODY, errors=[Entry(["body", "until"], "delegation_until", {"days": days})]
        )
    return _midnight_after(body.until, zone)


def _longest(request: web.Request, now: datetime) -> datetime:
    zone = request.app[keys.ZONE]
    return _midnight_after(now.astimezone(zone).date() + timedelta(days=terms_of(request).days - 1), zone)


def _midnight_after(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day + timedelta(days=1), time.min, zone)


def _done(outcome: records.Decision | DelegationRefusal) -> records.Decision:
    """Raises Problem for a refusal."""
    if isinstance(outcome, DelegationRefusal):
        raise Problem(Fault(outcome.value))
    return outcome


async def _noted(
    request: web.Request,
    connection: asyncpg.Connection,
    found: records.Decision,
    body: RightsBody | None = None,
    more: dict[str, object] | None = None,
) -> None:
    if not found.is_new:
        return
    rights = {} if body is None else {"book": body.book, "see_visits": body.see_visits, "pay": body.pay}
    await audited(
        request,
        connection,
        f"delegation_{found.status}",
        subjects=(found.patient_id,),
        object=("delegation", uuid(found.id)),
        detail={**rights, **(more or {})},
    )


def _answer(found: records.Decision, zone: tzinfo) -> DecidedAnswer:
    ends = found.expires_at
    return DecidedAnswer(uuid(found.id), found.status, None if ends is None else ends.astimezone(zone))
