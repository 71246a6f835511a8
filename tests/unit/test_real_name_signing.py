"""What both sides of the register's wire sign: any part of it changed is another signature."""

import hashlib
import hmac
from typing import Any

import pytest

from engine.records.identity import IN_REGISTER, IdType
from integrations.connector import TryAgain
from integrations.real_name import signing
from integrations.real_name.translate import KINDS, Finding, finding_of, question

REQUEST: dict[str, Any] = {
    "secret": b"secret",
    "method": "POST",
    "path": "/v1/identity/check",
    "app_id": "hospital",
    "at": 1_795_000_000,
    "nonce": "0" * 32,
    "body": b"{}",
}
ANSWER: dict[str, Any] = {
    "secret": b"secret",
    "status": 200,
    "nonce": "0" * 32,
    "at": 1_795_000_000,
    "body": b"{}",
}


def test_it_is_the_signature_that_the_page_describes() -> None:
    text = "\n".join(
        ["POST", "/v1/identity/check", "hospital", "1795000000", "0" * 32, hashlib.sha256(b"{}").hexdigest()]
    )
    assert signing.of_request(**REQUEST) == hmac.new(b"secret", text.encode(), "sha256").hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"another"},
        {"method": "GET"},
        {"path": "/v1/identity"},
        {"app_id": "hospital2"},
        {"at": 1_795_000_001},
        {"nonce": "1" * 32},
        {"body": b"{ }"},
    ],
)
def test_a_request_that_was_changed(change: dict[str, Any]) -> None:
    assert signing.of_request(**REQUEST) != signing.of_request(**{**REQUEST, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"another"},
        {"status": 503},
        {"at": 1_795_000_001},
        {"nonce": "1" * 32},
        {"body": b'{"result":"match"}'},
    ],
)
def test_an_answer_that_was_changed(change: dict[str, Any]) -> None:
    assert signing.of_answer(**ANSWER) != signing.of_answer(**{**ANSWER, **change})


@pytest.mark.parametrize(
    ("at", "near"),
    [
        ("1000", True),
        ("1300", True),
        ("700", True),
        ("1301", False),
        ("699", False),
        ("", False),
        ("-1000", False),
        ("1e3", False),
        ("１０００", False),
        ("1000.0", False),
        ("9" * 13, False),
    ],
)
def test_only_these_minutes(at: str, near: bool) -> None:
    assert signing.is_near(at, 1000) is near


def test_the_papers_that_are_asked_about_have_a_code_there() -> None:
    assert set(KINDS) == IN_REGISTER
    asked = question("王小明", IdType.RESIDENT_ID, "11010519491231002X")
    assert asked == {"name": "王小明", "kind": "01", "number": "11010519491231002X"}


@pytest.mark.parametrize("answer", [None, [], "match", {}, {"result": "MATCH"}, {"result": ["match"]}])
def test_an_answer_that_says_nothing(answer: object) -> None:
    with pytest.raises(TryAgain):
        finding_of(answer)


def test_what_it_may_find() -> None:
    words = ("match", "mismatch", "not_found")
    assert [finding_of({"result": word}) for word in words] == list(Finding)
