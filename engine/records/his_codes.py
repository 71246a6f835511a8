"""What the HIS calls our departments and practitioners. Whatever is not mapped is called alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import asyncpg

Kind: TypeAlias = Literal["department", "practitioner"]


@dataclass(frozen=True, slots=True)
class Codes:
    theirs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(kind, ours) -> theirs"""
    ours: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(kind, theirs) -> ours"""

    def to_theirs(self, kind: Kind, ours: str) -> str:
        return self.theirs.get((kind, ours), ours)

    def to_ours(self, kind: Kind, theirs: str) -> str:
        """A code of ours that is mapped to another one of theirs is not meant by its own name."""
        found = self.ours.get((kind, theirs))
        if found is not None:
            return found
        return "" if (kind, theirs) in self.theirs else theirs


async def load(executor: asyncpg.Pool | asyncpg.Connection) -> Codes:
    rows = await executor.fetch("select kind, theirs, ours from his_code")
    return Codes(
        {(row["kind"], row["ours"]): row["theirs"] for row in rows},
        {(row["kind"], row["theirs"]): row["ours"] for row in rows},
    )


async def set_code(connection: asyncpg.Connection, kind: Kind, theirs: str, ours: str) -> None:
    """From now on; what either of them was mapped to before is forgotten."""
    async with connection.transaction():
        await connection.execute(
            "delete from his_code where kind = $1 and (theirs = $2 or ours = $3)", kind, theirs, ours
        )
        await connection.execute(
            "insert into his_code (kind, theirs, ours) values ($1, $2, $3)", kind, theirs, ours
        )


async def remove_code(connection: asyncpg.Connection, kind: Kind, theirs: str) -> bool:
    """False: there was none."""
    return bool(
        await connection.fetchval(
            "delete from his_code where kind = $1 and theirs = $2 returning true", kind, theirs
        )
    )


_NAMES: Final[dict[Kind, str]] = {
    "department": "select name from department where id = $1",
    "practitioner": "select name from practitioner where id = $1",
}


async def name_of(connection: asyncpg.Connection | asyncpg.Pool, kind: Kind, ours: str) -> str | None:
    """What we call it; None: there is none."""
    name: str | None = await connection.fetchval(_NAMES[kind], ours)
    return name
