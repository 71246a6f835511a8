"""Tokens: what is believed, and the corpus of what is not."""

import base64
import json
import secrets

import jwt
import pytest

from web import auth
from web.auth import AUDIENCE, ISSUER, Tokens
from web.errors import Problem

SECRET = secrets.token_bytes(32)
ACCOUNT = bytes(range(16))
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": ACCOUNT.hex(), "typ": "access", "iat": 1000, "exp": 2000}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(SECRET, 1800, 86400, clock)


def refusal(tokens: Tokens, authorization: str | None) -> str:
    with pytest.raises(Problem) as caught:
        tokens.account_of_header(authorization)
    return caught.value.code.value


def signed(secret: bytes | str = SECRET, algorithm: str = "HS256", **changes: object) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def unsigned(header: dict[str, str], claims: dict[str, object], signature: str = "") -> str:
    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}.{signature}"


def test_a_pair_is_believed_each_for_its_use(tokens: Tokens) -> None:
    pair = tokens.issue(ACCOUNT)
    assert pair.expires_in == 1800
    assert tokens.account_of_header(f"Bearer {pair.access_token}") == ACCOUNT
    assert tokens.account_of_header(f"Bearer {pair.access_token}") == ACCOUNT  # now from memory
    assert tokens.account_of_header(f"bearer  {pair.access_token}") == ACCOUNT
    assert tokens.account_of_refresh(pair.refresh_token) == ACCOUNT


def test_what_the_corpus_starts_from_is_good(tokens: Tokens) -> None:
    assert tokens.account_of_header(f"Bearer {signed()}") == ACCOUNT


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "a.b.c",
        "." * 2,
        "x" * 100_000,
        unsigned({"alg": "none", "typ": "JWT"}, {**CLAIMS}),
        unsigned({"alg": "None", "typ": "JWT"}, {**CLAIMS}),
        unsigned({"typ": "JWT"}, {**CLAIMS}),
        unsigned({"alg": "HS256", "typ": "JWT"}, {**CLAIMS}),
        # A verifier that believes the header's algorithm takes a public key for an HMAC secret.
        unsigned({"alg": "RS256", "typ": "JWT"}, {**CLAIMS}, signed().rpartition(".")[2]),
        unsigned({"alg": "ES256", "typ": "JWT"}, {**CLAIMS}, signed().rpartition(".")[2]),
        signed(algorithm="HS384"),
        signed(algorithm="HS512"),
        signed(secret=b"another secret of thirty-two bytes"),
        signed(secret=b"\0" * 32),
        signed(aud="another-api"),
        signed(aud=None),
        signed(aud=["another-api"]),
        signed(iss="somebody"),
        signed(iss=None),
        signed(sub=None),
        signed(sub="not an id"),
        signed(sub=""),
        signed(typ="refresh"),
        signed(typ=None),
        signed(exp=None),
        signed(exp="2000"),
        signed(exp=1e18),
        signed()[:-1],
        signed()[:-20],
        signed().rpartition(".")[0],
        signed().rpartition(".")[0] + ".",
        signed() + "A",
    ],
)
def test_the_corpus(tokens: Tokens, token: str) -> None:
    assert refusal(tokens, f"Bearer {token}") == "unauthenticated"


def test_a_changed_claim_breaks_the_signature(tokens: Tokens) -> None:
    header, _, signature = signed().split(".")
    other = unsigned({}, {**CLAIMS, "sub": bytes(16).hex()}).split(".")[1]
    assert refusal(tokens, f"Bearer {header}.{other}.{signature}") == "unauthenticated"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token x"])
def test_no_bearer(tokens: Tokens, header: str | None) -> None:
    assert refusal(tokens, header) == "unauthenticated"


def test_a_token_without_its_scheme(tokens: Tokens) -> None:
    assert refusal(tokens, tokens.issue(ACCOUNT).access_token) == "unauthenticated"


def test_refresh_is_no_access_and_the_other_way_round(tokens: Tokens) -> None:
    pair = tokens.issue(ACCOUNT)
    assert refusal(tokens, f"Bearer {pair.refresh_token}") == "unauthenticated"
    with pytest.raises(Problem) as caught:
        tokens.account_of_refresh(pair.access_token)
    assert caught.value.code == "unauthenticated"


def test_expiry_counts_for_tokens_in_memory_too(tokens: Tokens, clock: Clock) -> None:
    header = f"Bearer {tokens.issue(ACCOUNT).access_token}"
    clock.now = 2799.9
    assert tokens.account_of_header(header) == ACCOUNT
    clock.now = 2800
    assert refusal(tokens, header) == "token_expired"  # from memory
    assert refusal(tokens, header) == "token_expired"  # verified anew


def test_an_expired_forgery_is_only_a_forgery(tokens: Tokens, clock: Clock) -> None:
    clock.now = 5000
    assert refusal(tokens, f"Bearer {signed(secret=bytes(32))}") == "unauthenticated"
    assert refusal(tokens, f"Bearer {signed()}") == "token_expired"


def test_memory_is_bounded_and_keeps_no_bad_token(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "VERIFIED_MAX", 3)
    headers = [f"Bearer {tokens.issue(bytes([n]) * 16).access_token}" for n in range(6)]
    for n, header in enumerate(headers):
        assert tokens.account_of_header(header) == bytes([n]) * 16
        refusal(tokens, f"Bearer bad{n}")
    assert list(tokens._verified) == headers[3:]
    assert tokens.account_of_header(headers[0]) == bytes(16)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Tokens(bytes(31), 1, 1)
