"""Staff: who works at the hospital, and what they may do there.

Passwords come and go as hashes; web/passwords.py makes and checks them. How they sign in is in sign_ins.py.
Ids go in and come out as 16 bytes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.limits import NAME_CHARS_MAX
from engine.domain.policy import Channel
from engine.records.catalog import Department

PASSWORDS_KEPT: Final = 12  # hashes of earlier passwords
USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._\-]{0,63}")


class Role(StrEnum):
    DOCTOR = "doctor"
    NURSE = "nurse"  # runs the waiting room of a department: triage, order, calling
    DESK = "desk"
    SCHEDULE_OFFICE = "schedule_office"
    MANAGER = "manager"
    PARTNER = "partner"  # an outside system, such as the HIS
    KIOSK = "kiosk"  # a machine at which patients check in
    SCREEN = "screen"  # a call screen of a waiting zone or a door
    CASHIER = "cashier"
    PHARMACIST = "pharmacist"
    DEPARTMENT_HEAD = "department_head"  # a manager of one department, who may agree to its changes
    # The three administrators (三员分立): see ADMINISTRATORS.
    SYSTEM_ADMIN = "system_admin"  # accounts and settings, but nobody's roles
    SECURITY_ADMIN = "security_admin"  # roles, locks, sessions, break-glass
    AUDIT_ADMIN = "audit_admin"  # who alone reads the audit


ADMINISTRATORS: Final = frozenset((Role.SYSTEM_ADMIN, Role.SECURITY_ADMIN, Role.AUDIT_ADMIN))
"""Each is the only role of whoever has it: nobody makes an account, gives it rights and clears the trace."""


CHANNELS: Final[Mapping[str, Channel]] = {
    channel.name.lower(): channel
    for channel in (
        Channel.WINDOW,
        Channel.PHONE,
        Channel.REFERRAL,
        Channel.MANAGEMENT,
        Channel.DOCTOR,
        Channel.HIS,
        Channel.KIOSK,
    )
    if channel.name is not None
}
"""The channels that staff book through, by the words of the table and of the command line."""

CHANNEL_OF_ROLE: Final[Mapping[str, str]] = {
    Role.DOCTOR: "doctor",
    Role.NURSE: "window",
    Role.DESK: "window",
    Role.SCHEDULE_OFFICE: "management",
    Role.MANAGER: "management",
    Role.PARTNER: "his",
    Role.KIOSK: "kiosk",
    Role.SCREEN: "window",  # it books nothing, nor do those below
    Role.CASHIER: "window",
    Role.PHARMACIST: "window",
    Role.DEPARTMENT_HEAD: "management",
    Role.SYSTEM_ADMIN: "window",
    Role.SECURITY_ADMIN: "window",
    Role.AUDIT_ADMIN: "window",
}
"""Where nothing else was said. Of several roles the first one counts."""

_MANAGING: Final = frozenset((Role.DESK, Role.SCHEDULE_OFFICE, Role.MANAGER, Role.DEPARTMENT_HEAD))


@dataclass(frozen=True, slots=True)
class Staff:
    """One who works here, as their access token says it: it is minutes old at most."""

    id: bytes
    username: str
    name: str
    roles: frozenset[str]  # of Role
    practitioner_id: str | None  # the doctor that this is
    department_id: str | None  # what they look after, with what is below it; None: the whole hospital
    channel: Channel  # the one they book through
    campus: str | None = None  # where they work; None: everywhere


def looks_after(staff: Staff, department_id: str, departments: Mapping[str, Department]) -> bool:
    """Whether it is theirs or below theirs, and on their campus. `departments` is the catalog's."""
    department = departments.get(department_id)
    if staff.campus is not None and (department is None or department.campus != staff.campus):
        return False
    if staff.department_id is None or staff.department_id == department_id:
        return True
    return department is not None and department.parent_id == staff.department_id


def may_manage(
    staff: Staff, department_id: str, practitioner_id: str, departments: Mapping[str, Department]
) -> bool:
    """Whether this practitioner's days in this department are theirs to change.

    A doctor's own days are; a desk, the schedule office and managers have those of their department and of
    the departments below it. `departments` is the catalog's.
    """
    if Role.DOCTOR in staff.roles and staff.practitioner_id == practitioner_id:
        return True
    return bool(staff.roles & _MANAGING) and looks_after(staff, department_id, departments)


def agrees(staff: Staff, role: str) -> bool:
    """Whether a change for which the policy wants this role's consent has it from them: heads of departments
    agree to the changes of theirs, whichever role is named."""
    return role in staff.roles or Role.DEPARTMENT_HEAD in staff.roles


def faults_of_roles(
    roles: Collection[str], practitioner_id: str | None, department_id: str | None
) -> list[str]:
    """What keeps somebody from having just these roles, one line each; none where nothing does."""
    known = set(Role)
    choice = ", ".join(Role)
    errors = [f"no role is called {role!r}: choose of {choice}" for role in roles if role not in known]
    if (administers := ADMINISTRATORS.intersection(roles)) and len(set(roles)) > 1:
        errors.append(
            f"{' and '.join(sorted(administers))}: an administrator is nothing else beside: give the other"
            " roles to another person"
        )
    if Role.DOCTOR in roles and practitioner_id is None:
        errors.append("a doctor needs a practitioner: say which one this is")
    if Role.DEPARTMENT_HEAD in roles and department_id is None:
        errors.append("a department_head needs a department: say which one")
    return errors


