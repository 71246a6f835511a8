"""Passwords: Argon2id hashes, made and checked beside the event loop, a few at a time.

A check costs 19 MiB and some 40 ms of a core, on purpose. So a gateway does few at once, and beyond a short
queue it refuses: people who sign in must not starve people who book.
"""

import asyncio
import contextlib
import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

PASSWORD_CHARS_MIN: Final = 8
PASSWORD_CHARS_MAX: Final = 256
CHECKS_AT_ONCE: Final = 2
SIGN_INS_MAX: Final = 32  # under way at one gateway: under a second of work
SIGN_INS_EACH_MAX: Final = 8  # of these with one username, so that nobody fills the queue for all

# OWASP's second choice of Argon2id's parameters: 19 MiB, two passes, one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of a password that nobody knows. It is checked where there is no such user, so that both take as long.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$vzcEblQjwVnEG34yKxFsfw$67uaPCcwbsICj8ou4ckmS0qzdmCA4whjhJqG0rGr4OA"
)


class TooManySignIns(Exception):
    """More are under way than can be answered in time; nothing was done for this one."""


def hash_of(password: str) -> str:
    """Blocks for some 40 ms."""
    return _HASHER.hash(_spelled(password))


def fits(password: str, password_hash: str) -> bool:
    """Blocks for some 40 ms, whether it fits or not."""
    try:
        return _HASHER.verify(password_hash, _spelled(password))
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(password_hash: str) -> bool:
    """Whether it was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(password_hash)


class Passwords:
    """The checks of one gateway."""

    def __init__(self) -> None:
        self._at_once = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._turns: dict[str, _Turns] = {}
        self._under_way = 0

    @contextlib.asynccontextmanager
    async def turn(self, username: str) -> AsyncIterator[None]:
        """One sign-in of a username (at an address) at a time, whether there is such a user or not. Raises
        TooManySignIns.

        Each counts as a failure until it succeeds: many right ones at once would lock their user out.
        """
        turns = self._turns.get(username) or _Turns()
        if self._under_way >= SIGN_INS_MAX or turns.under_way >= SIGN_INS_EACH_MAX:
            raise TooManySignIns
        self._turns[username] = turns
        turns.under_way += 1
        self._under_way += 1
        try:
            async with turns.lock:
                yield
        finally:
            self._under_way -= 1
            turns.under_way -= 1
            if turns.under_way == 0:
                del self._turns[username]

    async def hash_of(self, password: str) -> str:
        async with self._at_once:
            return await asyncio.to_thread(hash_of, password)

    async def fits_any(self, password: str, hashes: Sequence[str]) -> bool:
        """Whether it is one of these."""
        for one in hashes:
            if await self.fits(password, one):
                return True
        return False

    async def fits(self, password: str, password_hash: str | None) -> bool:
        """None: there is nobody. Then it does not fit, but that takes as long to say."""
        async with self._at_once:
            is_fitting = await asyncio.to_thread(fits, password, password_hash or _NOBODY)
        return is_fitting and password_hash is not None


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: int = 0


def _spelled(password: str) -> str:
    """One spelling, whichever keyboard it comes from (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
