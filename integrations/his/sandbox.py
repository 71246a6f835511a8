"""A small hospital's HIS in memory, for demo and tests: JSON and FHIR over HTTP, HL7 v2 over MLLP.

    sandbox = Sandbox("xinglin", secret)
    async with sandbox.running(http_port=0, mllp_port=0): ...       # sandbox.address, sandbox.mllp_port
    sandbox.hospital.ledger                                         # what it was told, once each message
    sandbox.hospital.faults.ask("tell", Fault.APPLIED_THEN_TIMEOUT)
    sandbox.hospital.faults.fail_share = 0.2

Operations of faults: tell, find, registrations, lock, unlock, departments, practitioners, schedules, patient.

Over HTTP, for people, demos and benchmarks in other processes (nothing of it is a hospital's):

    GET  /sandbox                            a page with the newest registrations, without names
    GET  /sandbox/registrations, /sandbox/ledger, /sandbox/sent
    POST /sandbox/faults                     {"fail_share": 0.2, "applied_then_timeout_share": 0.05,
                                              "is_away": true, "slow_seconds": 0.1, "reorder": true,
                                              "wrong_charset": true, "copies": 2,
                                              "operation": "tell", "faults": ["cut"]}
    POST /sandbox/window                     {"department", "practitioner", "starts_at", "person": {…}}
    POST /sandbox/registrations/{his_id}/{cancelled|arrived|fulfilled|no_show|booked}
    POST /sandbox/registrations/{his_id}/forget    it is gone, and nobody is told (for the reconciliation)
    POST /sandbox/schedule                   {"what": "suspended", "practitioner", "department", "day",
                                              "period", "capacity", "reason"}
    POST /sandbox/merge                      {"from": number, "to": number}
    POST /sandbox/master                     {"kind": "practitioner", "code", "name", …}
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.his.sandbox_fhir import FhirForm
from integrations.his.sandbox_hl7 import HisServer, Notices
from integrations.his.sandbox_hospital import Fault, Hospital, Json
from integrations.his.sandbox_rest import RestForm
from integrations.hl7v2 import mllp
from integrations.hl7v2.client import Peer

PAGE_ROWS: Final = 200
_TRIGGERS: Final = {
    "cancelled": "S15",
    "booked": "S14",
    "fulfilled": "S14",
    "arrived": "S14",
    "no_show": "S26",
}
_WHAT: Final = {"opened": "S18", "capacity": "S19", "suspended": "S23", "resumed": "S24"}
_HOURS: Final = {"morning": 8, "afternoon": 14, "night": 18}


class Sandbox:
    def __init__(
        self,
        app_id: str,
        secret: bytes,
        clock: Callable[[], float] = time.time,
        zone: tzinfo = UTC,
        notices_port: int = 0,  # our listener's, on 127.0.0.1
        charset: str = "utf-8",
    ) -> None:
        self.hospital = Hospital(zone, clock)
        self.notices = Notices(self.hospital, Peer("127.0.0.1", notices_port, connections=1), charset=charset)
        self.address = ""
        self.mllp_port = 0
        self._rest = RestForm(self.hospital, app_id, secret)
        self._fhir = FhirForm(self.hospital)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._slow])
        self._rest.add_to(app)
        self._fhir.add_to(app)
        add = app.router.add_route
        add("GET", "/sandbox", self._page)
        add("GET", "/sandbox/registrations", self._page_registrations)
        add("GET", "/sandbox/ledger", self._page_ledger)
        add("GET", "/sandbox/sent", self._page_sent)
        add("POST", "/sandbox/faults", self._page_faults)
        add("POST", "/sandbox/window", self._page_window)
        add("POST", "/sandbox/registrations/{his_id}/{what}", self._page_move)
        add("POST", "/sandbox/schedule", self._page_schedule)
        add("POST", "/sandbox/merge", self._page_merge)
        add("POST", "/sandbox/master", self._page_master)
        return app

    @contextlib.asynccontextmanager
    async def running(self, http_port: int = 0, mllp_port: int = 0) -> AsyncIterator["Sandbox"]:
        """On 127.0.0.1, for as long as the context lasts; port 0: any free one."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", http_port)
        await site.start()
        limits = mllp.Limits(handle_seconds_max=120.0)
        server = await mllp.serve("127.0.0.1", mllp_port, HisServer(self.hospital).handle, limits)
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.mllp_port = server.port
        sending = asyncio.create_task(self.notices.run()) if self.notices.peer.port else None
        try:
            yield self
        finally:
            if sending is not None:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sending
            await server.abort()
            await runner.cleanup()

    @web.middleware
    async def _slow(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.hospital.faults.slow_seconds and not request.path.startswith("/sandbox"):
            await asyncio.sleep(self.hospital.faults.slow_seconds)
        answer: web.StreamResponse = await handler(request)
        return answer

    # What happens there. Each is told to us, too.

    def at_window(self, department: str, practitioner: str, starts_at: datetime, person: Json) -> str:
        one = self.hospital.at_window(department, practitioner, starts_at, person)
        self.notices.registration(one, "S12")
        return one.his_id

    def move(self, his_id: str, status: str) -> None:
        one = self.hospital.registrations[his_id]
        one.status = status
        self.notices.registration(one, _TRIGGERS[status])

    def schedule(self, told: Json) -> None:
        practitioner, day, what = told["practitioner"], told["day"], told["what"]
        period = told.get("period") or ""
        for one in [period] if period else _HOURS:
            session = self.hospital.session(practitioner, day, one)
            if what in ("suspended", "resumed"):
                session["status"] = "suspended" if what == "suspended" else "open"
            elif told.get("capacity") is not None:
                session["capacity"] = told["capacity"]
        start = datetime.fromisoformat(f"{day}T{_HOURS.get(period, 0):02}:00:00").replace(
            tzinfo=self.hospital.zone
        )
        capacity = told.get("capacity")
        self.notices.schedule(
            _WHAT[what],
            practitioner,
            told["department"],
            start,
            period,
            "" if capacity is None else str(capacity),
            told.get("reason", ""),
        )

    def merge(self, gone: str, kept: str) -> None:
        self.hospital.people.pop(gone, None)
        self.notices.person({**self.hospital.people[kept], "his_id": kept}, "A40", gone)

    # For people.

    async def _page(self, _request: web.Request) -> web.Response:
        newest = list(self.hospital.registrations.values())[-PAGE_ROWS:][::-1]
        names = {one["code"]: one["name"] for one in self.hospital.departments + self.hospital.practitioners}
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td>{escape(str(cell))}</td>"
                for cell in (
                    one.his_id,
                    names.get(one.department, one.department),
                    names.get(one.practitioner, one.practitioner),
                    f"{one.starts_at.astimezone(self.hospital.zone):%Y-%m-%d %H:%M}",
                    "" if one.number is None else one.number,
                    one.status,
                    "窗口" if one.is_window else "杏林",
                )
            )
            + "</tr>"
            for one in newest
        )
        heads = "".join(f"<th>{head}</th>" for head in ("号", "科室", "医生", "时间", "序号", "状态", "来源"))
        page = (
            "<!doctype html><html lang=zh><meta charset=utf-8><title>HIS 沙箱</title>"
            "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em 1em;text-align:left}</style>"
            f"<h1>HIS 沙箱</h1><p>登记 {len(self.hospital.registrations)}，账本 {len(self.hospital.ledger)}，"
            f"重复 {self.hospital.repeats}</p><table><tr>{heads}</tr>{rows}</table>"
        )
        return web.Response(text=page, content_type="text/html")

    async def _page_registrations(self, _request: web.Request) -> web.Response:
        return _json([one.told() for one in self.hospital.registrations.values()])

    async def _page_ledger(self, _request: web.Request) -> web.Response:
        return _json({"rows": self.hospital.ledger, "repeats": self.hospital.repeats})

    async def _page_sent(self, _request: web.Request) -> web.Response:
        return _json({"sent": self.notices.sent, "waiting": len(self.notices.waiting)})

    async def _page_faults(self, request: web.Request) -> web.Response:
        asked = await request.json()
        faults, notices = self.hospital.faults, self.notices
        faults.fail_share = asked.get("fail_share", faults.fail_share)
        faults.applied_then_timeout_share = asked.get(
            "applied_then_timeout_share", faults.applied_then_timeout_share
        )
        faults.slow_seconds = asked.get("slow_seconds", faults.slow_seconds)
        faults.is_away = asked.get("is_away", faults.is_away)
        notices.is_reordering = asked.get("reorder", notices.is_reordering)
        notices.has_wrong_charset = asked.get("wrong_charset", notices.has_wrong_charset)
        notices.copies = asked.get("copies", notices.copies)
        if "operation" in asked:
            faults.ask(asked["operation"], *(Fault(one) for one in asked["faults"]))
        return web.Response(status=204)

    async def _page_window(self, request: web.Request) -> web.Response:
        asked = await request.json()
        starts_at = datetime.fromisoformat(asked["starts_at"])
        his_id = self.at_window(asked["department"], asked["practitioner"], starts_at, asked["person"])
        return _json({"his_id": his_id})

    async def _page_move(self, request: web.Request) -> web.Response:
        his_id, what = request.match_info["his_id"], request.match_info["what"]
        if his_id not in self.hospital.registrations or what not in (*_TRIGGERS, "forget"):
            return web.Response(status=404)
        if what == "forget":
            self.hospital.forget(his_id)
        else:
            self.move(his_id, what)
        return web.Response(status=204)

    async def _page_schedule(self, request: web.Request) -> web.Response:
        self.schedule(await request.json())
        return web.Response(status=204)

    async def _page_merge(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.merge(asked["from"], asked["to"])
        return web.Response(status=204)

    async def _page_master(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.notices.master(asked["kind"], asked)
        return web.Response(status=204)


def _json(content: Any) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
