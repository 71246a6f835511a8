"""Pictures for those who may see them. Lists come from what the archive told us; series and pictures are
asked for when somebody looks, and go through us: nobody is given an address of the archive.

Before a picture is shown the object it comes from is read: damaged, or of another patient or study, it is
refused. What was read is remembered for a while, so a run of frames costs that once.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from engine.records import imaging as records
from engine.records.imaging import ImagingStudy
from integrations.connector import Refused, TryAgain
from integrations.pacs import dicom
from integrations.pacs.client import PacsClient
from integrations.pacs.pacs import UID_PATTERN, Format, Unreadable, Window
from web import keys
from web.auth import Staff
from web.emr.sight import must_see
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import Id, IdPath

log = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 4
"""Objects that one gateway fetches at a time: each may be tens of megabytes."""
CHECKED_MAX: Final = 4_096
KEPT_SECONDS: Final = 600
"""For how long a browser may keep a picture, for the one who asked for it alone."""

Uid = Annotated[str, Field(pattern=f"^{UID_PATTERN}$", max_length=64)]
Shade = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]


class StudyPath(BaseModel):
    id: UUID


class FramePath(BaseModel):
    id: UUID
    series: Uid
    instance: Uid
    frame: Annotated[int, Field(ge=1, le=dicom.FRAMES_MAX)]


class FrameQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Annotated[
        Literal["jpeg", "png"], Field(description="可能以另一种格式返回 / the other one may come")
    ] = "jpeg"
    center: Annotated[Shade | None, Field(description="窗位，与窗宽一并给出 / window centre")] = None
    width: Annotated[
        float | None,
        Field(gt=0, le=100_000, allow_inf_nan=False, description="窗宽，与窗位一并给出 / window width"),
    ] = None


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """一次影像检查 / an examination."""

    id: Id
    patient_id: Id
    day: date | None
    started_at: datetime | None
    modalities: Annotated[list[str], Field(description="CT、MR、DX、US … / kinds of machines")]
    description: str
    accession: Annotated[str, Field(description="检查号")]
    series: int
    instances: int


@dataclass(frozen=True, slots=True)
class StudiesAnswer:
    studies: Annotated[list[StudyAnswer], Field(description="新的在前 / newest first")]


@dataclass(frozen=True, slots=True)
class InstanceAnswer:
    id: Annotated[str, Field(description="SOP Instance UID")]
    number: int | None
    frames: int


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """一个序列 / a series of pictures."""

    id: Annotated[str, Field(description="Series Instance UID")]
    modality: str
    number: int | None
    description: str
    body_part: str
    instances: list[InstanceAnswer]


@dataclass(frozen=True, slots=True)
class StudyDetailAnswer:
    study: StudyAnswer
    series: list[SeriesAnswer]


class Checked:
    """Objects that were read and found good, of one gateway; and how many are fetched at a time."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._known: OrderedDict[tuple[str, str, str], dicom.Header] = OrderedDict()

    def of(self, key: tuple[str, str, str]) -> dicom.Header | None:
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def keep(self, key: tuple[str, str, str], header: dicom.Header) -> None:
        self._known[key] = header
        while len(self._known) > CHECKED_MAX:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Archive:
    """What a gateway knows the archive by."""

    client: PacsClient
    checked: Checked


@api.route(
    "GET",
    "/api/v1/patients/{id}/imaging",
    zh="影像检查列表",
    tags=["imaging"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN],
)
async def list_imaging(request: web.Request, *, who: bytes | Staff, path: IdPath) -> StudiesAnswer:
    """Examinations with pictures that the archive has of this patient, as far as it told us. Noted."""
    app = request.app
    await must_see(request, who, path.id.bytes, "imaging_read")
    async with app[keys.POOL].acquire() as connection:
        found = await records.studies_of(connection, app[keys.VAULT], path.id.bytes)
    return StudiesAnswer([_study(app, one) for one in found])


@api.route(
    "GET",
    "/api/v1/imaging/{id}",
    zh="查看影像检查",
    tags=["imaging"],
    errors=[
        Fault.NO_SUCH_STUDY,
        Fault.OUT_OF_RELATION,
        Fault.PICTURES_AWAY,
        Fault.PICTURES_UNFIT,
        Fault.DATABASE_DOWN,
    ],
)
async def read_imaging_study(
    request: web.Request, *, who: bytes | Staff, path: StudyPath
) -> StudyDetailAnswer:
    """The series and pictures of an examination, asked of the archive now. Noted."""
    app = request.app
    study = await _seen(request, who, path.id.bytes, "imaging_read")
    client = _archive(app).client
    with _worded():
        series = await client.series(study.uid)
        instances = [await client.instances(study.uid, one.uid) for one in series[:SERIES_SHOWN_MAX]]
    answers = [
        SeriesAnswer(
            one.uid,
            one.modality,
            one.number,
            one.description,
            one.body_part,
            [
                InstanceAnswer(each.uid, each.number, each.frames)
                for each in sorted(own, key=lambda each: (each.number is None, each.number or 0, each.uid))
            ],
        )
        for one, own in zip(series, instances, strict=False)
    ]
    answers.sort(key=lambda one: (one.number is None, one.number or 0, one.id))
    return StudyDetailAnswer(_study(app, study), answers)


