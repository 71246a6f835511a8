"""`xinglin reconcile`: a day beside what the providers say of it, by the server that is running."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.records.reconciliation import DifferenceRow, RunRow
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

LOOK_SECONDS: Final = 0.3
WAIT_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Outcome:
    runs: list[RunRow]
    differences: list[DifferenceRow]
    unfinished: dict[str, str]
    """Channels that could not be compared yet, and why."""

    @property
    def is_good(self) -> bool:
        """Nothing is left for anybody to do. What waits for the next day's statement is not wrong."""
        return (
            bool(self.runs)
            and not self.unfinished
            and all(one.is_complete for one in self.runs)
            and all(one.state == "waiting" for one in self.differences)
        )


@click.command()
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), required=True, help="A day that is over.")
@click.option("--provider", help="wechat_pay, alipay, bookings or hospital.  [default: all of them]")
@click.option("--wait", default=WAIT_SECONDS, show_default=True, help="Seconds to wait for it, at most.")
@HOME
@DATABASE_URL
def reconcile(day: datetime, provider: str | None, wait: float, **given: Any) -> None:
    """Compare a day with the providers' bills, the numbers and the hospital's billing; heal what can be.

    The server does it, so one must be running. Exit status 1 when something is left open.
    """
    from engine.records import reconciliation as records

    async def work(connection: asyncpg.Connection) -> Outcome | str:
        zone = ZoneInfo(await connection.fetchval("select timezone from hospital") or "Asia/Shanghai")
        if day.date() >= datetime.now(zone).date():
            return f"{day.date()} is not over"
        if not await connection.fetchval(_IS_SERVED):
            return "no server is running on this database: start it, it does the comparing"
        asked_at = datetime.now(UTC)
        channel = provider or records.ALL
        await records.ask_for(connection, day.date(), [channel], "")
        return await _followed(connection, day.date(), provider, asked_at, wait)

    outcome = with_database(settings_of(given), work, only_read=True)
    if isinstance(outcome, str):
        fail(outcome)
    console = Console()
    for channel, why in outcome.unfinished.items():
        console.print(f"{channel}: not compared yet: {why}", markup=False, highlight=False)
    if not outcome.runs and not outcome.unfinished:
        fail(f"{provider or 'whatever there is'} is not set up there: see the server's log")
    console.print(as_table(outcome.runs))
    healed = sum(one.healed for one in outcome.runs)
    if healed:
        click.echo(f"healed by asking the providers: {healed}")
    for one in outcome.differences:
        click.echo(as_line(one))
    sys.exit(0 if outcome.is_good else 1)


_IS_SERVED: Final = """
select exists (select from pg_locks l join pg_database d on d.oid = l.database
                where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                  and d.datname = current_database()
                  and (l.classid::bigint << 32 | l.objid::bigint)
                      in (hashtext('xinglin.rounds'), hashtext('xinglin.rounds.payment')))"""
"""Whether a gateway does the rounds (actors/rounds.py), alone or in the service of payments."""


async def _followed(
    connection: asyncpg.Connection, day: date, provider: str | None, asked_at: datetime, wait: float
) -> Outcome:
    """Until nothing is under way; says what is, as it changes."""
    from engine.records import reconciliation as records

    ends = asyncio.get_running_loop().time() + wait
    said: dict[str, str] = {}
    while True:
        asked = [one for one in await records.asked(connection, day) if provider in (None, one.channel)]
        for one in asked:
            if one.trouble and said.get(one.channel) != one.trouble:
                click.echo(f"{one.channel}: {one.trouble} …")
                said[one.channel] = one.trouble
        is_over = all(one.is_put_off for one in asked)
        if is_over or asyncio.get_running_loop().time() >= ends:
            break
        await asyncio.sleep(LOOK_SECONDS)
    runs = [
        one
        for one in await records.latest(connection, day)
        if one.ended_at >= asked_at and provider in (None, one.channel)
    ]
    found = await records.differences(connection, True, day, provider, None, None, SHOWN_MAX)
    return Outcome(runs, found, {one.channel: one.trouble or "no answer in time" for one in asked})


SHOWN_MAX: Final = 200


def as_table(runs: Sequence[RunRow]) -> Table:
    """Yuan of both sides; how many payments and refunds are the same on both."""
    table = Table(*("channel", "", "matched", "yuan", "ours", "theirs", "open"), box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for run in runs:
        for money, word in (("payments", "paid"), ("refunds", "back")):
            sides = run.sums[money]
            count, fen = sides["matched"]
            is_first = money == "payments"
            table.add_row(
                run.channel if is_first else "",
                word,
                f"{count:,}",
                *(_yuan(one) for one in (fen, sides["ours"][1], sides["theirs"][1])),
                str(run.left_open) if is_first else "",
            )
    return table


def as_line(one: DifferenceRow) -> str:
    """Whole ids, fit to be copied."""
    told = [f"{one.channel}: {one.kind}", f"ours {_yuan(one.ours)}", f"theirs {_yuan(one.theirs)}"]
    if one.bill_id is not None:
        told.append(f"bill {one.bill_id.hex()}")
    told.append(f"order {one.subject if one.order_id is None else one.order_id.hex()}")
    told.append(one.state)
    if one.said:
        told.append(f"tried: {one.said}")
    return ", ".join(told)


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02d}"
