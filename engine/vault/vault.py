"""Seals and opens what rows say about people. Everything here is memory and arithmetic: no waiting, no SQL.

A row's own data key seals its fields; a master key wraps the data key. Nulling the wrapped data key makes all
it has sealed unreadable for good, in every copy (engine/vault/erasures.py).
"""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from engine.vault.failed import Erased, SealBroken, VaultBehind
from engine.vault.sealing import (
    KEY_BYTES,
    Kind,
    Profile,
    Sealer,
    WrongSeal,
    kind_and_profile,
    place_of,
    sealer,
)

KEY_ID_BYTES: Final = 8
_VERSION_BYTES: Final = 4
_VALUE_HEAD: Final = 2 + KEY_ID_BYTES
_KEY_HEAD: Final = 2 + _VERSION_BYTES + KEY_ID_BYTES
OPEN_KEYS_MAX: Final = 20_000
"""Data keys kept unwrapped, the least lately used one out first; about 1 KiB each."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """One row's key as the database holds it."""

    field: str  # table.column where it stands
    row: bytes  # id of its row
    wrapped: bytes | None  # None: erased, or never made

    @property
    def id(self) -> bytes:
        """Tells keys apart, whatever they are wrapped with, and nothing else about them; b"" of an erased
        one."""
        return b"" if self.wrapped is None else self.wrapped[2 + _VERSION_BYTES : _KEY_HEAD]

    @property
    def version(self) -> int:
        """Of the master key that wraps it; 0 of an erased one."""
        return 0 if self.wrapped is None else int.from_bytes(self.wrapped[2 : 2 + _VERSION_BYTES], "big")


@dataclass(frozen=True, slots=True)
class Master:
    version: int
    secret: bytes = field(repr=False)
    profile: Profile  # that data keys are wrapped with
    active_from: float  # seconds since 1970: by then every gateway knows it


@dataclass(frozen=True, slots=True)
class Masters:
    """Unwrapped, as long as the process lives."""

    data: Mapping[int, Master]  # by version; never empty
    index: bytes = field(repr=False)


class Vault:
    def __init__(self, masters: Masters, profile: Profile, clock: Callable[[], float] = time.time) -> None:
        self._masters = masters
        self._profile = profile
        self._clock = clock
        self._wrapping: dict[int, tuple[Profile, Sealer]] = {}
        self._open: OrderedDict[tuple[str, bytes, bytes], tuple[bytes, dict[Profile, Sealer]]] = OrderedDict()

    # What callers do.

    def new_key(self, field: str, row: bytes) -> DataKey:
        """For the row with this id. Its column must be one of engine/vault/columns.py."""
        return self._wrapped(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(KEY_BYTES), field, row)

    def seal(self, key: DataKey, field: str, row: bytes, text: str) -> bytes:
        """`text` for the column `field` of the row `row`. Raises Erased, SealBroken (the key),
        VaultBehind."""
        if key.wrapped is None:
            raise Erased(f"the key of {_place(key.field, key.row)} is erased: nothing can be sealed with it")
        head = bytes((Kind.VALUE, self._profile)) + key.id
        return self._sealer(key, self._profile).seal(text.encode(), head, place_of(field, row))

    def open(self, key: DataKey, field: str, row: bytes, sealed: bytes | None) -> str | None:
        """None where there is nothing, or its key is erased. Raises SealBroken, VaultBehind."""
        if key.wrapped is None or sealed is None:
            return None
        try:
            profile = kind_and_profile(sealed, Kind.VALUE)
            if sealed[2:_VALUE_HEAD] != key.id:
                raise WrongSeal
            return self._sealer(key, profile).open(sealed, _VALUE_HEAD, place_of(field, row)).decode()
        except WrongSeal:
            raise SealBroken(f"{_place(field, row)} does not hold what was sealed for it") from None

    def index(self, field: str, text: str) -> bytes:
        """The same for the same text, and for who has not the key like chance: to find a row by a value that
        nobody can read there. 32 bytes."""
        return hmac.digest(self._masters.index, f"{field}\0{text}".encode(), "sha256")

    # What keeps the keys.

    def rewrapped(self, key: DataKey) -> DataKey:
        """The same data key under the newest master key. Raises Erased, SealBroken, VaultBehind."""
        if key.wrapped is None:
            raise Erased(f"the key of {_place(key.field, key.row)} is erased")
        return self._wrapped(key.id, self._secret(key), key.field, key.row)

    @property
    def version(self) -> int:
        """Of the master key that new data keys are wrapped with: the newest that everybody knows by now."""
        now = self._clock()
        data = self._masters.data
        active = [master.version for master in data.values() if master.active_from <= now]
        return max(active, default=min(data))

    @property
    def versions(self) -> frozenset[int]:
        return frozenset(self._masters.data)

    def learn(self, masters: Masters) -> None:
        """Master keys that came since. What is known stays known."""
        self._masters = Masters({**self._masters.data, **masters.data}, self._masters.index)

    # Inside.

    def _wrapped(self, key_id: bytes, secret: bytes, field: str, row: bytes) -> DataKey:
        version = self.version
        profile, wrapping = self._master(version)
        head = bytes((Kind.DATA_KEY, profile)) + version.to_bytes(_VERSION_BYTES, "big") + key_id
        return DataKey(field, row, wrapping.seal(secret, head, place_of(field, row)))

    def _master(self, version: int) -> tuple[Profile, Sealer]:
        found = self._wrapping.get(version)
        if found is None:
            master = self._masters.data.get(version)
            if master is None:
                raise VaultBehind(f"master key {version} is not known here yet")
            found = self._wrapping[version] = master.profile, sealer(master.profile, master.secret)
        return found

    def _secret(self, key: DataKey) -> bytes:
        return self._opened(key)[0]

    def _sealer(self, key: DataKey, profile: Profile) -> Sealer:
        secret, sealers = self._opened(key)
        found = sealers.get(profile)
        if found is None:
            found = sealers[profile] = sealer(profile, secret)
        return found

    def _opened(self, key: DataKey) -> tuple[bytes, dict[Profile, Sealer]]:
        assert key.wrapped is not None
        known = key.field, key.row, key.wrapped
        found = self._open.get(known)
        if found is not None:
            self._open.move_to_end(known)
            return found
        found = self._open[known] = self._unwrapped(key, key.wrapped), {}
        if len(self._open) > OPEN_KEYS_MAX:
            self._open.popitem(last=False)
        return found

    def _unwrapped(self, key: DataKey, wrapped: bytes) -> bytes:
        try:
            profile = kind_and_profile(wrapped, Kind.DATA_KEY)
            by_profile, wrapping = self._master(key.version)
            if profile is not by_profile:
                raise WrongSeal
            return wrapping.open(wrapped, _KEY_HEAD, place_of(key.field, key.row))
        except WrongSeal:
            raise SealBroken(f"{_place(key.field, key.row)} does not hold this row's key") from None


def made_masters(profile: Profile = Profile.AES) -> Masters:
    """The first ones."""
    return Masters(
        {1: Master(1, secrets.token_bytes(KEY_BYTES), profile, 0.0)}, secrets.token_bytes(KEY_BYTES)
    )


def _place(field: str, row: bytes) -> str:
    return f"{field} of {UUID(bytes=row) if len(row) == 16 else row.hex()}"  # ids: never what was sealed
