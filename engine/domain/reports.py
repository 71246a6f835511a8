"""A laboratory's report in words of ours: which of two versions is newer, and what a correction changed."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final


class ReportStatus(StrEnum):
    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"


class Flag(StrEnum):
    """How a value lies to its reference range."""

    LOW = "low"
    HIGH = "high"
    CRITICAL_LOW = "critical_low"
    CRITICAL_HIGH = "critical_high"
    ABNORMAL = "abnormal"
    CRITICAL = "critical"
    NORMAL = "normal"


_RANK: Final = {
    ReportStatus.PRELIMINARY: 0,
    ReportStatus.FINAL: 1,
    ReportStatus.CORRECTED: 2,
    ReportStatus.CANCELLED: 3,
}


@dataclass(frozen=True, slots=True)
class PatientNumber:
    """`system`: whose number; of documents 'id:' and the kind, as engine/records/identity.py has it."""

    system: str
    number: str


@dataclass(frozen=True, slots=True)
class ReportPatient:
    numbers: tuple[PatientNumber, ...]
    name: str = ""
    sex: str = ""  # male | female | ""
    birth_date: date | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    code: str
    name: str
    value: str  # a figure, a word, a text: as the laboratory writes it
    unit: str = ""
    reference: str = ""
    flag: str = ""  # Flag, or ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    media_type: str
    content: bytes
    title: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One version of it."""

    source: str  # which laboratory's number it is
    number: str
    patient: ReportPatient
    status: ReportStatus
    title: str
    issued_at: datetime
    changed_at: datetime  # when they made this version
    category: str = ""
    ordered_at: datetime | None = None
    collected_at: datetime | None = None
    department: str = ""
    doctor: str = ""
    conclusion: str = ""
    observations: tuple[Observation, ...] = ()
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two versions. `before` or `after` "": it was not there."""

    code: str  # of the observation; "" for the report itself
    name: str
    what: str  # value, unit, reference, flag, note, conclusion, status, observation
    before: str
    after: str


def is_newer(
    changed_at: datetime, status: ReportStatus, than_at: datetime, than_status: ReportStatus
) -> bool:
    """Whether one version replaces the other. A clock that goes wrong over there must not take a report that
    was signed back to a preliminary one."""
    was_signed = than_status is not ReportStatus.PRELIMINARY
    if status is ReportStatus.PRELIMINARY and was_signed:
        return False
    if than_status is ReportStatus.PRELIMINARY and status is not ReportStatus.PRELIMINARY:
        return True
    return (changed_at, _RANK[status]) >= (than_at, _RANK[than_status])


def changes(before: Report, after: Report) -> tuple[Change, ...]:
    """What a reader of the one has to know of the other, in the order of the newer one."""
    found: list[Change] = []
    if before.status is not after.status:
        found.append(Change("", after.title, "status", before.status.value, after.status.value))
    old = {(one.code, n): one for one, n in _counted(before.observations)}
    new = {(one.code, n): one for one, n in _counted(after.observations)}
    for key, now in new.items():
        then = old.get(key)
        if then is None:
            found.append(Change(now.code, now.name, "observation", "", _spelled(now)))
            continue
        for what in ("value", "unit", "reference", "flag", "note"):
            one, other = getattr(then, what), getattr(now, what)
            if one != other:
                found.append(Change(now.code, now.name, what, one, other))
    for key, then in old.items():
        if key not in new:
            found.append(Change(then.code, then.name, "observation", _spelled(then), ""))
    if before.conclusion != after.conclusion:
        found.append(Change("", after.title, "conclusion", before.conclusion, after.conclusion))
    return tuple(found)


def _counted(observations: tuple[Observation, ...]) -> list[tuple[Observation, int]]:
    """A code may come more than once: glucose at 0, 60 and 120 minutes."""
    seen: dict[str, int] = {}
    counted = []
    for one in observations:
        n = seen[one.code] = seen.get(one.code, 0) + 1
        counted.append((one, n))
    return counted


def _spelled(one: Observation) -> str:
    return f"{one.value} {one.unit}".strip()


# As a body, for the checks at the intake and for keeping.


def as_body(report: Report, *, with_contents: bool = True) -> dict[str, Any]:
    """`with_contents`: attachments as base64; else their kind and title alone."""
    patient = report.patient
    return {
        "source": report.source,
        "number": report.number,
        "patient": {
            "numbers": [asdict(one) for one in patient.numbers],
            "name": patient.name,
            "sex": patient.sex,
            "birth_date": _iso(patient.birth_date),
        },
        "status": report.status.value,
        "title": report.title,
        "issued_at": _iso(report.issued_at),
        "changed_at": _iso(report.changed_at),
        "category": report.category,
        "ordered_at": _iso(report.ordered_at),
        "collected_at": _iso(report.collected_at),
        "department": report.department,
        "doctor": report.doctor,
        "conclusion": report.conclusion,
        "observations": [asdict(one) for one in report.observations],
        "attachments": [
            {"media_type": one.media_type, "title": one.title}
            | ({"content": base64.b64encode(one.content).decode()} if with_contents else {})
            for one in report.attachments
        ],
    }


def of_body(body: Mapping[str, Any]) -> Report:
    """What as_body made, or a connector. Raises NotAReport of anything else."""
    try:
        patient = body["patient"]
        return Report(
            _text(body, "source"),
            _text(body, "number"),
            ReportPatient(
                tuple(
                    PatientNumber(_text(one, "system"), _text(one, "number")) for one in patient["numbers"]
                ),
                _text(patient, "name"),
                _text(patient, "sex"),
                date.fromisoformat(patient["birth_date"]) if patient.get("birth_date") else None,
            ),
            ReportStatus(body["status"]),
            _text(body, "title"),
            datetime.fromisoformat(body["issued_at"]),
            datetime.fromisoformat(body["changed_at"]),
            _text(body, "category"),
            _time(body, "ordered_at"),
            _time(body, "collected_at"),
            _text(body, "department"),
            _text(body, "doctor"),
            _text(body, "conclusion"),
            tuple(
                Observation(**{name: _text(one, name) for name in _OBSERVATION})
                for one in body.get("observations") or ()
            ),
            tuple(
                Attachment(
                    _text(one, "media_type"),
                    base64.b64decode(_text(one, "content"), validate=True),
                    _text(one, "title"),
                )
                for one in body.get("attachments") or ()
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotAReport(type(error).__name__) from None


class NotAReport(Exception):
    """A body that no report could be made of. Says nothing of what stood there."""


_OBSERVATION: Final = tuple(one.name for one in fields(Observation))


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(name)
    return value or ""


def _time(of: Mapping[str, Any], name: str) -> datetime | None:
    text = _text(of, name)
    return datetime.fromisoformat(text) if text else None


def _iso(moment: date | datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
