"""Waiting rooms amid kills: people book, check in and take numbers, consoles race for them, while shards,
gateways and PostgreSQL end with SIGKILL. No ticket may be lost, no command done twice, nobody called but in
the order that the rules explain.

Every request whose outcome is unknown is asked again with the same key until it is known. At the end the
journal is asked what became of each, and the database is audited. `benchmarks/chaos.py` has all of this in
its own load, too.

    python -m benchmarks.rooms_of_chaos
    python -m benchmarks.rooms_of_chaos --shard-kills 10 --postgres-kills 3 --gateway-kills 3
"""

import asyncio
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import click
import orjson
import uvloop
from rich.console import Console

from benchmarks import desk
from benchmarks.asking import Asking, Said, client
from benchmarks.peers import data
from benchmarks.serving import Serving, serving
from engine import database
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.queue_order import Rules
from engine.domain.waiting_room import Status
from engine.journal.streams import read_room
from engine.records.staff import NewStaff, Role, add_staff
from web.audit import as_table, audit_url
from web.audit_replay import Check
from web.auth import Tokens
from web.passwords import hash_of
from web.queues.asking import command_id

ZONE: Final = ZoneInfo("Asia/Shanghai")
DEPARTMENT: Final = "waits"
PRACTITIONER: Final = "R00001"
ROOMS: Final = ("R1", "R2", "R3")  # R1 is the practitioner's own, and also calls from the general queue
CONSOLES: Final = 3  # that race for one version of a room
WAITING: Final = "waiting: {check_in: {early: any_time}}\n"
RULES: Final = Rules(early_minutes=None)
"""As WAITING says it, so that the order can be explained."""
ARRIVE_SECONDS: Final = 0.12
CONSULT_SECONDS: Final = (0.01, 0.1)
BOOKED_SHARE: Final = 0.4
PASS_SHARE: Final = 0.1
SETTLE_SECONDS_MAX: Final = 60.0
PAUSE_SECONDS: Final = (2.0, 3.0)
QUIET_SECONDS: Final = 2 * ANSWER_MS_MAX / 1000
EXPECTED: Final = frozenset({"nobody_waits", "stale_version", "room_busy", "wrong_status"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One step of a console, by the key that it came with."""

    verb: str
    key: str
    said: Said


@dataclass(slots=True)
class Waiting:
    """What clients were told of one department's day."""

    key: RoomKey
    staff_id: bytes
    token: str
    slots: list[str]  # of today, from now on; empty late in the evening
    tickets: dict[UUID, str] = field(default_factory=dict)
    booked: int = 0
    steps: list[Asked] = field(default_factory=list)
    raced: int = 0

    def done(self, verb: str) -> list[Asked]:
        return [asked for asked in self.steps if asked.verb == verb and asked.said.status == 200]


async def prepare(connection: asyncpg.Connection, secret: bytes) -> Waiting:
    """A department with rooms to wait for, and somebody who may call. The people are those of the bench."""
    now = datetime.now(ZONE)
    day = now.date()
    await connection.execute(
        "insert into department (id, name, campus, position) values ($1, $1, 'main', 3)", DEPARTMENT
    )
    first = now.replace(minute=0, second=0, microsecond=0) + timedelta(minutes=90)
    starts = [first + timedelta(minutes=30 * n) for n in range(4)]
    slots = tuple(
        PlannedSlot(start.strftime("%H%M"), int(start.timestamp() * 1000), data.CAPACITY)
        for start in starts
        if start.date() == day
    )
    if slots:
        plan = plan_as_data((Session("morning", DEPARTMENT, "expert", None, 5000, slots),))
        schedule = f"{PRACTITIONER}-{day:%Y%m%d}"
        await connection.execute(
            "insert into practitioner (id, name, title, department_id, position)"
            " values ($1, $1, 'chief', $2, 1)",
            PRACTITIONER,
            DEPARTMENT,
        )
        await connection.execute(
            "insert into schedule (id, practitioner_id, day, plan, opened)"
            " values ($1, $2, $3, $4::jsonb, true)",
            schedule,
            PRACTITIONER,
            day,
            orjson.dumps(plan).decode(),
        )
    version = await connection.fetchval("update catalog_version set version = version + 1 returning version")
    await connection.execute("select pg_notify('catalog', $1)", str(version))
    new = NewStaff("nurse", "Nurse", hash_of(secrets.token_urlsafe()), (Role.MANAGER, Role.NURSE))
    staff = await add_staff(connection, new, secrets.token_bytes(16), datetime.now(UTC))
    token = Tokens(secret, desk.TOKEN_SECONDS, desk.TOKEN_SECONDS).issue_staff(staff).access_token
    key = RoomKey(DEPARTMENT, day.isoformat())
    return Waiting(key, staff.id, token, [f"{PRACTITIONER}-{day:%Y%m%d}-{slot.clock}" for slot in slots])


@dataclass(slots=True)
class Live:
    """The day's load, until it is told to stop; then it goes on until what has begun is over."""

    waiting: Waiting
    asking: Asking
    people: data.People
    next_patient: int  # of the people: nobody else uses those from there on
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _n: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        await self._open()
        consoles = [asyncio.create_task(self._console(room, stop)) for room in ROOMS]
        due = time.monotonic()
        while not stop.is_set():
            due += random.expovariate(1 / ARRIVE_SECONDS)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._comes(self.next_patient))
            self.next_patient += 1
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*consoles)

    def _key(self, verb: str) -> str:
        self._n += 1
        return f"rooms-{verb}-{self._n}"

    async def _open(self) -> None:
        for room in ROOMS:
            own = room == ROOMS[0] and self.waiting.slots
            body = {"queues": [PRACTITIONER, "general"] if own else ["general"]}
            if own:
                body["practitioner_id"] = PRACTITIONER  # type: ignore[assignment]
            said = await self._step("open", f"rooms/{room}/open", body)
            assert said.status == 200, said

    async def _comes(self, number: int) -> None:
        """Somebody: booked and checks in, or takes a number."""
        account, patient = self.people.patients[number]
        waiting, token = self.waiting, self.waiting.token
        body: dict[str, object] = {"patient_id": patient, "department_id": DEPARTMENT}
        path = "/api/v1/walk-ins"
        if waiting.slots and random.random() < BOOKED_SHARE:
            appointment = await self._books(self.people.tokens[account], patient)
            if appointment is None:
                return
            body, path = {"appointment_id": appointment}, "/api/v1/check-ins"
            waiting.booked += 1
        said = await self.asking.ask("check-in", token, "POST", path, body, self._key("in"))
        if said.status == 201:
            waiting.tickets[UUID(said.body["id"])] = said.body["number"]

    async def _books(self, token: str, patient: str) -> str | None:
        body = {"slot_id": random.choice(self.waiting.slots), "patient_id": patient}
        about = ScheduleKey(PRACTITIONER, self.waiting.key.day).stream
        held = await self.asking.ask(
            "hold", token, "POST", "/api/v1/appointments", body, self._key("hold"), about=about
        )
        if held.status != 201:
            return None
        path = f"/api/v1/appointments/{held.body['id']}/confirm"
        confirmed = await self.asking.ask("confirm", token, "POST", path, None, self._key("confirm"))
        return str(held.body["id"]) if confirmed.status == 200 else None

    async def _console(self, room: str, stop: asyncio.Event) -> None:
        version = 1
        quiet_since: float | None = None
        while True:
            over = stop.is_set() and not self._tasks
            version, ticket, nobody = await self._calls(room, version)
            if ticket is None:
                # A check-in whose asker has gone may come about until its deadline has passed.
                quiet_since = (quiet_since or time.monotonic()) if over and nobody else None
                if quiet_since is not None and time.monotonic() - quiet_since > QUIET_SECONDS:
                    return
                await asyncio.sleep(0.1)
                continue
            quiet_since = None
            if random.random() < PASS_SHARE:
                await self._step("pass", f"tickets/{ticket}/pass", {})
                continue
            await asyncio.sleep(random.uniform(*CONSULT_SECONDS))
            started = await self._step("start", f"tickets/{ticket}/start", {})
            assert started.status == 200, started
            finished = await self._step("finish", f"tickets/{ticket}/finish", {})
            version = finished.body["room_version"] if finished.status == 200 else version

    async def _calls(self, room: str, version: int) -> tuple[int, str | None, bool]:
        """Sometimes several consoles press at once, of the same version: at most one of them has called. The
        version of the room, who was called, and whether nobody waits."""
        races = random.random() < 0.3
        body: dict[str, object] = {"room_id": room}
        if races:
            body["expected_version"] = version
        many = CONSOLES if races else 1
        said = await asyncio.gather(*(self._step("call", "call-next", body) for _ in range(many)))
        won = [one for one in said if one.status == 200]
        self.waiting.raced += len(won) > 1
        for one in said:
            if one.code == "stale_version":
                version = max(version, int(one.body["version"]))
        if not won:
            return version, None, any(one.code == "nobody_waits" for one in said)
        return max(version, won[0].body["room_version"]), won[0].body["ticket_id"], False

    async def _step(self, verb: str, path: str, body: dict[str, object]) -> Said:
        key = self._key(verb)
        path = f"/api/v1/queues/{DEPARTMENT}/{path}"
        said = await self.asking.ask(verb, self.waiting.token, "POST", path, body, key)
        self.waiting.steps.append(Asked(verb, key, said))
        return said


