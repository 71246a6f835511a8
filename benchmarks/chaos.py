"""Kills under load: shards, gateways and PostgreSQL end with SIGKILL while people book, change, wait and are
called off, and nothing that was answered may be lost, doubled or oversold.

Lives (benchmarks/lives.py) begin open loop: at their own times, answered or not those before them. A request
whose outcome is unknown is asked again with the same key, as the contract says, until it is known; but some
of those who change a booking walk away instead. A kill waits for a moment in which a change is under way.
Beside them the desk pauses sessions, and calls some off; and in one department people check in and consoles
call them (benchmarks/rooms_of_chaos.py). At the end SQL and the journal are asked what became of every life
(benchmarks/verdict.py) and of every ticket, and the database is audited.

    make chaos                         ten kills of shards, three of PostgreSQL, two of gateways
    make chaos ARGS="--shard-kills 30"
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import click
import uvloop
from rich.console import Console
from rich.table import Table

from actors.directory import shard_of
from benchmarks import desk, rooms_of_chaos, verdict
from benchmarks.asking import GIVE_UP_SECONDS, Asking, Said, client
from benchmarks.check import values_of
from benchmarks.lives import LIVES, Living, World, draw
from benchmarks.peers import data
from benchmarks.serving import Serving, serving
from engine import database
from web.audit import Acked, as_table, audit_url
from web.audit_replay import Check

SHARDS: Final = 2  # so that changes go from one process to another
DOCTORS: Final = 40
DOCTORS_CALLED_OFF: Final = 12
CALLED_OFF_CAPACITY: Final = 4  # a slot, of 16
DOCTORS_FULL: Final = 3
CALL_OFF_SECONDS: Final = (3.0, 5.0)  # between two sessions that are called off
PAUSED_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 3.0
AIM_SECONDS_MAX: Final = 2.0  # a kill waits for a change to be under way, but not for ever
POLICY: Final = """
suspension: {order: [moved, offered, waitlisted, refunded], offer: 60s, within: 7d}
defaults:
  waitlist: {offer: 30s}
