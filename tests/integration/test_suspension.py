"""停诊 on a running system: everybody who was booked comes to exactly one fate, whatever happens meanwhile.

One hospital of wards that know nothing of each other; each test calls a day of its own ward off. Its policy
is put in force by the command line, beside the server.
"""

import asyncio
import itertools
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import pytest

from benchmarks.asking import Asking, client
from benchmarks.check import database_url
from benchmarks.people import Person, add_people
from benchmarks.verdict import called_off
from engine.embedded_postgres import free_port
from tests.support.system import ROOT, run, xinglin
from web.audit import audit_url

SECONDS_MAX = 90.0  # else it hangs; how fast it is, benchmarks/suspend.py tells
DAY = datetime.now(ZoneInfo("Asia/Shanghai")).date() + timedelta(days=3)
MORNING = [f"{8 + n // 2:02}{n % 2 * 30:02}" for n in range(8)]
Json = dict[str, Any]

# Wards: letter -> (doctor, days after DAY, seats a slot). Doctor 1's morning of DAY is called off.
WARDS: dict[str, list[tuple[int, int, int]]] = {
    "A": [(1, 0, 5), (2, 0, 1), (3, 1, 2)],  # 40 patients, 8 places that day, 16 on another
    "B": [(1, 0, 1), (2, 0, 1)],
    "C": [(1, 0, 1), (2, 1, 1)],
    "D": [(1, 0, 1), (1, 1, 1), (2, 0, 1)],
    "E": [(1, 0, 1), (2, 0, 1)],
    "F": [(1, 0, 5), (2, 0, 2), (3, 1, 1)],
    "G": [(1, 0, 1), (2, 1, 1), (3, 1, 1)],
    "Z": [(1, 0, 1)],  # shows whether a policy has arrived
}


