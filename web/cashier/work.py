"""What waits for the cashier's desk: refunds that only it can end, money that is for no bill, what providers
said that was not believed, refunds that wait for a manager. And a shift's own totals."""

from datetime import UTC, datetime, time

from aiohttp import web

from engine.domain import payment as p
from engine.records import cash, payment_alarms
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.bills.words import REFUND_STATES
from web.cashier import bodies
from web.cashier.describing import by_hand_from
from web.cashier.reach import reaches
from web.cashier.refunds import awaited
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid


@api.route(
    "GET",
    "/api/v1/cashier/work",
    zh="待窗口处理",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_desk_work(request: web.Request, *, staff: Staff) -> bodies.DeskWorkAnswer:
    """Everything about money that waits for a person, the oldest first."""
    app = request.app
    zone = app[keys.ZONE]
    async with app[keys.POOL].acquire() as connection:
        refunds = await cash.refunds_waiting(connection)
        suspense = await cash.in_suspense(connection)
        alarms = await payment_alarms.alarms(connection, True, cash.WAITING_MAX, None)
        requests = await awaited(connection)
    return bodies.DeskWorkAnswer(
        [
            bodies.WaitingRefundAnswer(
                uuid(one.refund_id),
                uuid(one.bill_id),
                one.department_id,
                one.fen,
                one.cause,
                one.provider,
                one.code,
                one.since.astimezone(zone),
                _from(one).astimezone(zone),
            )
            for one in refunds
            if reaches(app, staff, one.department_id)
        ],
        [
            bodies.SuspenseAnswer(
                uuid(one.payment_id),
                uuid(one.bill_id),
                one.department_id,
                one.provider,
                one.fen,
                one.cause,
                REFUND_STATES[p.Refunding(one.refund_state)],
                one.since.astimezone(zone),
            )
            for one in suspense
            if reaches(app, staff, one.department_id)
        ],
        [
            bodies.AlarmAnswer(
                one.id,
                one.at.astimezone(zone),
                one.last_at.astimezone(zone),
                one.times,
                one.provider,
                one.what,
                one.why,
                one.order_id,
                None if one.bill_id is None else uuid(one.bill_id),
            )
            for one in alarms
        ],
        [
            bodies.AwaitedAnswer(
                uuid(one.new.id),
                one.new.body["bill_id"],
                one.new.body["fee"],
                one.asked_by_name,
                one.asked_at.astimezone(zone),
                one.new.note,
            )
            for one in requests
            if reaches(app, staff, one.new.department_ids[0])
        ],
    )


def _from(one: cash.RefundWaiting) -> datetime:
    state = p.Refunding.REFUSED if one.code or one.provider != p.AT_HOSPITAL else p.Refunding.REQUESTED
    found = by_hand_from(state, one.provider, one.since)
    assert found is not None
    return found


@api.route(
    "POST",
    "/api/v1/cashier/alarms/{id}/settlement",
    zh="支付告警处理完毕",
    status=204,
    tags=["cashier"],
    errors=[Fault.NO_SUCH_ALARM, Fault.DATABASE_DOWN],
)
async def settle_alarm(
    request: web.Request, *, staff: Staff, path: bodies.AlarmPath, body: bodies.ReasonBody
) -> None:
    """Somebody has looked into what a provider said that was not believed; why it is nothing, or what was
    done. It changes no bill."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        now = datetime.now(UTC)
        if not await payment_alarms.settle(connection, path.id, staff.username, body.reason, now):
            raise Problem(Fault.NO_SUCH_ALARM)
        await audited(
            request,
            connection,
            "payment_alarm_settled",
            object=("payment_alarm", str(path.id)),
            reason=body.reason,
        )


@api.route(
    "GET",
    "/api/v1/cashier/shift",
    zh="本班收款",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_shift(request: web.Request, *, staff: Staff, query: bodies.ShiftQuery) -> bodies.ShiftAnswer:
    """What this cashier has taken and given back in cash, receipt by receipt: today, or in the given time."""
    app = request.app
    zone = app[keys.ZONE]
    now = datetime.now(UTC)
    since = query.since or datetime.combine(now.astimezone(zone).date(), time.min, zone)
    until = query.until or now
    async with app[keys.POOL].acquire() as connection, connection.transaction(isolation="repeatable_read"):
        rows = await cash.receipts_of(connection, staff.id, since, until)
        totals = await cash.totals_of(connection, staff.id, since, until)
    (taken, taken_count), (given, given_count) = totals["in"], totals["out"]
    return bodies.ShiftAnswer(
        staff.name,
        since.astimezone(zone),
        until.astimezone(zone),
        taken,
        taken_count,
        given,
        given_count,
        taken - given,
        [
            bodies.ReceiptAnswer(
                row.number, row.kind, uuid(row.bill_id), row.fen, row.at.astimezone(zone), row.is_void
            )
            for row in rows
        ],
    )
