"""停诊 at full size: a doctor's day with 500 booked patients is called off by one command. How long does it
take until the last of them knows what becomes of them?

A generated hospital is imported: two wards alike. In each a doctor has a morning of 400 numbers and an
afternoon of 100 in another department. For some of these people there is room elsewhere on that day (moved),
for some on other days (offered), for some only the waiting list of that doctor, and for some nothing
(refunded). The first ward's day is called off in peace, the second ward's while its shard is killed.

    make bench-suspend

Writes benchmarks/results/suspend.json and .png. Exit status 1 when somebody is forgotten or has two fates, or
when the last fate of the quiet run comes later than the goal.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import click
import matplotlib
import uvloop
from rich.console import Console
from rich.table import Table

from actors.directory import shard_of
from benchmarks import desk, verdict
from benchmarks.asking import Asking, Said, client
from benchmarks.people import Person, add_people
from benchmarks.serving import Serving, serving
from engine import database
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.journal.codec import EVENT_CODES, unpack_event
from web.audit import as_table, audit_url

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot  # noqa: E402

GOAL_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 180.0
PEOPLE: Final = 500  # of each ward
MORNING: Final = 400
SHARDS: Final = 2
BOOKERS: Final = 40  # at one time
KILL_AFTER: Final = 0.3  # of the fates
FATES: Final = ("moved", "offered", "waitlisted", "refunded")
COLOURS: Final = {  # that stay apart for the colour-blind (Okabe and Ito)
    "moved": "#009E73",
    "offered": "#56B4E9",
    "waitlisted": "#E69F00",
    "refunded": "#CC79A7",
}
ZONE: Final = ZoneInfo("Asia/Shanghai")
RESULTS: Final = Path(__file__).parent / "results"

HOSPITAL: Final = """
name: 压测医院
timezone: Asia/Shanghai
campuses: [本部]
number_classes:
  - {id: expert, name: 专家号, fee_fen: 5000}
