"""`xinglin coupons`: made, listed and voided; beside a running server or without."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

KINDS = ("registration", "drug", "examination")
_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def coupons() -> None:
    """Coupons: docs/PRICES.md."""


@coupons.command()
@click.option("--count", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many.")
@click.option("--name", required=True, help="What bills call them.")
@click.option("--fen", type=click.IntRange(1, 100_000_000), help="So much off; or --percent.")
@click.option("--percent", type=click.IntRange(1, 100), help="So many percent off; or --fen.")
@click.option(
    "--at-least", type=click.IntRange(0), default=0, help="For bills of so many fen.  [default: any]"
)
@click.option(
    "--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Of lines.  [default: registration]"
)
@click.option("--from", "first", type=_DAY, help="First day of visits.  [default: today]")
@click.option("--until", "last", type=_DAY, required=True, help="Last day of visits.")
@click.option("--patient", type=click.UUID, help="For this patient alone.  [default: whoever shows it]")
@HOME
@DATABASE_URL
def make(
    count: int,
    name: str,
    fen: int | None,
    percent: int | None,
    at_least: int,
    kinds: tuple[str, ...],
    first: datetime | None,
    last: datetime,
    patient: UUID | None,
    **given: Any,
) -> None:
    """Make coupons, and print their codes, one a line.

    The codes are told this once: the database has only their hashes.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records import coupons as records
    from engine.records.catalog import load_catalog

    if (fen is None) == (percent is None):
        fail("a coupon takes off an amount or a share: give --fen or --percent, and not both")
    if not name.strip() or len(name) > 40 or not name.isprintable():
        fail("--name: 1 to 40 characters, and none that cannot be seen")

    async def made(connection: asyncpg.Connection) -> list[str]:
        zone = (await load_catalog(connection)).hospital.zone
        now = datetime.now(UTC)
        begins = now if first is None else datetime.combine(first.date(), time.min, zone)
        ends = datetime.combine(last.date() + timedelta(days=1), time.min, zone)
        if ends <= max(begins, now):
            fail(f"--until {last:%F} is over, or before --from")
        new = records.NewCoupons(
            name.strip(),
            kinds or KINDS[:1],
            begins,
            ends,
            fen or 0,
            percent or 0,
            at_least,
            None if patient is None else patient.bytes,
        )
        async with connection.transaction():
            codes = await records.make(connection, new, count, operator().name or "", now)
            detail = {"name": new.name, "count": count, "fen": new.fen, "percent": new.percent}
            whose = () if patient is None else (patient,)
            await write(connection, Entry("coupons_made", operator(), whose, detail=detail))
        return codes

    try:
        codes = with_database(settings_of(given), made)
    except asyncpg.ForeignKeyViolationError:
        fail(f"--patient {patient}: there is no such patient")
    for code in codes:
        click.echo(records.spelled(code))


@coupons.command("list")
@click.option("--name", help="Each coupon of this name.  [default: the batches]")
@HOME
@DATABASE_URL
def list_(name: str | None, **given: Any) -> None:
    """Show what was made, and what of it bills have. Of codes, their last four signs."""
    from engine.records import coupons as records
    from engine.records.catalog import load_catalog

    async def found(
        connection: asyncpg.Connection,
    ) -> tuple[ZoneInfo, list[records.Batch], list[records.CouponRow]]:
        zone = (await load_catalog(connection)).hospital.zone
        if name is None:
            return zone, await records.batches(connection), []
        return zone, [], await records.coupons(connection, name)

    zone, batches, rows = with_database(settings_of(given), found, only_read=True)
    if name is None:
        table = Table("name", "off", "until", "made", "by", "count", "on bills", "void", box=None)
        for one in batches:
            counts = (str(one.count), str(one.taken), str(one.voided))
            table.add_row(
                one.name,
                _off(one.fen, one.percent),
                _day(one.ends_at, zone),
                _day(one.made_at, zone),
                one.made_by,
                *counts,
            )
    else:
        table = Table("id", "ends in", "off", "until", "state", box=None)
        for row in rows:
            table.add_row(
                str(UUID(bytes=row.id)),
                row.tail,
                _off(row.new.fen, row.new.percent),
                _day(row.new.ends_at, zone),
                _state(row),
            )
    Console(width=160).print(table)


@coupons.command()
@click.argument("codes", nargs=-1)
@click.option("--name", help="All of this name, whatever their codes.")
@HOME
@DATABASE_URL
def void(codes: tuple[str, ...], name: str | None, **given: Any) -> None:
    """Void coupons: CODES as they were printed, their ids as listed, or all of a --name.

    Bills that have one already keep it.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records import coupons as records

    if not codes and name is None:
        fail("say which: their codes, their ids, or --name")

    async def voided(connection: asyncpg.Connection) -> int:
        ids = [] if name is None else [one.id for one in await records.coupons(connection, name, None, 10**9)]
        for text in codes:
            code = records.code_of(text)
            found = None if code is None else await records.coupon(connection, code)
            ids.append(_uuid(text) if found is None else found.id)
        async with connection.transaction():
            count = await records.void(connection, ids, operator().name or "", datetime.now(UTC))
            await write(
                connection, Entry("coupons_voided", operator(), detail={"name": name, "count": count})
            )
        return count

    count = with_database(settings_of(given), voided)
    click.echo(f"{count} coupons are void now")


def _uuid(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        fail("one of these is neither a code nor an id of a coupon: nothing was voided")


def _off(fen: int, percent: int) -> str:
    from engine.domain.money import yuan

    return yuan(fen) if fen else f"{percent} %"


def _day(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%F %H:%M}"


def _state(row: Any) -> str:
    if row.bill_id is not None:
        return f"on bill {UUID(bytes=row.bill_id)}"
    return "free" if row.voided_at is None else "void"
