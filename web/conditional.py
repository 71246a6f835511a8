"""Answers that a client may keep and ask about again (RFC 9110, section 13): 304 says that they still hold.

A tag is a digest of the very bytes of the answer, so it means the same at every gateway, and two answers that
differ in a byte never share one.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from aiohttp import ETag, hdrs, web

_DIGEST_BYTES: Final = 16
_ANY: Final = "*"
# Nobody's own, so any cache on the way may keep it, but must ask before it is shown again: seats go fast.
_CACHE_CONTROL: Final = "public, no-cache"
PRIVATE: Final = "private, no-cache"
"""Of what is somebody's own: his own program may keep it, nobody on the way."""


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def etag_of(digests: Iterable[bytes]) -> str:
    """Of an answer that is made of parts, from the digest of each."""
    return f'"{digest(b"".join(digests)).hex()}"'


def unchanged(request: web.Request, etag: str, cache_control: str = _CACHE_CONTROL) -> web.Response | None:
    """304, when the client has just this already."""
    given = request.headers.get(hdrs.IF_NONE_MATCH)
    if given is None:
        return None
    if given != etag:
        # A cache on the way may have made it weak, or ask about several.
        tags: tuple[ETag, ...] = request.if_none_match or ()
        if not any(tag.value in (_ANY, etag.strip('"')) for tag in tags):
            return None
    return web.Response(status=304, headers={hdrs.ETAG: etag, hdrs.CACHE_CONTROL: cache_control})


def whole(etag: str, body: bytes, cache_control: str = _CACHE_CONTROL) -> web.Response:
    headers = {
        hdrs.CONTENT_TYPE: "application/json",
        hdrs.ETAG: etag,
        hdrs.CACHE_CONTROL: cache_control,
    }
    return web.Response(body=body, headers=headers)
