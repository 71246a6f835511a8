"""A small release rush against the real system: everybody at one instant, one doctor, 20 seats."""

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from benchmarks.check import database_url
from tests.support.system import System

CROWD = 300
SEATS = 20
TRIES_MAX = 10
ALTERNATIVES_MIN = 3
ANSWER_SECONDS_MAX = 10.0  # for a client on a busy machine; what the gateway promises is 2
SIGN_INS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Person:
    number: int
    token: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    person: Person
    slot_id: str
    statuses: list[int]  # of every try; the last one is definite
    body: dict[str, Any]


async def test_a_rush_on_20_seats_gives_exactly_20_numbers(system: System) -> None:
    chance = random.Random(20)
    timeout = ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with ClientSession(
        system.address, connector=TCPConnector(limit=0), timeout=timeout, headers={"Accept-Language": "en"}
    ) as http:
        schedule = await _schedule_of(SEATS, http)
        slots = (await _json(http, f"/api/v1/schedules/{schedule['id']}/slots"))["slots"]
        people = await _people(http, "rush", CROWD)
        # The first of the crowd cover the slots, so that every seat has more than one who wants it.
        wanted = [slots[n % len(slots)]["id"] for n in range(CROWD)]
        chance.shuffle(wanted)
        start = asyncio.Event()
        crowd = [
            asyncio.create_task(_hold(http, person, slot, start))
            for person, slot in zip(people, wanted, strict=True)
        ]
        start.set()
        answers = await asyncio.gather(*crowd)

        assert {status for answer in answers for status in answer.statuses} <= {201, 409, 503}
        held = [a for a in answers if a.statuses[-1] == 201]
        full = [a for a in answers if a.statuses[-1] == 409]
        assert len(held) == SEATS
        assert len(full) == CROWD - SEATS

        # Every seat once: numbers count from 1 within a session, and this doctor has one.
        assert sorted(a.body["number"] for a in held) == list(range(1, SEATS + 1))
        assert {a.body["slot_id"] for a in held} == {slot["id"] for slot in slots}
        assert {a.body["code"] for a in full} == {"slot_full"}
        department = schedule["sessions"][0]["department_id"]
        for answer in full:
            alternatives = answer.body["alternatives"]
            assert len(alternatives) >= ALTERNATIVES_MIN
            assert all(a["remaining"] > 0 and a["department_id"] == department for a in alternatives)

        # None is lost, and a retry finds its first answer.
        again = await asyncio.gather(*(_hold(http, a.person, a.slot_id, start) for a in held))
        assert [a.body for a in again] == [a.body for a in held]
        await _all_are_in_sql(system, schedule["id"], held)


async def test_what_is_full_is_not_offered_instead_of_itself(system: System) -> None:
    async with ClientSession(system.address, headers={"Accept-Language": "en"}) as http:
        schedule = await _schedule_of(SEATS, http)
        slot = (await _json(http, f"/api/v1/schedules/{schedule['id']}/slots"))["slots"][0]
        start = asyncio.Event()
        start.set()
        people = await _people(http, "itself", 8 * slot["capacity"])
        answers = await asyncio.gather(*(_hold(http, person, slot["id"], start) for person in people))
        refused = [a for a in answers if a.statuses[-1] == 409]
        assert len(refused) == 7 * slot["capacity"]
        misled = [a for a in refused if slot["id"] in [o["slot_id"] for o in a.body["alternatives"]]]
        assert not misled, f"{len(misled)} of {len(refused)} refusals offer the very slot that they refuse"


async def _schedule_of(seats: int, http: ClientSession) -> dict[str, Any]:
    """A doctor's day with one session of so many seats, all free, whose department has others."""
    tomorrow = datetime.now(ZoneInfo("Asia/Shanghai")).date() + timedelta(days=1)
    found = (await _json(http, f"/api/v1/schedules?from={tomorrow}"))["schedules"]
    return next(s for s in found if s["capacity"] == s["remaining"] == seats and len(s["sessions"]) == 1)


async def _people(http: ClientSession, crowd: str, count: int) -> list[Person]:
    at_once = asyncio.Semaphore(SIGN_INS_AT_ONCE)

    async def one(number: int) -> Person:
        async with at_once:
            grant = {"grant": "wechat", "code": f"sandbox:{crowd}-{number}"}
            token = (await _json(http, "/api/v1/sessions", grant))["access_token"]
            patient = {
                "name": "测试者",
                "id_type": "passport",
                "id_number": f"{crowd.upper()}{number:05d}",
                "phone": f"138{number:08d}",
                "relation": "self",
            }
            added = await _json(http, "/api/v1/patients", patient, token)
            return Person(number, token, added["id"])

    return await asyncio.gather(*map(one, range(count)))


async def _hold(http: ClientSession, person: Person, slot_id: str, start: asyncio.Event) -> Answer:
    """Asks with one key until the answer is definite."""
    await start.wait()
    statuses: list[int] = []
    for _ in range(TRIES_MAX):
        async with http.post(
            "/api/v1/appointments",
            json={"slot_id": slot_id, "patient_id": person.patient_id},
            headers={"Authorization": f"Bearer {person.token}", "Idempotency-Key": "rush"},
        ) as response:
            statuses.append(response.status)
            body = await response.json(content_type=None)
            if response.status != 503:
                return Answer(person, slot_id, statuses, body)
            pause = float(response.headers["Retry-After"])
        await asyncio.sleep(pause)
    raise AssertionError(f"no definite answer in {TRIES_MAX} tries: {statuses}, {body}")


async def _json(
    http: ClientSession, path: str, body: dict[str, Any] | None = None, token: str = ""
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.request("GET" if body is None else "POST", path, json=body, headers=headers) as response:
        found: dict[str, Any] = await response.json(content_type=None)
        assert response.status in (200, 201), found
        return found


async def _all_are_in_sql(system: System, schedule_id: str, held: list[Answer]) -> None:
    connection = await asyncpg.connect(database_url(system.home))
    try:
        rows = await connection.fetch(
            "select id::text, number, slot_id, patient_id::text from appointment"
            " where schedule_id = $1 and status <= 4",
            schedule_id,
        )
    finally:
        await connection.close()
    assert {tuple(row) for row in rows} == {
        (a.body["id"], a.body["number"], a.body["slot_id"], a.person.patient_id) for a in held
    }
