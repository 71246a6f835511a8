"""`xinglin staff`: who of the hospital may sign in. Beside a running server or before the first one."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.records.staff import Staff
from engine.settings import Settings
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

T = TypeVar("T")

_USERNAME: Final = click.option("--username", required=True)
_KEEP_PASSWORD: Final = click.option(
    "--keep-password", is_flag=True, help="They need not choose another one at the next sign-in."
)


@click.group()
def staff() -> None:
    """Those who sign in with a password: their accounts, roles, passwords and locks."""


@staff.command()
@click.option("--username", required=True, help="a-z, 0-9, '.', '-' and '_'.")
@click.option("--name", required=True, help="As others see it.")
@click.option(
    "--role",
    "roles",
    required=True,
    multiple=True,
    help="doctor, nurse, desk, schedule_office, manager, partner (an outside system), …; may be repeated.",
)
@click.option("--practitioner", "practitioner_id", help="Which doctor this is.")
@click.option(
    "--department", "department_id", help="What they look after, with all below it.  [default: all]"
)
@click.option(
    "--channel",
    help="What they book through: window, phone, referral, management, doctor or his."
    "  [default: the first role's]",
)
@click.option("--campus", help="Where they work.  [default: everywhere]")
@_KEEP_PASSWORD
@HOME
@DATABASE_URL
def add(
    home: Path | None, database_url: str | None, username: str, keep_password: bool, **given: Any
) -> None:
    """Make an account.

    The password is asked for, or read from the first line of standard input where that is no terminal.
    Whoever it is for chooses another one at the first sign-in; machines do not.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records.staff import NewStaff, add_staff
    from web.patient.patients import new_id
    from web.sign_in.rules import are_of_a_device

    settings = settings_of({"home": home, "database_url": database_url})
    new = NewStaff(
        username.lower(),
        password_hash=password_hash(settings, username.lower(), given["name"]),
        must_change_password=not keep_password and not are_of_a_device(frozenset(given["roles"])),
        **given,
    )

    async def work(connection: asyncpg.Connection) -> Staff:
        async with connection.transaction():
            made = await add_staff(connection, new, new_id(), datetime.now(UTC))
            await write(
                connection,
                Entry(
                    "staff_added",
                    operator(),
                    object=("staff", str(UUID(bytes=made.id))),
                    detail={"username": made.username, "roles": sorted(made.roles)},
                ),
            )
        return made

    made = with_accounts(settings, work)
    click.echo(f"{made.username} may sign in as {', '.join(sorted(made.roles))}")


@staff.command("list")
@HOME
@DATABASE_URL
def list_(**given: Any) -> None:
    """Show all accounts."""
    from engine.records.staff import list_staff

    rows = with_accounts(settings_of(given), list_staff)
    table = Table(
        "username", "name", "roles", "practitioner", "department", "channel", "2FA", "state", box=None
    )
    now = datetime.now(UTC)
    for row in rows:
        one = row.staff
        if row.disabled:
            state = "disabled"
        elif row.locked_until is not None and row.locked_until > now:
            state = f"locked somewhere until {row.locked_until.astimezone():%H:%M}"
        elif row.must_change_password:
            state = "must change the password"
        else:
            state = "active"
        table.add_row(
            one.username,
            one.name,
            ", ".join(sorted(one.roles)),
            one.practitioner_id or "",
            one.department_id or "all",
            (one.channel.name or "").lower(),
            "yes" if row.has_second_factor else "no",
            state,
        )
    Console().print(table)


@staff.command()
@_USERNAME
@HOME
@DATABASE_URL
def disable(username: str, **given: Any) -> None:
    """No sign-in for them any more; where they are signed in, they are out within a second."""
    from engine.records.staff import disable_staff

    _changed(
        given, username, "staff_disabled", lambda connection, one: disable_staff(connection, one.username)
    )
    click.echo(f"{username.lower()} is disabled")


@staff.command()
@_USERNAME
@HOME
@DATABASE_URL
def enable(username: str, **given: Any) -> None:
    """They may sign in again, with the password that they had."""
    from engine.records.staff import enable_staff

    _changed(given, username, "staff_enabled", lambda connection, one: enable_staff(connection, one.username))
    click.echo(f"{username.lower()} may sign in again")


@staff.command()
@_USERNAME
@HOME
@DATABASE_URL
def unlock(username: str, **given: Any) -> None:
    """Forget wrong passwords and codes: they may try again at once, from everywhere."""
    from engine.records.sign_ins import unlock as unlocked

    _changed(given, username, "staff_unlocked", lambda connection, one: unlocked(connection, one.id))
    click.echo(f"{username.lower()} is locked nowhere")


