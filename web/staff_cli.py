"""`xinglin staff`: who of the hospital may sign in. Beside a running server or before the first one."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.settings import Settings
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

T = TypeVar("T")


@click.group()
def staff() -> None:
    """Add, list and disable those who sign in with a password."""


@staff.command()
@click.option("--username", required=True, help="a-z, 0-9, '.', '-' and '_'.")
@click.option("--name", required=True, help="As others see it.")
@click.option(
    "--role",
    "roles",
    required=True,
    multiple=True,
    help="doctor, desk, schedule_office, manager or partner (an outside system); may be repeated.",
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
@HOME
@DATABASE_URL
def add(home: Path | None, database_url: str | None, username: str, **given: Any) -> None:
    """Make an account.

    The password is asked for, or read from the first line of standard input where that is no terminal.
    """
    from engine.records.staff import NewStaff, add_staff
    from web.passwords import hash_of
    from web.patient.patients import new_id

    new = NewStaff(username.lower(), password_hash=hash_of(_password()), **given)
    made = _with_database(
        settings_of({"home": home, "database_url": database_url}),
        lambda connection: add_staff(connection, new, new_id(), datetime.now(UTC)),
    )
    click.echo(f"{made.username} may sign in as {', '.join(sorted(made.roles))}")


@staff.command("list")
@HOME
@DATABASE_URL
def list_(**given: Any) -> None:
    """Show all accounts."""
    from engine.records.staff import list_staff

    rows = _with_database(settings_of(given), list_staff)
    table = Table("username", "name", "roles", "practitioner", "department", "channel", "state", box=None)
    now = datetime.now(UTC)
    for row in rows:
        one = row.staff
        if row.disabled:
            state = "disabled"
        elif row.locked_until is not None and row.locked_until > now:
            state = f"locked until {row.locked_until.astimezone():%H:%M}"
        else:
            state = "active"
        table.add_row(
            one.username,
            one.name,
            ", ".join(sorted(one.roles)),
            one.practitioner_id or "",
            one.department_id or "all",
            (one.channel.name or "").lower(),
            state,
        )
    Console().print(table)


@staff.command()
@click.option("--username", required=True)
@HOME
@DATABASE_URL
def disable(username: str, **given: Any) -> None:
    """No sign-in for them any more; where they are signed in, they are out when their access token ends."""
    from engine.records.staff import disable_staff

    _with_database(settings_of(given), lambda connection: disable_staff(connection, username.lower()))
    click.echo(f"{username.lower()} is disabled")


def _password() -> str:
    """Never an argument: those can be read by everybody on the machine, and shells remember them."""
    from web.passwords import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN

    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        try:
            given = sys.stdin.buffer.readline().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            fail("the password on standard input is not UTF-8")
    if not PASSWORD_CHARS_MIN <= len(given) <= PASSWORD_CHARS_MAX:
        fail(f"a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters, not {len(given)}")
    return given


def _with_database(settings: Settings, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    from engine.records.staff import StaffRefused

    try:
        return with_database(settings, work)
    except StaffRefused as refused:
        for error in refused.errors:
            click.echo(error, err=True)
        fail("nothing was changed")
