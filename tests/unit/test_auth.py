"""Tokens: what is believed, and the corpus of what is not."""

import base64
import hmac
import json
import secrets
from dataclasses import replace
from typing import Any

import jwt
import pytest

from engine.domain.policy import Channel
from engine.records.staff import Role
from web import auth
from web.auth import AUDIENCE, ISSUER, TOKEN_CHARS_MAX, Refreshing, Staff, Stay, Tokens
from web.errors import Problem

SECRET = secrets.token_bytes(32)
ACCOUNT = bytes(range(16))
SESSION = bytes(range(32, 48))
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": ACCOUNT.hex(),
    "sid": SESSION.hex(),
    "typ": "access",
    "iat": 1000,
    "exp": 2000,
}


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


FOREIGN = b"a key that somebody else has made"


def foreign(header: dict[str, Any], key: bytes = FOREIGN) -> str:
    """Rightly signed, with a key that the header would have us take."""
    signed_part = unsigned({"alg": "HS256", "typ": "JWT", **header}, {**CLAIMS}).removesuffix(".")
    tag = hmac.digest(key, signed_part.encode(), "sha256")
    return f"{signed_part}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


def unsigned(header: dict[str, Any], claims: dict[str, object], signature: str = "") -> str:
    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}.{signature}"


def test_a_pair_is_believed_each_for_its_use(tokens: Tokens) -> None:
    pair = tokens.issue(ACCOUNT)
    assert pair.expires_in == 1800
    assert tokens.account_of_header(f"Bearer {pair.access_token}") == ACCOUNT
    assert tokens.account_of_header(f"Bearer {pair.access_token}") == ACCOUNT  # now from memory
    assert tokens.account_of_header(f"bearer  {pair.access_token}") == ACCOUNT
    refreshing = tokens.who_of_refresh(pair.refresh_token)
    assert (refreshing.id, refreshing.is_staff, refreshing.generation) == (ACCOUNT, False, 0)
    assert tokens.session_of_header(f"Bearer {pair.access_token}") == refreshing.session


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
        # Keys that the token brings along or points to, also as files of ours whose bytes anybody knows.
        foreign({"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(FOREIGN).rstrip(b"=").decode()}}),
        foreign({"jku": "https://evil.example/keys.json"}),
        foreign({"x5u": "https://evil.example/cert.pem"}),
        foreign({"x5c": [base64.b64encode(FOREIGN).decode()]}),
        foreign({"kid": "../../../../dev/null"}, b""),
        foreign({"kid": "/proc/sys/kernel/randomize_va_space"}, b"2\n"),
        foreign({"kid": "' union select 'key"}, b"key"),
        foreign({"crit": ["exp"]}),
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
        signed(exp=True),
        signed(iat=None),
        signed(iat="1000"),
        signed(iat=1061),  # a minute after now, and a second
        signed(sid="not an id"),
        signed(sid=7),
        signed(sid=""),
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
        tokens.who_of_refresh(pair.access_token)
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


# Staff.

DESK = Staff(
    bytes(range(1, 17)), "desk", "窗口", frozenset((Role.DESK, Role.MANAGER)), None, "03", Channel.WINDOW
)
STAFF_CLAIMS: dict[str, object] = {
    "typ": "staff_access",
    "sid": SESSION.hex(),
    "usr": "desk",
    "name": "窗口",
    "roles": ["desk"],
    "pra": None,
    "dep": "03",
    "chn": 2,
}


def staff_refusal(tokens: Tokens, authorization: str | None) -> str:
    with pytest.raises(Problem) as caught:
        tokens.staff_of_header(authorization)
    return caught.value.code.value


def test_staff_are_known_again_by_their_token_alone(tokens: Tokens) -> None:
    header = f"Bearer {tokens.issue_staff(DESK).access_token}"
    assert tokens.staff_of_header(header) == DESK
    assert tokens.staff_of_header(header) == DESK  # now from memory
    assert tokens.who_of_header(header) == DESK
    assert isinstance(tokens.staff_of_header(header).channel, Channel)


def test_the_longest_staff_fit_into_a_token(tokens: Tokens) -> None:
    long = Staff(
        bytes(16), "u" * 64, "\N{GRINNING FACE}" * 64, frozenset(Role), "p" * 64, "d" * 64, Channel.MANAGEMENT
    )
    token = tokens.issue_staff(long).access_token
    assert len(token) <= TOKEN_CHARS_MAX
    assert tokens.staff_of_header(f"Bearer {token}") == long


def test_a_staff_token_is_no_account_and_the_other_way_round(tokens: Tokens) -> None:
    staff = f"Bearer {tokens.issue_staff(DESK).access_token}"
    patient = f"Bearer {tokens.issue(ACCOUNT).access_token}"
    for _ in range(2):  # verified anew, and from memory
        assert refusal(tokens, staff) == "unauthenticated"
        assert staff_refusal(tokens, patient) == "unauthenticated"
        assert tokens.staff_of_header(staff) == DESK
        assert tokens.account_of_header(patient) == ACCOUNT
        assert tokens.who_of_header(staff) == DESK
        assert tokens.who_of_header(patient) == ACCOUNT


def test_nobody_is_nobody(tokens: Tokens) -> None:
    for header in (None, "", "Basic x", "Bearer ", "Bearer garbage"):
        assert staff_refusal(tokens, header) == "unauthenticated"
        with pytest.raises(Problem, match="unauthenticated"):
            tokens.who_of_header(header)


def test_refresh_says_whose_it_is(tokens: Tokens) -> None:
    stay = Stay(SESSION, 7, 1_100, 1_200)
    mine, theirs = tokens.issue(ACCOUNT, stay), tokens.issue_staff(DESK, stay)
    assert tokens.who_of_refresh(mine.refresh_token) == Refreshing(ACCOUNT, False, SESSION, 7)
    assert tokens.who_of_refresh(theirs.refresh_token) == Refreshing(DESK.id, True, SESSION, 7)
    for token in (mine.access_token, theirs.access_token):
        with pytest.raises(Problem, match="unauthenticated"):
            tokens.who_of_refresh(token)
    for header in (f"Bearer {mine.refresh_token}", f"Bearer {theirs.refresh_token}"):
        assert staff_refusal(tokens, header) == refusal(tokens, header) == "unauthenticated"


def test_a_qr_code_says_whose_it_is_for_two_minutes_and_signs_nobody_in(tokens: Tokens, clock: Clock) -> None:
    code = tokens.issue_qr("qr_appointment", ACCOUNT)
    assert tokens.of_qr(code) == ("qr_appointment", ACCOUNT)
    assert tokens.of_qr(tokens.issue_qr("qr_patient", ACCOUNT)) == ("qr_patient", ACCOUNT)
    assert staff_refusal(tokens, f"Bearer {code}") == refusal(tokens, f"Bearer {code}") == "unauthenticated"
    mine, theirs = tokens.issue(ACCOUNT), tokens.issue_staff(DESK)
    for token in (mine.access_token, mine.refresh_token, theirs.access_token, theirs.refresh_token, "", "x"):
        with pytest.raises(Problem, match="unauthenticated"):
            tokens.of_qr(token)
    with pytest.raises(Problem, match="unauthenticated"):
        tokens.who_of_refresh(code)
    clock.now += 119
    assert tokens.of_qr(code)[1] == ACCOUNT
    clock.now += 1
    with pytest.raises(Problem, match="token_expired"):
        tokens.of_qr(code)


def test_staff_tokens_expire_from_memory_too(tokens: Tokens, clock: Clock) -> None:
    header = f"Bearer {tokens.issue_staff(DESK).access_token}"
    assert tokens.staff_of_header(header) == DESK
    clock.now = 2800
    assert staff_refusal(tokens, header) == "token_expired"  # from memory
    assert staff_refusal(tokens, header) == "token_expired"  # verified anew
    with pytest.raises(Problem, match="token_expired"):
        tokens.who_of_header(header)


@pytest.mark.parametrize(
    "changes",
    [
        {"usr": None},
        {"name": None},
        {"roles": None},
        {"roles": 7},
        {"roles": [[]]},
        {"chn": None},
        {"chn": "window"},
        {"sub": "not an id"},
        {"sid": "not an id"},
        {"typ": "staff"},
        {"typ": ["staff_access"]},
        {"typ": "staff_refresh"},
        {"typ": "access"},
    ],
)
def test_staff_claims_that_are_not_whole(tokens: Tokens, changes: dict[str, object]) -> None:
    whole = {**STAFF_CLAIMS, "pra": "D1"}
    assert tokens.staff_of_header(f"Bearer {signed(**whole)}").practitioner_id == "D1"
    assert staff_refusal(tokens, f"Bearer {signed(**{**whole, **changes})}") == "unauthenticated"


def test_patients_do_not_push_staff_out_of_memory(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "VERIFIED_MAX", 2)
    monkeypatch.setattr(auth, "VERIFIED_STAFF_MAX", 2)
    staff = [f"Bearer {tokens.issue_staff(replace(DESK, id=bytes([n]) * 16)).access_token}" for n in range(3)]
    for header in staff:
        tokens.staff_of_header(header)
    for n in range(5):
        tokens.account_of_header(f"Bearer {tokens.issue(bytes([n]) * 16).access_token}")
    assert list(tokens._verified_staff) == staff[1:]
    assert len(tokens._verified) == 2


# Sessions.


def test_what_is_foreign_is_well_made() -> None:
    """Each of these would pass where its key is taken."""
    token = foreign({"kid": "../../../../dev/null"})
    assert jwt.decode(token, FOREIGN, algorithms=["HS256"], audience=AUDIENCE, options={"verify_exp": False})


def test_a_clock_that_is_a_minute_ahead_is_none_that_forges(tokens: Tokens) -> None:
    assert tokens.account_of_header(f"Bearer {signed(iat=1060)}") == ACCOUNT


def test_a_token_of_an_older_program_has_to_be_renewed(tokens: Tokens) -> None:
    assert refusal(tokens, f"Bearer {signed(sid=None)}") == "token_expired"
    without: dict[str, Any] = {**STAFF_CLAIMS, "pra": "D1", "sid": None}
    assert staff_refusal(tokens, f"Bearer {signed(**without)}") == "token_expired"
    for without in ({"sid": None, "gen": 0}, {"gen": None}, {"gen": "0"}):
        with pytest.raises(Problem, match="token_expired"):
            tokens.who_of_refresh(signed(typ="refresh", **without))
    assert tokens.who_of_refresh(signed(typ="refresh", gen=0)).session == SESSION


def test_a_revoked_session_opens_nothing_whether_remembered_or_not(clock: Clock) -> None:
    revoked: set[bytes] = set()
    tokens = Tokens(SECRET, 1800, 86400, clock, revoked)
    stay = Stay(SESSION, 0, 2_000, 9_000)
    mine, desk = tokens.issue(ACCOUNT, stay), tokens.issue_staff(DESK, stay)
    other = f"Bearer {tokens.issue(ACCOUNT).access_token}"
    headers = [f"Bearer {mine.access_token}", f"Bearer {desk.access_token}"]
    assert tokens.account_of_header(headers[0]) == ACCOUNT and tokens.staff_of_header(headers[1]) == DESK
    revoked.add(SESSION)
    fresh = Tokens(SECRET, 1800, 86400, clock, revoked)
    for each in (tokens, fresh, fresh):
        assert refusal(each, headers[0]) == staff_refusal(each, headers[1]) == "session_ended"
        for header in headers:
            with pytest.raises(Problem, match="session_ended"):
                each.who_of_header(header)
            with pytest.raises(Problem, match="session_ended"):
                each.session_of_header(header)
        assert each.account_of_header(other) == ACCOUNT
    assert not fresh._verified_staff and list(fresh._verified) == [other]


def test_a_token_lives_no_longer_than_its_stay(tokens: Tokens, clock: Clock) -> None:
    pair = tokens.issue_staff(DESK, Stay(SESSION, 0, 1_010, 1_020))
    assert pair.expires_in == 10
    clock.now = 1_010
    assert staff_refusal(tokens, f"Bearer {pair.access_token}") == "token_expired"
    assert tokens.who_of_refresh(pair.refresh_token).generation == 0
    clock.now = 1_020
    with pytest.raises(Problem, match="token_expired"):
        tokens.who_of_refresh(pair.refresh_token)


def test_staff_are_seen_and_patients_are_not(clock: Clock) -> None:
    seen: dict[bytes, float] = {}
    tokens = Tokens(SECRET, 1800, 86400, clock, seen=seen)
    stay = Stay(SESSION, 0, 2_000, 9_000)
    tokens.account_of_header(f"Bearer {tokens.issue(ACCOUNT, stay).access_token}")
    assert not seen
    header = f"Bearer {tokens.issue_staff(DESK, stay).access_token}"
    for now in (1_001.0, 1_002.0):
        clock.now = now
        tokens.staff_of_header(header)
        assert seen == {SESSION: now}
    clock.now = 2_000
    assert staff_refusal(tokens, header) == "token_expired"
    assert seen == {SESSION: 1_002.0}
