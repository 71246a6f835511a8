"""Whose request it is: only what trusted proxies wrote counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.client_address import Client, Proxies, networks_of

PROXIES = Proxies(networks_of("127.0.0.1, ::1,10.0.0.0/8"))


def seen(peer: str, *forwarded: str) -> str:
    return PROXIES.client_of(peer, forwarded).address


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", (), "203.0.113.7"),
        ("203.0.113.7", ("198.51.100.1",), "203.0.113.7"),  # who is no proxy says nothing of others
        ("127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),  # the left is the client's own word
        ("127.0.0.1", ("1.2.3.4", "198.51.100.1"), "198.51.100.1"),  # several headers are one list
        ("127.0.0.1", ("1.2.3.4, 198.51.100.1, 10.9.9.9",), "198.51.100.1"),  # two proxies in a row
        ("127.0.0.1", ("1.2.3.4, 127.0.0.1, 198.51.100.1, 10.9.9.9",), "198.51.100.1"),
        ("127.0.0.1", ("10.1.1.1, 10.9.9.9",), "10.1.1.1"),  # nobody but proxies
        ("127.0.0.1", ("1.2.3.4, rubbish, 10.9.9.9",), "10.9.9.9"),  # nothing behind rubbish is believed
        ("127.0.0.1", ("",), "127.0.0.1"),
        ("127.0.0.1", ("unknown",), "127.0.0.1"),
        ("127.0.0.1", ("198.51.100.1:5123",), "198.51.100.1"),
        ("127.0.0.1", ("[2001:db8::1]:5123",), "2001:db8::1"),
        ("::1", ("::ffff:198.51.100.1",), "198.51.100.1"),
        ("::ffff:127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("", ("198.51.100.1",), ""),  # a Unix socket has no address
        ("127.0.0.1", ("1.2.3.4," * 1_000 + "198.51.100.1",), "198.51.100.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_whom_we_do_not_trust(
    peer: str, forwarded: tuple[str, ...], address: str
) -> None:
    assert seen(peer, *forwarded) == address


PUBLIC = st.ip_addresses(v=4, network="203.0.113.0/24").map(str)
WORDS = st.one_of(
    st.text(max_size=20),
    st.ip_addresses().map(str),
    st.sampled_from(["127.0.0.1", "10.1.2.3", ",", ", ,", ":"]),
)


@given(PUBLIC, st.lists(WORDS, max_size=6))
def test_whatever_a_client_writes_ahead_changes_nothing(client: str, lies: list[str]) -> None:
    """nginx that appends, and the same lies straight to a gateway."""
    assert seen("127.0.0.1", ", ".join([*lies, client])) == client
    assert seen("127.0.0.1", *lies, client) == client
    assert seen(client, *lies) == client


@given(st.text(max_size=50), st.lists(st.text(max_size=50), max_size=4))
def test_no_bytes_break_it(peer: str, forwarded: list[str]) -> None:
    assert isinstance(PROXIES.client_of(peer, forwarded), Client)


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),  # one household has 2^64 addresses
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),  # the machine itself: health checks
        ("10.2.3.4", None),
    ],
)
def test_what_counts_as_one_client(address: str, counted_as: str | None) -> None:
    assert PROXIES.client_of(address, ()).counted_as == counted_as


def test_without_proxies_nobody_is_believed() -> None:
    assert Proxies(networks_of("")).client_of("127.0.0.1", ("1.2.3.4",)) == Client("127.0.0.1", "127.0.0.1")


def test_a_wrong_list_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/40"):
        networks_of("127.0.0.1, 10.0.0.0/40")
