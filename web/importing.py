"""`xinglin import`: a hospital's files into the database, beside a running server or before the first one."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.table import Table

from engine import database, embedded_postgres
from engine.audit.entries import Entry, operator, write
from engine.records.hospital_file import HospitalFiles, read_hospital
from engine.records.hospital_import import ImportReport, import_hospital
from engine.settings import Settings

DATABASE_FAILURES: Final = (embedded_postgres.PostgresFailed, database.DatabaseFailed)
"""What each command tells in one line."""


@contextlib.contextmanager
def database_of(settings: Settings) -> Iterator[str]:
    """The database that a command works on: the one that is given, else the embedded one of the home."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    with embedded_postgres.borrowed(settings.home.resolve()) as url:
        yield url


def import_path(path: Path, settings: Settings) -> ImportReport:
    """Files that are not right are refused before any database is touched.

    Raises ImportRefused, PostgresFailed or DatabaseFailed; nothing was changed then.
    """
    files = read_hospital(path)
    with database_of(settings) as url:
        return asyncio.run(_import(url, files, settings))


async def _import(url: str, files: HospitalFiles, settings: Settings) -> ImportReport:
    if settings.database_url is None:
        await database.create_if_missing(url)
    connection = await database.connect(url)
    try:
        await database.migrate(connection)
        today = datetime.now(files.hospital.zone).date()
        # Gateways and shards of a running server hear of it by themselves, once this has committed.
        async with connection.transaction():
            report = await import_hospital(connection, files, today, settings.publish_days)
            await write(connection, Entry("hospital_imported", operator()))
        return report
    finally:
        await connection.close()


def as_table(report: ImportReport) -> Table:
    table = Table("", *("added", "changed", "removed", "kept"), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, changes in report.tables.items():
        table.add_row(
            name.replace("_", " "), str(changes.added), str(changes.changed), str(changes.removed), ""
        )
    # Published days are rewritten as a whole, so they are counted together; booked ones keep their plan.
    table.add_row("published day", "", str(report.schedules), "", str(report.kept))
    return table
