"""`xinglin backup` and `xinglin restore`: docs/BACKUP.md."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

from engine.settings import Settings
from web.command_line import DATABASE_URL, HOME, fail, settings_of

T = TypeVar("T")

TO: Final = click.option(
    "--to", "backup_to", help="The second place: a directory, or s3://bucket/prefix?endpoint=https://…"
)
KEY_FILE: Final = click.option(
    "--key-file", "backup_key_file", type=click.Path(path_type=Path), help="Keys: `xinglin backup key FILE`."
)
NICE: Final = 10  # bookings come first


@click.group(invoke_without_command=True)
@TO
@KEY_FILE
@HOME
@DATABASE_URL
@click.pass_context
def backup(context: click.Context, /, **given: Any) -> None:
    """Make a base backup now, beside a running server or without.

    `xinglin serve --backup-to …` makes one each night, and archives continuously.
    """
    context.obj = given
    if context.invoked_subcommand is None:
        settings = settings_of(given)
        base = _run(settings, _now(settings))
        click.echo(
            f"{base.chain}/{base.name}: {_mib(base.sealed_bytes)} in {base.parts} parts; with the WAL after"
            f" it, it restores to any moment from {base.ended_at} on"
        )


@backup.command("list")
@TO
@KEY_FILE
@click.pass_context
def list_(context: click.Context, /, **given: Any) -> None:
    """Show what there is to restore from."""
    from engine.backup import chains
    from web.backup_place import keys_of, place_of

    settings = _settings(context, given)

    async def listed() -> Table:
        keys = keys_of(settings)
        table = Table("chain", "base backup", "complete", "size", "WAL", "all commits until", box=None)
        async with place_of(settings) as place:
            for chain in await chains.held(place, keys):
                head = await chains.head(place, keys, chain.id)
                for base in chain.bases:
                    last = base is chain.bases[-1]
                    table.add_row(
                        chain.id,
                        base.name,
                        base.ended.strftime("%F %T UTC"),
                        _mib(base.sealed_bytes),
                        f"{len(chain.wal)} files" if last and chain.wal else "",
                        head.at if head is not None and last else "",
                    )
        return table

    Console(soft_wrap=True).print(_run(settings, listed()))


@backup.command()
@TO
@KEY_FILE
@click.option("--all", "every", is_flag=True, help="Every base backup.  [default: the newest]")
@click.option("--scratch", type=click.Path(path_type=Path), help="Where to unpack.  [default: TMPDIR]")
@click.pass_context
def verify(context: click.Context, /, every: bool, scratch: Path | None, **given: Any) -> None:
    """Decrypt every chunk, and have PostgreSQL compare the files with its manifest. Exit status 1 if bad."""
    from engine.backup import chains
    from engine.backup.check import check_base, check_wal
    from web.backup_place import keys_of, place_of

    settings = _settings(context, given)

    async def verified() -> None:
        keys = keys_of(settings)
        async with place_of(settings) as place:
            held = await chains.held(place, keys)
            _, newest = chains.chosen(held, None)
            for chain in held:
                for base in chain.bases if every else [b for b in chain.bases if b is newest]:
                    await check_base(place, keys, base, scratch)
                    click.echo(f"{chain.id}/{base.name}: {base.parts} parts are right")
                if every or newest in chain.bases:
                    click.echo(f"{chain.id}: {await check_wal(place, keys, chain)} files of WAL are right")

    _run(settings, verified())


@backup.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rotate", is_flag=True, help="Add a new first key to FILE; the older ones still decrypt.")
def key(file: Path, rotate: bool) -> None:
    """Make a key in a new FILE that nobody else can read."""
    from engine.backup.failed import BackupFailed
    from engine.backup.key_file import add_key, make_key_file

    try:
        made = add_key(file) if rotate else make_key_file(file)
    except BackupFailed as failed:
        fail(str(failed))
    click.echo(
        f"key {made.id.hex()} is in {file}. Without it no backup can be read: keep a copy of the file where"
        " neither the server nor the backups are."
    )


@backup.command(hidden=True)
@click.pass_context
def keep(context: click.Context, /) -> None:
    """What `serve` runs beside itself: archives until SIGTERM."""
    from engine import embedded_postgres, logs
    from engine.backup.archive import Archiver, Plan
    from web.backup_place import keys_of, place_of

    settings = _settings(context, {})
    os.nice(NICE)
    home = settings.home.resolve()
    logs.configure("WARNING", home / "logs" / "backup.log", "backup")

    def url() -> str | None:
        given = settings.database_url
        return given.get_secret_value() if given is not None else embedded_postgres.running(home)

    async def kept() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        keys = keys_of(settings)
        plan = Plan(settings.backup_keep, settings.backup_hour)
        async with place_of(settings) as place:
            await Archiver(url, place, keys, home, plan, lambda: datetime.now(UTC)).run(stopping)

    _run(settings, kept())


@click.command()
@click.option("--from", "backup_to", help="The second place.  [default: XINGLIN_BACKUP_TO]")
@KEY_FILE
@click.option(
    "--home", type=click.Path(path_type=Path), required=True, help="A new one, or an empty directory."
)
@click.option(
    "--until", help="Moment to restore to, e.g. 2026-11-23T08:15:00+08:00.  [default: the last commit]"
)
def restore(until: str | None, home: Path, **given: Any) -> None:
    """Restore into a new home: never over a living one. Then `xinglin audit --home`, and `serve --home`."""
    from engine.backup.restore import restore as restored_from
    from web.backup_place import keys_of, place_of

    settings = settings_of(given)
    moment = _moment(until)

    async def restored() -> None:
        keys = keys_of(settings)
        async with place_of(settings) as place:
            done = await restored_from(place, keys, home.resolve(), moment)
        click.echo(
            f"restored {done.base.chain}/{done.base.name} and {done.segments} segments of WAL into {home}"
        )
        if done.until is not None:
            click.echo(f"the last transaction in it is of {done.until.isoformat()}")
        else:
            click.echo(f"there was no transaction after the base backup of {done.base.ended_at}")
        if moment is None and done.archived_until is not None:
            click.echo(f"the archive held all commits up to {done.archived_until.isoformat()} at least")
        click.echo(f"next: xinglin audit --home {home}, and if it is green xinglin serve --home {home}")

    _run(settings, restored())


async def _now(settings: Settings) -> Any:
    """A base backup into the chain that is being archived, or into one of its own."""
    import asyncpg

    from engine import database
    from engine.backup import chains
    from engine.backup.archive import noted
    from engine.backup.base import take_base
    from engine.backup.failed import BackupFailed
    from engine.backup.programs import Server
    from web.backup_place import keys_of, place_of
    from web.importing import database_of

    home = settings.home.resolve()
    if settings.database_url is None and not (home / "postgres").exists():
        raise BackupFailed(f"there is no database in {home}: pass its --home, or --database-url")
    keys = keys_of(settings)
    async with place_of(settings) as place:
        with database_of(settings) as url:
            try:
                connection = await database.connect(url)
                try:
                    fresh = await chains.describe(connection, datetime.now(UTC))
                finally:
                    await connection.close()
            except asyncpg.PostgresError as error:
                raise BackupFailed(f"the server cannot be asked what it is: {error}") from None
            going = noted(home, place)
            chain = await chains.known(place, keys, going) if going is not None else None
            if chain is None or chain.system != fresh.system:
                chain = fresh
                await chains.begin(place, keys, chain)
            return await take_base(Server.of(url), place, keys, chain, lambda: datetime.now(UTC), fast=True)


def _settings(context: click.Context, given: dict[str, Any]) -> Settings:
    """Options of the group and of the command; those of the command count."""
    return settings_of({**context.obj, **{name: value for name, value in given.items() if value is not None}})


def _run(settings: Settings, work: Awaitable[T]) -> T:
    """To its end, or one line of why not."""
    from engine.backup.failed import BackupFailed
    from web.importing import DATABASE_FAILURES

    async def done() -> T:
        return await work

    try:
        return asyncio.run(done())
    except (BackupFailed, *DATABASE_FAILURES) as failed:
        fail(str(failed))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--until {text}: no moment; write it like 2026-11-23T08:15:00+08:00")
    if moment.tzinfo is None:
        fail(f"--until {text}: of which time zone? write it like 2026-11-23T08:15:00+08:00")
    return moment


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
