"""Codes by the clock, and codes on paper."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from web.sign_in import recovery_codes, totp

NOW = datetime(2026, 11, 23, 8, 0, 15, tzinfo=UTC)
SECRET = totp.new_secret()
AT = int(NOW.timestamp()) // totp.STEP_SECONDS


def code(seconds: float = 0) -> str:
    return totp.code_of(SECRET, NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(-46, None), (-45, AT - 1), (0, AT), (14, AT), (15, AT + 1), (44, AT + 1), (45, None)],
)
def test_one_step_to_either_side(seconds: int, step: int | None) -> None:
    assert totp.step_of(SECRET, code(seconds), NOW, 0) == step


def test_nothing_of_a_used_step_or_before_it() -> None:
    assert totp.step_of(SECRET, code(), NOW, AT) is None
    assert totp.step_of(SECRET, code(-30), NOW, AT) is None
    assert totp.step_of(SECRET, code(30), NOW, AT) == AT + 1


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "１２３４５６", "12 456", "-12345"])
def test_what_is_no_code(typed: str) -> None:
    assert totp.step_of(SECRET, typed, NOW, 0) is None


def test_the_codes_of_rfc_6238() -> None:
    secret = base64.b32encode(b"12345678901234567890").decode()
    for seconds, digits in ((59, "287082"), (1111111109, "081804"), (20000000000, "353130")):
        at = datetime.fromtimestamp(seconds, UTC)
        assert totp.code_of(secret, at) == digits
        assert totp.step_of(secret, digits, at, 0) == seconds // 30


def test_a_secret_has_160_bits_and_is_never_the_same() -> None:
    assert len(base64.b32decode(SECRET)) == 20
    assert totp.new_secret() != SECRET


def test_recovery_codes_are_read_however_they_are_typed() -> None:
    codes = recovery_codes.new_codes()
    assert len(set(codes)) == recovery_codes.CODES
    for one in codes:
        bare = recovery_codes.normal(one)
        assert bare is not None and len(bare) == 25
        assert recovery_codes.normal(f" {one.upper().replace('-', ' ')} ") == bare
        assert recovery_codes.normal(one[:-1]) is None
        assert len(one) <= recovery_codes.CHARS_MAX
    assert recovery_codes.normal("123456") is None
