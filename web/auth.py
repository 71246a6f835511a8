"""Who asks: bearer tokens, signed with one fixed algorithm.

An access token lives for minutes and proves on every request who asks: a patient's account, or one of the
staff with their roles, so that no request needs a query for it. A refresh token lives for weeks and buys the
next pair. A QR code that a patient shows at a kiosk is a token as well, good for two minutes and for checking
in alone. All kinds differ in `typ`, so that none passes for another.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import jwt
from aiohttp import web
from jwt.types import Options

from engine.domain.policy import Channel
from engine.records.staff import Staff as Staff
from engine.records.staff import may_manage as may_manage
from web import keys
from web.errors import Problem
from web.faults import Fault

ALGORITHM: Final = "HS256"
ISSUER: Final = "xinglin"
AUDIENCE: Final = "xinglin-api"
SECRET_BYTES_MIN: Final = 32  # RFC 7518, 3.2: a key as long as the hash
TOKEN_CHARS_MAX: Final = 2_048
VERIFIED_MAX: Final = 8_192  # headers remembered as good: about 5 MB
VERIFIED_STAFF_MAX: Final = 1_024
QR_SECONDS: Final = 120  # a screenshot of yesterday opens nothing

_CHECKS: Final[Options] = {
    "require": ["exp", "sub"],
    # Times are ours to check, against our clock.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}

QrKind = Literal["qr_appointment", "qr_patient"]
Kind = Literal["access", "refresh", "staff_access", "staff_refresh"] | QrKind


@dataclass(frozen=True, slots=True)
class Pair:
    access_token: str
    refresh_token: str
    expires_in: int  # seconds, of the access token


@dataclass(frozen=True, slots=True)
class Refreshing:
    """Whose the next pair is: read anew who that is before it is given."""

    id: bytes
    is_staff: bool


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
        # tokens get in, so strangers cannot fill it; beyond the bound the oldest goes. Staff have a memory
        # of their own: ten thousand patients must not push the desk's tokens out.
        self._verified: dict[str, tuple[bytes, int]] = {}
        self._verified_staff: dict[str, tuple[Staff, int]] = {}

    def issue(self, account_id: bytes) -> Pair:
        return self._pair(account_id, "access", "refresh", {})

    def issue_staff(self, staff: Staff) -> Pair:
        # Short names: the token is sent with every request.
        claims: dict[str, Any] = {
            "usr": staff.username,
            "name": staff.name,
            "roles": sorted(staff.roles),
            "pra": staff.practitioner_id,
            "dep": staff.department_id,
            "chn": int(staff.channel),
        }
        return self._pair(staff.id, "staff_access", "staff_refresh", claims)

    def account_of_header(self, authorization: str | None) -> bytes:
        """The account that an Authorization header proves; a staff token proves none."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        known = self._verified.get(authorization)
        if known is not None:
            if known[1] > self._clock():
                return known[0]
            del self._verified[authorization]
            raise Problem(Fault.TOKEN_EXPIRED)
        who = self._verify_access(authorization)
        if isinstance(who, Staff):
            raise Problem(Fault.UNAUTHENTICATED)
        return who

    def staff_of_header(self, authorization: str | None) -> Staff:
        """Who of the staff an Authorization header proves; a patient's token proves none."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        known = self._verified_staff.get(authorization)
        if known is not None:
            if known[1] > self._clock():
                return known[0]
            del self._verified_staff[authorization]
            raise Problem(Fault.TOKEN_EXPIRED)
        who = self._verify_access(authorization)
        if not isinstance(who, Staff):
            raise Problem(Fault.UNAUTHENTICATED)
        return who

    def who_of_header(self, authorization: str | None) -> bytes | Staff:
        """An account's id, or one of the staff: for what both may see."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        if authorization in self._verified:
            return self.account_of_header(authorization)
        if authorization in self._verified_staff:
            return self.staff_of_header(authorization)
        return self._verify_access(authorization)

    def account_of_refresh(self, token: str) -> bytes:
        refreshing = self.who_of_refresh(token)
        if refreshing.is_staff:
            raise Problem(Fault.UNAUTHENTICATED)
        return refreshing.id

    def who_of_refresh(self, token: str) -> Refreshing:
        claims = self._claims(token, "refresh", "staff_refresh")
        return Refreshing(_id_of(claims), claims["typ"] == "staff_refresh")

    def issue_qr(self, kind: QrKind, owner: bytes) -> str:
        """What a QR code says of an appointment or a patient, for QR_SECONDS."""
        return self._signed(owner, kind, int(self._clock()), QR_SECONDS, {})

    def of_qr(self, token: str) -> tuple[QrKind, bytes]:
        """Of which kind a QR code is, and whose."""
        claims = self._claims(token, "qr_appointment", "qr_patient")
        return claims["typ"], _id_of(claims)

    def _verify_access(self, authorization: str) -> bytes | Staff:
        """What a header proves that is not remembered; from then on it is."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Problem(Fault.UNAUTHENTICATED)
        claims = self._claims(token.strip(" "), "access", "staff_access")
        expires: int = claims["exp"]
        if claims["typ"] == "access":
            account_id = _id_of(claims)
            _remember(self._verified, VERIFIED_MAX, authorization, (account_id, expires))
            return account_id
        staff = _staff_of(claims)
        _remember(self._verified_staff, VERIFIED_STAFF_MAX, authorization, (staff, expires))
        return staff

    def _pair(self, owner: bytes, access: Kind, refresh: Kind, claims: dict[str, Any]) -> Pair:
        now = int(self._clock())
        return Pair(
            self._signed(owner, access, now, self._access_seconds, claims),
            self._signed(owner, refresh, now, self._refresh_seconds, {}),
            self._access_seconds,
        )

    def _signed(self, owner: bytes, kind: Kind, now: int, seconds: int, more: dict[str, Any]) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": owner.hex(),
            "typ": kind,
            "iat": now,
            "exp": now + seconds,
            **more,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def _claims(self, token: str, *kinds: Kind) -> dict[str, Any]:
        """What a token of one of these kinds says."""
        if len(token) > TOKEN_CHARS_MAX:
            raise Problem(Fault.UNAUTHENTICATED)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],  # never what the token's own header asks for
                audience=AUDIENCE,
                issuer=ISSUER,
                options={**_CHECKS},
            )
        except (jwt.PyJWTError, ValueError):
            raise Problem(Fault.UNAUTHENTICATED) from None
        expires = claims["exp"]
        if claims.get("typ") not in kinds or type(expires) is not int:
            raise Problem(Fault.UNAUTHENTICATED)
        if expires <= self._clock():
            raise Problem(Fault.TOKEN_EXPIRED)
        return claims


def _remember(memory: dict[str, Any], most: int, header: str, proved: tuple[object, int]) -> None:
    if len(memory) >= most:
        del memory[next(iter(memory))]
    memory[header] = proved


def _id_of(claims: dict[str, Any]) -> bytes:
    try:
        return UUID(hex=claims["sub"]).bytes
    except (ValueError, AttributeError, TypeError):
        raise Problem(Fault.UNAUTHENTICATED) from None


def _staff_of(claims: dict[str, Any]) -> Staff:
    try:
        return Staff(
            _id_of(claims),
            claims["usr"],
            claims["name"],
            frozenset(claims["roles"]),
            claims["pra"],
            claims["dep"],
            Channel(claims["chn"]),
        )
    except (KeyError, TypeError, ValueError):  # signed by an older program of ours
        raise Problem(Fault.UNAUTHENTICATED) from None


def account_of(request: web.Request) -> bytes:
    """The account (16 bytes) that sent this. Raises Problem: unauthenticated or token_expired."""
    return request.app[keys.TOKENS].account_of_header(request.headers.get("Authorization"))


def staff_of(request: web.Request) -> Staff:
    """Who of the staff sent this. Raises Problem: unauthenticated or token_expired."""
    return request.app[keys.TOKENS].staff_of_header(request.headers.get("Authorization"))


def who_of(request: web.Request) -> bytes | Staff:
    """Whichever of the two sent this. Raises Problem: unauthenticated or token_expired."""
    return request.app[keys.TOKENS].who_of_header(request.headers.get("Authorization"))