"""
POLICY: Final = """
suspension: {order: [moved, offered, waitlisted, refunded], offer: 1h, within: 2d}
departments:
%s
"""


@dataclass(frozen=True, slots=True)
class Ward:
    name: str
    day: date

    @property
    def schedule_id(self) -> str:
        """Of the day that is called off."""
        return f"{self.name}1-{self.day:%Y%m%d}"


@dataclass(slots=True)
class Result:
    what: str
    booked: int
    answered_seconds: float  # the command itself
    last_fate_seconds: float  # from the command on
    fates: dict[str, int]
    undecided: int
    lost: int  # booked, and not among those who have a fate
    killed_after_seconds: float | None
    at: list[tuple[float, str]]  # seconds after the command, fate


def hospital_files(wards: Iterable[Ward]) -> dict[str, str]:
    """Name -> content of the files that `xinglin import` reads."""
    departments: list[str] = []
    doctors: list[str] = []
    templates: list[str] = []
    for ward in wards:
        name, weekday, next_weekday = ward.name, ward.day.isoweekday(), (ward.day + timedelta(1)).isoweekday()
        departments += [f"{name}A,,{name}甲科,,本部,,,,,", f"{name}B,,{name}乙科,,本部,,,,,"]
        sessions = [
            # number, department, weekday, period, hours, seats a slot
            (1, "A", weekday, "morning", "08:00,12:00", 50),  # called off: 8 x 50
            (1, "B", weekday, "afternoon", "14:00,17:30", 15),  # called off: 7 x 15
            (1, "A", next_weekday, "morning", "08:00,12:00", 1),  # the same doctor: hardly any room
            (2, "A", weekday, "morning", "08:00,12:00", 15),  # the same day: moved
            (3, "A", next_weekday, "morning", "08:00,12:00", 20),  # another day: offered
            (4, "B", weekday, "afternoon", "14:00,17:30", 4),  # the same day: moved
        ]
        for number, department, on, period, hours, capacity in sessions:
            templates.append(f"{name}{number},{on},{period},{hours},{capacity},expert,{name}{department},,")
        for number in range(1, 5):
            doctors.append(f"{name}{number},王{number},chief,{name}{'B' if number == 4 else 'A'},,")
    return {
        "hospital.yaml": HOSPITAL,
        "departments.csv": _csv(
            "id,parent_id,name,name_en,campus,location,intro,sex,age_min,age_max", departments
        ),
        "practitioners.csv": _csv("id,name,title,department_id,specialty,intro", doctors),
        "rooms.csv": _csv("id,name,department_id", []),
        "templates.csv": _csv(
            "practitioner_id,weekday,period,starts,ends,capacity,number_class_id,department_id,room_id,fee_fen",
            templates,
        ),
        "overrides.csv": _csv("practitioner_id,day,period,closed,starts,ends,capacity", []),
        # Nobody waits for the afternoon's department: those who find no place there are paid back.
        "policy.yaml": POLICY
        % "\n".join(f'  "{ward.name}B": {{waitlist: {{enabled: no}}}}' for ward in wards),
    }


def _csv(head: str, lines: list[str]) -> str:
    return "\n".join([head, *lines]) + "\n"


async def prepare(system: Serving, wards: list[Ward]) -> str:
    """Imports the hospital beside the server. The token of one who may call sessions off."""
    with tempfile.TemporaryDirectory(prefix="xinglin-hospital-") as folder:
        for name, content in hospital_files(wards).items():
            (Path(folder) / name).write_text(content, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("xinglin")), "import", folder, "--home", str(system.home)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(told.decode())
    connection = await database.connect(system.database_url)
    try:
        return await desk.staff_token(connection, (system.home / "token.key").read_bytes())
    finally:
        await connection.close()


async def book(asking: Asking, system: Serving, ward: Ward) -> set[UUID]:
    """Fills the day through the API; the numbers that are booked."""
    connection = await database.connect(system.database_url)
    people = await add_people(connection, (system.home / "token.key").read_bytes(), PEOPLE)
    await connection.close()
    slots = [f"{ward.schedule_id}-{clock}" for clock in _clocks(8, 8) for _ in range(MORNING // 8)]
    afternoon = [f"{ward.schedule_id}-{clock}" for clock in _clocks(14, 7) for _ in range(15)]
    slots += afternoon[: PEOPLE - MORNING]
    room = asyncio.Semaphore(BOOKERS)

    async def one(person: Person, slot: str) -> UUID:
        body = {"slot_id": slot, "patient_id": person.patient_ids[0]}
        async with room:
            held = await asking.ask("hold", person.token, "POST", "/api/v1/appointments", body, f"b-{slot}")
            assert held.status == 201, held
            path = f"/api/v1/appointments/{held.body['id']}/confirm"
            booked = await asking.ask("confirm", person.token, "POST", path, None, f"c-{slot}")
            assert booked.status == 200, booked
            return UUID(held.body["id"])

    return set(await asyncio.gather(*(one(*pair) for pair in zip(people, slots, strict=True))))


def _clocks(first_hour: int, slots: int) -> list[str]:
    return [f"{first_hour + n // 2:02}{n % 2 * 30:02}" for n in range(slots)]


async def call_off(
    asking: Asking, system: Serving, token: str, ward: Ward, booked: set[UUID], is_killed: bool
) -> Result:
    connection = await database.connect(system.database_url)
    try:
        path = f"/api/v1/desk/schedules/{ward.schedule_id}"
        seen = await asking.ask("day sheet", token, "GET", path)
        began = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
        body = {"period": "all", "reason": "doctor_ill", "note": "", "revision": seen.body["revision"]}
        said = await asking.ask("suspend", token, "POST", f"{path}/suspend", body, f"off-{ward.name}")
        assert said.status == 200, said
        killed: float | None = None
        ends = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while (left := await _undecided(connection, ward)) and asyncio.get_running_loop().time() < ends:
            if is_killed and killed is None and left < (1 - KILL_AFTER) * len(booked):
                key = ScheduleKey.of_schedule(ward.schedule_id)
                assert key is not None
                pid = system.pid_of("shard", shard_of(key.stream, system.shards))
                now = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
                killed = now - began
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
        report = await asking.ask("report", token, "GET", f"{path}/suspension")
        at = await _when(connection, ward, began)
        return _result(ward, booked, said, report, killed, at)
    finally:
        await connection.close()


async def _undecided(connection: asyncpg.Connection, ward: Ward) -> int:
    left: int = await connection.fetchval(
        "select count(*) from appointment where schedule_id = $1 and status = 2"
        " and (fate is null or fate = 'affected')",
        ward.schedule_id,
    )
    return left


async def _when(connection: asyncpg.Connection, ward: Ward, began: float) -> list[tuple[float, str]]:
    """Each fate's moment, as the journal has it."""
    key = ScheduleKey.of_schedule(ward.schedule_id)
    assert key is not None
    rows = await connection.fetch(
        "select extract(epoch from at)::float8 as at, type, data from event where stream = $1 and type = $2"
        " order by version",
        key.stream,
        EVENT_CODES[s.FateDecided],
    )
    found = []
    for row in rows:
        event = unpack_event(row["type"], row["data"])
        assert isinstance(event, s.FateDecided)
        found.append((row["at"] - began, event.fate))
    return found


def _result(
    ward: Ward,
    booked: set[UUID],
    said: Said,
    report: Said,
    killed: float | None,
    at: list[tuple[float, str]],
) -> Result:
    fates = Counter(one["fate"] for one in report.body["appointments"])
    named = [UUID(one["appointment_id"]) for one in report.body["appointments"]]
    return Result(
        "quiet" if killed is None else "its shard killed",
        len(booked),
        said.done - said.asked,
        max((moment for moment, _ in at), default=float("inf")),
        {fate: fates[fate] for fate in FATES},
        report.body["undecided"],
        len(booked - set(named)) + len(named) - len(set(named)),
        killed,
        at,
    )


