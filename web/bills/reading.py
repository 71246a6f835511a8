"""What a bill is over, how it was paid, and what of it went back."""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final, cast

from aiohttp import web

from actors.changes import ms
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.price_rules import Discount, Line
from engine.records.appointments import AppointmentRecord
from engine.records.bills import BillRow
from engine.records.payment_orders import openid_of
from web import keys
from web.auditing import noted_delegation
from web.bills import bodies, pricing, words
from web.bills.asking import bill_now
from web.bills.own import OwnBill, own_bill, own_bills
from web.faults import Fault, Text
from web.hospital_billing.names import names_of
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import BillStatusWord
from web.patient.bodies import Provider as ProviderWord
from web.queues.ticket_bodies import NameAnswer

_PAYABLE: Final = (p.Status.OPEN, p.Status.AT_HOSPITAL)


@api.route(
    "GET",
    "/api/v1/bills/{id}",
    zh="账单详情",
    tags=["bills"],
    errors=[Fault.NO_SUCH_BILL, Fault.DATABASE_DOWN],
)
async def read_bill(request: web.Request, *, account_id: bytes, path: bodies.BillPath) -> bodies.BillAnswer:
    """What it is over, with discounts and their reasons; payments, refunds; until when to pay. Of a number
    whose bill is not opened yet (`opened_at` null): what it would be."""
    app, bill_id = request.app, path.id.bytes
    own = await own_bill(app, bill_id, account_id)
    await noted_delegation(request, account_id, "bill_read", [own.patient_id])
    return await described(app, account_id, bill_id, own)


@api.route("GET", "/api/v1/bills", zh="我的账单", tags=["bills"], errors=[Fault.DATABASE_DOWN])
async def list_bills(
    request: web.Request, *, account_id: bytes, query: bodies.BillsQuery
) -> bodies.BillsAnswer:
    """Of this account's numbers, and the hospital's other bills of the people it acts for; newest first."""
    app = request.app
    statuses = None if query.status is None else [str(word) for word in query.status]
    found = await own_bills(app, account_id, statuses, query.before, query.limit + 1)
    page = found[: query.limit]
    await noted_delegation(request, account_id, "bill_read", [row.patient_id for row in page])
    more = page[-1].opened_at if len(found) > query.limit else None
    return bodies.BillsAnswer([_outline(app, row) for row in page], more)


async def described(
    app: web.Application, account_id: bytes, bill_id: bytes, own: OwnBill
) -> bodies.BillAnswer:
    if own.row is None:
        assert own.number is not None
        return await _preview(app, account_id, own.number)
    bill = await bill_now(app, bill_id)
    opened = bill.opened
    assert opened is not None
    outline = _outline(app, own.row)
    names = (await names_of(app, [bill_id])).get(bill_id, {})
    payable = outline.status in _PAYABLE and _is_open(bill, opened)
    zone = app[keys.ZONE]
    payments = [
        bodies.PaymentOfBillAnswer(
            uuid(attempt_id),
            cast(ProviderWord, attempt.provider),
            words.PAYMENT_STATES[attempt.state],
            _name(words.PAYMENT[attempt.state]),
            attempt.received or attempt.fen,
            _time(app, attempt.begun),
            _time(app, attempt.paid_at or attempt.since) if attempt.state is p.Paying.PAID else None,
            attempt.is_matched or attempt.state is not p.Paying.PAID,
        )
        for attempt_id, attempt in bill.attempts.items()
    ]
    refunds = [
        bodies.RefundOfBillAnswer(
            uuid(refund_id),
            refund.fen,
            words.REFUND_STATES[refund.state],
            _name(words.REFUND[refund.state]),
            _name(words.CAUSES.get(refund.cause, words.OTHER_CAUSE)),
            uuid(refund.attempt_id),
            refund.provider,
            _time(app, refund.begun),
            _time(app, refund.since) if refund.state is p.Refunding.DONE else None,
        )
        for refund_id, refund in bill.refunds.items()
    ]
    return bodies.BillAnswer(
        **{name: getattr(outline, name) for name in bodies.BillOutlineAnswer.__dataclass_fields__},
        lines=[_line(app, line, names) for line in opened.lines],
        discounts=[_discount(discount, zone) for discount in opened.discounts],
        payments=payments,
        refunds=refunds,
        providers=await _providers(app, account_id) if payable else [],
    )


