"""How the call screens do: each says every few seconds, over its own connection, what it has shown last.

    {"screen": {"id": "S-0301-1", "topic": "calls/0301", "shown_sequence": 2026112400017, "error": ""}}

A gateway keeps the latest word of each of its screens and writes them all together now and then, so that any
gateway can list them. Whether a screen is behind is known where it is connected, at the moment of its word.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from engine.records import screens as records
from engine.records.screens import ScreenRow
from engine.records.staff import Role, Staff
from web import keys
from web.errors import DATABASE_AWAY, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import Request, Word
from web.queues.feeds import Feeds
from web.queues.rights import runs
from web.stream import ScreenBody, Who

log = logging.getLogger(__name__)

WRITE_SECONDS: Final = 5.0
LATE_MS: Final = 3_000  # a call that a screen has not shown for so long
AWAY: Final = timedelta(seconds=30)  # three words missed
SCREENS_MAX: Final = 5_000  # that one gateway keeps the word of between two writings


class Screens:
    """Of one gateway."""

    def __init__(self, app: web.Application, feeds: Feeds, gateway: str) -> None:
        self._app = app
        self._feeds = feeds
        self._gateway = gateway
        self._heard: dict[tuple[str, str], ScreenRow] = {}

    def hear(self, who: Who, topics: Iterable[str], said: ScreenBody) -> None:
        """Raises Problem where it is no screen, or watches no calls."""
        if who is None:
            raise Problem(Fault.UNAUTHENTICATED)
        if not isinstance(who, Staff) or Role.SCREEN not in who.roles:
            raise Problem(Fault.FORBIDDEN)
        watched = [topic for topic in topics if topic.startswith("calls/")]
        topic = said.topic if said.topic is not None or len(watched) != 1 else watched[0]
        if topic is None or topic not in watched:
            raise Problem(Fault.NO_SUCH_TOPIC)
        now = datetime.now(UTC)
        if (said.id, topic) not in self._heard and len(self._heard) >= SCREENS_MAX:
            return
        self._heard[said.id, topic] = ScreenRow(
            said.id,
            topic,
            topic.split("/")[1],
            who.username,
            self._gateway,
            now,
            said.shown_sequence,
            self._feeds.behind_ms(topic, said.shown_sequence, int(now.timestamp() * 1000)),
            "".join(c for c in said.error if c.isprintable()),
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except DATABASE_AWAY as error:
                log.warning("what screens said could not be written: %s", error)

    async def write(self) -> None:
        """What has been heard since the last time. Where it fails, what is newer by then is kept."""
        heard, self._heard = self._heard, {}
        if not heard:
            return
        try:
            await records.save_screens(self._app[keys.POOL], list(heard.values()), datetime.now(UTC))
        except BaseException:
            self._heard = {**heard, **self._heard}
            raise


@dataclass(frozen=True, slots=True)
class ScreenAnswer:
    id: str
    topic: str
    department_id: str
    account: Annotated[str, Field(description="登录账号 / username that it signed in with")]
    gateway: str
    seen_at: datetime
    away: Annotated[bool, Field(description="超过 30 秒无消息 / not heard of for 30 s")]
    shown_sequence: Annotated[int, Field(description="最后显示的叫号 / of the last call that it has shown")]
    behind_ms: Annotated[
        int,
        Field(
            description="最早未显示的叫号已过去多久 / how long the oldest call was out that it had not shown"
        ),
    ]
    late: Annotated[bool, Field(description="显示滞后超过 3 秒 / more than 3 s behind")]
    error: Annotated[str, Field(description="屏幕自报的故障 / in its own words")]


@dataclass(frozen=True, slots=True)
class ScreensAnswer:
    screens: list[ScreenAnswer]


class ScreensQuery(Request):
    department: Annotated[Word | None, Field(description="缺省为可见的全部 / all of yours when absent")] = (
        None
    )


@api.route(
    "GET",
    "/api/v1/desk/screens",
    zh="叫号屏状态",
    tags=["desk"],
    errors=[Fault.NO_SUCH_DEPARTMENT, Fault.DATABASE_DOWN],
)
async def read_screens(request: web.Request, *, staff: Staff, query: ScreensQuery) -> ScreensAnswer:
    """Call screens of your departments: when each was heard of, what it has shown, whether it is late."""
    app = request.app
    departments = app[keys.AVAILABILITY].catalog.departments
    if query.department is not None and query.department not in departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    await app[keys.SCREENS].write()
    rows = await records.list_screens(app[keys.POOL], query.department)
    now, zone = datetime.now(UTC), app[keys.ZONE]
    return ScreensAnswer(
        [
            ScreenAnswer(
                row.id,
                row.topic,
                row.department_id,
                row.account,
                row.gateway,
                row.seen_at.astimezone(zone),
                now - row.seen_at > AWAY,
                row.shown_sequence,
                row.behind_ms,
                row.behind_ms > LATE_MS,
                row.error,
            )
            for row in rows
            if runs(staff, row.department_id, departments)
        ]
    )
