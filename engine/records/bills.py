"""Reads of bills, their payments and refunds. Only the journal writes them (engine/journal/bills.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain.price_rules import Discount, Line


@dataclass(frozen=True, slots=True)
class BillRow:
    """Amounts in fen. See engine/domain/payment.py Told for what each of them is."""

    id: bytes
    account_id: bytes
    patient_id: bytes
    order: str
    lines: tuple[Line, ...]
    discounts: tuple[Discount, ...]
    fen: int
    pay_by: datetime | None  # None: whenever
    department_id: str
    number_class_id: str
    appointment_id: bytes | None  # that it is for now
    starts_at: datetime | None
    seat: int  # payment.Seat
    status: str  # payment.Status
    closed: str
    is_deferred: bool
    is_settled: bool
    paid_by: bytes | None  # the payment whose money is the bill's
    paid: int
    refunded: int
    owed_back: int
    kept: int
    opened_at: datetime
    updated_at: datetime
    version: int  # of its stream


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """An attempt to pay."""

    id: bytes
    bill_id: bytes
    provider: str
    merchant_id: str
    fen: int
    state: int  # payment.Paying
    code: str
    transaction_id: str
    received: int
    is_matched: bool
    begun_at: datetime
    since: datetime
    paid_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefundRow:
    id: bytes
    bill_id: bytes
    payment_id: bytes
    fen: int
    cause: str
    state: int  # payment.Refunding
    code: str
    provider: str  # that gave it back; "": nobody yet
    reference: str
    begun_at: datetime
    since: datetime


async def bill(executor: asyncpg.Connection | asyncpg.Pool, bill_id: bytes) -> BillRow | None:
    row = await executor.fetchrow("select * from bill where id = $1", bill_id.hex())
    return None if row is None else _bill(row)


async def bills(
    executor: asyncpg.Connection | asyncpg.Pool, bill_ids: Sequence[bytes]
) -> dict[bytes, BillRow]:
    rows = await executor.fetch(
        "select * from bill where id = any ($1::uuid[])", [bill_id.hex() for bill_id in bill_ids]
    )
    return {row["id"].bytes: _bill(row) for row in rows}


async def bill_of_appointment(
    executor: asyncpg.Connection | asyncpg.Pool, appointment_id: bytes
) -> BillRow | None:
    """The first one that is for it now: a change to a dearer number makes a second."""
    found = await bills_of_appointment(executor, appointment_id)
    return found[0] if found else None


async def bills_of_appointment(
    executor: asyncpg.Connection | asyncpg.Pool, appointment_id: bytes
) -> list[BillRow]:
    """All that are for it now, in the order in which they were opened."""
    rows = await executor.fetch(
        "select * from bill where appointment_id = $1 order by opened_at, id", appointment_id.hex()
    )
    return [_bill(row) for row in rows]


async def bills_of_appointments(
    executor: asyncpg.Connection | asyncpg.Pool, appointment_ids: Sequence[bytes]
) -> dict[bytes, BillRow]:
    """As bill_of_appointment, for a whole page."""
    rows = await executor.fetch(
        "select * from bill where appointment_id = any ($1::uuid[]) order by opened_at desc, id desc",
        [appointment_id.hex() for appointment_id in appointment_ids],
    )
    return {row["appointment_id"].bytes: _bill(row) for row in rows}


async def bills_of_account(
    executor: asyncpg.Connection | asyncpg.Pool,
    account_id: bytes,
    before: datetime | None = None,
    limit: int = 50,
    statuses: Sequence[str] | None = None,
) -> list[BillRow]:
    """That this account opened, newest first. `before` pages on from the last's opened_at."""
    rows = await executor.fetch(
        _PAGE.format(whose="account_id = $1"), account_id.hex(), before, limit, statuses
    )
    return [_bill(row) for row in rows]


async def bills_of_patient(
    executor: asyncpg.Connection | asyncpg.Pool,
    patient_id: bytes,
    before: datetime | None = None,
    limit: int = 50,
    statuses: Sequence[str] | None = None,
) -> list[BillRow]:
    """The same, of a patient, whoever opened them."""
    rows = await executor.fetch(
        _PAGE.format(whose="patient_id = $1"), patient_id.hex(), before, limit, statuses
    )
    return [_bill(row) for row in rows]


