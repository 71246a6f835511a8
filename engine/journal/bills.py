"""What a bill's events write beside themselves: rows of the bill, its payments and refunds, the postings of
the ledger, and what others must do next."""

from dataclasses import astuple
from typing import Final

from engine.domain import hospital_orders
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.journal.journal import Entry, More

FIRST_LOOK_MS: Final = 2_000
"""Whoever starts a payment asks its provider at once; the errand sees to it where he did not."""


def enact_bill(bill: p.Bill, key: BillKey, events: list[p.Event], now: int, version: int) -> list[Entry]:
    """Applies what one command has brought; `version` is the first event's in the stream. As journal.enact,
    but with what is written beside them at the last event: each row once. Bills hold no claims."""
    more = More()
    bill_id = key.bill_id.hex()
    is_to_be_told = False
    for n, event in enumerate(events):
        p.apply(bill, event)
        more.postings += [
            [bill_id, version + n, place, bill.at, account, fen]
            for place, (account, fen) in enumerate(p.postings(event), 1)
        ]
        match event:
            case (
                p.PaymentStarted()
                | p.PrepayReady()
                | p.PaymentUncertain()
                | p.PaymentEnded()
                | p.PaymentReceived()
            ):
                more.payments[event.attempt_id.hex()] = payment_row(bill, key, event.attempt_id)
            case (
                p.RefundRequested()
                | p.RefundSent()
                | p.RefundUncertain()
                | p.RefundReset()
                | p.RefundRejected()
                | p.RefundDone()
            ):
                more.refunds[event.refund_id.hex()] = refund_row(bill, key, event.refund_id)
            case p.SeatChanged() if event.successor != event.appointment_id:
                # What happened to it before this is committed was reported to nobody.
                look: dict[str, object] = {"cause": "look", "at": bill.at}
                more.due.append(["bill_seat", event.successor.hex(), look, 0])
            case _:
                pass
        is_to_be_told |= isinstance(event, p.BillSettled | p.RefundDone)
    more.bills[bill_id] = bill_row(bill, version + len(events) - 1)
    more.due += _due(bill, bill_id, now)
    assert bill.opened is not None
    if is_to_be_told and bill.opened.order.startswith(hospital_orders.PREFIX):
        more.due.append(["hospital_billing", bill_id, {}, 0])
    entries = [Entry(key.stream, event, now) for event in events]
    entries[-1].more = more
    return entries


def _due(bill: p.Bill, bill_id: str, now: int) -> list[list[object]]:
    """When somebody has to look after it next: at most one errand a bill."""
    due = [errand.due for errand in p.errands(bill) if errand.do != p.Do.REFUND_BY_HAND]
    if not due:
        return []
    begins = any(
        attempt.state is p.Paying.CREATED and attempt.since == bill.at for attempt in bill.attempts.values()
    )
    return [["bill", bill_id, {}, max(FIRST_LOOK_MS if begins else 0, min(due) - now)]]


# The rows, as their tables show them (0027); times in ms, None where it has not come to that.


def bill_row(bill: p.Bill, version: int) -> list[object]:
    opened, told = bill.opened, p.told(bill)
    assert opened is not None
    return [
        opened.account_id.hex(),
        opened.patient_id.hex(),
        opened.order,
        [list(astuple(line)) for line in opened.lines],
        [list(astuple(discount)) for discount in opened.discounts],
        opened.fen,
        opened.pay_by or None,
        [opened.department_id, opened.number_class_id],
        bill.appointment_id.hex() or None,
        bill.starts_at or None,
        int(bill.seat),
        str(told.status),
        str(bill.closed),
        bill.is_deferred,
        bill.is_settled,
        bill.paid_by.hex() or None,
        told.paid,
        told.refunded,
        told.owed_back,
        told.kept,
        bill.at,
        version,
    ]


def payment_row(bill: p.Bill, key: BillKey, attempt_id: bytes) -> list[object]:
    attempt = bill.attempts[attempt_id]
    return [
        key.bill_id.hex(),
        attempt.provider,
        attempt.merchant_id,
        attempt.fen,
        int(attempt.state),
        attempt.code,
        attempt.transaction_id,
        attempt.received,
        attempt.is_matched,
        attempt.begun,
        attempt.since,
        attempt.paid_at or None,
    ]


def refund_row(bill: p.Bill, key: BillKey, refund_id: bytes) -> list[object]:
    refund = bill.refunds[refund_id]
    return [
        key.bill_id.hex(),
        refund.attempt_id.hex(),
        refund.fen,
        str(refund.cause),
        int(refund.state),
        refund.code,
        refund.provider,
        refund.reference,
        refund.begun,
        refund.since,
    ]
