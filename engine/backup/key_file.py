"""The keys of backups, in a file that nobody else may read.

One key a line: `xinglin-backup-1 <id> <base64 of 32 bytes>`. The first one encrypts; the others are kept for
what was encrypted with them before a change of keys. Lines that start with # are remarks. Who loses this file
has no backups: a copy of it belongs where neither the server nor the second place is.
"""

import base64
import binascii
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.backup.failed import BackupFailed

_WORD: Final = "xinglin-backup-1"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    secret: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """Tells keys apart and nothing else about them."""
        return hmac.digest(self.secret, b"xinglin backup key id", "sha256")[:8]


@dataclass(frozen=True, slots=True)
class Keys:
    current: Key
    by_id: dict[bytes, Key]

    @classmethod
    def of(cls, *keys: Key) -> "Keys":
        """The first one encrypts."""
        return cls(keys[0], {key.id: key for key in keys})


def new_key() -> Key:
    return Key(secrets.token_bytes(_KEY_BYTES))


def make_key_file(file: Path) -> Key:
    """A new key in a new file (0600). Raises BackupFailed where there is one: it may be the only one."""
    key = new_key()
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(_line(key))
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError:
        raise BackupFailed(
            f"{file} exists and is left as it is: it may be the only key of a backup. `--rotate` adds one"
        ) from None
    except OSError as error:
        raise BackupFailed(f"cannot write {file}: {error.strerror}") from None
    return key


def add_key(file: Path) -> Key:
    """A new first key; the older ones stay, for what they have encrypted. Replaced whole or not at all."""
    read_key_file(file)
    key = new_key()
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(_line(key) + file.read_text())
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
    return key


def read_key_file(file: Path) -> Keys:
    """Raises BackupFailed when it is not there, open to others, or holds something else."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BackupFailed(f"{file} is no file; make a key with `xinglin backup key {file}`")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise BackupFailed(
                f"{file} is open to others (mode {stat.S_IMODE(status.st_mode):o}): chmod 600 it"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise BackupFailed(f"{file} belongs to somebody else: it must be this user's or root's")
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        raise BackupFailed(
            f"there is no key file {file}: make one with `xinglin backup key {file}`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BackupFailed(f"cannot read {file}: {error}") from None
    keys = [
        _parsed(file, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]
    if not keys:
        raise BackupFailed(f"{file} holds no key")
    return Keys.of(*keys)


def _line(key: Key) -> str:
    return f"{_WORD} {key.id.hex()} {base64.b64encode(key.secret).decode()}\n"


def _parsed(file: Path, number: int, line: str) -> Key:
    parts = line.split()
    try:
        secret = base64.b64decode(parts[2], validate=True)
    except (IndexError, binascii.Error):
        secret = b""
    if len(parts) != 3 or parts[0] != _WORD or len(secret) != _KEY_BYTES:
        raise BackupFailed(f"{file}, line {number}: no key of a backup")
    key = Key(secret)
    if key.id.hex() != parts[1]:
        raise BackupFailed(f"{file}, line {number}: the key is not the one whose id stands before it")
    return key
