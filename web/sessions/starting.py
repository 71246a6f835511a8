"""How a session begins and how it goes on: what is written down, and what the client is given for it."""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import asyncpg
import orjson
from aiohttp import web
from pydantic import Field

from engine.audit.entries import Actor
from engine.records import sessions as records
from engine.records.sessions import NewSession, NotRefreshed, Transport
from engine.records.staff import Staff, staff_of_id
from web import keys
from web.auditing import actor, audited
from web.auth import BY_COOKIE, Pair, Stay
from web.errors import Problem
from web.faults import Fault
from web.openapi import PRIVATE_HEADERS
from web.patient.bodies import SessionAnswer
from web.sessions.cookies import set_cookie
from web.sessions.devices import device_of
from web.sessions.terms import Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CookieAnswer:
    """The session is in the cookie."""

    csrf_token: Annotated[
        str,
        Field(
            description="放入 X-CSRF-Token，修改类请求都要带 / for X-CSRF-Token, on whatever changes anything"
        ),
    ]
    ends_at: Annotated[datetime, Field(description="最迟此时结束 / it ends then, whatever is done")]
    idle_seconds: Annotated[int | None, Field(description="闲置这么久即结束 / or when it rests for so long")]


@dataclass(frozen=True, slots=True)
class Started:
    answer: SessionAnswer | CookieAnswer
    cookie: str | None = None

    def dress(self, response: web.StreamResponse) -> None:
        """Gives the cookie along."""
        if self.cookie is not None:
            set_cookie(response, self.cookie)

    def response(self) -> web.Response:
        response = web.Response(body=orjson.dumps(self.answer), status=201, headers=PRIVATE_HEADERS)
        self.dress(response)
        return response


async def start_account_session(
    request: web.Request, connection: asyncpg.Connection, account_id: bytes, method: str
) -> Started:
    """In the caller's transaction. By bearer tokens: a mini-program has no cookies."""
    tokens, terms = request.app[keys.TOKENS], _terms(request)
    now = tokens.now()
    at = int(now.timestamp())
    session, ends = secrets.token_bytes(16), at + terms.account_most
    stay = Stay(session, 0, min(at + tokens.access_seconds, ends), min(at + tokens.refresh_seconds, ends), at)
    await records.start(
        connection,
        NewSession(
            session,
            "account",
            account_id,
            "bearer",
            method,
            device_of(request.headers.get("User-Agent")),
            None,
            tokens.refresh_seconds,
            now + timedelta(seconds=terms.account_most),
            now + timedelta(seconds=stay.access_until - at),
        ),
        now,
    )
    await records.end_oldest(connection, account_id, now)
    await _audit(request, connection, actor(account_id), session, method, "bearer")
    return _with_tokens(tokens.issue(account_id, stay))


async def start_staff_session(
    request: web.Request, staff: Staff, transport: Transport, method: str = "password"
) -> Started:
    """In a transaction of its own.

    Raises Problem: foreign_origin, for a cookie that a foreign page asks for; sign_in_refused, where they
    were disabled meanwhile.
    """
    app = request.app
    tokens, terms = app[keys.TOKENS], _terms(request)
    now = tokens.now()
    at = int(now.timestamp())
    session, idle, most = secrets.token_bytes(16), terms.idle_of(staff), terms.most_of(staff)
    ends_at = now + timedelta(seconds=most)
    rests_until = ends_at if idle is None else min(ends_at, now + timedelta(seconds=idle))
    stay = _staff_stay(session, 0, at, tokens.access_seconds, rests_until, at + most)
    cookie = secret_hash = None
    lives_until = stay.access_until
    if transport == "cookie":
        if keys.COOKIES not in app:
            raise Problem(Fault.UNSUPPORTED_GRANT)
        if not app[keys.ORIGINS].is_of_ours(request.headers):
            raise Problem(Fault.FOREIGN_ORIGIN)
        cookie = app[keys.COOKIES].new()
        secret_hash = app[keys.COOKIES].hash_of(cookie)
        lives_until = at + most
    new = NewSession(
        session,
        "staff",
        staff.id,
        transport,
        method,
        device_of(request.headers.get("User-Agent")),
        secret_hash,
        idle,
        ends_at,
        now + timedelta(seconds=lives_until - at),
    )
    before = request.get(BY_COOKIE) if transport == "cookie" else None
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        # Locked: a change of their rights comes before this and is seen, or after it and ends this, too.
        current = await records.staff_of_session(connection, staff.id)
        if current is None:
            raise Problem(Fault.SIGN_IN_REFUSED)
        if before is not None:  # this browser's last one: a cookie is never good for two sign-ins
            await records.revoke(connection, before.session, "signed_in_again", now)
        await records.start(connection, new, now)
        await _audit(request, connection, actor(current), session, method, transport)
    if cookie is None or secret_hash is None:
        return _with_tokens(tokens.issue_staff(current, stay))
    return Started(CookieAnswer(app[keys.COOKIES].csrf_token_of(secret_hash), ends_at, idle), cookie)


