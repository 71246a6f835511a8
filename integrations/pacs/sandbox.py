"""A small picture archive in memory, for demo and tests: it speaks DICOMweb and can be told to fail.

    sandbox = Sandbox("xinglin", "password")
    study = sandbox.take_pictures("P1", "王小明", sex="M")     # its UID
    sandbox.add(raw)                                          # any DICOM object, as it is
    sandbox.fail("frame", Fault.DAMAGED)                      # the next answer of that kind
    sandbox.ledger                                            # what was asked, in order: (operation, UIDs)

Over HTTP, for people and demos (not DICOM's): GET /sandbox lists the studies without names, POST
/sandbox/pictures {"patient_number", "name", "sex", "birth_date"} takes some. Operations: studies, series,
instances, metadata, instance, frame, changes.

It also answers Orthanc's /changes and /studies/{id}, so that both feeds can be tried.
"""

import asyncio
import base64
import hmac
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.pacs.pacs import Window
from integrations.pacs.sandbox_pictures import as_file, chest, png_of

Json = dict[str, Any]
INSTANCES_MAX: Final = 5_000
_PLACES: Final = {"CHEST": ("胸部正位片", "DX"), "HAND": ("左手正位片", "DX")}


class Fault(StrEnum):
    TIMEOUT = "timeout"  # nothing comes back
    CUT = "cut"  # the line breaks
    ERROR = "error"  # 500
    BUSY = "busy"  # 429
    REDIRECT = "redirect"  # to somewhere else
    UNREADABLE = "unreadable"  # 200, and no DICOM
    DAMAGED = "damaged"  # an object that ends in its middle
    OTHER_PATIENT = "other_patient"  # an object that says that it is somebody else's


_FAULT: Final = web.RequestKey("fault", Fault)


@dataclass(slots=True)
class _Kept:
    study: str
    series: str
    instance: str
    dataset: Any
    raw: bytes


@dataclass(slots=True)
class _Change:
    seq: int
    study: str
    name: str


def uid() -> str:
    """A new one (PS3.5 B.2)."""
    return f"2.25.{secrets.randbits(120)}"


