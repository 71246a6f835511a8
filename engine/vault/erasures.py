"""Erasing a person's words for good: the key is nulled, and a ledger outside the database remembers it.

A backup of yesterday still holds the key that was erased today. So before a key goes, its name (not the key)
is written to a ledger in the home and in the backups' second place, and every start of `xinglin serve`, also
after a restore, erases again what the ledger names. The ledger names keys, not people: who comes back later
gets a new key, which no old line touches.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from engine.backup.failed import BackupFailed
from engine.backup.places import Place
from engine.vault.columns import ACCOUNT_KEY, CONTACT_KEY, RECORD_KEY, KeyColumn
from engine.vault.vault import DataKey

LEDGER: Final = "erased.log"
FOLDER: Final = "erased"
_WORD: Final = "xinglin-erased-1"
_END: Final = "."  # a line without it was never whole, so its key was never erased


class ErasureFailed(Exception):
    """The ledger could not be written or read. What was asked has not been erased."""


class What(Enum):
    RECORD = RECORD_KEY
    CONTACT = CONTACT_KEY
    ACCOUNT = ACCOUNT_KEY

    @property
    def column(self) -> KeyColumn:
        return self.value


_ALSO: Final = {  # what goes with the key in its own row; other tables' bytes stay as nobody can read them
    What.RECORD: ", name = null, id_number = null, id_index = null",
    What.CONTACT: "",
    What.ACCOUNT: "",
}


@dataclass(frozen=True, slots=True)
class Entry:
    what: What
    row: bytes
    key_id: bytes

    @property
    def name(self) -> str:
        return f"{self.what.name.lower()}-{self.row.hex()}-{self.key_id.hex()}"

    def line(self, now: datetime) -> bytes:
        return f"{_WORD} {self.name} {now.isoformat()} {_END}\n".encode()

    @classmethod
    def of_name(cls, name: str) -> "Entry":
        """Raises ErasureFailed: what is not understood may be somebody who is not to come back."""
        try:
            what, row, key_id = name.split("-")
            return cls(What[what.upper()], bytes.fromhex(row), bytes.fromhex(key_id))
        except (KeyError, ValueError):
            raise ErasureFailed("the erasure ledger is not as it was written: mend it first") from None


class Erasures:
    def __init__(
        self,
        files: Sequence[Path],
        place: Callable[[], AbstractAsyncContextManager[Place]] | None = None,
    ) -> None:
        """Files that are added to, and a second place that is opened when it is needed."""
        self._files = files
        self._place = place

    async def shred(self, connection: asyncpg.Connection, what: What, row: bytes, now: datetime) -> bool:
        """Erases what this key opens: within the caller's transaction and as its last step, for the ledger
        is not rolled back. False: there is nothing to erase. Raises ErasureFailed; nothing is erased then."""
        column = what.column
        wrapped = await connection.fetchval(
            f"select {column.column} from {column.table} where {column.id} = $1 for update", UUID(bytes=row)
        )
        if wrapped is None:
            return False
        entry = Entry(what, row, DataKey(column.field, row, wrapped).id)
        await self._note(entry, now)
        await _null(connection, entry)
        return True

    async def apply(self, connection: asyncpg.Connection, with_place: bool = True) -> int:
        """Erases again what a restore has brought back; how many keys that were. Raises ErasureFailed."""
        again = 0
        for entry in await self.entries(with_place):
            again += await _null(connection, entry)
        return again

    async def entries(self, with_place: bool = True) -> list[Entry]:
        """All that was ever erased, each once. Raises ErasureFailed."""
        try:
            return list(dict.fromkeys(await self._entries(with_place)))
        except (OSError, BackupFailed) as error:
            raise ErasureFailed(f"the erasure ledger cannot be read: {_why(error)}") from None

    async def _note(self, entry: Entry, now: datetime) -> None:
        try:
            await asyncio.to_thread(self._append, entry.line(now))
            if self._place is not None:
                async with self._place() as place:
                    await place.begin(FOLDER)
                    # Its name says it all: a place is asked for names alone, however many there are.
                    await place.put(f"{FOLDER}/{entry.name}", entry.line(now))
        except (OSError, BackupFailed) as error:
            raise ErasureFailed(f"the erasure ledger cannot be written: {_why(error)}") from None

    def _append(self, line: bytes) -> None:
        for file in self._files:
            number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # One write, so neighbours' lines do not mix; on a new line, whatever a crash has left before.
                os.write(number, b"\n" + line)
                os.fsync(number)
            finally:
                os.close(number)
            folder = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    async def _entries(self, with_place: bool) -> list[Entry]:
        found: list[Entry] = []
        for file in self._files:
            if file.exists():
                found += _parsed(await asyncio.to_thread(file.read_text))
        if self._place is not None and with_place:
            async with self._place() as place:
                found += [Entry.of_name(name.rpartition("/")[2]) for name in await place.names(FOLDER)]
        return found


def _parsed(content: str) -> list[Entry]:
    found = []
    for line in content.splitlines():
        parts = line.split()
        if parts and parts[-1] == _END:
            found.append(Entry.of_name(parts[1] if parts[0] == _WORD and len(parts) == 4 else ""))
    return found


async def _null(connection: asyncpg.Connection, entry: Entry) -> int:
    """1 where this very key was there."""
    column = entry.what.column
    done = await connection.fetchval(
        f"update {column.table} set {column.column} = null{_ALSO[entry.what]}"
        f" where {column.id} = $1 and substring({column.column} from 7 for 8) = $2 returning 1",
        UUID(bytes=entry.row),
        entry.key_id,
    )
    return done or 0


def _why(error: OSError | BackupFailed) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
