"""What a patient owes at the hospital's billing, and what the billing asks of us."""

import logging
from datetime import UTC, datetime
from uuid import UUID

import orjson
from aiohttp import web

from engine.audit.entries import Actor
from engine.domain import payment
from engine.domain.by import SYSTEM
from engine.domain.ids import derived
from engine.domain.refusal import Reason
from engine.records import bills, callbacks_seen, hospital_bills
from engine.records.hospital_bills import LOOK
from integrations.connector import ConnectorFailed
from integrations.hospital_billing import signing
from integrations.hospital_billing.translate import VERSION, Asked, Asks, Identity, Unfit, asked_of
from web import keys
from web.auditing import audited, noted_delegation
from web.bills.asking import ask_bill
from web.errors import Problem
from web.faults import Fault
from web.hospital_billing.alarms import PROVIDER, alarm, unfit
from web.hospital_billing.billing import HospitalBilling
from web.hospital_billing.bodies import CallTaken, OutstandingAnswer, OutstandingBill, OutstandingLine
from web.hospital_billing.opening import Opened, opened
from web.openapi import api
from web.patient.bodies import IdPath

log = logging.getLogger(__name__)

BY_BILLING = Actor("system", None, PROVIDER)


@api.route(
    "GET",
    "/api/v1/patients/{id}/outstanding",
    zh="待缴的药品、检查费",
    tags=["bills"],
    errors=[
        Fault.NO_SUCH_PATIENT,
        Fault.PAYING_NOT_DELEGATED,
        Fault.HOSPITAL_BILLING_OFF,
        Fault.HOSPITAL_BILLING_AWAY,
        Fault.OUTCOME_UNKNOWN,
        Reason.BUSY,
        Reason.AWAY,
        Fault.DATABASE_DOWN,
    ],
)
async def read_outstanding(request: web.Request, *, account_id: bytes, path: IdPath) -> OutstandingAnswer:
    """What the hospital charges this patient for drugs and examinations, asked of its billing now. Each is a
    bill that is paid like any other. For who may pay for the patient and see their visits."""
    app = request.app
    payer = await hospital_bills.payer(
        app[keys.POOL], app[keys.VAULT], account_id, path.id.bytes, datetime.now(UTC)
    )
    if payer is None or not payer.id_number:
        raise Problem(Fault.NO_SUCH_PATIENT)
    if not (payer.rights.pay and payer.rights.see_visits):  # what is charged for tells what was done
        raise Problem(Fault.PAYING_NOT_DELEGATED)
    billing = app.get(keys.HOSPITAL_BILLING)
    if billing is None:
        raise Problem(Fault.HOSPITAL_BILLING_OFF)
    try:
        found = await billing.outstanding(Identity(payer.id_type, payer.id_number))
    except Unfit as wrong:
        await unfit(app, wrong)
        raise Problem(Fault.HOSPITAL_BILLING_AWAY) from None
    except ConnectorFailed as failure:
        log.warning("what is outstanding could not be asked: %s", failure)
        raise Problem(Fault.HOSPITAL_BILLING_AWAY) from None
    shown, withheld = await opened(app, account_id, payer, found)
    await noted_delegation(request, account_id, "outstanding_read", [payer.patient_id])
    return OutstandingAnswer([_answer(request, one) for one in shown], withheld)


