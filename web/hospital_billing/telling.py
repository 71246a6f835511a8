"""The billing is told what was paid and what was given back: an errand, written with the events that make it
necessary, done at least once. They know a payment by our id, so that telling it twice is telling it once."""

import logging
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from actors.errands import TryAgain as Later
from engine.domain import payment
from engine.domain.hospital_orders import parts_of
from engine.records import hospital_bills
from engine.records.hospital_bills import Kind, Told
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.hospital_billing.translate import Known, Paid, Refunded, Unfit
from web import keys
from web.bills.asking import bill_now
from web.hospital_billing.alarms import alarm, unfit
from web.hospital_billing.billing import is_gone
from web.hospital_billing.looking import NOT_ACCEPTED, WITHDRAWN, give_back

log = logging.getLogger(__name__)

REFUSED_SECONDS: Final = 300.0
"""What they refuse for a reason that is not of the bill needs a person; until then it is told again."""


class Telling:
    """Handles the errand `hospital_billing`."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def tell(self, key: str, data: dict[str, Any]) -> None:
        """`key` is a bill of theirs that was paid, or of which something was given back."""
        app, bill_id = self._app, bytes.fromhex(key)
        bill = await bill_now(app, bill_id)
        told = await hospital_bills.told_of(app[keys.POOL], bill_id)
        parts = None if bill.opened is None else parts_of(bill.opened.order)
        if parts is None:
            log.error("%s is no bill of the hospital's billing", key)
            return
        if not bill.is_settled or not bill.paid_by:
            return
        known = told.get(bill.paid_by) or await self._paid(bill, *parts)
        if known.outcome == "refused":
            # Who paid and gets nothing for it has his money back. The errand lasts until that is certain.
            await give_back(app, bill, known.code)
            return
        asked = await hospital_bills.asked_as(app[keys.POOL], bill_id)
        for refund_id, refund in bill.refunds.items():
            is_done = refund.state is payment.Refunding.DONE and refund.attempt_id == bill.paid_by
            if is_done and refund_id not in told:
                await self._refunded(bill, refund_id, refund, parts, asked.get(refund_id, ("", "")))

    async def _paid(self, bill: payment.Bill, number: str, revision: int) -> Told:
        assert bill.opened is not None
        attempt = bill.attempts[bill.paid_by]
        paid = Paid(
            number,
            revision,
            bill.paid_by,
            attempt.received,
            attempt.provider,
            attempt.transaction_id,
            attempt.paid_at or attempt.since,
        )
        try:
            receipt = await self._app[keys.HOSPITAL_BILLING].tell_paid(paid)
        except OutcomeUnknown as failure:
            receipt = await self._found(number, "payment", bill.paid_by, paid.fen, failure)
        except TryAgain as failure:
            raise Later(str(failure), failure.after) from None
        except Refused as refused:
            code = WITHDRAWN if is_gone(refused) else refused.code
            if code not in NOT_ACCEPTED:
                raise await self._amiss(bill, refused.code) from None
            return await self._noted(bill, bill.paid_by, "payment", paid.fen, code=code)
        return await self._noted(bill, bill.paid_by, "payment", paid.fen, receipt)

    async def _refunded(
        self,
        bill: payment.Bill,
        refund_id: bytes,
        refund: payment.Refund,
        parts: tuple[str, int],
        asked: tuple[str, str],
    ) -> None:
        asked_as, reason = asked
        refunded = Refunded(
            *parts,
            refund_id,
            refund.attempt_id,
            refund.fen,
            refund.lines,
            reason or "ours",
            refund.reference,
            asked_as,
        )
        try:
            receipt = await self._app[keys.HOSPITAL_BILLING].tell_refunded(refunded)
        except OutcomeUnknown as failure:
            receipt = await self._found(parts[0], "refund", refund_id, refund.fen, failure)
        except TryAgain as failure:
            raise Later(str(failure), failure.after) from None
        except Refused as refused:
            raise await self._amiss(bill, refused.code) from None
        await self._noted(bill, refund_id, "refund", refund.fen, receipt)

    async def _found(self, number: str, kind: Kind, id_: bytes, fen: int, failure: OutcomeUnknown) -> str:
        """Their receipt, where they have it after all. Raises errands.TryAgain: then it is told again."""
        try:
            there = await self._app[keys.HOSPITAL_BILLING].look_after(number)
        except (TryAgain, Refused):
            raise Later(str(failure)) from None
        except Unfit as wrong:
            await unfit(self._app, wrong)
            raise Later(str(failure)) from None
        have: tuple[Known, ...] = there.payments if kind == "payment" else there.refunds
        receipt = next((one.receipt for one in have if (one.id, one.fen) == (id_, fen)), None)
        if receipt is None:
            raise Later(str(failure))
        return receipt

    async def _amiss(self, bill: payment.Bill, code: str) -> Later:
        """They refuse what nobody here can mend."""
        assert bill.opened is not None
        await alarm(self._app, "query", f"refused_{code}", bill.opened.bill_id)
        return Later(f"the billing refuses: {code}", REFUSED_SECONDS)

    async def _noted(
        self, bill: payment.Bill, id_: bytes, kind: Kind, fen: int, receipt: str = "", code: str = ""
    ) -> Told:
        assert bill.opened is not None
        told = Told(id_, kind, fen, "refused" if code else "accepted", code, receipt)
        await hospital_bills.note_told(self._app[keys.POOL], bill.opened.bill_id, told, datetime.now(UTC))
        return told