class Sandbox:
    """Everything is kept in memory; the oldest objects go where there are too many."""

    def __init__(
        self,
        username: str,
        password: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        zone: tzinfo = UTC,
    ) -> None:
        self._expected = (
            f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}" if username else ""
        )
        self._clock = clock
        self._zone = zone
        self._kept: dict[str, _Kept] = {}
        self._changes: list[_Change] = []
        self._faults: dict[str, deque[Fault]] = {}
        self._stuck = asyncio.Event()
        self.ledger: list[tuple[str, tuple[str, ...]]] = []

    # What tests and demos do.

    def take_pictures(
        self,
        patient_number: str,
        name: str,
        *,
        sex: str = "",
        birth_date: date | None = None,
        pictures: int = 2,
        place: str = "CHEST",
        at: datetime | None = None,
    ) -> str:
        """A study of this patient; its UID."""
        study, series = uid(), uid()
        now = (at or self._clock()).astimezone(self._zone)
        description, modality = _PLACES[place]
        for n in range(1, pictures + 1):
            said = {
                "PatientID": patient_number,
                "PatientName": name,
                "PatientSex": sex,
                "PatientBirthDate": "" if birth_date is None else birth_date.strftime("%Y%m%d"),
                "StudyDate": now.strftime("%Y%m%d"),
                "StudyTime": now.strftime("%H%M%S"),
                "TimezoneOffsetFromUTC": now.strftime("%z"),
                "AccessionNumber": f"A{now:%y%m%d}{len(self._changes) + 1:05}",
                "StudyDescription": description,
                "SeriesDescription": description,
                "Modality": modality,
                "BodyPartExamined": place,
                "Manufacturer": "Xinglin sandbox",
            }
            made = chest(study_uid=study, series_uid=series, instance_uid=uid(), number=n, said=said)
            self.add(as_file(made))
        return study

    def add(self, raw: bytes) -> str:
        """Any object; its UID."""
        import io

        import pydicom

        dataset = pydicom.dcmread(io.BytesIO(raw))
        kept = _Kept(
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            str(dataset.SOPInstanceUID),
            dataset,
            raw,
        )
        is_new = all(one.study != kept.study for one in self._kept.values())
        self._kept[kept.instance] = kept
        while len(self._kept) > INSTANCES_MAX:
            del self._kept[next(iter(self._kept))]
        if is_new:
            self._changes.append(_Change(len(self._changes) + 1, kept.study, secrets.token_hex(20)))
        return kept.instance

    def fail(self, operation: str, *faults: Fault) -> None:
        self._faults.setdefault(operation, deque()).extend(faults)

    def heal(self) -> None:
        """No answer fails any more."""
        self._faults.clear()

    def app(self) -> web.Application:
        app = web.Application()
        study = "/dicom-web/studies/{study}"
        instance = f"{study}/series/{{series}}/instances/{{instance}}"
        app.router.add_get("/dicom-web/studies", self._told("studies", self._studies))
        app.router.add_get(f"{study}/series", self._told("series", self._series))
        app.router.add_get(f"{study}/series/{{series}}/instances", self._told("instances", self._instances))
        app.router.add_get(f"{instance}/metadata", self._told("metadata", self._metadata))
        app.router.add_get(instance, self._told("instance", self._instance))
        app.router.add_get(f"{instance}/frames/{{frame}}/rendered", self._told("frame", self._frame))
        app.router.add_get("/changes", self._told("changes", self._changed))
        app.router.add_get("/studies/{name}", self._told("changes", self._orthanc_study))
        app.router.add_get("/sandbox", self._page)
        app.router.add_post("/sandbox/pictures", self._pictures)
        return app

    # The wire.

    def _told(
        self, operation: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._expected and not hmac.compare_digest(
                request.headers.get("Authorization", "").encode(), self._expected.encode()
            ):
                return web.Response(status=401)
            self.ledger.append((operation, tuple(request.match_info.values())))
            queue = self._faults.get(operation)
            fault = queue.popleft() if queue else None
            match fault:
                case Fault.TIMEOUT:
                    await self._stuck.wait()
                case Fault.CUT:
                    assert request.transport is not None
                    request.transport.abort()
                case Fault.ERROR:
                    return web.Response(status=500, text="an error")
                case Fault.BUSY:
                    return web.Response(status=429, headers={"Retry-After": "3"})
                case Fault.REDIRECT:
                    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
                case Fault.UNREADABLE:
                    return web.Response(body=b"<html>", content_type="application/dicom+json")
                case Fault.DAMAGED | Fault.OTHER_PATIENT:
                    request[_FAULT] = fault
            return await handler(request)

        return handle

    async def _studies(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        rows = []
        for study in dict.fromkeys(one.study for one in self._kept.values()):
            own = [one for one in self._kept.values() if one.study == study]
            row = _row(
                own[0].dataset,
                (
                    "StudyInstanceUID",
                    "PatientID",
                    "PatientName",
                    "PatientSex",
                    "PatientBirthDate",
                    "StudyDate",
                ),
                ("StudyTime", "TimezoneOffsetFromUTC", "AccessionNumber", "StudyDescription"),
            )
            row["00080061"] = {"vr": "CS", "Value": sorted({str(one.dataset.Modality) for one in own})}
            row["00201206"] = {"vr": "IS", "Value": [len({one.series for one in own})]}
            row["00201208"] = {"vr": "IS", "Value": [len(own)]}
            wanted = all(
                query.get(name) in (None, str(own[0].dataset.get(name, "")))
                for name in ("PatientID", "AccessionNumber", "StudyInstanceUID")
            )
            if wanted and _is_within(query.get("StudyDate"), str(own[0].dataset.get("StudyDate", ""))):
                rows.append(row)
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "1000"))
        return _json(rows[offset : offset + limit])

    async def _series(self, request: web.Request) -> web.StreamResponse:
        found: dict[str, list[_Kept]] = {}
        for one in self._of(request):
            found.setdefault(one.series, []).append(one)
        rows = []
        for own in found.values():
            row = _row(
                own[0].dataset,
                ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined"),
            )
            row["00201209"] = {"vr": "IS", "Value": [len(own)]}
            rows.append(row)
        return _json(rows) if rows else web.Response(status=404)

    async def _instances(self, request: web.Request) -> web.StreamResponse:
        rows = [
            _row(one.dataset, ("SOPInstanceUID", "InstanceNumber", "NumberOfFrames"))
            for one in self._of(request)
        ]
        return _json(rows) if rows else web.Response(status=404)

    async def _metadata(self, request: web.Request) -> web.StreamResponse:
        found = self._of(request)
        if not found:
            return web.Response(status=404)
        told = found[0].dataset.to_json_dict()
        told.pop("7FE00010", None)
        return _json([told])

    async def _instance(self, request: web.Request) -> web.StreamResponse:
        found = self._of(request)
        if not found:
            return web.Response(status=404)
        raw = found[0].raw
        if request.get(_FAULT) is Fault.DAMAGED:
            raw = raw[: len(raw) // 2]
        elif request.get(_FAULT) is Fault.OTHER_PATIENT:
            import copy

            other = copy.deepcopy(found[0].dataset)
            other.PatientID = "somebody-else"
            raw = as_file(other)
        line = secrets.token_hex(8)
        body = f"--{line}\r\nContent-Type: application/dicom\r\n\r\n".encode() + raw
        kind = f'multipart/related; type="application/dicom"; boundary={line}'
        return web.Response(body=body + f"\r\n--{line}--\r\n".encode(), headers={"Content-Type": kind})

    async def _frame(self, request: web.Request) -> web.StreamResponse:
        found = self._of(request)
        frame = request.match_info["frame"]
        if not found or not frame.isdecimal() or not 1 <= int(frame) <= 1:
            return web.Response(status=404)
        if request.headers.get("Accept") != "image/png":
            return web.Response(status=406)  # it has no library that writes JPEG
        window = None
        if "window" in request.query:
            center, width, _ = request.query["window"].split(",")
            window = Window(float(center), float(width))
        if request.get(_FAULT) is Fault.DAMAGED:
            return web.Response(body=b"\x00" * 64, content_type="image/png")
        dataset = found[0].dataset
        return web.Response(body=await asyncio.to_thread(png_of, dataset, window), content_type="image/png")

    async def _changed(self, request: web.Request) -> web.StreamResponse:
        since, limit = int(request.query.get("since", "0")), int(request.query.get("limit", "100"))
        later = [one for one in self._changes if one.seq > since]
        told = [
            {"ChangeType": "NewStudy", "ID": one.name, "ResourceType": "Study", "Seq": one.seq}
            for one in later[:limit]
        ]
        last = later[:limit][-1].seq if later else since
        return _json({"Changes": told, "Done": len(later) <= limit, "Last": last})

    async def _orthanc_study(self, request: web.Request) -> web.StreamResponse:
        for one in self._changes:
            if one.name == request.match_info["name"]:
                return _json({"ID": one.name, "MainDicomTags": {"StudyInstanceUID": one.study}})
        return web.Response(status=404)

    def _of(self, request: web.Request) -> list[_Kept]:
        asked = request.match_info
        return [
            one
            for one in self._kept.values()
            if one.study == asked["study"]
            and asked.get("series", one.series) == one.series
            and asked.get("instance", one.instance) == one.instance
        ]

    # For people.

    async def _page(self, request: web.Request) -> web.StreamResponse:
        studies: dict[str, Json] = {}
        for one in self._kept.values():
            row = studies.setdefault(
                one.study,
                {
                    "study": one.study,
                    "what": str(one.dataset.StudyDescription),
                    "accession": str(one.dataset.AccessionNumber),
                    "instances": 0,
                },
            )
            row["instances"] += 1
        return _json({"studies": list(studies.values()), "asked": len(self.ledger)})

    async def _pictures(self, request: web.Request) -> web.StreamResponse:
        said = await request.json()
        born = said.get("birth_date")
        study = self.take_pictures(
            str(said["patient_number"]),
            str(said["name"]),
            sex={"male": "M", "female": "F"}.get(str(said.get("sex")), ""),
            birth_date=None if born is None else date.fromisoformat(str(born)),
        )
        return _json({"study": study})


def _row(dataset: Any, *keywords: tuple[str, ...]) -> Json:
    whole: Json = dataset.to_json_dict(bulk_data_threshold=64, bulk_data_element_handler=lambda element: "")
    from pydicom.datadict import tag_for_keyword

    tags = [f"{tag_for_keyword(word):08X}" for group in keywords for word in group]
    return {tag: whole[tag] for tag in tags if tag in whole}


def _is_within(span: str | None, day: str) -> bool:
    if span is None:
        return True
    first, dash, last = span.partition("-")
    return (not first or day >= first) and (not last or day <= last) if dash else day == span


def _json(told: Any) -> web.Response:
    return web.Response(body=orjson.dumps(told), content_type="application/dicom+json")
