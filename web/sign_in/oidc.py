"""Signing in by the hospital's identity provider: docs/OIDC.md.

    browser: GET /api/v1/oidc/sign-in ──302──► provider ──302──► GET /api/v1/oidc/callback?code&state
             a sealed cookie with state,       who is it?         a page whose script posts both:
             nonce and PKCE's verifier                            POST /api/v1/sessions {"grant": "oidc"}

The way back is a page and a POST of it, not a GET that signs in: so no GET changes anything, the same walls
stand before this sign-in as before any other (origin, rates), and the session's cookie can be
SameSite=Strict, which no answer to a foreign site's redirect could use.
"""

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.audit.entries import NOBODY
from engine.records.oidc_links import staff_of_subject
from engine.records.staff import Staff
from engine.settings import Settings
from integrations.connector import ConnectorFailed, Refused
from integrations.oidc.client import OidcClient, Provider
from integrations.oidc.id_token import Identity
from web import keys
from web.auditing import audited
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import OidcGrant
from web.security_headers import PAGE_POLICY
from web.sign_in.rules import is_device, rules_in

COOKIE: Final = "__Host-xinglin-oidc"
PATH: Final = "/api/v1/oidc"
UNDER_WAY_SECONDS: Final = 600  # from leaving for the provider to coming back
USED_MAX: Final = 10_000
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Journey:
    """One sign-in that is under way, known to one browser alone."""

    state: str
    nonce: str
    verifier: str
    ends: int  # seconds since 1970


