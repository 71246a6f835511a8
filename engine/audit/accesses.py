"""Who had to do with a person's data, and whose data one of the staff had to do with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from engine.domain.by import by_staff
from engine.domain.ids import BILL_PREFIX, BillKey
from engine.journal.codec import unpack_event


@dataclass(frozen=True, slots=True)
class Access:
    """A reading or a change of one patient's data."""

    id: int  # of the entry: what a next page begins before
    at: datetime
    action: str
    by_kind: str
    by_id: bytes | None
    by_name: str | None  # user name of staff
    roles: tuple[str, ...]  # of the staff, as they are now
    department_id: str | None
    object_kind: str | None
    outcome: str
    reason: str | None
    is_break_glass: bool  # the glass was broken for it, or it was read behind broken glass


async def accesses_of(
    connection: asyncpg.Connection,
    patient_id: bytes,
    before: int | None = None,
    limit: int = 50,
    only_readings: bool = False,
) -> list[Access]:
    """Newest first, those with a smaller id than `before`."""
    rows = await connection.fetch(
        "select e.id, e.at, e.action, e.by_kind, e.by_id, e.by_name, e.object_kind, e.outcome, e.reason,"
        "       s.roles, s.department_id,"
        "       e.action like '%glass%' or coalesce(e.detail->>'relation' = 'broken_glass', false)"
        "         as is_break_glass"
        "  from audit_entry e left join staff s on e.by_kind = 'staff' and s.id = e.by_id"
        " where e.subjects @> array[$1::uuid] and ($2::bigint is null or e.id < $2)"
        "   and (not $4::boolean or e.action like '%\\_read')"
        " order by e.id desc limit $3",
        UUID(bytes=patient_id),
        before,
        limit,
        only_readings,
    )
    return [
        Access(
            row["id"],
            row["at"],
            row["action"],
            row["by_kind"],
            None if row["by_id"] is None else row["by_id"].bytes,
            row["by_name"],
            tuple(row["roles"] or ()),
            row["department_id"],
            row["object_kind"],
            row["outcome"],
            row["reason"],
            row["is_break_glass"],
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Affected:
    """A patient whose data one of the staff read or changed."""

    patient_id: bytes
    times: int
    first_at: datetime
    last_at: datetime
    actions: tuple[str, ...]


async def affected(
    connection: asyncpg.Connection, by_id: bytes, since: datetime, until: datetime
) -> list[Affected]:
    """After a breach: whose data somebody (of the staff, or a patient's account) read or changed from `since`
    until before `until`, by the audit and by the journal. Whose was had most often comes first."""
    rows = await connection.fetch(
        "select subject, at, action from audit_entry, unnest(subjects) as subject"
        " where by_id = $1 and at >= $2 and at < $3 and outcome = 'done'",
        UUID(bytes=by_id),
        since,
        until,
    )
    seen = [(row["subject"].bytes, row["at"], row["action"]) for row in rows]
    seen += await _by_the_journal(connection, by_id, since, until)
    found: dict[bytes, list[tuple[datetime, str]]] = {}
    for patient_id, at, action in seen:
        found.setdefault(patient_id, []).append((at, action))
    people = [
        Affected(
            patient_id,
            len(had),
            min(at for at, _ in had),
            max(at for at, _ in had),
            tuple(sorted({action for _, action in had})),
        )
        for patient_id, had in found.items()
    ]
    return sorted(people, key=lambda one: (-one.times, one.patient_id))


async def _by_the_journal(
    connection: asyncpg.Connection, by_id: bytes, since: datetime, until: datetime
) -> list[tuple[bytes, datetime, str]]:
    """Events that name this account or this member of the staff: patient, when, and the event's name."""
    rows = await connection.fetch(
        "select stream, at, type, data from event"
        " where at >= $1 and at < $2 and (position($3 in data) > 0 or position($4 in data) > 0)"
        " order by shard, seq",
        since,
        until,
        by_staff(by_id).encode(),
        by_id,
    )
    events = [(row["stream"], row["at"], unpack_event(row["type"], row["data"])) for row in rows]
    tickets = await _patients(connection, "ticket", [getattr(one, "ticket_id", b"") for *_, one in events])
    numbers = await _patients(
        connection, "appointment", [getattr(one, "appointment_id", b"") for *_, one in events]
    )
    bills = await _patients(connection, "bill", [_bill_id(stream) for stream, *_ in events])
    found = []
    for stream, at, event in events:
        patients = [getattr(event, "patient_id", b""), *getattr(event, "patient_ids", ())]
        patients.append(tickets.get(getattr(event, "ticket_id", b""), b""))
        patients.append(numbers.get(getattr(event, "appointment_id", b""), b""))
        patients.append(bills.get(_bill_id(stream), b""))
        found += [(one, at, type(event).__name__) for one in dict.fromkeys(patients) if one]
    return found


def _bill_id(stream: str) -> bytes:
    """b"": it is no bill's."""
    return BillKey.of_stream(stream).bill_id if stream.startswith(BILL_PREFIX) else b""


async def _patients(
    connection: asyncpg.Connection, table: Literal["ticket", "appointment", "bill"], ids: list[bytes]
) -> dict[bytes, bytes]:
    wanted = [UUID(bytes=one) for one in set(ids) if one]
    rows = await connection.fetch(f"select id, patient_id from {table} where id = any ($1::uuid[])", wanted)
    return {row["id"].bytes: row["patient_id"].bytes for row in rows}
