"""Signatures of webhooks, and where webhooks may not go."""

import base64
import socket
from ipaddress import ip_address, ip_network

import pytest

from integrations.webhooks import signing
from integrations.webhooks.addresses import (
    AddressRefused,
    Allowed,
    JudgingResolver,
    NotAllowed,
    checked,
    networks_of,
)

INTERNET = Allowed()


def test_the_vector_that_standard_webhooks_publishes() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signing.signature_of(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_believes_what_is_whole_of_now_and_by_either_secret() -> None:
    new, old, other = signing.new_secret(), signing.new_secret(), signing.new_secret()
    headers = signing.headers_of([new, old], "0-1", 1000, b"body")
    assert signing.is_ours(new, headers, b"body", 1000)
    assert signing.is_ours(old, headers, b"body", 1000 + signing.FAR_SECONDS_MAX)
    assert not signing.is_ours(other, headers, b"body", 1000)
    assert not signing.is_ours(new, headers, b"bodY", 1000)
    assert not signing.is_ours(new, {**headers, signing.ID: "0-2"}, b"body", 1000)
    assert not signing.is_ours(new, {**headers, signing.TIMESTAMP: "1001"}, b"body", 1000)
    assert not signing.is_ours(new, headers, b"body", 1001 + signing.FAR_SECONDS_MAX)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://example.com/hook", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("https://user:pass@example.com/", "user"),
        ("https://example.com/#there", "fragment"),
        ("https:///nobody", "host"),
        ("https://localhost/", "private"),
        ("https://127.0.0.1/", "private"),
        ("https://127.0.0.1:8443/", "private"),
        ("https://10.1.2.3/", "private"),
        ("https://172.16.0.1/", "private"),
        ("https://192.168.1.1/", "private"),
        ("https://169.254.169.254/latest", "private"),
        ("https://100.64.0.1/", "private"),
        ("https://0.0.0.0/", "private"),
        ("https://224.0.0.1/", "private"),
        ("https://255.255.255.255/", "private"),
        ("https://[::1]/", "private"),
        ("https://[::]/", "private"),
        ("https://[fe80::1]/", "private"),
        ("https://[fd00::1]/", "private"),
        ("https://[ff02::1]/", "private"),
        ("https://[::ffff:127.0.0.1]/", "private"),
        ("https://[64:ff9b::7f00:1]/", "private"),
        ("https://[2002:7f00:1::]/", "private"),
        ("https://2130706433/", "host"),
        ("https://0x7f000001/", "host"),
        ("https://127.1/", "host"),
        ("https://intranet/", "host"),
        ("https://example.com/a b", "spelling"),
        ("https://例子.cn/", "spelling"),
        ("https://example.com:0/", "host"),
        ("https://example.com:99999/", "spelling"),
        ("https://example.com/\r\nX: y", "spelling"),
        ("nonsense", "host"),
        ("https://example.com/" + "a" * 3_000, "spelling"),
    ],
)
def test_addresses_that_are_refused(address: str, why: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        checked(address, INTERNET)
    assert refused.value.why == why


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/hook?token=1",
        "https://93.184.216.34:8443/",
        "https://xn--fsqu00a.cn/",
        "https://[2606:2800:220:1::]/",
    ],
)
def test_addresses_of_the_internet(address: str) -> None:
    assert str(checked(address, INTERNET)) == address


def test_the_operator_may_open_a_network_and_a_demo_this_machine() -> None:
    allowed = Allowed(networks_of("10.0.0.0/8, fd00::/8"))
    checked("https://10.1.2.3/", allowed)
    checked("https://[fd00::1]/", allowed)
    with pytest.raises(AddressRefused):
        checked("http://10.1.2.3/", allowed)
    with pytest.raises(AddressRefused):
        checked("https://192.168.1.1/", allowed)
    demo = Allowed(plain_loopback=True)
    checked("http://127.0.0.1:9000/hook", demo)
    checked("http://localhost:9000/hook", demo)
    with pytest.raises(AddressRefused):
        checked("http://example.com/", demo)
    assert not demo.judges(ip_address("10.1.2.3"))
    assert ip_network("10.0.0.0/8") in allowed.networks


async def test_a_name_is_judged_by_what_it_means() -> None:
    with pytest.raises(NotAllowed):
        await JudgingResolver(INTERNET).resolve("localhost", 443, socket.AF_UNSPEC)
    found = await JudgingResolver(Allowed(plain_loopback=True)).resolve("localhost", 443, socket.AF_UNSPEC)
    assert {one["host"] for one in found} <= {"127.0.0.1", "::1"}


def test_one_private_address_among_others_spoils_the_name() -> None:
    """Else whoever is asked twice could be sent to either."""
    resolver = JudgingResolver(INTERNET)
    assert resolver.fit(["93.184.216.34"]) == ["93.184.216.34"]
    assert resolver.fit(["93.184.216.34", "10.0.0.1"]) == []