async def judge(connection: asyncpg.Connection, waiting: Waiting) -> list[Check]:
    """What became of it, by the journal and the ticket table."""
    left = await _settled(connection)
    events = await read_room(connection, waiting.key)
    kept = Check("tickets: kept")
    rows = {
        UUID(bytes=row["id"].bytes): f"{row['prefix']}{row['number']:03}"
        for row in await connection.fetch("select id, prefix, number from ticket")
    }
    for id_, number in waiting.tickets.items():
        kept.examined += 1
        if rows.get(id_) != number:
            kept.wrong(f"ticket {id_} was given as {number} and is {rows.get(id_)}")
    twice = Check("tickets: one number each", len(waiting.tickets))
    for number, times in Counter(waiting.tickets.values()).items():
        if times > 1:
            twice.wrong(f"{number} was given {times} times")
    order = Check("order: explained by the rules")
    rehearsed = w.rehearse(events, RULES)
    order.examined = rehearsed.calls
    for differs in rehearsed.differs:
        order.wrong(f"{differs}")
    races = Check("races: one winner", len(waiting.steps), waiting.raced)
    errands = Check("errands: done", 1, int(left > 0), [f"{left} are left"] if left else [])
    return [
        kept,
        twice,
        _done_once(events),
        _answered(waiting, events),
        _seen(events, rows),
        order,
        races,
        errands,
    ]


