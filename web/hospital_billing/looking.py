"""Whether a bill still stands at the billing: asked before somebody pays it, and when it says that something
has changed. What was paid at a window, withdrawn or changed meanwhile is closed here, or given back."""

import contextlib
from collections.abc import Collection
from typing import Any, Final

from aiohttp import web

from actors.errands import TryAgain as Later
from engine.domain import payment
from engine.domain.by import SYSTEM
from engine.domain.hospital_orders import parts_of
from engine.domain.ids import derived
from engine.domain.refusal import Reason, Refusal
from engine.records import bills, hospital_bills
from engine.records.sealed_people import id_index
from integrations.connector import ConnectorFailed
from integrations.hospital_billing.translate import HospitalBill, Status, Unfit
from web import keys
from web.bills.asking import bill_now, tell_bill
from web.errors import Problem
from web.faults import Fault
from web.hospital_billing.alarms import unfit
from web.hospital_billing.billing import is_gone
from web.hospital_billing.opening import digest_of

WITHDRAWN: Final = "withdrawn"
CHANGED: Final = "changed"
PAID_ELSEWHERE: Final = "paid_elsewhere"
NOT_ACCEPTED: Final = (WITHDRAWN, CHANGED, PAID_ELSEWHERE)
"""Why a bill is not to be paid here, and their words for it when they are told of a payment."""


async def must_be_due(app: web.Application, bill_id: bytes, order: str) -> None:
    """Before somebody pays. Raises Problem: bill_closed, and the bill is closed here then; or
    hospital_billing_away, where nobody can say."""
    billing = app.get(keys.HOSPITAL_BILLING)
    parts = parts_of(order)
    if billing is None or parts is None:
        raise Problem(Fault.HOSPITAL_BILLING_AWAY)
    try:
        there = await billing.bill(parts[0])
        await _check(app, bill_id, there, parts[1])
        payments = await bills.payments_of(app[keys.POOL], bill_id)
        why = why_not(there, parts[1], {one.id for one in payments})
    except Unfit as wrong:
        await unfit(app, wrong, bill_id)
        raise Problem(Fault.HOSPITAL_BILLING_AWAY) from None
    except ConnectorFailed as failure:
        if not is_gone(failure):
            raise Problem(Fault.HOSPITAL_BILLING_AWAY) from None
        why = WITHDRAWN
    if not why:
        return
    with contextlib.suppress(Later):  # then the billing closes it with the next look
        await close(app, bill_id, why)
    raise Problem(Reason.BILL_CLOSED, why=why)


class Looking:
    """Handles the errand `hospital_look`."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def look(self, key: str, data: dict[str, Any]) -> None:
        """`key` is a bill that may not stand any more."""
        app, bill_id = self._app, bytes.fromhex(key)
        bill = await bill_now(app, bill_id)
        parts = None if bill.opened is None else parts_of(bill.opened.order)
        if parts is None or (bill.closed and not bill.paid_by):
            return
        try:
            there = await app[keys.HOSPITAL_BILLING].look(parts[0])
            await _check(app, bill_id, there, parts[1])
            why = why_not(there, parts[1], bill.attempts)
        except Unfit as wrong:
            await unfit(app, wrong, bill_id)
            raise Later(f"the billing's answer does not fit: {wrong.why}") from None
        except ConnectorFailed as failure:
            if not is_gone(failure):
                raise Later(str(failure), getattr(failure, "after", None)) from None
            why = WITHDRAWN
        if not why:
            return
        if bill.paid_by:
            await give_back(app, bill, why)
        else:
            await close(app, bill_id, why)


def why_not(there: HospitalBill, revision: int, ours: Collection[bytes]) -> str:
    """Why this revision is not to be paid, or kept paid; "" where nothing is in the way.

    `ours`: ids of the bill's payments. What they have taken is theirs to ask back (a callback), unless the
    bill is withdrawn, or another revision has taken its place.
    """
    if there.status is Status.WITHDRAWN:
        return WITHDRAWN
    if there.revision != revision:
        return CHANGED
    if any(one.id in ours for one in there.payments):
        return ""
    return PAID_ELSEWHERE if there.status is Status.PAID else ""


async def close(app: web.Application, bill_id: bytes, why: str) -> None:
    """Nobody pays it any more. Raises errands.TryAgain where that is not certain."""
    outcome = await tell_bill(
        app, bill_id, payment.CloseBill(derived(b"close hospital", bill_id, why.encode()), why, SYSTEM)
    )
    if isinstance(outcome, Refusal):
        raise Later(f"the bill was not closed: {outcome.reason}")  # somebody has just paid it


async def give_back(app: web.Application, bill: payment.Bill, why: str) -> None:
    """All that is left of what was paid: the hospital gives nothing for it. Raises errands.TryAgain."""
    assert bill.opened is not None and bill.paid_by
    refund_id = derived(b"hospital back", bill.paid_by)
    lines = tuple((line_id, fen) for line_id, fen in payment.left_of(bill).items() if fen > 0)
    if refund_id in bill.refunds or not lines:
        return
    command_id = derived(b"give back", bill.paid_by)
    outcome = await tell_bill(
        app,
        bill.opened.bill_id,
        payment.RequestRefund(command_id, refund_id, lines, f"hospital_{why}", SYSTEM),
    )
    if isinstance(outcome, Refusal):
        raise Later(f"the refund was not accepted: {outcome.reason}")  # part of it has just been given back


async def _check(app: web.Application, bill_id: bytes, there: HospitalBill, revision: int) -> None:
    """Raises Unfit where they speak of somebody else's bill, of a revision before this one, or of another
    content of the same."""
    known = await hospital_bills.seen(app[keys.POOL], bill_id)
    if known is None:
        raise Unfit("unknown_here", there.number)
    index = await hospital_bills.index_of(app[keys.POOL], known.patient_id)
    if index != id_index(app[keys.VAULT], there.identity.id_type, there.identity.number):
        raise Unfit("of_somebody_else", there.number)
    if there.revision < revision:
        raise Unfit("older", there.number)
    if there.revision == revision and digest_of(app[keys.VAULT], there) != known.digest:
        raise Unfit("contradicts", there.number)
