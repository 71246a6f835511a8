"""What somebody owes at the hospital's billing becomes bills here. Nothing is opened twice, and a bill that
was seen once never changes: another content under the same revision is refused."""

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from aiohttp import web

from engine.domain import payment
from engine.domain.ids import derived
from engine.domain.refund_rules import Cause
from engine.records import bills, hospital_bills
from engine.records.hospital_bills import LOOK, Payer, Seen
from engine.vault.vault import Vault
from integrations.hospital_billing.translate import HospitalBill, Outstanding, Unfit
from web import keys
from web.bills.asking import ask_bill
from web.hospital_billing.alarms import unfit

TO_BE_PAID = (payment.Status.OPEN, payment.Status.AT_HOSPITAL)


@dataclass(frozen=True, slots=True)
class Opened:
    """A bill of theirs that is one of ours now."""

    there: HospitalBill
    status: str


async def opened(
    app: web.Application, account_id: bytes, payer: Payer, found: Outstanding
) -> tuple[list[Opened], int]:
    """Those that are to be paid, and how many are not shown because they cannot be believed."""
    now = datetime.now(UTC)
    for wrong in found.unfit:
        await unfit(app, wrong)
    believed: list[HospitalBill] = []
    withheld = len(found.unfit)
    rows = await bills.bills(app[keys.POOL], [one.id for one in found.bills])
    to_open: list[HospitalBill] = []
    for there in found.bills:
        try:
            await _check(app, payer, there, now)
            here = rows.get(there.id)
            if here is None:
                if there.pay_by and there.pay_by <= now.timestamp() * 1000:
                    raise Unfit("over", there.number)
                to_open.append(there)
            elif here.closed and here.closed != Cause.EXPIRED:
                # What was withdrawn or changed comes back as another revision, or not at all.
                raise Unfit("closed_here", there.number)
            believed.append(there)
        except Unfit as wrong:
            withheld += 1
            await unfit(app, wrong, there.id if there.id in rows else None)
    statuses = {bill_id: row.status for bill_id, row in rows.items()}
    for there in to_open:
        statuses[there.id] = (await ask_bill(app, there.id, _command(account_id, payer, there))).status
    await _look_at_the_others(app, payer.patient_id, {there.id for there in found.bills})
    shown = [Opened(there, statuses[there.id]) for there in believed]
    return [one for one in shown if one.status in TO_BE_PAID], withheld


def digest_of(vault: Vault, there: HospitalBill) -> bytes:
    """Of what is to be paid, and for what. Keyed: names are in it, and there are few enough to try them."""
    told = [(one.line_id, one.kind.value, one.code, one.name, one.fen, one.quantity) for one in there.items]
    return vault.index("hospital_bill.digest", orjson.dumps(told).decode())


async def _check(app: web.Application, payer: Payer, there: HospitalBill, now: datetime) -> None:
    """Keeps what it is, the first time. Raises Unfit where it was something else before."""
    names = {one.line_id: one.name for one in there.items}
    new = Seen(there.id, there.number, there.revision, payer.patient_id, digest_of(app[keys.VAULT], there))
    async with app[keys.POOL].acquire() as connection:
        known = await hospital_bills.note_seen(connection, app[keys.VAULT], payer.record, new, names, now)
    if known.patient_id != payer.patient_id:
        raise Unfit("of_somebody_else", there.number)
    if known.digest != new.digest:
        raise Unfit("contradicts", there.number)


def _command(account_id: bytes, payer: Payer, there: HospitalBill) -> payment.OpenBill:
    return payment.OpenBill(
        derived(b"open hospital", there.id, account_id),
        there.id,
        account_id,
        payer.patient_id,
        there.order,
        there.lines,
        pay_by=there.pay_by,
        department_id=there.department_id,
    )


async def _look_at_the_others(app: web.Application, patient_id: bytes, found: set[bytes]) -> None:
    """Bills that are to be paid here and are not owed there any more."""
    unpaid = await hospital_bills.unpaid_of(app[keys.POOL], patient_id)
    gone = [one.bill_id for one in unpaid if one.bill_id not in found]
    await hospital_bills.ask_again(app[keys.POOL], LOOK, gone)
