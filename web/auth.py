"""Who asks: bearer tokens, signed with one fixed algorithm.

An access token lives for minutes and proves the account on every request; a refresh token lives for weeks
and buys the next pair. The two differ in `typ`, so that neither passes for the other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import jwt
from aiohttp import web
from jwt.types import Options

from web import keys
from web.errors import Problem
from web.faults import Fault

ALGORITHM: Final = "HS256"
ISSUER: Final = "xinglin"
AUDIENCE: Final = "xinglin-api"
SECRET_BYTES_MIN: Final = 32  # RFC 7518, 3.2: a key as long as the hash
TOKEN_CHARS_MAX: Final = 2_048
VERIFIED_MAX: Final = 8_192  # headers remembered as good: about 5 MB

_CHECKS: Final[Options] = {
    "require": ["exp", "sub"],
    # Times are ours to check, against our clock.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}

Kind = Literal["access", "refresh"]


@dataclass(frozen=True, slots=True)
class Pair:
    access_token: str
    refresh_token: str
    expires_in: int  # seconds, of the access token


class Tokens:
    """Signs and verifies. Raises Problem: token_expired, or unauthenticated for every other fault."""

    def __init__(
        self,
        secret: bytes,
        access_seconds: int,
        refresh_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"the token secret has {len(secret)} bytes, fewer than {SECRET_BYTES_MIN}")
        self._secret = secret
        self._access_seconds = access_seconds
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        # The whole header is the key, so a token seen before costs one look-up and no slicing. Only good
        # tokens get in, so strangers cannot fill it; beyond the bound the oldest goes.
        self._verified: dict[str, tuple[bytes, int]] = {}

    def issue(self, account_id: bytes) -> Pair:
        now = int(self._clock())
        return Pair(
            self._signed(account_id, "access", now, self._access_seconds),
            self._signed(account_id, "refresh", now, self._refresh_seconds),
            self._access_seconds,
        )

    def account_of_header(self, authorization: str | None) -> bytes:
        """The account that an Authorization header proves."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        known = self._verified.get(authorization)
        if known is not None:
            if known[1] > self._clock():
                return known[0]
            del self._verified[authorization]
            raise Problem(Fault.TOKEN_EXPIRED)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Problem(Fault.UNAUTHENTICATED)
        account_id, expires = self._verify(token.strip(" "), "access")
        if len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[authorization] = account_id, expires
        return account_id

    def account_of_refresh(self, token: str) -> bytes:
        return self._verify(token, "refresh")[0]

    def _signed(self, account_id: bytes, kind: Kind, now: int, seconds: int) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": account_id.hex(),
            "typ": kind,
            "iat": now,
            "exp": now + seconds,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def _verify(self, token: str, kind: Kind) -> tuple[bytes, int]:
        if len(token) > TOKEN_CHARS_MAX:
            raise Problem(Fault.UNAUTHENTICATED)
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],  # never what the token's own header asks for
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": ["exp", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            account_id = UUID(hex=claims["sub"]).bytes
        except (jwt.PyJWTError, ValueError):
            raise Problem(Fault.UNAUTHENTICATED) from None
        expires = claims["exp"]
        if claims.get("typ") != kind or type(expires) is not int:
            raise Problem(Fault.UNAUTHENTICATED)
        if expires <= self._clock():
            raise Problem(Fault.TOKEN_EXPIRED)
        return account_id, expires


def account_of(request: web.Request) -> bytes:
    """The account (16 bytes) that sent this. Raises Problem: unauthenticated or token_expired."""
    return request.app[keys.TOKENS].account_of_header(request.headers.get("Authorization"))
