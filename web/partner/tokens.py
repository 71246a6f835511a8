"""Access tokens of partners: signed like those of people, for another audience, so that none passes for the
other. What one says of scopes is the most that it opens; what the partner may by now, its row says."""

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import jwt

from engine.records.partners import Partner
from web.auth import AHEAD_SECONDS_MAX, ALGORITHM, ISSUER, SECRET_BYTES_MIN, TOKEN_CHARS_MAX
from web.errors import Problem
from web.faults import Fault

AUDIENCE: Final = "xinglin-partner"
KIND: Final = "partner_access"
TOKEN_SECONDS: Final = 600


class PartnerTokens:
    """Signs and verifies. Raises Problem unauthenticated or token_expired."""

    def __init__(
        self, secret: bytes, seconds: int = TOKEN_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"the token secret has {len(secret)} bytes, fewer than {SECRET_BYTES_MIN}")
        self._secret = secret
        self.seconds = seconds
        self._clock = clock

    def issue(self, partner: Partner, scopes: frozenset[str]) -> str:
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": partner.id.hex(),
            "typ": KIND,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + self.seconds,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def of_header(self, authorization: str | None) -> tuple[bytes, frozenset[str]]:
        """Whose token an Authorization header has, and which scopes it was given for."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or len(token) > TOKEN_CHARS_MAX:
            raise Problem(Fault.UNAUTHENTICATED)
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "sub"],
                    # Times are ours to check, against our clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            expires, issued, partner_id = claims["exp"], claims["iat"], UUID(hex=claims["sub"]).bytes
        except (jwt.PyJWTError, ValueError, AttributeError, TypeError):
            raise Problem(Fault.UNAUTHENTICATED) from None
        scope = claims.get("scope")
        if (
            claims.get("typ") != KIND
            or type(expires) is not int
            or type(issued) is not int
            or not isinstance(scope, str)
            or issued > self._clock() + AHEAD_SECONDS_MAX
        ):
            raise Problem(Fault.UNAUTHENTICATED)
        if expires <= self._clock():
            raise Problem(Fault.TOKEN_EXPIRED)
        return partner_id, frozenset(scope.split())
