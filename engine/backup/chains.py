"""Chains in the second place: what there is, beginning one, and letting go of what is old."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from engine.backup import layout
from engine.backup.encrypted import seal, unseal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys
from engine.backup.layout import Base, Chain, Head, Wal
from engine.backup.places import Place

_SERVER: Final = """
select (select system_identifier::text from pg_control_system()) as system,
       current_setting('server_version_num')::int / 10000 as major,
       pg_size_bytes(current_setting('wal_segment_size'))::int as segment_bytes,
       current_database() as database,
       (select rolname from pg_roles where oid = 10)::text as owner"""


@dataclass(frozen=True, slots=True)
class Held:
    """What the place holds of one chain."""

    id: str
    bases: list[Base]  # complete ones, the oldest first
    wal: list[Wal]
    unfinished: list[str]  # names of parts whose manifest was never written


async def describe(connection: asyncpg.Connection, at: datetime) -> Chain:
    """A new chain of this server; nothing is written yet."""
    row = await connection.fetchrow(_SERVER)
    return Chain(layout.chain_id(at, secrets.token_hex(3)), **dict(row), began_at=at.isoformat())


async def begin(place: Place, keys: Keys, chain: Chain) -> None:
    await place.begin(chain.id)
    name = f"{chain.id}/{layout.CHAIN}"
    await place.put(name, seal(keys.current, name, layout.packed(chain)))


async def known(place: Place, keys: Keys, chain: str) -> Chain | None:
    """The chain of this id, where the place still has it."""
    name = f"{chain}/{layout.CHAIN}"
    if name not in await place.names(chain):
        return None
    return layout.unpacked_chain(name, unseal(keys, name, await place.get(name)))


async def held(place: Place, keys: Keys) -> list[Held]:
    """All chains, the oldest first. Reads (and so checks) every manifest."""
    by_chain: dict[str, list[str]] = {}
    for name in await place.names():
        folder = name.partition("/")[0]
        if folder[:1].isdigit():  # others hold the erasure ledger and the audit's checkpoints
            by_chain.setdefault(folder, []).append(name)
    return [await _held(place, keys, chain, names) for chain, names in sorted(by_chain.items())]


async def _held(place: Place, keys: Keys, chain: str, names: list[str]) -> Held:
    bases = []
    for name in names:
        if name.endswith(".manifest"):
            bases.append(layout.unpacked_base(name, unseal(keys, name, await place.get(name))))
    complete = {base.name for base in bases}
    parts = [name for name in names if name.partition("/")[2].startswith("base-")]
    unfinished = [n for n in parts if n.partition("/")[2].partition(".")[0] not in complete]
    return Held(chain, sorted(bases, key=lambda base: base.started), layout.wal_of(names), unfinished)


async def head(place: Place, keys: Keys, chain: str) -> Head | None:
    name = f"{chain}/{layout.HEAD}"
    if name not in await place.names(chain):
        return None
    return layout.unpacked_head(name, unseal(keys, name, await place.get(name)))


def chosen(chains: Iterable[Held], until: datetime | None) -> tuple[Held, Base]:
    """The base to restore from: the newest that was complete by then. Raises BackupFailed."""
    found = [(chain, base) for chain in chains for base in chain.bases]
    if not found:
        raise BackupFailed("there is no complete base backup in that place")
    fitting = [pair for pair in found if until is None or pair[1].ended <= until]
    if not fitting:
        first = min(base.ended for _, base in found)
        raise BackupFailed(
            f"the oldest base backup was complete at {first.isoformat()}: --until is before it"
        )
    return max(fitting, key=lambda pair: pair[1].ended)


def outlived(chains: list[Held], keep: int, current: str) -> list[str]:
    """Names of what may go when so many base backups are kept: older ones, and WAL that only they needed.

    A chain without any kept base backup goes whole, save the current one. What is unfinished goes when a
    later base backup of its chain is complete.
    """
    newest = sorted((base.ended, base.manifest) for chain in chains for base in chain.bases)
    kept = {manifest for _, manifest in newest[-keep:]}
    gone: list[str] = []
    for chain in chains:
        stays = [base for base in chain.bases if base.manifest in kept]
        for base in chain.bases:
            if base.manifest not in kept:
                # The manifest first: a base that is half gone must not look whole.
                gone += [base.manifest, *(base.part(number) for number in range(base.parts))]
        if stays:
            done = stays[-1].name
            gone += [name for name in chain.unfinished if name.partition("/")[2] < done]
            first = layout.segment_of(stays[0].start_lsn, stays[0].timeline, stays[0].segment_bytes)
            gone += [wal.name for wal in chain.wal if wal.segment < first]
        elif chain.id != current and chain.bases:
            gone += [wal.name for wal in chain.wal] + chain.unfinished
            gone += [f"{chain.id}/{layout.HEAD}", f"{chain.id}/{layout.CHAIN}"]
    return gone
