"""A person's way through their rights on the running system: agree, book, take along, and be forgotten."""

import json
import secrets
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import UUID

import asyncpg
import pytest

from benchmarks.check import database_url
from engine.domain.masking import ERASED_NAME
from engine.records.identity import check_digit
from tests.support.system import System

Json = dict[str, Any]
DEPARTMENT = "0304"


def ask(
    system: System, method: str, path: str, token: str = "", body: Json | None = None, key: str = ""
) -> tuple[int, Json]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if key:
        headers["Idempotency-Key"] = key
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(system.address + path, data, headers, method=method), timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as refused:
        return refused.code, json.loads(refused.read())


def sign_in(system: System, openid: str) -> str:
    status, session = ask(
        system, "POST", "/api/v1/sessions", body={"grant": "wechat", "code": f"sandbox:{openid}"}
    )
    assert status == 201, session
    token: str = session["access_token"]
    return token


@pytest.fixture
def number() -> str:
    """Of a resident nobody else is: born on a day of the tests' own."""
    first_17 = f"11010119{secrets.randbelow(40) + 40:02}0229"[:14] + f"{secrets.randbelow(1000):03}"
    first_17 = first_17[:6] + "19840229" + first_17[14:]
    return first_17 + check_digit(first_17)


async def test_a_person_agrees_books_takes_everything_along_and_is_forgotten(
    system: System, number: str
) -> None:
    openid = f"privacy-{secrets.token_hex(8)}"
    token = sign_in(system, openid)
    texts = ask(system, "GET", "/api/v1/consents", token)[1]["texts"]
    for text in texts:
        if text["kind"] in ("privacy_policy", "health_data"):
            body = {"kind": text["kind"], "version": text["version"]}
            assert ask(system, "POST", "/api/v1/consents", token, body)[0] == 201
    person = {"name": "诸葛瑾", "id_type": "resident_id", "id_number": number, "phone": "13912340987"}
    status, patient = ask(system, "POST", "/api/v1/patients", token, {**person, "relation": "self"})
    assert status == 201, patient
    held = book(system, token, patient["id"])
    # Everything that there is goes along, with the history of the number.
    status, told = ask(system, "GET", "/api/v1/account/export", token)
    assert status == 200 and told["account"]["openid"] == openid
    assert {one["kind"] for one in told["consents"]} == {"privacy_policy", "health_data"}
    (taken,) = told["appointments"]
    assert taken["id"] == held and [line["what"] for line in taken["history"]] == ["held", "booked"]
    assert told["people"][0]["name"] == "诸葛瑾" and number not in json.dumps(told)
    # A number ahead is settled first; then nothing of the person is left.
    confirm = {"confirm": "erase", "id_digits": number[-4:]}
    path = "/api/v1/account/erasure"
    status, refused = ask(system, "POST", path, token, confirm, "e1")
    assert (status, refused["code"]) == (409, "erasure_blocked")
    assert {one["code"] for one in refused["obstacles"]} == {"booking_ahead"}
    assert ask(system, "POST", f"/api/v1/appointments/{held}/cancel", token, key="c1")[0] == 200
    status, done = ask(system, "POST", path, token, confirm, "e2")
    assert status == 200 and done["is_done"] and done["people"][0]["kept_until"] is None, done
    # The session has ended, everywhere; the same sign-in is a new person's.
    assert await ended(system, token) == 401
    again = sign_in(system, openid)
    assert ask(system, "GET", "/api/v1/patients", again)[1] == {"patients": []}
    connection = await asyncpg.connect(database_url(system.home))
    try:
        row = await connection.fetchrow(
            "select name, id_number, id_index, record_key, contact_key, birth_date from patient"
            " where id = $1",
            UUID(patient["id"]),
        )
        assert set(row) == {None}
        assert await connection.fetchval("select count(*) from account where openid = $1", openid) == 1
    finally:
        await connection.close()
    ledger = (system.home / "erased.log").read_text()
    assert UUID(patient["id"]).hex in ledger and "诸葛瑾" not in ledger and number not in ledger
    # The desk's page of that day shows a neutral word, not a name and not an error.
    status, desk = ask(
        system,
        "POST",
        "/api/v1/sessions",
        body={"grant": "password", "username": "demo-manager", "password": "xinglin-demo"},
    )
    assert status == 201
    schedule = taken["schedule_id"]
    status, day = ask(system, "GET", f"/api/v1/desk/schedules/{schedule}", desk["access_token"])
    assert status == 200 and "诸葛瑾" not in json.dumps(day, ensure_ascii=False)
    listed = [one for one in everything(day) if isinstance(one, dict) and one.get("id") == held]
    assert all(ERASED_NAME in json.dumps(one, ensure_ascii=False) for one in listed)


def book(system: System, token: str, patient_id: str) -> str:
    """A free seat of some day, confirmed."""
    schedules = ask(system, "GET", f"/api/v1/schedules?department={DEPARTMENT}")[1]["schedules"]
    for schedule in reversed(schedules):
        for slot in ask(system, "GET", f"/api/v1/schedules/{schedule['id']}/slots")[1]["slots"]:
            body = {"slot_id": slot["id"], "patient_id": patient_id}
            status, held = ask(system, "POST", "/api/v1/appointments", token, body, secrets.token_hex(8))
            if status == 201:
                path = f"/api/v1/appointments/{held['id']}/confirm"
                assert ask(system, "POST", path, token, key=secrets.token_hex(8))[0] == 200
                id_: str = held["id"]
                return id_
    raise AssertionError("no seat is free")


async def ended(system: System, token: str) -> int:
    """Every gateway hears of it with the commit, within a second."""
    import asyncio

    for _ in range(50):
        status, _told = ask(system, "GET", "/api/v1/patients", token)
        if status != 200:
            break
        await asyncio.sleep(0.1)
    return status


def everything(found: Any) -> list[Any]:
    below = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [found, *(one for each in below for one in everything(each))]
