"""`xinglin waiting-times`: learn from days that are over, and show how good the forecasts were."""

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.domain.calibration import Score
from engine.records.service_times import Night, Reported
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, settings_of

T = TypeVar("T")

REPORT_DAYS: Final = 28
_COLUMNS: Final = ("told", "P10 %", "P50 %", "P90 %", "error min", "bias min")


@click.group("waiting-times")
def waiting_times() -> None:
    """Learn and judge waiting times: docs/WAITING_TIME.md."""


@waiting_times.command()
@HOME
@DATABASE_URL
def learn(**given: Any) -> None:
    """Learn from every day that is over and was not learned from yet.

    A running server does this by itself every night. Again, it changes nothing. Others go first.
    """
    from engine.records.policies import load_policy, of_settings
    from web import waiting_time_round

    settings = settings_of(given)
    os.nice(waiting_time_round.NICE)

    async def work(connection: asyncpg.Connection) -> list[waiting_time_round.LearnedDay]:
        policy = await load_policy(connection, of_settings(settings))
        return await waiting_time_round.learn(connection, policy, datetime.now(UTC))

    learned = with_database(settings, work, only_read=True)
    if not learned:
        click.echo("there is no day that was not learned from")
    for one in learned:
        click.echo(
            f"{one.day}: {one.visits} turns in {one.departments} departments, {one.told} forecasts judged"
            + (f", P90 covers {_percent(one.score.coverage_p90)} %" if one.told else "")
        )


@waiting_times.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First day.  [default: 28 days ago]")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last day.  [default: today]")
@click.option("--department", help="Its id.  [default: all of them]")
@HOME
@DATABASE_URL
def report(first: datetime | None, last: datetime | None, department: str | None, **given: Any) -> None:
    """Show by day and by distance how often P10, P50 and P90 held, and by how much P50 was wrong.

    P90 should hold for 90 of 100: fewer, and patients miss their turn's worst case; more, and they are told
    too much. Distance is turns ahead at each room.
    """
    from engine.records import service_times as records

    to = datetime.now(UTC).date() if last is None else last.date()
    since = to - timedelta(days=REPORT_DAYS) if first is None else first.date()

    async def both(connection: asyncpg.Connection) -> tuple[list[Reported], list[Night]]:
        chosen = None if department is None else [department]
        return await records.report(connection, since, to, chosen), await records.nights(connection)

    found, nights = with_database(settings_of(given), both, only_read=True)
    if not found:
        click.echo("nothing was judged in that time: `xinglin waiting-times learn`, or wait for the night")
        return
    console = Console()
    console.print(_table("day", by_day(found)))
    console.print(_table("ahead", by_distance(found)))
    if nights:
        click.echo(f"learned until {nights[0].day}, {nights[0].visits} turns on that day")


def by_day(found: Sequence[Reported]) -> dict[date, Score]:
    days: dict[date, Score] = {}
    for one in found:
        days[one.day] = days.get(one.day, Score()) + one.score
    return dict(sorted(days.items()))


def by_distance(found: Sequence[Reported]) -> dict[int, Score]:
    distances: dict[int, Score] = {}
    for one in found:
        distances[one.distance] = distances.get(one.distance, Score()) + one.score
    return dict(sorted(distances.items()))


def _table(name: str, rows: dict[Any, Score]) -> Table:
    table = Table(name, *_COLUMNS, box=None, pad_edge=False)
    for key, score in (*rows.items(), ("all", sum(rows.values(), Score()))):
        table.add_row(
            str(key),
            str(score.n),
            _percent(score.coverage_p10),
            _percent(score.coverage_p50),
            _percent(score.coverage_p90),
            _minutes(score.mean_absolute_error_seconds),
            _minutes(score.bias_seconds),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f}"
