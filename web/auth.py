"""Who asks: bearer tokens, signed with one fixed algorithm.

An access token lives for minutes and proves on every request who asks: a patient's account, or one of the
staff with their roles, so that no request needs a query for it. A refresh token buys the next pair, once
(engine/records/sessions.py). A QR code that a patient shows at a kiosk is a token as well, good for two
minutes and for checking in alone. All kinds differ in `typ`, so that none passes for another.

Each pair belongs to a session. A gateway knows which sessions were revoked (web/sessions/following.py), and
looks there once a request. Consoles of the staff may have a cookie instead of tokens: web/sessions/cookies.py
finds out whose it is before a handler asks here.
"""

import secrets
import time
from collections.abc import Callable, Container, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import jwt
from aiohttp import web
from jwt.types import Options

from engine.domain.policy import Channel
from engine.records.staff import Staff as Staff
from engine.records.staff import agrees as agrees
from engine.records.staff import looks_after as looks_after
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
AHEAD_SECONDS_MAX: Final = 60  # of the clock of the machine that signed
QR_SECONDS: Final = 120  # a screenshot of yesterday opens nothing

_CHECKS: Final[Options] = {
    "require": ["exp", "iat", "sub"],
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
    """Whose the next pair is: read anew who that is, and whether it may be given, before it is."""

    id: bytes
    is_staff: bool
    session: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class Stay:
    """The session that a pair belongs to, and until when each token may live, in seconds since 1970."""

    session: bytes
    generation: int
    access_until: int
    refresh_until: int
    issued_at: int | None = None  # from when on both count; None: the moment of signing


@dataclass(frozen=True, slots=True)
class ByCookie:
    """Who of the staff a cookie proved, before the handler was asked."""

    staff: Staff
    session: bytes
    csrf_token: str


BY_COOKIE: "web.RequestKey[ByCookie | None]" = web.RequestKey("by_cookie")
"""The request's key for it. None: there was a cookie, but its session has ended."""


class Tokens:
    """Signs and verifies. Raises Problem: token_expired, session_ended where it was revoked, or
    unauthenticated for every other fault.

    `revoked` are the sessions of which tokens may still be about; `seen` is told when one of the staff was
    last heard, by session, in seconds since 1970.
    """

    def __init__(
        self,
        secret: bytes,
        access_seconds: int,
        refresh_seconds: int,
        clock: Callable[[], float] = time.time,
        revoked: Container[bytes] = frozenset(),
        seen: MutableMapping[bytes, float] | None = None,
    ) -> None:
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"the token secret has {len(secret)} bytes, fewer than {SECRET_BYTES_MIN}")
        self._secret = secret
        self.access_seconds = access_seconds
        self.refresh_seconds = refresh_seconds
        self._clock = clock
        self._revoked = revoked
        self._seen = seen
        # The whole header is the key, so a token seen before costs one look-up and no slicing. Only good
        # tokens get in, so strangers cannot fill it; beyond the bound the oldest goes. Staff have a memory
        # of their own: ten thousand patients must not push the desk's tokens out.
        self._verified: dict[str, tuple[bytes, int, bytes]] = {}
        self._verified_staff: dict[str, tuple[Staff, int, bytes]] = {}

    def now(self) -> datetime:
        """By the clock that tokens live by."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def issue(self, account_id: bytes, stay: Stay | None = None) -> Pair:
        """Without a session that is kept, the refresh token buys nothing."""
        return self._pair(account_id, "access", "refresh", {}, stay)

    def issue_staff(self, staff: Staff, stay: Stay | None = None) -> Pair:
        # Short names: the token is sent with every request.
        claims: dict[str, Any] = {
            "usr": staff.username,
            "name": staff.name,
            "roles": sorted(staff.roles),
            "pra": staff.practitioner_id,
            "dep": staff.department_id,
            "chn": int(staff.channel),
            "cam": staff.campus,
        }
        return self._pair(staff.id, "staff_access", "staff_refresh", claims, stay)

    def account_of_header(self, authorization: str | None) -> bytes:
        """The account that an Authorization header proves; a staff token proves none."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        known = self._verified.get(authorization)
        if known is not None:
            if known[2] in self._revoked:
                raise Problem(Fault.SESSION_ENDED)
            if known[1] > self._clock():
                return known[0]
            del self._verified[authorization]
            raise Problem(Fault.TOKEN_EXPIRED)
        who = self._verify_access(authorization)[0]
        if isinstance(who, Staff):
            raise Problem(Fault.UNAUTHENTICATED)
        return who

    def staff_of_header(self, authorization: str | None) -> Staff:
        """Who of the staff an Authorization header proves; a patient's token proves none."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        known = self._verified_staff.get(authorization)
        if known is not None:
            staff, expires, session = known
            now = self._clock()
            if session in self._revoked:
                raise Problem(Fault.SESSION_ENDED)
            if expires <= now:
                del self._verified_staff[authorization]
                raise Problem(Fault.TOKEN_EXPIRED)
            if self._seen is not None:
                self._seen[session] = now
            return staff
        who, session = self._verify_access(authorization)
        if not isinstance(who, Staff):
            raise Problem(Fault.UNAUTHENTICATED)
        if self._seen is not None:
            self._seen[session] = self._clock()
        return who

    def who_of_header(self, authorization: str | None) -> bytes | Staff:
        """An account's id, or one of the staff: for what both may see."""
        if authorization is None:
            raise Problem(Fault.UNAUTHENTICATED)
        if authorization in self._verified:
            return self.account_of_header(authorization)
        if authorization in self._verified_staff:
            return self.staff_of_header(authorization)
        return self._verify_access(authorization)[0]

    def session_of_header(self, authorization: str | None) -> bytes:
        """The session that an Authorization header belongs to, whoever's it is."""
        who = self.who_of_header(authorization)
        assert authorization is not None
        memory = self._verified_staff if isinstance(who, Staff) else self._verified
        return memory[authorization][2]

    def check_session(self, session: bytes) -> None:
        """Raises Problem session_ended when it was revoked since it was last looked at."""
        if session in self._revoked:
            raise Problem(Fault.SESSION_ENDED)

    def saw(self, session: bytes) -> None:
        """One of the staff has just been heard in this session."""
        if self._seen is not None:
            self._seen[session] = self._clock()

    def seen_at(self, session: bytes) -> datetime | None:
        """When this gateway heard of it, where that is not written down yet."""
        at = None if self._seen is None else self._seen.get(session)
        return None if at is None else datetime.fromtimestamp(at, UTC)

    def who_of_refresh(self, token: str) -> Refreshing:
        claims = self._claims(token, "refresh", "staff_refresh")
        generation = claims.get("gen")
        if type(generation) is not int:
            raise Problem(Fault.TOKEN_EXPIRED)  # signed by an older program of ours
        return Refreshing(_id_of(claims), claims["typ"] == "staff_refresh", _session_of(claims), generation)

    def issue_qr(self, kind: QrKind, owner: bytes) -> str:
        """What a QR code says of an appointment or a patient, for QR_SECONDS."""
        return self._signed(owner, kind, int(self._clock()), QR_SECONDS, {})

    def of_qr(self, token: str) -> tuple[QrKind, bytes]:
        """Of which kind a QR code is, and whose."""
        claims = self._claims(token, "qr_appointment", "qr_patient")
        return claims["typ"], _id_of(claims)

    def _verify_access(self, authorization: str) -> tuple[bytes | Staff, bytes]:
        """Whom a header proves that is not remembered, and their session; from then on it is remembered."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Problem(Fault.UNAUTHENTICATED)
        claims = self._claims(token.strip(" "), "access", "staff_access")
        expires: int = claims["exp"]
        if claims["typ"] == "access":
            account_id = _id_of(claims)
            session = _session_of(claims)
            self.check_session(session)
            _remember(self._verified, VERIFIED_MAX, authorization, (account_id, expires, session))
            return account_id, session
        staff = _staff_of(claims)
        session = _session_of(claims)
        self.check_session(session)
        _remember(self._verified_staff, VERIFIED_STAFF_MAX, authorization, (staff, expires, session))
        return staff, session

    def _pair(
        self, owner: bytes, access: Kind, refresh: Kind, claims: dict[str, Any], stay: Stay | None
    ) -> Pair:
        now = int(self._clock())
        if stay is not None and stay.issued_at is not None:
            now = stay.issued_at
        if stay is None:
            stay = Stay(secrets.token_bytes(16), 0, now + self.access_seconds, now + self.refresh_seconds)
        session = {"sid": stay.session.hex()}
        return Pair(
            self._signed(owner, access, now, stay.access_until - now, {**claims, **session}),
            self._signed(owner, refresh, now, stay.refresh_until - now, {**session, "gen": stay.generation}),
            stay.access_until - now,
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
        expires, issued = claims["exp"], claims["iat"]
        if claims.get("typ") not in kinds or type(expires) is not int or type(issued) is not int:
            raise Problem(Fault.UNAUTHENTICATED)
        now = self._clock()
        if issued > now + AHEAD_SECONDS_MAX:
            raise Problem(Fault.UNAUTHENTICATED)
        if expires <= now:
            raise Problem(Fault.TOKEN_EXPIRED)
        return claims


def _remember(memory: dict[str, Any], most: int, header: str, proved: tuple[object, int, bytes]) -> None:
    if len(memory) >= most:
        del memory[next(iter(memory))]
    memory[header] = proved


def _id_of(claims: dict[str, Any]) -> bytes:
    try:
        return UUID(hex=claims["sub"]).bytes
    except (ValueError, AttributeError, TypeError):
        raise Problem(Fault.UNAUTHENTICATED) from None


def _session_of(claims: dict[str, Any]) -> bytes:
    session = claims.get("sid")
    if session is None:  # signed by an older program of ours: its owner signs in again
        raise Problem(Fault.TOKEN_EXPIRED)
    try:
        return UUID(hex=session).bytes
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
            claims.get("cam"),
        )
    except (KeyError, TypeError, ValueError):  # signed by an older program of ours
        raise Problem(Fault.UNAUTHENTICATED) from None


def account_of(request: web.Request) -> bytes:
    """The account (16 bytes) that sent this.

    Raises Problem: unauthenticated, token_expired, session_ended.
    """
    return request.app[keys.TOKENS].account_of_header(request.headers.get("Authorization"))


def staff_of(request: web.Request) -> Staff:
    """Who of the staff sent this, by token or cookie. Raises Problem as `account_of` does."""
    authorization = request.headers.get("Authorization")
    if authorization is None and BY_COOKIE in request:
        return _by_cookie(request).staff
    return request.app[keys.TOKENS].staff_of_header(authorization)


def who_of(request: web.Request) -> bytes | Staff:
    """Whichever of the two sent this. Raises Problem as `account_of` does."""
    authorization = request.headers.get("Authorization")
    if authorization is None and BY_COOKIE in request:
        return _by_cookie(request).staff
    return request.app[keys.TOKENS].who_of_header(authorization)


def session_of(request: web.Request) -> bytes | None:
    """The session (16 bytes) that this was sent in; None: in none. Raises Problem as `account_of` does."""
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        return request.app[keys.TOKENS].session_of_header(authorization)
    return _by_cookie(request).session if BY_COOKIE in request else None


def _by_cookie(request: web.Request) -> ByCookie:
    found: ByCookie | None = request[BY_COOKIE]
    if found is None:
        raise Problem(Fault.SESSION_ENDED)
    request.app[keys.TOKENS].check_session(found.session)
    return found
