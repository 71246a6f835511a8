"""What the audit administrator looks at, and nobody else. That he looked is written down as well."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from engine.audit.accesses import affected
from engine.audit.chain_state import chain_state
from engine.audit.search import Wanted, all_of, search
from web import keys
from web.auditing import audited
from web.auditors.bodies import (
    AffectedPerson,
    AffectedQuery,
    BreachAnswer,
    ChainAnswer,
    EntriesAnswer,
    EntriesQuery,
    EntryAnswer,
    ExportQuery,
    WantedQuery,
)
from web.auditors.export import HEADER, as_csv, as_json
from web.faults import Fault
from web.openapi import api

_BYTES_AT_ONCE: Final = 64 * 1024
_TYPES: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}


@api.route(
    "GET",
    "/api/v1/audit/entries",
    zh="查询审计记录",
    tags=["audit"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_audit_entries(request: web.Request, *, query: EntriesQuery) -> EntriesAnswer:
    """Who did what, when, and whose data it was; the newest first."""
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await search(connection, _wanted(query), query.before, query.limit + 1)
        page = found[: query.limit]
        await audited(request, connection, "audit_read", detail=_asked(query))
    zone = app[keys.ZONE]
    entries = [
        EntryAnswer(
            id=line.id,
            at=line.at.astimezone(zone),
            action=line.action,
            by_kind=line.by_kind,
            by_id=_id(line.by_id),
            by_name=line.by_name,
            subjects=[str(UUID(bytes=one)) for one in line.subjects],
            object_kind=line.object_kind,
            object_id=line.object_id,
            outcome=line.outcome,
            reason=line.reason,
            request_id=line.request_id,
            address=line.address,
            gateway=line.gateway,
            detail=line.detail,
        )
        for line in page
    ]
    return EntriesAnswer(entries, page[-1].id if len(found) > query.limit else None)


@api.route(
    "GET",
    "/api/v1/audit/export",
    zh="导出审计记录",
    tags=["audit"],
    errors=[Fault.DATABASE_DOWN],
)
async def export_audit(request: web.Request, *, query: ExportQuery) -> web.StreamResponse:
    """All that is found, the oldest first, as CSV or as JSON lines: a stream, however long."""
    pool = request.app[keys.POOL]
    await audited(request, pool, "audit_exported", detail=_asked(query))
    is_csv = query.format == "csv"
    name = f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{query.format}"
    response = web.StreamResponse(
        headers={
            "Content-Type": _TYPES[query.format],
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    said = HEADER if is_csv else ""
    async for line in all_of(pool, _wanted(query)):
        said += as_csv(line) if is_csv else as_json(line)
        if len(said) >= _BYTES_AT_ONCE:
            await response.write(said.encode())
            said = ""
    await response.write_eof(said.encode())
    return response


@api.route(
    "GET",
    "/api/v1/audit/chain",
    zh="审计链的进度",
    tags=["audit"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_audit_chain(request: web.Request) -> ChainAnswer:
    """The last block, and what waits for the next one. `xinglin audit verify` recomputes all of it."""
    async with request.app[keys.POOL].acquire() as connection:
        state = await chain_state(connection)
    at = None if state.at is None else datetime.fromtimestamp(state.at / 1000, request.app[keys.ZONE])
    return ChainAnswer(state.block, state.hash, state.key, at, state.waiting_entries, state.waiting_events)


@api.route(
    "GET",
    "/api/v1/audit/affected",
    zh="泄露事件所涉人员",
    tags=["audit"],
    errors=[Fault.DATABASE_DOWN],
)
async def list_affected(request: web.Request, *, query: AffectedQuery) -> BreachAnswer:
    """After a breach: the patients whose data somebody read or changed in that time (PIPL 57)."""
    zone = request.app[keys.ZONE]
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = await affected(connection, query.by_id.bytes, query.since, query.until)
        await audited(
            request,
            connection,
            "breach_examined",
            object=("who", str(query.by_id)),
            detail={"since": query.since.isoformat(), "until": query.until.isoformat()},
        )
    return BreachAnswer(
        [
            AffectedPerson(
                str(UUID(bytes=one.patient_id)),
                one.times,
                one.first_at.astimezone(zone),
                one.last_at.astimezone(zone),
                list(one.actions),
            )
            for one in found
        ]
    )


def _wanted(query: WantedQuery) -> Wanted:
    return Wanted(
        by_id=None if query.by_id is None else query.by_id.bytes,
        by_name=query.by,
        patient_id=None if query.patient is None else query.patient.bytes,
        action=query.action,
        object_kind=query.object_kind,
        object_id=query.object_id,
        outcome=query.outcome,
        since=query.since,
        until=query.until,
    )


def _asked(query: WantedQuery) -> dict[str, str | int]:
    """For the entry: what was asked for."""
    said = {name: getattr(query, name) for name in query.model_fields_set}
    return {
        name: value
        if isinstance(value, int)
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        for name, value in said.items()
        if value is not None
    }


def _id(found: bytes | None) -> str | None:
    return None if found is None else str(UUID(bytes=found))
