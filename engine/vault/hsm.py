"""The key outside the database in a PKCS#11 token (HSM, smart card, SoftHSM): it never leaves the token.

Named by a URI (RFC 7512), for instance
`pkcs11:token=xinglin;object=vault?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/xinglin/pin`.
The PIN comes from a file that nobody else may read, or with `pin-source=env:NAME` from the environment. The
object is an AES key of 256 bits; after `xinglin vault rekek` with a URI of a newer one, the older one is not
needed any more. Several objects: `object=vault2,vault` wraps with the first and opens with each.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pkcs11

from engine.vault.failed import VaultFailed
from engine.vault.kek import ID_BYTES, changed, head_of, wrong_key
from engine.vault.sealing import NONCE_BYTES, TAG_BYTES, Kind, Profile

_HEAD_BYTES = 2 + ID_BYTES
_TAG_BITS = TAG_BYTES * 8
_AES_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenUri:
    module: str
    token: str
    objects: tuple[str, ...]
    pin_source: str

    @classmethod
    def of(cls, uri: str) -> "TokenUri":
        """Raises VaultFailed with what is missing."""
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        given = {
            name: unquote(value)
            for name, _, value in (
                part.partition("=") for part in (*path.split(";"), *query.split("&")) if part
            )
        }
        known = {"token", "object", "module-path", "pin-source"}
        missing = sorted(known - set(given)) or sorted(set(given) - known)
        if missing:
            raise VaultFailed(
                "XINGLIN_VAULT_KEY is pkcs11:token=…;object=…?module-path=…&pin-source=file:… (or env:…);"
                f" look at {missing[0]}"
            )
        objects = tuple(part for part in given["object"].split(",") if part)
        return cls(given["module-path"], given["token"], objects, given["pin-source"])


@dataclass(frozen=True, slots=True)
class TokenKek:
    uri: TokenUri
    pin: str = field(repr=False)

    @property
    def id(self) -> bytes:
        return self._id(self.uri.objects[0])

    @property
    def ids(self) -> frozenset[bytes]:
        return frozenset(self._id(label) for label in self.uri.objects)

    def wrap(self, secret: bytes, place: bytes, profile: Profile) -> bytes:
        """With AES-256-GCM whatever the profile: a token encrypts what it can, and SM4 is rare among them."""
        head, nonce = head_of(Profile.AES, self.id), secrets.token_bytes(NONCE_BYTES)
        with self._key(self.uri.objects[0]) as key:
            return (
                head
                + nonce
                + bytes(
                    key.encrypt(
                        secret,
                        mechanism=pkcs11.Mechanism.AES_GCM,
                        mechanism_param=pkcs11.GCMParams(nonce, head + place, _TAG_BITS),
                    )
                )
            )

    def unwrap(self, wrapped: bytes, place: bytes) -> bytes:
        head, start = wrapped[:_HEAD_BYTES], _HEAD_BYTES + NONCE_BYTES
        if head[:2] != bytes((Kind.MASTER_KEY, Profile.AES)):
            raise changed()
        for label in self.uri.objects:
            if self._id(label) == head[2:]:
                with self._key(label) as key:
                    try:
                        return bytes(
                            key.decrypt(
                                wrapped[start:],
                                mechanism=pkcs11.Mechanism.AES_GCM,
                                mechanism_param=pkcs11.GCMParams(
                                    wrapped[_HEAD_BYTES:start], head + place, _TAG_BITS
                                ),
                            )
                        )
                    except pkcs11.exceptions.PKCS11Error:
                        raise changed() from None
        raise wrong_key(f"{', '.join(self.uri.objects)} in the token {self.uri.token}")

    def _id(self, label: str) -> bytes:
        """Of token and label: the key itself cannot be looked at."""
        return sha256(f"xinglin vault key id\0{self.uri.token}\0{label}".encode()).digest()[:ID_BYTES]

    @contextmanager
    def _key(self, label: str) -> Iterator[Any]:
        """For one use: a session that stayed open would end with the token's reset."""
        try:
            token = pkcs11.lib(self.uri.module).get_token(token_label=self.uri.token)
            with token.open(user_pin=self.pin) as session:
                key = session.get_key(
                    object_class=pkcs11.ObjectClass.SECRET_KEY, key_type=pkcs11.KeyType.AES, label=label
                )
                if key.key_length != _AES_BYTES * 8:
                    raise VaultFailed(f"{label} in the token {self.uri.token} is no AES key of 256 bits")
                yield key
        except (RuntimeError, pkcs11.exceptions.PKCS11Error) as error:
            why = type(error).__name__
            raise VaultFailed(
                f"the token {self.uri.token} does not give the key {label} ({why}): check module,"
                " token, object and PIN in XINGLIN_VAULT_KEY"
            ) from None


def open_token(uri: str) -> TokenKek:
    """Raises VaultFailed where the URI or the PIN's source is not usable; the token is asked when needed."""
    told = TokenUri.of(uri)
    return TokenKek(told, _pin(told.pin_source))


def _pin(source: str) -> str:
    kind, _, rest = source.partition(":")
    if kind == "env" and os.environ.get(rest):
        return os.environ[rest]
    if kind == "file":
        file = Path(rest)
        try:
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                raise VaultFailed(f"the PIN in {file} is open to others: chmod 600 it")
            return file.read_text().strip()
        except OSError as error:
            raise VaultFailed(f"cannot read the PIN in {file}: {error.strerror}") from None
    raise VaultFailed("pin-source is file:PATH or env:NAME (a variable that is set)")