class Journeys:
    """Seals journeys into cookies. `key` is the tokens': every gateway opens what another one has sealed."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._aead = AESGCM(hmac.digest(key, b"xinglin oidc journey", "sha256"))
        self._clock = clock
        self._used: dict[str, int] = {}  # state -> when its journey would have ended

    def begin(self) -> Journey:
        return Journey(
            secrets.token_urlsafe(24),
            secrets.token_urlsafe(24),
            secrets.token_urlsafe(48),
            int(self._clock()) + UNDER_WAY_SECONDS,
        )

    def sealed(self, journey: Journey) -> str:
        iv = secrets.token_bytes(_NONCE_BYTES)
        text = orjson.dumps([journey.state, journey.nonce, journey.verifier, journey.ends])
        return base64.urlsafe_b64encode(iv + self._aead.encrypt(iv, text, COOKIE.encode())).decode()

    def taken_up(self, cookie: str | None, state: str) -> Journey | None:
        """The journey that this state ends, once. None: it did not begin in this browser, or is over."""
        if cookie is None or len(cookie) > 1_024:
            return None
        try:
            raw = base64.b64decode(cookie, altchars=b"-_", validate=True)
            told = orjson.loads(self._aead.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], COOKIE.encode()))
        except (ValueError, InvalidTag):
            return None
        journey = Journey(*told)
        now = self._clock()
        if journey.ends <= now or not hmac.compare_digest(journey.state.encode(), state.encode()):
            return None
        # A second time at this gateway; at another one the provider refuses the code.
        if self._used.get(journey.state, 0) > now:
            return None
        if len(self._used) >= USED_MAX:
            self._used = {used: ends for used, ends in self._used.items() if ends > now}
            if len(self._used) >= USED_MAX:
                del self._used[next(iter(self._used))]
        self._used[journey.state] = journey.ends
        return journey


@dataclass(frozen=True, slots=True)
class Oidc:
    """What a gateway needs for it."""

    client: OidcClient
    journeys: Journeys
    issuer: str
    factor_methods: frozenset[str]  # of amr: any of them is a second factor
    factor_contexts: frozenset[str]  # of acr, likewise
    then: str  # the page that comes after

    def shows_factor(self, identity: Identity) -> bool:
        return bool(identity.methods & self.factor_methods) or identity.context in self.factor_contexts


def provider_of(settings: Settings) -> Provider:
    return Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret.get_secret_value(),
        f"{settings.oidc_address.rstrip('/')}{PATH}/callback",
        settings.oidc_scopes,
        frozenset(_parts(settings.oidc_hosts.lower())),
        " ".join(_parts(settings.oidc_factor_acr)),
    )


def oidc_of(settings: Settings, client: OidcClient, token_secret: bytes) -> Oidc:
    return Oidc(
        client,
        Journeys(token_secret),
        settings.oidc_issuer,
        frozenset(_parts(settings.oidc_factor_amr)),
        frozenset(_parts(settings.oidc_factor_acr)),
        settings.oidc_then,
    )


def _parts(listed: str) -> list[str]:
    return [part.strip() for part in listed.split(",") if part.strip()]


async def staff_of_oidc(request: web.Request, body: OidcGrant) -> Staff:
    """Whom the provider has signed in, and an administrator has linked.

    Raises Problem: unsupported_grant, oidc_state_refused, sign_in_refused, oidc_not_linked,
    oidc_factor_needed, sign_in_unavailable.
    """
    oidc = _oidc(request)
    journey = oidc.journeys.taken_up(request.cookies.get(COOKIE), body.state)
    if journey is None:
        await _refused(request, "state")
        raise Problem(Fault.OIDC_STATE_REFUSED)
    if body.code is None:
        await _refused(request, "denied")
        raise Problem(Fault.SIGN_IN_REFUSED)
    try:
        identity = await oidc.client.identity_of(body.code, journey.verifier, journey.nonce, body.iss)
    except Refused as refused:
        await _refused(request, refused.code)
        raise Problem(Fault.SIGN_IN_REFUSED) from refused
    except ConnectorFailed as failed:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from failed
    async with request.app[keys.POOL].acquire() as connection:
        staff = await staff_of_subject(connection, identity.issuer, identity.subject)
    if staff is None:
        await _refused(request, "not_linked")
        raise Problem(Fault.OIDC_NOT_LINKED)
    is_factor_needed = rules_in(request.app).is_factor_required and not is_device(staff)
    if is_factor_needed and not oidc.shows_factor(identity):
        await _refused(request, "factor_needed")
        raise Problem(Fault.OIDC_FACTOR_NEEDED)
    return staff


def forget_journey(response: web.StreamResponse) -> None:
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")


async def _refused(request: web.Request, why: str) -> None:
    await audited(
        request,
        request.app[keys.POOL],
        "sign_in_refused",
        detail={"method": "oidc", "why": why},
        outcome="refused",
        by=NOBODY,
    )


def _oidc(request: web.Request) -> Oidc:
    oidc = request.app.get(keys.OIDC)
    if oidc is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    return oidc


@api.route(
    "GET",
    "/api/v1/oidc/sign-in",
    zh="用医院统一身份认证登录",
    status=302,
    tags=["sessions"],
    errors=[Fault.UNSUPPORTED_GRANT, Fault.SIGN_IN_UNAVAILABLE],
)
async def begin_oidc(request: web.Request) -> web.Response:
    """Sends the browser to the hospital's identity provider; a cookie remembers it for ten minutes."""
    oidc = _oidc(request)
    journey = oidc.journeys.begin()
    try:
        address = await oidc.client.address_to_sign_in(journey.state, journey.nonce, journey.verifier)
    except ConnectorFailed as failed:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from failed
    response = web.Response(status=302, headers={"Location": address, "Cache-Control": "no-store"})
    response.set_cookie(
        COOKIE,
        oidc.journeys.sealed(journey),
        max_age=UNDER_WAY_SECONDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    return response


@api.route("GET", "/api/v1/oidc/callback", zh="统一身份认证的返回页面", tags=["sessions"])
async def come_back_from_oidc(request: web.Request) -> web.Response:
    """The page to which the provider sends the browser back: it signs in by POST /api/v1/sessions."""
    return web.Response(
        text=_PAGE,
        content_type="text/html",
        headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"},
    )


@api.route("GET", "/api/v1/oidc/callback.js", zh="返回页面的脚本", tags=["sessions"])
async def script_of_oidc(request: web.Request) -> web.Response:
    """The page's script: a file, so that the page's policy can forbid all others."""
    oidc = request.app.get(keys.OIDC)
    then = orjson.dumps("/docs" if oidc is None else oidc.then).decode().replace("<", "\\u003c")
    return web.Response(
        text=_SCRIPT.replace("THEN", then),
        content_type="text/javascript",
        headers={"Cache-Control": "no-store"},
    )


_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>登录 / signing in</title>
<script src="/api/v1/oidc/callback.js" defer></script>
</head>
<body>
<p id="said" role="status">正在登录… / signing in…</p>
<p><a href="/api/v1/oidc/sign-in">重新登录 / sign in again</a></p>
<noscript>需要 JavaScript / JavaScript is needed</noscript>
</body>
</html>
"""
# The address holds a code that is good once: it leaves the history before anything else is done.
_SCRIPT: Final = """"use strict";
const told = new URLSearchParams(location.search);
history.replaceState(null, "", location.pathname);
const body = { grant: "oidc", state: told.get("state") || "" };
for (const name of ["code", "iss"]) if (told.get(name)) body[name] = told.get(name);
fetch("/api/v1/sessions", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  credentials: "same-origin",
  body: JSON.stringify(body),
}).then(async (answer) => {
  if (answer.ok) location.replace(THEN);
  else document.getElementById("said").textContent = (await answer.json()).detail;
}).catch(() => {
  document.getElementById("said").textContent = "网络错误 / the network failed";
});
"""
