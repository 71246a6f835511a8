"""What administrators do for who cannot sign in: a new password, or a second factor that is set up anew.

Never both by the same person: with a password of one's own choice and no second factor one is somebody
else. So the system's administrator sets passwords, and the security administrator takes second factors
away. Neither does it to an administrator: that is done at the machine (`xinglin staff`).
"""

from typing import Annotated

import asyncpg
from aiohttp import web
from pydantic import Field

from engine.records import second_factors, sessions
from engine.records import staff as staff_records
from engine.records.administration import Account, account_of
from engine.records.staff import ADMINISTRATORS, Staff
from web import keys
from web.auditing import audited
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.passwords import PASSWORD_CHARS_MAX
from web.patient.bodies import IdPath, Request
from web.sign_in.own_password import faults_of_new
from web.sign_in.rules import is_device, rules_in


class NewPasswordBody(Request):
    """首次密码，本人登录后须更换 / a first one: they choose another at the next sign-in."""

    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARS_MAX)]


@api.route(
    "POST",
    "/api/v1/admin/staff/{id}/password",
    zh="重置职工密码",
    status=204,
    tags=["admin"],
    errors=[
        Fault.NO_SUCH_STAFF,
        Fault.NOT_BY_ONESELF,
        Fault.ONLY_AT_THE_MACHINE,
        Fault.PASSWORD_UNFIT,
        Fault.UNSUPPORTED_GRANT,
        Fault.DATABASE_DOWN,
    ],
)
async def set_staff_password(
    request: web.Request, *, staff: Staff, path: IdPath, body: NewPasswordBody
) -> None:
    """Gives somebody a new password, to be changed at the next sign-in. They are signed out everywhere."""
    passwords = request.app.get(keys.PASSWORDS)
    if passwords is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    id_ = path.id.bytes
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        one = (await _other(connection, staff, id_)).staff
        state = await staff_records.password_of(connection, id_)
    if state is None:
        raise Problem(Fault.NO_SUCH_STAFF)
    faults = await faults_of_new(passwords, rules_in(request.app).passwords, one, state, body.password)
    if faults:
        entries = [Entry(["body", "password"], fault.code, fault.words) for fault in faults]
        raise Problem(Fault.PASSWORD_UNFIT, errors=entries)
    made = await passwords.hash_of(body.password)
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        one = (await _other(connection, staff, id_)).staff  # their rights may be others by now
        await staff_records.set_password(connection, id_, made, now, must_change=not is_device(one))
        await audited(request, connection, "password_set", object=("staff", str(path.id)))


@api.route(
    "POST",
    "/api/v1/admin/staff/{id}/second-factor/reset",
    zh="解除职工的身份验证器",
    status=204,
    tags=["admin"],
    errors=[
        Fault.NO_SUCH_STAFF,
        Fault.NOT_BY_ONESELF,
        Fault.ONLY_AT_THE_MACHINE,
        Fault.NO_SECOND_FACTOR,
        Fault.DATABASE_DOWN,
    ],
)
async def reset_staff_second_factor(request: web.Request, *, staff: Staff, path: IdPath) -> None:
    """For who has lost telephone and recovery codes: the next sign-in sets up another. They are signed out
    everywhere. Make sure first that it is they who ask."""
    id_ = path.id.bytes
    now = request.app[keys.TOKENS].now()
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        await _other(connection, staff, id_)
        if not await second_factors.remove(connection, id_):
            raise Problem(Fault.NO_SECOND_FACTOR)
        await sessions.revoke_of_owner(connection, id_, "rights_changed", now)
        await audited(request, connection, "second_factor_reset", object=("staff", str(path.id)))


async def _other(connection: asyncpg.Connection, staff: Staff, staff_id: bytes) -> Account:
    """Somebody's account, not one's own and no administrator's. Locked until the transaction ends."""
    if staff_id == staff.id:
        raise Problem(Fault.NOT_BY_ONESELF)
    found = await account_of(connection, staff_id)
    if found is None:
        raise Problem(Fault.NO_SUCH_STAFF)
    if ADMINISTRATORS & found.staff.roles:
        raise Problem(Fault.ONLY_AT_THE_MACHINE)
    return found
