"""Which bills an account may see and pay: those of its own numbers, and the hospital's other bills of the
people that it acts for."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.records import appointments, bills
from engine.records.appointments import AppointmentRecord
from engine.records.bills import BillRow
from web import keys
from web.errors import Problem
from web.faults import Fault


@dataclass(frozen=True, slots=True)
class OwnBill:
    row: BillRow | None  # None: not opened yet
    number: AppointmentRecord | None  # that it is for now; None: no number hangs on it

    @property
    def patient_id(self) -> bytes:
        if self.row is not None:
            return self.row.patient_id
        assert self.number is not None
        return self.number.patient_id


async def own_bill(app: web.Application, bill_id: bytes, account_id: bytes) -> OwnBill:
    """Raises Problem no_such_bill: whether somebody else has it is not told."""
    pool, vault = app[keys.POOL], app[keys.VAULT]
    row = await bills.bill(pool, bill_id)
    number = None
    if row is None:
        number = await appointments.appointment(pool, vault, bill_id, account_id)
    elif row.appointment_id is not None:
        number = await appointments.appointment(pool, vault, row.appointment_id, account_id)
    elif await acts_for(pool, account_id, row.patient_id):
        return OwnBill(row, None)
    if number is None:
        raise Problem(Fault.NO_SUCH_BILL)
    return OwnBill(row, number)


async def acts_for(pool: asyncpg.Pool, account_id: bytes, patient_id: bytes) -> bool:
    """Himself, or somebody who may pay for him and see what was done."""
    return bool(
        await pool.fetchval(
            "select exists (select from account_patient ap"
            f"               where ap.account_id = $1 and ap.patient_id = $2 and {_ACTS})",
            UUID(bytes=account_id),
            UUID(bytes=patient_id),
            datetime.now(UTC),
        )
    )


_ACTS: Final = (
    "ap.revoked_at is null and (ap.expires_at is null or ap.expires_at > $3) and ap.may_pay and ap.may_see"
)


async def own_bills(
    app: web.Application,
    account_id: bytes,
    statuses: list[str] | None,
    before: datetime | None,
    limit: int,
) -> list[BillRow]:
    """Newest first. What `own_bill` would not show is left out."""
    pool = app[keys.POOL]
    rows = await pool.fetch(_LIST, UUID(bytes=account_id), before, datetime.now(UTC), statuses, limit)
    found = await bills.bills(pool, [row["id"].bytes for row in rows])
    return [found[row["id"].bytes] for row in rows]


# As records.appointments shows visits: those that took place are not shown where the patient said so.
_LIST: Final = f"""
select b.id from bill b
 where ($2::timestamptz is null or b.opened_at < $2) and ($4::text[] is null or b.status = any ($4))
   and (b.account_id = $1 and b.appointment_id is not null
        and not exists (select from appointment a join account_patient h
                            on h.account_id = $1 and h.patient_id = a.patient_id and not h.may_see
                         where a.id = b.appointment_id and a.status in (3, 4, 6))
        or b.appointment_id is null
        and b.patient_id in (select ap.patient_id from account_patient ap
                              where ap.account_id = $1 and {_ACTS}))
 order by b.opened_at desc, b.id limit $5"""
