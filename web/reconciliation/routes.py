"""The cashier's and the manager's view of reconciliation: runs, differences with their evidence, and the end
of those that a person has seen to."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
from aiohttp import hdrs, web

from engine.domain.payment import Paying, Refunding
from engine.domain.reconciliation import Kind
from engine.records import bills
from engine.records import reconciliation as records
from engine.records.reconciliation import DifferenceRow, RunRow
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem, language_of
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath
from web.reconciliation import words
from web.reconciliation.bodies import (
    BillEvidence,
    DifferenceAnswer,
    DifferenceEvidenceAnswer,
    DifferencesAnswer,
    DifferencesQuery,
    PaymentEvidence,
    ReconcileBody,
    ReconciliationAskedAnswer,
    RefundEvidence,
    RunAnswer,
    RunsAnswer,
    RunsQuery,
    SettleBody,
    SidesAnswer,
    SumAnswer,
)
from web.reconciliation.reconciling import channels_of, is_over


@api.route(
    "POST",
    "/api/v1/cashier/reconciliations",
    zh="对账",
    status=202,
    tags=["cashier"],
    errors=[Fault.DAY_NOT_OVER, Fault.UNSUPPORTED_PROVIDER, Fault.DATABASE_DOWN],
)
async def start_reconciliation(
    request: web.Request, *, staff: Staff, body: ReconcileBody
) -> ReconciliationAskedAnswer:
    """Has a day compared again, now: with the providers' bills, the numbers, and the hospital's billing."""
    app = request.app
    if not is_over(body.date, app[keys.ZONE]):
        raise Problem(Fault.DAY_NOT_OVER)
    known = channels_of(app)
    if body.provider is not None and body.provider not in known:
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    wanted = known if body.provider is None else [body.provider]
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await records.ask_for(connection, body.date, wanted, staff.username)
        await audited(
            request,
            connection,
            "reconciliation_asked",
            object=("day", body.date.isoformat()),
            detail={"providers": wanted},
        )
    return ReconciliationAskedAnswer(body.date, wanted)


@api.route(
    "GET",
    "/api/v1/cashier/reconciliations",
    zh="对账记录",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_reconciliations(request: web.Request, *, query: RunsQuery) -> RunsAnswer:
    """What was compared and when, the newest first."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        found = await records.runs(connection, query.date, query.provider, query.before, query.limit + 1)
    page = found[: query.limit]
    return RunsAnswer([_run(app, one) for one in page], page[-1].id if len(found) > query.limit else None)


