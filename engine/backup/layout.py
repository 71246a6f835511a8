"""What lies where in the second place, by name.

    <chain>/chain                    what it is a chain of
    <chain>/base-<time>.<number>     parts of a base backup: a gzipped tar, cut
    <chain>/base-<time>.manifest     written last: without it the base backup is not there
    <chain>/wal-<segment>            a whole segment of the write-ahead log (WAL)
    <chain>/wal-<segment>.<offset>   a piece of the segment that is being written
    <chain>/head                     how far the log has come, now and then: a tail that is missing is noticed

A chain is one uninterrupted history of one server: base backups, and all WAL from its begin on. When the
history breaks (the server was restored, a standby took over, WAL was lost because the place was away too
long), a new chain begins. So WAL of two servers is never mixed, and a restored copy that goes on archiving
harms nothing that was there.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from engine.backup.failed import BackupFailed

CHAIN: Final = "chain"
HEAD: Final = "head"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_MOMENT: Final = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Chain:
    id: str
    system: str  # PostgreSQL's identifier of the cluster
    major: int  # of PostgreSQL: only the same one can restore
    segment_bytes: int
    database: str
    owner: str  # role that owns the cluster
    began_at: str


@dataclass(frozen=True, slots=True)
class Head:
    lsn: int  # end of what was shipped, without the zeros behind it
    at: str  # all commits up to this moment are in the place


@dataclass(frozen=True, slots=True)
class Base:
    """A base backup that is complete. Times are ISO 8601 in UTC."""

    chain: str
    name: str
    started_at: str
    ended_at: str
    start_lsn: int
    end_lsn: int  # restoring needs WAL up to here at least; it lies in the base itself
    timeline: int
    parts: int
    sealed_bytes: int
    major: int
    segment_bytes: int
    database: str
    owner: str

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.started_at)

    @property
    def ended(self) -> datetime:
        return datetime.fromisoformat(self.ended_at)

    @property
    def manifest(self) -> str:
        return f"{self.chain}/{self.name}.manifest"

    def part(self, number: int) -> str:
        return part_name(self.chain, self.name, number)


@dataclass(frozen=True, slots=True, order=True)
class Wal:
    """A file of WAL in the place. `offset` is None for a whole segment."""

    segment: str
    offset: int | None
    name: str


def chain_id(at: datetime, chance: str) -> str:
    """Ids sort as their chains began: to the microsecond, for a second chain can begin within a second."""
    return f"{at.astimezone(UTC).strftime(_MOMENT)}-{chance}"


def base_name(at: datetime) -> str:
    return f"base-{stamp(at)}"


def part_name(chain: str, base: str, number: int) -> str:
    return f"{chain}/{base}.{number:05d}"


def wal_name(chain: str, segment: str, offset: int | None = None) -> str:
    return f"{chain}/wal-{segment}" + ("" if offset is None else f".{offset:08x}")


def wal_of(names: Iterable[str]) -> list[Wal]:
    """The files of WAL among those of one chain, in order; the whole segment before its pieces."""
    found = []
    for name in names:
        file = name.partition("/")[2]
        if file.startswith("wal-"):
            segment, _, offset = file.removeprefix("wal-").partition(".")
            found.append(Wal(segment, int(offset, 16) if offset else None, name))
    return sorted(found, key=lambda wal: (wal.segment, -1 if wal.offset is None else wal.offset))


def segment_of(lsn: int, timeline: int, segment_bytes: int) -> str:
    """The name of the segment that holds this position."""
    return segment_name(timeline, lsn // segment_bytes, segment_bytes)


def segment_name(timeline: int, number: int, segment_bytes: int) -> str:
    per_id = 0x1_0000_0000 // segment_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def segment_number(segment: str, segment_bytes: int) -> int:
    return int(segment[8:16], 16) * (0x1_0000_0000 // segment_bytes) + int(segment[16:24], 16)


def lsn_of(text: str) -> int:
    """PostgreSQL's 16/B374D848 as a number of bytes."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_STAMP)


def packed(content: Chain | Base | Head) -> bytes:
    return orjson.dumps(asdict(content))


def unpacked_base(name: str, data: bytes) -> Base:
    try:
        return Base(**orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):
        raise BackupFailed(f"{name} is of another version of this program") from None


def unpacked_chain(name: str, data: bytes) -> Chain:
    try:
        return Chain(**orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):
        raise BackupFailed(f"{name} is of another version of this program") from None


def unpacked_head(name: str, data: bytes) -> Head:
    try:
        return Head(**orjson.loads(data))
    except (orjson.JSONDecodeError, TypeError):
        raise BackupFailed(f"{name} is of another version of this program") from None
