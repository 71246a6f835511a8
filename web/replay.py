"""`xinglin replay`: drives a running server with real appointments, as fast as it answers or as time went by.

Two phases, reported apart: first everybody signs in and adds the patient, then the bookings arrive in the
order of the data set (web/no_shows.py has the mapping). A booking is held; where the slot is full, the first
alternative that the server names is tried, up to ALTERNATIVES_MAX times; what is held is confirmed; a stable
share is cancelled again. Afterwards web/audit.py compares all that was acknowledged with the database.

What a silent or overloaded server left open is asked again with the same Idempotency-Key: that finds the
first answer. A refusal did nothing, so the next try takes a new key.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import aiohttp
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine import database, embedded_postgres
from engine.domain.delegation import OWN_WILL_YEARS
from engine.domain.eligibility import DepartmentRule, full_years
from engine.domain.schedule import Status
from engine.settings import Settings
from web.audit import Acked, audit_url, show
from web.audit_replay import Check
from web.no_shows import MadePatient, Place, Places, Row, WrongFile, made_patient, read

ALTERNATIVES_MAX: Final = 3
ANSWER_SECONDS_MAX: Final = 5.0
RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 2.0
GIVE_UP_SECONDS: Final = 60.0
LINE_SECONDS: Final = 5.0
BAD_SHOWN_MAX: Final = 10

_BOOKED: Final = frozenset({int(Status.BOOKED)})
_CANCELLED: Final = frozenset({int(Status.CANCELLED)})
_OPEN: Final = frozenset({int(Status.PENDING), int(Status.BOOKED), int(Status.CANCELLED)})


_T = TypeVar("_T")


class CannotReplay(Exception):
    """One line that says what is wrong with the server, and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line."""

    file: Path
    address: str
    speed: float = 0.0  # so many times as fast as it was; 0: as fast as answers come
    limit: int | None = None
    concurrency: int = 64
    skip_bad: bool = False
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Person:
    headers: dict[str, str]
    patient_id: str


@dataclass(slots=True)
class Figures:
    """What happened. Refusals are by the server's code; `gave_up` is what never got an answer."""

    people: int = 0
    people_failed: Counter[str] = field(default_factory=Counter)
    people_seconds: float = 0.0
    rows: int = 0
    held: int = 0
    held_elsewhere: int = 0  # of those, with an alternative that the server named
    confirmed: int = 0
    cancelled: int = 0
    refused: Counter[str] = field(
        default_factory=Counter
    )  # rows that ended without a number, by the last code
    answers: Counter[str] = field(
        default_factory=Counter
    )  # of every booking request, also those before the last
    failed_later: Counter[str] = field(default_factory=Counter)  # a confirmation or a cancel that was refused
    retries: int = 0
    seconds: float = 0.0
    hold_seconds: list[float] = field(default_factory=list)  # of each request for a number, answered at once

    @property
    def ended(self) -> int:
        return self.held + self.refused.total()

    @property
    def held_a_second(self) -> float:
        return self.held / self.seconds if self.seconds else 0.0

    def as_data(self) -> dict[str, object]:
        times = sorted(self.hold_seconds)
        return {
            "people": {
                "accounts": self.people,
                "failed": dict(self.people_failed),
                "seconds": round(self.people_seconds, 3),
            },
            "bookings": {
                "rows": self.rows,
                "held": self.held,
                "held_elsewhere": self.held_elsewhere,
                "confirmed": self.confirmed,
                "cancelled": self.cancelled,
                "refused": dict(self.refused.most_common()),
                "answers": dict(self.answers.most_common()),
                "failed_later": dict(self.failed_later),
                "retries": self.retries,
                "seconds": round(self.seconds, 3),
                "held_per_second": round(self.held_a_second, 1),
                "rows_per_second": round(self.rows / self.seconds, 1) if self.seconds else 0.0,
                "answer_ms": {
                    f"p{p}": round(times[min(len(times) - 1, len(times) * p // 100)] * 1000, 1)
                    for p in (50, 95, 99)
                    if times
                },
            },
        }


def run(options: Options, settings: Settings) -> bool:
    """All of it: reads, replays, audits, tells. Whether everything was right.

    Raises WrongFile, CannotReplay, DatabaseFailed or PostgresFailed, each one line.
    """
    console = Console()
    data = read(options.file, options.limit)
    for bad in data.bad[:BAD_SHOWN_MAX]:
        console.print(f"{options.file}:{bad.line}: {bad.reason}", style="yellow", soft_wrap=True)
    if data.bad:
        console.print(f"{len(data.bad):,} malformed rows left out of {len(data.bad) + len(data.rows):,}")
    if not data.rows:
        raise WrongFile(f"{options.file}: holds no row to replay")
    url = _database_url(settings)
    if options.report is not None:
        try:  # now, and not after an hour
            options.report.touch()
        except OSError as error:
            raise CannotReplay(f"cannot write {options.report}: {error.strerror}") from None
    figures, checks = uvloop.run(_replay_and_audit(data.rows, options, url, console))
    console.print(_as_table(figures))
    show(checks, console)
    if options.report is not None:
        said = figures.as_data()
        said["malformed"] = [{"line": bad.line, "reason": bad.reason} for bad in data.bad]
        said["audit"] = [
            {"check": c.name, "examined": c.examined, "faults": c.faults, "examples": c.examples}
            for c in checks
        ]
        options.report.write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2))
    is_clean = options.skip_bad or not data.bad
    return is_clean and not figures.people_failed and all(check.ok for check in checks)


def _database_url(settings: Settings) -> str:
    """Of the server that is about to be driven, so it must be running; asked first, not after an hour."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    home = settings.home.resolve()
    url = embedded_postgres.running(home)
    if url is None:
        raise CannotReplay(f"no server runs in {home}: pass the server's --home, or its --database-url")
    return url


async def _replay_and_audit(
    rows: list[Row], options: Options, url: str, console: Console
) -> tuple[Figures, list[Check]]:
    await (await database.connect(url)).close()
    figures, acked = await replay(rows, options.address, options.speed, options.concurrency, console)
    return figures, await audit_url(url, acked)


def _as_table(figures: Figures) -> Table:
    table = Table("replay", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    lines: list[tuple[str, str]] = [
        ("people signed in and added", f"{figures.people - figures.people_failed.total():,}"),
        *((f"  failed: {code}", f"{n:,}") for code, n in figures.people_failed.most_common()),
        ("  seconds", f"{figures.people_seconds:,.1f}"),
        ("rows", f"{figures.rows:,}"),
        ("held", f"{figures.held:,}"),
        ("  of these, an alternative", f"{figures.held_elsewhere:,}"),
        ("confirmed", f"{figures.confirmed:,}"),
        ("cancelled again", f"{figures.cancelled:,}"),
        *((f"  {what}", f"{n:,}") for what, n in figures.failed_later.most_common()),
        ("refused", f"{figures.refused.total():,}"),
        *((f"  {code}", f"{n:,}") for code, n in figures.refused.most_common()),
        ("asked again after 503 or silence", f"{figures.retries:,}"),
        ("seconds", f"{figures.seconds:,.1f}"),
        ("held a second", f"{figures.held_a_second:,.1f}"),
        ("requests for a number a second", f"{figures.answers.total() / max(figures.seconds, 1e-9):,.1f}"),
    ]
    for what, value in lines:
        table.add_row(what, value)
    return table


async def replay(
    rows: list[Row], address: str, speed: float, concurrency: int, console: Console
) -> tuple[Figures, list[Acked]]:
    """Raises CannotReplay when the server is not there, or has nothing to book."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        return await _Replay(_Client(session, address), rows, speed, concurrency, console).run()


@dataclass(frozen=True, slots=True)
class Answer:
    """`code` is empty when the server did what it was asked to."""

    code: str
    body: dict[str, Any]


_GAVE_UP: Final = Answer("gave_up", {})


class _Client:
    """The wire: asks until there is an answer, and knows which answers mean 'ask again'."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self.retries = 0

    async def get(self, path: str) -> Any:
        try:
            async with self._session.get(self._address + path) as response:
                if response.status != 200:
                    raise CannotReplay(f"{self._address}{path} answers {response.status}")
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise CannotReplay(f"no Xinglin answers at {self._address}: {why}") from None

    async def post(self, path: str, body: dict[str, str] | None, headers: dict[str, str]) -> Answer:
        data = b"" if body is None else orjson.dumps(body)
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        pause = RETRY_SECONDS_MIN
        ends = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                async with self._session.post(self._address + path, data=data, headers=headers) as response:
                    content = await response.read()
                    if response.status < 300:
                        return Answer("", orjson.loads(content))
                    if response.status != 503:
                        problem = orjson.loads(content)
                        return Answer(problem.get("code", str(response.status)), problem)
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # silence: whether it was done is unknown, and asking again with the same key tells
            except orjson.JSONDecodeError:
                return Answer("not_json", {})
            if time.monotonic() > ends:
                return _GAVE_UP
            self.retries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # nosec B311  # jitter
            pause = min(pause * 2, RETRY_SECONDS_MAX)


class _Replay:
    def __init__(
        self, client: _Client, rows: list[Row], speed: float, concurrency: int, console: Console
    ) -> None:
        self._client = client
        self._rows = rows
        self._speed = speed
        self._concurrency = concurrency
        self._console = console
        self._run = secrets.token_hex(4)  # a second replay on the same server asks anew
        self._people: dict[str, Person] = {}
        self._acked: list[Acked] = []
        self.figures = Figures(rows=len(rows))

    async def run(self) -> tuple[Figures, list[Acked]]:
        figures = self.figures
        self._places = await self._read_places()
        if not self._places.days:
            raise CannotReplay(
                "the server publishes nothing to book from tomorrow on: import a hospital first"
            )
        first: dict[str, Row] = {}
        for row in self._rows:
            first.setdefault(row.patient, row)
        self._made = {patient: made_patient(row, self._today) for patient, row in first.items()}

        started = time.monotonic()
        async with self._shown("people", len(first), self._people_line):
            await self._all(iter(self._made.items()), self._meet)
        figures.people_seconds = time.monotonic() - started
        self._client.retries = 0

        started = time.monotonic()
        async with self._shown("bookings", len(self._rows), self._bookings_line):
            await self._all(iter(self._rows), self._book_in_time(started))
        figures.seconds = time.monotonic() - started
        figures.retries = self._client.retries
        return figures, self._acked

    async def _all(self, items: Iterator[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        async def one() -> None:
            for item in items:
                await work(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(one())

    # What is published

    async def _read_places(self) -> Places:
        departments = (await self._client.get("/api/v1/departments"))["departments"]
        rules = {d["id"]: DepartmentRule(d["sex"], d["age_min"], d["age_max"]) for d in departments}
        schedules = (await self._client.get("/api/v1/schedules"))["schedules"]
        # A slot's day is the hospital's; its zone shows in the times. Today has partly passed.
        zone = datetime.fromisoformat(schedules[0]["sessions"][0]["start"]).tzinfo if schedules else None
        self._today = datetime.now(zone).date()
        places: list[Place] = []

        async def read(schedule: dict[str, Any]) -> None:
            found = await self._client.get(f"/api/v1/schedules/{schedule['id']}/slots")
            for slot in found["slots"]:
                start = datetime.fromisoformat(slot["start"])
                department_id = next(
                    s["department_id"]
                    for s in schedule["sessions"]
                    if datetime.fromisoformat(s["start"]) <= start < datetime.fromisoformat(s["end"])
                )
                minute = start.hour * 60 + start.minute
                places.append(Place(slot["id"], department_id, start.date(), minute, slot["remaining"]))

        await self._all(iter([x for x in schedules if x["date"] > self._today.isoformat()]), read)
        return Places(rules, places, {row.day for row in self._rows})

    # People

    async def _meet(self, one: tuple[str, MadePatient]) -> None:
        patient, made = one
        figures = self.figures
        figures.people += 1
        headers = await self._sign_in(made)
        if isinstance(headers, Answer):
            figures.people_failed[headers.code] += 1
            return
        body = {
            "name": made.name,
            "id_type": "resident_id",
            "id_number": made.id_number,
            "phone": made.phone,
            # Who is under 14 has no account of their own: the guardian's it is.
            "relation": "child" if full_years(made.born, self._today) < OWN_WILL_YEARS else "self",
        }
        added = await self._client.post("/api/v1/patients", body, headers)
        if added.code:
            figures.people_failed[added.code] += 1
        else:
            self._people[patient] = Person(headers, added.body["id"])

    async def _sign_in(self, made: MadePatient) -> dict[str, str] | Answer:
        body = {"grant": "wechat", "code": f"sandbox:{made.openid}"}
        answer = await self._client.post("/api/v1/sessions", body, {})
        return answer if answer.code else {"Authorization": f"Bearer {answer.body['access_token']}"}

    # Bookings

    def _book_in_time(self, started: float) -> Callable[[Row], Awaitable[None]]:
        async def book(row: Row) -> None:
            if self._speed:
                waited = (row.scheduled - self._rows[0].scheduled).total_seconds() / self._speed
                await asyncio.sleep(max(0.0, started + waited - time.monotonic()))
            await self._book(row)

        return book

    async def _book(self, row: Row) -> None:
        figures = self.figures
        person = self._people.get(row.patient)
        if person is None:
            figures.refused["no_patient"] += 1
            return
        place = self._places.wish(row, self._made[row.patient])
        if place is None:
            figures.refused["no_department"] += 1
            return
        for attempt in range(ALTERNATIVES_MAX + 1):
            # Counted before the answer: whoever chooses meanwhile should not run after the same seat.
            place.free -= 1
            body = {"slot_id": place.slot_id, "patient_id": person.patient_id}
            before, asked = self._client.retries, time.monotonic()
            answer = await self._ask(row, "/api/v1/appointments", body, str(attempt))
            if self._client.retries == before:
                figures.hold_seconds.append(time.monotonic() - asked)
            figures.answers[answer.code or "held"] += 1
            if not answer.code:
                figures.held += 1
                figures.held_elsewhere += attempt > 0
                await self._held(row, place, answer)
                return
            place.free = 0 if answer.code == "slot_full" else place.free + 1
            others = answer.body.get("alternatives") or []
            if answer.code != "slot_full" or not others or others[0]["slot_id"] not in self._places.by_slot:
                break
            place = self._places.by_slot[others[0]["slot_id"]]
        figures.refused[answer.code] += 1

    async def _held(self, row: Row, place: Place, held: Answer) -> None:
        """Confirms, perhaps cancels, and notes what the server must now say of this booking for ever."""
        figures = self.figures
        path = f"/api/v1/appointments/{held.body['id']}"
        statuses = _BOOKED
        confirmed = await self._ask(row, f"{path}/confirm", None, "confirm")
        if confirmed.code:
            figures.failed_later[f"confirm: {confirmed.code}"] += 1
            statuses = _CANCELLED if confirmed.code in ("hold_expired", "already_cancelled") else _OPEN
        else:
            figures.confirmed += 1
        if row.cancels and not confirmed.code:
            cancelled = await self._ask(row, f"{path}/cancel", None, "cancel")
            if cancelled.code:
                figures.failed_later[f"cancel: {cancelled.code}"] += 1
                statuses = _OPEN
            else:
                figures.cancelled += 1
                place.free += 1
                statuses = _CANCELLED
        self._acked.append(Acked(UUID(held.body["id"]), held.body["slot_id"], held.body["number"], statuses))

    async def _ask(self, row: Row, path: str, body: dict[str, str] | None, step: str) -> Answer:
        """As the row's patient; who has been signed out by time signs in again."""
        person = self._people[row.patient]
        key = f"replay-{self._run}-{row.appointment_id}-{step}"
        answer = await self._client.post(path, body, {**person.headers, "Idempotency-Key": key})
        if answer.code != "token_expired":
            return answer
        headers = await self._sign_in(self._made[row.patient])
        if isinstance(headers, Answer):
            return headers
        self._people[row.patient] = Person(headers, person.patient_id)
        return await self._client.post(path, body, {**headers, "Idempotency-Key": key})

    # What is shown

    def _people_line(self) -> tuple[int, str]:
        failed = self.figures.people_failed.total()
        return self.figures.people, f"{failed:,} failed"

    def _bookings_line(self) -> tuple[int, str]:
        figures = self.figures
        return figures.ended, f"{figures.held:,} held, {figures.refused.total():,} refused"

    @asynccontextmanager
    async def _shown(self, what: str, total: int, line: Callable[[], tuple[int, str]]) -> AsyncIterator[None]:
        """A bar on a terminal; elsewhere a line every few seconds."""
        show = self._bar if self._console.is_terminal else self._lines
        shown = asyncio.create_task(show(what, total, line))
        try:
            yield
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)

    async def _bar(self, what: str, total: int, line: Callable[[], tuple[int, str]]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.speed:,.0f}/s"),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(what, total=total, said="")
            try:
                while True:
                    done, said = line()
                    progress.update(task, completed=done, said=said)
                    await asyncio.sleep(0.2)
            finally:
                done, said = line()
                progress.update(task, completed=done, said=said)

    async def _lines(self, what: str, total: int, line: Callable[[], tuple[int, str]]) -> None:
        started = time.monotonic()
        try:
            while True:
                await asyncio.sleep(LINE_SECONDS)
                done, said = line()
                rate = done / (time.monotonic() - started)
                left = f"{(total - done) / rate:,.0f} s left" if rate else "waiting"
                self._console.print(f"{what}: {done:,}/{total:,}, {rate:,.0f}/s, {said}, {left}")
        finally:
            done, said = line()
            seconds = time.monotonic() - started
            self._console.print(f"{what}: {done:,}/{total:,} in {seconds:,.1f} s, {said}")
