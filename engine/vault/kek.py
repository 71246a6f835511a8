"""The key outside the database that wraps the master keys: from a file that nobody else may read, or from an
environment variable. hsm.py has the third kind.

The file holds one key a line: `xinglin-vault-1 <id> <base64 of 32 bytes>`. The first one wraps; the others
open what was wrapped before `xinglin vault rekek`. Lines that start with # are remarks. Who loses this key
has a database full of people without names, so a copy of it belongs somewhere else; not beside the backups,
or they are as good as plain.
"""

import base64
import binascii
import hmac
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from engine.vault.failed import VaultFailed
from engine.vault.sealing import KEY_BYTES, Kind, Profile, WrongSeal, kind_and_profile, sealer

_WORD: Final = "xinglin-vault-1"
ID_BYTES: Final = 8
_HEAD_BYTES: Final = 2 + ID_BYTES


class Kek(Protocol):
    @property
    def id(self) -> bytes:
        """Of the key that wraps: tells keys apart and nothing else about them."""
        ...

    @property
    def ids(self) -> frozenset[bytes]:
        """Of all that are there to unwrap."""
        ...

    def wrap(self, secret: bytes, place: bytes, profile: Profile) -> bytes: ...

    def unwrap(self, wrapped: bytes, place: bytes) -> bytes:
        """Raises VaultFailed where it is another key's, was changed, or belongs to another place."""
        ...


@dataclass(frozen=True, slots=True)
class OuterKey:
    secret: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        return hmac.digest(self.secret, b"xinglin vault key id", "sha256")[:ID_BYTES]


@dataclass(frozen=True, slots=True)
class PlainKek:
    """Keys that this process holds in its memory while it wraps."""

    source: str  # how an operator names it, without the key
    keys: tuple[OuterKey, ...] = field(repr=False)  # the first one wraps

    @property
    def id(self) -> bytes:
        return self.keys[0].id

    @property
    def ids(self) -> frozenset[bytes]:
        return frozenset(key.id for key in self.keys)

    def wrap(self, secret: bytes, place: bytes, profile: Profile) -> bytes:
        return sealer(profile, self.keys[0].secret).seal(secret, head_of(profile, self.id), place)

    def unwrap(self, wrapped: bytes, place: bytes) -> bytes:
        for key in self.keys:
            if key.id == wrapped[2:_HEAD_BYTES]:
                try:
                    profile = kind_and_profile(wrapped, Kind.MASTER_KEY)
                    return sealer(profile, key.secret).open(wrapped, _HEAD_BYTES, place)
                except WrongSeal:
                    raise changed() from None
        raise wrong_key(self.source)


def head_of(profile: Profile, kek_id: bytes) -> bytes:
    return bytes((Kind.MASTER_KEY, profile)) + kek_id


def changed() -> VaultFailed:
    return VaultFailed("a master key of the database is not as it was wrapped: restore table vault_key")


def wrong_key(source: str) -> VaultFailed:
    return VaultFailed(
        f"{source} is not the key that this database is sealed with: give the right one in XINGLIN_VAULT_KEY"
    )


def new_outer_key() -> OuterKey:
    return OuterKey(secrets.token_bytes(KEY_BYTES))


def make_key_file(file: Path) -> OuterKey:
    """A new key in a new file (0600). Raises VaultFailed where there is one: it may be the only one."""
    key = new_outer_key()
    try:
        _write(file, _line(key))
    except FileExistsError:
        raise VaultFailed(
            f"{file} exists and is left as it is: it may be the only key of a database. `--rotate` adds one"
        ) from None
    except OSError as error:
        raise VaultFailed(f"cannot write {file}: {error.strerror}") from None
    return key


def add_key(file: Path) -> OuterKey:
    """A new first key; the older ones stay until nothing needs them. Replaced whole or not at all."""
    read_key_file(file)
    key = new_outer_key()
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    try:
        _write(beside, _line(key) + file.read_text())
        beside.replace(file)
    except OSError as error:
        raise VaultFailed(f"cannot write {file}: {error.strerror}") from None
    return key


def read_key_file(file: Path) -> PlainKek:
    """Raises VaultFailed when it is not there, open to others, or holds something else."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise VaultFailed(
                f"{file} is no file: the vault's key is a file, made by `xinglin vault key {file}`"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise VaultFailed(f"the vault's key {file} is open to others (mode {mode:o}): chmod 600 it")
        if status.st_uid not in (os.geteuid(), 0):
            raise VaultFailed(
                f"the vault's key {file} belongs to somebody else: it must be this user's or root's"
            )
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        raise VaultFailed(
            f"there is no vault key {file}: bring back the one that the database is sealed with, or for a new"
            f" database make one with `xinglin vault key {file}`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise VaultFailed(f"cannot read the vault's key {file}: {type(error).__name__}") from None
    return PlainKek(str(file), _parsed(str(file), lines))


def read_environment(name: str, environment: Mapping[str, str] = os.environ) -> PlainKek:
    """The same lines in a variable, with ; for the ends of lines; or nothing but the base64 of 32 bytes."""
    content = environment.get(name, "")
    if not content.strip():
        raise VaultFailed(f"the vault's key is to be in the environment variable {name}, which is not set")
    source = f"the key in {name}"
    try:
        secret = base64.b64decode(content.strip(), validate=True)
        if len(secret) == KEY_BYTES:
            return PlainKek(source, (OuterKey(secret),))
    except binascii.Error:
        pass
    return PlainKek(source, _parsed(name, content.replace(";", "\n").splitlines()))


def _parsed(source: str, lines: Sequence[str]) -> tuple[OuterKey, ...]:
    keys = tuple(
        _key(source, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    )
    if not keys:
        raise VaultFailed(f"{source} holds no key of a vault")
    return keys


def _key(source: str, number: int, line: str) -> OuterKey:
    parts = line.split()
    try:
        secret = base64.b64decode(parts[2], validate=True)
    except (IndexError, binascii.Error):
        secret = b""
    key = OuterKey(secret)
    if len(parts) != 3 or parts[0] != _WORD or len(secret) != KEY_BYTES or key.id.hex() != parts[1]:
        raise VaultFailed(f"{source}, line {number}: no key of a vault")
    return key


def _line(key: OuterKey) -> str:
    return f"{_WORD} {key.id.hex()} {base64.b64encode(key.secret).decode()}\n"


def _write(file: Path, content: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
