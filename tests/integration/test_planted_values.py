"""No personal data in logs: values are planted in every input there is, and looked for in every output."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

import asyncpg
import orjson
import pytest
from aiohttp import ClientSession, WSMsgType

from engine import embedded_postgres
from tests.support import planting
from tests.support.fuzzing import world_of
from tests.support.planting import ID_NUMBER, NAME, NOTE, PHONE, Planting, found_in, outputs
from tests.support.system import System
from web.rights.matrix import ANYONE, PATIENT

SECONDS_MAX = 20.0


def until(holds: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < ends, f"not within {SECONDS_MAX:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def planted(rough_system: System) -> Planting:
    """A system that has been told all of it; the last request's id stands in its access log."""
    world = world_of(rough_system)
    document = world.session.get(f"{world.address}/openapi.json", timeout=SECONDS_MAX).json()
    planting_ = Planting(world, document)
    people(planting_)
    planting_.everywhere()
    asyncio.run(failing_statements(rough_system))
    asyncio.run(over_the_stream(world.address))
    last = secrets.token_hex(16)
    planting_.send("POST", "/api/v1/sessions", ANYONE, {}, headers={"X-Request-Id": last})
    logs = rough_system.home / "logs"
    until(lambda: any(last.encode() in file.read_bytes() for file in logs.iterdir()), "the last line")
    return planting_


def people(planting_: Planting) -> None:
    """As it goes on a good day: somebody registers, books, walks in; nurses measure, and everybody writes."""
    person = {
        "name": NAME,
        "id_type": "passport",
        "id_number": ID_NUMBER,
        "phone": PHONE,
        "sex": "female",
        "birth_date": "1990-03-07",
    }
    made = planting_.send("POST", "/api/v1/patients", PATIENT, {**person, "relation": "self"})
    assert made.status_code == 201, made.text
    resident = {**person, "id_type": "resident_id", "id_number": planting.RESIDENT_ID}
    planting_.send("POST", "/api/v1/patients", PATIENT, {**resident, "relation": "child"})
    person["id_number"] = ID_NUMBER + "2"
    walked_in = planting_.send(
        "POST",
        "/api/v1/walk-ins",
        "desk",
        {"department_id": planting_.world.ids["department"], "person": person},
    )
    assert walked_in.status_code == 201, walked_in.text
    ticket = walked_in.json()["id"]
    measured = planting_.send(
        "POST", f"/api/v1/tickets/{ticket}/vitals", "nurse", {"pulse": 71, "note": NOTE}
    )
    assert measured.status_code < 300, measured.text
    wrong = {"grant": "password", "username": planting.USERNAME, "password": planting.PASSWORD}
    assert planting_.send("POST", "/api/v1/sessions", ANYONE, wrong).status_code == 401


async def failing_statements(system: System) -> None:
    """What PostgreSQL itself would write, were it asked something that it must refuse."""
    url = embedded_postgres.running(system.home)
    assert url is not None
    connection = await asyncpg.connect(url)
    try:
        for statement, values in (
            (f"select '{NAME}{PHONE}'::uuid", ()),
            ("select $1::text::integer", (f"{NAME}{PHONE}",)),
            (f"selekt '{NOTE}'", ()),
            ("insert into account (id, openid, created_at) values ($1, $2, now()), ($1, $2, now())", None),
            (f"do $$ begin raise exception '{NOTE}'; end $$", ()),
        ):
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement, *((b"\0" * 16, NAME) if values is None else values))
    finally:
        await connection.close()


async def over_the_stream(address: str) -> None:
    """What a WebSocket may be told, and what it may not; until it is closed for talking nonsense."""
    said = [
        f'{{"token": "{planting.TOKEN}{PHONE}"}}',
        f'{{"subscribe": ["queue/{NAME}", "{NOTE}"]}}',
        f'{{"{NOTE}": {{"name": "{NAME}"}}}}',
        f"{NAME} {PHONE} no JSON",
    ]
    path = f"{address}/api/v1/stream?{planting.IN_QUERY}={NAME}"
    async with (
        ClientSession(headers={"User-Agent": planting.AGENT}) as session,
        session.ws_connect(path) as stream,
    ):
        with contextlib.suppress(ConnectionError):  # who talks nonsense is closed
            for message in said:
                await stream.send_str(message)
            await stream.send_bytes(NOTE.encode())
        assert (await stream.receive(SECONDS_MAX)).type is WSMsgType.TEXT, "hello"


def test_no_log_tells_what_was_typed(planted: Planting, rough_system: System) -> None:
    written = outputs(rough_system)
    assert planted.sent > 500
    leaks = {where: found for where, said in written.items() if (found := found_in(said))}
    assert not leaks, leaks
    assert any("access" in where for where in written)
    assert any("postgres.log" in where for where in written)
    assert any("/session_" in where for where in written), "Ray's"


def test_the_search_finds_what_is_there(planted: Planting, rough_system: System) -> None:
    """The control: a search that finds nothing must be able to."""
    written = outputs(rough_system)
    for value in planting.PLANTED:
        for spelled in planting.spellings(value):
            assert found_in(b'{"message": "' + spelled + b'"}') != [], (value, spelled)
    everything = b"".join(written.values())
    assert found_in(everything, ["/api/v1/appointments"]), "routes are told"
    assert planted.statuses.keys() >= {200, 201, 400, 401, 404, 422}


def test_no_refusal_repeats_what_is_personal(planted: Planting) -> None:
    assert not planted.told, "\n".join(planted.told[:20])


def test_no_metric_is_labelled_with_what_was_typed(planted: Planting) -> None:
    told = planted.world.session.get(f"{planted.world.address}/metrics", timeout=SECONDS_MAX)
    assert b"xinglin_http_requests_total" in told.content
    assert found_in(told.content) == []


def test_every_line_of_our_logs_is_json_that_says_when_where_and_what(
    planted: Planting, rough_system: System
) -> None:
    kinds = set()
    for file in (rough_system.home / "logs").glob("*.log"):
        for line in file.read_bytes().splitlines():
            told = orjson.loads(line)
            assert told["ts"].endswith("Z") and told["process"], line
            if ".access." in file.name:
                assert set(told) == {"ts", "process", "method", "route", "status", "ms", "request_id"}
                assert told["route"] is None or "{" in told["route"] or told["route"].startswith("/")
                kinds.add("access")
            else:
                assert told["level"] and told["logger"] and told["message"], line
                kinds.add("log")
    assert kinds >= {"access"}