@api.route(
    "POST",
    "/api/v1/callbacks/hospital_billing",
    zh="收费系统回调：退费、费用变动",
    tags=["bills"],
    errors=[
        Fault.HOSPITAL_BILLING_OFF,
        Fault.BILLING_CALL_REFUSED,
        Fault.BILLING_CALL_UNFIT,
        Fault.BODY_TOO_LARGE,
        Fault.NO_SUCH_BILL,
        Reason.KEY_REUSED,
        Reason.WRONG_BILL_STATE,
        Reason.BILL_UNFIT,
        Reason.REFUND_TOO_LARGE,
        Reason.TOO_MANY_PAYMENTS,
        Fault.OUTCOME_UNKNOWN,
        Reason.BUSY,
        Reason.AWAY,
        Fault.DATABASE_DOWN,
    ],
)
async def hospital_billing_calls(request: web.Request) -> CallTaken:
    """The hospital's billing asks that some lines of a paid bill are given back (a drug that was not
    dispensed), or says that a bill has changed. Signed; each nonce is good once. The same refund number is
    the same refund, however often it is asked for. Only 2xx means that it is in the books: anything else is
    to be asked again. docs/HOSPITAL_BILLING.md has the wire."""
    app = request.app
    billing = app.get(keys.HOSPITAL_BILLING)
    if billing is None:
        raise Problem(Fault.HOSPITAL_BILLING_OFF)
    body = await request.read()  # no more than BODY_BYTES_MAX: the application's limit
    await _must_be_theirs(request, billing, body)
    try:
        asked = asked_of(orjson.loads(body))
    except orjson.JSONDecodeError:
        await alarm(app, "callback", "no_json")
        raise Problem(Fault.BILLING_CALL_UNFIT, why="no_json") from None
    except Unfit as wrong:
        await alarm(app, "callback", wrong.why)
        raise Problem(Fault.BILLING_CALL_UNFIT, why=wrong.why) from None
    bill = await bills.bill(app[keys.POOL], asked.bill_id)
    if bill is None:
        if asked.what is Asks.LOOK:
            return CallTaken(VERSION, "noted")  # nobody has seen it here yet
        await alarm(app, "callback", "no_such_bill")
        raise Problem(Fault.NO_SUCH_BILL)
    if asked.what is Asks.LOOK:
        await hospital_bills.ask_again(app[keys.POOL], LOOK, [asked.bill_id])
        return CallTaken(VERSION, "noted")
    await _refund(request, asked, bill.patient_id)
    return CallTaken(VERSION, "requested")


async def _must_be_theirs(request: web.Request, billing: HospitalBilling, body: bytes) -> None:
    """Raises Problem. Only what is signed is remembered, so nobody can fill the table."""
    told = request.headers
    at, nonce = told.get(signing.TIMESTAMP, ""), told.get(signing.NONCE, "")
    app_id, signature = told.get(signing.APP, ""), told.get(signing.SIGNATURE, "")
    if not billing.is_theirs(request.method, request.raw_path, app_id, at, nonce, signature, body):
        await alarm(request.app, "callback", "not_theirs")
        raise Problem(Fault.BILLING_CALL_REFUSED)
    pool, now = request.app[keys.POOL], datetime.now(UTC)
    # Twice the window: a clock that is ahead of ours makes it good for so long.
    if not await callbacks_seen.is_first(pool, PROVIDER, nonce, now, 2 * signing.WINDOW_SECONDS):
        await alarm(request.app, "callback", "replayed")
        raise Problem(Fault.BILLING_CALL_REFUSED)


async def _refund(request: web.Request, asked: Asked, patient_id: bytes) -> None:
    """Raises Problem where the bill's actor refuses, and nothing is changed then."""
    app, bill_id = request.app, asked.bill_id
    refund_id = refund_id_of(asked)
    command = payment.RequestRefund(
        derived(b"hospital asks", refund_id), refund_id, asked.lines, f"hospital_{asked.reason}", SYSTEM
    )
    now = datetime.now(UTC)
    await hospital_bills.note_asked(app[keys.POOL], refund_id, bill_id, asked.refund, asked.reason, now)
    try:
        await ask_bill(app, bill_id, command)
    except Problem as problem:
        if problem.status < 500:
            await alarm(app, "callback", problem.code.value, bill_id)
        raise
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await audited(
            request,
            connection,
            "refund_asked_by_billing",
            subjects=(patient_id,),
            object=("bill", str(UUID(bytes=bill_id))),
            reason=asked.reason,
            detail={"refund": refund_id.hex(), "fen": sum(fen for _, fen in asked.lines)},
            by=BY_BILLING,
        )


def refund_id_of(asked: Asked) -> bytes:
    """Of a refund that they ask for, by their number."""
    return derived(b"hospital refund", asked.bill_id, asked.refund.encode())


def _answer(request: web.Request, one: Opened) -> OutstandingBill:
    there, zone = one.there, request.app[keys.ZONE]
    pay_by = datetime.fromtimestamp(there.pay_by / 1000, zone) if there.pay_by else None
    lines = [
        OutstandingLine(
            item.line_id,
            "drug" if item.kind == "drug" else "examination",
            item.code,
            item.name,
            item.quantity,
            item.fen,
        )
        for item in there.items
    ]
    return OutstandingBill(str(UUID(bytes=there.id)), there.number, one.status, there.fen, pay_by, lines)
