"""What other systems told of somebody, as a copy of one's data has it (engine/records/personal_export.py)."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import asyncpg

from engine.records.encounters import content_of
from engine.records.imaging import facts_of
from engine.vault.vault import Vault

STUDIES: Final = (
    "select i.id as k, i.*, p.record_key from imaging_study i join patient p on p.id = i.patient_id"
    " where i.patient_id = any ($1::uuid[])"
)
ENTRIES: Final = (
    "select c.id as k, c.*, p.record_key from clinical_entry c join patient p on p.id = c.patient_id"
    " where c.patient_id = any ($1::uuid[])"
)


@dataclass(frozen=True, slots=True)
class OwnStudy:
    """An examination with pictures; the pictures are the archive's."""

    id: str
    patient_id: str
    study_uid: str
    day: date | None
    started_at: datetime | None
    modalities: list[str]
    series: int
    instances: int
    description: str
    accession: str


@dataclass(frozen=True, slots=True)
class OwnClinicalEntry:
    """A visit, a diagnosis, a medicine, an allergy, as a record system told of it."""

    id: str
    patient_id: str
    source: str
    kind: str
    encounter_id: str | None
    appointment_id: str | None
    updated_at: datetime
    begins_at: datetime | None
    is_in_error: bool
    content: dict[str, Any]


def own_study(vault: Vault, row: asyncpg.Record) -> OwnStudy:
    facts = facts_of(vault, row) or {}
    return OwnStudy(
        str(row["id"]),
        str(row["patient_id"]),
        row["study_uid"],
        row["day"],
        row["started_at"],
        list(row["modalities"]),
        row["series"],
        row["instances"],
        facts.get("description", ""),
        facts.get("accession", ""),
    )


def own_entry(vault: Vault, row: asyncpg.Record) -> OwnClinicalEntry:
    return OwnClinicalEntry(
        str(row["id"]),
        str(row["patient_id"]),
        row["system"],
        row["kind"],
        None if row["encounter_id"] is None else str(row["encounter_id"]),
        None if row["appointment_id"] is None else str(row["appointment_id"]),
        row["updated_at"],
        row["begins_at"],
        row["is_in_error"],
        content_of(vault, row) or {},
    )
