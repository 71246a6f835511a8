"""`xinglin his`: whose numbers count, what the HIS calls our departments, and days beside its lists."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.records.his_codes import Kind
from engine.records.his_differences import DifferenceRow, RunRow
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

LOOK_SECONDS: Final = 0.3
WAIT_SECONDS: Final = 180.0
SHOWN_MAX: Final = 200

T = TypeVar("T")
_KIND: Final = click.argument("kind", type=click.Choice(["department", "practitioner"]))


@click.group()
def his() -> None:
    """The hospital's HIS: whose numbers count, its codes, and what differs (docs/HIS.md)."""


def _with(given: dict[str, Any], work: Callable[[asyncpg.Connection], Awaitable[T | str]]) -> T:
    outcome = with_database(settings_of(given), work, only_read=True)
    if isinstance(outcome, str):
        fail(outcome)
    return outcome


@his.command()
@click.argument("department")
@click.argument("whose", type=click.Choice(["ours", "his"]))
@HOME
@DATABASE_URL
def truth(department: str, whose: str, **given: Any) -> None:
    """Say whose numbers count in DEPARTMENT (our id). A running server follows at once.

    `his`: the HIS is asked for a place before any number of ours is promised. Do it before numbers are
    released: those that are booked already are asked for afterwards.
    """
    from engine.records import his as records
    from engine.records.catalog_version import announce_change

    async def work(connection: asyncpg.Connection) -> bool | str:
        async with connection.transaction():
            if not await connection.fetchval(
                "select exists (select from department where id = $1)", department
            ):
                return f"there is no department {department}"
            await records.set_truth(connection, department, whose == "his")
            await announce_change(connection)
        return True

    _with(given, work)
    click.echo(f"{department}: numbers are {'the HIS’s' if whose == 'his' else 'ours'}")


@his.command("map")
@_KIND
@click.argument("theirs")
@click.argument("ours")
@HOME
@DATABASE_URL
def map_(kind: Kind, theirs: str, ours: str, **given: Any) -> None:
    """Say that the HIS's code THEIRS means our id OURS. Unmapped codes are called alike on both sides."""
    from engine.records import his_codes

    async def work(connection: asyncpg.Connection) -> bool | str:
        if await his_codes.name_of(connection, kind, ours) is None:
            return f"there is no {kind} {ours}"
        await his_codes.set_code(connection, kind, theirs, ours)
        return True

    _with(given, work)
    click.echo(f"{kind} {theirs} is {ours}; what waited for this: xinglin intake retry")


def _table(kind: Kind) -> str:
    return "department" if kind == "department" else "practitioner"


@his.command()
@_KIND
@click.argument("theirs")
@HOME
@DATABASE_URL
def unmap(kind: Kind, theirs: str, **given: Any) -> None:
    """Forget what THEIRS meant."""
    from engine.records import his_codes

    async def work(connection: asyncpg.Connection) -> bool | str:
        if not await his_codes.remove_code(connection, kind, theirs):
            return f"nothing is known of {kind} {theirs}"
        return True

    _with(given, work)


@his.command()
@HOME
@DATABASE_URL
def status(**given: Any) -> None:
    """Whose numbers count where, the codes, the last days compared, and what is open."""
    from engine.records import his as records
    from engine.records import his_codes, his_differences

    async def work(
        connection: asyncpg.Connection,
    ) -> tuple[frozenset[str], his_codes.Codes, list[RunRow], list[DifferenceRow]]:
        return (
            await records.truth(connection),
            await his_codes.load(connection),
            await his_differences.runs(connection, None, 7),
            await his_differences.differences(connection, None, True, None, SHOWN_MAX),
        )

    theirs, codes, runs, found = _with(given, work)
    click.echo(f"numbers are the HIS's in: {', '.join(sorted(theirs)) or 'no department'}")
    for (kind, code), ours in sorted(codes.ours.items()):
        click.echo(f"{kind} {code} is {ours}")
    Console().print(as_table(runs))
    for one in found:
        click.echo(as_line(one))


@his.command()
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Of the visits.")
@click.option("--wait", default=WAIT_SECONDS, show_default=True, help="Seconds to wait for it, at most.")
@HOME
@DATABASE_URL
def reconcile(day: datetime, wait: float, **given: Any) -> None:
    """Compare a day's numbers with the HIS's list of it, and heal what a rule is clear for.

    The server does it, so one must be running. Exit status 1 when something is left open.
    """
    from engine.records import his as records
    from engine.records import his_differences

    async def work(connection: asyncpg.Connection) -> tuple[RunRow, list[DifferenceRow]] | str:
        asked_at = datetime.now(UTC)
        await records.ask_for(connection, day.date(), "")
        ends = asyncio.get_running_loop().time() + wait
        while asyncio.get_running_loop().time() < ends:
            runs = await his_differences.runs(connection, day.date(), 1)
            if runs and runs[0].ended_at >= asked_at:
                found = await his_differences.differences(connection, day.date(), True, None, SHOWN_MAX)
                return runs[0], found
            await asyncio.sleep(LOOK_SECONDS)
        waiting = await records.asked(connection, day.date())
        trouble = waiting.trouble if waiting is not None else None
        return trouble or "no answer in time: is the server running, with a HIS set up?"

    run, found = _with(given, work)
    Console().print(as_table([run]))
    for one in found:
        click.echo(as_line(one))
    sys.exit(1 if found else 0)


def as_table(runs: list[RunRow]) -> Table:
    table = Table(*("day", "ours", "theirs", "matched", "healed", "open"), box=None, pad_edge=False)
    for run in runs:
        table.add_row(
            str(run.day), *(f"{n:,}" for n in (run.ours, run.theirs, run.matched, run.healed, run.left_open))
        )
    return table


def as_line(one: DifferenceRow) -> str:
    """Whole ids, fit to be copied."""
    told = ", ".join(f"{key} {value}" for key, value in one.evidence.items())
    return f"{one.id}: {one.day} {one.kind} {one.subject}: {told}"