def _hospital(folder: Path) -> None:
    doctors = {(ward, number) for ward, sittings in WARDS.items() for number, _, _ in sittings}
    files = {
        "hospital.yaml": "name: 测试医院\ntimezone: Asia/Shanghai\ncampuses: [本部]\n"
        "number_classes:\n  - {id: expert, name: 专家号, fee_fen: 5000}\n",
        "departments.csv": "id,parent_id,name,name_en,campus,location,intro,sex,age_min,age_max\n"
        + "".join(f"W{ward},,{ward}科,,本部,,,,,\n" for ward in WARDS),
        "practitioners.csv": "id,name,title,department_id,specialty,intro\n"
        + "".join(f"{ward}{number},王{ward},chief,W{ward},,\n" for ward, number in sorted(doctors)),
        "rooms.csv": "id,name,department_id\n",
        "templates.csv": "practitioner_id,weekday,period,starts,ends,capacity,number_class_id,department_id,"
        "room_id,fee_fen\n"
        + "".join(
            f"{ward}{number},{(DAY + timedelta(later)).isoweekday()},morning,08:00,12:00,{seats},expert,,,\n"
            for ward, sittings in WARDS.items()
            for number, later, seats in sittings
        ),
        "overrides.csv": "practitioner_id,day,period,closed,starts,ends,capacity\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


@dataclass
class Hospital:
    """A server of this file's own, on one home however often it is started."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    policies: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["serve", "--demo", "--home", str(self.home), "--port", str(self.port), "--shards", "2"]
        with (self.home.parent / "log").open("ab") as out:
            self.process = subprocess.Popen(xinglin(command), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, (self.home.parent / "log").read_text()

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(database_url(self.home))


@pytest.fixture(scope="module")
def hospital() -> Iterator[Hospital]:
    with tempfile.TemporaryDirectory(prefix="xinglin-suspension-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "files").mkdir()
        _hospital(Path(folder) / "files")
        hospital = Hospital(Path(folder) / "home", free_port())
        hospital.home.mkdir()
        done = run("import", str(Path(folder) / "files"), "--home", str(hospital.home))
        assert done.returncode == 0, done.stdout + done.stderr
        hospital.start()
        try:
            yield hospital
        finally:
            hospital.stop()


@dataclass
class Ward:
    """What a test does to its ward, and sees of it."""

    hospital: Hospital
    asking: Asking
    letter: str
    desk: str = ""  # token
    people: list[Person] = field(default_factory=list)
    booked: list[UUID] = field(default_factory=list)

    @property
    def schedule_id(self) -> str:
        return self.day_of(1)

    def day_of(self, doctor: int, later: int = 0) -> str:
        return f"{self.letter}{doctor}-{DAY + timedelta(later):%Y%m%d}"

    async def has_policy(self, order: str, **more: str) -> None:
        """Puts it in force, and waits until the server goes by it: ward Z is open or closed in turn."""
        closes = "0m" if next(self.hospital.policies) % 2 else "14d"
        terms = {"offer": "24h", "within": "2d", **more}
        text = (
            f"suspension: {{order: [{order}], offer: {terms['offer']}, within: {terms['within']}}}\n"
            f"departments:\n  WZ: {{closes: {closes}, waitlist: {{closes: 14d}}}}\n"
        )
        file = self.hospital.home.parent / "policy.yaml"
        file.write_text(text, encoding="utf-8")
        applying = asyncio.to_thread(run, "policy", "apply", str(file), "--home", str(self.hospital.home))
        applied = await applying
        assert applied.returncode == 0, applied.stdout + applied.stderr

        async def arrived() -> bool:
            said = await self.get("", f"/api/v1/schedules/Z1-{DAY:%Y%m%d}/slots")
            return bool(said["slots"][0]["remaining"] == 0) == (closes == "14d")

        await until(arrived, "the policy to arrive")

    async def book(self, number: int) -> None:
        connection = await self.hospital.connect()
        secret = (self.hospital.home / "token.key").read_bytes()
        self.people = await add_people(connection, secret, number)
        await connection.close()
        for n, person in enumerate(self.people):
            body = {
                "slot_id": f"{self.schedule_id}-{MORNING[n % len(MORNING)]}",
                "patient_id": person.patient_ids[0],
            }
            held = await self.post(person.token, "/api/v1/appointments", body, 201)
            await self.post(person.token, f"/api/v1/appointments/{held['id']}/confirm", None)
            self.booked.append(UUID(held["id"]))

    async def get(self, token: str, path: str) -> Json:
        said = await self.asking.ask("get", token or self.people[0].token, "GET", path)
        assert said.status == 200, (path, said)
        body: Json = said.body
        return body

    async def post(
        self, token: str, path: str, body: object, status: int = 200, key: str | None = None
    ) -> Json:
        key = key or f"{self.letter}-{len(self.asking.said)}"
        said = await self.asking.ask("post", token, "POST", path, body, key)
        assert said.status == status, (path, said)
        answer: Json = said.body
        return answer

    async def call_off(self, schedule_id: str | None = None, key: str = "off") -> Json:
        schedule_id = schedule_id or self.schedule_id
        sheet = await self.get(self.desk, f"/api/v1/desk/schedules/{schedule_id}")
        return await self.ask_to_call_off(schedule_id, sheet["revision"], key)

    async def ask_to_call_off(self, schedule_id: str, revision: int, key: str, status: int = 200) -> Json:
        body = {"period": "all", "reason": "doctor_ill", "note": "感冒", "revision": revision}
        path = f"/api/v1/desk/schedules/{schedule_id}/suspend"
        return await self.post(self.desk, path, body, status, f"{schedule_id}-{key}")

    async def report(self, schedule_id: str | None = None) -> Json:
        return await self.get(
            self.desk, f"/api/v1/desk/schedules/{schedule_id or self.schedule_id}/suspension"
        )

    async def fates(self) -> dict[str, int]:
        """When nobody is undecided any more."""

        async def decided() -> bool:
            return not (await self.report())["undecided"]

        await until(decided, "everybody's fate")
        return await self.fates_now()

    async def fates_now(self) -> dict[str, int]:
        told = await self.report()
        named = [UUID(one["appointment_id"]) for one in told["appointments"]]
        assert sorted(named) == sorted(self.booked), "somebody is missing, or there twice"
        assert told["affected"] == len(self.booked)
        return dict(Counter(one["fate"] for one in told["appointments"]))

    async def mine(self, n: int) -> Json:
        return await self.get(self.people[n].token, f"/api/v1/appointments/{self.booked[n]}")

    async def offers(self) -> list[tuple[int, str]]:
        """Who has one: person, appointment."""
        told = await self.report()
        found = {
            UUID(one["appointment_id"]): one["replaced_by"]
            for one in told["appointments"]
            if one["fate"] == "offered"
        }
        return [(n, found[id_]) for n, id_ in enumerate(self.booked) if id_ in found]

    async def is_sound(self) -> None:
        """No seat twice, no fate that is not true, nobody forgotten; the journal and the tables agree."""
        connection = await self.hospital.connect()
        try:
            checks = [*await called_off(connection), *await audit_url(database_url(self.hospital.home))]
        finally:
            await connection.close()
        assert not [(check.name, check.examples) for check in checks if check.faults]


@pytest.fixture
async def ward(hospital: Hospital, request: pytest.FixtureRequest) -> AsyncIterator[Ward]:
    async with client() as session:
        ward = Ward(hospital, Asking(session, hospital.address), request.param)
        await until(lambda: _is_ready(session, hospital), "the server")
        said = await ward.asking.ask(
            "sign in",
            "",
            "POST",
            "/api/v1/sessions",
            {"grant": "password", "username": "demo-manager", "password": "xinglin-demo"},
        )
        assert said.status == 201, said
        ward.desk = said.body["access_token"]
        yield ward


async def _is_ready(session: aiohttp.ClientSession, hospital: Hospital) -> bool:
    assert hospital.process is not None
    assert hospital.process.poll() is None, (hospital.home.parent / "log").read_text()
    try:
        async with session.get(f"{hospital.address}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not await is_so():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


ORDERS = [
    pytest.param("B", "moved, offered, waitlisted, refunded", {"moved": 8}, id="moved first"),
    pytest.param("C", "moved, offered, waitlisted, refunded", {"offered": 8}, id="offered: another day only"),
    pytest.param("D", "waitlisted, offered, refunded", {"waitlisted": 8}, id="waitlisted first"),
    pytest.param("E", "refunded", {"refunded": 8}, id="refunded at once"),
]


@pytest.mark.parametrize(("ward", "order", "fates"), ORDERS, indirect=["ward"])
async def test_the_policy_s_first_fate_that_can_be_had_is_everybody_s(
    ward: Ward, order: str, fates: dict[str, int]
) -> None:
    await ward.book(8)
    await ward.has_policy(order)
    await ward.call_off()
    assert await ward.fates() == fates
    told = await ward.report()
    owed = 8 * 5000 if set(fates) & {"waitlisted", "refunded"} else 0
    assert told["refund_due"] == owed
    await ward.is_sound()


@pytest.mark.parametrize("ward", ["A"], indirect=True)
async def test_forty_patients_and_what_they_make_of_their_offers(ward: Ward) -> None:
    """One after the other takes, leaves, ignores what is offered, or cancels; all end with one fate."""
    await ward.book(40)
    await ward.has_policy("moved, offered, waitlisted, refunded", offer="60s")
    sheet = await ward.get(ward.desk, f"/api/v1/desk/schedules/{ward.schedule_id}")
    first = await ward.ask_to_call_off(ward.schedule_id, sheet["revision"], "off")
    assert await ward.fates() == {"moved": 8, "offered": 16, "refunded": 16}

    # The same command again is the same command; another one finds nothing left to call off.
    assert await ward.ask_to_call_off(ward.schedule_id, sheet["revision"], "off") == first
    nothing = await ward.ask_to_call_off(ward.schedule_id, first["revision"], "more", 409)
    assert nothing["code"] == "nothing_to_change"
    assert await ward.fates_now() == {"moved": 8, "offered": 16, "refunded": 16}

    offers = await ward.offers()
    taken, declined, cancelled = offers[:4], offers[4:8], offers[8:10]
    for n, offer in taken:
        done = await ward.post(ward.people[n].token, f"/api/v1/appointments/{offer}/confirm", None)
        assert done["status"] == "booked"
    for n, offer in declined:
        await ward.post(ward.people[n].token, f"/api/v1/appointments/{offer}/cancel", None)
    for n, _ in cancelled:
        await ward.post(ward.people[n].token, f"/api/v1/appointments/{ward.booked[n]}/cancel", None)

    async def looked_after() -> bool:
        return [n for n, _ in await ward.offers()] == [n for n, _ in offers[10:]]

    await until(looked_after, "those who declined")
    assert await ward.fates_now() == {"moved": 12, "offered": 6, "refunded": 22}
    for n, offer in taken:
        mine = await ward.mine(n)
        assert (mine["status"], mine["fate"], mine["replaced_by"]) == ("cancelled", "moved", offer)
    for n, _ in (*declined, *cancelled):
        mine = await ward.mine(n)
        assert (mine["status"], mine["fate"], mine["refund_due"]) == ("cancelled", "refunded", 5000)

    # The others let a minute pass: the offer is over, and they are owed their money.
    async def lapsed() -> bool:
        return not await ward.offers()

    await until(lapsed, "offers that nobody took")
    assert await ward.fates() == {"moved": 12, "refunded": 28}
    n, offer = offers[-1]
    late = await ward.asking.ask(
        "confirm", ward.people[n].token, "POST", f"/api/v1/appointments/{offer}/confirm", None, "late"
    )
    assert (late.status, late.code) == (409, "hold_expired")
    await ward.is_sound()


# Errands of the kind `rehome` are handed out until the sequence is used up; then nobody gets one.
STOP_AFTER = """
create sequence handed_out;
grant usage on sequence handed_out to xinglin_app;
create function hold_back() returns trigger language plpgsql as $$
begin
    if old.kind = 'rehome' and nextval('handed_out') > {number} then return null; end if;
    return new;
end $$;
create trigger hold_back before update on errand for each row execute function hold_back()"""
GO_ON = "drop trigger hold_back on errand; drop function hold_back; drop sequence handed_out"


@pytest.mark.parametrize("ward", ["F"], indirect=True)
async def test_who_is_not_looked_after_yet_may_cancel_and_survives_a_restart(ward: Ward) -> None:
    await ward.book(40)
    await ward.has_policy("moved, offered, refunded")
    connection = await ward.hospital.connect()
    await connection.execute(STOP_AFTER.format(number=12))
    await ward.call_off()

    async def stopped() -> bool:
        return bool((await ward.report())["undecided"] == 28)

    await until(stopped, "twelve to be looked after")
    undecided = [n for n, id_ in enumerate(ward.booked) if (await ward.mine(n))["fate"] == "affected"]
    assert len(undecided) == 28
    n = undecided[0]
    await ward.post(ward.people[n].token, f"/api/v1/appointments/{ward.booked[n]}/cancel", None)
    assert (await ward.mine(n))["fate"] == "refunded"
    assert (await ward.mine(n))["refund_due"] == 5000

    await connection.close()
    await asyncio.to_thread(ward.hospital.stop)
    ward.hospital.start()
    await until(lambda: _is_ready(ward.asking.session, ward.hospital), "the second start")
    assert (await ward.report())["undecided"] == 27
    connection = await ward.hospital.connect()
    await connection.execute(GO_ON)
    await connection.close()
    fates = await ward.fates()
    assert fates == {"moved": 16, "offered": 8, "refunded": 16}
    await ward.is_sound()


@pytest.mark.parametrize("ward", ["G"], indirect=True)
async def test_an_offer_whose_own_session_is_called_off_is_no_dead_end(ward: Ward) -> None:
    """The place that was kept for somebody is called off as well, before they have answered."""
    await ward.book(8)
    await ward.has_policy("offered, refunded")
    await ward.call_off()
    assert await ward.fates() == {"offered": 8}
    offers = dict(await ward.offers())
    there = {
        (await ward.get(ward.people[n].token, f"/api/v1/appointments/{o}"))["schedule_id"]
        for n, o in offers.items()
    }
    for schedule_id in there:
        await ward.call_off(schedule_id, "too")
    for n, offer in offers.items():
        path = f"/api/v1/appointments/{offer}/confirm"
        await ward.asking.ask("confirm", ward.people[n].token, "POST", path, None, f"G-late-{n}")

    async def decided() -> bool:
        reports = [await ward.report(schedule_id) for schedule_id in (ward.schedule_id, *there)]
        return not any(report["undecided"] for report in reports)

    await until(decided, "everybody's fate")
    for n in range(8):
        last = await ward.mine(n)
        while last["fate"] == "moved":
            last = await ward.get(ward.people[n].token, f"/api/v1/appointments/{last['replaced_by']}")
        if last["fate"] == "offered":
            path = f"/api/v1/appointments/{last['replaced_by']}"
            kept = await ward.get(ward.people[n].token, path)
            assert kept["schedule_id"] not in there, "they were sent to a session that is called off"
        else:
            assert (last["status"], last["fate"]) == ("cancelled", "refunded")
    await ward.is_sound()
