"""The command `xinglin`."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from pydantic import SecretStr, ValidationError

from actors import ray_environment
from engine.settings import Settings


@click.group()
@click.version_option(package_name="xinglin")
def main() -> None:
    """Xinglin 杏林: real-time booking and queueing for hospital outpatients."""


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
@click.option("--home", type=click.Path(path_type=Path), help="Data, keys and logs.  [default: .xinglin]")
@click.option("--gateways", type=int, help="HTTP processes.  [default: half the cores]")
@click.option("--shards", type=int, help="Actor processes.  [default: half the cores]")
@click.option("--database-url", help="An outside PostgreSQL instead of the embedded one.")
@click.option("--ray-address", help="A running Ray cluster ('auto').  [default: start one]")
@click.option("--demo/--no-demo", default=None, help="Demo hospital and sandbox sign-in.")
def serve(**given: Any) -> None:
    """Start everything on this machine, or on a Ray cluster."""
    settings = _settings(given)
    ray_environment.prepare(settings.ray_address)
    # Not at the top: Ray reads its environment when it is imported, and `--help` need not wait for it.
    from web.main import CannotStart, serve

    try:
        serve(settings)
    except CannotStart as failed:
        _fail(str(failed))


@main.command()
def settings() -> None:
    """Show every setting, its value and its environment variable."""
    current = _settings({})
    for name, field in Settings.model_fields.items():
        click.echo(f"XINGLIN_{name.upper():<24} {getattr(current, name)!s:<28} {field.description}")


def _settings(given: dict[str, Any]) -> Settings:
    chosen = {name: value for name, value in given.items() if value is not None}
    if "database_url" in chosen:
        chosen["database_url"] = SecretStr(chosen["database_url"])
    try:
        return Settings(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        _fail(f"--{name.replace('_', '-')} (XINGLIN_{name.upper()}): {first['msg']}")


def _fail(why: str) -> NoReturn:
    click.echo(f"xinglin: {why}", err=True)
    sys.exit(1)
