"""A small laboratory in memory, for demo and tests: it takes orders and sends ORU^R01 over MLLP.

    sandbox = Sandbox("127.0.0.1", 2575, clock)
    sandbox.order("T1", patient_id, sex="female")        # preliminary now, final later, sometimes corrected
    sandbox.fail(Fault.DUPLICATE, Fault.MALFORMED)       # what happens to the next messages
    await sandbox.deliver()                              # sends what is due by `clock`
    sandbox.ledger                                       # what was sent, and what was answered

Numbers of patients are those of whoever ordered (authority XINGLIN). A message that was not accepted is sent
again, a few times; then it lies in the ledger as given up.

Over HTTP, for people and demos: GET /sandbox/ledger, POST /sandbox/orders {"order", "patient", "sex"},
POST /sandbox/fail {"faults": ["duplicate"]}.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web

from integrations.connector import ConnectorFailed
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.message import Header, Row, compose
from integrations.hl7v2.times import stamp
from integrations.lis.sandbox_panels import PANELS, Panel, Result, results

ORDERS_MAX: Final = 10_000
TRIES_MAX: Final = 5
AGAIN_SECONDS: Final = 10.0
FINAL_SECONDS: Final = 30.0
CORRECTED_SECONDS: Final = 120.0
CORRECTED_SHARE: Final = 0.15
LOOK_SECONDS: Final = 1.0
HERE: Final = ZoneInfo("Asia/Shanghai")


class Fault(StrEnum):
    DUPLICATE = "duplicate"  # sent twice, byte by byte
    MALFORMED = "malformed"  # an OBX that is cut off in its middle, and no PID
    WRONG_CHARSET = "wrong_charset"  # GB18030 that is declared to be UTF-8
    IMPLAUSIBLE = "implausible"  # a point that slipped
    STRANGER = "stranger"  # a patient nobody here knows
    REORDERED = "reordered"  # the preliminary after the final


@dataclass(frozen=True, slots=True)
class Sent:
    control_id: str
    number: str
    status: str
    order: str
    answer: str  # AA, AE, AR; "": none came


@dataclass(slots=True)
class _Message:
    order: str
    number: str
    patient: str
    sex: str
    panel: Panel
    found: list[Result]
    status: str  # P F C
    due: float
    control_id: str
    tries: int = 0


@dataclass(slots=True)
class Sandbox:
    host: str
    port: int
    clock: Callable[[], float]
    seed: int = 1
    zone: tzinfo = HERE
    ledger: list[Sent] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    _orders: dict[str, str] = field(default_factory=dict)
    _waiting: list[_Message] = field(default_factory=list)
    _faults: deque[Fault] = field(default_factory=deque)
    _chance: random.Random = field(init=False)
    _client: Client = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # nosec B311  # play, not secrets
        self._client = Client(Peer(self.host, self.port, connections=1))

    def order(self, order: str, patient: str, sex: str = "") -> str:
        """The number that its report will have; of the same order the same."""
        known = self._orders.get(order)
        if known is not None:
            return known
        if len(self._orders) >= ORDERS_MAX:
            self._orders.pop(next(iter(self._orders)))
        number = self._orders[order] = f"L{len(self._orders) + 1:06}-{self.seed}"
        panel = self._chance.choice(PANELS)
        found = results(panel, self._chance)
        now = self.clock()
        self._add(order, number, patient, sex, panel, found, "P", now)
        self._add(order, number, patient, sex, panel, found, "F", now + FINAL_SECONDS)
        if self._chance.random() < CORRECTED_SHARE:
            corrected = results(panel, self._chance)[:1] + found[1:]
            self._add(order, number, patient, sex, panel, corrected, "C", now + CORRECTED_SECONDS)
        return number

    def fail(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    async def deliver(self) -> int:
        """Sends what is due, in its order; how many messages. One that fails does not stop the next."""
        now = self.clock()
        due = sorted((one for one in self._waiting if one.due <= now), key=lambda one: one.due)
        for one in due:
            self._waiting.remove(one)
            await self._send(one)
        return len(due)

    async def run(self) -> None:
        while True:
            await self.deliver()
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        await self._client.close()

    def _add(
        self,
        order: str,
        number: str,
        patient: str,
        sex: str,
        panel: Panel,
        found: list[Result],
        status: str,
        due: float,
    ) -> None:
        self._count += 1
        control_id = f"LIS{self.seed}-{self._count:08}"
        self._waiting.append(_Message(order, number, patient, sex, panel, found, status, due, control_id))

    async def _send(self, one: _Message) -> None:
        fault = self._faults.popleft() if self._faults else None
        if fault is Fault.REORDERED and one.status == "P":
            one.due = self.clock() + CORRECTED_SECONDS
            self._waiting.append(one)
            return
        for _ in range(2 if fault is Fault.DUPLICATE else 1):
            answer = await self._say(one, fault)
        if answer == "AA" or fault is not None:
            return
        one.tries += 1
        if one.tries < TRIES_MAX:
            one.due = self.clock() + AGAIN_SECONDS
            self._waiting.append(one)
        else:
            self.given_up.append(one.control_id)

    async def _say(self, one: _Message, fault: Fault | None) -> str:
        raw = self._spelled(one, fault)
        try:
            answer = (await self._client.send(raw, one.control_id)).first("MSA").text(1)
        except ConnectorFailed:
            answer = ""
        self.ledger.append(Sent(one.control_id, one.number, one.status, one.order, answer))
        return answer

    def _spelled(self, one: _Message, fault: Fault | None) -> bytes:
        now = datetime.fromtimestamp(self.clock(), UTC).astimezone(self.zone)
        patient = f"nobody-{one.number}" if fault is Fault.STRANGER else one.patient
        header = Header(("LIS", "LAB"), ("XINGLIN", ""), ("ORU", "R01", "ORU_R01"), one.control_id, now)
        rows: list[Row] = [
            ("PID", {1: "1", 3: [(patient, "", "", "XINGLIN", "PI")], 8: _sex(one.sex)}),
            ("ORC", {1: "RE", 2: one.order, 3: one.number}),
            (
                "OBR",
                {
                    1: "1",
                    2: one.order,
                    3: one.number,
                    4: (one.panel.code, one.panel.name),
                    7: stamp(now),
                    22: stamp(now),
                    24: "LAB",
                    25: one.status,
                },
            ),
        ]
        for n, each in enumerate(one.found, 1):
            value = f"{each.value}0000000" if fault is Fault.IMPLAUSIBLE and each.reference else each.value
            rows.append(
                (
                    "OBX",
                    {
                        1: str(n),
                        2: each.kind,
                        3: (each.code, each.name),
                        5: value,
                        6: each.unit,
                        7: each.reference,
                        8: each.flag,
                        11: one.status,
                        14: stamp(now),
                    },
                )
            )
        raw = compose(header, rows)
        if fault is Fault.MALFORMED:
            return raw[: len(raw) // 2].replace(b"PID|", b"PI|")
        if fault is Fault.WRONG_CHARSET:
            return raw.decode().encode("gb18030")
        return raw


def _sex(word: str) -> str:
    return {"male": "M", "female": "F"}.get(word, "U")


def app_of(sandbox: Sandbox) -> web.Application:
    """What people and demos ask it; nothing of it is a laboratory's."""

    async def order(request: web.Request) -> web.Response:
        said: dict[str, Any] = await request.json()
        number = sandbox.order(str(said["order"]), str(said["patient"]), str(said.get("sex") or ""))
        return web.json_response({"number": number}, status=201)

    async def fail(request: web.Request) -> web.Response:
        sandbox.fail(*(Fault(one) for one in (await request.json())["faults"]))
        return web.json_response({})

    async def ledger(request: web.Request) -> web.Response:
        rows = [
            {"message": one.control_id, "report": one.number, "status": one.status, "answer": one.answer}
            for one in sandbox.ledger[-500:]
        ]
        return web.json_response({"sent": rows, "given_up": sandbox.given_up[-500:]})

    app = web.Application()
    app.router.add_post("/sandbox/orders", order)
    app.router.add_post("/sandbox/fail", fail)
    app.router.add_get("/sandbox/ledger", ledger)
    return app


@contextlib.asynccontextmanager
async def serving(sandbox: Sandbox, port: int) -> AsyncIterator[str]:
    """Its address; it delivers by itself meanwhile."""
    runner = web.AppRunner(app_of(sandbox), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    delivering = asyncio.create_task(sandbox.run())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        delivering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await delivering
        await sandbox.close()
        await runner.cleanup()
