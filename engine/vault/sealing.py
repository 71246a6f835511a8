"""Authenticated encryption of short texts, and what the first bytes of everything sealed say.

AES-256-GCM, or SM4-GCM where a hospital must use the national algorithm; a random nonce of 96 bits each time.
What stands around a text, its head and its place, is bound to it: copied elsewhere it does not open. Pure,
but for the operating system's random bytes.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as Streaming
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_SM4_KEY_BYTES: Final = 16


class Profile(IntEnum):
    """The second byte of whatever is sealed."""

    AES = 1
    SM4 = 2

    @classmethod
    def named(cls, name: str) -> "Profile":
        return cls[name.upper()]


class Kind(IntEnum):
    """The first byte: what it is, in the layout of this program."""

    VALUE = 1  # profile, id of the data key; then nonce, text, tag
    DATA_KEY = 2  # profile, version of the master key, id of the data key; then the same
    MASTER_KEY = 3  # profile, id of the key outside; then the same


class WrongSeal(Exception):
    """It does not open with this key in this place. Says nothing else, on purpose."""


class Sealer(Protocol):
    def seal(self, text: bytes, head: bytes, place: bytes) -> bytes:
        """`head`, a nonce, the text that nobody can read, and the proof that nobody has changed any of it."""
        ...

    def open(self, sealed: bytes, head_bytes: int, place: bytes) -> bytes:
        """Raises WrongSeal."""
        ...


def sealer(profile: Profile, secret: bytes) -> Sealer:
    """Each profile has a key of its own from the same secret of KEY_BYTES, so that none weakens another."""
    key = hmac.digest(secret, f"xinglin vault 1 {profile.name}".encode(), "sha256")
    return _Aes(AESGCM(key)) if profile is Profile.AES else _Sm4(key[:_SM4_KEY_BYTES])


@dataclass(frozen=True, slots=True)
class _Aes:
    _key: AESGCM = field(repr=False)

    def seal(self, text: bytes, head: bytes, place: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return head + nonce + self._key.encrypt(nonce, text, head + place)

    def open(self, sealed: bytes, head_bytes: int, place: bytes) -> bytes:
        start = head_bytes + NONCE_BYTES
        if len(sealed) < start + TAG_BYTES:
            raise WrongSeal
        try:
            return self._key.decrypt(sealed[head_bytes:start], sealed[start:], sealed[:head_bytes] + place)
        except InvalidTag:
            raise WrongSeal from None


@dataclass(frozen=True, slots=True)
class _Sm4:
    _key: bytes = field(repr=False)

    def seal(self, text: bytes, head: bytes, place: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        made = Streaming(SM4(self._key), GCM(nonce)).encryptor()
        made.authenticate_additional_data(head + place)
        return head + nonce + made.update(text) + made.finalize() + made.tag

    def open(self, sealed: bytes, head_bytes: int, place: bytes) -> bytes:
        start, end = head_bytes + NONCE_BYTES, len(sealed) - TAG_BYTES
        if end < start:
            raise WrongSeal
        made = Streaming(SM4(self._key), GCM(sealed[head_bytes:start], sealed[end:])).decryptor()
        made.authenticate_additional_data(sealed[:head_bytes] + place)
        try:
            return made.update(sealed[start:end]) + made.finalize()
        except InvalidTag:
            raise WrongSeal from None


def place_of(name: str, row: bytes) -> bytes:
    """Where something sealed belongs: `name` is table.column (or what stands for it) and holds no NUL."""
    return b"\0".join((b"", name.encode(), row))


def kind_and_profile(sealed: bytes, kind: Kind) -> Profile:
    """Of the first two bytes. Raises WrongSeal where they say something else."""
    if len(sealed) < 2 or sealed[0] != kind or sealed[1] not in _PROFILES:
        raise WrongSeal
    return Profile(sealed[1])


_PROFILES: Final = frozenset(int(profile) for profile in Profile)
