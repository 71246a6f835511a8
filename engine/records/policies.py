"""The policy in force, as it lies in PostgreSQL: the last row of `policy`."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from engine.domain.policy import Policy
from engine.records.catalog_version import announce_change, lock_catalog
from engine.records.policy_file import Known, read_policy
from engine.settings import Settings


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    version: int
    yaml: str
    who: str
    at: datetime


def of_settings(settings: Settings) -> Policy:
    """What holds where no policy says otherwise."""
    return Policy(
        settings.hold_seconds,
        settings.active_appointments_max,
        settings.account_holds_max,
        settings.day_appointments_max,
    )


async def policy_in_force(connection: asyncpg.Connection) -> PolicyRecord | None:
    """None as long as nobody has put one in force."""
    row = await connection.fetchrow("select version, yaml, who, at from policy order by version desc limit 1")
    return None if row is None else PolicyRecord(*row)


async def load_policy(connection: asyncpg.Connection, fallback: Policy) -> Policy:
    """The policy in force; what it does not say, or all when there is none, is as in `fallback` (settings).

    Ids are not checked again: a department that is gone since then is simply not asked for. Raises
    PolicyRefused when the text in force is not one that this program can read.
    """
    record = await policy_in_force(connection)
    return fallback if record is None else read_policy(record.yaml, fallback)


async def known_ids(connection: asyncpg.Connection) -> Known:
    """What a policy of this database may name."""
    departments = await connection.fetch(
        "select id, not exists (select from department below where below.parent_id = d.id) from department d"
    )
    classes = await connection.fetch("select id from number_class")
    practitioners = await connection.fetch("select id from practitioner")
    return Known(
        {id_: bookable for id_, bookable in departments},
        frozenset(row["id"] for row in classes),
        frozenset(row["id"] for row in practitioners),
    )


async def store_policy(
    connection: asyncpg.Connection, text: str, who: str, file: str = "policy.yaml"
) -> bool:
    """Puts a policy in force, inside the caller's transaction; False when it is in force already.

    Everybody who follows the catalog hears of it after the commit. Published days are rewritten by
    catalog.write_schedules, which the caller runs afterwards. Raises PolicyRefused, with nothing written,
    when the text is not right or names what the hospital does not have.
    """
    await lock_catalog(connection)
    read_policy(text, Policy(), await known_ids(connection), file)
    changed = await write_policy(connection, text, who)
    if changed:
        await announce_change(connection)
    return changed


async def write_policy(connection: asyncpg.Connection, text: str, who: str) -> bool:
    """store_policy without check, lock and announcement, for who has done all three."""
    last = await policy_in_force(connection)
    if last is not None and last.yaml == text:
        return False
    await connection.execute("insert into policy (yaml, who) values ($1, $2)", text, who)
    return True
