"""Reports of laboratories, read by the patient's account and by who treats the patient. Always noted."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from aiohttp import web

from engine.domain.reports import Flag, ReportStatus, changes, is_newer
from engine.records import report_versions as versions
from engine.records import reports as records
from engine.records.report_versions import Version
from engine.records.reports import ReportHead, ReportRow
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.emr.sight import must_see
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import IdPath
from web.results import bodies

_UNREMARKABLE: Final = frozenset({"", Flag.NORMAL.value})
_SAFE_NAMES: Final = {
    "application/pdf": "report.pdf",
    "image/jpeg": "report.jpg",
    "image/png": "report.png",
    "text/plain": "report.txt",
}


@api.route(
    "GET",
    "/api/v1/patients/{id}/reports",
    zh="检验报告列表",
    tags=["results"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN],
)
async def list_reports(
    request: web.Request, *, who: bytes | Staff, path: IdPath, query: bodies.ReportsQuery
) -> bodies.ReportsAnswer:
    """Newest first, each in its newest version. Patients see what the laboratory has signed; staff of the
    patient see what is preliminary, too. Others are told out_of_relation, and doctors and nurses may break
    the glass."""
    app = request.app
    patient_id = path.id.bytes
    await must_see(request, who, patient_id, "reports_read")
    async with app[keys.POOL].acquire() as connection:
        found = await records.reports_of(
            connection,
            app[keys.VAULT],
            patient_id,
            query.limit + 1,
            query.before,
            only_final=not isinstance(who, Staff),
        )
    zone = app[keys.ZONE]
    page = found[: query.limit]
    more = page[-1].report.issued_at.astimezone(zone) if len(found) > query.limit else None
    return bodies.ReportsAnswer([_summary(one, zone) for one in page], more)


@api.route(
    "GET",
    "/api/v1/reports/{id}",
    zh="检验报告",
    tags=["results"],
    errors=[Fault.NO_SUCH_REPORT, Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN],
)
async def read_report(request: web.Request, *, who: bytes | Staff, path: IdPath) -> bodies.ReportAnswer:
    """Every version, the one that holds first: each says what it changed of the one before."""
    app = request.app
    head, found = await _read(request, who, path.id.bytes, "report_read")
    return _answer(head, found, app[keys.ZONE])


@api.route(
    "GET",
    "/api/v1/reports/{id}/attachments/{n}",
    zh="检验报告附件",
    tags=["results"],
    errors=[Fault.NO_SUCH_REPORT, Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN],
)
async def read_report_attachment(
    request: web.Request,
    *,
    who: bytes | Staff,
    path: bodies.AttachmentPath,
    query: bodies.AttachmentQuery,
) -> web.Response:
    """A document that came with a report, as the laboratory made it, to be saved: browsers show none of it
    as a page of ours."""
    app = request.app
    head, found = await _read(request, who, path.id.bytes, "report_attachment_read")
    version = head.newest if query.version is None else query.version
    attachment = None
    if any(one.version == version for one in found):
        async with app[keys.POOL].acquire() as connection:
            attachment = await versions.attachment(
                connection, app[keys.VAULT], head.id, head.patient_id, version, path.n
            )
    if attachment is None:
        raise Problem(Fault.NO_SUCH_REPORT)
    name = _SAFE_NAMES.get(attachment.media_type)
    return web.Response(
        body=attachment.content,
        content_type=attachment.media_type if name else "application/octet-stream",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name or "report.bin"}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _read(
    request: web.Request, who: bytes | Staff, report_id: bytes, action: str
) -> tuple[ReportHead, list[Version]]:
    """The report with the versions that they may see. Raises Problem."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        head = await records.head_of(connection, report_id)
    if head is None and isinstance(who, Staff):
        await audited(request, app[keys.POOL], action, outcome="refused")
        raise Problem(Fault.OUT_OF_RELATION)  # the same whether there is such a report or not
    if head is None:
        raise Problem(Fault.NO_SUCH_REPORT)
    await must_see(request, who, head.patient_id, action, nobody=Fault.NO_SUCH_REPORT)
    async with app[keys.POOL].acquire() as connection:
        found = await versions.versions_of(connection, app[keys.VAULT], report_id, head.patient_id)
    if not isinstance(who, Staff):
        found = [one for one in found if one.report.status is not ReportStatus.PRELIMINARY]
    if not found:
        raise Problem(Fault.NO_SUCH_REPORT)
    return head, found


def _in_order(found: Sequence[Version]) -> list[Version]:
    """As they replaced each other, whichever came first."""
    ordered: list[Version] = []
    for one in found:
        at = len(ordered)
        while at and not is_newer(
            one.report.changed_at,
            one.report.status,
            ordered[at - 1].report.changed_at,
            ordered[at - 1].report.status,
        ):
            at -= 1
        ordered.insert(at, one)
    return ordered


def _answer(head: ReportHead, found: Sequence[Version], zone: tzinfo) -> bodies.ReportAnswer:
    ordered = _in_order(found)
    told = []
    before: Version | None = None
    for one in ordered:
        told.append(_version(one, before, zone))
        before = one
    return bodies.ReportAnswer(
        uuid(head.id), uuid(head.patient_id), ordered[-1].report.number, ordered[-1].version, told[::-1]
    )


def _version(one: Version, before: Version | None, zone: tzinfo) -> bodies.ReportVersionAnswer:
    report = one.report
    differences = () if before is None else changes(before.report, report)
    return bodies.ReportVersionAnswer(
        one.version,
        report.status.value,
        report.issued_at.astimezone(zone),
        one.received_at.astimezone(zone),
        None if report.ordered_at is None else report.ordered_at.astimezone(zone),
        None if report.collected_at is None else report.collected_at.astimezone(zone),
        report.title,
        report.category,
        report.department,
        report.doctor,
        report.conclusion,
        [
            bodies.ObservationAnswer(
                each.code,
                each.name,
                each.value,
                each.unit,
                each.reference,
                each.flag or None,  # type: ignore[arg-type]  # the intake lets nothing else in
                each.note,
            )
            for each in report.observations
        ],
        [
            bodies.AttachmentAnswer(n, each.media_type, each.title, size)
            for n, (each, size) in enumerate(zip(report.attachments, one.sizes, strict=True), 1)
        ],
        [
            bodies.ChangeAnswer(each.code, each.name, each.what, each.before, each.after)  # type: ignore[arg-type]
            for each in differences
        ],
    )


def _summary(one: ReportRow, zone: tzinfo) -> bodies.ReportSummaryAnswer:
    report = one.report
    return bodies.ReportSummaryAnswer(
        uuid(one.id),
        report.number,
        report.title,
        report.category,
        report.status.value,
        report.issued_at.astimezone(zone),
        None if report.collected_at is None else report.collected_at.astimezone(zone),
        one.version,
        sum(1 for each in report.observations if each.flag not in _UNREMARKABLE),
    )