@staff.command("reset-second-factor")
@_USERNAME
@HOME
@DATABASE_URL
def reset_second_factor(username: str, **given: Any) -> None:
    """Who has lost telephone and recovery codes sets up another at the next sign-in.

    They are signed out everywhere. Make sure that it is they who ask.
    """
    from engine.records import second_factors, sessions
    from engine.records.staff import StaffRefused

    async def work(connection: asyncpg.Connection, one: Staff) -> None:
        if not await second_factors.remove(connection, one.id):
            raise StaffRefused([f"{one.username} has no second factor"])
        await sessions.revoke_of_owner(connection, one.id, "rights_changed", datetime.now(UTC))

    _changed(given, username, "second_factor_reset", work)
    click.echo(f"{username.lower()} has no second factor now")


@staff.command("set-password")
@_USERNAME
@_KEEP_PASSWORD
@HOME
@DATABASE_URL
def set_password_(username: str, keep_password: bool, **given: Any) -> None:
    """Give them a new password; at the next sign-in they choose their own.

    It is asked for, or read from the first line of standard input. They are signed out everywhere.
    """
    from engine.records.staff import set_password
    from web.sign_in.rules import is_device

    settings = settings_of(given)
    one = with_accounts(settings, lambda connection: _found(connection, username))
    made = password_hash(settings, one.username, one.name)
    must_change = not keep_password and not is_device(one)

    async def work(connection: asyncpg.Connection, one: Staff) -> None:
        await set_password(connection, one.id, made, datetime.now(UTC), must_change=must_change)

    _changed(given, username, "password_set", work)
    click.echo(f"{one.username} has a new password")


@staff.command()
@_USERNAME
@click.option("--role", "roles", required=True, multiple=True, help="All that they have from now on.")
@click.option("--practitioner", "practitioner_id", help="Which doctor this is.")
@click.option("--department", "department_id", help="What they look after.  [default: all]")
@click.option("--campus", help="Where they work.  [default: everywhere]")
@HOME
@DATABASE_URL
def roles(
    username: str,
    roles: tuple[str, ...],
    practitioner_id: str | None,
    department_id: str | None,
    campus: str | None,
    **given: Any,
) -> None:
    """Give them these roles instead of those that they have. They are signed out everywhere."""
    from engine.records.staff import Duties, set_duties

    duties = Duties(roles, practitioner_id, department_id, campus)

    async def work(connection: asyncpg.Connection, one: Staff) -> None:
        await set_duties(connection, one.id, duties)

    _changed(given, username, "roles_changed", work, {"roles": sorted(set(roles))})
    click.echo(f"{username.lower()} may sign in as {', '.join(sorted(set(roles)))}")


def password_hash(settings: Settings, username: str, name: str, whose: str = "Password") -> str:
    """Of what is typed. Never an argument: those can be read by everybody on the machine, and shells remember
    them. Ends the command when it will not do."""
    from web.faults import INVALID
    from web.passwords import hash_of
    from web.sign_in.password_rules import unfit
    from web.sign_in.rules import rules_of

    try:
        rules = rules_of(settings).passwords
    except (OSError, UnicodeDecodeError) as error:
        fail(f"the list of passwords {settings.password_list}: {error}")
    given = _typed(whose)
    faults = unfit(given, rules, username, name)
    for fault in faults:
        click.echo(f"the password {INVALID[fault.code].en.format_map(fault.words)}", err=True)
    if faults:
        fail("nothing was changed")
    return hash_of(given)


def _typed(whose: str) -> str:
    if sys.stdin.isatty():
        given: str = click.prompt(whose, hide_input=True, confirmation_prompt=True)
        return given
    try:
        return sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        fail("the password on standard input is not UTF-8")


async def _found(connection: asyncpg.Connection, username: str) -> Staff:
    from engine.records.staff import staff_of_username

    return await staff_of_username(connection, username.lower())


def _changed(
    given: dict[str, Any],
    username: str,
    action: str,
    work: Callable[[asyncpg.Connection, Staff], Awaitable[object]],
    detail: dict[str, Any] | None = None,
) -> None:
    """Does it and notes it, both or neither."""
    from engine.audit.entries import Entry, operator, write

    async def done(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            one = await _found(connection, username)
            await work(connection, one)
            entry = Entry(action, operator(), object=("staff", str(UUID(bytes=one.id))), detail=detail)
            await write(connection, entry)

    with_accounts(settings_of(given), done)


def with_accounts(settings: Settings, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    """As with_database; what accounts refuse ends the command with a line for each thing that is wrong."""
    from engine.records.staff import StaffRefused

    try:
        return with_database(settings, work)
    except StaffRefused as refused:
        for error in refused.errors:
            click.echo(error, err=True)
        fail("nothing was changed")