async def bills_of_patients(
    executor: asyncpg.Connection | asyncpg.Pool,
    account_id: bytes,
    patient_ids: Sequence[bytes],
    before: datetime | None = None,
    limit: int = 50,
    statuses: Sequence[str] | None = None,
) -> list[BillRow]:
    """The same, of any of these patients, and what the account itself opened."""
    rows = await executor.fetch(
        _PAGE.format(whose="(account_id = $1 or patient_id = any ($5::uuid[]))"),
        account_id.hex(),
        before,
        limit,
        statuses,
        [patient_id.hex() for patient_id in patient_ids],
    )
    return [_bill(row) for row in rows]


_PAGE: Final = (
    "select * from bill where {whose} and ($2::timestamptz is null or opened_at < $2)"
    " and ($4::text[] is null or status = any ($4)) order by opened_at desc, id limit $3"
)


async def payments_of(executor: asyncpg.Connection | asyncpg.Pool, bill_id: bytes) -> list[PaymentRow]:
    """In the order in which they were begun."""
    rows = await executor.fetch(
        "select * from payment where bill_id = $1 order by begun_at, id", bill_id.hex()
    )
    return [_payment(row) for row in rows]


async def refunds_of(executor: asyncpg.Connection | asyncpg.Pool, bill_id: bytes) -> list[RefundRow]:
    """In the order in which they were asked for."""
    rows = await executor.fetch(
        "select * from refund where bill_id = $1 order by begun_at, id", bill_id.hex()
    )
    return [_refund(row) for row in rows]


async def payment_by_id(executor: asyncpg.Connection | asyncpg.Pool, attempt_id: bytes) -> PaymentRow | None:
    row = await executor.fetchrow("select * from payment where id = $1", attempt_id.hex())
    return None if row is None else _payment(row)


async def refund_by_id(executor: asyncpg.Connection | asyncpg.Pool, refund_id: bytes) -> RefundRow | None:
    row = await executor.fetchrow("select * from refund where id = $1", refund_id.hex())
    return None if row is None else _refund(row)


async def unpaid_elsewhere(executor: asyncpg.Connection | asyncpg.Pool, account_id: bytes, but: bytes) -> int:
    """How many other bills of this account wait for the desk."""
    count: int = await executor.fetchval(
        "select count(*)::int from bill where account_id = $1 and status = 'at_hospital' and id <> $2",
        account_id.hex(),
        but.hex(),
    )
    return count


def _bill(row: asyncpg.Record) -> BillRow:
    return BillRow(
        id=row["id"].bytes,
        account_id=row["account_id"].bytes,
        patient_id=row["patient_id"].bytes,
        order=row["order_no"],
        lines=tuple(Line(*told) for told in _json(row["lines"])),
        discounts=tuple(Discount(*told) for told in _json(row["discounts"])),
        fen=row["fen"],
        pay_by=row["pay_by"],
        department_id=row["department_id"],
        number_class_id=row["number_class_id"],
        appointment_id=_bytes(row["appointment_id"]),
        starts_at=row["starts_at"],
        seat=row["seat"],
        status=row["status"],
        closed=row["closed"],
        is_deferred=row["is_deferred"],
        is_settled=row["is_settled"],
        paid_by=_bytes(row["paid_by"]),
        paid=row["paid"],
        refunded=row["refunded"],
        owed_back=row["owed_back"],
        kept=row["kept"],
        opened_at=row["opened_at"],
        updated_at=row["updated_at"],
        version=row["version"],
    )


def _payment(row: asyncpg.Record) -> PaymentRow:
    return PaymentRow(row["id"].bytes, row["bill_id"].bytes, *list(row.values())[2:])


def _refund(row: asyncpg.Record) -> RefundRow:
    return RefundRow(row["id"].bytes, row["bill_id"].bytes, row["payment_id"].bytes, *list(row.values())[3:])


def _json(value: str) -> list[list[Any]]:
    found: list[list[Any]] = orjson.loads(value)
    return found


def _bytes(value: UUID | None) -> bytes | None:
    return None if value is None else value.bytes
