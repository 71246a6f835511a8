"""Signing in and staying signed in."""

from datetime import UTC, datetime

from aiohttp import web

from engine.records import patients as records
from engine.records import staff as staff_records
from engine.records.staff import Staff
from integrations.connector import ConnectorFailed, Refused
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.passwords import TooManySignIns
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
    """Signs in with a WeChat code or a staff member's password, or buys the next pair of tokens.

    The first sign-in of a person makes their account. A code is good for one sign-in. After five wrong
    passwords in a row nobody signs in with that username for 15 minutes. A refresh token stays what it is:
    a patient's gives a patient's tokens, a staff member's gives theirs as their rights are by then.
    """
    tokens = request.app[keys.TOKENS]
    match body:
        case WechatGrant():
            pair = tokens.issue(await _account_of_code(request, body.code))
        case PasswordGrant():
            pair = tokens.issue_staff(await _staff_of_password(request, body))
        case RefreshGrant():
            refreshing = tokens.who_of_refresh(body.refresh_token)
            if refreshing.is_staff:
                pair = tokens.issue_staff(await _staff_of_id(request, refreshing.id))
            else:
                pair = tokens.issue(refreshing.id)
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


async def _staff_of_password(request: web.Request, body: PasswordGrant) -> Staff:
    passwords = request.app.get(keys.PASSWORDS)
    if passwords is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    pool = request.app[keys.POOL]
    username = body.username.strip().lower()
    try:
        async with passwords.turn(username):
            attempt = None
            if staff_records.USERNAME.fullmatch(username):
                async with pool.acquire() as conn:
                    attempt = await staff_records.begin_sign_in(conn, username, datetime.now(UTC))
            # Unknown, locked, disabled or mistyped: the same answer after the same time.
            password_hash = None if attempt is None else attempt.password_hash
            if not await passwords.fits(body.password, password_hash) or attempt is None:
                raise Problem(Fault.SIGN_IN_REFUSED)
            async with pool.acquire() as conn:
                staff = await staff_records.end_sign_in(conn, attempt.staff.id)
    except TooManySignIns:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from None
    if staff is None:
        raise Problem(Fault.SIGN_IN_REFUSED)
    return staff


async def _staff_of_id(request: web.Request, staff_id: bytes) -> Staff:
    async with request.app[keys.POOL].acquire() as conn:
        staff = await staff_records.staff_of_id(conn, staff_id)
    if staff is None:
        raise Problem(Fault.SIGN_IN_REFUSED)
    return staff