"""
PATIENTS_OF_LIVES: Final = 200_000  # those after them come to the waiting room
EXPECTED: Final = frozenset(
    # What the rules may well say to somebody who did nothing wrong.
    {"session_paused", "session_suspended", "slot_full", "change_given_up", "already_cancelled"}
    | {"hold_expired", "no_such_appointment", "group_does_not_fit", "not_booked", "stale_revision"}
    | {"wish_impossible", "waitlist_closed"}
    | rooms_of_chaos.EXPECTED
)


@dataclass(slots=True)
class Kill:
    what: str
    at: float
    pid: int
    shard_id: int | None  # None: everybody is struck
    changes_under_way: int
    first_success: float | None = None

    @property
    def recovery_seconds(self) -> float | None:
        return None if self.first_success is None else self.first_success - self.at


@dataclass(slots=True)
class Run:
    world: World
    asking: Asking
    kills: list[Kill] = field(default_factory=list)
    suspended: list[str] = field(default_factory=list)
    pauses: int = 0


async def load(run: Run, rate: float, stop: asyncio.Event) -> None:
    """Poisson arrivals of lives; waits at the end for every one to be over."""
    under_way: set[asyncio.Task[None]] = set()

    def begin(kind: str, *arguments: str) -> None:
        _, patients, live = LIVES[kind]
        living = Living(run.asking, run.world, len(run.world.lives), kind, patients)
        task = asyncio.create_task(living.takes_all(*arguments) if arguments else _lived(live(living)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    for slot in (*run.world.filled, *(slot for _, slots in run.world.full.values() for slot in slots)):
        begin("cancel", slot)
    due = time.monotonic()
    while not stop.is_set():
        due += random.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        kind = draw()
        begin("confirm" if kind == "affected" and not run.world.called_off else kind)
    await asyncio.gather(*under_way)


async def _lived(life: object) -> None:
    await life  # type: ignore[misc]


async def calling_off(run: Run, staff: desk.Desk, stop: asyncio.Event) -> None:
    """Calls one session off after the other, and pauses others for a moment."""
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), random.uniform(*CALL_OFF_SECONDS))
        paused = random.choice(run.world.open).rpartition("-")[0]
        if await staff.set_status(paused, "paused"):
            run.pauses += 1
            await asyncio.sleep(PAUSED_SECONDS)
            await staff.set_status(paused, "open")
        if len(run.world.called_off) > 1:
            schedule = next(iter(run.world.called_off))
            del run.world.called_off[schedule]
            if await staff.suspend(schedule):
                run.suspended.append(schedule)


async def killing(
    system: Serving, plan: list[str], pause: tuple[float, float], run: Run, console: Console
) -> None:
    for number, what in enumerate(plan, 1):
        await asyncio.sleep(random.uniform(*pause))
        ends = time.monotonic() + AIM_SECONDS_MAX
        shard_id = random.randrange(system.shards) if what == "shard" else None
        pid = system.pid_of(what, shard_id or 0)
        while not run.asking.under_way["change"] and time.monotonic() < ends:
            await asyncio.sleep(0)
        kill = Kill(what, time.monotonic(), pid, shard_id, run.asking.under_way["change"])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            run.kills.append(kill)
        ends = time.monotonic() + GIVE_UP_SECONDS
        while not (since := _successes(run, kill)) and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        kill.first_success = min(since, default=None)
        took = kill.recovery_seconds
        said = "no success" if took is None else f"first success after {took:.2f} s"
        console.print(
            f"  {number}/{len(plan)} killed {what} (pid {pid}) amid {kill.changes_under_way} changes: "
            f"{said}; {len(run.asking.said)} answered"
        )


def _successes(run: Run, kill: Kill) -> list[float]:
    """When holds that were asked for since then, of the shard that was struck, were answered with success."""
    found = []
    for said in reversed(run.asking.said):
        if said.done < kill.at:
            break
        is_hers = kill.shard_id in (None, shard_of(said.about, SHARDS))
        if said.kind == "hold" and said.status == 201 and said.asked > kill.at and is_hers:
            found.append(said.done)
    return found


async def experiment(
    plan: list[str], rate: float, pause: tuple[float, float], seed: int, results: Path | None
) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    random.seed(seed)
    settings = {"account_holds_max": 100, "day_appointments_max": 5}
    async with serving(SHARDS, **settings) as system, client() as session:
        world, token, waiting = await _prepare(system)
        run = Run(world, Asking(session, system.address))
        rooms = rooms_of_chaos.Live(waiting, run.asking, world.people, PATIENTS_OF_LIVES)
        await asyncio.sleep(1.0)
        console.print(f"{rate:.0f} lives/s, seed {seed}; kills: {len(plan)}")
        stop, stop_desk = asyncio.Event(), asyncio.Event()
        tasks = [
            asyncio.create_task(load(run, rate, stop)),
            asyncio.create_task(calling_off(run, desk.Desk(run.asking, token), stop_desk)),
            asyncio.create_task(rooms.run(stop)),
        ]
        await killing(system, plan, pause, run, console)
        await asyncio.sleep(SETTLE_SECONDS)
        stop_desk.set()
        await tasks[1]
        stop.set()
        await tasks[0]
        await tasks[2]
        connection = await database.connect(system.database_url)
        left = await verdict.settled(connection)
        checks = await verdict.judge(connection, world) + await rooms_of_chaos.judge(connection, waiting)
        checks += await audit_url(system.database_url, _acked(world))
        checks.append(await _conserved(session, system.address))
        unsettled = Check("settled", 1, int(left > 0), [f"{left} left half done"] if left else [])
        checks.append(unsettled)
        stood = await verdict.stood(connection, world.changes)
        fates = await verdict.fates(connection)
        await connection.close()
        console.print(as_table(checks))
        for check in checks:
            for example in check.examples:
                console.print(f"{check.name}: {example}", soft_wrap=True)
    return _report(console, run, checks, stood, fates, results)


async def _prepare(system: Serving) -> tuple[World, str, rooms_of_chaos.Waiting]:
    connection = await database.connect(system.database_url)
    try:
        secret = (system.home / "token.key").read_bytes()
        people = await data.prepare(connection, secret)
        for department in ("alone", "full"):
            await connection.execute(
                "insert into department (id, name, campus, position) values ($1, $1, 'main', 2)", department
            )
        await desk.put_in_force(connection, POLICY + rooms_of_chaos.WAITING)
        day = datetime.now(UTC).date() + timedelta(days=2)
        room = await data.open_schedules(connection, "C", DOCTORS // 2, day)
        room += await data.open_schedules(connection, "D", DOCTORS // 2, day + timedelta(1))
        # Those with others beside them on the day, on other days, and whose doctor alone has another day.
        share = DOCTORS_CALLED_OFF // 3
        doomed = await data.open_schedules(connection, "S", share, day, CALLED_OFF_CAPACITY)
        doomed += await data.open_schedules(connection, "T", share, day + timedelta(2), CALLED_OFF_CAPACITY)
        doomed += await data.open_schedules(connection, "U", share, day, CALLED_OFF_CAPACITY, "alone")
        # The second day of the doctors who are alone is full: they can only wait for it.
        later = day + timedelta(3)
        filled = await data.open_schedules(connection, "U", share, later, 1, "alone")
        full = await data.open_schedules(connection, "W", DOCTORS_FULL, day, 1, "full")
        token = await desk.staff_token(connection, secret)
        waiting = await rooms_of_chaos.prepare(connection, secret)
    finally:
        await connection.close()
    called_off: dict[str, list[str]] = {}
    for slot in random.sample(doomed, len(doomed)):
        called_off.setdefault(slot.rpartition("-")[0], []).append(slot)
    lists: dict[str, tuple[str, list[str]]] = {}
    for slot in full:
        lists.setdefault(slot.split("-")[0], (day.isoformat(), []))[1].append(slot)
    return World(people, system.shards, room, called_off, lists, filled), token, waiting


def _acked(world: World) -> list[Acked]:
    return [
        Acked(p.id, p.slot_id, p.number, p.statuses) for life in world.lives for p in life.promises.values()
    ]


async def _conserved(session: aiohttp.ClientSession, address: str) -> Check:
    async with session.get(f"{address}/metrics") as response:
        errors = values_of(await response.text(), "xinglin_conservation_error")
    return Check("conservation metric", len(errors), sum(error != 0 for error in errors))


def _report(
    console: Console,
    run: Run,
    checks: list[Check],
    stood: verdict.Stood,
    fates: dict[str, int],
    results: Path | None,
) -> int:
    _recovery(console, run.kills)
    kinds = _kinds(console, run.asking.said)
    changes = run.world.changes
    unknown = [c for c in changes if c.said.doubts]
    away = [c for c in changes if not c.said.is_known]
    disturbed = {
        "kills_amid_changes": sum(kill.changes_under_way > 0 for kill in run.kills),
        "changes": dict(Counter(c.reach for c in changes)),
        "answered_unknown": len(unknown),
        "asked_again_until_known": len(unknown) - len(away),
        "walked_away_from": len(away),
        "stood_still_after_hold": stood.after_held,
        "stood_still_after_leaving": stood.after_left,
        "settled_by_timer": stood.by_timer,
    }
    console.print(
        f"changes: {disturbed['changes']}; {disturbed['kills_amid_changes']} of {len(run.kills)} kills struck"
        f" while changes were under way; {len(unknown)} had no answer at first:"
        f" {len(unknown) - len(away)} asked again, {len(away)} walked away;"
        f" {stood.after_held} stood still with the new number held, {stood.after_left} with the old one left;"
        f" {stood.by_timer} settled by the actor's timer",
        soft_wrap=True,
    )
    console.print(
        f"called off: {len(run.suspended)} sessions, fates {fates}; {run.pauses} pauses;"
        f" groups: {len(run.world.groups)}; wishes: {len(run.world.wishes)}",
        soft_wrap=True,
    )
    acked = _acked(run.world)
    doubled = len(acked) - len({booking.id for booking in acked})
    silent = sum(not said.is_known and said.doubts > 1 for said in run.asking.said)
    odd = Counter(
        f"{said.kind}: {said.status} {said.code}"
        for said in run.asking.said
        if said.status >= 400 and said.is_known and said.code not in EXPECTED
    )
    console.print(
        f"{len(run.asking.said)} answered, {len(acked)} numbers promised,"
        f" {sum(said.attempts > 1 for said in run.asking.said)} asked again with the same key,"
        f" {silent} never answered, {doubled} doubled, unexpected refusals {dict(odd) or 'none'}",
        soft_wrap=True,
    )
    is_damaged = any(check.faults for check in checks)
    if results is not None:
        _keep(
            results,
            {
                "kills": [{"what": k.what, "recovery_seconds": k.recovery_seconds} for k in run.kills],
                "answered": len(run.asking.said),
                "promised": len(acked),
                "kinds": kinds,
                "in_the_middle": disturbed,
                "called_off": {"sessions": len(run.suspended), **fates},
                "unanswered": silent,
                "doubled": doubled,
                "audit": "FAILED" if is_damaged else "OK",
            },
        )
    return 1 if is_damaged or doubled or silent or odd else 0


def _recovery(console: Console, kills: list[Kill]) -> None:
    table = Table(title="Recovery: from the kill to the first success of a hold made after it")
    for column in ("killed", "times", "p50 s", "p95 s", "worst s"):
        table.add_column(column, justify="left" if column == "killed" else "right")
    for what in dict.fromkeys(kill.what for kill in kills):
        took = sorted(k.recovery_seconds or float("inf") for k in kills if k.what == what)
        at = [took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.95)]
        table.add_row(what, str(len(took)), *(f"{x:.2f}" for x in (*at, took[-1])))
    console.print(table)


def _kinds(console: Console, answers: list[Said]) -> dict[str, dict[str, int]]:
    """Counts per kind of command, as a table and as figures."""
    table = Table(title="Commands")
    for column in ("kind", "asked", "done", "refused", "unknown at first", "never known"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    kinds: dict[str, dict[str, int]] = {}
    for said in answers:
        row = kinds.setdefault(
            said.kind, dict.fromkeys(("asked", "done", "refused", "doubted", "unknown"), 0)
        )
        row["asked"] += 1
        row["done" if said.status in (200, 201) else "refused" if said.is_known else "unknown"] += 1
        row["doubted"] += said.doubts > 0
    for kind in sorted(kinds):
        row = kinds[kind]
        table.add_row(kind, *(str(row[name]) for name in ("asked", "done", "refused", "doubted", "unknown")))
    console.print(table)
    return kinds


def _keep(results: Path, figures: dict[str, object]) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "chaos.json").write_text(json.dumps(figures, indent=1))


@click.command()
@click.option("--shard-kills", default=10, show_default=True)
@click.option("--postgres-kills", default=3, show_default=True)
@click.option("--gateway-kills", default=2, show_default=True)
@click.option("--rate", default=60.0, show_default=True, help="Lives a second, of some two commands each.")
@click.option(
    "--pause",
    default=(3.0, 5.0),
    type=(float, float),
    show_default=True,
    help="Seconds between kills, from and to.",
)
@click.option("--seed", default=None, type=int, help="Printed, so that a run can be made again.")
@click.option("--write/--no-write", default=True, show_default=True, help="benchmarks/results/chaos.json")
def main(
    shard_kills: int,
    postgres_kills: int,
    gateway_kills: int,
    rate: float,
    pause: tuple[float, float],
    seed: int,
    write: bool,
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    plan = ["shard"] * shard_kills + ["postgres"] * postgres_kills + ["gateway"] * gateway_kills
    random.Random(seed).shuffle(plan)
    results = Path("benchmarks/results") if write else None
    sys.exit(uvloop.run(experiment(plan, rate, pause, seed, results)))


if __name__ == "__main__":
    main()
