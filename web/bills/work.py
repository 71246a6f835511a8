"""The errands of bills: `bill`, all that stands between one and its rest; `bill_seat`, what became of its
number; `bill_query`, a payment of which a callback said something odd.

Rows of the table `errand`, written with the events that make them necessary: done at least once, by whichever
gateway, also after everybody died. What is due is read from the bill itself each time. docs/PAYMENT.md has
the table of what each one does and reports.
"""

import logging
import time
from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import web

from actors.errands import Handle, TryAgain
from engine.domain import payment as p
from engine.domain.ids import derived
from engine.domain.payment import Do
from engine.domain.refund_rules import Cause
from engine.records import appointments, bills
from engine.records.appointments import AppointmentRecord
from integrations import connector
from web import keys
from web.bills import at_provider, at_schedule
from web.bills.asking import bill_now, tell_bill
from web.bills.at_provider import OfBill
from web.bills.opening import opened_for_more
from web.bills.telling import tell_of
from web.fresh_ids import new_id

log = logging.getLogger(__name__)

ROUNDS_MAX: Final = 8  # of one errand: what is then still due comes again
LEASE_SECONDS_LEFT: Final = 15.0  # begins nothing more after so long: somebody else may take the errand at 30
POLL_SECONDS_MAX: Final = 3_600.0
PRICE_CHANGED: Final = "changed"
"""Why money goes back after a change to a cheaper number."""


_Mark = tuple[str, bytes, p.Paying | p.Refunding | None]


