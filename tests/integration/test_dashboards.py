"""Dashboards of a running system: actors at work and the hospital's indicators, asked for and streamed."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse

from tests.integration.test_looking import Json, Person, _day, _read
from tests.support.system import System

SECONDS_MAX = 20.0


@pytest.fixture
async def http(system: System) -> AsyncIterator[ClientSession]:
    async with ClientSession(system.address) as session:
        yield session


async def staff(http: ClientSession, username: str) -> dict[str, str]:
    grant = {"grant": "password", "username": username, "password": "xinglin-demo"}
    async with http.post("/api/v1/sessions", json=grant) as answer:
        return {"Authorization": f"Bearer {(await answer.json())['access_token']}"}


async def until(socket: ClientWebSocketResponse, is_it: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            message = await _read(socket)
            if is_it(message):
                return message


async def book(http: ClientSession, schedule: Json, person: Person) -> str:
    async with http.get(f"/api/v1/schedules/{schedule['id']}/slots") as answer:
        slot_id = (await answer.json())["slots"][0]["id"]
    held = await person.hold(slot_id)
    headers = {**person.headers, "Idempotency-Key": secrets.token_hex(8)}
    bill = f"/api/v1/bills/{held['bill_id']}/payments"
    async with http.post(bill, json={"provider": "at_hospital"}, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
    return slot_id


async def test_a_manager_sees_a_booking_in_its_actor_and_in_the_indicators(http: ClientSession) -> None:
    manager = await staff(http, "demo-manager")
    schedule = await _day(http, set())
    person = Person(http)
    await person.sign_in()
    stream = f"schedule/{schedule['practitioner_id']}/{schedule['date']}"
    async with http.ws_connect("/api/v1/stream", headers=manager) as socket:
        await socket.send_json({"subscribe": ["actors/all", "indicators/all"]})
        first = await until(socket, lambda m: m.get("snapshot") == "indicators/all")
        before = first["registrations"]
        await book(http, schedule, person)
        changes = await until(
            socket,
            lambda m: (
                m.get("patch") == "indicators/all"
                and m["changes"].get("registrations", {}).get("confirmed", 0) > before["confirmed"]
            ),
        )
        assert changes["version"] > first["version"]
        actors = await until(
            socket,
            lambda m: (
                m.get("snapshot") == "actors/all"
                and any(actor["actor"] == stream for shard in m["shards"] for actor in shard["actors"])
            ),
        )
        (actor,) = [a for shard in actors["shards"] for a in shard["actors"] if a["actor"] == stream]
        assert (actor["commands"], actor["mailbox"], actor["is_alive"]) == (2, 0, True)
        assert actor["flush_us"] > 0
    async with http.get("/api/v1/desk/actors", headers=manager) as answer:
        asked = await answer.json()
        assert answer.status == 200 and len(asked["shards"]) == len(actors["shards"])
    address = f"/api/v1/desk/indicators?day={schedule['date']}"
    async with http.get(address, headers=manager) as answer:
        day = await answer.json()
        mine = day["practitioners"][schedule["practitioner_id"]]
        assert mine["registrations"]["expected"] == mine["load"]["booked"] == 1
        assert mine["load"]["seats"] == schedule["capacity"]
        department_id = schedule["sessions"][0]["department_id"]
        assert day["departments"][department_id]["registrations"]["expected"] >= 1
    async with http.get(f"{address}&department={department_id}", headers=manager) as answer:
        narrow = await answer.json()
        assert narrow["departments"] == {department_id: day["departments"][department_id]}
    async with http.get("/api/v1/desk/indicators?department=nowhere", headers=manager) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "no_such_department")


async def test_dashboards_are_for_staff(http: ClientSession) -> None:
    person = Person(http)
    await person.sign_in()
    doctor = await staff(http, "demo-doctor")
    for path in ("/api/v1/desk/actors", "/api/v1/desk/indicators"):
        async with http.get(path) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "unauthenticated")
        for headers in (person.headers, doctor):
            async with http.get(path, headers=headers) as answer:
                assert answer.status in (401, 403)
    async with http.ws_connect("/api/v1/stream", headers=doctor) as socket:
        for topic in ("actors/all", "indicators/all"):
            await socket.send_json({"subscribe": [topic]})
            refused = await until(socket, lambda m: "error" in m)
            assert (refused["error"]["code"], refused["error"]["topic"]) == ("forbidden", topic)