async def _settled(connection: asyncpg.Connection) -> int:
    ends = time.monotonic() + SETTLE_SECONDS_MAX
    count = "select count(*) from errand where kind in ('attendance', 'leave_ticket')"
    while (left := await connection.fetchval(count)) and time.monotonic() < ends:
        await asyncio.sleep(0.2)
    return int(left)


def _done_once(events: list[w.Event]) -> Check:
    check = Check("commands: done once")
    done = Counter(
        event.command_id for event in events if not isinstance(event, w.TicketReleased) and event.command_id
    )
    check.examined = len(done)
    for id_, times in done.items():
        if times > 1:
            check.wrong(f"command {id_.hex()} was done {times} times")
    return check


_DOES: Final = {
    "open": w.RoomSet,
    "call": w.TicketCalled,
    "start": w.ServiceStarted,
    "finish": w.StageFinished,
    "pass": w.TicketPassed,
}


def _answered(waiting: Waiting, events: list[w.Event]) -> Check:
    """What was answered was done, and what was refused was not."""
    check = Check("answers: as it is")
    by_command = {
        event.command_id: event
        for event in events
        if not isinstance(event, w.TicketReleased) and event.command_id
    }
    for asked in waiting.steps:
        check.examined += 1
        event = by_command.get(command_id(waiting.staff_id, asked.key))
        said = asked.said
        if not said.is_known:
            continue
        if (said.status == 200) != isinstance(event, _DOES[asked.verb]):
            check.wrong(f"{asked.verb} {asked.key}: answered {said.status} {said.code}, and there is {event}")
        elif isinstance(event, w.TicketCalled) and event.ticket_id != UUID(said.body["ticket_id"]).bytes:
            check.wrong(f"{asked.key}: {said.body['number']} was told, and somebody else called")
    return check


