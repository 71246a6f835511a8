"""Where a partner gets its access token: OAuth 2.0 client credentials, and errors as RFC 6749 has them."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs, unquote_plus
from uuid import UUID

import orjson
from aiohttp import hdrs, web
from aiohttp.helpers import parse_content_type

from engine.audit.entries import Actor
from engine.records import partners as records
from web import keys
from web.auditing import audited
from web.errors import Problem
from web.faults import Fault
from web.openapi import api

TOKEN_PATH: Final = "/api/v1/partner/token"
FORM_BYTES_MAX: Final = 4_096
_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"}


class _Refused(Exception):
    """As RFC 6749 names it. A secret or an id is never in it."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@api.route(
    "POST",
    TOKEN_PATH,
    zh="合作方获取令牌",
    tags=["partner"],
    errors=[Fault.UNAUTHENTICATED, Fault.BODY_TOO_LARGE, Fault.DATABASE_DOWN],
    fails_as="application/json",
)
async def create_partner_token(request: web.Request) -> web.Response:
    """OAuth 2.0 client credentials: `grant_type=client_credentials` as a form, the client id and secret by
    HTTP Basic or as `client_id` and `client_secret`. `scope` may ask for less than there is. Errors have the
    shape of RFC 6749."""
    try:
        form = await _form(request)
        if form.get("grant_type") != "client_credentials":
            raise _Refused("unsupported_grant_type", "grant_type must be client_credentials")
        client_id, secret = _credentials(request, form)
        return await _given(request, client_id, secret, form.get("scope"))
    except _Refused as refused:
        said = {"error": refused.error, "error_description": refused.description}
        headers = dict(_HEADERS)
        if refused.status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="xinglin"'
        return web.Response(body=orjson.dumps(said), status=refused.status, headers=headers)


async def _given(request: web.Request, client_id: str, secret: str, asked: str | None) -> web.Response:
    pool, now = request.app[keys.POOL], datetime.now(UTC)
    wrong = _Refused("invalid_client", "the client id or its secret is not right", 401)
    try:
        partner_id = UUID(client_id).bytes
    except ValueError:
        raise wrong from None
    found = await records.by_secret(pool, partner_id, secret, now)
    if found is None or not found.is_live(now):
        known = found or await records.partner(pool, partner_id)
        if known is not None:  # what strangers make up is not worth a line
            by = Actor("partner", known.id, known.name)
            await audited(request, pool, "partner_token_refused", outcome="refused", by=by)
        raise wrong
    wanted = found.scopes if asked is None else frozenset(asked.split())
    if not wanted or wanted - found.scopes:
        raise _Refused("invalid_scope", "these credentials may: " + " ".join(sorted(found.scopes)))
    tokens = request.app[keys.PARTNERS].tokens
    by = Actor("partner", found.id, found.name)
    await audited(request, pool, "partner_token_given", by=by, detail={"scopes": sorted(wanted)})
    answer = {
        "access_token": tokens.issue(found, wanted),
        "token_type": "Bearer",
        "expires_in": tokens.seconds,
        "scope": " ".join(sorted(wanted)),
    }
    return web.Response(body=orjson.dumps(answer), headers=_HEADERS)


async def _form(request: web.Request) -> dict[str, str]:
    kind, _ = parse_content_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
    if kind != "application/x-www-form-urlencoded":
        raise _Refused("invalid_request", "the body must be a form")
    if (request.content_length or 0) > FORM_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=FORM_BYTES_MAX)
    raw = await request.read()
    if len(raw) > FORM_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=FORM_BYTES_MAX)
    try:
        given = parse_qs(raw.decode("ascii"), keep_blank_values=True, max_num_fields=16, errors="strict")
    except ValueError:
        raise _Refused("invalid_request", "the form cannot be read") from None
    if any(len(values) > 1 for values in given.values()):
        raise _Refused("invalid_request", "a parameter is given twice")
    return {name: values[0] for name, values in given.items()}


def _credentials(request: web.Request, form: dict[str, str]) -> tuple[str, str]:
    authorization = request.headers.get(hdrs.AUTHORIZATION)
    if authorization is None:
        if "client_id" not in form or "client_secret" not in form:
            raise _Refused("invalid_client", "there are no credentials", 401)
        return form["client_id"], form["client_secret"]
    if "client_secret" in form:
        raise _Refused("invalid_request", "credentials are given in two ways")
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise _Refused("invalid_client", "the Authorization header is not HTTP Basic", 401) from None
    if not colon:
        raise _Refused("invalid_client", "the Authorization header is not HTTP Basic", 401)
    return unquote_plus(client_id), unquote_plus(secret)
