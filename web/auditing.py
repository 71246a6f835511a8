"""The audit as routes write it: who asks, the request's id and the address come from the request.

    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await records.lift(connection, penalty_id)
        await audited(request, connection, "penalty_lifted", subjects=(patient_id,), object=("penalty", id))

Changes and readings of rows are written in their own transaction, so the answer leaves only after both are
committed. What is shown from memory (boards, streams) is noted before it is shown, once an hour for each
reader, patient and action: a nurse who looks at the same board all morning makes one entry a patient an hour.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from aiohttp import web

from engine.audit.entries import NOBODY, Actor, Entry, Executor, Outcome, write
from engine.records.staff import Staff
from web import keys
from web.auth import who_of
from web.client_address import client_of
from web.errors import Problem
from web.partner.sight import ITS_PARTNER
from web.request_ids import request_id_of

AGAIN_SECONDS: Final = 3600.0
REMEMBERED_MAX: Final = 65_536
"""Readings of one gateway. Who reads more in an hour is noted again for those that were forgotten first."""


def actor_of(request: web.Request) -> Actor:
    """Who sent this."""
    partner = request.get(ITS_PARTNER)
    if partner is not None:
        return Actor("partner", partner.id, partner.name)
    try:
        who = who_of(request)
    except Problem:
        return NOBODY
    return actor(who)


def actor(who: bytes | Staff) -> Actor:
    """Of one of the staff, or of an account's id."""
    if isinstance(who, Staff):
        return Actor("staff", who.id, who.username)
    return Actor("account", who)


def entry_of(
    request: web.Request,
    action: str,
    *,
    subjects: Sequence[bytes | UUID] = (),
    object: tuple[str, str] | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
    outcome: Outcome = "done",
    by: Actor | None = None,
) -> Entry:
    return Entry(
        action,
        by if by is not None else actor_of(request),
        subjects,
        object,
        outcome,
        reason,
        request_id_of(request) or None,
        client_of(request).address or None if keys.PROXIES in request.app else None,
        request.app.get(keys.NAME),
        detail,
    )


async def audited(
    request: web.Request,
    connection: Executor,
    action: str,
    *,
    subjects: Sequence[bytes | UUID] = (),
    object: tuple[str, str] | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
    outcome: Outcome = "done",
    by: Actor | None = None,
) -> None:
    """Call it within the transaction of the change or the reading.

    A refusal that is to be kept though its transaction rolls back gets a pool instead of the connection.
    """
    entry = entry_of(
        request,
        action,
        subjects=subjects,
        object=object,
        reason=reason,
        detail=detail,
        outcome=outcome,
        by=by,
    )
    await write(connection, entry)


class Readings:
    """What was noted in the last hour, of one gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = REMEMBERED_MAX) -> None:
        self._clock = clock
        self._most = most
        self._noted: OrderedDict[tuple[bytes | None, str, bytes], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._noted)

    def new(self, by: Actor, action: str, subjects: Iterable[bytes]) -> list[bytes]:
        """Those who have to be noted."""
        since = self._clock() - AGAIN_SECONDS
        noted = self._noted
        return [
            one for one in dict.fromkeys(subjects) if noted.get((by.id, action, one), since - 1.0) <= since
        ]

    def remember(self, by: Actor, action: str, subjects: Iterable[bytes]) -> None:
        now = self._clock()
        for one in subjects:
            key = (by.id, action, one)
            self._noted[key] = now
            self._noted.move_to_end(key)
        while len(self._noted) > self._most:
            self._noted.popitem(last=False)


async def noted_reading(
    request: web.Request,
    action: str,
    subjects: Iterable[bytes],
    *,
    object: tuple[str, str] | None = None,
    connection: Executor | None = None,
) -> None:
    """Of what is shown from memory: call it before it is shown. Without a connection, the pool's."""
    await _note(request.app, actor_of(request), action, subjects, object, connection, request)


async def noted_watching(
    app: web.Application,
    who: bytes | Staff,
    action: str,
    subjects: Iterable[bytes],
    object: tuple[str, str] | None = None,
) -> None:
    """The same of a stream, which goes on long after its request."""
    await _note(app, actor(who), action, subjects, object, None, None)


def _readings_of(app: web.Application) -> Readings:
    """Without a memory, as in an application of a few routes alone, each reading is noted."""
    return app[keys.READINGS] if keys.READINGS in app else Readings()


async def _note(
    app: web.Application,
    by: Actor,
    action: str,
    subjects: Iterable[bytes],
    object: tuple[str, str] | None,
    connection: Executor | None,
    request: web.Request | None,
) -> None:
    readings = _readings_of(app)
    new = readings.new(by, action, subjects)
    if not new:
        return
    if request is not None:
        entry = entry_of(request, action, subjects=new, object=object, by=by)
    else:
        entry = Entry(action, by, new, object, gateway=app.get(keys.NAME))
    await write(connection if connection is not None else app[keys.POOL], entry)
    readings.remember(by, action, new)


async def noted_delegation(
    request: web.Request, account_id: bytes, action: str, subjects: Iterable[bytes]
) -> None:
    """An account reads data of patients: noted of those who are somebody else (a child, a parent), once an
    hour. Of the person himself nothing is noted."""
    await note_delegation(request.app, account_id, action, subjects, request)


async def note_delegation(
    app: web.Application,
    account_id: bytes,
    action: str,
    subjects: Iterable[bytes],
    request: web.Request | None = None,
) -> None:
    """The same, also of a stream."""
    readings = _readings_of(app)
    by = Actor("account", account_id)
    new = readings.new(by, action, subjects)
    if not new:
        return
    rows = await app[keys.POOL].fetch(_OTHERS, UUID(bytes=account_id), [UUID(bytes=one) for one in new])
    others = [row["id"].bytes for row in rows]
    if others:
        await _note(app, by, action, others, None, None, request)
    readings.remember(by, action, new)  # of himself, too: he need not be looked up again


_OTHERS: Final = """
select asked.id from unnest($2::uuid[]) as asked (id)
 where not exists (select from account_patient ap
                    where ap.account_id = $1 and ap.patient_id = asked.id and ap.relation = 'self')"""
