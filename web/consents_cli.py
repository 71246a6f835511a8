"""`xinglin consents`: the texts that patients agree to, published and shown."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import click

from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of


@click.group()
def consents() -> None:
    """Texts that patients agree to: docs/PRIVACY.md."""


@consents.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--who", help="Who publishes them.  [default: the name of this login]")
@HOME
@DATABASE_URL
def publish(file: Path, who: str | None, **given: Any) -> None:
    """Publish the texts of FILE (consents.yaml), all or none.

    A version that was published is never changed: give another text another version.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records import consents as records
    from engine.records.catalog import load_catalog
    from engine.records.consent_file import ConsentsRefused, read_consents

    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8: save it as 'UTF-8 text'")

    async def published(connection: asyncpg.Connection) -> list[records.ConsentVersion]:
        zone = (await load_catalog(connection)).hospital.zone
        now = datetime.now(UTC)
        async with connection.transaction():
            versions = read_consents(text, zone, now, str(file))
            new = await records.publish(connection, versions, who or getpass.getuser(), now)
            for one in new:
                entry = Entry(
                    "consent_published",
                    operator(),
                    object=("consent", one.kind.value),
                    detail={"version": one.version, "renew": one.renew},
                )
                await write(connection, entry)
        return new

    try:
        new = with_database(settings_of(given), published)
    except ConsentsRefused as refused:
        for one in refused.errors:
            click.echo(str(one), err=True)
        fail(f"{len(refused.errors)} errors, nothing was published")
    except records.NotSaid as refused:
        fail(_WHY[refused.code])
    for text_of in new:
        click.echo(f"{text_of.kind.value} {text_of.version} holds from {text_of.valid_from:%F %T %Z}")
    if not new:
        click.echo("all of them are published already")


@consents.command()
@HOME
@DATABASE_URL
def show(**given: Any) -> None:
    """List every version of every text, the latest first."""
    from engine.records.consents import all_versions

    for one in with_database(settings_of(given), all_versions, only_read=True):
        renew = ", asked for anew" if one.renew else ""
        click.echo(
            f"{one.kind.value} {one.version} from {one.valid_from:%F %T %Z}{renew}: {one.texts['zh'].title}"
        )


_WHY = {
    "consent_version_taken": "a version of this name was published with other words or another day:"
    " give the text a new version",
    "consent_version_late": "a later version of the same kind is published already:"
    " valid_from must come after it",
}
