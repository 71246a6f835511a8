"""`xinglin no-show`: learn who will not come, and show what was learned; with a running server or without."""

import os
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from engine.domain.no_show import Model
from engine.domain.no_show_night import Judged
from engine.records.no_show_models import Learned, latest, nights
from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, settings_of

T = TypeVar("T")

WHY = {
    "too_few": "too few visits are known",
    "not_judged": "the latest week is too small to judge by",
    "no_better": "on the latest week it told no more than one share for everybody",
}
CELLS_SHOWN = 12


@click.group("no-show")
def no_show() -> None:
    """Learn and show who will not come: docs/NO_SHOWS.md."""


@no_show.command()
@HOME
@DATABASE_URL
def learn(**given: Any) -> None:
    """Learn from all visits until yesterday, and use it from now on.

    A running server does this by itself every night. Takes seconds to a minute, and lets others go first.
    """
    from web import no_show_round

    os.nice(no_show_round.NICE)
    learned = with_database(
        settings_of(given),
        lambda connection: no_show_round.learn(connection, datetime.now(UTC)),
        only_read=True,
    )
    for line in words(learned):
        click.echo(line)


@no_show.command()
@HOME
@DATABASE_URL
def show(**given: Any) -> None:
    """Show the latest night: what it learned from, how well the latest week was told, what weighs most."""

    async def both(connection: asyncpg.Connection) -> tuple[Learned, list[Learned], ZoneInfo]:
        zone = await connection.fetchval("select timezone from hospital")
        return await latest(connection), await nights(connection), ZoneInfo(zone or "Asia/Shanghai")

    learned, earlier, zone = with_database(settings_of(given), both, only_read=True)
    if learned.learned_at is None:
        click.echo("nothing was learned yet: `xinglin no-show learn`, or wait for the night")
        return
    console = Console()
    for line in words(learned):
        console.print(line, highlight=False)
    if learned.night.judged is not None:
        console.print(_calibration(learned.night.judged))
    if learned.night.model is not None:
        console.print(_cells(learned.night.model))
    console.print(_nights(earlier, zone))


def words(learned: Learned) -> list[str]:
    """What a night has found, in a few lines."""
    night = learned.night
    share = f" ({100 * night.missed / night.rows:.1f} %)" if night.rows else ""
    since = f" from {night.first_day}" if night.first_day else ""
    lines = [f"{night.rows} visits{since} until {night.until}, {night.missed} missed{share}"]
    if night.judged is not None:
        judged = night.judged
        lines.append(
            f"the week from {judged.since} ({judged.rows} visits), told without having seen it:"
            f" AUC {judged.auc:.3f}, Brier {judged.brier:.4f},"
            f" and {judged.brier_of_share:.4f} for one share told to all"
        )
    if night.why is not None:
        lines.append(f"no model is used: {WHY[night.why]}. Chances are the plain shares of like visits.")
    else:
        lines.append(
            f"the model is used; people of one session share a variance of {night.absences_differ:.3f}"
        )
    return lines


def _calibration(judged: Judged) -> Table:
    table = Table(*("told %", "missed %", "visits"), box=None, pad_edge=False)
    for told, seen, n in judged.bins:
        table.add_row(f"{100 * told:.1f}", f"{100 * seen:.1f}", str(n))
    return table


def _cells(model: Model) -> Table:
    table = Table(*("table", "cell", "points"), box=None, pad_edge=False)
    told = [(name, cell, points) for name, cells in model.tables.items() for cell, points in cells.items()]
    for name, cell, points in sorted(told, key=lambda one: -abs(one[2]))[:CELLS_SHOWN]:
        table.add_row(name, cell, f"{points:+.2f}")
    return table


def _nights(found: list[Learned], zone: ZoneInfo) -> Table:
    table = Table(
        *("learned at", "visits", "missed", "AUC", "Brier", "of share", "used"), box=None, pad_edge=False
    )
    for one in found:
        assert one.learned_at is not None
        night, judged = one.night, one.night.judged
        table.add_row(
            f"{one.learned_at.astimezone(zone):%F %H:%M}",
            str(night.rows),
            str(night.missed),
            "" if judged is None else f"{judged.auc:.3f}",
            "" if judged is None else f"{judged.brier:.4f}",
            "" if judged is None else f"{judged.brier_of_share:.4f}",
            "yes" if night.why is None else f"no: {night.why}",
        )
    return table
