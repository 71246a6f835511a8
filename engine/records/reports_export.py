"""Reports of laboratories, and what other systems call somebody, as a copy of one's data has it."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from engine.records.patient_numbers import NUMBER
from engine.records.report_versions import opened
from engine.records.sealed_people import record_key
from engine.vault.vault import Vault

REPORTS: Final = (
    "select r.id as k, r.*, v.body, p.record_key from report r join patient p on p.id = r.patient_id"
    "  join report_version v on v.report_id = r.id and v.version = r.newest"
    " where r.patient_id = any ($1::uuid[]) and r.was_final"
)
NUMBERS: Final = (
    "select md5(n.system || '/' || encode(n.number_index, 'hex'))::uuid as k, n.*, p.record_key"
    "  from patient_number n join patient p on p.id = n.patient_id where n.patient_id = any ($1::uuid[])"
)


@dataclass(frozen=True, slots=True)
class OwnReport:
    """In the version that holds; documents that came with it are downloaded from the report itself."""

    id: str
    patient_id: str
    source: str
    number: str
    title: str
    status: str
    issued_at: datetime
    doctor: str
    conclusion: str
    observations: list[dict[str, Any]]
    attachments: list[str]


@dataclass(frozen=True, slots=True)
class OwnNumber:
    """What another system calls this person."""

    patient_id: str
    system: str
    number: str
    linked_at: datetime


def own_report(vault: Vault, row: asyncpg.Record) -> OwnReport:
    report = opened(
        vault, row["patient_id"].bytes, row["record_key"], row["id"].bytes, row["newest"], row["body"]
    )
    return OwnReport(
        str(row["id"]),
        str(row["patient_id"]),
        row["source"],
        "" if report is None else report.number,
        "" if report is None else report.title,
        row["status"],
        row["issued_at"],
        "" if report is None else report.doctor,
        "" if report is None else report.conclusion,
        [] if report is None else [asdict(one) for one in report.observations],
        [] if report is None else [one.title or one.media_type for one in report.attachments],
    )


def own_number(vault: Vault, row: asyncpg.Record) -> OwnNumber:
    key = record_key(row["patient_id"].bytes, row["record_key"])
    number = vault.open(key, NUMBER, row["number_index"], row["number"]) or ""
    return OwnNumber(str(row["patient_id"]), row["system"], number, row["linked_at"])