async def _preview(app: web.Application, account_id: bytes, number: AppointmentRecord) -> bodies.BillAnswer:
    """Of a bill that nobody has opened: nothing is written for looking at it."""
    priced = await pricing.priced(app, number, None)
    is_held = number.status == s.Status.PENDING
    gone = number.status in (s.Status.CANCELLED, s.Status.NOSHOW) or (
        is_held and ms(number.hold_until) <= ms(datetime.now(UTC))
    )
    status: BillStatusWord = "closed" if gone else "open"
    zone = app[keys.ZONE]
    return bodies.BillAnswer(
        id=uuid(number.id),
        status=status,
        text=_name(words.BILL[status]),
        fee=priced.fen,
        paid=0,
        refunded=0,
        owed_back=0,
        kept=0,
        pay_by=(number.hold_until if is_held else number.starts_at).astimezone(zone),
        patient_id=uuid(number.patient_id),
        appointment_id=uuid(number.id),
        opened_at=None,
        lines=[_line(app, line, {}) for line in priced.lines],
        discounts=[_discount(discount, zone) for discount in priced.discounts],
        payments=[],
        refunds=[],
        providers=[] if gone else await _providers(app, account_id),
    )


def _is_open(bill: p.Bill, opened: p.BillOpened) -> bool:
    """Whether anybody may begin to pay it now."""
    if bill.paid_by or bill.closed or not opened.fen:
        return False
    return bill.seat is not p.Seat.HELD or not opened.pay_by or opened.pay_by > ms(datetime.now(UTC))


async def _providers(app: web.Application, account_id: bytes) -> list[ProviderWord]:
    found: list[ProviderWord] = []
    known = await openid_of(app[keys.POOL], account_id) is not None
    for provider in app[keys.PROVIDERS]:
        if known or not provider.needs_openid:
            found.append(cast(ProviderWord, provider.name))
    if app[keys.POLICY].policy.money.at_hospital is not None:
        found.append("at_hospital")
    return found


def _outline(app: web.Application, row: BillRow) -> bodies.BillOutlineAnswer:
    zone = app[keys.ZONE]
    return bodies.BillOutlineAnswer(
        uuid(row.id),
        cast(BillStatusWord, row.status),
        _name(words.BILL[row.status]),
        row.fen,
        row.paid,
        row.refunded,
        row.owed_back,
        row.kept,
        None if row.pay_by is None else row.pay_by.astimezone(zone),
        uuid(row.patient_id),
        None if row.appointment_id is None else uuid(row.appointment_id),
        row.opened_at.astimezone(zone),
    )


def _line(app: web.Application, line: Line, names: Mapping[str, str]) -> bodies.BillLineAnswer:
    name = names.get(line.line_id)
    text = Text(name, name) if name is not None else words.KINDS.get(line.kind)
    return bodies.BillLineAnswer(
        line.line_id, line.kind, line.item, None if text is None else _name(text), line.quantity, line.fen
    )


def _discount(discount: Discount, zone: tzinfo) -> bodies.DiscountAnswer:
    until = datetime.fromtimestamp(discount.until / 1000, zone) if discount.until else None
    return bodies.DiscountAnswer(
        discount.line_id,
        discount.rule,
        discount.name,
        discount.fen,
        discount.percent,
        until,
        _name(words.RULES.get(discount.rule, Text(discount.name, discount.name))),
    )


def _name(text: Text) -> NameAnswer:
    return NameAnswer(text.zh, text.en)


def _time(app: web.Application, at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, app[keys.ZONE])