SERIES_SHOWN_MAX: Final = 60
"""Each is a question to the archive."""


@api.route(
    "GET",
    "/api/v1/imaging/{id}/series/{series}/instances/{instance}/frames/{frame}",
    zh="查看影像图片",
    tags=["imaging"],
    errors=[
        Fault.NO_SUCH_STUDY,
        Fault.NO_SUCH_PICTURE,
        Fault.OUT_OF_RELATION,
        Fault.WINDOW_HALF,
        Fault.PICTURES_AWAY,
        Fault.PICTURES_UNFIT,
        Fault.DATABASE_DOWN,
    ],
)
async def read_imaging_frame(
    request: web.Request, *, who: bytes | Staff, path: FramePath, query: FrameQuery
) -> web.StreamResponse:
    """A picture, JPEG or PNG, with the shades that `center` and `width` tell apart. Only what was read and
    found whole, and this patient's, is shown; a browser may keep it for ten minutes, nobody else may."""
    app = request.app
    if (query.center is None) != (query.width is None):
        raise Problem(Fault.WINDOW_HALF)
    window = None
    if query.center is not None and query.width is not None:
        window = Window(query.center, query.width)
    study = await _seen(request, who, path.id.bytes, "imaging_read")
    archive = _archive(app)
    with _worded():
        header = await _good(archive, study, path)
        if path.frame > header.frames:
            raise Problem(Fault.NO_SUCH_PICTURE)
        format, body = await archive.client.frame(
            study.uid, path.series, path.instance, path.frame, query.format, window
        )
    return web.Response(body=body, headers=_PICTURE_HEADERS[format])


_PICTURE_HEADERS: Final[dict[Format, dict[str, str]]] = {
    format: {
        "Content-Type": f"image/{format}",
        "Cache-Control": f"private, max-age={KEPT_SECONDS}",
        "Vary": "Authorization, Cookie",
    }
    for format in ("jpeg", "png")
}


async def _good(archive: Archive, study: ImagingStudy, path: FramePath) -> dicom.Header:
    """What stands in the object, once it is known to be whole and this patient's. Raises Damaged & co."""
    key = (study.uid, path.series, path.instance)
    known = archive.checked.of(key)
    if known is None:
        async with archive.checked.turns:
            raw = await archive.client.instance(*key)
            known = await asyncio.to_thread(dicom.header_of, raw)
        if (known.study_uid, known.series_uid, known.instance_uid) != key:
            raise dicom.Damaged("another_object")
    if known.patient_number != study.patient_number:
        raise dicom.Damaged("another_patient")
    archive.checked.keep(key, known)
    return known


async def _seen(request: web.Request, who: bytes | Staff, id_: bytes, action: str) -> ImagingStudy:
    """A study that the caller may see. Raises Problem."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        study = await records.study(connection, app[keys.VAULT], id_)
    if study is None:
        raise Problem(Fault.NO_SUCH_STUDY)
    await must_see(request, who, study.patient_id, action, nobody=Fault.NO_SUCH_STUDY)
    return study


def _archive(app: web.Application) -> Archive:
    if keys.ARCHIVE not in app:
        raise Problem(Fault.PICTURES_AWAY)
    return app[keys.ARCHIVE]


@contextlib.contextmanager
def _worded() -> Iterator[None]:
    """The connector's failures as answers; logs get words that name nobody."""
    try:
        yield
    except TryAgain as error:
        log.warning("a picture could not be had: %s", error)
        raise Problem(Fault.PICTURES_AWAY) from None
    except Refused as error:
        if error.code in ("not_found", "bad_request"):
            raise Problem(Fault.NO_SUCH_PICTURE) from None
        log.error("the archive refuses: %s", error.code)
        raise Problem(Fault.PICTURES_AWAY) from None
    except (Unreadable, dicom.Damaged) as error:
        log.error("a picture is not shown: %s", error.why)
        raise Problem(Fault.PICTURES_UNFIT) from None


def _study(app: web.Application, one: ImagingStudy) -> StudyAnswer:
    return StudyAnswer(
        uuid(one.id),
        uuid(one.patient_id),
        one.day,
        None if one.started_at is None else one.started_at.astimezone(app[keys.ZONE]),
        list(one.modalities),
        one.description,
        one.accession,
        one.series,
        one.instances,
    )
