"""How the FHIR face answers: one resource with its version, or a Bundle in pages."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import orjson
from aiohttp import ETag, hdrs, web
from yarl import URL

from web.errors import Problem
from web.faults import Fault
from web.partner.fhir.asking import Search, base_of
from web.partner.fhir.names import MEDIA
from web.partner.fhir.resources import Json, bundle

T = TypeVar("T")
_HEADERS: Final = {hdrs.CONTENT_TYPE: f"{MEDIA}; charset=utf-8", hdrs.CACHE_CONTROL: "private, no-cache"}


def told(request: web.Request, resource: Json, status: int = 200) -> web.Response:
    """One resource. 304 where the client has just this version already."""
    headers = dict(_HEADERS)
    version = resource.get("meta", {}).get("versionId")
    if version is not None:
        headers[hdrs.ETAG] = f'W/"{version}"'
        tags: tuple[ETag, ...] = request.if_none_match or ()
        if request.method == "GET" and any(tag.value in ("*", version) for tag in tags):
            return web.Response(status=304, headers=headers)
    if status == 201:
        headers[hdrs.LOCATION] = f"{base_of(request)}/{resource['resourceType']}/{resource['id']}"
    return web.Response(body=orjson.dumps(resource), status=status, headers=headers)


def check_version(request: web.Request, version: str) -> None:
    """Raises Problem version_stale where the client says with If-Match that it knows another one."""
    tags: tuple[ETag, ...] = request.if_match or ()
    if tags and not any(tag.value in ("*", version) for tag in tags):
        raise Problem(Fault.VERSION_STALE)


def told_all(request: web.Request, kind: str, resources: Iterable[Json], status: int = 200) -> web.Response:
    """A Bundle that is no search."""
    return web.Response(
        body=orjson.dumps(bundle(kind, base_of(request), resources)), status=status, headers=_HEADERS
    )


def told_page(
    request: web.Request, search: Search, resources: Sequence[Json], total: int, path: str
) -> web.Response:
    """One page of a search. Links say only what was understood, and of people nothing that came in a form."""
    base = base_of(request)
    links = {"self": _link(request, search, f"{base}/{path}", search.offset)}
    following = search.offset + len(resources)
    if resources and following < total:
        links["next"] = _link(request, search, f"{base}/{path}", following)
    if search.offset:
        before = max(0, search.offset - max(1, search.count))
        links["previous"] = _link(request, search, f"{base}/{path}", before)
    return web.Response(
        body=orjson.dumps(bundle("searchset", base, resources, total, links)), headers=_HEADERS
    )


def page_of(search: Search, found: Sequence[T], make: Callable[[T], Any]) -> list[Any]:
    """Made only of what is on the page."""
    return [make(one) for one in found[search.offset : search.offset + search.count]]


def _link(request: web.Request, search: Search, address: str, offset: int) -> str:
    pairs = [
        (name, value)
        for name, said in search.values.items()
        if name not in ("_offset", "_count") and (name in request.query or not address.endswith("/Patient"))
        for value in said
    ]
    pairs.append(("_count", str(search.count)))
    if offset:
        pairs.append(("_offset", str(offset)))
    return str(URL(address).with_query(pairs))
