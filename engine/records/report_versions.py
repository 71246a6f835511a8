"""Versions of a report, sealed with the patient's record key: written once, opened for who may read."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain.reports import Attachment, Report, as_body, of_body
from engine.records.sealed_people import record_key
from engine.vault.vault import DataKey, Vault

BODY: Final = "report_version.body"
ATTACHMENT: Final = "report_attachment.body"
DIGEST: Final = "report_version.digest"


@dataclass(frozen=True, slots=True)
class Version:
    """One, opened."""

    version: int
    received_at: datetime
    is_late: bool
    report: Report  # its attachments without content
    sizes: tuple[int, ...]  # bytes of each attachment


def digest_of(vault: Vault, report: Report) -> bytes:
    """Of all that it says, attachments included, whenever they sent it."""
    said = as_body(report)
    del said["changed_at"], said["issued_at"]
    return vault.index(DIGEST, orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode())


async def add(
    connection: asyncpg.Connection,
    vault: Vault,
    key: DataKey,
    report_id: bytes,
    version: int,
    report: Report,
    is_late: bool,
    now: datetime,
) -> None:
    id_ = UUID(bytes=report_id)
    row = _row(report_id, version)
    text = orjson.dumps(as_body(report, with_contents=False)).decode()
    await connection.execute(
        "insert into report_version"
        "   (report_id, version, status, changed_at, received_at, is_late, digest, body)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        id_,
        version,
        report.status.value,
        report.changed_at,
        now,
        is_late,
        digest_of(vault, report),
        vault.seal(key, BODY, row, text),
    )
    for n, one in enumerate(report.attachments, 1):
        await connection.execute(
            "insert into report_attachment (report_id, version, n, media_type, bytes, body)"
            " values ($1, $2, $3, $4, $5, $6)",
            id_,
            version,
            n,
            one.media_type,
            len(one.content),
            vault.seal(key, ATTACHMENT, _row(report_id, version, n), one.content.decode("latin-1")),
        )


async def versions_of(
    connection: asyncpg.Connection, vault: Vault, report_id: bytes, patient_id: bytes
) -> list[Version]:
    """Oldest first, as they came. Nothing of who is forgotten: nobody can open it."""
    rows = await connection.fetch(
        "select v.version, v.received_at, v.is_late, v.body, p.record_key,"
        "       array(select bytes from report_attachment a where a.report_id = v.report_id"
        "             and a.version = v.version order by n) as sizes"
        "  from report_version v, patient p where v.report_id = $1 and p.id = $2 order by v.version",
        UUID(bytes=report_id),
        UUID(bytes=patient_id),
    )
    found = []
    for row in rows:
        report = opened(vault, patient_id, row["record_key"], report_id, row["version"], row["body"])
        if report is not None:
            version = Version(row["version"], row["received_at"], row["is_late"], report, tuple(row["sizes"]))
            found.append(version)
    return found


def opened(
    vault: Vault, patient_id: bytes, wrapped: bytes | None, report_id: bytes, version: int, sealed: bytes
) -> Report | None:
    """None where nobody can read it any more."""
    text = vault.open(record_key(patient_id, wrapped), BODY, _row(report_id, version), sealed)
    return None if text is None else of_body(orjson.loads(text))


async def attachment(
    connection: asyncpg.Connection, vault: Vault, report_id: bytes, patient_id: bytes, version: int, n: int
) -> Attachment | None:
    """With its content. None: there is no such one, or nobody can open it any more."""
    row = await connection.fetchrow(
        "select a.media_type, a.body, p.record_key from report_attachment a, patient p"
        " where a.report_id = $1 and a.version = $2 and a.n = $3 and p.id = $4",
        UUID(bytes=report_id),
        version,
        n,
        UUID(bytes=patient_id),
    )
    if row is None:
        return None
    key = record_key(patient_id, row["record_key"])
    text = vault.open(key, ATTACHMENT, _row(report_id, version, n), row["body"])
    return None if text is None else Attachment(row["media_type"], text.encode("latin-1"))


def _row(report_id: bytes, *numbers: int) -> bytes:
    """What stands for the id of a row of either table."""
    return report_id + b"".join(number.to_bytes(4, "big") for number in numbers)
