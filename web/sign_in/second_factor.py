"""One's own second factor: set it up, confirm it with a code, renew it, put recovery codes by, take it away.

What counts at sign-in is always the confirmed one: who begins anew and loses the telephone meanwhile still
has the old one. Whoever has no second factor but must have one comes here with a token for this step alone.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson
from aiohttp import web

from engine.audit.entries import Actor
from engine.records import second_factors as records
from engine.records import sessions, sign_ins
from engine.records.sign_ins import Step
from engine.records.staff import Staff
from engine.vault.vault import DataKey, Vault
from web import keys
from web.auditing import audited
from web.auth import session_of
from web.errors import Problem
from web.faults import Fault
from web.openapi import PRIVATE_HEADERS, api
from web.sessions.starting import start_staff_session
from web.sign_in import recovery_codes, totp
from web.sign_in.bodies import (
    CodeBody,
    EnrolledAnswer,
    EnrolmentAnswer,
    ProofBody,
    RecoveryCodesAnswer,
    SecondFactorAnswer,
    StepBody,
    StepCodeBody,
)
from web.sign_in.proof import proved
from web.sign_in.rules import is_device, rules_in

PENDING: Final = timedelta(minutes=10)
_PROOF_FAULTS: Final = (
    Fault.PROOF_REFUSED,
    Fault.OTP_NEEDED,
    Fault.SIGN_IN_UNAVAILABLE,
    Fault.UNSUPPORTED_GRANT,
    Fault.DATABASE_DOWN,
)
_CODE_FAULTS: Final = (Fault.CODE_WRONG, Fault.NO_PENDING_SECOND_FACTOR, Fault.DATABASE_DOWN)


# Signed in.


@api.route(
    "GET",
    "/api/v1/me/second-factor",
    zh="本人的身份验证器",
    tags=["sessions"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_own_second_factor(request: web.Request, *, staff: Staff) -> SecondFactorAnswer:
    """Whether there is one, how many recovery codes are left, and whether there must be one."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        factor = await records.load(connection, staff.id)
        left = await records.recovery_codes_left(connection, staff.id)
    required = rules_in(request.app).is_factor_required and not is_device(staff)
    return SecondFactorAnswer(None if factor is None else factor.confirmed_at, left, required)


@api.route(
    "POST",
    "/api/v1/me/second-factor",
    zh="绑定或更换身份验证器",
    tags=["sessions"],
    status=201,
    errors=_PROOF_FAULTS,
)
async def enrol_second_factor(request: web.Request, *, staff: Staff, body: ProofBody) -> EnrolmentAnswer:
    """Makes a secret for an authenticator. It counts once a code confirms it; until then the old one does."""
    await _proved(request, staff, body)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        return await _propose(request, connection, staff)


@api.route(
    "POST",
    "/api/v1/me/second-factor/confirmation",
    zh="确认身份验证器",
    tags=["sessions"],
    errors=_CODE_FAULTS,
)
async def confirm_second_factor(request: web.Request, *, staff: Staff, body: CodeBody) -> RecoveryCodesAnswer:
    """Puts the new secret in force. Its recovery codes are told this once; earlier ones count no more.

    All other sessions of this person end.
    """
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        codes = await _confirm(request, connection, staff, body.code)
        now = request.app[keys.TOKENS].now()
        await sessions.revoke_of_owner(connection, staff.id, "rights_changed", now, keep=session_of(request))
    return RecoveryCodesAnswer(codes)


@api.route(
    "POST",
    "/api/v1/me/second-factor/removal",
    zh="解除身份验证器",
    tags=["sessions"],
    status=204,
    errors=[*_PROOF_FAULTS, Fault.NO_SECOND_FACTOR],
)
async def remove_second_factor(request: web.Request, *, staff: Staff, body: ProofBody) -> None:
    """Takes it away with its recovery codes. Where there must be one, the next sign-in asks for a new one."""
    await _proved(request, staff, body)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if not await records.remove(connection, staff.id):
            raise Problem(Fault.NO_SECOND_FACTOR)
        await audited(request, connection, "second_factor_removed", object=_of(staff), by=_actor(staff))


@api.route(
    "POST",
    "/api/v1/me/recovery-codes",
    zh="重新生成恢复码",
    tags=["sessions"],
    status=201,
    errors=[*_PROOF_FAULTS, Fault.NO_SECOND_FACTOR],
)
async def renew_recovery_codes(request: web.Request, *, staff: Staff, body: ProofBody) -> RecoveryCodesAnswer:
    """Ten new ones, told this once. Those from before count no more."""
    await _proved(request, staff, body)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        factor = await records.load(connection, staff.id)
        if factor is None or factor.sealed is None:
            raise Problem(Fault.NO_SECOND_FACTOR)
        codes = await _new_recovery_codes(connection, staff)
        await audited(request, connection, "recovery_codes_made", object=_of(staff), by=_actor(staff))
    return RecoveryCodesAnswer(codes)


# Not yet signed in, with a token from second_factor_needed.


@api.route(
    "POST",
    "/api/v1/sign-in/second-factor",
    zh="登录时绑定身份验证器",
    tags=["sessions"],
    status=201,
    errors=[Fault.SIGN_IN_STEP_OVER, Fault.DATABASE_DOWN],
)
async def enrol_at_sign_in(request: web.Request, *, body: StepBody) -> EnrolmentAnswer:
    """Makes the secret that second_factor_needed asked for. Asked again, it makes another."""
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        staff = await _staff_of_step(connection, body.step_token, now, ends=False)
        return await _propose(request, connection, staff)


