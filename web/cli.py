"""The command `xinglin`."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from actors import ray_environment
from engine.settings import Settings
from web import audit_trail_cli
from web.admin_cli import admin
from web.backup_cli import KEY_FILE, backup, restore
from web.command_line import DATABASE_URL as _DATABASE_URL
from web.command_line import HOME as _HOME
from web.command_line import fail as _fail
from web.command_line import settings_of as _settings
from web.consents_cli import consents
from web.coupons_cli import coupons
from web.events_cli import webhooks
from web.his_cli import his
from web.intake_cli import intake
from web.no_show_cli import no_show
from web.oidc_cli import link_oidc, oidc_links_, unlink_oidc
from web.outbox_cli import outbox
from web.partner_cli import partner
from web.policy_cli import policy
from web.privacy_cli import privacy
from web.reconcile_cli import reconcile
from web.staff_cli import staff
from web.vault_cli import vault
from web.waiting_times_cli import waiting_times


@click.group()
@click.version_option(package_name="xinglin")
def main() -> None:
    """Xinglin 杏林: real-time booking and queueing for hospital outpatients."""


@main.command()
@click.option("--only", help="Services to start: booking,payment,reports,integration.  [default: all]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8080]")
@click.option("--home", type=click.Path(path_type=Path), help="Data, keys and logs.  [default: .xinglin]")
@click.option("--gateways", type=int, help="HTTP processes.  [default: half the cores]")
@click.option("--shards", type=int, help="Actor processes.  [default: half the cores]")
@click.option("--database-url", help="An outside PostgreSQL instead of the embedded one.")
@click.option("--ray-address", help="A running Ray cluster ('auto').  [default: start one]")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM chain: speak TLS.  [default: plain]")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM key of the certificate.")
@click.option("--demo/--no-demo", default=None, help="Demo hospital and sandbox sign-in.")
@click.option("--backup-to", help="Archive into this second place, and back up each night.  [default: no]")
@KEY_FILE
def serve(**given: Any) -> None:
    """Start everything on this machine, or on a Ray cluster; or some of its services (docs/SERVICES.md)."""
    settings = _settings(given)
    ray_environment.prepare(settings.ray_address)
    # Not at the top: Ray reads its environment when it is imported, and `--help` need not wait for it.
    from web.main import CannotStart, serve

    try:
        serve(settings)
    except CannotStart as failed:
        _fail(str(failed))


_FILE = click.argument("file", type=click.Path(path_type=Path))


@main.command("import")
@_FILE
@_HOME
@_DATABASE_URL
def import_(file: Path, **given: Any) -> None:
    """Load a hospital from FILE: its hospital.yaml, or the directory it lies in.

    Checked first, then done whole or not at all; a running server follows at once.
    """
    from engine.records.hospital_rules import ImportRefused
    from web.importing import DATABASE_FAILURES, as_table, import_path

    try:
        report = import_path(file, _settings(given))
    except ImportRefused as refused:
        for error in refused.errors:
            click.echo(str(error), err=True)
        _fail(f"{len(refused.errors)} errors, nothing was changed")
    except DATABASE_FAILURES as failed:
        _fail(str(failed))
    Console().print(as_table(report))


@main.group(invoke_without_command=True)
@_HOME
@_DATABASE_URL
@click.pass_context
def audit(context: click.Context, /, **given: Any) -> None:
    """Compare journal, tables and replayed state.

    Changes nothing, and may be run on a database in use. Exit status 1 when anything is wrong. The commands
    below are for who did and read what (docs/AUDIT.md).
    """
    if context.invoked_subcommand is not None:
        context.default_map = {context.invoked_subcommand: given}  # options before its name count, too
        return
    from web.audit import audit_database, show
    from web.importing import DATABASE_FAILURES

    try:
        checks = audit_database(_settings(given))
    except DATABASE_FAILURES as failed:
        _fail(str(failed))
    show(checks, Console())
    sys.exit(0 if all(check.ok for check in checks) else 1)


@main.command()
@_FILE
@click.option("--address", default="http://127.0.0.1:8080", show_default=True, help="Of the server.")
@click.option(
    "--speed", type=click.FloatRange(min=0), default=0.0, help="Speed-up.  [default: 0, no waiting]"
)
@click.option("--limit", type=click.IntRange(min=1), help="Rows of the file to take.  [default: all]")
@click.option("--concurrency", type=click.IntRange(min=1), default=64, show_default=True, help="At a time.")
@click.option("--skip-bad", is_flag=True, help="Malformed rows do not make the exit status 1.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the figures into this JSON file, too.")
@_HOME
@_DATABASE_URL
def replay(home: Path | None, database_url: str | None, **given: Any) -> None:
    """Drive a running server with FILE, the data set "Medical Appointment No Shows", then audit it.

    The server must accept sandbox sign-in (`xinglin serve --demo`); home or database URL are its own.
    """
    from web.importing import DATABASE_FAILURES
    from web.no_shows import WrongFile
    from web.replay import CannotReplay, Options, run

    try:
        ok = run(Options(**given), _settings({"home": home, "database_url": database_url}))
    except (CannotReplay, WrongFile, *DATABASE_FAILURES) as failed:
        _fail(str(failed))
    sys.exit(0 if ok else 1)


@main.command()
def settings() -> None:
    """Show every setting, its value and its environment variable."""
    current = _settings({})
    for name, field in Settings.model_fields.items():
        click.echo(f"XINGLIN_{name.upper():<24} {getattr(current, name)!s:<28} {field.description}")


audit_trail_cli.add_to(audit)
main.add_command(admin)
main.add_command(backup)
main.add_command(consents)
main.add_command(coupons)
main.add_command(his)
main.add_command(intake)
main.add_command(no_show)
main.add_command(outbox)
main.add_command(partner)
main.add_command(policy)
main.add_command(privacy)
main.add_command(reconcile)
main.add_command(restore)
for _command in (link_oidc, unlink_oidc, oidc_links_):
    staff.add_command(_command)
main.add_command(staff)
main.add_command(vault)
main.add_command(waiting_times)
main.add_command(webhooks)
