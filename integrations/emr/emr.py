"""What records are, in our words; FHIR's stop in this folder.

A record is read into a body for the intake, JSON-like:

    {"system": "emr", "kind": "condition", "id": "77", "version": "2", "updated_at": "2026-11-23T09:00:00Z",
     "is_in_error": false, "begins_at": "…" or null, "encounter": "12" or null, "appointment": "…" or null,
     "patient": {"numbers": [{"system", "number"}], "documents": [{"type", "number"}], "name": "…" or null},
     "content": {"status": "active", "title": "急性支气管炎", "code": "J20.900", …}}

`content` by kind; what was not said is null:

    encounter    status, setting, title, department, practitioner, reason, ends_at
    condition    status, certainty, title, code, code_system, note
    medication   status, intent, title, code, code_system, dosage, days, quantity, note
    allergy      status, certainty, title, code, code_system, categories, criticality, reactions, note
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal

Kind = Literal["encounter", "condition", "medication", "allergy"]

OURS: Final = "xinglin"
"""System of our own patients' ids (engine/records/patient_numbers.py)."""
PATIENT_SYSTEM: Final = "urn:xinglin:patient"
APPOINTMENT_SYSTEM: Final = "urn:xinglin:appointment"
HIS_SYSTEM: Final = "urn:xinglin:his"
"""Identifier systems by which record systems and we mean the same thing."""


@dataclass(frozen=True, slots=True)
class EmrAt:
    """Where the record system's FHIR server is, and who we are there."""

    address: str  # https://…/fhir
    token: str = field(default="", repr=False)  # bearer
    username: str = ""
    password: str = field(default="", repr=False)
    is_told: bool = True  # of our finished visits
    is_asked: bool = True  # for what is new there


@dataclass(frozen=True, slots=True)
class Read:
    """One resource: its body, or why there is none. `where` names it: Condition/77, entry[3]."""

    where: str
    kind: Kind | None
    message_id: str
    body: Mapping[str, Any] | None
    problem: str = ""  # a word
    place: str = ""  # of the problem, a path
    raw: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Whom we tell of."""

    id: str  # our patient's, hex
    name: str = field(repr=False)
    id_type: str
    id_number: str = field(repr=False)
    birth_date: date | None = field(repr=False)
    sex: str | None
    his_numbers: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit of ours that is over."""

    id: str  # the appointment's, hex
    person: Person
    department_id: str
    department: str
    practitioner_id: str
    practitioner: str
    starts_at: datetime
    ends_at: datetime


class Unreadable(Exception):
    """What they sent is not FHIR, as a whole; `why` is a word."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.place = place