@api.route(
    "GET",
    "/api/v1/cashier/differences",
    zh="对账差异",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_differences(request: web.Request, *, query: DifferencesQuery) -> DifferencesAnswer:
    """What differed, the latest days first; only what is open, where nothing else is asked for."""
    before = None
    if query.before is not None:
        day, _, id_ = query.before.partition(".")
        before = (date.fromisoformat(day), bytes.fromhex(id_))
    async with request.app[keys.POOL].acquire() as connection:
        found = await records.differences(
            connection,
            query.state == "open",
            query.date,
            query.provider,
            query.kind,
            before,
            query.limit + 1,
        )
    page = found[: query.limit]
    more = f"{page[-1].day}.{page[-1].id.hex()}" if len(found) > query.limit else None
    return DifferencesAnswer([_difference(request, one) for one in page], more)


@api.route(
    "GET",
    "/api/v1/cashier/differences/{id}",
    zh="对账差异的证据",
    tags=["cashier"],
    errors=[Fault.NO_SUCH_DIFFERENCE, Fault.DATABASE_DOWN],
)
async def read_difference(request: web.Request, *, path: IdPath) -> DifferenceEvidenceAnswer:
    """What each side says, and the bill as it is now."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await records.difference(connection, path.id.bytes)
        if found is None:
            raise Problem(Fault.NO_SUCH_DIFFERENCE)
        patients, bill = await _bill(app, connection, found.bill_id)
        await audited(
            request, connection, "difference_read", subjects=patients, object=("difference", str(path.id))
        )
    return DifferenceEvidenceAnswer(_difference(request, found), found.evidence, bill)


@api.route(
    "POST",
    "/api/v1/cashier/differences/{id}/settle",
    zh="人工处理对账差异",
    tags=["cashier"],
    errors=[Fault.NO_SUCH_DIFFERENCE, Fault.DIFFERENCE_CLOSED, Fault.DATABASE_DOWN],
)
async def settle_difference(
    request: web.Request, *, staff: Staff, path: IdPath, body: SettleBody
) -> DifferenceAnswer:
    """Says that a person has seen to it, and how. It moves no money; if its amounts change it opens again."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await records.difference(connection, path.id.bytes, lock=True)
        if found is None:
            raise Problem(Fault.NO_SUCH_DIFFERENCE)
        said = (found.settled_name, found.settled_why)
        if found.state == "settled" and said == (staff.username, body.reason):
            return _difference(request, found)
        if found.state not in ("open", "waiting"):
            raise Problem(Fault.DIFFERENCE_CLOSED)
        patients, _ = await _bill(app, connection, found.bill_id)
        await records.settle(connection, found.id, staff.id, staff.username, body.reason, datetime.now(UTC))
        await audited(
            request,
            connection,
            "difference_settled",
            subjects=patients,
            object=("difference", str(path.id)),
            reason=body.reason,
            detail={"kind": found.kind, "ours": found.ours, "theirs": found.theirs},
        )
        settled = await records.difference(connection, found.id)
    assert settled is not None
    return _difference(request, settled)


async def _bill(
    app: web.Application, connection: asyncpg.Connection, bill_id: bytes | None
) -> tuple[list[bytes], BillEvidence | None]:
    """Whose it is, and how it stands."""
    if bill_id is None:
        return [], None
    bill = await bills.bill(connection, bill_id)
    if bill is None:
        return [], None
    zone = app[keys.ZONE]
    payments = [
        PaymentEvidence(
            uuid(one.id),
            one.provider,
            Paying(one.state).name.lower(),
            one.fen,
            one.received,
            one.transaction_id or None,
            one.begun_at.astimezone(zone),
            None if one.paid_at is None else one.paid_at.astimezone(zone),
        )
        for one in await bills.payments_of(connection, bill_id)
    ]
    refunds = [
        RefundEvidence(
            uuid(one.id),
            uuid(one.payment_id),
            Refunding(one.state).name.lower(),
            one.fen,
            one.provider or None,
            one.reference or None,
            one.begun_at.astimezone(zone),
            one.since.astimezone(zone),
        )
        for one in await bills.refunds_of(connection, bill_id)
    ]
    return [bill.patient_id], BillEvidence(
        uuid(bill.id),
        None if bill.appointment_id is None else uuid(bill.appointment_id),
        bill.status,
        bill.fen,
        bill.paid,
        bill.refunded,
        bill.owed_back,
        payments,
        refunds,
    )


def _run(app: web.Application, one: RunRow) -> RunAnswer:
    zone = app[keys.ZONE]
    return RunAnswer(
        one.id,
        one.channel,
        one.day,
        one.begun_at.astimezone(zone),
        one.ended_at.astimezone(zone),
        one.is_complete,
        one.why or None,
        one.asked_by or None,
        _sides(one.sums["payments"]),
        _sides(one.sums["refunds"]),
        one.healed,
        one.left_open,
    )


def _sides(told: dict[str, list[int]]) -> SidesAnswer:
    def of(pair: Iterable[int]) -> SumAnswer:
        count, fen = pair
        return SumAnswer(count, fen)

    return SidesAnswer(of(told["matched"]), of(told["ours"]), of(told["theirs"]))


def _difference(request: web.Request, one: DifferenceRow) -> DifferenceAnswer:
    zone = request.app[keys.ZONE]
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    return DifferenceAnswer(
        str(UUID(bytes=one.id)),
        one.channel,
        one.day,
        Kind(one.kind),
        words.KINDS[one.kind].in_(language),
        one.money,  # type: ignore[arg-type]  # the table's words are the contract's
        one.ours,
        one.theirs,
        one.heal,
        one.tried,
        one.said or None,
        one.state,  # type: ignore[arg-type]
        None if one.bill_id is None else uuid(one.bill_id),
        None if one.order_id is None else uuid(one.order_id),
        one.found_at.astimezone(zone),
        None if one.closed_at is None else one.closed_at.astimezone(zone),
        one.settled_name or None,
        one.settled_why or None,
    )