def show(console: Console, results: list[Result]) -> None:
    table = Table(title="A day with 500 booked patients is called off")
    for column in (
        "",
        "booked",
        *FATES,
        "undecided",
        "lost",
        "killed at s",
        "answer s",
        "p50 s",
        "last fate s",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for r in results:
        moments = sorted(moment for moment, _ in r.at)
        table.add_row(
            r.what,
            str(r.booked),
            *(str(r.fates[fate]) for fate in FATES),
            str(r.undecided),
            str(r.lost),
            "" if r.killed_after_seconds is None else f"{r.killed_after_seconds:.1f}",
            f"{r.answered_seconds:.2f}",
            f"{moments[len(moments) // 2]:.1f}" if moments else "",
            f"{r.last_fate_seconds:.1f}",
        )
    console.print(table)


def draw(results: list[Result], file: Path) -> None:
    """Fates over time, stacked, a panel a run."""
    with pyplot.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure, panels = pyplot.subplots(
            len(results), 1, figsize=(10, 4 * len(results)), sharex=True, layout="constrained", squeeze=False
        )
        for axes, r in zip(panels[:, 0], results, strict=True):
            moments = sorted({0.0, *(moment for moment, _ in r.at), r.last_fate_seconds})
            counts = [[sum(f == fate and m <= at for m, f in r.at) for at in moments] for fate in FATES]
            axes.stackplot(moments, *counts, labels=FATES, colors=[COLOURS[f] for f in FATES], step="post")
            axes.axhline(r.booked, color="#444444", linewidth=1, linestyle=":")
            if r.killed_after_seconds is not None:
                axes.axvline(r.killed_after_seconds, color="#AA0000", linewidth=1.5, label="shard killed")
            axes.set_title(f"{r.what}: the last of {r.booked} after {r.last_fate_seconds:.1f} s", loc="left")
            axes.set_ylabel("patients with a fate")
            axes.legend(loc="upper left", fontsize=9)
        panels[-1, 0].set_xlabel("seconds after the command")
        figure.savefig(file, dpi=120)
        pyplot.close(figure)


async def run(seed: int, is_written: bool) -> int:
    random.seed(seed)
    console = Console(width=None if sys.stdout.isatty() else 140)
    day = datetime.now(ZONE).date() + timedelta(days=3)
    wards = [Ward("P", day), Ward("Q", day)]
    async with serving(SHARDS) as system, client() as session:
        token = await prepare(system, wards)
        asking = Asking(session, system.address)
        await _until_published(asking, token, wards)
        results = []
        for ward, is_killed in zip(wards, (False, True), strict=True):
            booked = await book(asking, system, ward)
            console.print(f"{len(booked)} numbers are booked on {ward.schedule_id}; it is called off")
            results.append(await call_off(asking, system, token, ward, booked, is_killed))
        connection = await database.connect(system.database_url)
        checks = [*await verdict.called_off(connection), *await audit_url(system.database_url)]
        await connection.close()
    show(console, results)
    console.print(as_table(checks))
    for check in checks:
        for example in check.examples:
            console.print(f"{check.name}: {example}", soft_wrap=True)
    faults = [f"{check.name}: {check.faults}" for check in checks if check.faults]
    for r in results:
        counted = sum(r.fates.values())
        terms = " + ".join(f"{r.fates[fate]} {fate}" for fate in FATES)
        console.print(
            f"{r.what}: {r.booked} = {terms}, undecided {r.undecided}, lost {r.lost}", soft_wrap=True
        )
        if counted != r.booked or r.undecided or r.lost or len(r.at) < r.booked:
            faults.append(f"{r.what}: not everybody has one fate")
    if results[0].last_fate_seconds > GOAL_SECONDS:
        faults.append(
            f"the last fate came after {results[0].last_fate_seconds:.1f} s, over {GOAL_SECONDS:.0f}"
        )
    if is_written:
        RESULTS.mkdir(exist_ok=True)
        figures = {"goal_seconds": GOAL_SECONDS, "runs": [asdict(r) for r in results], "faults": faults}
        (RESULTS / "suspend.json").write_text(json.dumps(figures, indent=1))
        draw(results, RESULTS / "suspend.png")
    for fault in faults:
        console.print(f"[red]NOT GOOD: {fault}")
    return 1 if faults else 0


async def _until_published(asking: Asking, token: str, wards: list[Ward]) -> None:
    """The server follows the import by itself."""
    for ward in wards:
        while True:
            said = await asking.ask("look", token, "GET", f"/api/v1/schedules/{ward.schedule_id}/slots")
            if said.status == 200:
                break
            await asyncio.sleep(0.1)


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--write/--no-write", default=True, show_default=True, help="benchmarks/results/suspend.*")
def main(seed: int, write: bool) -> None:
    sys.exit(uvloop.run(run(seed, write)))


if __name__ == "__main__":
    main()
