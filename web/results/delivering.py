"""Where laboratories deliver reports as FHIR R4: a DiagnosticReport, or a Bundle with one or more."""

from typing import Final

from aiohttp import web

from web import keys
from web.auditing import audited
from web.errors import Problem
from web.faults import Fault
from web.intake.intake import Outcome, Taken
from web.intake.large_bodies import large_json_of
from web.openapi import api
from web.partner.sight import Partner
from web.results import bodies
from web.results.receiving import Receiving

_ERRORS: Final = (
    Fault.HELD_AT_INTAKE,
    Fault.MALFORMED_JSON,
    Fault.BODY_TOO_LARGE,
    Fault.UNSUPPORTED_MEDIA_TYPE,
    Fault.DATABASE_DOWN,
)


@api.route(
    "POST",
    "/api/v1/integrations/lis/fhir/DiagnosticReport",
    zh="接收检验报告（FHIR）",
    tags=["integration"],
    errors=_ERRORS,
)
async def receive_lab_report(request: web.Request, *, partner: Partner) -> bodies.ReceivedReportsAnswer:
    """One report, its observations contained; up to 8 MiB. What the checks hold back is 422 held_at_intake
    with the findings: it is kept, and tried again when the rule or the data is mended."""
    return await _receive(request, partner, "DiagnosticReport")


@api.route(
    "POST",
    "/api/v1/integrations/lis/fhir/Bundle",
    zh="接收检验报告集合（FHIR）",
    tags=["integration"],
    errors=_ERRORS,
)
async def receive_lab_bundle(request: web.Request, *, partner: Partner) -> bodies.ReceivedReportsAnswer:
    """Reports with their Patient, Observations and ServiceRequests. Each report is judged by itself; 422
    where one was held back, though the others are in."""
    return await _receive(request, partner, "Bundle")


async def _receive(request: web.Request, partner: Partner, kind: str) -> bodies.ReceivedReportsAnswer:
    app = request.app
    resource, raw = await large_json_of(request)
    if not isinstance(resource, dict) or resource.get("resourceType") != kind:
        raise Problem(Fault.HELD_AT_INTAKE, findings=[{"field": "resourceType", "rule": "unknown_code"}])
    receiving: Receiving = app[keys.RECEIVING_RESULTS]
    taken = await receiving.fhir(resource, partner.id.hex(), partner.name.lower(), raw)
    counted = {outcome.value: sum(one.outcome is outcome for one in taken) for outcome in Outcome}
    await audited(request, app[keys.POOL], "reports_received", detail={k: n for k, n in counted.items() if n})
    held = [one for one in taken if not one.is_good]
    if held:
        raise Problem(Fault.HELD_AT_INTAKE, findings=_findings(held))
    return bodies.ReceivedReportsAnswer(
        [bodies.ReceivedAnswer(one.outcome.value) for one in taken]  # type: ignore[arg-type]
    )


def _findings(held: list[Taken]) -> list[dict[str, str]]:
    return [
        {"field": reason.field, "rule": reason.rule, "expected": reason.expected}
        for one in held
        for reason in one.reasons
    ]