@api.route(
    "POST",
    "/api/v1/sign-in/second-factor/confirmation",
    zh="登录时确认身份验证器",
    tags=["sessions"],
    status=201,
    answer=EnrolledAnswer,
    errors=[Fault.SIGN_IN_STEP_OVER, *_CODE_FAULTS],
)
async def confirm_at_sign_in(request: web.Request, *, body: StepCodeBody) -> web.Response:
    """Puts the secret in force, ends the token and signs in: password and code have both been shown.

    The recovery codes are told this once. A wrong code leaves the token as it was.
    """
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        staff = await _staff_of_step(connection, body.step_token, now, ends=True)
        codes = await _confirm(request, connection, staff, body.code)
    try:
        started = await start_staff_session(request, staff, body.transport, "password")
    except Problem:  # a page that may have no cookie: the codes must be told all the same
        started = None
    answer = EnrolledAnswer(codes, None if started is None else started.answer)
    response = web.Response(body=orjson.dumps(answer), status=201, headers=PRIVATE_HEADERS)
    if started is not None:
        started.dress(response)
    return response


# For both.


async def secret_in_force(
    connection: asyncpg.Connection, vault: Vault, staff_id: bytes, now: datetime
) -> tuple[str, list[str]]:
    """A second factor that counts at once, for whoever makes an account at the machine: its secret, and the
    recovery codes."""
    secret = await _new_secret(connection, vault, staff_id, now)
    await records.confirm(connection, staff_id, 0, now)
    codes = recovery_codes.new_codes()
    await records.replace_recovery_codes(connection, staff_id, list(map(_bare, codes)))
    return secret, codes


async def _proved(request: web.Request, staff: Staff, body: ProofBody) -> None:
    await proved(request, staff.username, body.password, body.otp, refused=Fault.PROOF_REFUSED)


async def _staff_of_step(connection: asyncpg.Connection, token: str, now: datetime, *, ends: bool) -> Staff:
    staff = await sign_ins.staff_of_step(connection, Step.SECOND_FACTOR, token.encode(), now, ends=ends)
    if staff is None:
        raise Problem(Fault.SIGN_IN_STEP_OVER)
    # Somebody else with the same password may have been quicker: this token must not replace theirs.
    factor = await records.load(connection, staff.id)
    if factor is not None and factor.sealed is not None:
        raise Problem(Fault.SIGN_IN_STEP_OVER)
    return staff


async def _propose(request: web.Request, connection: asyncpg.Connection, staff: Staff) -> EnrolmentAnswer:
    now = request.app[keys.TOKENS].now()
    secret = await _new_secret(connection, request.app[keys.VAULT], staff.id, now)
    await audited(request, connection, "second_factor_begun", object=_of(staff), by=_actor(staff))
    return EnrolmentAnswer(secret, totp.uri_of(secret, staff.username), int(PENDING.total_seconds()))


async def _new_secret(connection: asyncpg.Connection, vault: Vault, staff_id: bytes, now: datetime) -> str:
    factor = await records.load(connection, staff_id)
    if factor is None:
        key = vault.new_key(records.KEY_FIELD, staff_id)
    else:
        key = DataKey(records.KEY_FIELD, staff_id, factor.data_key)
    assert key.wrapped is not None
    secret = totp.new_secret()
    sealed = vault.seal(key, records.SECRET_FIELD, staff_id, secret)
    await records.propose(connection, staff_id, key.wrapped, sealed, now)
    return secret


async def _confirm(
    request: web.Request, connection: asyncpg.Connection, staff: Staff, code: str
) -> list[str]:
    now = request.app[keys.TOKENS].now()
    factor = await records.load(connection, staff.id)
    if factor is None or factor.pending is None or factor.pending_at is None:
        raise Problem(Fault.NO_PENDING_SECOND_FACTOR)
    if now - factor.pending_at >= PENDING:
        raise Problem(Fault.NO_PENDING_SECOND_FACTOR)
    key = DataKey(records.KEY_FIELD, staff.id, factor.data_key)
    secret = request.app[keys.VAULT].open(key, records.SECRET_FIELD, staff.id, factor.pending)
    step = None if secret is None else totp.step_of(secret, code.strip(), now, 0)
    if step is None:
        raise Problem(Fault.CODE_WRONG)
    await records.confirm(connection, staff.id, step, now)
    codes = await _new_recovery_codes(connection, staff)
    await audited(request, connection, "second_factor_confirmed", object=_of(staff), by=_actor(staff))
    return codes


async def _new_recovery_codes(connection: asyncpg.Connection, staff: Staff) -> list[str]:
    codes = recovery_codes.new_codes()
    await records.replace_recovery_codes(connection, staff.id, list(map(_bare, codes)))
    return codes


def _bare(code: str) -> str:
    return recovery_codes.normal(code) or ""


def _of(staff: Staff) -> tuple[str, str]:
    return "staff", str(UUID(bytes=staff.id))


def _actor(staff: Staff) -> Actor:
    return Actor("staff", staff.id, staff.username)
