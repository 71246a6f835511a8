"""What an ID token proves (OpenID Connect Core 1.0, 3.1.3.7): pure, with the keys and the time as arguments.

Algorithms are ours to choose, never the token's: three with public keys, so that nobody can sign with what
is published (HS256), nor not at all (none). A key is one of the provider's by its `kid`, and of the kind that
the algorithm needs; what a header says of keys by itself (jwk, jku, x5u, x5c) is not looked at.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from integrations.connector import Refused

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
}
"""Algorithm -> kind and curve of its key."""
RSA_BITS_MIN: Final = 2048
TOKEN_CHARS_MAX: Final = 16_384
SKEW_SECONDS: Final = 30  # their clock against ours
AGE_SECONDS_MAX: Final = 600  # ours was made for the sign-in that is under way
SUBJECT_CHARS_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider has signed in, and how."""

    issuer: str
    subject: str
    methods: frozenset[str]  # amr: RFC 8176
    context: str  # acr
    name: str  # as the provider tells it; may be ""
    username: str


class UnknownKey(Exception):
    """Signed with a key that was not among those given: the provider may have a new one."""


def verified(
    token: str, keys: Sequence[Mapping[str, Any]], issuer: str, client_id: str, nonce: str, now: float
) -> Identity:
    """Raises Refused with a word for why, or UnknownKey."""
    if len(token) > TOKEN_CHARS_MAX:
        raise Refused("too_long", "ID token")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise Refused("malformed", "ID token") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused("algorithm", "ID token")
    key = _key_of(keys, algorithm, header.get("kid"))
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            # Times and names are looked at below, against our clock and more strictly.
            options={
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Refused("signature", "ID token") from None
    return _of_claims(claims, issuer, client_id, nonce, now)


def _key_of(keys: Sequence[Mapping[str, Any]], algorithm: str, kid: object) -> Any:
    kind, curve = ALGORITHMS[algorithm]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
    ]
    chosen = [key for key in fitting if key.get("kid") == kid] if kid is not None else fitting
    if not chosen:
        raise UnknownKey
    if len(chosen) > 1:
        raise Refused("key", "which of several keys?")
    try:
        made = jwt.PyJWK.from_dict({**chosen[0]}, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise Refused("key", "unusable") from None
    if kind == "RSA" and getattr(made.key, "key_size", 0) < RSA_BITS_MIN:
        raise Refused("key", "too short")
    return made


def _of_claims(claims: dict[str, Any], issuer: str, client_id: str, nonce: str, now: float) -> Identity:
    if claims.get("iss") != issuer:
        raise Refused("issuer", "ID token")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or client_id not in named:
        raise Refused("audience", "ID token")
    party = claims.get("azp")
    if (len(named) > 1 or party is not None) and party != client_id:
        raise Refused("authorized_party", "ID token")
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires <= now - SKEW_SECONDS:
        raise Refused("expired", "ID token")
    if not now - AGE_SECONDS_MAX - SKEW_SECONDS <= issued <= now + SKEW_SECONDS:
        raise Refused("issued_at", "ID token")
    if "nbf" in claims and _seconds(claims, "nbf") > now + SKEW_SECONDS:
        raise Refused("not_yet", "ID token")
    told = claims.get("nonce")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), nonce.encode()):
        raise Refused("nonce", "ID token")
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= SUBJECT_CHARS_MAX
        or not subject.isascii()
        or not subject.isprintable()
    ):
        raise Refused("subject", "ID token")
    methods = claims.get("amr")
    context = claims.get("acr")
    return Identity(
        issuer,
        subject,
        frozenset(each for each in methods if isinstance(each, str))
        if isinstance(methods, list)
        else frozenset(),
        context if isinstance(context, str) else "",
        _text(claims.get("name")),
        _text(claims.get("preferred_username")),
    )


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 40:
        raise Refused(name, "ID token")
    return float(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
