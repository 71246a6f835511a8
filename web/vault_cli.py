"""`xinglin vault`: keys of the vault, made, shown, renewed; a server may run meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import click

from engine.settings import Settings
from engine.vault import masters
from engine.vault.failed import SealBroken, VaultFailed
from engine.vault.kek import add_key, make_key_file
from engine.vault.opening import kek_of, open_vault
from engine.vault.rewrapping import keys_by_version, rewrap
from engine.vault.sealing import Profile
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of


@click.group()
def vault() -> None:
    """The keys that people's names, numbers and telephones are sealed with."""


@vault.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rotate", is_flag=True, help="Put a new key before those in FILE; then `rekek`.")
def key(file: Path, rotate: bool) -> None:
    """Make FILE with a key that wraps the master keys, readable to nobody else.

    Keep a copy in a place of its own. Without it nobody can ever read who the patients are.
    """
    try:
        made = add_key(file) if rotate else make_key_file(file)
    except VaultFailed as failed:
        fail(str(failed))
    click.echo(f"key {made.id.hex()} is in {file}; keep a copy apart from the server and from its backups")


@vault.command()
@HOME
@DATABASE_URL
def status(**given: Any) -> None:
    """Show the master keys, what wraps them, and how many data keys each of them wraps."""
    settings = settings_of(given)

    async def work(connection: asyncpg.Connection) -> None:
        rows = await connection.fetch("select *, now() < active_from as waits from vault_key order by 1, 2")
        if not rows:
            raise VaultFailed("this database has no vault yet: `xinglin serve` makes it")
        await masters.read(connection, kek := kek_of(settings))
        wrapped = await keys_by_version(connection)
        for row in rows:
            of_what = "index" if row["purpose"] == masters.INDEX else f"data {row['version']}"
            counted = (
                "" if row["purpose"] == masters.INDEX else f"  {wrapped.get(row['version'], 0)} data keys"
            )
            click.echo(
                f"{of_what:<8} {Profile(row['profile']).name.lower()}  made {row['made_at']:%Y-%m-%d %H:%M}"
                f"  by key {row['kek'].hex()}{'' if row['kek'] == kek.id else ' (older)'}"
                f"{'  announced' if row['waits'] else ''}{counted}"
            )

    _run(settings, work)


@vault.command()
@HOME
@DATABASE_URL
@click.option(
    "--announced-seconds",
    type=click.FloatRange(min=0),
    default=masters.ANNOUNCED_SECONDS,
    show_default=True,
    help="Until every gateway knows it.",
)
def rotate(announced_seconds: float, **given: Any) -> None:
    """Add a master key, in use from a moment later on; then `rewrap` what older ones have wrapped."""
    settings = settings_of(given)

    async def work(connection: asyncpg.Connection) -> None:
        profile = Profile.named(settings.vault_profile)
        version = await masters.add(connection, kek_of(settings), profile, announced_seconds)
        click.echo(
            f"master key {version} ({profile.name.lower()}) is in use in {announced_seconds:g} s;"
            " after that: xinglin vault rewrap"
        )

    _run(settings, work)


@vault.command(name="rewrap")
@HOME
@DATABASE_URL
def rewrap_(**given: Any) -> None:
    """Wrap every data key with the newest master key. Stopped midway, it goes on where it was."""
    settings = settings_of(given)

    async def work(connection: asyncpg.Connection) -> None:
        opened = await open_vault(connection, settings)
        async for progress in rewrap(connection, opened):
            click.echo(f"{progress.column.field}: {progress.done}")
        click.echo(f"every data key is wrapped with master key {opened.version}")

    _run(settings, work)


@vault.command()
@HOME
@DATABASE_URL
def rekek(**given: Any) -> None:
    """Wrap the master keys with the newest key outside: the first of the file, or of the token's objects."""
    settings = settings_of(given)

    async def work(connection: asyncpg.Connection) -> None:
        kek = kek_of(settings)
        count = await masters.rekek(connection, kek, Profile.named(settings.vault_profile))
        click.echo(f"{count} master keys are wrapped anew, all of them with key {kek.id.hex()}")

    _run(settings, work)


def _run(settings: Settings, work: Callable[[asyncpg.Connection], Any]) -> None:
    try:
        with_database(settings, work, only_read=True)  # the schema stays as it is
    except (VaultFailed, SealBroken) as failed:
        fail(str(failed))