def _seen(events: list[w.Event], rows: dict[UUID, str]) -> Check:
    """Nobody is seen without having been called, in that room, and nobody is called who is being seen."""
    check = Check("tickets: nobody left behind", len(rows))
    room = w.replay(events)
    for ticket in room.tickets.values():
        if ticket.status not in (Status.FINISHED, Status.PASSED):
            check.wrong(f"{ticket.label} is {ticket.status.name} when all rooms have nobody to call")
    return check


def unexpected(asking: Asking) -> Counter[str]:
    """Refusals that nothing in this load explains."""
    return Counter(
        f"{said.kind}: {said.status} {said.code}"
        for said in asking.said
        if said.status >= 400 and said.is_known and said.code not in EXPECTED
    )


async def experiment(plan: list[str], seed: int) -> int:
    console = Console(width=140)
    random.seed(seed)
    async with serving(2, account_holds_max=100, day_appointments_max=5) as system, client() as session:
        connection = await database.connect(system.database_url)
        secret = (system.home / "token.key").read_bytes()
        people = await data.prepare(connection, secret)
        await desk.put_in_force(connection, WAITING)
        waiting = await prepare(connection, secret)
        await connection.close()
        asking = Asking(session, system.address)
        await asyncio.sleep(1.0)
        console.print(f"seed {seed}; kills: {len(plan)}")
        stop = asyncio.Event()
        load = asyncio.create_task(Live(waiting, asking, people, 0).run(stop))
        for what in plan:
            await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
            if load.done():
                break
            await _kill(system, what, asking, console)
        await asyncio.sleep(PAUSE_SECONDS[0])
        stop.set()
        await load
        connection = await database.connect(system.database_url)
        checks = await judge(connection, waiting)
        await connection.close()
        checks += await audit_url(system.database_url)
        console.print(as_table(checks))
    for check in checks:
        for example in check.examples:
            console.print(f"{check.name}: {example}", soft_wrap=True)
    odd = unexpected(asking)
    silent = sum(not said.is_known for said in asking.said)
    doubted = sum(said.doubts > 0 for said in asking.said)
    console.print(
        f"{len(waiting.tickets)} tickets ({waiting.booked} of booked patients), {len(waiting.done('call'))}"
        f" calls, {len(waiting.done('finish'))} seen; {doubted} unknown at first, {silent} never known;"
        f" unexpected refusals {dict(odd) or 'none'}",
        soft_wrap=True,
    )
    return 1 if silent or odd or any(not check.ok for check in checks) else 0


async def _kill(system: Serving, what: str, asking: Asking, console: Console) -> None:
    """While a call is under way, if there is one soon."""
    shard_id = random.randrange(system.shards)
    pid = system.pid_of(what, shard_id)
    ends = time.monotonic() + 1.0
    while not asking.under_way["call"] and time.monotonic() < ends:
        await asyncio.sleep(0)
    amid = sum(asking.under_way.values())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    console.print(f"  killed {what} (pid {pid}) amid {amid} requests")


@click.command()
@click.option("--shard-kills", default=4, show_default=True)
@click.option("--postgres-kills", default=1, show_default=True)
@click.option("--gateway-kills", default=1, show_default=True)
@click.option("--seed", default=None, type=int, help="Printed, so that a run can be made again.")
def main(shard_kills: int, postgres_kills: int, gateway_kills: int, seed: int | None) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    plan = ["shard"] * shard_kills + ["postgres"] * postgres_kills + ["gateway"] * gateway_kills
    random.Random(seed).shuffle(plan)
    sys.exit(uvloop.run(experiment(plan, seed)))


if __name__ == "__main__":
    main()
