"""Cookies for the consoles of the staff: a page's scripts never hold what signs them in.

`__Host-xinglin` is 256 random bits and a tag of ours, so that made-up ones are refused without a query; the
database keeps only a hash. A gateway remembers whose a cookie is; a revocation counts here as it does for
tokens. Browsers send a cookie by themselves, also for a page that is not ours. So whatever changes something
must carry X-CSRF-Token as well, which only a page of ours can know, and must come from such a page. A request
with an Authorization header is judged by that alone, as if it had no cookie.
"""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from engine.records import sessions as records
from engine.records.sessions import SessionRow
from engine.records.staff import staff_of_id
from web import keys
from web.auth import BY_COOKIE, ByCookie
from web.errors import Problem
from web.faults import Fault

COOKIE: Final = "__Host-xinglin"
CSRF_HEADER: Final = "X-CSRF-Token"
CLEAR_SITE_DATA: Final = '"cache", "storage"'
"""At sign-out. Without "cookies": that would take those of the hospital's other sites, too."""
KEPT_MAX: Final = 4_096
REREAD: Final = timedelta(seconds=60)  # names and the like, which do not end sessions, are at most so old

_SECRET_BYTES: Final = 32
_TAG_BYTES: Final = 16
_CHARS: Final = (_SECRET_BYTES + _TAG_BYTES) * 4 // 3
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_SIGN_IN: Final = ("POST", "/api/v1/sessions")
"""The one change without X-CSRF-Token: a new sign-in takes the place of the old one."""


@dataclass(slots=True)
class _Kept:
    by: ByCookie
    row: SessionRow
    read_at: datetime
    seen_at: datetime


class Cookies:
    """Of one gateway. `key` signs the tags: the tokens' key."""

    def __init__(self, key: bytes) -> None:
        self._tag_key = hmac.digest(key, b"xinglin cookie", "sha256")
        self._csrf_key = hmac.digest(key, b"xinglin csrf", "sha256")
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def new(self) -> str:
        """A cookie that nobody has yet."""
        secret = secrets.token_bytes(_SECRET_BYTES)
        return base64.urlsafe_b64encode(secret + self._tag(secret)).decode()

    def hash_of(self, cookie: str) -> bytes | None:
        """What the database knows it by; None: it is none of ours."""
        if len(cookie) != _CHARS:
            return None
        try:
            raw = base64.b64decode(cookie, altchars=b"-_", validate=True)
        except ValueError:
            return None
        secret, tag = raw[:_SECRET_BYTES], raw[_SECRET_BYTES:]
        return hashlib.sha256(secret).digest() if hmac.compare_digest(tag, self._tag(secret)) else None

    def csrf_token_of(self, secret_hash: bytes) -> str:
        """Of one cookie, as long as that lasts."""
        tag = hmac.digest(self._csrf_key, secret_hash, "sha256")
        return base64.urlsafe_b64encode(tag).rstrip(b"=").decode()

    async def find(self, app: web.Application, cookie: str) -> ByCookie | None:
        """Whose it is; None: of nobody, or its session has ended."""
        tokens = app[keys.TOKENS]
        now = tokens.now()
        secret_hash = self.hash_of(cookie)
        if secret_hash is None:
            return None
        kept = self._kept.get(secret_hash)
        seen_at = None if kept is None else tokens.seen_at(kept.by.session) or kept.seen_at
        if kept is None or now - kept.read_at >= REREAD or _rests(kept.row, kept.seen_at, now):
            kept = await self._read(app[keys.POOL], secret_hash, seen_at, now)
            if kept is None:
                self._kept.pop(secret_hash, None)
                return None
            self._kept[secret_hash] = kept
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(secret_hash)
        try:
            tokens.check_session(kept.by.session)  # only now: it may have been revoked while we read
        except Problem:
            del self._kept[secret_hash]
            return None
        kept.seen_at = now
        tokens.saw(kept.by.session)
        return kept.by

    async def _read(
        self, pool: asyncpg.Pool, secret_hash: bytes, seen_at: datetime | None, now: datetime
    ) -> _Kept | None:
        async with pool.acquire() as connection:
            row = await records.of_secret(connection, secret_hash)
            if row is None or row.revoked_at is not None:
                return None
            seen_at = row.seen(seen_at)  # by us, and not written down yet
            if _rests(row, seen_at, now):
                return None
            staff = await staff_of_id(connection, row.owner)
        if staff is None:
            return None
        return _Kept(ByCookie(staff, row.id, self.csrf_token_of(secret_hash)), row, now, seen_at)

    def _tag(self, secret: bytes) -> bytes:
        return hmac.digest(self._tag_key, secret, "sha256")[:_TAG_BYTES]


def _rests(row: SessionRow, seen_at: datetime, now: datetime) -> bool:
    """Whether it has ended by itself."""
    is_idle = row.idle_seconds is not None and seen_at + timedelta(seconds=row.idle_seconds) <= now
    return is_idle or row.ends_at <= now


def set_cookie(response: web.StreamResponse, cookie: str) -> None:
    """Without an end: the browser forgets it when it is closed, and the session has its own."""
    response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="Strict")


def clear_cookie(response: web.StreamResponse) -> None:
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")


@web.middleware
async def by_cookie(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds out whose cookie it is, for web/auth.py. Raises Problem csrf_refused, or foreign_origin for a
    WebSocket that is not ours; a cookie whose session has ended is as good as none where none is needed."""
    cookie = request.cookies.get(COOKIE)
    app = request.app
    if (
        cookie is None
        or hdrs.AUTHORIZATION in request.headers
        or keys.COOKIES not in app
        or not request.path.startswith("/api/")
    ):
        return await handler(request)
    by = await app[keys.COOKIES].find(app, cookie)
    request[BY_COOKIE] = by
    if by is not None:
        app[keys.RATE_LIMITS].count_staff(by.staff)
        if request.method not in _SAFE and (request.method, request.path) != _SIGN_IN:
            check_csrf(request, by)
        elif hdrs.UPGRADE in request.headers and not app[keys.ORIGINS].is_page_of_ours(request.headers):
            raise Problem(Fault.FOREIGN_ORIGIN)
    return await handler(request)


def check_csrf(request: web.Request, by: ByCookie) -> None:
    """Raises Problem csrf_refused."""
    given = request.headers.get(CSRF_HEADER, "")
    is_known = hmac.compare_digest(given.encode(errors="surrogateescape"), by.csrf_token.encode())
    if not is_known or not request.app[keys.ORIGINS].is_of_ours(request.headers):
        raise Problem(Fault.CSRF_REFUSED)
