"""`xinglin privacy`: what only whoever runs the machine may do, for a court or an authority that asks."""

from typing import Any
from uuid import UUID

import asyncpg
import click

from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of


@click.group()
def privacy() -> None:
    """People who were forgotten but for the record: docs/PRIVACY.md."""


@privacy.command()
@click.argument("patient", type=click.UUID)
@click.option("--reason", required=True, help="Who asks and why; it is in the audit, for the person to read.")
@HOME
@DATABASE_URL
def restricted(patient: UUID, reason: str, **given: Any) -> None:
    """Print who PATIENT was: an id of somebody restricted.

    The record's retention is for this: a duty by law. Noted before it is shown.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records.erasure import RestrictedIdentity, restricted_identity
    from engine.vault.failed import VaultFailed
    from engine.vault.opening import open_vault

    settings = settings_of(given)
    if not reason.strip():
        fail("--reason is blank: say who asks and why")

    async def read(connection: asyncpg.Connection) -> RestrictedIdentity | None:
        vault = await open_vault(connection, settings)
        async with connection.transaction():
            found = await restricted_identity(connection, vault, patient.bytes)
            if found is not None:
                entry = Entry("restricted_identity_read", operator(), (patient,), reason=reason)
                await write(connection, entry)
        return found

    try:
        found = with_database(settings, read)
    except VaultFailed as failed:
        fail(str(failed))
    if found is None:
        fail("nobody with this id is restricted")
    click.echo(f"{found.name} {found.id_type} {found.id_number}, kept until {found.until}")
