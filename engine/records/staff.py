"""Staff: who works at the hospital, what they may do there, and how often they mistyped their password.

Passwords come and go as hashes; web/passwords.py makes and checks them. Ids go in and come out as 16 bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.limits import NAME_CHARS_MAX
from engine.domain.policy import Channel
from engine.records.catalog import Department

FAILURES_MAX: Final = 5  # wrong passwords in a row; then nobody gets in for LOCK
LOCK: Final = timedelta(minutes=15)
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
    Role.SCREEN: "window",  # it books nothing
}
"""Where nothing else was said. Of several roles the first one counts."""

_MANAGING: Final = frozenset((Role.DESK, Role.SCHEDULE_OFFICE, Role.MANAGER))


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


def may_manage(
    staff: Staff, department_id: str, practitioner_id: str, departments: Mapping[str, Department]
) -> bool:
    """Whether this practitioner's days in this department are theirs to change.

    A doctor's own days are; a desk, the schedule office and managers have those of their department and of
    the departments below it. `departments` is the catalog's.
    """
    if Role.DOCTOR in staff.roles and staff.practitioner_id == practitioner_id:
        return True
    if not staff.roles & _MANAGING:
        return False
    if staff.department_id is None or staff.department_id == department_id:
        return True
    department = departments.get(department_id)
    return department is not None and department.parent_id == staff.department_id


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


@dataclass(frozen=True, slots=True)
class StaffRow:
    """What an administrator sees of one account."""

    staff: Staff
    disabled: bool
    locked_until: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in that may go on: whose it is, and the hash that the password must fit."""

    staff: Staff
    password_hash: str


class StaffRefused(Exception):
    """Nothing was changed. One line for each thing that is wrong, each saying what to do."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


_COLUMNS: Final = "id, username, name, roles, practitioner_id, department_id, channel"


async def add_staff(connection: asyncpg.Connection, new: NewStaff, new_id: bytes, now: datetime) -> Staff:
    """Makes a staff account. Raises StaffRefused with everything that is wrong."""
    errors = [*_faults(new), *await _faults_of_ids(connection, new)]
    if errors:
        raise StaffRefused(errors)
    row = await connection.fetchrow(
        "insert into staff (id, username, name, password_hash, roles, practitioner_id, department_id,"
        " channel, is_demo, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        f" on conflict (username) do nothing returning {_COLUMNS}",
        UUID(bytes=new_id),
        new.username,
        new.name,
        new.password_hash,
        list(dict.fromkeys(new.roles)),
        new.practitioner_id,
        new.department_id,
        new.channel or CHANNEL_OF_ROLE[new.roles[0]],
        new.is_demo,
        now,
    )
    if row is None:
        raise StaffRefused([f"the username {new.username} is taken: choose another"])
    return _staff(row)


def _faults(new: NewStaff) -> list[str]:
    errors = []
    if not USERNAME.fullmatch(new.username):
        errors.append(
            f"username {new.username!r}: 1 to 64 of a-z, 0-9, '.', '-' and '_', of which the first is"
            " a letter or a digit"
        )
    if not 0 < len(new.name) <= NAME_CHARS_MAX or not new.name.isprintable() or new.name.strip() != new.name:
        errors.append(f"name {new.name!r}: 1 to {NAME_CHARS_MAX} printable characters")
    if not new.roles:
        errors.append(f"no role: give at least one of {', '.join(Role)}")
    errors += [
        f"no role is called {role!r}: choose of {', '.join(Role)}"
        for role in new.roles
        if role not in set(Role)
    ]
    if new.channel is not None and new.channel not in CHANNELS:
        errors.append(f"no channel is called {new.channel!r}: choose of {', '.join(CHANNELS)}")
    if Role.DOCTOR in new.roles and new.practitioner_id is None:
        errors.append("a doctor needs a practitioner: say which one this is")
    if Role.DOCTOR not in new.roles and new.practitioner_id is not None:
        errors.append("a practitioner is given, but not the role doctor: leave it out or add the role")
    return errors


async def _faults_of_ids(connection: asyncpg.Connection, new: NewStaff) -> list[str]:
    errors = []
    for kind, id_ in (("practitioner", new.practitioner_id), ("department", new.department_id)):
        if id_ is not None and (
            not id_.isprintable()
            or not await connection.fetchval(f"select true from {kind} where id = $1", id_)
        ):
            errors.append(f"no {kind} has the id {id_!r}: look in the hospital's {kind}s.csv")
    return errors


async def list_staff(connection: asyncpg.Connection) -> list[StaffRow]:
    rows = await connection.fetch(
        f"select {_COLUMNS}, disabled, locked_until, created_at from staff order by username"
    )
    return [StaffRow(_staff(row), row["disabled"], row["locked_until"], row["created_at"]) for row in rows]


async def disable_staff(connection: asyncpg.Connection, username: str) -> None:
    """No sign-in and no refresh from now on; an access token lives out its minutes. Raises StaffRefused."""
    found = USERNAME.fullmatch(username) and await connection.fetchval(
        "update staff set disabled = true where username = $1 returning true", username
    )
    if not found:
        raise StaffRefused([f"nobody has the username {username!r}: see `xinglin staff list`"])


async def staff_of_id(connection: asyncpg.Connection, staff_id: bytes) -> Staff | None:
    """As they are now; None when they are disabled or gone."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from staff where id = $1 and not disabled", UUID(bytes=staff_id)
    )
    return None if row is None else _staff(row)


async def begin_sign_in(connection: asyncpg.Connection, username: str, now: datetime) -> Attempt | None:
    """Counts a failure before the password is looked at, and takes it back in `end_sign_in`.

    So a thousand guesses sent at one instant are no more than FAILURES_MAX guesses, and a process that dies
    between the two has counted. None: nobody of this name may sign in now.
    """
    row = await connection.fetchrow(
        "update staff set"
        # A lock that has passed begins a new count.
        " failed_count = case when locked_until is null then failed_count else 0 end + 1,"
        " locked_until = case when case when locked_until is null then failed_count else 0 end + 1 >= $3"
        "                then $4::timestamptz end"
        " where username = $1 and not disabled and (locked_until is null or locked_until <= $2)"
        f" returning {_COLUMNS}, password_hash",
        username,
        now,
        FAILURES_MAX,
        now + LOCK,
    )
    return None if row is None else Attempt(_staff(row), row["password_hash"])


async def end_sign_in(connection: asyncpg.Connection, staff_id: bytes) -> Staff | None:
    """The password was right: no failure counts any more. None when they were disabled meanwhile."""
    row = await connection.fetchrow(
        "update staff set failed_count = 0, locked_until = null"
        f" where id = $1 and not disabled returning {_COLUMNS}",
        UUID(bytes=staff_id),
    )
    return None if row is None else _staff(row)


def _staff(row: asyncpg.Record) -> Staff:
    return Staff(
        row["id"].bytes,
        row["username"],
        row["name"],
        frozenset(row["roles"]),
        row["practitioner_id"],
        row["department_id"],
        CHANNELS[row["channel"]],
    )
