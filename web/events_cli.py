"""`xinglin webhooks`: who is told of events, what waits for them, and what is to be sent again."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.settings import Settings
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

T = TypeVar("T")

_ID: Final = click.argument("webhook_id", type=click.UUID)


@click.group()
def webhooks() -> None:
    """Addresses that are told of events (docs/EVENTS.md). They are delivered to while the server runs with
    XINGLIN_WEBHOOKS=1."""


@webhooks.command("list")
@HOME
@DATABASE_URL
def list_(**given: Any) -> None:
    """Show all, with what waits for each."""
    from engine.records import webhooks as records

    async def work(
        connection: asyncpg.Connection,
    ) -> tuple[list[records.Webhook], dict[bytes, tuple[int, int]]]:
        found = await records.webhooks(connection)
        return found, await records.counts(connection, [one.id for one in found])

    found, counts = with_database(settings_of(given), work)
    table = Table("id", "whose", "address", "types", "waiting", "dead", "state", box=None)
    for one in found:
        waiting, dead = counts.get(one.id, (0, 0))
        if one.disabled_at is not None:
            state = f"disabled: {one.disabled_why}"
        elif one.failing_since is not None:
            state = f"failing since {one.failing_since.astimezone():%m-%d %H:%M}"
        else:
            state = "enabled"
        table.add_row(
            str(UUID(bytes=one.id)),
            "the hospital" if one.partner_id is None else one.made_by,
            one.address,
            " ".join(one.types),
            str(waiting),
            str(dead),
            state,
        )
    Console().print(table)


@webhooks.command()
@click.argument("address")
@click.option(
    "--type", "types", multiple=True, default=("*",), help="Of events; may be repeated. [default: *]"
)
@HOME
@DATABASE_URL
def add(home: Path | None, database_url: str | None, address: str, types: tuple[str, ...]) -> None:
    """Register ADDRESS as the hospital's own; tells the secret this once."""
    from engine.records.webhooks import TooMany
    from engine.vault.opening import open_vault
    from integrations.webhooks.addresses import AddressRefused
    from web.events import registering
    from web.events.bodies import is_known

    settings = settings_of({"home": home, "database_url": database_url})
    for word in types:
        if not is_known(word):
            fail(f"no events are called {word}: see /api/v1/event-types")

    async def work(connection: asyncpg.Connection) -> tuple[bytes, str]:
        vault = await open_vault(connection, settings)
        async with connection.transaction():
            try:
                made, secret = await registering.add(
                    connection,
                    vault,
                    None,
                    address,
                    types,
                    "operator",
                    datetime.now(UTC),
                    registering.allowed_of(settings),
                )
            except AddressRefused as refused:
                fail(f"webhooks may not go there ({refused.why}): https:// and outside this network")
            except TooMany:
                fail("there are as many as there may be")
            await _written(connection, "webhook_added", made.id)
        return made.id, secret

    id_, secret = with_database(settings, work)
    click.echo(f"{UUID(bytes=id_)}\nsecret {secret}\nIt is not shown again.")


@webhooks.command()
@_ID
@HOME
@DATABASE_URL
def enable(webhook_id: UUID, **given: Any) -> None:
    """Deliver again, first what has waited."""
    from engine.records import webhooks as records

    async def work(connection: asyncpg.Connection) -> None:
        await records.enable(connection, webhook_id.bytes, datetime.now(UTC))

    _changed(settings_of(given), webhook_id, "webhook_enabled", work)
    click.echo(f"{webhook_id} is enabled")


@webhooks.command()
@_ID
@HOME
@DATABASE_URL
def disable(webhook_id: UUID, **given: Any) -> None:
    """Deliver no more, until it is enabled."""
    from engine.records import webhooks as records

    async def work(connection: asyncpg.Connection) -> None:
        await records.disable(connection, webhook_id.bytes, "asked", datetime.now(UTC))

    _changed(settings_of(given), webhook_id, "webhook_disabled", work)
    click.echo(f"{webhook_id} is disabled")


@webhooks.command()
@_ID
@click.argument("event_id", required=False)
@HOME
@DATABASE_URL
def redeliver(webhook_id: UUID, event_id: str | None, **given: Any) -> None:
    """Send EVENT_ID once more; without it, all that were refused for good."""
    from engine.records import webhooks as records
    from web.events import registering

    async def work(connection: asyncpg.Connection) -> int:
        now = datetime.now(UTC)
        if event_id is None:
            return await records.revive(connection, webhook_id.bytes, now)
        found = await records.webhook(connection, webhook_id.bytes)
        assert found is not None
        try:
            await registering.redeliver(connection, found, event_id, now)
        except (registering.NoSuchEvent, ValueError):
            fail(f"there is no event {event_id} that is told outside")
        return 1

    count = _changed(settings_of(given), webhook_id, "webhook_redelivery_asked", work)
    click.echo(f"{count} to be sent again")


def _changed(
    settings: Settings, id_: UUID, action: str, change: Callable[[asyncpg.Connection], Awaitable[T]]
) -> T:
    """Of one that there is, in one transaction with the audit's entry."""
    from engine.records import webhooks as records

    async def work(connection: asyncpg.Connection) -> T:
        async with connection.transaction():
            if await records.webhook(connection, id_.bytes, lock=True) is None:
                fail(f"there is no webhook {id_}")
            result = await change(connection)
            await _written(connection, action, id_.bytes)
        return result

    return with_database(settings, work)


async def _written(connection: asyncpg.Connection, action: str, id_: bytes) -> None:
    from engine.audit.entries import Entry, operator, write

    await write(connection, Entry(action, operator(), object=("webhook", str(UUID(bytes=id_)))))
