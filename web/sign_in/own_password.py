"""A new password, chosen by whoever it is of."""

from uuid import UUID

import asyncpg
from aiohttp import web

from engine.audit.entries import Actor
from engine.records import sessions, sign_ins
from engine.records import staff as records
from engine.records.sign_ins import Step
from engine.records.staff import Staff
from web import keys
from web.auditing import audited
from web.auth import session_of
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.passwords import Passwords
from web.sign_in.bodies import OwnPasswordBody, StepPasswordBody
from web.sign_in.password_rules import PasswordRules, Unfit, unfit
from web.sign_in.proof import proved
from web.sign_in.rules import rules_in


@api.route(
    "POST",
    "/api/v1/me/password",
    zh="修改本人密码",
    tags=["sessions"],
    status=204,
    errors=[
        Fault.PROOF_REFUSED,
        Fault.PASSWORD_UNFIT,
        Fault.SIGN_IN_UNAVAILABLE,
        Fault.UNSUPPORTED_GRANT,
        Fault.DATABASE_DOWN,
    ],
)
async def change_own_password(request: web.Request, *, staff: Staff, body: OwnPasswordBody) -> None:
    """Sets a new password. All other sessions of this person end at once; this one stays."""
    await proved(request, staff.username, body.password, None, refused=Fault.PROOF_REFUSED, asks_code=False)
    made = await _hash_of_new(request, staff, body.new_password)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        this = session_of(request)
        if this is not None:
            await sessions.spare(connection, this)
        await _set(request, connection, staff, made)


@api.route(
    "POST",
    "/api/v1/sign-in/password",
    zh="登录时设置新密码",
    tags=["sessions"],
    status=204,
    errors=[
        Fault.SIGN_IN_STEP_OVER,
        Fault.PASSWORD_UNFIT,
        Fault.SIGN_IN_UNAVAILABLE,
        Fault.UNSUPPORTED_GRANT,
        Fault.DATABASE_DOWN,
    ],
)
async def set_password_at_sign_in(request: web.Request, *, body: StepPasswordBody) -> None:
    """Sets the new password that password_change_needed asked for; then sign in with it.

    A password that will not do leaves the token as it was.
    """
    now = request.app[keys.TOKENS].now()
    token = body.step_token.encode()
    async with request.app[keys.POOL].acquire() as connection:
        staff = await sign_ins.staff_of_step(connection, Step.PASSWORD, token, now, ends=False)
    if staff is None:
        raise Problem(Fault.SIGN_IN_STEP_OVER)
    made = await _hash_of_new(request, staff, body.new_password)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if await sign_ins.staff_of_step(connection, Step.PASSWORD, token, now, ends=True) is None:
            raise Problem(Fault.SIGN_IN_STEP_OVER)
        await _set(request, connection, staff, made)


async def faults_of_new(
    passwords: Passwords, rules: PasswordRules, staff: Staff, state: records.PasswordState, password: str
) -> list[Unfit]:
    """All that is wrong with a new password of theirs."""
    found = unfit(password, rules, staff.username, staff.name)
    before = (state.password_hash, *state.old_hashes[: rules.not_again])
    if not found and await passwords.fits_any(password, before):
        found.append(Unfit("password_used_before"))
    return found


async def _hash_of_new(request: web.Request, staff: Staff, password: str) -> str:
    passwords = request.app.get(keys.PASSWORDS)
    if passwords is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    async with request.app[keys.POOL].acquire() as connection:
        state = await records.password_of(connection, staff.id)
    assert state is not None  # accounts are disabled, and never go
    faults = await faults_of_new(passwords, rules_in(request.app).passwords, staff, state, password)
    if faults:
        entries = [Entry(["body", "new_password"], fault.code, fault.words) for fault in faults]
        raise Problem(Fault.PASSWORD_UNFIT, errors=entries)
    return await passwords.hash_of(password)


async def _set(request: web.Request, connection: asyncpg.Connection, staff: Staff, made: str) -> None:
    now = request.app[keys.TOKENS].now()
    await records.set_password(connection, staff.id, made, now, must_change=False)
    by = Actor("staff", staff.id, staff.username)
    account = ("staff", str(UUID(bytes=staff.id)))
    await audited(request, connection, "password_changed", object=account, by=by)
