"""Somebody who receives webhooks: checks each signature, writes down what came, fails when told to."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.webhooks.signing import is_ours

BODY_BYTES_MAX: Final = 64 * 1024


class Fault(StrEnum):
    ERROR = "error"  # 500
    BUSY = "busy"  # 429, come again in a while
    REFUSE = "refuse"  # 400, for good
    GONE = "gone"  # 410
    SILENCE = "silence"  # no answer, though it was taken
    CUT = "cut"  # the line breaks, though it was taken
    REDIRECT = "redirect"


@dataclass(frozen=True, slots=True)
class Got:
    id: str
    event: dict[str, Any]
    signatures: int


class Sandbox:
    """`secret`: what it checks with, once it was told. `ledger`: what it took, each id once; `asked`: each
    try."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.secret = ""
        self.ledger: list[Got] = []
        self.asked: list[str] = []
        self.unsigned = 0
        self.is_down = False
        self._clock = clock
        self._faults: deque[Fault] = deque()
        self._ended = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/hook", self._hook)
        app.router.add_post("/sandbox/fail", self._fail)
        app.router.add_get("/sandbox/ledger", self._told)
        app.on_shutdown.append(self._end)
        return app

    def fail(self, *faults: Fault) -> None:
        """The next requests, one after another."""
        self._faults.extend(faults)

    async def _hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        id_ = headers.get("webhook-id", "")
        self.asked.append(id_)
        if self.is_down:
            return web.Response(status=503)
        if not is_ours(self.secret, headers, body, int(self._clock())):
            self.unsigned += 1
            return web.Response(status=401)
        fault = self._faults.popleft() if self._faults else None
        match fault:
            case Fault.ERROR:
                return web.Response(status=500)
            case Fault.BUSY:
                return web.Response(status=429, headers={"Retry-After": "1"})
            case Fault.REFUSE:
                return web.Response(status=400)
            case Fault.GONE:
                return web.Response(status=410)
            case Fault.REDIRECT:
                return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})
        if all(one.id != id_ for one in self.ledger):
            signatures = len(headers["webhook-signature"].split(" "))
            self.ledger.append(Got(id_, orjson.loads(body), signatures))
        match fault:
            case Fault.SILENCE:
                await self._ended.wait()
            case Fault.CUT if request.transport is not None:
                request.transport.abort()
        return web.Response(status=204)

    async def _fail(self, request: web.Request) -> web.Response:
        self.fail(*(Fault(one) for one in orjson.loads(await request.read())["faults"]))
        return web.Response(status=204)

    async def _told(self, _request: web.Request) -> web.Response:
        told = [{"id": one.id, "type": one.event["type"]} for one in self.ledger]
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    async def _end(self, _app: web.Application) -> None:
        self._ended.set()
