"""Asks a picture archive over DICOMweb (PS3.18): QIDO-RS, WADO-RS, rendered frames.

    pacs = PacsClient(session, PacsAt("https://pacs.example/dicom-web", zone, "xinglin", password))
    await pacs.studies(patient_number="P1")        # [Study]
    await pacs.series(study_uid)                   # [Series]
    await pacs.instances(study_uid, series_uid)    # [Instance]
    await pacs.instance(study, series, instance)   # the DICOM object's bytes
    await pacs.frame(study, series, instance, 1)   # a JPEG or PNG

Everything here is a question, so no outcome is unknown: TryAgain where it is busy, away or slow; Refused with
`not_found`, `credentials`, `unsupported` or `bad_request`; Unreadable where an answer is not DICOM's. Answers
are read up to a bound, no redirect is followed, no address of theirs is used.
"""

import base64
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from integrations.connector import Refused, TryAgain
from integrations.pacs import translate
from integrations.pacs.dicom import OBJECT_BYTES_MAX
from integrations.pacs.multipart import first_part
from integrations.pacs.pacs import Format, Instance, PacsAt, Series, Study, Unreadable, Window

ASK_SECONDS_MAX: Final = 5.0
FETCH_SECONDS_MAX: Final = 20.0  # an object of tens of megabytes
LIST_BYTES_MAX: Final = 16 * 1024 * 1024
PICTURE_BYTES_MAX: Final = 16 * 1024 * 1024
STUDIES_MAX: Final = 200  # in one answer
SERIES_MAX: Final = 500
INSTANCES_MAX: Final = 5_000
AFTER_SECONDS_MAX: Final = 3_600.0

_JSON: Final = "application/dicom+json"
_PICTURES: Final[Mapping[Format, tuple[str, bytes]]] = {
    "jpeg": ("image/jpeg", b"\xff\xd8\xff"),
    "png": ("image/png", b"\x89PNG\r\n\x1a\n"),
}
_REFUSED: Final = {
    400: "bad_request",
    401: "credentials",
    403: "credentials",
    404: "not_found",
    406: "unsupported",
    410: "not_found",
    415: "unsupported",
}


