"""From settings to an open vault, and how it follows what is rotated elsewhere."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg

from engine.database import AWAY
from engine.settings import Settings
from engine.vault import masters
from engine.vault.failed import VaultFailed
from engine.vault.kek import Kek, make_key_file, read_environment, read_key_file
from engine.vault.sealing import Profile
from engine.vault.vault import Vault

log = logging.getLogger(__name__)

KEY_FILE: Final = "vault.key"
FOLLOW_SECONDS: Final = 2.0


def kek_of(settings: Settings) -> Kek:
    """The key outside as settings name it. Raises VaultFailed with one line."""
    kind, _, rest = (settings.vault_key or f"file:{default_key_file(settings)}").partition(":")
    if kind == "file" and rest:
        return read_key_file(Path(rest))
    if kind == "env" and rest:
        return read_environment(rest)
    if kind == "pkcs11" and rest:
        from engine.vault.hsm import open_token  # not at the top: who has no HSM need not load its library

        return open_token(settings.vault_key)
    raise VaultFailed("XINGLIN_VAULT_KEY is file:PATH, env:NAME or a pkcs11: URI (RFC 7512)")


def default_key_file(settings: Settings) -> Path:
    return settings.home.resolve() / KEY_FILE


async def open_vault(connection: asyncpg.Connection, settings: Settings) -> Vault:
    """Ready to seal and open. On a database without one, the vault is made; the default key file with it.

    Raises VaultFailed where the key is missing, open to others, or another database's."""
    profile = Profile.named(settings.vault_profile)
    if not await masters.are_made(connection):
        if not settings.vault_key and not default_key_file(settings).exists():
            _make_default(default_key_file(settings))
        await masters.make(connection, kek_of(settings), profile)
    return Vault(await masters.read(connection, kek_of(settings)), profile)


async def follow(vault: Vault, pool: asyncpg.Pool, kek: Callable[[], Kek]) -> None:
    """For as long as the process lives: learns master keys that were added elsewhere before they are used."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            async with pool.acquire() as connection:
                await catch_up(vault, connection, kek)
        except AWAY:
            continue
        except VaultFailed as failed:
            log.error("a new master key of the vault cannot be opened here: %s", failed)


async def catch_up(vault: Vault, connection: asyncpg.Connection, kek: Callable[[], Kek]) -> None:
    """One look. `kek` is called only when there is something new."""
    if not await masters.versions(connection) <= vault.versions:
        vault.learn(await masters.read(connection, kek()))


def _make_default(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        make_key_file(file)
    except VaultFailed:
        if not file.exists():  # else another process was faster
            raise
