"""A bill as the cashier's desk sees it: with every payment and refund, and what of each line may go back."""

from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from aiohttp import web

from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.payment import BY_HAND_AFTER_MS
from engine.domain.price_rules import Kind
from engine.journal.streams import read_bill
from engine.records import bills
from engine.records.bills import BillRow, PaymentRow, RefundRow
from engine.records.day_people import patient_names
from web import keys
from web.bills.words import PAYMENT_STATES, REFUND_STATES
from web.cashier import bodies
from web.patient.appointments import uuid

_BY_HAND_AFTER: Final = timedelta(milliseconds=BY_HAND_AFTER_MS)


async def bill_answer(
    app: web.Application, connection: asyncpg.Connection, bill_id: bytes
) -> bodies.DeskBillAnswer:
    """As it is committed. There is such a bill."""
    row = await bills.bill(connection, bill_id)
    assert row is not None
    payments = await bills.payments_of(connection, bill_id)
    refunds = await bills.refunds_of(connection, bill_id)
    left = p.left_of(await read_bill(connection, BillKey(bill_id)))
    names = await patient_names(connection, app[keys.VAULT], [row.patient_id])
    by = {one.id: one.provider for one in payments}
    classes = app[keys.AVAILABILITY].catalog.number_classes
    return bodies.DeskBillAnswer(
        **_outline(app, row),
        patient_name=names.get(row.patient_id, ""),
        kept=row.kept,
        closed=row.closed,
        lines=[
            bodies.DeskLineAnswer(
                one.line_id,
                one.kind,
                one.item,
                classes[one.item].name if one.kind == Kind.REGISTRATION and one.item in classes else "",
                one.quantity,
                one.fen,
                left.get(one.line_id, 0),
            )
            for one in row.lines
        ],
        discounts=[
            bodies.DeskDiscountAnswer(one.line_id, one.rule, one.name, one.fen) for one in row.discounts
        ],
        payments=[_payment(app, one) for one in payments],
        refunds=[_refund(app, one, by[one.payment_id]) for one in refunds],
    )


def outline_answer(app: web.Application, row: BillRow) -> bodies.DeskOutlineAnswer:
    return bodies.DeskOutlineAnswer(**_outline(app, row))


def _outline(app: web.Application, row: BillRow) -> dict[str, Any]:
    return {
        "id": uuid(row.id),
        "status": row.status,
        "fee": row.fen,
        "paid": row.paid,
        "refunded": row.refunded,
        "owed_back": row.owed_back,
        "patient_id": uuid(row.patient_id),
        "appointment_id": None if row.appointment_id is None else uuid(row.appointment_id),
        "department_id": row.department_id,
        "department_name": department_name(app, row.department_id),
        "start": _local(app, row.starts_at),
        "pay_by": _local(app, row.pay_by),
        "opened_at": row.opened_at.astimezone(app[keys.ZONE]),
    }


def department_name(app: web.Application, department_id: str) -> str | None:
    department = app[keys.AVAILABILITY].catalog.departments.get(department_id)
    return None if department is None else department.name


def by_hand_from(state: int, provider: str, since: datetime) -> datetime | None:
    """From when on the desk may pay a refund in cash. `provider`: that the money came by."""
    if state == p.Refunding.REQUESTED and provider == p.AT_HOSPITAL:
        return since
    return since + _BY_HAND_AFTER if state == p.Refunding.REFUSED else None


def _payment(app: web.Application, row: PaymentRow) -> bodies.DeskPaymentAnswer:
    return bodies.DeskPaymentAnswer(
        uuid(row.id),
        row.provider,
        PAYMENT_STATES[p.Paying(row.state)],
        row.fen,
        row.received,
        row.transaction_id,
        row.is_matched,
        (row.paid_at or row.since).astimezone(app[keys.ZONE]),
    )


def _refund(app: web.Application, row: RefundRow, provider: str) -> bodies.DeskRefundAnswer:
    return bodies.DeskRefundAnswer(
        uuid(row.id),
        uuid(row.payment_id),
        row.fen,
        REFUND_STATES[p.Refunding(row.state)],
        row.cause,
        row.code,
        row.provider,
        row.reference,
        _local(app, by_hand_from(row.state, provider, row.since)),
        row.since.astimezone(app[keys.ZONE]),
    )


def _local(app: web.Application, at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(app[keys.ZONE])