async def refresh(request: web.Request, refresh_token: str) -> Started:
    """The next pair.

    Raises Problem: refresh_reused, session_ended, and what a token by itself may be wrong in.
    """
    app = request.app
    tokens = app[keys.TOKENS]
    asked = tokens.who_of_refresh(refresh_token)
    tokens.check_session(asked.session)
    now = tokens.now()
    at = int(now.timestamp())
    staff = None
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await records.rotate(
            connection,
            asked.session,
            "staff" if asked.is_staff else "account",
            asked.id,
            asked.generation,
            now,
            tokens.seen_at(asked.session),
            timedelta(seconds=tokens.access_seconds),
        )
        if isinstance(found, NotRefreshed):
            if found is NotRefreshed.REUSED:
                by = Actor("staff" if asked.is_staff else "account", asked.id)
                await audited(
                    request,
                    connection,
                    "refresh_token_reused",
                    object=("session", str(UUID(bytes=asked.session))),
                    detail={"generation": asked.generation},
                    outcome="refused",
                    by=by,
                )
        elif asked.is_staff:
            staff = await staff_of_id(connection, asked.id)
    if isinstance(found, NotRefreshed):
        if found is NotRefreshed.REUSED:
            _alarm(app)
        raise Problem(Fault(found.value))
    ends = int(found.ends_at.timestamp())
    if not asked.is_staff:
        stay = Stay(
            found.id,
            found.generation,
            min(at + tokens.access_seconds, ends),
            min(at + tokens.refresh_seconds, ends),
            at,
        )
        return _with_tokens(tokens.issue(asked.id, stay))
    if staff is None:
        raise Problem(Fault.SESSION_ENDED)
    return _with_tokens(
        tokens.issue_staff(
            staff,
            _staff_stay(found.id, found.generation, at, tokens.access_seconds, found.rests_until, ends),
        )
    )


def _staff_stay(
    session: bytes, generation: int, at: int, access_seconds: int, rests_until: datetime, ends: int
) -> Stay:
    """An access token never lives longer than its session may rest. So whatever is done with one happens
    before the session has rested too long, and no request needs to ask; the next refresh looks at it."""
    return Stay(session, generation, min(at + access_seconds, int(rests_until.timestamp())), ends, at)


def _with_tokens(pair: Pair) -> Started:
    return Started(SessionAnswer(pair.access_token, pair.refresh_token, pair.expires_in))


def _terms(request: web.Request) -> Terms:
    return request.app.get(keys.SESSION_TERMS, Terms())


async def _audit(
    request: web.Request,
    connection: asyncpg.Connection,
    by: Actor,
    session: bytes,
    method: str,
    transport: Transport,
) -> None:
    await audited(
        request,
        connection,
        "signed_in",
        object=("session", str(UUID(bytes=session))),
        detail={"method": method, "transport": transport},
        by=by,
    )


def _alarm(app: web.Application) -> None:
    log.warning("a refresh token was shown a second time: its session has ended (see the audit)")
    if keys.METRICS in app:
        app[keys.METRICS].reused_tokens.inc()
