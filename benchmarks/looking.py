"""How soon a looking patient sees what others do: from the commit to the socket of `GET /api/v1/stream`.

Some people hold numbers at quiet doctors and give them back; somebody else looks at these days. When a change
was decided, the journal says (`event.at`, a moment before its commit); when it came, this process says. Both
read one machine's clock. Every change waits until the one before it has been seen, so no two are taken for
one another.
"""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import orjson

from benchmarks.asking import Asking, client
from benchmarks.people import Person
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.journal.codec import EVENT_CODES, unpack_event

PAUSE_SECONDS: Final = (0.0, 0.4)  # random: the feed comes ten times a second, and must not set the pace
SEEN_SECONDS_MAX: Final = 10.0
P99_SECONDS_MAX: Final = 1.0


@dataclass(slots=True)
class Seen:
    """One change and the moment (of the wall clock) at which it came."""

    appointment_id: UUID
    is_held: bool  # else given back
    at: float


@dataclass(slots=True)
class Looking:
    """Looks in a thread of its own from `start` to `stop`, while the load is on."""

    url: str
    slots: Sequence[str]  # one for each who books, each of another schedule
    people: Sequence[Person]  # each holds once: who drops number after number is stopped from booking
    seen: list[Seen] = field(default_factory=list)
    missed: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._look()), name="looking")
        self._thread.start()

    def stop(self) -> None:
        assert self._thread is not None
        self._stopping.set()
        self._thread.join()

    async def _look(self) -> None:
        news: dict[str, asyncio.Queue[float]] = {slot: asyncio.Queue() for slot in self.slots}
        async with client() as session, session.ws_connect(f"{self.url}/api/v1/stream") as socket:
            topics = [f"schedule/{slot.rpartition('-')[0]}" for slot in self.slots]
            await socket.send_json({"subscribe": topics})
            hearing = asyncio.create_task(_hear(socket, news))
            waiting = [list(self.people[n :: len(self.slots)]) for n in range(len(self.slots))]
            asking = Asking(session, self.url)
            await asyncio.gather(
                *(
                    self._book(asking, slot, news[slot], crowd)
                    for slot, crowd in zip(self.slots, waiting, strict=True)
                )
            )
            hearing.cancel()

    async def _book(self, asking: Asking, slot: str, news: asyncio.Queue[float], crowd: list[Person]) -> None:
        for person in crowd:
            if self._stopping.is_set():
                return
            body = {"slot_id": slot, "patient_id": person.patient_ids[0]}
            key = f"look-{person.patient_ids[0]}"
            await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
            _emptied(news)
            held = await asking.ask("hold", person.token, "POST", "/api/v1/appointments", body, key)
            if held.status != 201:
                continue
            id_ = held.body["id"]
            await self._wait_for(news, UUID(id_), True)
            await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
            _emptied(news)
            await asking.ask(
                "cancel", person.token, "POST", f"/api/v1/appointments/{id_}/cancel", None, f"{key}-back"
            )
            await self._wait_for(news, UUID(id_), False)

    async def _wait_for(self, news: asyncio.Queue[float], id_: UUID, is_held: bool) -> None:
        try:
            self.seen.append(Seen(id_, is_held, await asyncio.wait_for(news.get(), SEEN_SECONDS_MAX)))
        except TimeoutError:
            self.missed += 1

    async def seconds(self, database_url: str) -> list[float]:
        """From each change's decision in the journal to its coming."""
        streams = set()
        for slot in self.slots:
            found = ScheduleKey.of_slot(slot)
            assert found is not None
            streams.add(found[0].stream)
        connection = await asyncpg.connect(database_url)
        try:
            rows = await connection.fetch(
                "select extract(epoch from at)::float8 as at, type, data from event"
                " where stream = any ($1) and type = any ($2)",
                list(streams),
                [EVENT_CODES[s.SeatHeld], EVENT_CODES[s.SeatReleased]],
            )
        finally:
            await connection.close()
        decided: dict[tuple[bytes, bool], float] = {}
        for row in rows:
            event: Any = unpack_event(row["type"], row["data"])
            decided[event.appointment_id, isinstance(event, s.SeatHeld)] = row["at"]
        return [one.at - decided[one.appointment_id.bytes, one.is_held] for one in self.seen]


def _emptied(news: asyncio.Queue[float]) -> None:
    """What others did to the slot meanwhile."""
    while not news.empty():
        news.get_nowait()


async def _hear(socket: aiohttp.ClientWebSocketResponse, news: dict[str, asyncio.Queue[float]]) -> None:
    async for message in socket:
        at = time.time()
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        for changed in orjson.loads(message.data).get("changed", ()):
            if changed["slot_id"] in news:
                news[changed["slot_id"]].put_nowait(at)
