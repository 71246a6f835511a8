"""What every answer tells a browser not to do with it.

JSON is for programs: no browser shall render it, frame it, guess its type, or let another site's page read
it.
A page brings its own, wider Content-Security-Policy; what an answer says itself is left as it is.
"""

from typing import Final

from aiohttp import hdrs, web

SERVER: Final = "xinglin"  # without versions
POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of a page of ours: all from here, nothing inline."""

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}
LINES: Final = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
"""The same for an answer that is written by hand."""

HSTS: Final = "max-age=31536000"  # a year; only over TLS of our own: before us, nginx says it
_SWITCHING: Final = 101
_DEFAULTS: Final = tuple(HEADERS.items())


async def secure(request: web.Request, response: web.StreamResponse) -> None:
    """The application's on_response_prepare: just before the head is sent."""
    dress(response)
    if hdrs.UPGRADE in request.headers and response.status != _SWITCHING:
        # What follows an upgrade that we do not make may be bytes of that other protocol, and is never read
        # as another request.
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
    if request.secure:
        response.headers.setdefault("Strict-Transport-Security", HSTS)


def dress(response: web.StreamResponse) -> None:
    """Adds what is missing. An answer that may not be asked about again may not be kept either."""
    headers = response.headers
    for name, value in _DEFAULTS:
        headers.setdefault(name, value)
    headers[hdrs.SERVER] = SERVER
    if hdrs.CACHE_CONTROL not in headers and hdrs.ETAG not in headers:
        headers[hdrs.CACHE_CONTROL] = "no-store"