class BillWork:
    """Handles the errands `bill`, `bill_seat` and `bill_query`."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    def handlers(self) -> dict[str, Handle]:
        return {"bill": self.bill, "bill_seat": self.bill_seat, "bill_query": self.bill_query}

    async def bill(self, key: str, data: dict[str, Any]) -> None:
        await attend(self._app, bytes.fromhex(key))

    async def bill_seat(self, key: str, data: dict[str, Any]) -> None:
        await seat_changed(self._app, bytes.fromhex(key), int(data.get("at", 0)))

    async def bill_query(self, key: str, data: dict[str, Any]) -> None:
        """`key` is the attempt: only the provider itself, asked by us, is believed."""
        payment = await bills.payment_by_id(self._app[keys.POOL], bytes.fromhex(key))
        if payment is not None:
            of = OfBill(self._app, payment.bill_id, await bill_now(self._app, payment.bill_id))
            await _trying(at_provider.query_payment(of, payment.id))
            await tell_of(self._app, payment.bill_id, await bill_now(self._app, payment.bill_id))


async def attend(app: web.Application, bill_id: bytes) -> None:
    """Does all that is due. Raises TryAgain where something was not done, or is due later."""
    done: set[_Mark] = set()
    failed: dict[_Mark, TryAgain] = {}
    began = time.monotonic()
    bill = await bill_now(app, bill_id)
    for _ in range(ROUNDS_MAX):
        now = _now(bill)
        due = [one for one in _machine(bill) if one.due <= now and _mark(bill, one) not in done]
        if not due:
            break
        for errand in due:
            if time.monotonic() - began > LEASE_SECONDS_LEFT:
                raise TryAgain("it takes long", 0.0)
            mark = _mark(bill, errand)
            done.add(mark)
            try:
                await _trying(_do(OfBill(app, bill_id, bill), errand))
            except TryAgain as not_done:  # the others need not wait for it
                failed[mark] = not_done
        before, bill = bill, await bill_now(app, bill_id)
        _note_booked(app, before, bill)
    await tell_of(app, bill_id, bill)
    waits = [_wait(bill, one) for one in _machine(bill) if _mark(bill, one) not in failed]
    for again in failed.values():
        if again.after is None:
            raise again  # after the errand's own pause, which grows
        waits.append(again.after)
    if waits:
        raise TryAgain("; ".join(map(str, failed.values())) or "for later", min(waits))


def _machine(bill: p.Bill) -> list[p.Errand]:
    """What no person has to do."""
    return [one for one in p.errands(bill) if one.do != Do.REFUND_BY_HAND]


def _do(of: OfBill, errand: p.Errand) -> Awaitable[None]:
    subject = errand.subject
    match errand.do:
        case Do.ASK_PREPAY:
            return at_provider.ask_prepay(of, subject)
        case Do.QUERY_PAYMENT:
            return at_provider.query_payment(of, subject)
        case Do.CLOSE_PAYMENT:
            return at_provider.close_payment(of, subject)
        case Do.SEND_REFUND:
            return at_provider.send_refund(of, subject)
        case Do.QUERY_REFUND:
            return at_provider.query_refund(of, subject)
        case Do.BOOK_SEAT:
            return at_schedule.book_seat(of, subject)
        case Do.RETAKE_SEAT:
            return at_schedule.retake_seat(of, subject, errand.successor)
        case Do.RELEASE_SEAT:
            return at_schedule.release_seat(of, subject)
        case Do.LOOK_AT_SEAT:
            return at_schedule.look_at_seat(of, subject)
        case Do.CLOSE_BILL:
            return _close_bill(of)
        case _:
            raise AssertionError(errand.do)


async def _close_bill(of: OfBill) -> None:
    await of.tell(p.CloseBill(new_id(), Cause.EXPIRED))


async def _trying(doing: Awaitable[None]) -> None:
    """The connectors' TryAgain is the errands' TryAgain."""
    try:
        await doing
    except connector.TryAgain as again:
        raise TryAgain(str(again), again.after) from None


def _mark(bill: p.Bill, errand: p.Errand) -> _Mark:
    """Done once in a round of work, unless what it is about has come to another state meanwhile."""
    attempt, refund = bill.attempts.get(errand.subject), bill.refunds.get(errand.subject)
    state = attempt.state if attempt is not None else refund.state if refund is not None else None
    return errand.do, errand.subject, state


def _wait(bill: p.Bill, errand: p.Errand) -> float:
    """Seconds until it is worth while. What was asked just now, and is as it was, is asked again after a
    pause that grows with the age of what is asked after."""
    now = _now(bill)
    if errand.due > now:
        return (errand.due - now) / 1000
    attempt, refund = bill.attempts.get(errand.subject), bill.refunds.get(errand.subject)
    begun = attempt.begun if attempt is not None else refund.begun if refund is not None else now
    if errand.do not in (Do.QUERY_PAYMENT, Do.QUERY_REFUND):
        return 1.0
    return min(max(p.POLL_MS / 1000, (now - begun) / 8000), POLL_SECONDS_MAX)


def _now(bill: p.Bill) -> int:
    """In ms. What happened to the bill has happened, whatever the clock of this machine says."""
    return max(int(time.time() * 1000), bill.at)


def _note_booked(app: web.Application, before: p.Bill, after: p.Bill) -> None:
    """How long a patient who had paid waited for his seat."""
    if after.paid_by and after.seat is p.Seat.TAKEN and before.seat is not p.Seat.TAKEN:
        seconds = (after.at - after.attempts[after.paid_by].since) / 1000
        app[keys.METRICS].paid_to_booked.observe(max(0.0, seconds))


# What the schedule's numbers tell.


async def seat_changed(app: web.Application, appointment_id: bytes, at: int) -> None:
    """To all bills that are for this number: what became of it. `at`: when that was, in ms; 0: as its row
    says. Raises TryAgain."""
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], appointment_id)
    rows = await bills.bills_of_appointment(app[keys.POOL], appointment_id)
    if found is None or not rows:
        return
    price = await _price_of_move(app, found)
    for row in rows:
        of = OfBill(app, row.id, await bill_now(app, row.id))
        if price and not row.paid_by and of.bill.seat is not p.Seat.LAPSED:
            # Nobody has paid it, and it is over the wrong amount now: the new number will have its own.
            await of.tell(p.SeatGone(new_id(), found.id, Cause.EXCUSED, at or at_schedule.now_ms()))
        else:
            command = await at_schedule.report_of_seat(app, of.bill, found, at)
            if command is not None:
                await of.tell(command)
    if price:
        await _settle_price(app, found, [row for row in rows if not row.closed], price)
    for row in rows:
        await tell_of(app, row.id, await bill_now(app, row.id))


async def _price_of_move(app: web.Application, found: AppointmentRecord) -> int:
    """改签: by how many fen the new number costs more than this one; 0 where it was not changed."""
    if found.reason != "changed" or found.successor is None:
        return 0
    to = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], found.successor)
    if to is None:
        raise TryAgain("the number that came in its place is not there yet")
    return to.fee_fen - found.fee_fen


async def _settle_price(
    app: web.Application, found: AppointmentRecord, rows: list[bills.BillRow], price: int
) -> None:
    """What was paid follows the new number's price: a second bill over more, or some of it goes back."""
    paid = [row for row in rows if row.paid_by]
    if not paid or found.successor is None:
        return  # the new number's bill is opened when somebody pays it
    to = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], found.successor)
    assert to is not None
    more = price + sum(_listed(row) for row in rows if not row.paid_by)
    if more > 0:
        await opened_for_more(app, to, more)
    for row in reversed(paid):
        if more >= 0:
            break
        listed = _listed(row)
        less = min(-more, listed)
        more += less
        await _give_back(app, row.id, to.id, less, listed)


def _listed(row: bills.BillRow) -> int:
    """What it is over, before discounts."""
    return sum(line.fen for line in row.lines)


async def _give_back(app: web.Application, bill_id: bytes, successor: bytes, less: int, listed: int) -> None:
    """So much less of what it is over; of a bill with a discount, the same share of what was paid."""
    bill = await bill_now(app, bill_id)
    left = p.left_of(bill)
    refund_id = derived(b"price", bill_id, successor)
    if refund_id in bill.refunds:
        return
    parts = tuple((line_id, -(-fen * less // listed)) for line_id, fen in left.items() if fen * less)
    if parts:
        await tell_bill(app, bill_id, p.RequestRefund(new_id(), refund_id, parts, PRICE_CHANGED, "system"))
