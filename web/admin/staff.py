"""Staff accounts, with the powers apart (三员分立): the system administrator makes and disables accounts and
gives nobody a right; the security administrator gives rights and makes nobody. Neither does it to themselves.
"""

from datetime import UTC, datetime, tzinfo
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.records import administration as records
from engine.records import sessions, sign_ins
from engine.records.administration import Account
from engine.records.staff import (
    ADMINISTRATORS,
    Duties,
    NewStaff,
    StaffRefused,
    StaffRow,
    list_staff,
    set_duties,
)
from web import keys
from web.admin import bodies
from web.auditing import audited
from web.auth import Staff
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath
from web.patient.patients import new_id
from web.sign_in.password_rules import unfit
from web.sign_in.rules import rules_in


@api.route("GET", "/api/v1/admin/staff", zh="职工账号", tags=["admin"], errors=[Fault.DATABASE_DOWN])
async def list_staff_accounts(request: web.Request, *, query: bodies.StaffQuery) -> bodies.StaffListAnswer:
    """Everybody who may or might sign in, by user name."""
    async with request.app[keys.POOL].acquire() as connection:
        rows = await list_staff(connection)
    rest = [row for row in rows if query.after is None or row.staff.username > query.after]
    page = rest[: query.limit]
    zone, now = request.app[keys.ZONE], datetime.now(UTC)
    more = page[-1].staff.username if len(rest) > len(page) else None
    return bodies.StaffListAnswer([_answer(row, zone, now) for row in page], more)


@api.route(
    "POST",
    "/api/v1/admin/staff",
    zh="新建职工账号",
    status=201,
    tags=["admin"],
    errors=[Fault.STAFF_REFUSED, Fault.PASSWORD_UNFIT, Fault.DATABASE_DOWN],
)
async def add_staff_account(
    request: web.Request, *, staff: Staff, body: bodies.NewStaffBody
) -> bodies.StaffAnswer:
    """Makes an account that has no role yet, and opens next to nothing until the security administrator gives
    it one. Its password is changed at the first sign-in."""
    app = request.app
    if faults := unfit(body.password, rules_in(app).passwords, body.username, body.name):
        raise Problem(
            Fault.PASSWORD_UNFIT, errors=[Entry(["body", "password"], one.code, one.words) for one in faults]
        )
    now = datetime.now(UTC)
    hashed = await app[keys.PASSWORDS].hash_of(body.password)
    new = NewStaff(body.username, body.name, hashed, (), must_change_password=True)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        try:
            made = await records.make_account(connection, new, new_id(), staff.id, now)
        except StaffRefused as refused:
            raise _refused(refused) from None
        await audited(request, connection, "staff_added", object=("staff", uuid(made.id)))
    row = StaffRow(made, False, None, now, must_change_password=True)
    return _answer(row, app[keys.ZONE], now)


@api.route(
    "POST",
    "/api/v1/admin/staff/{id}/disable",
    zh="停用账号",
    status=204,
    tags=["admin"],
    errors=[Fault.NO_SUCH_STAFF, Fault.NOT_BY_ONESELF, Fault.ONLY_AT_THE_MACHINE, Fault.DATABASE_DOWN],
)
async def disable_staff_account(request: web.Request, *, staff: Staff, path: IdPath) -> None:
    """No sign-in any more; whoever is signed in is out within a second."""
    await _switch(request, staff, path.id.bytes, disabled=True)


@api.route(
    "POST",
    "/api/v1/admin/staff/{id}/enable",
    zh="启用账号",
    status=204,
    tags=["admin"],
    errors=[Fault.NO_SUCH_STAFF, Fault.NOT_BY_ONESELF, Fault.ONLY_AT_THE_MACHINE, Fault.DATABASE_DOWN],
)
async def enable_staff_account(request: web.Request, *, staff: Staff, path: IdPath) -> None:
    """They may sign in again, without a role: what they may do, the security administrator says anew."""
    await _switch(request, staff, path.id.bytes, disabled=False)


@api.route(
    "PUT",
    "/api/v1/admin/staff/{id}/roles",
    zh="授予岗位与范围",
    status=204,
    tags=["admin"],
    errors=[
        Fault.NO_SUCH_STAFF,
        Fault.NOT_BY_ONESELF,
        Fault.NOT_BY_MAKER,
        Fault.ONLY_AT_THE_MACHINE,
        Fault.STAFF_REFUSED,
        Fault.DATABASE_DOWN,
    ],
)
async def give_staff_roles(
    request: web.Request, *, staff: Staff, path: IdPath, body: bodies.RolesBody
) -> None:
    """Says all that somebody may do from now on; an empty list takes everything. Who made the account does
    not give it rights, and nobody gives any to themselves. They are signed out everywhere. Administrators
    are made and changed at the machine alone."""
    app = request.app
    duties = Duties(tuple(body.roles), body.practitioner_id, body.department_id, body.campus)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        account = await _other(connection, staff, path.id.bytes)
        if ADMINISTRATORS & {*account.staff.roles, *body.roles}:
            raise Problem(Fault.ONLY_AT_THE_MACHINE)
        if account.made_by == staff.id:
            raise Problem(Fault.NOT_BY_MAKER)
        try:
            now_has = await set_duties(connection, path.id.bytes, duties)
        except StaffRefused as refused:
            raise _refused(refused) from None
        await audited(
            request,
            connection,
            "staff_roles_given",
            object=("staff", uuid(path.id.bytes)),
            detail={
                "before": sorted(account.staff.roles),
                "after": sorted(now_has.roles),
                "department": now_has.department_id,
                "campus": now_has.campus,
                "practitioner": now_has.practitioner_id,
            },
        )


