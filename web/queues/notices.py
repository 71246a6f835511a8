"""Notices: "three people ahead", "leave home now", "the doctor is late", each told once.

One process of all decides (it holds the rounds' lock): it keeps copies of today's waiting rooms, which the
shards' feeds keep fresh, and looks at those that have changed. A notice is a row before anybody hears of it;
the row's commit tells all gateways, and each tells whoever watches the ticket there. Who watches nothing
finds it under GET /api/v1/notices.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

import asyncpg
from aiohttp import web
from pydantic import Field

from actors.rounds import Round
from engine.database import AWAY, connect
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.limits import NUMBER_MAX
from engine.domain.money import plain_yuan
from engine.records import notices as records
from engine.records.expected import departments_with_bookings
from engine.records.notices import Key, Notice
from engine.views.noticing import ahead_due, late_due, leave_home_due
from web import keys
from web.auditing import noted_delegation
from web.errors import Problem
from web.faults import Fault, Text
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import Id, Request
from web.queues.copies import Copy
from web.queues.estimates import MARGIN_MINUTES
from web.queues.outlook import WAY_MINUTES_ASSUMED
from web.queues.ticket_bodies import NameAnswer

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
AGAIN_MS: Final = 2_000  # a room that changes all the time is looked at once in so long
TIME_MS: Final = 20_000  # time alone makes it time to leave home
FIND_MS: Final = 30_000  # departments that have bookings today; one where something happens is found at once
LISTED_MAX: Final = 100
LISTEN_AGAIN_SECONDS: Final = 1.0
HEARD_MAX: Final = 1_000  # pieces of news that wait here; what is beyond it is found in the tables

KindWord = Literal["ahead", "leave_home", "late", "seat_again", "no_seat", "refunded"]

WORDS: Final[Mapping[str, Text]] = {
    "ahead": Text(
        "{number} 号前面还有 {ahead} 位，请到候诊区等候。",
        "{number}: {ahead} people are ahead. Please wait near the room.",
    ),
    "next": Text("{number} 号，下一位就是您。", "{number}: you are next."),
    "leave_home": Text(
        "现在出发，预计约 {turn} 叫号（按路程 {way_minutes} 分钟计）。",
        "Time to set out: you will be called at about {turn} (with a way of {way_minutes} minutes).",
    ),
    "leave_home_appointed": Text(
        "现在出发，请在 {arrive} 前到院（按路程 {way_minutes} 分钟计）。",
        "Time to set out: please be here by {arrive} (with a way of {way_minutes} minutes).",
    ),
    "late": Text(
        "{practitioner} 医生目前比预约时间晚约 {late_minutes} 分钟，预计叫号时间请看预约详情。",
        "{practitioner} is about {late_minutes} minutes behind the appointed times. Your appointment shows"
        " when you will probably be called.",
    ),
    "seat_again": Text(
        "您的付款在占号到期后到账，已为您重新占到同一时段的号，请以新的号为准。",
        "Your payment came after the hold had ended: you have a number in the same slot again, a new one.",
    ),
    "no_seat": Text(
        "您的付款 {yuan} 元到账时该时段已无余号，将全额退回原支付账户。",
        "No seat was left when your payment of ¥{yuan} came; all of it goes back the way it came.",
    ),
    "refunded": Text("已退回 {yuan} 元。", "¥{yuan} were given back."),
}


@dataclass(slots=True)
class _Followed:
    """A department of today."""

    key: RoomKey
    told: set[Key]
    version: int = -1
    looked_at: int = 0


@dataclass(slots=True)
class Noticing:
    """Decides what is to be told. `now` in ms."""

    app: web.Application
    now: Callable[[], int]
    _followed: dict[str, _Followed] = field(default_factory=dict)
    _heard: set[str] = field(default_factory=set)
    _found_at: int = 0
    _day: str = ""

    def rounds(self) -> list[Round]:
        return [Round("notices", LOOK_SECONDS, self.look)]

    def hear(self, streams: Iterable[str]) -> None:
        """What a feed tells: something has happened in these waiting rooms, of whatever day."""
        if len(self._heard) < HEARD_MAX:
            self._heard.update(streams)

    async def look(self) -> None:
        """At every department that has changed, or was not looked at for a while."""
        await self._find()
        now = self.now()
        for followed in list(self._followed.values()):
            copy = await self._copy(followed)
            age = now - followed.looked_at
            if copy is None or not (age >= TIME_MS or (age >= AGAIN_MS and copy.version != followed.version)):
                continue
            await self._decide(followed, copy)
            followed.version, followed.looked_at = copy.version, now
            await asyncio.sleep(0)  # others have their turn

    async def _find(self) -> None:
        """Which departments have patients today."""
        now, zone, pool = self.now(), self.app[keys.ZONE], self.app[keys.POOL]
        day = datetime.fromtimestamp(now / 1000, UTC).astimezone(zone).date()
        if self._day != day.isoformat():
            self.forget()
            self._day = day.isoformat()
        heard, all_of_them = frozenset(self._heard), now - self._found_at >= FIND_MS
        found = {key.department_id for key in map(RoomKey.of_stream, heard) if key.day == self._day}
        if all_of_them:
            found.update(await departments_with_bookings(pool, day, zone))
        for department_id in sorted(found):
            key = RoomKey(department_id, day.isoformat())
            if key.stream not in self._followed:
                told = await records.kept_of(pool, department_id, day)
                self._followed[key.stream] = _Followed(key, told)
                self.app[keys.ROOMS].pin(key)
        self._heard -= heard
        if all_of_them:
            self._found_at = now

    def forget(self) -> None:
        """It is another day."""
        for followed in self._followed.values():
            self.app[keys.ROOMS].unpin(followed.key)
        self._followed.clear()
        self._found_at = 0

    async def _copy(self, followed: _Followed) -> Copy | None:
        try:
            return await self.app[keys.ROOMS].look(followed.key)
        except Problem:  # a department that there is no more
            return None

    async def _decide(self, followed: _Followed, copy: Copy) -> None:
        app, key = self.app, followed.key
        rooms, forecasts = app[keys.ROOMS], app[keys.FORECASTS]
        terms = app[keys.POLICY].policy.waiting_of(key.department_id).notices
        rules = rooms.rules(key)
        due = list(ahead_due(copy.room, rules, terms, self.now(), followed.told))
        told = await forecasts.ready(copy)
        if told is not None:
            expected = forecasts.expected(key)
            order = rules.order_of(w.VISIT)
            due += leave_home_due(expected, told, order, terms, WAY_MINUTES_ASSUMED, MARGIN_MINUTES)
            due += late_due(expected, told, terms, followed.told)
        new = [one for one in due if one.key not in followed.told]
        if not new:
            return
        now = datetime.fromtimestamp(self.now() / 1000, UTC)
        async with app[keys.POOL].acquire() as connection:
            await records.keep(connection, key.department_id, date.fromisoformat(key.day), new, now)
        followed.told |= {one.key for one in new}


# Telling.


async def follow_notices(app: web.Application, database_url: str) -> None:
    """Tells whoever watches a ticket at this gateway, for as long as it is awaited. What came while the
    connection was lost is found in the list: a notice is news for a moment only."""
    while True:
        try:
            await _until_lost(await connect(database_url), app)
        except AWAY as error:
            log.warning("not listening for notices: %s", error)
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


async def _until_lost(connection: asyncpg.Connection, app: web.Application) -> None:
    heard: deque[str] = deque(maxlen=HEARD_MAX)
    news = asyncio.Event()

    def hear(*told: Any) -> None:
        heard.append(told[3])
        news.set()

    await connection.add_listener(records.CHANNEL, hear)
    connection.add_termination_listener(lambda *_: news.set())
    try:
        while not connection.is_closed():
            await news.wait()
            news.clear()
            while heard:
                ids = [int(id_) for id_ in heard.popleft().split(",")]
                for notice in await records.notices_by_id(app[keys.POOL], ids):
                    tell_watchers(app, notice)
    finally:
        connection.terminate()


def tell_watchers(app: web.Application, notice: Notice) -> int:
    """On topic ticket/<id>, also of an appointment that will become that ticket; how many heard it."""
    ticket = notice.subject if notice.kind == "ahead" else ticket_id(notice.subject)
    return app[keys.FEEDS].notify(ticket, told_of(app, notice))


def told_of(app: web.Application, notice: Notice) -> dict[str, Any]:
    """As the stream says it."""
    text = words_of(app, notice)
    return {
        "id": notice.id,
        "kind": notice.kind,
        "text": {"zh": text.zh, "en": text.en},
        "at": notice.at.astimezone(app[keys.ZONE]),
    }


def words_of(app: web.Application, notice: Notice) -> Text:
    data, kind = notice.data, notice.kind
    if kind == "ahead" and not data["ahead"]:
        kind = "next"
    if kind == "leave_home" and "turn_at" not in data:
        kind = "leave_home_appointed"
    zone = app[keys.ZONE]
    times = {
        name[:-3]: f"{datetime.fromtimestamp(data[name] / 1000, zone):%H:%M}"
        for name in ("turn_at", "arrive_by")
        if name in data
    }
    if "fen" in data:
        times["yuan"] = plain_yuan(data["fen"])
    practitioner = app[keys.AVAILABILITY].catalog.practitioners.get(data.get("practitioner_id", ""))
    names = ("", "The practitioner") if practitioner is None else (practitioner.name,) * 2
    zh, en = (
        text.format_map({**data, **times, "practitioner": name}).strip()
        for text, name in zip(WORDS[kind], names, strict=True)
    )
    return Text(zh, en)


class NoticesQuery(Request):
    before: Annotated[
        int | None, Field(ge=1, le=NUMBER_MAX, description="上一页最后一条 / the last id of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=LISTED_MAX)] = 20


@dataclass(frozen=True, slots=True)
class NoticeAnswer:
    id: int
    kind: KindWord
    text: NameAnswer
    patient_id: Id
    appointment_id: Annotated[Id | None, Field(description="关于预约的 / where it is about an appointment")]
    ticket_id: Annotated[Id, Field(description="候诊号（签到后即为此号）/ the ticket it is, or will be")]
    department_id: str
    day: Annotated[str, Field(json_schema_extra={"format": "date"})]
    at: datetime


@dataclass(frozen=True, slots=True)
class NoticesAnswer:
    notices: list[NoticeAnswer]
    before: Annotated[int | None, Field(description="下一页 / pages on; null: there are no more")]


@api.route(
    "GET", "/api/v1/notices", zh="我的提醒（候诊、支付）", tags=["queues"], errors=[Fault.DATABASE_DOWN]
)
async def list_notices(request: web.Request, *, account_id: bytes, query: NoticesQuery) -> NoticesAnswer:
    """What the patients of this account were told about their visits and their money, latest first."""
    app = request.app
    found = await records.notices_for(
        app[keys.POOL], account_id, query.before, query.limit + 1, datetime.now(UTC)
    )
    page = found[: query.limit]
    await noted_delegation(request, account_id, "notice_read", [one.patient_id for one in page])
    more = page[-1].id if len(found) > query.limit else None
    return NoticesAnswer([_answer(app, one) for one in page], more)


def _answer(app: web.Application, notice: Notice) -> NoticeAnswer:
    of_ticket = notice.kind == "ahead"
    kind: KindWord = notice.kind  # type: ignore[assignment]  # the table's own check
    return NoticeAnswer(
        notice.id,
        kind,
        NameAnswer(*words_of(app, notice)),
        uuid(notice.patient_id),
        None if of_ticket or not notice.department_id else uuid(notice.subject),
        uuid(notice.subject if of_ticket else ticket_id(notice.subject)),
        notice.department_id,
        notice.day.isoformat(),
        notice.at.astimezone(app[keys.ZONE]),
    )