class PacsClient:
    """The session is its owner's to close."""

    def __init__(self, session: aiohttp.ClientSession, at: PacsAt, seconds_max: float | None = None) -> None:
        """`seconds_max`: of every question, for tests."""
        self._session = session
        self._at = at
        self._root = at.address.rstrip("/")
        self._seconds_max = seconds_max

    async def studies(
        self,
        *,
        patient_number: str = "",
        accession: str = "",
        uid: str = "",
        first: date | None = None,
        last: date | None = None,
        offset: int = 0,
        limit: int = STUDIES_MAX,
    ) -> list[Study]:
        """Those that fit all that is given."""
        query = [("includefield", one) for one in translate.STUDY_FIELDS]
        query += [("limit", str(min(limit, STUDIES_MAX))), ("offset", str(offset))]
        for name, value in (("PatientID", patient_number), ("AccessionNumber", accession)):
            if value:
                query.append((name, _exactly(value)))
        if uid:
            query.append(("StudyInstanceUID", _uid(uid)))
        if first is not None or last is not None:
            span = "-".join("" if day is None else day.strftime("%Y%m%d") for day in (first, last))
            query.append(("StudyDate", span))
        found = await self._listed("/studies", query, STUDIES_MAX)
        return [translate.study_of(one, self._at.zone) for one in found]

    async def series(self, study: str) -> list[Series]:
        query = [("includefield", one) for one in ("0008103E", "00180015", "00201209")]
        found = await self._listed(f"/studies/{_uid(study)}/series", query, SERIES_MAX)
        return [translate.series_of(one) for one in found]

    async def instances(self, study: str, series: str) -> list[Instance]:
        path = f"/studies/{_uid(study)}/series/{_uid(series)}/instances"
        found = await self._listed(path, [("includefield", "00280008")], INSTANCES_MAX)
        return [translate.instance_of(one) for one in found]

    async def metadata(self, study: str, series: str, instance: str) -> Any:
        """All tags but the pixels, as DICOM's JSON."""
        path = f"{_instance(study, series, instance)}/metadata"
        found = await self._listed(path, [], 1)
        if not found:
            raise Refused("not_found", "pacs")
        return found[0]

    async def instance(self, study: str, series: str, instance: str) -> bytes:
        """The object as it was stored. Read it with integrations/pacs/dicom.py before anything else."""
        kind, body = await self._get(
            _instance(study, series, instance),
            [],
            'multipart/related; type="application/dicom"',
            FETCH_SECONDS_MAX,
            OBJECT_BYTES_MAX,
        )
        return first_part(kind, body)

    async def frame(
        self,
        study: str,
        series: str,
        instance: str,
        number: int,
        format: Format = "jpeg",
        window: Window | None = None,
    ) -> tuple[Format, bytes]:
        """A frame (from 1) as a picture, in the other format where this one is not to be had."""
        path = f"{_instance(study, series, instance)}/frames/{number}/rendered"
        query = [] if window is None else [("window", f"{window.center:g},{window.width:g},linear")]
        other: Format = "png" if format == "jpeg" else "jpeg"
        try:
            _, body = await self._picture(path, query, format)
        except Refused as error:
            if error.code != "unsupported":
                raise
            _, body = await self._picture(path, query, other)
        for one, (_, magic) in _PICTURES.items():
            if body.startswith(magic):
                return one, body
        raise Unreadable("not_a_picture")

    async def json_of(self, address: str, path: str, query: list[tuple[str, str]]) -> Any:
        """Of another interface of the same archive, with the same credentials."""
        _, body = await self._get(path, query, "application/json", ASK_SECONDS_MAX, LIST_BYTES_MAX, address)
        return _parsed(body)

    async def _picture(self, path: str, query: list[tuple[str, str]], format: Format) -> tuple[str, bytes]:
        return await self._get(path, query, _PICTURES[format][0], FETCH_SECONDS_MAX, PICTURE_BYTES_MAX)

    async def _listed(self, path: str, query: list[tuple[str, str]], most: int) -> list[Any]:
        _, body = await self._get(path, query, _JSON, ASK_SECONDS_MAX, LIST_BYTES_MAX)
        return translate.listed(_parsed(body), most) if body else []

    async def _get(
        self,
        path: str,
        query: list[tuple[str, str]],
        accept: str,
        seconds_max: float,
        bytes_max: int,
        root: str = "",
    ) -> tuple[str, bytes]:
        """Content type and body; an empty body of 204."""
        headers = {"Accept": accept, "Accept-Encoding": "identity", "Accept-Charset": "utf-8"}
        if self._at.username:
            pair = f"{self._at.username}:{self._at.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        total = seconds_max if self._seconds_max is None else self._seconds_max
        url = URL(f"{(root or self._root).rstrip('/')}{path}").with_query(query)
        # `from None`, and no words of theirs: what fails ends in logs, and must name nobody.
        try:
            async with self._session.get(
                url,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=total),
                allow_redirects=False,
            ) as response:
                after = _seconds(response.headers.get("Retry-After"))
                status = response.status
                if status == 204:
                    return "", b""
                if status == 200:
                    kind = response.headers.get("Content-Type", "")
                    return kind, await _whole(response, bytes_max)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TryAgain(f"pacs: {type(error).__name__}") from None
        if status in _REFUSED:
            raise Refused(_REFUSED[status], "pacs")
        if 300 <= status < 400:
            raise Unreadable("redirect")
        raise TryAgain(f"pacs: status {status}", after)


def _exactly(value: str) -> str:
    """QIDO reads * and ? as any characters, and a backslash as one value more."""
    if not value.isprintable() or any(sign in value for sign in "*?\\") or len(value) > 64:
        raise Refused("bad_request", "pacs")
    return value


def _uid(uid: str) -> str:
    """It becomes a part of an address."""
    if not translate.is_uid(uid):
        raise Refused("bad_request", "pacs")
    return uid


def _instance(study: str, series: str, instance: str) -> str:
    return f"/studies/{_uid(study)}/series/{_uid(series)}/instances/{_uid(instance)}"


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unreadable("not_json") from None


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > limit:
            raise Unreadable("too_large")
        pieces.append(piece)
    return b"".join(pieces)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
