"""A copy of all one's data, as a file that programs read (PIPL 45)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from aiohttp import hdrs, web

from engine.domain.ids import ScheduleKey
from engine.journal.streams import read_stream
from engine.records import personal_export as records
from engine.records.bills_export import OwnBill
from engine.records.clinical_export import OwnClinicalEntry, OwnStudy
from engine.records.erasure import Clock
from engine.records.reports_export import OwnNumber, OwnReport
from engine.views.history import of_appointment
from web import keys
from web.auditing import audited
from web.desk.history import line_answer
from web.errors import Problem, language_of
from web.faults import Fault, Language
from web.openapi import api

log = logging.getLogger(__name__)

AT_ONCE_MAX: Final = 2
"""Exports that one gateway writes at a time: each costs some dozens of queries."""
SECONDS_MAX: Final = 60.0
"""Who reads more slowly is cut off, and may ask again."""


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """本人数据的副本 / a copy of one's data. Sections may be empty; new ones may be added."""

    format: Literal["xinglin-export-1"]
    made_at: datetime
    account: records.OwnAccount
    people: list[records.OwnPatient]
    appointments: list[records.OwnAppointment]
    bills: list[OwnBill]
    tickets: list[records.OwnTicket]
    vitals: list[records.OwnVitals]
    reports: list[OwnReport]
    numbers: list[OwnNumber]
    imaging: list[OwnStudy]
    clinical: list[OwnClinicalEntry]
    wishes: list[records.OwnWish]
    penalties: list[records.OwnPenalty]
    consents: list[records.OwnConsent]
    delegations: list[records.OwnDelegation]
    sessions: list[records.SessionRecord]
    notices: list[records.OwnNotice]
    ways: list[records.OwnWay]
    calls: list[records.OwnCall]
    looks: list[records.OwnLook]
    accesses: list[records.OwnAccess]
    corrections: list[records.OwnCorrection]
    erasures: list[records.OwnErasure]


@api.route(
    "GET",
    "/api/v1/account/export",
    zh="导出我的全部数据",
    tags=["privacy"],
    errors=[Fault.EXPORT_BUSY, Fault.DATABASE_DOWN],
    answer=ExportAnswer,
)
async def export_account(request: web.Request, *, account_id: bytes) -> web.StreamResponse:
    """Everything about this account and its people, as one JSON document that is sent while it is read. Of
    oneself and one's children all; of others what the right to act for them shows. Noted in the audit."""
    return await sent(request, account_id, "application/json", "json", _document)


Parts = Callable[[web.Request, records.Whose, records.OwnAccount, datetime], AsyncIterator[bytes]]


async def sent(
    request: web.Request, account_id: bytes, content_type: str, suffix: str, parts: Parts
) -> web.StreamResponse:
    """A file of everything, noted in the audit before it begins. Raises Problem: export_busy."""
    app = request.app
    now = datetime.now(UTC)
    under_way = app[keys.EXPORTS]
    if under_way.locked():
        raise Problem(Fault.EXPORT_BUSY)
    async with under_way:
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            whose = await records.whose(connection, app[keys.VAULT], account_id, Clock(now, app[keys.ZONE]))
            account = await records.account_of(connection, app[keys.VAULT], account_id)
            await audited(request, connection, "account_exported", subjects=whose.seen)
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: content_type,
                hdrs.CACHE_CONTROL: "no-store",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="xinglin-export-{now:%Y%m%d}.{suffix}"',
            }
        )
        await response.prepare(request)
        try:
            async with asyncio.timeout(SECONDS_MAX):  # others wait for their turn
                async for part in parts(request, whose, account, now):
                    await response.write(part)
                await response.write_eof()
        except Exception as error:
            # The head is gone already. Whoever gets half a document must see that it is half of one.
            log.warning("an export was broken off: %s", type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
    return response


async def pages_of(
    request: web.Request, section: records.Section, whose: records.Whose
) -> AsyncIterator[list[Any]]:
    """A section's rows as they go into a file: numbers with their histories."""
    async for page in records.pages(request.app[keys.POOL], request.app[keys.VAULT], section, whose):
        yield await _with_histories(request, page) if section.name == "appointments" else page


def exports() -> asyncio.Semaphore:
    """Of one gateway."""
    return asyncio.Semaphore(AT_ONCE_MAX)


async def _document(
    request: web.Request, whose: records.Whose, account: records.OwnAccount, now: datetime
) -> AsyncIterator[bytes]:
    """The whole, in parts of a page each. Whoever is cut off has no JSON document, and sees it."""
    head = {"format": records.FORMAT, "made_at": now, "account": account}
    yield orjson.dumps(head)[:-1]
    for section in records.SECTIONS:
        yield f',"{section.name}":['.encode()
        comma = b""
        async for page in pages_of(request, section, whose):
            yield comma + orjson.dumps(page)[1:-1]
            comma = b","
        yield b"]"
    yield b"}"


async def _with_histories(
    request: web.Request, page: list[records.OwnAppointment]
) -> list[records.OwnAppointment]:
    app = request.app
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    told = []
    streams: dict[str, Any] = {}
    for one in page:
        key = ScheduleKey.of_schedule(one.schedule_id)
        if key is None:
            told.append(one)
            continue
        if key.stream not in streams:
            streams.clear()  # rows are not sorted by day: no more than one day's journal is kept
            async with app[keys.POOL].acquire() as connection:
                streams[key.stream] = await read_stream(connection, key.stream)
        told.append(replace(one, history=_lines(app, streams[key.stream], one.id, language)))
    return told


def _lines(app: web.Application, recorded: Any, id_: str, language: Language) -> list[records.OwnLine]:
    lines = of_appointment(recorded, bytes.fromhex(id_.replace("-", "")))
    answers = [line_answer(line, language, app[keys.ZONE]) for line in lines]
    return [records.OwnLine(one.at, one.what, one.text) for one in answers]
