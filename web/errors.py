"""How the world hears of a failure: RFC 9457 problem+json, in Chinese unless English is preferred.

web/faults.py gives every code its status and its words. Clients act on `code`, people read `title` and
`detail`.

    raise Problem(Fault.NO_SUCH_PATIENT)                    what a handler itself finds
    raise refused(refusal, alternatives=[...])              what the engine answered

The middleware `problems` turns whatever is raised into a response; web/door.py does the same for bytes
that are not HTTP at all, which never reach a middleware.
"""

import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from engine.domain.limits import BODY_BYTES_MAX
from engine.domain.refusal import Reason, Refusal
from engine.vault.failed import VaultBehind
from web import keys
from web.faults import BOOKINGS, INVALID, PENALTIES, RULES, TABLE, WISHES, Fault, Language, Text
from web.request_ids import request_id_of

log = logging.getLogger(__name__)

_INVALID_OTHERWISE: Final = Text("格式不正确", "is not valid")
_INVALID_ENTRIES_MAX: Final = 20
_MEMBER_CHARS_MAX: Final = 64  # of a client's own key, when we name it back

_CHALLENGES: Final[dict[str, str]] = {
    Fault.UNAUTHENTICATED: 'Bearer realm="xinglin"',
    Fault.TOKEN_EXPIRED: 'Bearer realm="xinglin", error="invalid_token", error_description="expired"',
    Fault.SESSION_ENDED: 'Bearer realm="xinglin", error="invalid_token", error_description="ended"',
    Fault.REFRESH_REUSED: 'Bearer realm="xinglin", error="invalid_token", error_description="reused"',
    Fault.SIGN_IN_REFUSED: 'Bearer realm="xinglin"',
}


