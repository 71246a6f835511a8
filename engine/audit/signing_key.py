"""The key that signs blocks and checkpoints: Ed25519, in a file that nobody else can read, or given by the
environment (XINGLIN_AUDIT_KEY, 64 hexadecimal digits).

Its public half, which `xinglin audit key` prints, is what an auditor keeps: with it anybody can verify, and
nobody can sign. A key that was rotated stays in the file with its public half alone, and says with its last
signature which key follows it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.audit.blocks import Handover, handover_statement

FILE: Final = "audit.key"
KEY_BYTES: Final = 32


class KeyFailed(Exception):
    """One line that says what is wrong with the key, and what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    private: bytes
    retired: tuple[bytes, ...] = ()  # public keys of those before, oldest first
    handover: Handover | None = None

    @property
    def public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def sign(self, said: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(said)

    @property
    def trusted(self) -> frozenset[bytes]:
        return frozenset((self.public, *self.retired))

    @classmethod
    def new(cls) -> Self:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def successor(self) -> "SigningKey":
        """A new key that this one vouches for."""
        new = SigningKey.new()
        handover = Handover(self.public, self.sign(handover_statement(new.public)))
        return SigningKey(new.private, (*self.retired, self.public), handover)


def key_of(home: Path, given: str = "") -> SigningKey:
    """By the environment, else of the home: made there where there is none. Raises KeyFailed."""
    if given:
        return SigningKey(_hex(given, "XINGLIN_AUDIT_KEY"))
    file = home / FILE
    return read_key(file) if file.exists() else keep_key(file, SigningKey.new(), is_new=True)


def read_key(file: Path) -> SigningKey:
    """Raises KeyFailed."""
    try:
        if file.stat().st_mode & 0o077:
            raise KeyFailed(f"others can read {file}: chmod 600 it, and rotate it if they may have")
        said: dict[str, Any] = json.loads(file.read_text())
        over = said.get("handover")
        return SigningKey(
            _hex(said["private"], str(file)),
            tuple(_hex(one, str(file)) for one in said.get("retired", ())),
            over and Handover(bytes.fromhex(over["old"]), bytes.fromhex(over["signature"])),
        )
    except OSError as error:
        raise KeyFailed(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyFailed(f"{file} holds no key of the audit") from None


def keep_key(file: Path, key: SigningKey, is_new: bool = False) -> SigningKey:
    """Whole or not at all, readable to nobody else. Raises KeyFailed."""
    said: dict[str, Any] = {"private": key.private.hex(), "retired": [one.hex() for one in key.retired]}
    if key.handover is not None:
        said["handover"] = {"old": key.handover.old.hex(), "signature": key.handover.signature.hex()}
    beside = file if is_new else file.with_name(file.name + ".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(said, out)
            out.flush()
            os.fsync(out.fileno())
        if not is_new:
            beside.replace(file)
    except FileExistsError:
        return read_key(file)
    except OSError as error:
        raise KeyFailed(f"cannot write {file}: {error.strerror}") from None
    return key


def _hex(said: str, where: str) -> bytes:
    try:
        found = bytes.fromhex(said)
    except (ValueError, TypeError):
        found = b""
    if len(found) != KEY_BYTES:
        raise KeyFailed(f"{where} holds no key of the audit: {2 * KEY_BYTES} hexadecimal digits are one")
    return found
