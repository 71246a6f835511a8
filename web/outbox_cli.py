"""`xinglin outbox`: what leaves for outside systems, and what they refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.records.outbox import DeadRow, Status
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

SHOWN_MAX = 200


@click.group()
def outbox() -> None:
    """What outside systems are told of what happens here (docs/OUTBOX.md)."""


@outbox.command()
@HOME
@DATABASE_URL
def status(**given: Any) -> None:
    """How far each system is behind, and what waits."""
    from engine.records import outbox as records

    async def work(connection: asyncpg.Connection) -> list[Status]:
        return await records.status(connection)

    Console().print(as_table(with_database(settings_of(given), work, only_read=True), datetime.now(UTC)))


@outbox.command()
@click.argument("subscriber", required=False)
@HOME
@DATABASE_URL
def dead(subscriber: str | None, **given: Any) -> None:
    """Dead letters: what was refused, newest first, and what waits behind each."""
    from engine.records import outbox as records

    async def work(connection: asyncpg.Connection) -> list[DeadRow]:
        return await records.dead_letters(connection, subscriber, None, SHOWN_MAX)

    for one in with_database(settings_of(given), work, only_read=True):
        click.echo(
            f"{one.position}: {one.subscriber} {one.kind} {one.aggregate}, message {one.id},"
            f" {one.tries} tries, {one.trouble}; {one.behind} wait behind it"
        )


@outbox.command()
@click.argument("subscriber")
@click.argument("numbers", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="All dead letters of SUBSCRIBER.")
@HOME
@DATABASE_URL
def replay(subscriber: str, numbers: tuple[int, ...], everything: bool, **given: Any) -> None:
    """Try dead letters of SUBSCRIBER anew: those of these NUMBERS, or --all.

    A running server delivers them within a second, and then what waits behind them.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records import outbox as records

    if bool(numbers) == everything:
        fail("name the dead letters (`xinglin outbox dead`), or say --all")

    async def work(connection: asyncpg.Connection) -> int:
        async with connection.transaction():
            count = await records.replay(connection, subscriber, None if everything else numbers)
            if count:
                entry = Entry(
                    "dead_letter_replayed",
                    operator(),
                    object=("outbox", subscriber),
                    detail={"count": count},
                )
                await write(connection, entry)
        return count

    count = with_database(settings_of(given), work, only_read=True)
    if not count:
        fail(f"{subscriber} has no such dead letter")
    click.echo(f"{count} dead letters of {subscriber} are tried anew")


@outbox.command()
@click.argument("subscriber")
@click.argument("numbers", nargs=-1, type=int, required=True)
@click.option("--reason", required=True, help="Why; it is in the audit.")
@HOME
@DATABASE_URL
def drop(subscriber: str, numbers: tuple[int, ...], reason: str, **given: Any) -> None:
    """Give dead letters of SUBSCRIBER up: they are never delivered, and what waits behind them goes on."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import outbox as records

    if not reason.strip():
        fail("--reason is blank")

    async def work(connection: asyncpg.Connection) -> int:
        async with connection.transaction():
            count = await records.drop(connection, subscriber, numbers)
            if count:
                entry = Entry(
                    "dead_letter_dropped",
                    operator(),
                    object=("outbox", subscriber),
                    reason=reason,
                    detail={"numbers": list(numbers)},
                )
                await write(connection, entry)
        return count

    count = with_database(settings_of(given), work, only_read=True)
    if not count:
        fail(f"{subscriber} has no such dead letter")
    click.echo(f"{count} dead letters of {subscriber} are given up")


@outbox.command()
@click.argument("subscriber")
@click.option("--yes", is_flag=True, help="Do not ask.")
@HOME
@DATABASE_URL
def forget(subscriber: str, yes: bool, **given: Any) -> None:
    """Forget SUBSCRIBER and all that waits for it: a system that is gone for good.

    Should it be set up again, it hears of what happens from then on.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records import outbox as records

    if not yes:
        click.confirm(f"Forget what waits for {subscriber}?", abort=True)

    async def work(connection: asyncpg.Connection) -> bool:
        async with connection.transaction():
            known = await records.leave(connection, subscriber)
            if known:
                await write(
                    connection, Entry("subscriber_forgotten", operator(), object=("outbox", subscriber))
                )
        return known

    if not with_database(settings_of(given), work, only_read=True):
        fail(f"there is no {subscriber}")
    click.echo(f"{subscriber} is forgotten")


def as_table(found: Sequence[Status], now: datetime) -> Table:
    table = Table(
        *("system", "unread", "waiting", "blocked", "dead", "uncertain", "oldest"), box=None, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        age = "" if one.oldest_at is None else f"{max(0.0, (now - one.oldest_at).total_seconds()):.1f} s"
        counts = (one.behind, one.waiting, one.blocked, one.dead, one.uncertain)
        table.add_row(one.subscriber, *(f"{count:,}" for count in counts), age)
    return table