class Problem(Exception):
    """An answer that is not the one hoped for. `members` go into the JSON as they are; None is left out."""

    def __init__(
        self,
        code: Reason | Fault,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.row = TABLE[code]
        self.status = self.row.status if status is None else status
        self.headers = headers
        self.members: dict[str, object] = members

    def body(self, language: Language, zone: tzinfo = UTC) -> dict[str, object]:
        """Times are told in `zone`."""
        row = self.row
        members = {
            name: value.astimezone(zone) if isinstance(value, datetime) else value
            for name, value in self.members.items()
        }
        detail = row.detail
        rule = self.members.get("rule")
        if rule is not None:
            # A conduct rule has the name that the hospital gave it; its offence has the words.
            penalty = PENALTIES.get(str(self.members.get("offence")))
            words = RULES.get(str(rule)) or WISHES.get(str(rule)) or BOOKINGS.get(str(rule))
            detail = penalty or words or detail
        said = detail.in_(language)
        problem: dict[str, object] = {
            "type": f"/problems/{self.code.value}",
            "title": row.title.in_(language),
            "status": self.status,
            "detail": said.format_map(_Words(members)) if "{" in said else said,
            "code": self.code.value,
        }
        if row.retry_after is not None:
            problem["retry_after"] = row.retry_after
        for name, value in members.items():
            if value is not None:
                problem[name] = _worded(value, language) if name == "errors" else value
        return problem

    def rendered(self, accept_language: str | None, zone: tzinfo) -> tuple[dict[str, str], bytes]:
        """Headers and body of the answer, in the language that is asked for."""
        language = language_of(accept_language)
        body = self.body(language, zone)
        headers = {
            "Content-Type": "application/problem+json",
            "Content-Language": "zh-CN" if language == "zh" else "en",
            "Vary": "Accept-Language",
            "Cache-Control": "no-store",
        }
        if "retry_after" in body:
            headers["Retry-After"] = str(body["retry_after"])
        challenge = _CHALLENGES.get(self.code) if self.status == 401 else None
        if challenge is not None:
            headers["WWW-Authenticate"] = challenge
        if self.headers is not None:
            headers.update(self.headers)
        return headers, orjson.dumps(body)

    def response(self, request: web.BaseRequest) -> web.Response:
        # What fails before there is a route has no app; it has no times either.
        times = any(isinstance(value, datetime) for value in self.members.values())
        has_time = times and isinstance(request, web.Request)
        zone = request.app.get(keys.ZONE, UTC) if has_time else UTC  # type: ignore[attr-defined]
        headers, body = self.rendered(request.headers.get(hdrs.ACCEPT_LANGUAGE), zone)
        return web.Response(body=body, status=self.status, headers=headers)


_TIMES: Final = ("until", "from", "again_at", "passed_at")
"""Members of a refusal that are ms."""


def refused(refusal: Refusal, **members: object) -> Problem:
    """The engine's refusal as a problem; `members` adds what only the web knows, such as alternatives."""
    told: dict[str, object] = dict(refusal.detail)
    for name in ("appointment_id", "penalty_id", "ticket_id"):
        named = told.get(name)
        if isinstance(named, str):
            told[name] = str(UUID(named))
    for name in _TIMES:
        at = told.get(name)
        if isinstance(at, int):
            told[name] = datetime.fromtimestamp(at / 1000, UTC)
    lacking = told.get("consents")
    if isinstance(lacking, str):
        told["consents"] = lacking.split(",")
    problem = Problem(refusal.reason)
    problem.members = {**told, **members}
    return problem


def invalid(code: Fault, source: str, faults: list[Mapping[str, object]]) -> Problem:
    """What pydantic found, as a problem. Keeps places and codes, never the values that were sent."""
    entries = [
        Entry([source, *(_short(part) for part in fault["loc"])], str(fault["type"]), fault.get("ctx") or {})  # type: ignore[attr-defined,arg-type]
        for fault in faults[:_INVALID_ENTRIES_MAX]
    ]
    return Problem(code, errors=entries)


class Entry(NamedTuple):
    """One place in the request that is not as it should be."""

    loc: list[str | int]
    code: str
    words: Mapping[str, object] = {}


def words_of(code: str, words: Mapping[str, object], language: Language) -> str:
    row = TABLE.get(code)
    text = INVALID.get(code, _INVALID_OTHERWISE if row is None else row.detail).in_(language)
    return text.format_map(_Words(words)) if "{" in text else text


@lru_cache(maxsize=512)
def language_of(accept_language: str | None) -> Language:
    """Chinese, unless English is asked for before it."""
    if not accept_language or len(accept_language) > 256:
        return "zh"
    best: dict[str, float] = {}
    for part in accept_language.split(","):
        tag, _, parameters = part.partition(";")
        name = tag.strip().lower().partition("-")[0]
        quality = 1.0
        if parameters.strip().lower().startswith("q="):
            try:
                quality = float(parameters.strip()[2:])
            except ValueError:
                quality = 0.0
        if name in ("zh", "en") and quality > 0 and quality > best.get(name, 0.0):
            best[name] = quality
    if "en" not in best:
        return "zh"
    if "zh" not in best or best["en"] > best["zh"]:
        return "en"
    # Equal: the one named first.
    return "en" if best["en"] == best["zh"] and next(iter(best)) == "en" else "zh"


DATABASE_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server shuts down or has crashed
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,  # the connection or the pool is closed
    VaultBehind,  # a master key is newer than what this gateway has read: it reads again within seconds
    ConnectionError,
    TimeoutError,
)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is raised becomes problem+json; what nobody expected is logged under the id that it names."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response(request)
    except web.HTTPException as raised:
        if raised.status < 400:
            raise
        return _of_aiohttp(raised).response(request)
    except DATABASE_AWAY:
        # Not logged: while the database is away this is every request, and /readyz already says why.
        return Problem(Fault.DATABASE_DOWN).response(request)
    except Exception:
        request_id = request_id_of(request) or secrets.token_hex(16)
        resource = request.match_info.route.resource
        # The route's pattern: a path may hold anything that somebody typed.
        route = "no route" if resource is None else f"{request.method} {resource.canonical}"
        log.exception("request %s: %s failed", request_id, route)
        return Problem(Fault.INTERNAL, request_id=request_id).response(request)


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Answers Expect: 100-continue; aiohttp asks this before any middleware."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun
        return None
    return Problem(Fault.EXPECTATION_FAILED).response(request)


_OF_STATUS: Final = {
    400: Fault.MALFORMED_REQUEST,
    404: Fault.NOT_FOUND,
    413: Fault.BODY_TOO_LARGE,
    415: Fault.UNSUPPORTED_MEDIA_TYPE,
    417: Fault.EXPECTATION_FAILED,
}


def _of_aiohttp(raised: web.HTTPException) -> Problem:
    if isinstance(raised, web.HTTPMethodNotAllowed):
        return Problem(Fault.METHOD_NOT_ALLOWED, headers={"Allow": raised.headers.get("Allow", "")})
    if isinstance(raised, web.HTTPRequestEntityTooLarge):
        return Problem(Fault.BODY_TOO_LARGE, limit=BODY_BYTES_MAX)
    return Problem(_OF_STATUS.get(raised.status, Fault.REQUEST_REFUSED), status=raised.status)


class _Words(dict[str, object]):
    """Members for a text's braces. An error's text must never fail for want of a word."""

    def __getitem__(self, name: str) -> object:
        value = super().__getitem__(name)
        if isinstance(value, datetime):
            return f"{value:%Y-%m-%d %H:%M:%S}" if value.second else f"{value:%Y-%m-%d %H:%M}"
        return value

    def __missing__(self, name: str) -> str:
        return "?"


def _worded(entries: object, language: Language) -> list[dict[str, object]]:
    assert isinstance(entries, list)
    return [
        {"loc": entry.loc, "msg": words_of(entry.code, entry.words, language), "code": entry.code}
        for entry in entries
    ]


def _short(part: object) -> str | int:
    return part if isinstance(part, int) else str(part)[:_MEMBER_CHARS_MAX]
