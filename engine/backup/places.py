"""The second place: named files of at most some MiB each, written whole or not at all."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Final, Protocol

from engine.backup.failed import BackupFailed


class Place(Protocol):
    """Names are `folder/file`. Everything raises BackupFailed when the place does not do what it is asked."""

    @property
    def address(self) -> str:
        """For people and logs: no credentials."""
        ...

    async def begin(self, folder: str) -> None:
        """Makes a folder; nothing is written into one that was not begun."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Durable when it returns; a file of that name is replaced."""
        ...

    async def get(self, name: str) -> bytes: ...

    async def names(self, folder: str = "") -> list[str]:
        """Of all files, or of those of one folder; sorted."""
        ...

    async def delete(self, name: str) -> None:
        """Gone already is fine."""
        ...


_NEW: Final = ".new"


class Directory:
    """A directory of another disk or machine, mounted here.

    It must be there: we never make it. And folders in it are made by `begin` alone: should the disk not be
    mounted one day, writing into the empty mount point fails instead of filling the disk that the backup is
    to be safe from.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def address(self) -> str:
        return str(self._root)

    async def begin(self, folder: str) -> None:
        await asyncio.to_thread(self._begin, folder)

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, name, data)

    async def get(self, name: str) -> bytes:
        return await asyncio.to_thread(self._get, name)

    async def names(self, folder: str = "") -> list[str]:
        return await asyncio.to_thread(self._names, folder)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._delete, name)

    def _begin(self, folder: str) -> None:
        try:
            (self._root / folder).mkdir(mode=0o700, exist_ok=True)
            _sync(self._root)
        except OSError as error:
            raise self._cannot("make a folder in", error) from None

    def _put(self, name: str, data: bytes) -> None:
        file = self._root / name
        beside = file.with_name(file.name + _NEW)
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
            _sync(file.parent)
        except OSError as error:
            raise self._cannot("write to", error) from None

    def _get(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            if error.errno == errno.ENOENT and self._root.is_dir():
                raise BackupFailed(f"{name} is missing in {self.address}") from None
            raise self._cannot("read", error) from None

    def _names(self, folder: str) -> list[str]:
        try:
            if not self._root.is_dir():
                raise BackupFailed(
                    f"there is no directory {self.address}: make it, or mount what it stands for"
                )
            folders = [self._root / folder] if folder else [f for f in self._root.iterdir() if f.is_dir()]
            return sorted(
                f"{part.name}/{file.name}"
                for part in folders
                if part.is_dir()
                for file in part.iterdir()
                if not file.name.endswith(_NEW)
            )
        except OSError as error:
            raise self._cannot("read", error) from None

    def _delete(self, name: str) -> None:
        file = self._root / name
        try:
            file.unlink(missing_ok=True)
            if not any(file.parent.iterdir()):
                file.parent.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._cannot("delete in", error) from None

    def _cannot(self, what: str, error: OSError) -> BackupFailed:
        if error.errno == errno.ENOENT and not self._root.is_dir():
            return BackupFailed(f"there is no directory {self.address}: make it, or mount what it stands for")
        return BackupFailed(f"cannot {what} {self.address}: {error.strerror}")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
