"""`xinglin intake`: messages of other systems that wait, and the hospital's own rules for them."""

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click
import orjson

from engine.vault.failed import VaultFailed
from engine.vault.opening import open_vault
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

_ID = click.argument("id_", metavar="ID", type=click.UUID)
_INTERFACE = click.option("--interface", help="Of this one alone, like lis.report.")


@click.group()
def intake() -> None:
    """Messages of other systems that broke a rule: docs/INTAKE.md."""


@intake.command("list")
@_INTERFACE
@click.option("--unclaimed", is_flag=True, help="Those about patients nobody knows here yet.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@HOME
@DATABASE_URL
def list_(interface: str | None, unclaimed: bool, limit: int, **given: Any) -> None:
    """List what is in quarantine, newest first, and why."""
    from engine.records import intake as records

    async def found(connection: asyncpg.Connection) -> list[records.Kept]:
        state: records.State = "unclaimed" if unclaimed else "quarantined"
        return await records.listed(connection, interface, [state], limit, None)

    for one in with_database(settings_of(given), found, only_read=True):
        why = "; ".join(f"{each.field} {each.rule}".strip() for each in one.reasons)
        again = "  (is tried again)" if one.is_due else ""
        click.echo(f"{UUID(bytes=one.id)}  {one.first_at:%F %T}  {one.interface}  x{one.times}  {why}{again}")


@intake.command()
@_ID
@click.option("--raw", is_flag=True, help="The message's own bytes, to standard output.")
@HOME
@DATABASE_URL
def show(id_: UUID, raw: bool, **given: Any) -> None:
    """Open one message: it may say who a patient is, so this is in the audit."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import intake as records

    settings = settings_of(given)

    async def opened(connection: asyncpg.Connection) -> tuple[records.Kept, records.Contents] | None:
        vault = await open_vault(connection, settings)
        kept = await records.one(connection, id_.bytes)
        contents = await records.contents(connection, vault, id_.bytes)
        if kept is None or contents is None:
            return None
        entry = Entry(
            "intake_message_read",
            operator(),
            object=("intake_message", str(id_)),
            detail={"interface": kept.interface},
        )
        await write(connection, entry)
        return kept, contents

    try:
        found = with_database(settings, opened, only_read=True)
    except VaultFailed as failed:
        fail(str(failed))
    if found is None:
        fail("there is no such message, or nothing is kept of it any more")
    kept, contents = found
    if raw:
        sys.stdout.buffer.write(contents.raw)
        return
    for each in kept.reasons:
        click.echo(f"{each.field or '(the message)'}: {each.rule}{each.expected and f': {each.expected}'}")
    click.echo(f"id over there: {contents.message_id}")
    if contents.body is not None:
        click.echo(orjson.dumps(contents.body, option=orjson.OPT_INDENT_2).decode())


@intake.command()
@click.argument("id_", metavar="[ID]", type=click.UUID, required=False)
@_INTERFACE
@click.option("--all", "everything", is_flag=True, help="Everything that is in quarantine.")
@HOME
@DATABASE_URL
def retry(id_: UUID | None, interface: str | None, everything: bool, **given: Any) -> None:
    """Try one message again, those of an interface, or all; a running server does it within seconds."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import intake as records

    if sum((id_ is not None, interface is not None, everything)) != 1:
        fail("say which: an ID, --interface or --all")

    async def asked(connection: asyncpg.Connection) -> int:
        async with connection.transaction():
            number = await records.ask_retry(
                connection, datetime.now(UTC), id_=None if id_ is None else id_.bytes, interface=interface
            )
            what = ("intake_message", str(id_)) if id_ is not None else None
            await write(
                connection,
                Entry("intake_retried", operator(), object=what, detail={"messages": number}),
            )
        return number

    number = with_database(settings_of(given), asked)
    if id_ is not None and not number:
        fail("there is no such message, or it does not wait")
    click.echo(f"{number} will be tried again")


@intake.command()
@_ID
@click.option("--reason", required=True, help="Why it is given up; kept.")
@HOME
@DATABASE_URL
def drop(id_: UUID, reason: str, **given: Any) -> None:
    """Give one message up: its content is deleted, what waits behind it goes on."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import intake as records

    async def dropped(connection: asyncpg.Connection) -> str | None:
        async with connection.transaction():
            interface = await records.drop(
                connection, id_.bytes, getpass.getuser(), reason, datetime.now(UTC)
            )
            if interface is not None:
                entry = Entry(
                    "intake_dropped",
                    operator(),
                    object=("intake_message", str(id_)),
                    reason=reason,
                    detail={"interface": interface},
                )
                await write(connection, entry)
        return interface

    if with_database(settings_of(given), dropped) is None:
        fail("there is no such message, or it does not wait")
    click.echo("it is given up")


@intake.group()
def rules() -> None:
    """The hospital's own rules for what comes in, over those of the program."""


_FILE = click.argument("file", type=click.Path(path_type=Path))


@rules.command()
@_FILE
def check(file: Path) -> None:
    """Tell every error in FILE with its line. Exit status 1 when there is one."""
    _checked(file)
    click.echo(f"{file} is right")


@rules.command()
@_FILE
@click.option("--who", help="Who puts them in force.  [default: the name of this login]")
@HOME
@DATABASE_URL
def apply(file: Path, who: str | None, **given: Any) -> None:
    """Put FILE in force for the next message on; then `xinglin intake retry` for those that wait."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import intake as records

    text = _checked(file)

    async def stored(connection: asyncpg.Connection) -> bool:
        async with connection.transaction():
            new = await records.store_rules(connection, text, who or getpass.getuser(), datetime.now(UTC))
            if new:
                await write(connection, Entry("intake_rules_applied", operator(), detail={"file": file.name}))
        return new

    new = with_database(settings_of(given), stored)
    click.echo(f"{file} is in force" if new else f"{file} is in force already")


@rules.command("show")
@click.option("--defaults", is_flag=True, help="The program's own instead.")
@HOME
@DATABASE_URL
def show_rules(defaults: bool, **given: Any) -> None:
    """Print the hospital's own rules as they were written."""
    from importlib.resources import files

    from engine.records import intake as records

    if defaults:
        sys.stdout.write((files("web.intake") / "rules.yaml").read_text("utf-8"))
        return
    record = with_database(settings_of(given), records.rules_in_force, only_read=True)
    if record is None:
        click.echo("xinglin: the hospital has no rules of its own", err=True)
        return
    click.echo(f"# version {record.version}, put in force by {record.who} at {record.at:%F %T %Z}", err=True)
    sys.stdout.write(record.text)


def _checked(file: Path) -> str:
    from engine.records.intake_rules import BYTES_MAX, RulesRefused, read_rules
    from web.intake.intake import default_rules

    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8: save it as 'UTF-8 text'")
    if len(raw) > BYTES_MAX:
        fail(f"{file}: is larger than {BYTES_MAX} bytes")
    try:
        read_rules(text, default_rules(), str(file))
    except RulesRefused as refused:
        for one in refused.errors:
            click.echo(str(one), err=True)
        fail(f"{len(refused.errors)} errors, nothing was changed")
    return text
