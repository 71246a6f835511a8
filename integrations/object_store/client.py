"""Objects of one bucket: put, get, list, delete. Path-style addresses, which every S3 speaks.

Requests are signed with their body's hash, so the store refuses what was changed on the way. Putting is
repeatable (the same name gets the same bytes), so no outcome is unknown: a broken line is TryAgain.
"""

import asyncio
import xml.etree.ElementTree as ElementTree  # nosec B405  # see _parsed
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp
from yarl import URL

from integrations.connector import Refused, TryAgain
from integrations.object_store.signing import Credentials, query_text, quoted, signed

SECONDS_MAX: Final = 60.0
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.5
OBJECT_BYTES_MAX: Final = 256 * 1024 * 1024
LIST_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    endpoint: str  # https://…, no path
    name: str


class ObjectStore:
    """The session is its owner's to close. All raise Refused, or after some tries TryAgain."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        bucket: Bucket,
        credentials: Credentials,
        now: Callable[[], datetime],
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._session = session
        self._bucket = bucket
        self._credentials = credentials
        self._now = now
        self._pause = pause_seconds
        self._host = URL(bucket.endpoint).authority
        self._timeout = aiohttp.ClientTimeout(total=SECONDS_MAX)

    async def put(self, name: str, data: bytes) -> None:
        await self._ask("PUT", name, {}, data)

    async def get(self, name: str) -> bytes:
        """Refused with the code NoSuchKey where there is none."""
        return await self._ask("GET", name, {}, b"")

    async def delete(self, name: str) -> None:
        """Gone already is fine."""
        await self._ask("DELETE", name, {}, b"")

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """In the order of UTF-8, however many pages it takes."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = _parsed(await self._ask("GET", "", query, b""))
            for key in page.iterfind("Contents/Key"):
                yield key.text or ""
            token = page.findtext("NextContinuationToken")
            if page.findtext("IsTruncated") != "true" or not token:
                return
            query = {**query, "continuation-token": token}

    async def _ask(self, method: str, name: str, query: Mapping[str, str], body: bytes) -> bytes:
        for left in reversed(range(TRIES)):
            try:
                return await self._once(method, name, query, body)
            except TryAgain as again:
                if not left:
                    raise
                await asyncio.sleep(self._pause if again.after is None else min(again.after, SECONDS_MAX))
        raise AssertionError("unreachable")

    async def _once(self, method: str, name: str, query: Mapping[str, str], body: bytes) -> bytes:
        path = f"/{self._bucket.name}/{name}" if name else f"/{self._bucket.name}"
        headers = signed(self._credentials, method, path, query, {"host": self._host}, body, self._now())
        text = query_text(query)
        url = URL(
            f"{self._bucket.endpoint.rstrip('/')}{quoted(path)}{'?' + text if text else ''}", encoded=True
        )
        try:
            async with self._session.request(
                method,
                url,
                data=body if method == "PUT" else None,
                headers=headers,
                skip_auto_headers=("Content-Type", "User-Agent", "Accept-Encoding"),
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                limit = OBJECT_BYTES_MAX if name else LIST_BYTES_MAX
                content = (
                    await response.content.read(limit) if method != "GET" else await _whole(response, limit)
                )
                status = response.status
                after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TryAgain(f"object store: {type(error).__name__}") from None
        if 200 <= status < 300:
            return content
        code = _code(content) or f"status_{status}"
        if status == 404 and method == "DELETE":
            return b""
        if status >= 500 or status in (408, 429) or code in ("SlowDown", "RequestTimeout"):
            raise TryAgain(f"object store: {code}", float(after) if after.isdecimal() else None)
        raise Refused(code, "object store")


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, which must be as long as was said; aiohttp tells when the line breaks before."""
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 20):
        have += len(piece)
        if have > limit:
            raise Refused("too_large", "object store")
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(content: bytes) -> ElementTree.Element:
    """XML of theirs without its namespace, which stores do not agree on."""
    if (
        b"<!DOCTYPE" in content or b"<!ENTITY" in content
    ):  # nothing of theirs has one, and parsers can be bent by it
        raise Refused("bad_xml", "object store")
    try:
        root = ElementTree.fromstring(content)  # nosec B314  # no DTD gets here
    except ElementTree.ParseError:
        raise TryAgain("object store: an answer that is no XML") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _code(content: bytes) -> str:
    """Their word for why, of an error's body; '' where there is none."""
    try:
        return _parsed(content).findtext("Code") or ""
    except (Refused, TryAgain):
        return ""
