"""Which passwords will do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.settings import Settings
from web.demo_staff import DEMO_PASSWORD
from web.faults import INVALID
from web.passwords import PASSWORD_CHARS_MAX
from web.sign_in.password_rules import PasswordRules, is_due, unfit
from web.sign_in.rules import rules_of

PLAIN = PasswordRules()
DENGBAO = PasswordRules(kinds_min=3, days_max=90, not_again=5)
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


def codes(
    password: str, rules: PasswordRules = PLAIN, username: str = "zhang.san", name: str = "张三"
) -> set[str]:
    return {fault.code for fault in unfit(password, rules, username, name)}


@pytest.mark.parametrize(
    "password",
    [
        "correct horse",
        "all small letters and long",
        "床前明月光疑是地上霜",
        "tR7!kk2_",
        "kx8vbnq2",
        "x" * 10 + "y" * 54,  # 64 are allowed, whatever they are
        "9" * 3 + "1582047362",  # digits alone, but many of them
        "p" + "密" * (PASSWORD_CHARS_MAX - 1),
    ],
)
def test_these_will_do(password: str) -> None:
    assert codes(password) == set()


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("7 chars", "password_too_short"),
        ("密码 七个字!", "password_too_short"),
        ("x" * PASSWORD_CHARS_MAX + "y", "password_too_long"),
        ("i am Zhang, hello", "password_has_name"),
        ("zhang.san 4 ever", "password_has_name"),
        ("我是张三，你好吗", "password_has_name"),
        ("password1", "password_common"),
        ("PASSWORD1", "password_common"),
        ("ｐａｓｓｗｏｒｄ１", "password_common"),
        ("P@ssw0rd2031", "password_common"),
        ("Admin@2029!", "password_common"),
        ("woaini1314", "password_common"),
        ("5201314a", "password_common"),
        ("xinglin#2027", "password_common"),
        (DEMO_PASSWORD, "password_common"),
        ("1qaz2wsx", "password_common"),
        ("poiuytrewq", "password_common"),
        ("asdfasdf", "password_common"),
        ("abcdefgh", "password_common"),
        ("aaaaaaaaa", "password_common"),
        ("ab1ab1ab1", "password_common"),
        ("19900307", "password_common"),
        ("13800138000", "password_common"),
        ("11010119900307803X", "password_common"),
    ],
)
def test_these_will_not(password: str, code: str) -> None:
    assert codes(password) == {code}


def test_short_parts_of_a_username_are_in_too_many_words() -> None:
    assert codes("the san is a river", username="li.san") == set()
    assert codes("desk lamp and chair", username="desk") == {"password_has_name"}
    assert codes("a lamp and chair", username="l", name="A") == set()


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        ("correct horse", False),
        ("Correct horse", True),
        ("correcthorse8", False),
        ("Correcthorse8", True),
        ("这个密码 is 好", False),
        ("这个密码 Is 好", True),
    ],
)
def test_the_mixture_that_dengbao_wants(password: str, fits: bool) -> None:
    assert codes(password, DENGBAO) == (set() if fits else {"password_too_plain"})


def test_how_long_one_lasts() -> None:
    assert not is_due(PLAIN, NOW - timedelta(days=10_000), NOW)
    assert not is_due(DENGBAO, NOW - timedelta(days=90) + timedelta(seconds=1), NOW)
    assert is_due(DENGBAO, NOW - timedelta(days=90), NOW)


def test_a_longer_list_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "breached.txt"
    file.write_text("short\nSome Breached Phrase\n密码密码密码密码！\n", encoding="utf-8")
    rules = rules_of(Settings(password_list=file, password_chars_min=10))
    assert not rules.passwords.common & {"short"}
    assert codes("some breached PHRASE", rules.passwords) == {"password_common"}
    assert codes("nine char", rules.passwords) == {"password_too_short"}
    with pytest.raises(ValidationError, match="cannot be read"):
        Settings(password_list=tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "required"),
    [({}, True), ({"demo": True}, False), ({"demo": True, "staff_second_factor": "required"}, True)],
)
def test_who_must_have_a_second_factor(given: dict[str, object], required: bool) -> None:
    assert rules_of(Settings(**given)).is_factor_required is required  # type: ignore[arg-type]


def test_every_reason_has_its_words() -> None:
    for fault in unfit("1", DENGBAO, "x", "x") + unfit("password1", PLAIN, "pass", "x"):
        for text in INVALID[fault.code]:
            assert "{" not in text.format_map(fault.words)
