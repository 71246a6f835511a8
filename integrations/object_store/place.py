"""An object store as the second place of backups (engine/backup/places.py)."""

from typing import NoReturn

from engine.backup.failed import BackupFailed
from integrations.connector import ConnectorFailed, Refused
from integrations.object_store.client import ObjectStore


class StorePlace:
    """Below `prefix` of a bucket. Folders need no begin there: names alone make them."""

    def __init__(self, store: ObjectStore, address: str, prefix: str) -> None:
        self._store = store
        self._address = address
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @property
    def address(self) -> str:
        return self._address

    async def begin(self, folder: str) -> None:
        return None

    async def put(self, name: str, data: bytes) -> None:
        try:
            await self._store.put(self._prefix + name, data)
        except ConnectorFailed as failed:
            self._fail("written", name, failed)

    async def get(self, name: str) -> bytes:
        try:
            return await self._store.get(self._prefix + name)
        except ConnectorFailed as failed:
            if isinstance(failed, Refused) and failed.code == "NoSuchKey":
                raise BackupFailed(f"{name} is missing in {self._address}") from None
            self._fail("read", name, failed)

    async def names(self, folder: str = "") -> list[str]:
        prefix = self._prefix + (f"{folder}/" if folder else "")
        try:
            found = [name async for name in self._store.names(prefix)]
        except ConnectorFailed as failed:
            self._fail("listed", folder, failed)
        return sorted(name.removeprefix(self._prefix) for name in found)

    async def delete(self, name: str) -> None:
        try:
            await self._store.delete(self._prefix + name)
        except ConnectorFailed as failed:
            self._fail("deleted", name, failed)

    def _fail(self, what: str, name: str, failed: ConnectorFailed) -> NoReturn:
        raise BackupFailed(f"{name or 'the place'} cannot be {what} at {self._address}: {failed}") from None
