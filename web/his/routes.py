"""The desk's view of what we and the HIS say differently: have a day compared, look, and close what a person
has seen to."""

from datetime import UTC, datetime

from aiohttp import web

from engine.domain.his_rules import Differs
from engine.records import his as records
from engine.records import his_differences
from engine.records.his_differences import DifferenceRow
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.his.bodies import (
    HisAskedAnswer,
    HisDifferenceAnswer,
    HisDifferencePath,
    HisDifferencesAnswer,
    HisDifferencesQuery,
    HisReconcileBody,
    HisRunAnswer,
    HisRunsAnswer,
    HisRunsQuery,
    HisSettleBody,
)
from web.openapi import api


@api.route(
    "POST",
    "/api/v1/integrations/his/reconciliations",
    zh="与 HIS 核对一天的号",
    status=202,
    tags=["integration"],
    errors=[Fault.DATABASE_DOWN],
)
async def compare_with_his(request: web.Request, *, staff: Staff, body: HisReconcileBody) -> HisAskedAnswer:
    """Has a day's numbers compared with the HIS's list of it, now; what a rule is clear for is healed."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        await records.ask_for(connection, body.date, staff.username)
        await audited(request, connection, "his_comparison_asked", object=("day", body.date.isoformat()))
    return HisAskedAnswer(body.date)


@api.route(
    "GET",
    "/api/v1/integrations/his/reconciliations",
    zh="与 HIS 的核对记录",
    tags=["integration"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_his_comparisons(request: web.Request, *, query: HisRunsQuery) -> HisRunsAnswer:
    """Which days were compared and when, the newest first."""
    found = await his_differences.runs(request.app[keys.POOL], query.date, query.limit)
    zone = request.app[keys.ZONE]
    return HisRunsAnswer(
        [
            HisRunAnswer(
                one.day,
                one.began_at.astimezone(zone),
                one.ended_at.astimezone(zone),
                one.ours,
                one.theirs,
                one.matched,
                one.healed,
                one.left_open,
            )
            for one in found
        ]
    )


@api.route(
    "GET",
    "/api/v1/integrations/his/differences",
    zh="与 HIS 的差异",
    tags=["integration"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_his_differences(request: web.Request, *, query: HisDifferencesQuery) -> HisDifferencesAnswer:
    """What differs, with both sides' words for it, the newest first; nobody's name."""
    app = request.app
    found = await his_differences.differences(
        app[keys.POOL], query.date, query.state == "open", query.before, query.limit + 1
    )
    page = found[: query.limit]
    more = page[-1].id if len(found) > query.limit else None
    return HisDifferencesAnswer([_difference(app, one) for one in page], more)


@api.route(
    "POST",
    "/api/v1/integrations/his/differences/{id}/settle",
    zh="处理与 HIS 的差异",
    tags=["integration"],
    errors=[Fault.NO_SUCH_DIFFERENCE, Fault.DATABASE_DOWN],
)
async def settle_his_difference(
    request: web.Request, *, staff: Staff, path: HisDifferencePath, body: HisSettleBody
) -> HisAskedAnswer:
    """Says that a person has seen to it, and how. It changes no number; what still differs is found again."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        day = await his_differences.settle(
            connection, path.id, staff.username, body.reason, datetime.now(UTC)
        )
        if day is None:
            raise Problem(Fault.NO_SUCH_DIFFERENCE)
        await audited(
            request,
            connection,
            "his_difference_settled",
            object=("difference", str(path.id)),
            reason=body.reason,
        )
    return HisAskedAnswer(day)


def _difference(app: web.Application, one: DifferenceRow) -> HisDifferenceAnswer:
    zone = app[keys.ZONE]
    return HisDifferenceAnswer(
        one.id,
        one.day,
        Differs(one.kind),
        one.subject,
        one.state,  # type: ignore[arg-type]  # the table's words are the contract's
        dict(one.evidence),
        one.found_at.astimezone(zone),
        one.last_at.astimezone(zone),
        one.times,
        None if one.ended_at is None else one.ended_at.astimezone(zone),
        one.ended_by,
        one.ended_why,
    )
