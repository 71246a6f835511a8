"""What a record system sends us: read, looked at by the intake, kept."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final

import asyncpg

from engine.domain.intake import Finding
from engine.records.encounters import take_entry
from engine.vault.vault import Vault
from integrations.emr import translate
from integrations.emr.emr import Read
from web.intake.intake import Intake, Taken, Use

INTERFACES: Final = ("emr.encounter", "emr.condition", "emr.medication", "emr.allergy")
INTERFACE_UNKNOWN: Final = "emr.encounter"
"""Where a resource that is none of ours is put aside."""


@dataclass(frozen=True, slots=True)
class Told:
    where: str
    taken: Taken


def use_of(pool: asyncpg.Pool, vault: Vault, now: Callable[[], datetime]) -> Use:
    return partial(_store, pool, vault, now)


async def _store(
    pool: asyncpg.Pool, vault: Vault, now: Callable[[], datetime], body: Mapping[str, Any]
) -> None:
    await take_entry(pool, vault, body, now())


def receive(intake: Intake, use: Use) -> None:
    """Whatever of these is tried again in this process goes to `use`."""
    for interface in INTERFACES:
        intake.receives(interface, use)


async def take_all(intake: Intake, use: Use, document: Any, sender: str, zone: tzinfo) -> list[Told]:
    """Each resource of it by itself, in its order: what is wrong with one stops no other.

    Raises integrations.emr.emr.Unreadable where it is nothing of ours as a whole, and what says that it is
    worth sending again.
    """
    found = await asyncio.to_thread(translate.read, document, sender, zone)
    return [Told(one.where, await take(intake, use, one)) for one in found]


async def take(intake: Intake, use: Use, one: Read) -> Taken:
    """One that was read."""
    interface = f"emr.{one.kind}" if one.kind is not None else INTERFACE_UNKNOWN
    if one.body is None:
        return await intake.set_aside(interface, one.message_id, one.raw, (Finding(one.place, one.problem),))
    return await intake.take(interface, one.message_id, one.body, use, one.raw)
