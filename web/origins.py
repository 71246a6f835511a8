"""Which sites' pages may ask here: our own, and those that the hospital names.

Our tokens travel in a header that no other site's page can set, so it could do no harm with them. Cookies
of the staff travel by themselves: for them this is the second wall (web/sessions/cookies.py). Programs that
are no browser send none of these headers, and are not concerned.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from web import keys
from web.errors import Problem
from web.faults import Fault

_SITE: Final = "Sec-Fetch-Site"
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))


def origins_of(listed: str) -> frozenset[str]:
    return frozenset(part.strip().rstrip("/").lower() for part in listed.split(",") if part.strip())


class Origins:
    """`others` are origins as browsers spell them: https://h5.example.org, the port where unusual."""

    def __init__(self, others: frozenset[str]) -> None:
        self._others = others

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Problem foreign_origin for a foreign page that opens a WebSocket or changes something."""
        is_foreign_write = method not in _SAFE and headers.get(_SITE) == "cross-site"
        # Browsers do not hold WebSockets to one origin: whom we answer is ours to say.
        if (is_foreign_write or hdrs.UPGRADE in headers) and not self._is_ours(headers):
            raise Problem(Fault.FOREIGN_ORIGIN)

    def is_of_ours(self, headers: Mapping[str, str]) -> bool:
        """Whether this comes from a page of ours, or from no browser: for what a cookie opens."""
        origin = headers.get(hdrs.ORIGIN)
        if origin is None:
            return headers.get(_SITE) in (None, "same-origin")
        return self._is_ours(headers)

    def is_page_of_ours(self, headers: Mapping[str, str]) -> bool:
        """The same, and a browser that says so: for WebSockets, which browsers hold to no origin."""
        return hdrs.ORIGIN in headers and self._is_ours(headers)

    def _is_ours(self, headers: Mapping[str, str]) -> bool:
        origin = headers.get(hdrs.ORIGIN)
        if origin is None:
            return headers.get(_SITE) != "cross-site"
        origin = origin.lower()
        return origin.partition("://")[2] == headers.get(hdrs.HOST, "").lower() or origin in self._others


@web.middleware
async def from_ours(request: web.Request, handler: Handler) -> web.StreamResponse:
    request.app[keys.ORIGINS].check(request.method, request.headers)
    return await handler(request)
