"""That it is who they say: a password, and a code where there is a second factor.

Whatever is wrong (no such name, disabled, locked, mistyped, a wrong code), the answer is the same after the
same work: one count in the database, one Argon2id check, one line in the audit. Only who has shown the
right password hears that a code is missing.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.audit.entries import Actor
from engine.records import second_factors, sessions, sign_ins
from engine.records import staff as staff_records
from engine.records.sign_ins import Attempt
from engine.records.staff import Staff
from engine.vault.vault import DataKey
from web import keys
from web.auditing import audited
from web.client_address import client_of
from web.errors import Problem
from web.faults import Fault
from web.passwords import TooManySignIns, is_outdated
from web.sign_in import recovery_codes, totp

_NO_ADDRESS: Final = "local"


@dataclass(frozen=True, slots=True)
class Proved:
    staff: Staff
    has_factor: bool
    must_change_password: bool
    password_set_at: datetime | None


async def proved(
    request: web.Request,
    username: str,
    password: str,
    otp: str | None,
    *,
    refused: Fault = Fault.SIGN_IN_REFUSED,
    asks_code: bool = True,
) -> Proved:
    """Raises Problem: `refused`; otp_needed; sign_in_unavailable when too many ask; unsupported_grant.

    `asks_code`: False where a session has shown it already.
    """
    passwords = request.app.get(keys.PASSWORDS)
    if passwords is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    pool = request.app[keys.POOL]
    now = request.app[keys.TOKENS].now()
    client = client_of(request)
    address = client.counted_as or client.address or _NO_ADDRESS
    username = username.strip().lower()
    try:
        # By address as well: who tries another one's name all day from elsewhere is not in their way.
        async with passwords.turn(f"{username} {address}"):
            async with pool.acquire() as connection:
                attempt = await sign_ins.begin(connection, username, address, now)
            is_fitting = await passwords.fits(password, attempt.password_hash)
            async with pool.acquire() as connection, connection.transaction():
                judged = await _judged(request, connection, attempt, is_fitting, otp, asks_code, now)
            if isinstance(judged, Staff) and attempt.password_hash and is_outdated(attempt.password_hash):
                made = await passwords.hash_of(password)
                async with pool.acquire() as connection, connection.transaction():
                    await sessions.spare_all(connection)
                    await staff_records.rehash(connection, judged.id, attempt.password_hash, made)
    except TooManySignIns:
        raise Problem(Fault.SIGN_IN_UNAVAILABLE) from None
    if not isinstance(judged, Staff):
        raise Problem(refused if judged is Fault.SIGN_IN_REFUSED else judged)
    return Proved(judged, attempt.has_factor, attempt.must_change_password, attempt.password_set_at)


async def _judged(
    request: web.Request,
    connection: asyncpg.Connection,
    attempt: Attempt,
    is_fitting: bool,
    otp: str | None,
    asks_code: bool,
    now: datetime,
) -> Staff | Fault:
    """Never raises for what is wrong: what was counted and noted must be kept."""
    staff = attempt.staff
    if staff is None or not is_fitting:
        return await _refused(request, connection, attempt, "password")
    recovery_code = None if otp is None else recovery_codes.normal(otp)
    opens_locks = asks_code and attempt.has_factor and recovery_code is not None
    if attempt.is_locked and not opens_locks:
        return await _refused(request, connection, attempt, "locked")
    if asks_code and attempt.has_factor:
        if otp is None:
            await sign_ins.take_back(connection, attempt)
            return Fault.OTP_NEEDED
        if not await is_shown(request, connection, staff.id, otp, now):
            return await _refused(request, connection, attempt, "code")
        if recovery_code is not None:
            by, account = Actor("staff", staff.id, staff.username), ("staff", str(UUID(bytes=staff.id)))
            await audited(request, connection, "recovery_code_used", object=account, by=by)
    return await sign_ins.succeed(connection, attempt, now) or Fault.SIGN_IN_REFUSED


async def is_shown(
    request: web.Request, connection: asyncpg.Connection, staff_id: bytes, otp: str, now: datetime
) -> bool:
    """Whether this is a code of theirs that was not used yet; from now on it is. A wrong one is counted."""
    factor = await second_factors.load(connection, staff_id)
    if factor is None or factor.sealed is None:
        return False
    recovery_code = recovery_codes.normal(otp)
    if recovery_code is not None:
        if await second_factors.use_recovery_code(connection, staff_id, recovery_code, now):
            return True
    elif not second_factors.is_locked_out(factor, now):
        key = DataKey(second_factors.KEY_FIELD, staff_id, factor.data_key)
        secret = request.app[keys.VAULT].open(key, second_factors.SECRET_FIELD, staff_id, factor.sealed)
        step = None if secret is None else totp.step_of(secret, otp.strip(), now, factor.last_step)
        if step is not None and await second_factors.use_step(connection, staff_id, step):
            return True
    await second_factors.count_failure(connection, factor, now)
    return False


async def _refused(request: web.Request, connection: asyncpg.Connection, attempt: Attempt, why: str) -> Fault:
    # A name that was locked before is not noted again: a flood fills no audit.
    if not attempt.is_locked:
        # Whose account was tried; nobody knows who tried it, unless they are signed in. Never the name
        # that was typed: it may be a password in the wrong box.
        account = None if attempt.staff is None else ("staff", str(UUID(bytes=attempt.staff.id)))
        await audited(
            request, connection, "sign_in_refused", object=account, outcome="refused", detail={"why": why}
        )
    return Fault.SIGN_IN_REFUSED
