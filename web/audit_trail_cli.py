"""`xinglin audit verify|search|export|affected|checkpoint|key`: docs/AUDIT.md."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.audit.signing_key import SigningKey
from engine.settings import Settings
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

FAULTS_SHOWN_MAX: Final = 100

SINCE: Final = click.option("--since", help="From this moment on, e.g. 2026-11-23T08:00:00+08:00.")
UNTIL: Final = click.option("--until", help="Before this moment.")


def add_to(group: click.Group) -> None:
    for command in (verify, search, export, affected, checkpoint, key):
        group.add_command(command)


@click.command()
@click.option("--from", "first", type=click.IntRange(min=1), default=1, help="Block to begin with.")
@click.option(
    "--checkpoints",
    "file",
    type=click.Path(path_type=Path, exists=True),
    help="Compare with this copy, as of the second place.  [default: the home's file]",
)
@click.option("--trust", "trust", multiple=True, help="Public key, as `xinglin audit key` printed it.")
@HOME
@DATABASE_URL
def verify(first: int, file: Path | None, trust: tuple[str, ...], **given: Any) -> None:
    """Recompute the chain of audit and journal. Exit status 1 when anything is wrong.

    Changes nothing, and may be run on a database in use.
    """
    from engine.audit.checkpoints import (
        FILE,
        CheckpointFile,
        Checkpoints,
        CheckpointsFailed,
        read_checkpoints,
    )
    from engine.audit.trail import Trail
    from engine.audit.verification import Verdict
    from engine.audit.verification import verify as verified

    settings = settings_of(given)
    home = settings.home.resolve()
    trusted = frozenset(_public(one) for one in trust) | _trusted(settings, home)
    kept_in = CheckpointFile(file or home / FILE)

    def kept() -> Checkpoints:
        try:
            return read_checkpoints(kept_in.lines(), trusted, some=file is not None)
        except CheckpointsFailed as failed:
            fail(str(failed))

    async def work(connection: asyncpg.Connection) -> Verdict:
        before = kept()
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            again = kept if file is None else None
            return await verified(Trail(connection), trusted, before, again, first, _progress())

    verdict = with_database(settings, work, only_read=True)
    for note in verdict.notes:
        click.echo(f"note: {note}")
    for fault in verdict.faults[:FAULTS_SHOWN_MAX]:
        click.echo(f"WRONG: {fault}", err=True)
    if len(verdict.faults) > FAULTS_SHOWN_MAX:
        click.echo(f"WRONG: and {len(verdict.faults) - FAULTS_SHOWN_MAX} more", err=True)
    click.echo(
        f"{verdict.blocks:,} blocks, {verdict.entries:,} entries, {verdict.events:,} events;"
        f" not chained yet: {verdict.waiting_entries:,} entries, {verdict.waiting_events:,} events"
    )
    if verdict.last is not None:
        click.echo(f"last block {verdict.last[0]}: {verdict.last[1]}")
    click.echo("OK" if verdict.ok else f"{len(verdict.faults):,} faults")
    sys.exit(0 if verdict.ok else 1)


@click.command()
@click.option("--by", "by_name", help="User name of staff.")
@click.option("--patient", help="A patient's id.")
@click.option("--action", help="Such as vitals_read.")
@SINCE
@UNTIL
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@HOME
@DATABASE_URL
def search(home: Path | None, database_url: str | None, limit: int, **given: Any) -> None:
    """Show who did what, the newest first. That you looked is written down, too."""
    from engine.audit.entries import Entry, operator, write
    from engine.audit.search import Line
    from engine.audit.search import search as found_by

    wanted = _wanted(given)

    async def work(connection: asyncpg.Connection) -> list[Line]:
        async with connection.transaction():
            found = await found_by(connection, wanted, None, limit)
            await write(connection, Entry("audit_read", operator(), detail=_asked(given)))
        return found

    table = Table("id", "at", "who", "action", "patients", "object", "outcome", "reason", box=None)
    for line in with_database(_settings(home, database_url), work, only_read=True):
        table.add_row(
            str(line.id),
            f"{line.at.astimezone():%F %T}",
            line.by_name or (line.by_id.hex() if line.by_id else line.by_kind),
            line.action,
            str(len(line.subjects) or ""),
            " ".join(part for part in (line.object_kind, line.object_id) if part),
            line.outcome,
            line.reason or "",
        )
    _console().print(table, markup=False)


@click.command()
@click.option("--by", "by_name", help="User name of staff.")
@click.option("--patient", help="A patient's id.")
@click.option("--action", help="Such as vitals_read.")
@SINCE
@UNTIL
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@HOME
@DATABASE_URL
def export(home: Path | None, database_url: str | None, kind: str, **given: Any) -> None:
    """Write what is found to standard output, the oldest first. That you did is written down, too."""
    from engine.audit.entries import Entry, operator, write
    from engine.audit.search import all_of
    from web.auditors.export import HEADER, as_csv, as_json

    wanted = _wanted(given)

    async def work(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await write(connection, Entry("audit_exported", operator(), detail=_asked(given)))
        if kind == "csv":
            click.echo(HEADER, nl=False)
        async for line in all_of(connection, wanted):
            click.echo(as_csv(line) if kind == "csv" else as_json(line), nl=False)

    with_database(_settings(home, database_url), work, only_read=True)


@click.command()
@click.argument("username")
@SINCE
@UNTIL
@HOME
@DATABASE_URL
def affected(username: str, home: Path | None, database_url: str | None, **given: Any) -> None:
    """After a breach: the patients whose data USERNAME read or changed in that time."""
    from engine.audit.accesses import Affected
    from engine.audit.accesses import affected as affected_by
    from engine.audit.entries import Entry, operator, write

    since, until = _moment(given["since"], "--since"), _moment(given["until"], "--until")

    async def work(connection: asyncpg.Connection) -> list[Affected] | None:
        async with connection.transaction():
            staff_id = await connection.fetchval("select id from staff where username = $1", username.lower())
            if staff_id is None:
                return None
            found = await affected_by(
                connection,
                staff_id.bytes,
                since or datetime(1970, 1, 1, tzinfo=UTC),
                until or datetime.now(UTC),
            )
            entry = Entry(
                "breach_examined", operator(), object=("staff", str(staff_id)), detail=_asked(given)
            )
            await write(connection, entry)
        return found

    found = with_database(_settings(home, database_url), work, only_read=True)
    if found is None:
        fail(f"nobody of the staff is called {username}")
    table = Table("patient", "times", "first", "last", "actions", box=None)
    for one in found:
        table.add_row(
            one.patient_id.hex(),
            str(one.times),
            f"{one.first_at.astimezone():%F %T}",
            f"{one.last_at.astimezone():%F %T}",
            ", ".join(one.actions),
        )
    _console().print(table, markup=False)
    click.echo(f"{len(found):,} people")


@click.command()
@click.option(
    "--restored",
    "reason",
    help="An older database was put back on purpose, and why: the chain goes on from where it is.",
)
@HOME
@DATABASE_URL
def checkpoint(reason: str | None, **given: Any) -> None:
    """Print the last block's number and hash: to be kept on paper, or wherever else nobody can change it."""
    from engine.audit.blocks import Block
    from engine.audit.checkpoints import (
        FILE,
        CheckpointFile,
        CheckpointsFailed,
        read_checkpoints,
        restored_line,
    )
    from engine.audit.entries import Entry, cleaned, operator, write
    from engine.audit.notary import last_block
    from engine.audit.signing_key import KeyFailed, key_of

    settings = settings_of(given)
    home = settings.home.resolve()

    async def work(connection: asyncpg.Connection) -> Block | None:
        last = await last_block(connection)
        if reason is None:
            return last
        file = CheckpointFile(home / FILE)
        kept = read_checkpoints(file.lines())
        number = 0 if last is None else last.number
        if last is None or kept.last is None or kept.last <= number:
            fail("the database is not older than the checkpoints: there is nothing to note")
        signing = key_of(home, settings.audit_key.get_secret_value())
        said = cleaned(reason, 500)
        await write(connection, Entry("chain_restored", operator(), reason=said, detail={"was": kept.last}))
        file.add(restored_line(number, last.hash, kept.last, int(time.time() * 1000), said, signing))
        return last

    try:
        last = with_database(settings, work, only_read=True)
    except (CheckpointsFailed, KeyFailed) as failed:
        fail(str(failed))
    click.echo("no block yet" if last is None else f"block {last.number}: {last.hash.hex()}")


