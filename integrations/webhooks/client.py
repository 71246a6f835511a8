"""Sends one message to one address, once, and says what became of it.

It raises nothing: each try is written down whatever happened, so a failure is an answer as well (`Sent`). Of
what they answer only the status is looked at, and whether it says when to come again. Nothing is followed.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from integrations.webhooks.addresses import AddressRefused, Allowed, JudgingResolver, NotAllowed, checked
from integrations.webhooks.signing import headers_of

SECONDS_MAX: Final = 10.0
CONNECT_SECONDS_MAX: Final = 5.0
AFTER_SECONDS_MAX: Final = 3_600.0
CONNECTIONS_EACH_MAX: Final = 8
HEAD_BYTES_MAX: Final = 8_190


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    secrets: Sequence[str] = field(repr=False)  # the newest first


@dataclass(frozen=True, slots=True)
class Sent:
    """`trouble`: "" delivered; else status, timeout, connection, tls, private (a name that means an address
    of this network) or address (it is not fit any more)."""

    status: int | None
    ms: int
    trouble: str = ""
    after: float | None = None  # seconds they asked us to wait

    @property
    def is_delivered(self) -> bool:
        return not self.trouble

    @property
    def is_refused(self) -> bool:
        """They answered, and do not want this very message; others may well get through."""
        return (
            self.status is not None and 400 <= self.status < 500 and self.status not in (408, 410, 425, 429)
        )

    @property
    def is_gone(self) -> bool:
        """They never want to hear from us again."""
        return self.status == 410


class Sender:
    """One session for all addresses; `close` it."""

    def __init__(
        self,
        allowed: Allowed,
        seconds_max: float = SECONDS_MAX,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=JudgingResolver(allowed),
                use_dns_cache=False,  # what was judged is what is connected to, each time
                limit=0,  # each webhook has a limit of its own
                limit_per_host=CONNECTIONS_EACH_MAX,
                ssl=True if tls is None else tls,
            ),
            timeout=aiohttp.ClientTimeout(total=seconds_max, sock_connect=CONNECT_SECONDS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        )

    async def send(self, endpoint: Endpoint, id_: str, content_type: str, body: bytes) -> Sent:
        began = time.monotonic()

        def so(status: int | None, trouble: str = "", after: float | None = None) -> Sent:
            return Sent(status, int((time.monotonic() - began) * 1000), trouble, after)

        try:
            url = checked(endpoint.address, self._allowed)
        except AddressRefused:  # the operator may have closed a network since it was registered
            return so(None, "address")
        headers = {
            **headers_of(endpoint.secrets, id_, int(self._clock()), body),
            "Content-Type": content_type,
            "User-Agent": "Xinglin-Webhooks/1",
        }
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
                if 200 <= status < 300:
                    return so(status)
                return so(status, "status", _after(response.headers.get("Retry-After")))
        except TimeoutError:
            return so(None, "timeout")
        except aiohttp.ClientSSLError:
            return so(None, "tls")
        except aiohttp.ClientConnectorError as error:
            return so(None, "private" if isinstance(error.os_error, NotAllowed) else "connection")
        except (aiohttp.ClientError, OSError, ValueError):
            return so(None, "connection")

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0)


def _after(said: str | None) -> float | None:
    if said is None or not (said.isascii() and said.isdigit()):
        return None
    return min(float(said), AFTER_SECONDS_MAX)
