"""`xinglin admin`: the first administrators of a hospital, three different people (三员分立)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import click

from web.command_line import DATABASE_URL, HOME, fail, settings_of
from web.staff_cli import password_hash, with_accounts

_KINDS: Final = (
    ("system", "系统管理员", "makes accounts, changes settings, but gives no rights"),
    ("security", "安全管理员", "gives rights, opens locks, ends sessions"),
    ("audit", "审计管理员", "reads what everybody did"),
)


@dataclass(frozen=True, slots=True)
class _Made:
    kind: str
    username: str
    secret: str
    codes: Sequence[str]


@click.group()
def admin() -> None:
    """The hospital's administrators."""


@admin.command()
@click.option("--system", metavar="USERNAME=NAME", help="Who makes accounts and changes settings.")
@click.option("--security", metavar="USERNAME=NAME", help="Who gives rights and opens locks.")
@click.option("--audit", metavar="USERNAME=NAME", help="Who reads the audit.")
@HOME
@DATABASE_URL
def create(system: str | None, security: str | None, audit: str | None, **given: Any) -> None:
    """Make the first three administrators: of the system, of security, and of the audit.

    Three people, none of whom can do alone what the other two are there to see. Who is not named is asked
    for, and so are their passwords; where standard input is no terminal, its first three lines are the
    passwords in this order. Prints what each of them puts into an authenticator, and their recovery codes:
    hand each over to its person alone. At the first sign-in each chooses another password.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records.staff import NewStaff, add_staff
    from engine.vault.failed import VaultFailed
    from engine.vault.opening import open_vault
    from web.patient.patients import new_id
    from web.sign_in.second_factor import secret_in_force

    settings = settings_of(given)
    with_accounts(settings, _none_yet)
    people = [
        (kind, *_person(kind, zh, does, named))
        for (kind, zh, does), named in zip(_KINDS, (system, security, audit), strict=True)
    ]
    if len({username for _, username, _ in people}) < len(people):
        fail("three different people are needed: no person is two of the three administrators")
    new = [
        NewStaff(
            username,
            name,
            password_hash(settings, username, name, f"Password of {username}"),
            (f"{kind}_admin",),
            must_change_password=True,
        )
        for kind, username, name in people
    ]

    async def work(connection: asyncpg.Connection) -> list[_Made]:
        await _none_yet(connection)
        vault = await open_vault(connection, settings)
        now = datetime.now(UTC)
        made = []
        async with connection.transaction():
            for one in new:
                staff = await add_staff(connection, one, new_id(), now)
                secret, codes = await secret_in_force(connection, vault, staff.id, now)
                made.append(_Made(one.roles[0], staff.username, secret, codes))
                await write(
                    connection,
                    Entry(
                        "administrator_made",
                        operator(),
                        object=("staff", str(UUID(bytes=staff.id))),
                        detail={"username": staff.username, "role": one.roles[0]},
                    ),
                )
        return made

    try:
        made = with_accounts(settings, work)
    except VaultFailed as failed:
        fail(str(failed))
    for one in made:
        _show(one)


async def _none_yet(connection: asyncpg.Connection) -> None:
    from engine.records.staff import ADMINISTRATORS, StaffRefused, list_staff

    there = [
        f"{row.staff.username} is {', '.join(row.staff.roles)} already: make others with `xinglin staff add`"
        for row in await list_staff(connection)
        if ADMINISTRATORS & row.staff.roles
    ]
    if there:
        raise StaffRefused(there)


def _person(kind: str, zh: str, does: str, named: str | None) -> tuple[str, str]:
    """Username and name."""
    if named is None and sys.stdin.isatty():
        click.echo(f"{zh} / {kind} administrator: {does}")
        return click.prompt("  username").strip().lower(), click.prompt("  name").strip()
    username, _, name = (named or "").partition("=")
    if not username or not name:
        fail(f"say who the {kind} administrator is: --{kind} li.si=李四")
    return username.strip().lower(), name.strip()


def _show(one: _Made) -> None:
    from web.sign_in.totp import uri_of

    click.echo(f"{one.username} may sign in as {one.kind}")
    click.echo(f"  authenticator   {uri_of(one.secret, one.username)}")
    click.echo(f"  or by hand      {one.secret}")
    click.echo("  recovery codes, each good once:")
    for code in one.codes:
        click.echo(f"    {code}")
