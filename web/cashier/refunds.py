"""Money that goes back by staff: asked for line by line, paid in cash, or sent off once more.

Above what the policy allows (`payment.refunds.approval_above`, of all that staff give back of one bill) a
refund is asked for and a manager who is somebody else agrees: a change request like those of schedules, in
the same list.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from aiohttp import web

from engine.domain import payment as p
from engine.domain.by import by_staff
from engine.domain.ids import BillKey, derived
from engine.domain.refusal import Reason
from engine.journal.streams import read_bill
from engine.records import bills, cash, change_requests
from engine.records.bills import BillRow, RefundRow
from engine.records.cash import NewReceipt
from engine.records.change_requests import NewRequest
from engine.records.staff import Role
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.bills.asking import ask_bill
from web.cashier import bodies
from web.cashier.describing import bill_answer
from web.cashier.reach import bill_in_reach
from web.cashier.taking import asked, command_of, numbered
from web.desk.schedule_bodies import PendingAnswer
from web.desk.schedules import pending
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, uuid
from web.patient.bodies import IdPath

COMMAND: Final = "refund"
"""Of a change request."""
AT_DESK: Final = "desk"
"""The cause of a refund that staff have asked for: their words are in the audit."""
REFUSALS: Final[list[Reason | Fault]] = [
    Fault.NO_SUCH_BILL,
    Reason.BILL_UNFIT,
    Reason.WRONG_BILL_STATE,
    Reason.REFUND_TOO_LARGE,
    Reason.TOO_MANY_PAYMENTS,
]


@api.route(
    "POST",
    "/api/v1/cashier/bills/{id}/refunds",
    zh="申请退款",
    status=201,
    tags=["cashier"],
    accepted=PendingAnswer,
    errors=[*REFUSALS, Reason.KEY_REUSED, *OVERLOAD],
)
async def request_refund(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: bodies.RefundBody
) -> bodies.RefundedAnswer:
    """Gives back some of what was paid, by line: to where it came from, or in cash what was paid in cash
    (then it waits for `payout`). Above the hospital's limit it is answered 202 and waits for a manager."""
    app = request.app
    row = await bill_in_reach(app, staff, path.id.bytes)
    command_id = command_of(staff, idempotency_key)
    lines = tuple((line.line_id, line.fee) for line in body.lines)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        # Two refunds of one bill are one after the other, so that both count for the limit.
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 6))", row.id.hex())
        known = await change_requests.request_of(connection, command_id)
        if known is not None and known.new.body != _told(row, lines, body.reason):
            raise Problem(Reason.KEY_REUSED)
        if known is not None:
            return pending(known)  # type: ignore[return-value]  # a response of its own, as `accepted` declares
        given = await _given_by_staff(connection, row.id, but=refund_id_of(command_id))
        limit = app[keys.POLICY].policy.refund_approval_above
        if limit is not None and given + sum(fen for _, fen in lines) > limit:
            await _refuse_early(connection, row, lines)
            new = NewRequest(
                command_id,
                COMMAND,
                Role.MANAGER,
                str(uuid(row.id)),
                "",
                (row.department_id,),
                _told(row, lines, body.reason),
                str(row.version),
                body.reason,
                staff.id,
            )
            found = await change_requests.ask(connection, new, datetime.now(UTC))
            await _audit(
                request, connection, "refund_requested", row, body.reason, lines, {"request": command_id}
            )
            return pending(found)  # type: ignore[return-value]  # as above
        refund_id = await _request(app, row, command_id, lines, staff.id)
        await _audit(request, connection, "refund_given", row, body.reason, lines, {"refund": refund_id})
    async with app[keys.POOL].acquire() as connection:
        return bodies.RefundedAnswer(uuid(refund_id), None, await bill_answer(app, connection, row.id))


async def carry_out(request: web.Request, new: NewRequest) -> None:
    """A manager has agreed: web/desk/change_requests.py. Raises Problem."""
    row = await bills.bill(request.app[keys.POOL], bytes.fromhex(new.target.replace("-", "")))
    if row is None:
        raise Problem(Fault.NO_SUCH_BILL)
    lines = tuple((str(line_id), int(fen)) for line_id, fen in new.body["lines"])
    refund_id = await _request(request.app, row, new.id, lines, new.asked_by)
    async with request.app[keys.POOL].acquire() as connection:
        detail = {"refund": refund_id, "request": new.id, "asked_by": new.asked_by}
        await _audit(request, connection, "refund_given", row, new.note, lines, detail)