@click.command()
@click.option("--rotate", is_flag=True, help="Make a new key, which the old one vouches for. Then restart.")
@HOME
def key(rotate: bool, **given: Any) -> None:
    """Print the public key: whoever has it can verify what was signed. Give it to the auditor."""
    from engine.audit.signing_key import FILE, KeyFailed, keep_key, key_of

    settings = settings_of(given)
    home = settings.home.resolve()
    from_environment = settings.audit_key.get_secret_value()
    if rotate and from_environment:
        fail("the key is given by XINGLIN_AUDIT_KEY: rotate it where it comes from")
    try:
        home.mkdir(parents=True, exist_ok=True)
        signing = key_of(home, from_environment)
        if rotate:
            signing = keep_key(home / FILE, signing.successor())
    except (KeyFailed, OSError) as failed:
        fail(str(failed))
    click.echo(signing.public.hex())


def _console() -> Console:
    """No line of a table is folded where it goes into a file."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else 240)


def _settings(home: Path | None, database_url: str | None) -> Settings:
    return settings_of({"home": home, "database_url": database_url})


def _trusted(settings: Settings, home: Path) -> frozenset[bytes]:
    from engine.audit.signing_key import FILE, KeyFailed, key_of, read_key

    given = settings.audit_key.get_secret_value()
    try:
        if given:
            return key_of(home, given).trusted
        known: SigningKey | None = read_key(home / FILE) if (home / FILE).exists() else None
    except KeyFailed as failed:
        fail(str(failed))
    return known.trusted if known is not None else frozenset()


def _public(said: str) -> bytes:
    try:
        found = bytes.fromhex(said)
    except ValueError:
        found = b""
    if len(found) != 32:
        fail(f"--trust {said}: a public key is 64 hexadecimal digits")
    return found


def _progress() -> Callable[[Any], None]:
    """A line that moves, on a terminal."""
    shown = time.monotonic()

    def show(verdict: Any) -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.5 and sys.stderr.isatty():
            shown = time.monotonic()
            click.echo(f"\r{verdict.blocks:,} blocks, {verdict.events:,} events", nl=False, err=True)

    return show


def _wanted(given: dict[str, Any]) -> Any:
    from uuid import UUID

    from engine.audit.search import Wanted

    try:
        patient = None if given["patient"] is None else UUID(given["patient"]).bytes
    except ValueError:
        fail(f"--patient {given['patient']}: no id of a patient")
    return Wanted(
        by_name=given["by_name"],
        patient_id=patient,
        action=given["action"],
        since=_moment(given["since"], "--since"),
        until=_moment(given["until"], "--until"),
    )


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """For the entry: what was asked for."""
    return {name: value for name, value in given.items() if value is not None}


def _moment(said: str | None, option: str) -> datetime | None:
    if said is None:
        return None
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        fail(f"{option} {said}: no moment; write it like 2026-11-23T08:15:00+08:00")
    return moment if moment.tzinfo is not None else moment.astimezone()
