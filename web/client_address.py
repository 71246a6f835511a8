"""Whose request it is: the address of the client, also where proxies stand before us.

A proxy says in X-Forwarded-For who asked it. Anybody can write that header, so it counts only as far as it
was written by proxies that we trust: we begin with whoever holds the connection and walk the header from its
right end, from trusted proxy to trusted proxy, to the first address that is not one of them. What stands
further left is the client's own word and changes nothing. `Forwarded` (RFC 7239) and X-Real-IP are not read.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from web import keys

_REMEMBERED_MAX: Final = 8_192
_REMEMBERED_CHARS_MAX: Final = 256  # a longer header is read each time: nobody fills our memory with it
_HOPS_MAX: Final = 32
_IPV6_PREFIX: Final = 64  # what one household or machine is given, so what counts as one client

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Client(NamedTuple):
    address: str
    """As text; empty where there is none, as on a Unix socket."""
    counted_as: str | None
    """What rate limits count: the address, or the /64 that an IPv6 address lies in. None for the trusted
    machines themselves: their own requests are health checks, and what we start beside us."""


def networks_of(listed: str) -> tuple[Network, ...]:
    """Of addresses and CIDRs between commas. Raises ValueError that names the one which is none."""
    found = []
    for part in listed.split(","):
        if part.strip():
            found.append(ip_network(part.strip()))
    return tuple(found)


class Proxies:
    """The machines whose X-Forwarded-For is believed."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)
        self._is_proxy = lru_cache(_REMEMBERED_MAX)(self._trusts)
        self._remembered = lru_cache(_REMEMBERED_MAX)(self._client)

    def client_of(self, peer: str, forwarded: Sequence[str]) -> Client:
        """`peer` holds the connection; `forwarded` are the X-Forwarded-For headers in their order."""
        if not forwarded or not self._is_proxy(peer):
            return self._remembered(peer, "")
        told = forwarded[0] if len(forwarded) == 1 else ",".join(forwarded)
        if len(told) > _REMEMBERED_CHARS_MAX:
            return self._client(peer, told)
        return self._remembered(peer, told)

    def _client(self, peer: str, told: str) -> Client:
        at = _address_of(peer)
        if at is None:
            return Client("", None)
        for said in reversed(told.rsplit(",", _HOPS_MAX)):
            if not self._holds(at):
                break
            before = _address_of(said)
            if before is None:  # nothing can be believed that stands left of nonsense
                break
            at = before
        return Client(str(at), None if self._holds(at) else _counted_as(at))

    def _trusts(self, peer: str) -> bool:
        at = _address_of(peer)
        return at is not None and self._holds(at)

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def client_of(request: web.Request) -> Client:
    """Who sent this."""
    return request.app[keys.PROXIES].client_of(
        request.remote or "", request.headers.getall(hdrs.X_FORWARDED_FOR, ())
    )


def _address_of(said: str) -> Address | None:
    """An address as proxies write it: some add the port, some put IPv6 into brackets."""
    text = said.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _counted_as(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    bare = IPv6Address(address.packed)  # without its zone
    return str(IPv6Network((bare, _IPV6_PREFIX), strict=False))
