"""What the commands of `xinglin` share: options, settings, and how they fail."""

import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from pydantic import SecretStr, ValidationError

from engine.settings import Settings

HOME: Final = click.option(
    "--home", type=click.Path(path_type=Path), help="Of the server.  [default: .xinglin]"
)
DATABASE_URL: Final = click.option("--database-url", help="An outside PostgreSQL instead of the home's.")


def settings_of(given: dict[str, Any]) -> Settings:
    """Options that were given over the environment over the defaults. Ends the command when they are bad."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if "database_url" in chosen:
        chosen["database_url"] = SecretStr(chosen["database_url"])
    try:
        return Settings(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several together
            fail(first["msg"])
        name = str(first["loc"][0])
        fail(f"--{name.replace('_', '-')} (XINGLIN_{name.upper()}): {first['msg']}")


def fail(why: str) -> NoReturn:
    """One line, exit status 1."""
    click.echo(f"xinglin: {why}", err=True)
    sys.exit(1)
