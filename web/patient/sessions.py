"""Signing in and staying signed in."""

from datetime import UTC, datetime

from aiohttp import web

from engine.records import patients as records
from integrations.connector import ConnectorFailed, Refused
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import PasswordGrant, RefreshGrant, SessionAnswer, SessionBody, WechatGrant
from web.patient.patients import new_id


@api.route(
    "POST",
    "/api/v1/sessions",
    zh="登录",
    status=201,
    security=None,
    tags=["sessions"],
    errors=[
        Fault.SIGN_IN_REFUSED,
        Fault.TOKEN_EXPIRED,
        Fault.UNAUTHENTICATED,
        Fault.UNSUPPORTED_GRANT,
        Fault.SIGN_IN_UNAVAILABLE,
        Fault.DATABASE_DOWN,
    ],
)
async def create_session(request: web.Request, *, body: SessionBody) -> SessionAnswer:
    """Signs in with a WeChat code, or buys the next pair of tokens with a refresh token.

    The first sign-in of a person makes their account. A code is good for one sign-in.
    """
    tokens = request.app[keys.TOKENS]
    match body:
        case WechatGrant():
            account_id = await _account_of_code(request, body.code)
        case RefreshGrant():
            account_id = tokens.account_of_refresh(body.refresh_token)
        case PasswordGrant():
            raise Problem(Fault.UNSUPPORTED_GRANT)
    pair = tokens.issue(account_id)
    return SessionAnswer(pair.access_token, pair.refresh_token, pair.expires_in)


async def _account_of_code(request: web.Request, code: str) -> bytes:
    wechat = request.app.get(keys.WECHAT)
    if wechat is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    try:
        openid = await wechat.openid_of(code)
    except Refused as refusal:
        if refusal.code.startswith("errcode_"):
            # Our settings or their contract, not this person's code.
            raise Problem(Fault.SIGN_IN_UNAVAILABLE) from refusal
        raise Problem(Fault.SIGN_IN_REFUSED) from refusal
    except ConnectorFailed as failure:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from failure
    async with request.app[keys.POOL].acquire() as conn:
        return await records.account_of_openid(conn, openid, new_id(), datetime.now(UTC))
