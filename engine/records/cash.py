"""Cash that a desk took or gave: its receipts, and what waits for the desk.

A receipt's number is given before the bill hears of the money, so the journal has it. Numbers of a day count
from 1 without a gap. One whose bill refused the money stays, and is void: it counts only where the payment or
the refund says the same number.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg

Executor: TypeAlias = asyncpg.Connection | asyncpg.Pool
Kind = Literal["in", "out"]

WAITING_MAX: Final = 500
RECEIPTS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class NewReceipt:
    command_id: bytes
    kind: Kind
    bill_id: bytes
    subject: bytes  # the payment; the refund
    fen: int
    staff_id: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    number: str  # 20261123-000042
    new: NewReceipt
    at: datetime
    is_new: bool  # given just now; False: to an earlier try of the same command


def number_of(day: date, nth: int) -> str:
    return f"{day:%Y%m%d}-{nth:06d}"


async def receipt_for(connection: asyncpg.Connection, new: NewReceipt, day: date, now: datetime) -> Receipt:
    """Within the caller's transaction: others wait for it, so that no number is left out. `day` is the
    hospital's. The same command has the same receipt, whatever it says the second time: look at `new`."""
    await connection.execute("insert into cash_day (day) values ($1) on conflict (day) do nothing", day)
    given = await connection.fetchval("select given from cash_day where day = $1 for update", day)
    known = await connection.fetchrow(
        "select * from cash_receipt where command_id = $1", UUID(bytes=new.command_id)
    )
    if known is not None:
        return _receipt(known)
    nth = given + 1
    await connection.execute("update cash_day set given = $2 where day = $1", day, nth)
    await connection.execute(
        "insert into cash_receipt (day, nth, command_id, kind, bill_id, subject, fen, staff_id, at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        day,
        nth,
        UUID(bytes=new.command_id),
        new.kind,
        UUID(bytes=new.bill_id),
        UUID(bytes=new.subject),
        new.fen,
        UUID(bytes=new.staff_id),
        now,
    )
    return Receipt(number_of(day, nth), new, now, True)


def _receipt(row: asyncpg.Record) -> Receipt:
    new = NewReceipt(
        row["command_id"].bytes,
        row["kind"],
        row["bill_id"].bytes,
        row["subject"].bytes,
        row["fen"],
        row["staff_id"].bytes,
    )
    return Receipt(number_of(row["day"], row["nth"]), new, row["at"], False)


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    number: str
    kind: Kind
    bill_id: bytes
    fen: int
    at: datetime
    is_void: bool  # the bill refused the money, so none changed hands


_NUMBER: Final = "to_char(r.day, 'YYYYMMDD') || '-' || lpad(r.nth::text, 6, '0')"
_IS_GOOD: Final = f"""
case r.kind
when 'in' then exists (select from payment p where p.id = r.subject and p.provider = 'at_hospital'
                           and p.received > 0 and p.transaction_id = {_NUMBER})
else exists (select from refund b where b.id = r.subject and b.state = 5 and b.provider = 'at_hospital'
                and b.reference = {_NUMBER})
end"""


async def receipts_of(
    executor: Executor, staff_id: bytes, since: datetime, until: datetime
) -> list[ReceiptRow]:
    """Of one cashier, in order; the first RECEIPTS_MAX."""
    rows = await executor.fetch(
        f"select {_NUMBER} as number, r.kind, r.bill_id, r.fen, r.at, {_IS_GOOD} as is_good"
        "  from cash_receipt r where r.staff_id = $1 and r.at >= $2 and r.at < $3"
        " order by r.day, r.nth limit $4",
        UUID(bytes=staff_id),
        since,
        until,
        RECEIPTS_MAX,
    )
    return [
        ReceiptRow(r["number"], r["kind"], r["bill_id"].bytes, r["fen"], r["at"], not r["is_good"])
        for r in rows
    ]


