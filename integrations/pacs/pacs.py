"""What pictures are, in our words; a vendor's stop in this folder."""

from dataclasses import dataclass, field
from datetime import date, tzinfo
from typing import Final, Literal, Protocol

UID_PATTERN: Final = r"[0-9](\.?[0-9]+){1,63}"
UID_CHARS_MAX: Final = 64

Form = Literal["qido", "orthanc"]
Format = Literal["jpeg", "png"]


@dataclass(frozen=True, slots=True)
class PacsAt:
    """Where the archive is, who we are there, and how it tells of new studies."""

    address: str  # of its DICOMweb services, https://…/dicom-web
    zone: tzinfo  # of its dates and times
    username: str = ""
    password: str = field(default="", repr=False)
    form: Form = "qido"
    changes_address: str = ""  # of Orthanc's own REST interface, where form is orthanc
    patient_system: str = "his"  # whose numbers its PatientID are; "xinglin": our own ids


@dataclass(frozen=True, slots=True)
class Study:
    """一次检查 / one examination of one patient."""

    uid: str
    patient_number: str = field(repr=False)
    patient_name: str = field(repr=False)
    birth_date: date | None = field(repr=False)
    sex: str | None
    accession: str  # 检查号
    day: date | None
    started_at: str | None  # ISO 8601 with its offset; None: only the day is known
    description: str
    modalities: tuple[str, ...]  # CT, MR, DX, US …
    series: int
    instances: int


@dataclass(frozen=True, slots=True)
class Series:
    """序列"""

    uid: str
    modality: str
    number: int | None
    description: str
    body_part: str
    instances: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One picture, or a run of them."""

    uid: str
    number: int | None
    frames: int


@dataclass(frozen=True, slots=True)
class Window:
    """Which shades are told apart: 窗位 and 窗宽."""

    center: float
    width: float


@dataclass(frozen=True, slots=True)
class News:
    """Studies that are new or have grown, and where to go on."""

    studies: list[Study]
    position: str
    is_more: bool = False


class Feed(Protocol):
    """How we hear of studies, whatever the archive offers for it."""

    async def news(self, position: str, today: date) -> News:
        """What came since `position`, "" for the first time. Raises TryAgain, Refused, Unreadable."""
        ...

    def taken(self, study: Study) -> None:
        """It is kept here, as it is now."""
        ...


class Unreadable(Exception):
    """An answer of theirs that is not what DICOM says; `why` is a word, never a value."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
