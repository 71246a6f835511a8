"""Money under load and kills: many people pay at both providers' sandboxes, which live in this process, so
that it knows what was paid and what went back. Nothing may be lost, doubled, or kept without its service.

Each holds a number, begins to pay, and pays at the provider: with callbacks that come one to five times, in
any order, or never; some when the hold has ended, some with two providers at once; some cancel; forged
callbacks come besides, and answers of the providers are lost after it was done. Meanwhile shards, gateways
and PostgreSQL end with SIGKILL. Then faults end, errands drain, the day is reconciled against both
sandboxes' bills, and it is judged (benchmarks/payments_judging.py).

    make soak-payments                            2,000 payments
    make soak-payments ARGS="--payments 50000"    as FAULTS' I8 asks

A run in which fewer than 95 % of what people asked was done, or in which nothing was struck, is `unknown`.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.asking import Asking, Said, client
from benchmarks.payments_judging import Classified, drained, judge
from benchmarks.payments_lives import EXPECTED, Living, drawn
from benchmarks.payments_picture import draw
from benchmarks.payments_providers import Sandboxes, as_json, sandboxes
from benchmarks.peers.data import SLOTS_PER_DAY, open_schedules
from benchmarks.people import Person, add_people
from benchmarks.serving import Serving, serving
from engine import database
from engine.embedded_postgres import free_port
from integrations.wechat_pay.translate import BEIJING
from web.audit import as_table, audit_url
from web.audit_replay import Check

SHARDS: Final = 2
DOCTORS: Final = 16
LOST_SHARE: Final = 0.05
FORGED_SHARE: Final = 0.02
LOST_ANSWERS_SHARE: Final = 0.05
OK_SHARE_MIN: Final = 0.95
PROGRESS_SECONDS: Final = 5.0
RECONCILE_SECONDS_MAX: Final = 120.0
RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Plan:
    payments: int
    rate: float  # people a second
    hold_seconds: int
    kills: tuple[str, ...]
    gateways: int
    seed: int
    drain_seconds: float
    refund_told_lost: float
    classified_within: float  # seconds


@dataclass(slots=True)
class Run:
    plan: Plan
    began: float = 0.0
    kills: list[tuple[str, float]] = field(default_factory=list)
    amid: int = 0  # kills that struck while somebody waited for an answer
    phases: dict[str, float] = field(default_factory=dict)  # seconds


async def experiment(plan: Plan, is_kept: bool) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(
        f"seed {plan.seed}: {plan.payments} payments, {plan.rate:.0f} people/s, kills: {plan.kills}"
    )
    rng = random.Random(plan.seed)
    random.seed(plan.seed)
    port = free_port()
    run = Run(plan)
    with tempfile.TemporaryDirectory(prefix="xinglin-pay-") as folder:
        async with sandboxes(
            Path(folder), f"http://127.0.0.1:{port}", rng, LOST_SHARE, plan.refund_told_lost
        ) as there:
            settings = {
                **there.settings,
                "hold_seconds": plan.hold_seconds,
                "gateways": plan.gateways,
                "address_requests_per_second": 0,
            }
            started = time.monotonic()
            async with serving(SHARDS, port=port, **settings) as system, client() as session:
                living, people, rivals = await _prepare(system, session, there, plan, rng)
                run.phases["start"] = time.monotonic() - started
                await _load(run, system, living, people, rivals, console)
                found, checks, classified = await _settled(run, system, living, console)
    return _report(console, run, living, found, checks, classified, is_kept)


async def _prepare(
    system: Serving, session: aiohttp.ClientSession, there: Sandboxes, plan: Plan, rng: random.Random
) -> tuple[Living, list[tuple[str, Person]], list[Person]]:
    kinds = drawn(rng, plan.payments)
    met = sum(kind == "late and full" for kind in kinds)
    connection = await database.connect(system.database_url)
    try:
        secret = (system.home / "token.key").read_bytes()
        await connection.execute(
            "insert into hospital (name, timezone) values ('Benchmark', 'Asia/Shanghai')"
        )
        await connection.execute(
            "insert into department (id, name, campus, position) values ('bench', 'Bench', 'main', 1)"
        )
        people = await add_people(connection, secret, plan.payments + met)
        day = datetime.now(UTC).date() + timedelta(days=2)
        wide = await open_schedules(connection, "P", DOCTORS, day)
        narrow = await open_schedules(connection, "N", -(-met // SLOTS_PER_DAY), day, 1)
    finally:
        await connection.close()
    rng.shuffle(narrow)
    asking = Asking(session, system.address)
    living = Living(
        asking, there, session, plan.hold_seconds, rng, wide, narrow, FORGED_SHARE, LOST_ANSWERS_SHARE
    )
    return living, list(zip(kinds, people[: plan.payments], strict=True)), people[plan.payments :]


async def _load(
    run: Run,
    system: Serving,
    living: Living,
    people: list[tuple[str, Person]],
    rivals: list[Person],
    console: Console,
) -> None:
    """People come open loop, at their own times; waits until all have gone, and every kill has struck."""
    run.began = time.time()
    under_way: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    def over(task: "asyncio.Task[None]") -> None:
        under_way.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            failures.append(failure)

    telling = asyncio.create_task(_progress(living, len(people), console))
    killing = asyncio.create_task(_killing(run, system, living, len(people) / run.plan.rate, console))
    due = time.monotonic()
    for kind, person in people:
        due += random.expovariate(run.plan.rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        rival = rivals.pop() if kind == "late and full" else None
        task = asyncio.create_task(living.live(kind, person, rival))
        under_way.add(task)
        task.add_done_callback(over)
    await killing
    while under_way:
        await asyncio.sleep(0.1)
    telling.cancel()
    if failures:
        raise failures[0]
    run.phases["load"] = time.time() - run.began


async def _killing(run: Run, system: Serving, living: Living, seconds: float, console: Console) -> None:
    """Spread over the time in which people come."""
    for number, what in enumerate(run.plan.kills, 1):
        due = run.began + seconds * (0.1 + 0.8 * number / (len(run.plan.kills) + 1))
        await asyncio.sleep(max(0.0, due - time.time()))
        pid = system.pid_of(what, random.randrange(system.shards))
        ends = time.monotonic() + 1.0
        while not (amid := sum(living.asking.under_way.values())) and time.monotonic() < ends:
            await asyncio.sleep(0)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            run.kills.append((what, time.time()))
            run.amid += amid > 0
        console.print(f"  {number}/{len(run.plan.kills)} killed {what} (pid {pid}) amid {amid} requests")


async def _progress(living: Living, people: int, console: Console) -> None:
    began, there = time.monotonic(), living.there
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        console.print(
            f"  {time.monotonic() - began:5.0f} s: {len(living.lives)} of {people} people,"
            f" {len(there.paid)} paid, {len(living.asking.said)} answers,"
            f" {sum(living.asking.under_way.values())} wait, {len(there.forged)} forged",
            soft_wrap=True,
        )


async def _settled(
    run: Run, system: Serving, living: Living, console: Console
) -> tuple[dict[str, Any], list[Check], Classified]:
    there = living.there
    began = time.monotonic()
    connection = await database.connect(system.database_url)
    try:
        left = await drained(connection, there, run.plan.drain_seconds)
        run.phases["drain"] = time.monotonic() - began
        began = time.monotonic()
        reconciled, found = await _reconciled(connection, system, there, console)
        run.phases["reconcile"] = time.monotonic() - began
        began = time.monotonic()
        checks, classified = await judge(connection, there, living.lives, left, run.plan.classified_within)
        found["alarms"] = {
            f"{row['provider']}: {row['why']}": row["times"]
            for row in await connection.fetch(
                "select provider, why, sum(times)::int as times from payment_alarm"
                " group by 1, 2 order by 1, 2"
            )
        }
        found["bills"] = dict(
            await connection.fetch("select status, count(*) from bill group by 1 order by 1")
        )
        found["causes"] = dict(
            await connection.fetch("select cause, count(*) from refund group by 1 order by 1")
        )
    finally:
        await connection.close()
    checks.append(reconciled)
    checks += await audit_url(system.database_url)
    run.phases["judge"] = time.monotonic() - began
    console.print(as_table(checks))
    for check in checks:
        for example in check.examples:
            console.print(f"{check.name}: {example}", soft_wrap=True)
    return found, checks, classified


async def _reconciled(
    connection: asyncpg.Connection, system: Serving, there: Sandboxes, console: Console
) -> tuple[Check, dict[str, Any]]:
    """Every day on which money was paid, by `xinglin reconcile` itself; nothing may be left open."""
    check = Check("reconciled: nothing unmatched")
    days = sorted(
        {datetime.fromtimestamp(paid.at, BEIJING).date() - timedelta(1) for paid in there.paid.values()}
    )
    for day in days:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("xinglin")), "reconcile", "--date", str(day)),
            *("--home", str(system.home), "--wait", str(RECONCILE_SECONDS_MAX)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        console.print(said.decode(errors="replace"), markup=False, highlight=False, soft_wrap=True)
        if process.returncode:
            check.wrong(f"{day}: xinglin reconcile ended with {process.returncode}")
    rows = await connection.fetch(
        "select kind, state, count(*) as n from difference group by 1, 2 order by 1, 2"
    )
    found = {f"{row['kind']} ({row['state']})": row["n"] for row in rows}
    for row in rows:
        if row["state"] in ("open", "waiting"):
            check.wrong(f"{row['n']} differences {row['kind']} are {row['state']}")
    for row in await connection.fetch(
        "select distinct on (channel, day) channel, is_complete, why, sums from reconciliation"
        " order by channel, day, id desc"
    ):
        check.examined += 1
        if not row["is_complete"]:
            check.wrong(f"{row['channel']} is not complete: {row['why']}")
    if not check.examined:
        check.wrong("no day was compared")
    return check, {"differences": found}


def _verdict(run: Run, living: Living, checks: list[Check]) -> tuple[str, float]:
    """The word, and how much of what people asked for was done."""
    asked = [said for said in living.asking.said if said.kind != "rival"]
    good = sum(said.status in (200, 201) or (said.is_known and said.code in EXPECTED) for said in asked)
    share = good / len(asked) if asked else 0.0
    if any(not check.ok for check in checks):
        return "FAILED", share
    was_struck = run.kills and run.amid and any(said.doubts for said in asked)
    return ("OK" if share >= OK_SHARE_MIN and was_struck else "UNKNOWN"), share


def _report(
    console: Console,
    run: Run,
    living: Living,
    found: dict[str, Any],
    checks: list[Check],
    classified: Classified,
    is_kept: bool,
) -> int:
    there, plan = living.there, run.plan
    kinds = _kinds(console, living.asking.said)
    word, share = _verdict(run, living, checks)
    odd = Counter(
        f"{said.kind}: {said.status} {said.code}"
        for said in living.asking.said
        if said.status >= 400 and said.is_known and said.code not in EXPECTED
    )
    callbacks = Counter(there.told.values())
    seconds = {f"p{share}": round(classified.at(share / 100), 2) for share in (50, 95, 99)}
    seconds["max"] = round(classified.seconds[-1], 2) if classified.seconds else 0.0
    figures = {
        "verdict": word,
        "seed": plan.seed,
        "payments": len(there.paid),
        "people": dict(Counter(life.kind for life in living.lives)),
        "paid_twice": sum(len(life.paid) > 1 for life in living.lives),
        "lost_the_seat_to_a_rival": sum(life.rival_has_it for life in living.lives),
        "callbacks_meant": {str(copies): n for copies, n in sorted(callbacks.items())},
        "callback_answers": {
            str(status): n for status, n in Counter(status for _, status in there.wechat.answers).items()
        },
        "callback_seconds_p99_wechat_pay": _p99(there.wechat.delays),
        "forged": dict(Counter(f"{provider} {how} {status}" for provider, how, status in there.forged)),
        "provider_answers_lost": there.lost_answers,
        "kills": [what for what, _ in run.kills],
        "kills_amid_requests": run.amid,
        "answered_unknown_first": sum(said.doubts > 0 for said in living.asking.said),
        "done_share": round(share, 4),
        "classified_seconds": seconds,
        "kept_fen": there.kept,
        "phases_seconds": {name: round(took, 1) for name, took in run.phases.items()},
        "kinds": kinds,
        "unexpected": dict(odd),
        **found,
        "checks": {check.name: "OK" if check.ok else check.faults for check in checks},
    }
    for name in (
        *("people", "paid_twice", "lost_the_seat_to_a_rival", "callbacks_meant", "callback_answers"),
        *("callback_seconds_p99_wechat_pay", "forged", "provider_answers_lost", "classified_seconds"),
        *("bills", "causes", "differences", "alarms", "unexpected", "phases_seconds"),
    ):
        console.print(f"{name}: {figures[name]}", markup=False, highlight=False, soft_wrap=True)
    if is_kept:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "payments.json").write_bytes(as_json(figures))
        draw(RESULTS / "payments.png", run.began, classified, run.kills)
    console.print(
        f"seed {plan.seed}: {word}: {len(there.paid)} payments, {share:.1%} of {len(living.asking.said)}"
        f" requests done, {len(run.kills)} kills, {run.amid} amid requests;"
        f" classified p50 {seconds['p50']} s, p99 {seconds['p99']} s, worst {seconds['max']} s",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if word == "OK" else 1


def _p99(values: list[float]) -> float:
    return round(sorted(values)[int(0.99 * len(values))], 3) if values else 0.0


def _kinds(console: Console, answers: list[Said]) -> dict[str, dict[str, int]]:
    table = Table(title="Requests")
    columns = ("kind", "asked", "done", "refused", "unknown at first", "never known")
    for column in columns:
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
        table.add_row(kind, *(str(n) for n in kinds[kind].values()))
    console.print(table)
    return kinds


@click.command()
@click.option("--payments", default=2_000, show_default=True)
@click.option("--rate", default=30.0, show_default=True, help="People a second.")
@click.option("--hold", default=60, show_default=True, help="Seconds that a number is held unpaid.")
@click.option("--shard-kills", default=6, show_default=True)
@click.option("--gateway-kills", default=2, show_default=True)
@click.option("--postgres-kills", default=2, show_default=True)
@click.option("--gateways", default=1, show_default=True)
@click.option("--drain", default=180.0, show_default=True, help="Seconds that errands may take at the end.")
@click.option("--refund-told-lost", default=0.05, show_default=True, help="Share of refunds nobody tells of.")
@click.option("--classified-within", default=60.0, show_default=True, help="Seconds from money to ledger.")
@click.option("--seed", default=None, type=int, help="Printed, so that a run can be made again.")
@click.option("--write/--no-write", default=True, show_default=True, help="benchmarks/results/payments.*")
def main(
    payments: int,
    rate: float,
    hold: int,
    shard_kills: int,
    gateway_kills: int,
    postgres_kills: int,
    gateways: int,
    drain: float,
    refund_told_lost: float,
    classified_within: float,
    seed: int | None,
    write: bool,
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    kills = ["shard"] * shard_kills + ["postgres"] * postgres_kills + ["gateway"] * gateway_kills
    random.Random(seed).shuffle(kills)
    plan = Plan(
        payments, rate, hold, tuple(kills), gateways, seed, drain, refund_told_lost, classified_within
    )
    sys.exit(uvloop.run(experiment(plan, write)))


if __name__ == "__main__":
    main()