async def totals_of(
    executor: Executor, staff_id: bytes, since: datetime, until: datetime
) -> dict[Kind, tuple[int, int]]:
    """What one cashier took and gave back, of all receipts that are not void: fen, and how many."""
    rows = await executor.fetch(
        "select kind, sum(fen)::bigint as fen, count(*)::int as count from cash_receipt r"
        f" where staff_id = $1 and at >= $2 and at < $3 and {_IS_GOOD} group by kind",
        UUID(bytes=staff_id),
        since,
        until,
    )
    found: dict[Kind, tuple[int, int]] = {"in": (0, 0), "out": (0, 0)}
    return found | {row["kind"]: (row["fen"], row["count"]) for row in rows}


async def who_took(executor: Executor, subject: bytes) -> str | None:
    """The name of the cashier of a payment, or of a refund in cash."""
    name: str | None = await executor.fetchval(
        f"select s.name from cash_receipt r join staff s on s.id = r.staff_id"
        f" where r.subject = $1 and {_IS_GOOD} limit 1",
        UUID(bytes=subject),
    )
    return name


# What waits.


@dataclass(frozen=True, slots=True)
class RefundWaiting:
    """A refund that only the desk can end: of cash, or one that the provider has refused."""

    refund_id: bytes
    bill_id: bytes
    department_id: str
    fen: int
    cause: str
    provider: str  # that the money came by
    code: str  # why that one refused
    since: datetime


async def refunds_waiting(executor: Executor) -> list[RefundWaiting]:
    """The oldest first."""
    rows = await executor.fetch(
        "select r.id, r.bill_id, b.department_id, r.fen, r.cause, p.provider, r.code, r.since"
        "  from refund r join payment p on p.id = r.payment_id join bill b on b.id = r.bill_id"
        " where r.state = 4 or (r.state = 1 and p.provider = 'at_hospital') order by r.since, r.id limit $1",
        WAITING_MAX,
    )
    return [RefundWaiting(row[0].bytes, row[1].bytes, *row[2:]) for row in rows]


@dataclass(frozen=True, slots=True)
class InSuspense:
    """Money that is for no bill, and on its way back."""

    payment_id: bytes
    bill_id: bytes
    department_id: str
    provider: str
    fen: int
    cause: str  # double, late, amount
    refund_state: int  # payment.Refunding
    since: datetime


async def in_suspense(executor: Executor) -> list[InSuspense]:
    """The oldest first."""
    rows = await executor.fetch(
        "select p.id, p.bill_id, b.department_id, p.provider, p.received, coalesce(r.cause, ''),"
        "       coalesce(r.state, 1)::int, p.since"
        "  from payment p join bill b on b.id = p.bill_id"
        "  left join refund r on r.payment_id = p.id"
        " where p.received > 0 and not p.is_matched and r.state is distinct from 5"
        " order by p.since, p.id limit $1",
        WAITING_MAX,
    )
    return [InSuspense(row[0].bytes, row[1].bytes, *row[2:]) for row in rows]


# Who stands at the window.


async def number_in_slot(executor: Executor, slot_id: str, number: int) -> bytes | None:
    """The appointment that has this number (序号) now."""
    found: UUID | None = await executor.fetchval(
        "select id from appointment where slot_id = $1 and number = $2 and status <= 4"
        " order by status desc, created_at desc limit 1",
        slot_id,
        number,
    )
    return None if found is None else found.bytes


@dataclass(frozen=True, slots=True)
class Unbilled:
    """A number of a patient that no bill was opened for."""

    appointment_id: bytes
    schedule_id: str
    department_id: str
    status: int
    fee_fen: int
    starts_at: datetime


async def unbilled_of(executor: Executor, patient_id: bytes, since: datetime) -> list[Unbilled]:
    """Those that are held, booked or kept, of visits from `since` on, the earliest first."""
    rows = await executor.fetch(
        "select a.id, a.schedule_id, a.department_id, a.status, a.fee_fen, a.starts_at from appointment a"
        " where a.patient_id = $1 and a.status <= 4 and a.starts_at >= $2"
        "   and not exists (select from bill b where b.appointment_id = a.id)"
        " order by a.starts_at, a.id limit 100",
        UUID(bytes=patient_id),
        since,
    )
    return [Unbilled(row[0].bytes, *row[1:]) for row in rows]
