"""Signing in and staying signed in."""

from aiohttp import web

from engine.records import accounts
from integrations.connector import ConnectorFailed, Refused
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import OidcGrant, PasswordGrant, RefreshGrant, SessionAnswer, SessionBody, WechatGrant
from web.patient.patients import new_id
from web.sessions.starting import (
    CookieAnswer,
    Started,
    refresh,
    start_account_session,
    start_staff_session,
)
from web.sign_in.oidc import forget_journey, staff_of_oidc
from web.sign_in.password import staff_of_password


@api.route(
    "POST",
    "/api/v1/sessions",
    zh="登录",
    status=201,
    tags=["sessions"],
    answer=SessionAnswer | CookieAnswer,
    errors=[
        Fault.SIGN_IN_REFUSED,
        Fault.TOKEN_EXPIRED,
        Fault.SESSION_ENDED,
        Fault.REFRESH_REUSED,
        Fault.FOREIGN_ORIGIN,
        Fault.UNAUTHENTICATED,
        Fault.UNSUPPORTED_GRANT,
        Fault.OTP_NEEDED,
        Fault.PASSWORD_CHANGE_NEEDED,
        Fault.SECOND_FACTOR_NEEDED,
        Fault.OIDC_STATE_REFUSED,
        Fault.OIDC_NOT_LINKED,
        Fault.OIDC_FACTOR_NEEDED,
        Fault.SIGN_IN_UNAVAILABLE,
        Fault.DATABASE_DOWN,
    ],
)
async def create_session(request: web.Request, *, body: SessionBody) -> web.Response:
    """Signs in with a WeChat code or a staff member's password, or buys the next pair of tokens.

    The first sign-in of a person makes their account. A code is good for one sign-in. After five wrong
    passwords in a row from one address nobody signs in with that username from there for 15 minutes, and
    longer the next time. A refresh token stays what it is: a patient's gives a patient's tokens, a staff
    member's gives theirs. It buys one pair: shown again after the ten seconds in which a lost answer is given
    again, it ends its session. With `"transport":"cookie"` consoles of the staff get a cookie that their
    scripts cannot read, and a token for X-CSRF-Token.
    """
    match body:
        case WechatGrant():
            started = await _by_code(request, body.code)
        case PasswordGrant():
            started = await start_staff_session(
                request, await staff_of_password(request, body), body.transport, "password"
            )
        case RefreshGrant():
            started = await refresh(request, body.refresh_token)
        case OidcGrant():
            staff = await staff_of_oidc(request, body)
            response = (await start_staff_session(request, staff, body.transport, "oidc")).response()
            forget_journey(response)
            return response
    return started.response()


async def _by_code(request: web.Request, code: str) -> Started:
    wechat = request.app.get(keys.WECHAT)
    if wechat is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    try:
        person = await wechat.person_of(code)
    except Refused as refusal:
        if refusal.code.startswith("errcode_"):
            # Our settings or their contract, not this person's code.
            raise Problem(Fault.SIGN_IN_UNAVAILABLE) from refusal
        raise Problem(Fault.SIGN_IN_REFUSED) from refusal
    except ConnectorFailed as failure:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from failure
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as conn, conn.transaction():
        account_id = await accounts.account_of_wechat(conn, person.openid, person.unionid, new_id(), now)
        return await start_account_session(request, conn, account_id, "wechat")
