"""`xinglin partner`: which other systems may call this one, and what they may; beside a running server or
without."""

from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.records.partners import SCOPES
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

_CHANNELS: Final = ("referral", "his", "window", "phone", "management")
_NAME: Final = click.argument("name")


@click.group()
def partner() -> None:
    """Other systems and their credentials: docs/PARTNERS.md."""


@partner.command()
@_NAME
@click.option("--may", required=True, help=f"Scopes, with commas between them: {', '.join(SCOPES)}.")
@click.option(
    "--channel",
    type=click.Choice(_CHANNELS),
    default="referral",
    show_default=True,
    help="Whose share of the numbers its bookings count for.",
)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Last day.  [default: until disabled]")
@HOME
@DATABASE_URL
def add(name: str, may: str, channel: str, until: datetime | None, **given: Any) -> None:
    """Let NAME in, and print its client id and secret. The secret is told this once."""
    from engine.audit.entries import Entry, operator, write
    from engine.domain.policy import Channel
    from engine.records import partners as records
    from engine.records.catalog import load_catalog
    from web.fresh_ids import new_id

    async def added(connection: asyncpg.Connection) -> tuple[records.Partner, str]:
        zone = (await load_catalog(connection)).hospital.zone
        ends = None if until is None else datetime.combine(until.date() + timedelta(1), time.min, zone)
        if ends is not None and ends <= datetime.now(UTC):
            fail(f"--until {until:%F} is over")
        async with connection.transaction():
            made, secret = await records.add(
                connection, name, _scopes(may), Channel[channel.upper()], new_id(), datetime.now(UTC), ends
            )
            detail = {"scopes": sorted(made.scopes), "channel": channel}
            await write(
                connection, Entry("partner_added", operator(), object=("partner", made.name), detail=detail)
            )
        return made, secret

    try:
        made, secret = with_database(settings_of(given), added)
    except records.PartnerWrong as wrong:
        fail(str(wrong))
    click.echo(f"client_id     {UUID(bytes=made.id)}")
    click.echo(f"client_secret {secret}")


@partner.command("list")
@HOME
@DATABASE_URL
def list_(**given: Any) -> None:
    """Show who there is. Secrets are told to nobody."""
    from engine.records import partners as records
    from engine.records.catalog import load_catalog

    async def found(connection: asyncpg.Connection) -> tuple[ZoneInfo, list[records.Partner]]:
        return (await load_catalog(connection)).hospital.zone, await records.partners(connection)

    zone, rows = with_database(settings_of(given), found, only_read=True)
    table = Table("name", "client id", "may", "channel", "since", "state", box=None)
    now = datetime.now(UTC)
    for one in rows:
        table.add_row(
            one.name,
            str(UUID(bytes=one.id)),
            " ".join(sorted(one.scopes)),
            (one.channel.name or "").lower(),
            f"{one.made_at.astimezone(zone):%F}",
            _state(one, now, zone),
        )
    Console(width=200).print(table)


@partner.command()
@_NAME
@HOME
@DATABASE_URL
def disable(name: str, **given: Any) -> None:
    """Shut NAME out. Its tokens end within seconds; what it has booked stays."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import partners as records

    async def disabled(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await records.disable(connection, name, datetime.now(UTC))
            await write(connection, Entry("partner_disabled", operator(), object=("partner", name)))

    _told(settings_of(given), disabled, name)
    click.echo(f"{name} is shut out")


@partner.command()
@_NAME
@click.option("--may", required=True, help="All its scopes from now on, with commas between them.")
@HOME
@DATABASE_URL
def allow(name: str, may: str, **given: Any) -> None:
    """Give NAME another set of scopes. It holds within seconds, also for tokens that ask for less."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import partners as records

    async def allowed(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            changed = await records.allow(connection, name, _scopes(may))
            detail = {"scopes": sorted(changed.scopes)}
            await write(
                connection, Entry("partner_allowed", operator(), object=("partner", name), detail=detail)
            )

    try:
        _told(settings_of(given), allowed, name)
    except records.PartnerWrong as wrong:
        fail(str(wrong))
    click.echo(f"{name} may now {', '.join(sorted(_scopes(may)))}")


@partner.command()
@_NAME
@click.option(
    "--overlap-days",
    type=click.IntRange(0, 90),
    default=7,
    show_default=True,
    help="So long the old secret does as well. 0: it was stolen.",
)
@HOME
@DATABASE_URL
def rotate(name: str, overlap_days: int, **given: Any) -> None:
    """Print NAME's next secret, which is told this once."""
    from engine.audit.entries import Entry, operator, write
    from engine.records import partners as records

    async def rotated(connection: asyncpg.Connection) -> str:
        async with connection.transaction():
            secret = await records.rotate(connection, name, datetime.now(UTC), timedelta(overlap_days))
            detail = {"overlap_days": overlap_days}
            await write(
                connection, Entry("partner_rotated", operator(), object=("partner", name), detail=detail)
            )
        return secret

    click.echo(f"client_secret {_told(settings_of(given), rotated, name)}")


def _told(settings: Any, work: Any, name: str) -> Any:
    from engine.records.partners import NoSuchPartner

    try:
        return with_database(settings, work)
    except NoSuchPartner:
        fail(f"there is no partner called {name}: xinglin partner list")


def _scopes(may: str) -> list[str]:
    return [scope.strip() for scope in may.split(",") if scope.strip()]


def _state(one: Any, now: datetime, zone: ZoneInfo) -> str:
    if one.disabled_at is not None:
        return f"disabled {one.disabled_at.astimezone(zone):%F}"
    if one.expires_at is None:
        return "live"
    word = "until" if one.is_live(now) else "over since"
    return f"{word} {one.expires_at.astimezone(zone):%F %H:%M}"