def channel_of(roles: Sequence[str]) -> str:
    """What they book through where nothing else was said."""
    return CHANNEL_OF_ROLE[roles[0]] if roles else "window"


@dataclass(frozen=True, slots=True)
class NewStaff:
    username: str
    name: str
    password_hash: str
    roles: tuple[str, ...]
    practitioner_id: str | None = None
    department_id: str | None = None
    channel: str | None = None  # a word of CHANNELS; None: the first role's
    is_demo: bool = False
    campus: str | None = None
    must_change_password: bool = False  # at the first sign-in: somebody else chose it


@dataclass(frozen=True, slots=True)
class StaffRow:
    """What an administrator sees of one account."""

    staff: Staff
    disabled: bool
    locked_until: datetime | None
    """The end of the latest lock, wherever it is: there may be none at the address that they use."""
    created_at: datetime
    has_second_factor: bool = False
    must_change_password: bool = False


class StaffRefused(Exception):
    """Nothing was changed. One line for each thing that is wrong, each saying what to do."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


COLUMNS: Final = "id, username, name, roles, practitioner_id, department_id, channel, campus"


async def add_staff(
    connection: asyncpg.Connection, new: NewStaff, new_id: bytes, now: datetime, *, roles_later: bool = False
) -> Staff:
    """Makes a staff account. Raises StaffRefused with everything that is wrong.

    With `roles_later` it may have no role yet, and opens next to nothing until somebody else gives it one."""
    errors = [
        *_faults(new),
        *await _faults_of_ids(connection, new.practitioner_id, new.department_id, new.campus),
    ]
    if not new.roles and not roles_later:
        errors.append(f"no role: give at least one of {', '.join(Role)}")
    if errors:
        raise StaffRefused(errors)
    row = await connection.fetchrow(
        "insert into staff (id, username, name, password_hash, roles, practitioner_id, department_id,"
        " channel, is_demo, created_at, campus, must_change_password)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        f" on conflict (username) do nothing returning {COLUMNS}",
        UUID(bytes=new_id),
        new.username,
        new.name,
        new.password_hash,
        list(dict.fromkeys(new.roles)),
        new.practitioner_id,
        new.department_id,
        new.channel or channel_of(new.roles),
        new.is_demo,
        now,
        new.campus,
        new.must_change_password,
    )
    if row is None:
        raise StaffRefused([f"the username {new.username} is taken: choose another"])
    return staff_of_row(row)


def _faults(new: NewStaff) -> list[str]:
    errors = []
    if not USERNAME.fullmatch(new.username):
        errors.append(
            f"username {new.username!r}: 1 to 64 of a-z, 0-9, '.', '-' and '_', of which the first is"
            " a letter or a digit"
        )
    if not 0 < len(new.name) <= NAME_CHARS_MAX or not new.name.isprintable() or new.name.strip() != new.name:
        errors.append(f"name {new.name!r}: 1 to {NAME_CHARS_MAX} printable characters")
    if new.channel is not None and new.channel not in CHANNELS:
        errors.append(f"no channel is called {new.channel!r}: choose of {', '.join(CHANNELS)}")
    errors += faults_of_roles(new.roles, new.practitioner_id, new.department_id)
    if new.roles and Role.DOCTOR not in new.roles and new.practitioner_id is not None:
        errors.append("a practitioner is given, but not the role doctor: leave it out or add the role")
    return errors


async def _faults_of_ids(
    connection: asyncpg.Connection, practitioner_id: str | None, department_id: str | None, campus: str | None
) -> list[str]:
    errors = []
    for kind, id_ in (("practitioner", practitioner_id), ("department", department_id)):
        if id_ is not None and (
            not id_.isprintable()
            or not await connection.fetchval(f"select true from {kind} where id = $1", id_)
        ):
            errors.append(f"no {kind} has the id {id_!r}: look in the hospital's {kind}s.csv")
    if campus is not None and (
        not campus.isprintable()
        or not await connection.fetchval("select true from department where campus = $1 limit 1", campus)
    ):
        errors.append(f"no department is on the campus {campus!r}: look in the hospital's departments.csv")
    return errors


@dataclass(frozen=True, slots=True)
class Duties:
    """What somebody is there for."""

    roles: tuple[str, ...]
    practitioner_id: str | None = None
    department_id: str | None = None
    campus: str | None = None
    channel: str | None = None  # a word of CHANNELS; None: the first role's


async def set_duties(connection: asyncpg.Connection, staff_id: bytes, duties: Duties) -> Staff:
    """These instead of all that they had. Raises StaffRefused with everything that is wrong."""
    errors = faults_of_roles(duties.roles, duties.practitioner_id, duties.department_id)
    if duties.practitioner_id is not None and Role.DOCTOR not in duties.roles:
        errors.append("a practitioner is given, but not the role doctor: leave it out or add the role")
    if duties.channel is not None and duties.channel not in CHANNELS:
        errors.append(f"no channel is called {duties.channel!r}: choose of {', '.join(CHANNELS)}")
    errors += await _faults_of_ids(connection, duties.practitioner_id, duties.department_id, duties.campus)
    if errors:
        raise StaffRefused(errors)
    row = await connection.fetchrow(
        "update staff set roles = $2, practitioner_id = $3, department_id = $4, campus = $5, channel = $6"
        f" where id = $1 returning {COLUMNS}",
        UUID(bytes=staff_id),
        list(dict.fromkeys(duties.roles)),
        duties.practitioner_id,
        duties.department_id,
        duties.campus,
        duties.channel or channel_of(duties.roles),
    )
    if row is None:
        raise StaffRefused(["there is no such account"])
    return staff_of_row(row)


async def list_staff(connection: asyncpg.Connection) -> list[StaffRow]:
    rows = await connection.fetch(
        f"select {COLUMNS}, disabled, created_at, must_change_password,"
        " greatest(locked_until,"
        "   (select max(a.locked_until) from sign_in_address a where a.staff_id = staff.id),"
        "   (select f.locked_until from second_factor f where f.staff_id = staff.id)) as locked_until,"
        " exists (select from second_factor f where f.staff_id = staff.id and f.sealed is not null)"
        " as has_factor from staff order by username"
    )
    return [
        StaffRow(
            staff_of_row(row),
            row["disabled"],
            row["locked_until"],
            row["created_at"],
            row["has_factor"],
            row["must_change_password"],
        )
        for row in rows
    ]


async def disable_staff(connection: asyncpg.Connection, username: str) -> None:
    """No sign-in and no refresh from now on; an access token lives out its minutes. Raises StaffRefused."""
    found = USERNAME.fullmatch(username) and await connection.fetchval(
        "update staff set disabled = true where username = $1 returning true", username
    )
    if not found:
        raise _nobody(username)


async def enable_staff(connection: asyncpg.Connection, username: str) -> None:
    """They may sign in again, with the password that they had. Raises StaffRefused."""
    found = USERNAME.fullmatch(username) and await connection.fetchval(
        "update staff set disabled = false where username = $1 and not is_demo returning true", username
    )
    if not found:
        raise _nobody(username)


async def staff_of_username(connection: asyncpg.Connection, username: str) -> Staff:
    """Also who is disabled. Raises StaffRefused."""
    row = None
    if USERNAME.fullmatch(username):
        row = await connection.fetchrow(f"select {COLUMNS} from staff where username = $1", username)
    if row is None:
        raise _nobody(username)
    return staff_of_row(row)


def _nobody(username: str) -> StaffRefused:
    return StaffRefused([f"nobody has the username {username!r}: see `xinglin staff list`"])


@dataclass(frozen=True, slots=True)
class PasswordState:
    """What a change of a password looks at."""

    password_hash: str
    old_hashes: tuple[str, ...]  # the newest first


async def password_of(connection: asyncpg.Connection, staff_id: bytes) -> PasswordState | None:
    row = await connection.fetchrow(
        "select password_hash, old_password_hashes from staff where id = $1", UUID(bytes=staff_id)
    )
    return None if row is None else PasswordState(row["password_hash"], tuple(row["old_password_hashes"]))


async def set_password(
    connection: asyncpg.Connection, staff_id: bytes, new_hash: str, now: datetime, *, must_change: bool
) -> None:
    """The one before becomes an old one, and what it had begun to open is over. `must_change`: somebody else
    chose this one."""
    await connection.execute("delete from sign_in_step where staff_id = $1", UUID(bytes=staff_id))
    await connection.execute(
        "update staff set old_password_hashes = (password_hash || old_password_hashes)[1:$5],"
        " password_hash = $2, password_set_at = $3, must_change_password = $4 where id = $1",
        UUID(bytes=staff_id),
        new_hash,
        now,
        must_change,
        PASSWORDS_KEPT,
    )


async def rehash(connection: asyncpg.Connection, staff_id: bytes, old_hash: str, new_hash: str) -> None:
    """The same password, hashed as it is done today; nothing where it was changed meanwhile."""
    await connection.execute(
        "update staff set password_hash = $3 where id = $1 and password_hash = $2",
        UUID(bytes=staff_id),
        old_hash,
        new_hash,
    )


async def staff_of_id(connection: asyncpg.Connection, staff_id: bytes) -> Staff | None:
    """As they are now; None when they are disabled or gone."""
    row = await connection.fetchrow(
        f"select {COLUMNS} from staff where id = $1 and not disabled", UUID(bytes=staff_id)
    )
    return None if row is None else staff_of_row(row)


def staff_of_row(row: asyncpg.Record) -> Staff:
    """Of a row with COLUMNS."""
    return Staff(
        row["id"].bytes,
        row["username"],
        row["name"],
        frozenset(row["roles"]),
        row["practitioner_id"],
        row["department_id"],
        CHANNELS[row["channel"]],
        row["campus"],
    )
