"""Reports of laboratories: one row each, in its newest version; the versions are in report_versions.py."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.ids import derived
from engine.domain.intake import Unfit
from engine.domain.reports import Report, ReportStatus, is_newer
from engine.records import report_versions
from engine.records.identity import IdType
from engine.records.patient_numbers import Identity, Number, link, match
from engine.records.report_versions import opened
from engine.records.sealed_people import record_key
from engine.vault.vault import Vault

NUMBER: Final = "report.number"
DOCUMENTS: Final = {f"id:{kind.value}": kind for kind in IdType}
VERSIONS_MAX: Final = 100
"""Of one report: more are a loop over there, not corrections."""
LISTED_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Stored:
    report_id: bytes
    patient_id: bytes
    version: int
    is_new: bool  # else this very version was here before
    is_newest: bool


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One report, opened in its newest version."""

    id: bytes
    patient_id: bytes
    version: int
    report: Report


def report_id(vault: Vault, source: str, number: str) -> bytes:
    """Keyed, so that an id says nothing about the number."""
    return derived(b"report", vault.index(NUMBER, f"{source}\0{number}"))


async def store(
    connection: asyncpg.Connection, vault: Vault, report: Report, identity: Identity, by: str, now: datetime
) -> Stored:
    """Keeps a version, once; it is shown when no newer one is here. `by`: the interface.

    Raises Unfit where it is another patient's, or was one's before; Unclaimed where nobody is known.
    """
    id_ = report_id(vault, report.source, report.number)
    async with connection.transaction():
        # One at a time for a report, also before it has a row.
        await connection.execute(
            "select pg_advisory_xact_lock($1)", int.from_bytes(id_[:8], "big", signed=True)
        )
        found = await match(connection, vault, identity)
        row = await connection.fetchrow("select * from report where id = $1 for update", UUID(bytes=id_))
        if row is not None and row["patient_id"].bytes != found.patient_id:
            raise Unfit("patient.numbers", "another_person", "the patient whose report this number is")
        wrapped = await connection.fetchval(
            "select record_key from patient where id = $1 for share", UUID(bytes=found.patient_id)
        )
        if wrapped is None:
            raise Unfit("patient.numbers", "forgotten")
        for one in found.new:
            await link(connection, vault, found.patient_id, one.system, one.number, by, now)
        digest = report_versions.digest_of(vault, report)
        versions = await connection.fetch(
            "select version, status, changed_at, digest from report_version where report_id = $1"
            " order by version",
            UUID(bytes=id_),
        )
        for known in versions:
            # The same words as an older version's, said later: a correction that was taken back.
            version = known["version"]
            is_same = version == row["newest"] or report.changed_at <= known["changed_at"]
            if known["digest"] == digest and is_same:
                return Stored(id_, found.patient_id, version, False, version == row["newest"])
        if len(versions) >= VERSIONS_MAX:
            raise Unfit("number", "too_many_versions", f"at most {VERSIONS_MAX}")
        shown = next((one for one in versions if row is not None and one["version"] == row["newest"]), None)
        newer = shown is None or is_newer(
            report.changed_at, report.status, shown["changed_at"], ReportStatus(shown["status"])
        )
        version = len(versions) + 1
        was_final = report.status is not ReportStatus.PRELIMINARY
        await connection.execute(
            "insert into report (id, source, patient_id, newest, status, issued_at, was_final, created_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do nothing",
            UUID(bytes=id_),
            report.source,
            UUID(bytes=found.patient_id),
            version,
            report.status.value,
            report.issued_at,
            was_final,
            now,
        )
        if newer:
            await connection.execute(
                "update report set newest = $2, status = $3, issued_at = $4, was_final = was_final or $5"
                " where id = $1",
                UUID(bytes=id_),
                version,
                report.status.value,
                report.issued_at,
                was_final,
            )
        key = record_key(found.patient_id, wrapped)
        await report_versions.add(connection, vault, key, id_, version, report, not newer, now)
        return Stored(id_, found.patient_id, version, True, newer)


async def reports_of(
    connection: asyncpg.Connection,
    vault: Vault,
    patient_id: bytes,
    limit: int,
    before: datetime | None = None,
    *,
    only_final: bool,
) -> list[ReportRow]:
    """Newest first. `only_final`: without those that nobody has signed yet."""
    rows = await connection.fetch(
        "select r.id, r.newest, v.body, p.record_key from report r"
        "  join report_version v on v.report_id = r.id and v.version = r.newest"
        "  join patient p on p.id = r.patient_id"
        " where r.patient_id = $1 and ($2::timestamptz is null or r.issued_at < $2)"
        "   and (not $3 or r.was_final) order by r.issued_at desc, r.id limit $4",
        UUID(bytes=patient_id),
        before,
        only_final,
        limit,
    )
    found = []
    for row in rows:
        id_ = row["id"].bytes
        report = opened(vault, patient_id, row["record_key"], id_, row["newest"], row["body"])
        if report is not None:
            found.append(ReportRow(id_, patient_id, row["newest"], report))
    return found


@dataclass(frozen=True, slots=True)
class ReportHead:
    id: bytes
    patient_id: bytes
    newest: int
    was_final: bool


async def head_of(connection: asyncpg.Connection, report_id: bytes) -> ReportHead | None:
    row = await connection.fetchrow(
        "select patient_id, newest, was_final from report where id = $1", UUID(bytes=report_id)
    )
    if row is None:
        return None
    return ReportHead(report_id, row["patient_id"].bytes, row["newest"], row["was_final"])


def identity_of(report: Report) -> Identity:
    """Whom it says that it is about: their documents are numbers of systems called id:KIND."""
    numbers, documents = [], []
    for one in report.patient.numbers:
        kind = DOCUMENTS.get(one.system)
        if kind is None:
            numbers.append(Number(one.system, one.number))
        else:
            documents.append((kind, one.number))
    return Identity(tuple(numbers), tuple(documents), report.patient.name)
