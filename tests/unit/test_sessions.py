"""How long sessions last by role, what a device is called, and which pages may use a cookie."""

import pytest

from engine.domain.policy import Channel
from engine.records.staff import Role, Staff
from engine.settings import Settings
from web.origins import Origins
from web.sessions.cookies import Cookies
from web.sessions.devices import device_of
from web.sessions.terms import Terms, terms_of


def staff(*roles: str) -> Staff:
    return Staff(bytes(16), "x", "x", frozenset(roles), None, None, Channel.WINDOW)


def test_terms_by_role() -> None:
    terms = Terms(1, 2, 3, 4)
    for person in (*Role, ""):
        roles = (person,) if person else ()
        is_device = person in (Role.KIOSK, Role.SCREEN)
        is_machine = is_device or person == Role.PARTNER
        assert terms.idle_of(staff(*roles)) == (None if is_machine else 1), person
        assert terms.most_of(staff(*roles)) == (3 if is_device else 2), person
    # Who is a person besides is a person.
    assert terms.idle_of(staff(Role.SCREEN, Role.DESK)) == 1
    assert terms.most_of(staff(Role.KIOSK, Role.NURSE)) == 2
    assert terms.most_of(staff(Role.KIOSK, Role.SCREEN)) == 3


def test_what_is_documented_is_what_is_set() -> None:
    assert terms_of(Settings()) == Terms()
    assert (Terms().staff_idle, Terms().staff_most) == (30 * 60, 12 * 3600)
    assert (Terms().device_most, Terms().account_most) == (30 * 86400, 180 * 86400)


@pytest.mark.parametrize(
    ("user_agent", "told"),
    [
        (None, ""),
        ("", ""),
        ("something of Wang's, 13800138000", ""),
        ("Mozilla/5.0 (Windows NT 10.0; Win64) Chrome/130 Safari/537.36", "Chrome, Windows"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/130 Safari/537.36 Edg/130.0", "Edge, Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 14) Version/18 Safari/605", "Safari, macOS"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0", "Firefox, Linux"),
        ("Mozilla/5.0 (Linux; Android 14; 王's phone) MicroMessenger/8.0.50", "WeChat, Android"),
        ("Python/3.11 aiohttp/3.14", "Python"),
    ],
)
def test_a_device_is_told_in_known_words(user_agent: str | None, told: str) -> None:
    assert device_of(user_agent) == told


def test_a_cookie_is_known_by_its_hash_and_its_tag() -> None:
    cookies, others = Cookies(b"a" * 32), Cookies(b"b" * 32)
    cookie = cookies.new()
    known = cookies.hash_of(cookie)
    assert known is not None and len(known) == 32 and known.hex() not in cookie
    assert cookies.new() != cookie and others.hash_of(cookie) is None
    for n in range(0, len(cookie), 5):
        changed = "B" if cookie[n] != "B" else "C"
        assert cookies.hash_of(cookie[:n] + changed + cookie[n + 1 :]) is None
    for wrong in (
        "",
        cookie[:-1],
        cookie + "A",
        " " * 64,
        "\udcff" * 64,
        "=" * 64,
        cookie.replace(cookie[0], "+"),
    ):
        assert cookies.hash_of(wrong) is None
    assert cookies.csrf_token_of(known) == Cookies(b"a" * 32).csrf_token_of(known)
    assert cookies.csrf_token_of(known) not in (others.csrf_token_of(known), cookies.csrf_token_of(bytes(32)))


def test_which_pages_may_use_a_cookie() -> None:
    origins = Origins(frozenset(("https://h5.example.org",)))
    host = {"Host": "hospital.example"}
    for headers, is_ours in (
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://hospital.example"}, True),
        ({"Origin": "https://h5.example.org", "Sec-Fetch-Site": "cross-site"}, True),  # named by the hospital
        ({"Origin": "https://www.hospital.example", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "null"}, False),
    ):
        assert origins.is_of_ours({**host, **headers}) is is_ours, headers
        assert origins.is_page_of_ours({**host, **headers}) is (is_ours and "Origin" in headers), headers
