"""One's own sessions: which there are, what the current one is, and ending them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field

from engine.records import sessions as records
from engine.records.sessions import SessionRow
from engine.records.staff import Staff
from web import keys
from web.auditing import audited
from web.auth import BY_COOKIE, session_of
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import Id, IdPath, Request
from web.sessions.cookies import CLEAR_SITE_DATA, clear_cookie


@dataclass(frozen=True, slots=True)
class OwnSession:
    id: Id
    is_current: bool
    transport: Literal["bearer", "cookie"]
    method: Annotated[str, Field(description="wechat、password 或 oidc / how they signed in")]
    device: Annotated[str, Field(description='如 "WeChat, Android"，未知为空 / empty where unknown')]
    created_at: datetime
    last_seen_at: Annotated[
        datetime,
        Field(
            description="职工的最近请求，患者的最近换令牌 / of staff the last request, else the last refresh"
        ),
    ]
    rests_until: Annotated[datetime, Field(description="闲置到此时即结束 / when it ends unless it is used")]
    ends_at: Annotated[datetime, Field(description="最迟此时结束 / when it ends, whatever is done")]


@dataclass(frozen=True, slots=True)
class StaffSelfAnswer:
    """Who is signed in, of the staff."""

    id: Id
    username: str
    name: str
    roles: Sequence[str]
    practitioner_id: str | None
    department_id: str | None
    campus: str | None


@dataclass(frozen=True, slots=True)
class CurrentSession:
    session: Annotated[
        OwnSession | None, Field(description="令牌不属于任何登录时为空 / null for a token without a session")
    ]
    account_id: Id | None
    staff: StaffSelfAnswer | None
    csrf_token: Annotated[
        str | None, Field(description="用 Cookie 登录时放入 X-CSRF-Token / for X-CSRF-Token, with a cookie")
    ]


@dataclass(frozen=True, slots=True)
class EndedSessions:
    ended: Annotated[int, Field(description="已结束的登录数 / how many have ended")]


class WhichSessions(Request):
    keep_current: Annotated[bool, Field(description="保留当前登录 / all but the current one")] = False


@api.route("GET", "/api/v1/sessions", zh="本人的登录列表", tags=["sessions"], errors=[Fault.DATABASE_DOWN])
async def list_sessions(request: web.Request, *, who: bytes | Staff) -> list[OwnSession]:
    """Where one is signed in, the session used last first."""
    current = session_of(request)
    now = request.app[keys.TOKENS].now()
    rows = await records.list_of_owner(request.app[keys.POOL], _owner(who), now)
    return [_told(row, current) for row in rows]


@api.route("GET", "/api/v1/sessions/current", zh="当前登录", tags=["sessions"], errors=[Fault.DATABASE_DOWN])
async def read_current_session(request: web.Request, *, who: bytes | Staff) -> CurrentSession:
    """Who is signed in, with which roles, and until when."""
    current = session_of(request)
    assert current is not None
    row = await records.find(request.app[keys.POOL], current)
    session = None if row is None else _told(row, current)
    if not isinstance(who, Staff):
        return CurrentSession(session, str(UUID(bytes=who)), None, None)
    by = request.get(BY_COOKIE)
    staff = StaffSelfAnswer(
        str(UUID(bytes=who.id)),
        who.username,
        who.name,
        sorted(who.roles),
        who.practitioner_id,
        who.department_id,
        who.campus,
    )
    return CurrentSession(session, None, staff, None if by is None else by.csrf_token)


@api.route(
    "DELETE",
    "/api/v1/sessions/current",
    zh="退出登录",
    status=204,
    tags=["sessions"],
    errors=[Fault.DATABASE_DOWN],
)
async def end_current_session(request: web.Request, *, who: bytes | Staff) -> web.Response:
    """Signs out: no gateway takes its tokens or its cookie any more, and its live connections are closed.

    With a cookie, the browser is told to forget it, and what it keeps of our pages.
    """
    current = session_of(request)
    assert current is not None
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if await records.revoke(connection, current, "signed_out", now, _owner(who)):
            await audited(request, connection, "signed_out", object=("session", str(UUID(bytes=current))))
    response = web.Response(status=204)
    if request.get(BY_COOKIE) is not None:
        clear_cookie(response)
        response.headers["Clear-Site-Data"] = CLEAR_SITE_DATA
    return response


@api.route(
    "DELETE",
    "/api/v1/sessions/{id}",
    zh="结束一个登录",
    status=204,
    tags=["sessions"],
    errors=[Fault.NO_SUCH_SIGN_IN, Fault.DATABASE_DOWN],
)
async def end_session(request: web.Request, *, who: bytes | Staff, path: IdPath) -> None:
    """Ends one of one's own sessions: a lost telephone, a console that was left open."""
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if not await records.revoke(connection, path.id.bytes, "by_owner", now, _owner(who)):
            raise Problem(Fault.NO_SUCH_SIGN_IN)
        await audited(request, connection, "session_ended", object=("session", str(path.id)))


@api.route("DELETE", "/api/v1/sessions", zh="结束全部登录", tags=["sessions"], errors=[Fault.DATABASE_DOWN])
async def end_sessions(request: web.Request, *, who: bytes | Staff, query: WhichSessions) -> EndedSessions:
    """Signs out everywhere, here too unless `keep_current`."""
    keep = session_of(request) if query.keep_current else None
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        ended = await records.revoke_of_owner(connection, _owner(who), "by_owner", now, keep)
        await audited(
            request, connection, "sessions_ended", detail={"ended": ended, "others_only": keep is not None}
        )
    return EndedSessions(ended)


def _owner(who: bytes | Staff) -> bytes:
    return who.id if isinstance(who, Staff) else who


def _told(row: SessionRow, current: bytes | None) -> OwnSession:
    return OwnSession(
        str(UUID(bytes=row.id)),
        row.id == current,
        row.transport,
        row.method,
        row.device,
        row.created_at,
        row.last_seen_at,
        row.rests_until,
        row.ends_at,
    )