@api.route(
    "POST",
    "/api/v1/cashier/bills/{id}/refunds/{refund}/payout",
    zh="窗口现金退款",
    tags=["cashier"],
    errors=[
        Fault.NO_SUCH_BILL,
        Reason.NO_SUCH_REFUND,
        Reason.REFUND_UNSETTLED,
        Reason.REFUND_CONTRADICTS,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def pay_refund_at_desk(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.RefundPath,
    body: bodies.ReasonBody,
) -> bodies.RefundedAnswer:
    """Cash for a refund: of what was paid in cash, or what the provider has refused for good. Never while the
    provider may yet pay. The answer has the number of its voucher."""
    row, refund = await _refund_of(request.app, staff, path)
    command_id = command_of(staff, idempotency_key)
    new = NewReceipt(command_id, "out", row.id, refund.id, refund.fen, staff.id)
    receipt = await numbered(request, row, new, "cash_given_back", body.reason)
    command = p.RefundAtDesk(command_id, refund.id, receipt.number, by_staff(staff.id))
    answer = await asked(request, row, command, receipt, "cash_given_back")
    return bodies.RefundedAnswer(uuid(refund.id), receipt.number, answer)


@api.route(
    "POST",
    "/api/v1/cashier/bills/{id}/refunds/{refund}/retry",
    zh="重新发起退款",
    tags=["cashier"],
    errors=[Fault.NO_SUCH_BILL, Reason.NO_SUCH_REFUND, Reason.KEY_REUSED, *OVERLOAD],
)
async def retry_refund(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.RefundPath,
    body: bodies.ReasonBody,
) -> bodies.RefundedAnswer:
    """Sends a refund off once more that the provider has refused, under its same number. Others stay."""
    app = request.app
    row, refund = await _refund_of(app, staff, path)
    command = p.RetryRefund(command_of(staff, idempotency_key), refund.id, by_staff(staff.id))
    await ask_bill(app, row.id, command)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await _audit(request, connection, "refund_retried", row, body.reason, (), {"refund": refund.id})
        return bodies.RefundedAnswer(uuid(refund.id), None, await bill_answer(app, connection, row.id))


def refund_id_of(command_id: bytes) -> bytes:
    return derived(b"desk refund", command_id)


async def _request(
    app: web.Application,
    row: BillRow,
    command_id: bytes,
    lines: tuple[tuple[str, int], ...],
    asked_by: bytes,
) -> bytes:
    refund_id = refund_id_of(command_id)
    await ask_bill(app, row.id, p.RequestRefund(command_id, refund_id, lines, AT_DESK, by_staff(asked_by)))
    return refund_id


async def _refuse_early(
    connection: asyncpg.Connection, row: BillRow, lines: tuple[tuple[str, int], ...]
) -> None:
    """What cannot be done is refused at once, and nobody is asked to agree to it. Raises Problem."""
    bill = await read_bill(connection, BillKey(row.id))
    left = p.left_of(bill)
    if not bill.is_settled or not left:
        raise Problem(Reason.WRONG_BILL_STATE)
    if len({line_id for line_id, _ in lines}) < len(lines):
        raise Problem(Reason.BILL_UNFIT, why="lines")
    for line_id, fen in lines:
        if fen > left.get(line_id, 0):
            raise Problem(Reason.REFUND_TOO_LARGE, limit=left.get(line_id, 0))


async def _given_by_staff(connection: asyncpg.Connection, bill_id: bytes, but: bytes) -> int:
    """Whatever became of it since."""
    refunds = await bills.refunds_of(connection, bill_id)
    return sum(one.fen for one in refunds if one.cause == AT_DESK and one.id != but)


async def _refund_of(
    app: web.Application, staff: Staff, path: bodies.RefundPath
) -> tuple[BillRow, RefundRow]:
    """Raises Problem."""
    row = await bill_in_reach(app, staff, path.id.bytes)
    refund = await bills.refund_by_id(app[keys.POOL], path.refund.bytes)
    if refund is None or refund.bill_id != row.id:
        raise Problem(Reason.NO_SUCH_REFUND)
    return row, refund


def _told(row: BillRow, lines: Sequence[tuple[str, int]], reason: str) -> dict[str, Any]:
    return {
        "command": COMMAND,
        "bill_id": str(uuid(row.id)),
        "lines": [[line_id, fen] for line_id, fen in lines],
        "fee": sum(fen for _, fen in lines),
        "reason": reason,
    }


async def _audit(
    request: web.Request,
    connection: asyncpg.Connection,
    action: str,
    row: BillRow,
    reason: str,
    lines: Sequence[tuple[str, int]],
    detail: dict[str, Any],
) -> None:
    await audited(
        request,
        connection,
        action,
        subjects=(row.patient_id,),
        object=("bill", str(uuid(row.id))),
        reason=reason,
        detail={**detail, "fen": sum(fen for _, fen in lines)} if lines else detail,
    )


async def awaited(connection: asyncpg.Connection) -> list[change_requests.ChangeRequest]:
    """Refunds that wait for a manager."""
    waiting = (change_requests.RequestStatus.PENDING, change_requests.RequestStatus.EXECUTING)
    found = await change_requests.requests(connection, waiting, None, cash.WAITING_MAX)
    return [one for one in found if one.new.command == COMMAND]