@api.route(
    "POST",
    "/api/v1/admin/staff/{id}/unlock",
    zh="解除登录锁定",
    status=204,
    tags=["admin"],
    errors=[Fault.NO_SUCH_STAFF, Fault.NOT_BY_ONESELF, Fault.DATABASE_DOWN],
)
async def unlock_staff_account(request: web.Request, *, staff: Staff, path: IdPath) -> None:
    """After too many wrong passwords or codes: they may try again at once, from everywhere."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        await _other(connection, staff, path.id.bytes)
        await sign_ins.unlock(connection, path.id.bytes)
        await audited(request, connection, "staff_unlocked", object=("staff", uuid(path.id.bytes)))


@api.route(
    "GET",
    "/api/v1/admin/staff/{id}/sessions",
    zh="职工的登录会话",
    tags=["admin"],
    errors=[Fault.NO_SUCH_STAFF, Fault.DATABASE_DOWN],
)
async def list_staff_sessions(request: web.Request, *, path: IdPath) -> bodies.StaffSessionsAnswer:
    """Where they are signed in, the last one used first."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        if await records.account_of(connection, path.id.bytes) is None:
            raise Problem(Fault.NO_SUCH_STAFF)
        found = await sessions.list_of_owner(connection, path.id.bytes, app[keys.TOKENS].now())
    zone = app[keys.ZONE]
    return bodies.StaffSessionsAnswer(
        [
            bodies.StaffSessionAnswer(
                uuid(one.id),
                one.transport,
                one.method,
                one.device,
                one.created_at.astimezone(zone),
                one.last_seen_at.astimezone(zone),
                one.ends_at.astimezone(zone),
            )
            for one in found
        ]
    )


@api.route(
    "DELETE",
    "/api/v1/admin/staff/{id}/sessions",
    zh="结束职工的全部会话",
    tags=["admin"],
    errors=[Fault.NO_SUCH_STAFF, Fault.NOT_BY_ONESELF, Fault.DATABASE_DOWN],
)
async def revoke_staff_sessions(request: web.Request, *, staff: Staff, path: IdPath) -> bodies.RevokedAnswer:
    """Signs them out everywhere, within a second."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await _other(connection, staff, path.id.bytes)
        revoked = await sessions.revoke_of_owner(
            connection, path.id.bytes, "by_admin", app[keys.TOKENS].now()
        )
        await audited(
            request,
            connection,
            "staff_sessions_revoked",
            object=("staff", uuid(path.id.bytes)),
            detail={"sessions": revoked},
        )
    return bodies.RevokedAnswer(revoked)


async def _switch(request: web.Request, staff: Staff, staff_id: bytes, *, disabled: bool) -> None:
    """Doing what is done already changes nothing."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        account = await _other(connection, staff, staff_id)
        if ADMINISTRATORS & account.staff.roles:
            raise Problem(Fault.ONLY_AT_THE_MACHINE)
        if account.is_demo and not disabled:  # everybody knows its password: `serve --demo` alone opens it
            raise Problem(Fault.NO_SUCH_STAFF)
        if account.disabled == disabled:
            return
        if not disabled:
            await set_duties(connection, staff_id, Duties(()))
        await records.set_disabled(connection, staff_id, disabled)
        await audited(
            request,
            connection,
            "staff_disabled" if disabled else "staff_enabled",
            object=("staff", uuid(staff_id)),
            detail={"before": sorted(account.staff.roles)},
        )


async def _other(connection: asyncpg.Connection, staff: Staff, staff_id: bytes) -> Account:
    """Somebody's account, and not one's own. Raises Problem."""
    if staff_id == staff.id:
        raise Problem(Fault.NOT_BY_ONESELF)
    found = await records.account_of(connection, staff_id)
    if found is None:
        raise Problem(Fault.NO_SUCH_STAFF)
    return found


def _refused(refused: StaffRefused) -> Problem:
    return Problem(Fault.STAFF_REFUSED, why="; ".join(refused.errors))


def _answer(row: StaffRow, zone: tzinfo, now: datetime) -> bodies.StaffAnswer:
    one = row.staff
    locked = row.locked_until if row.locked_until is not None and row.locked_until > now else None
    return bodies.StaffAnswer(
        str(UUID(bytes=one.id)),
        one.username,
        one.name,
        sorted(one.roles),  # type: ignore[arg-type]  # the schema knows no others
        one.practitioner_id,
        one.department_id,
        one.campus,
        row.disabled,
        None if locked is None else locked.astimezone(zone),
        row.has_second_factor,
        row.must_change_password,
        row.created_at.astimezone(zone),
    )
