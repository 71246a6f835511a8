"""`xinglin policy`: the hospital's rules, checked, tried and applied; beside a running server or without."""

import getpass
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import click
from rich.console import Console

from web.command_database import with_database
from web.command_line import DATABASE_URL, HOME, fail, settings_of

T = TypeVar("T")

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Check, try and apply policy.yaml: docs/POLICY.md."""


@policy.command()
@_FILE
@HOME
@DATABASE_URL
def check(file: Path, **given: Any) -> None:
    """Tell every error in FILE with its line. Exit status 1 when there is one.

    Ids of departments and classes are checked against the database, where there is one.
    """
    from engine.domain.policy import Policy
    from engine.records.policies import known_ids
    from engine.records.policy_file import PolicyRefused, read_policy

    settings = settings_of(given)
    text = _text(file)
    known = None
    if settings.database_url is not None or (settings.home / "postgres").exists():
        known = with_database(settings, known_ids, only_read=True)
    try:
        read_policy(text, Policy(), known, str(file))
    except PolicyRefused as refused:
        _tell(refused)
        fail(f"{len(refused.errors)} errors")
    unchecked = "" if known is not None else "; there is no database here, so ids were not checked"
    click.echo(f"{file} is right{unchecked}")


@policy.command()
@_FILE
@click.option("--who", help="Who puts it in force.  [default: the name of this login]")
@HOME
@DATABASE_URL
def apply(file: Path, who: str | None, **given: Any) -> None:
    """Put FILE in force: for what is published from now on, and for days that nobody has booked yet.

    A running server follows at once. Booked days keep the seats that they have opened with.
    """
    from engine.audit.entries import Entry, operator, write
    from engine.records.catalog import load_catalog, write_schedules
    from engine.records.policies import store_policy
    from engine.records.policy_file import PolicyRefused

    settings = settings_of(given)
    text = _text(file)

    async def stored(connection: asyncpg.Connection) -> str:
        zone = (await load_catalog(connection)).hospital.zone
        async with connection.transaction():
            if not await store_policy(connection, text, who or getpass.getuser(), str(file)):
                return "is in force already"
            await write(connection, Entry("policy_applied", operator(), detail={"file": file.name}))
            today = datetime.now(zone).date()
            published = await write_schedules(connection, today, settings.publish_days)
        return f"is in force: {published.changed} published days rewritten, {published.kept} kept as booked"

    try:
        told = with_database(settings, stored)
    except PolicyRefused as refused:
        _tell(refused)
        fail(f"{len(refused.errors)} errors, nothing was changed")
    click.echo(f"{file} {told}")


@policy.command()
@click.option("--waiting", "department", metavar="DEPARTMENT", help="What holds in its waiting room, whole.")
@click.option("--money", metavar="DEPARTMENT", help="What goes back there, class by class, and prices.")
@HOME
@DATABASE_URL
def show(department: str | None, money: str | None, **given: Any) -> None:
    """Print the policy in force as it was written.

    With --waiting: the rules of one department's waiting room as they come out of the engine's defaults, the
    hospital's and the department's own, in the words of the file. With --money: likewise what is given back.
    """
    from engine.records.policies import policy_in_force

    record = with_database(settings_of(given), policy_in_force, only_read=True)
    if department is not None:
        _show_waiting(department, "" if record is None else record.yaml)
        return
    if money is not None:
        _show_money(money, "" if record is None else record.yaml)
        return
    if record is None:
        click.echo(
            "xinglin: no policy is in force; everything is as by default and in the settings", err=True
        )
        return
    click.echo(f"# version {record.version}, put in force by {record.who} at {record.at:%F %T %Z}", err=True)
    sys.stdout.write(record.yaml)


def _show_waiting(department: str, text: str) -> None:
    """A department that says nothing has the hospital's."""
    import yaml

    from engine.domain.policy import Policy
    from engine.records.policy_file import read_policy
    from engine.records.waiting_terms_file import waiting_as_data

    policy = read_policy(text, Policy()) if text else Policy()
    own = "its own" if department in policy.waiting else "the hospital's"
    click.echo(f"# the waiting room of {department}: {own}", err=True)
    data = {"waiting": waiting_as_data(policy.waiting_of(department))}
    sys.stdout.write(yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=110))


def _show_money(department: str, text: str) -> None:
    """Of every class that has rules of its own, and of all others."""
    import yaml

    from engine.domain.policy import Policy
    from engine.records.payment_file import payment_as_data, refunds_as_data
    from engine.records.policy_file import read_policy

    policy = read_policy(text, Policy()) if text else Policy()
    rules = policy.money.refunds
    own = {class_id for id_, class_id in rules.terms if class_id and id_ in ("", department)}
    data = {
        "payment": payment_as_data(policy),
        "refunds": refunds_as_data(rules.terms_of(department, "")),
        "classes": {
            class_id: {"refunds": refunds_as_data(rules.terms_of(department, class_id))}
            for class_id in sorted(own)
        },
    }
    click.echo(f"# what holds in {department}", err=True)
    sys.stdout.write(yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=110))


@policy.command("dry-run")
@_FILE
@click.option(
    "--from", "first", required=True, type=click.DateTime(["%Y-%m-%d"]), help="First day of visits."
)
@click.option("--to", "last", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Last day of visits.")
@HOME
@DATABASE_URL
def dry_run(file: Path, first: datetime, last: datetime, **given: Any) -> None:
    """Replay recorded days under the policy in force and under FILE, and show what would differ: bookings,
    whom the waiting rooms would have called, and money.

    Changes nothing, and may be run on a database in use.
    """
    from engine.domain.policy import Policy
    from engine.records.policies import known_ids, load_policy, of_settings
    from engine.records.policy_file import PolicyRefused, read_policy
    from web.policy_dry_run import Comparison, compare, read_days
    from web.policy_dry_run import show as show_comparison
    from web.policy_dry_run_money import MoneyNumber, read_numbers, show_money
    from web.policy_dry_run_rooms import RoomDay, compare_rooms, show_rooms

    settings = settings_of(given)
    text = _text(file)
    if last < first:
        fail(f"--to {last:%F} is before --from {first:%F}: swap them")
    fallback = of_settings(settings)

    async def compared(
        connection: asyncpg.Connection,
    ) -> tuple[Comparison, list[RoomDay], list[MoneyNumber], Policy, Policy]:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            before = await load_policy(connection, fallback)
            after = read_policy(text, fallback, await known_ids(connection), str(file))
            days = await read_days(connection, first.date(), last.date())
            rooms = await compare_rooms(connection, first.date(), last.date(), before, after)
            numbers = await read_numbers(connection, first.date(), last.date())
        return compare(days, before, after), rooms, numbers, before, after

    try:
        found, rooms, numbers, before, after = with_database(settings, compared, only_read=True)
    except PolicyRefused as refused:
        _tell(refused)
        fail(f"{len(refused.errors)} errors")
    console = Console()
    show_comparison(found, console)
    show_rooms(rooms, found.days.zone, console)
    show_money(numbers, before, after, console)


def _text(file: Path) -> str:
    from engine.records.policy_file import BYTES_MAX

    try:
        with file.open("rb") as opened:
            data = opened.read(BYTES_MAX + 1)
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}")
    if len(data) > BYTES_MAX:
        fail(f"{file}: is larger than {BYTES_MAX // 1024} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fail(f"{file}:{line}: is not UTF-8: save it as 'UTF-8 text'")


def _tell(refused: Any) -> None:
    for error in refused.errors:
        click.echo(str(error), err=True)
