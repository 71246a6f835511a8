"""Where webhooks may go: never to ourselves, nor to anything else that only this network reaches.

Whoever registers an address chooses where our servers connect to. So names are looked up by us, each address
that is found is judged, and the connection is made to that very address: a name that means another one a
moment later gains nothing. Redirects are not followed (client.py).
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

ADDRESS_CHARS_MAX: Final = 2_048
_NAT64: Final = ip_network("64:ff9b::/96")
_DIGITS: Final = re.compile(r"[0-9.xXa-fA-F]+|0[xX].*")

Network = IPv4Network | IPv6Network


class AddressRefused(Exception):
    """`why`: spelling | scheme | user | fragment | host | private."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class NotAllowed(OSError):
    """A name that means an address of this network."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator lets webhooks reach besides the open internet."""

    networks: tuple[Network, ...] = ()
    plain_loopback: bool = False
    """http:// to this machine, for trying it out."""

    def judges(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether a connection may be made there."""
        if isinstance(address, IPv6Address):
            # An IPv4 address in another coat is judged as what it is.
            inner = address.ipv4_mapped or address.sixtofour
            if inner is None and address in _NAT64:
                inner = IPv4Address(int(address) & 0xFFFFFFFF)
            if inner is None and address.teredo is not None:
                inner = address.teredo[1]
            if inner is not None:
                return self.judges(inner)
            if address.scope_id is not None:
                return False
        if any(address.version == network.version and address in network for network in self.networks):
            return True
        if self.plain_loopback and address.is_loopback:
            return True
        return address.is_global and not address.is_multicast


def networks_of(spelled: str) -> tuple[Network, ...]:
    """CIDRs between commas. Raises ValueError."""
    return tuple(ip_network(one.strip()) for one in spelled.split(",") if one.strip())


def checked(address: str, allowed: Allowed) -> URL:
    """An address that may be kept. What its name means is judged with each connection. Raises
    AddressRefused."""
    if (
        len(address) > ADDRESS_CHARS_MAX
        or not address.isascii()
        or not address.isprintable()
        or " " in address
    ):
        raise AddressRefused("spelling")
    try:
        url = URL(address)
        host, port = url.host, url.port
    except ValueError:
        raise AddressRefused("spelling") from None
    if not host or port == 0:
        raise AddressRefused("host")
    if url.user is not None or url.password is not None:
        raise AddressRefused("user")
    if url.raw_fragment:
        raise AddressRefused("fragment")
    literal = _literal(host)
    is_loopback = host == "localhost" or (literal is not None and literal.is_loopback)
    if url.scheme != "https" and not (url.scheme == "http" and allowed.plain_loopback and is_loopback):
        raise AddressRefused("scheme")
    if literal is not None and not allowed.judges(literal):
        raise AddressRefused("private")
    if literal is None and _is_odd(host):
        raise AddressRefused("host")
    if literal is None and is_loopback and not allowed.judges(ip_address("127.0.0.1")):
        raise AddressRefused("private")
    return url


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_odd(host: str) -> bool:
    """Numbers that some resolvers take for an address: 2130706433, 0x7f.1, 127.1; and names without a dot."""
    last = host.rstrip(".").rpartition(".")[2]
    return bool(_DIGITS.fullmatch(host) and not any("g" <= c <= "z" for c in last)) or (
        "." not in host.rstrip(".") and host != "localhost"
    )


class JudgingResolver(AbstractResolver):
    """Gives only addresses that may be connected to; none left is a failure."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family
        )
        fit = self.fit([str(one[4][0]) for one in found])
        if not fit:
            raise NotAllowed(f"{len(found)} addresses, none that webhooks may reach")
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in fit
        ]

    def fit(self, found: Sequence[str]) -> list[str]:
        """All of them or none: a name that means both a public address and one of ours is a trap."""
        unique = list(dict.fromkeys(found))
        return unique if all(self._allowed.judges(ip_address(one)) for one in unique) else []

    async def close(self) -> None:
        """There is nothing to close."""
