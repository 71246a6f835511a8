"""`xinglin staff link-oidc`, `unlink-oidc`, `oidc-links`: who is who at the hospital's identity provider."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.settings import Settings
from web.command_line import DATABASE_URL, HOME, fail, settings_of
from web.staff_cli import with_accounts

ISSUER = click.option("--issuer", help="Of the identity provider.  [default: XINGLIN_OIDC_ISSUER]")


@click.command("link-oidc")
@click.option("--username", required=True)
@click.option("--subject", required=True, help="Their `sub` at the provider: never a name or a mail address.")
@ISSUER
@HOME
@DATABASE_URL
def link_oidc(username: str, subject: str, issuer: str | None, **given: Any) -> None:
    """From now on they may sign in through the identity provider as well."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import oidc_links

    settings = settings_of(given)
    of = _issuer(settings, issuer)

    async def work(connection: asyncpg.Connection) -> str | None:
        by = operator()
        async with connection.transaction():
            try:
                staff_id = await oidc_links.link(
                    connection, of, subject, username.lower(), datetime.now(UTC), by.name or "operator"
                )
            except oidc_links.LinkRefused as refused:
                return str(refused)
            await write(
                connection, Entry("oidc_linked", by, object=("staff", staff_id.hex()), detail={"issuer": of})
            )
        return None

    if why := with_accounts(settings, work):
        fail(why)
    click.echo(f"{username.lower()} may sign in through {of}")


@click.command("unlink-oidc")
@click.option("--username", required=True)
@ISSUER
@HOME
@DATABASE_URL
def unlink_oidc(username: str, issuer: str | None, **given: Any) -> None:
    """No more through the identity provider. They are signed out everywhere."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import oidc_links, sessions

    settings = settings_of(given)
    of = _issuer(settings, issuer)

    async def work(connection: asyncpg.Connection) -> bool:
        async with connection.transaction():
            staff_id = await oidc_links.unlink(connection, of, username.lower())
            if staff_id is None:
                return False
            await sessions.revoke_of_owner(connection, staff_id, "rights_changed", datetime.now(UTC))
            entry = Entry(
                "oidc_unlinked", operator(), object=("staff", staff_id.hex()), detail={"issuer": of}
            )
            await write(connection, entry)
        return True

    if not with_accounts(settings, work):
        fail(f"{username.lower()} is not linked at {of}")
    click.echo(f"{username.lower()} does not sign in through {of} any more")


@click.command("oidc-links")
@HOME
@DATABASE_URL
def oidc_links_(**given: Any) -> None:
    """Show who is linked."""
    from engine.records.oidc_links import links

    table = Table("username", "issuer", "subject", "since", "by", box=None)
    for one in with_accounts(settings_of(given), links):
        since = f"{one.linked_at.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(one.username, one.issuer, one.subject, since, one.linked_by)
    Console().print(table)


def _issuer(settings: Settings, given: str | None) -> str:
    issuer = given or settings.oidc_issuer
    if not issuer:
        fail("which provider? --issuer, or XINGLIN_OIDC_ISSUER")
    return issuer
