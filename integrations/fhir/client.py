"""Speaks FHIR R4 (JSON) with one server.

    client = FhirClient(session, Server("https://his.example/fhir", token="…"))
    await client.search("Appointment", {"identifier": "urn:xinglin:appointment|…"})     # resources, all pages
    await client.create(resource, if_none_exist="identifier=…|…")     # the one that is there, old or new
    await client.update(resource)                                     # only if it is still of that version

    a question that brings no answer to believe           TryAgain
    a change, unless nothing can have got there
      (no connection) or they are busy (429, 503)         OutcomeUnknown: conditional, so it may be sent again
    412, 409                                              Refused("conflict"): somebody was faster
    another 4xx                                           Refused, with the code of their OperationOutcome

What was asked for by a number of a person goes in a body (POST _search) and not in an address. One host: no
redirect is followed, and of the addresses in a Bundle only the query of the next page is used.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import orjson
from aiohttp import encode_basic_auth
from yarl import URL

from integrations.connector import OutcomeUnknown, Refused, TryAgain

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
PAGES_MAX: Final = 100
AFTER_SECONDS_MAX: Final = 3_600.0
MEDIA_TYPE: Final = "application/fhir+json"
RESOURCE_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
CONFLICT: Final = "conflict"
_CODE: Final = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)

Resource = dict[str, Any]
_Unknown = type[TryAgain] | type[OutcomeUnknown]


@dataclass(frozen=True, slots=True)
class Server:
    address: str  # its base, https://…/fhir
    token: str = field(default="", repr=False)  # bearer
    seconds_max: float = 5.0
    username: str = ""  # with a password, where there is no token
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    resources: list[Resource]
    following: str  # the query of the next, "" at the end


class FhirClient:
    """The session is its owner's to close."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session = session
        self._server = server
        self._base = server.address.rstrip("/")

    async def read(self, type_: str, id_: str) -> Resource | None:
        """None: there is none, or no more. Raises TryAgain, Refused."""
        try:
            answer = await self._exchange("GET", f"/{type_}/{_checked(id_)}", TryAgain)
            return _resource(answer, type_, TryAgain)
        except Refused as refused:
            if refused.code in ("not-found", "deleted"):
                return None
            raise

    async def search(
        self,
        type_: str,
        parameters: Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        is_private: bool = False,
    ) -> list[Resource]:
        """Of that type alone, of all pages. A parameter given twice means both. `is_private`: no parameter
        in an address. Raises TryAgain, Refused."""
        found: list[Resource] = []
        following = ""
        for _ in range(PAGES_MAX):
            page = await self.page(type_, parameters, following, is_private=is_private)
            found += page.resources
            following = page.following
            if not following:
                return found
        raise TryAgain("FHIR: an answer without end")

    async def page(
        self,
        type_: str,
        parameters: Mapping[str, str] | Sequence[tuple[str, str]],
        following: str = "",
        *,
        is_private: bool = False,
    ) -> Page:
        """One page of a search: the first, or the one that `following` is. Raises TryAgain, Refused."""
        query = following or urlencode(parameters)
        if is_private and not following:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await self._exchange("POST", f"/{type_}/_search", TryAgain, query.encode(), form)
        else:
            answer = await self._exchange("GET", f"/{type_}?{query}" if query else f"/{type_}", TryAgain)
        if answer.get("resourceType") != "Bundle":
            raise TryAgain("FHIR: no Bundle")
        return Page([one for one in _entries(answer) if one.get("resourceType") == type_], _next(answer))

    async def create(self, resource: Resource, *, if_none_exist: str = "") -> Resource:
        """Raises TryAgain, Refused, OutcomeUnknown."""
        type_ = resource["resourceType"]
        headers = {"If-None-Exist": if_none_exist} if if_none_exist else {}
        answer = await self._exchange("POST", f"/{type_}", OutcomeUnknown, orjson.dumps(resource), headers)
        return _resource(answer, type_)

    async def update(self, resource: Resource) -> Resource:
        """Of the version that it was read at: Refused("conflict") where it is another one by now."""
        type_, version = resource["resourceType"], _version(resource)
        headers = {"If-Match": f'W/"{version}"'} if version else {}
        path = f"/{type_}/{_checked(resource['id'])}"
        answer = await self._exchange("PUT", path, OutcomeUnknown, orjson.dumps(resource), headers)
        return _resource(answer, type_)

    async def transact(self, entries: list[Resource]) -> list[Resource]:
        """All or nothing; each an entry of a transaction Bundle. Raises TryAgain, Refused, OutcomeUnknown."""
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = await self._exchange("POST", "", OutcomeUnknown, orjson.dumps(bundle))
        if answer.get("resourceType") != "Bundle":
            raise OutcomeUnknown("FHIR: no Bundle")
        return list(_entries(answer))

    async def _exchange(
        self,
        method: str,
        path: str,
        unknown: _Unknown,
        body: bytes = b"",
        more: Mapping[str, str] | None = None,
    ) -> Resource:
        try:
            status, headers, raw = await self._send(method, path, body, more or {})
        except OutcomeUnknown as error:
            raise unknown(str(error)) from None
        if status in (429, 503):
            raise TryAgain(f"FHIR: status {status}", _seconds(headers.get("Retry-After")))
        answer: object = None
        if raw:
            try:
                answer = orjson.loads(raw)
            except orjson.JSONDecodeError:
                answer = None
        if status in (200, 201) and isinstance(answer, dict):
            return answer
        if status in (409, 412):
            raise Refused(CONFLICT, "FHIR")
        if status in (404, 410):
            raise Refused("not-found", "FHIR")
        if status in (401, 403):
            raise Refused("forbidden", "FHIR")
        if 400 <= status < 500:
            raise Refused(_issue(answer) or f"status-{status}", "FHIR")
        raise unknown(f"FHIR: status {status}")

    async def _send(
        self, method: str, path: str, body: bytes, more: Mapping[str, str]
    ) -> tuple[int, Any, bytes]:
        headers = {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"}
        if body:
            headers["Content-Type"] = MEDIA_TYPE
            headers["Prefer"] = "return=representation"
        if self._server.token:
            headers["Authorization"] = f"Bearer {self._server.token}"
        elif self._server.username:
            headers["Authorization"] = encode_basic_auth(self._server.username, self._server.password)
        # `from None`, and no words of theirs: what fails ends in logs, and must name nobody.
        try:
            async with self._session.request(
                method,
                URL(self._base + path, encoded=True),
                data=body or None,
                headers={**headers, **more},
                timeout=aiohttp.ClientTimeout(total=self._server.seconds_max),
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await _whole(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryAgain(f"FHIR: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"FHIR: {type(error).__name__}") from None


def _next(bundle: Resource) -> str:
    """The query of the next page, wherever it says that this is."""
    for link in bundle.get("link") or ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            try:
                return urlencode(parse_qsl(urlsplit(link["url"]).query, keep_blank_values=True))
            except ValueError:
                raise TryAgain("FHIR: a link that is none") from None
    return ""


def _entries(bundle: Resource) -> Iterator[Resource]:
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict):
            yield resource


def _resource(answer: Resource, type_: str, unknown: _Unknown = OutcomeUnknown) -> Resource:
    if answer.get("resourceType") != type_ or not isinstance(answer.get("id"), str):
        raise unknown("FHIR: another resource than was asked for")
    return answer


def _version(resource: Resource) -> str:
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return version if isinstance(version, str) and RESOURCE_ID.fullmatch(version) else ""


def _checked(id_: str) -> str:
    if RESOURCE_ID.fullmatch(id_) is None or not id_.strip("."):
        raise Refused("bad-id", "FHIR")
    return id_


def _issue(outcome: object) -> str:
    """The code of an OperationOutcome's first issue; never its text, which may name somebody."""
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    first = issues[0] if isinstance(issues, list) and issues else None
    code = first.get("code") if isinstance(first, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > ANSWER_BYTES_MAX:
            raise OutcomeUnknown("FHIR: an answer that is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
