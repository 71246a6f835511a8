"""What was not agreed to is not booked, by the very shard; who is forgotten has no name on any page.

A gateway and a shard in this process: real HTTP, real actors, real PostgreSQL.
"""

import json
import secrets
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import ClientSession

from engine.domain.ids import ScheduleKey
from engine.domain.masking import ERASED_NAME
from engine.records.staff import NewStaff, Role, Staff, add_staff
from tests.support.noon import noon_zone
from tests.support.one_process import serving
from tests.support.stores import PostgresWorld, plan

Json = dict[str, Any]
POLICY = "privacy: {consents_required: [health_data]}"
PERSON = {
    "name": "诸葛瑾",
    "id_type": "passport",
    "id_number": "P7654321",
    "phone": "13712345678",
    "birth_date": "1980-01-01",
    "sex": "male",
}
ERASE = {"confirm": "erase", "id_digits": "4321"}


class Asking:
    def __init__(self, http: ClientSession, token: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        headers = {**self._headers, "Idempotency-Key": secrets.token_hex(8)}
        async with self._http.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()


async def opened(world: PostgresWorld) -> tuple[str, str, bytes, Staff]:
    """A doctor's tomorrow; an account, and somebody at the desk."""
    zone = ZoneInfo(noon_zone())
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('h', $1)", str(zone))
    await pool.execute(
        "insert into department (id, name, campus, position) values ('cardio', '心内科', 'east', 0)"
    )
    await pool.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家', 5000)")
    await pool.execute("insert into policy (yaml, who) values ($1, 'test')", POLICY)
    day = (datetime.now(zone) + timedelta(days=1)).date()
    starts = int(datetime.combine(day, time(9), zone).timestamp() * 1000)
    session = plan(starts, 9, 9, department="cardio", clock=9 * 60, period="morning")
    await world.publish(ScheduleKey("D0001", day.isoformat()), session)
    account = secrets.token_bytes(16)
    await pool.execute(
        "insert into account (id, openid, created_at) values ($1, 'o1', now())", UUID(bytes=account)
    )
    async with pool.acquire() as connection:
        new = NewStaff("desk.chen", "陈静", "no hash", (Role.DESK,), None, None)
        clerk = await add_staff(connection, new, secrets.token_bytes(16), datetime.now(UTC))
    schedule = f"D0001-{day:%Y%m%d}"
    return schedule, f"{schedule}-0900", account, clerk


async def test_consent_is_asked_for_and_what_is_forgotten_has_no_name(database: str) -> None:
    world = PostgresWorld(database)
    schedule, slot, account, clerk = await opened(world)
    pool = await world.pool()
    try:
        async with serving(world) as one, ClientSession(one.address) as http:
            ask = Asking(http, one.tokens.issue(account).access_token)
            desk = Asking(http, one.tokens.issue_staff(clerk).access_token)
            # Nobody is added without consent; with it, somebody is, and books.
            status, refused = await ask("POST", "/api/v1/patients", {**PERSON, "relation": "self"})
            assert (status, refused["code"], refused["consents"]) == (403, "consent_needed", ["health_data"])
            agreed = {"kind": "health_data", "version": "2026.1"}
            assert (await ask("POST", "/api/v1/consents", agreed))[0] == 201
            status, patient = await ask("POST", "/api/v1/patients", {**PERSON, "relation": "self"})
            assert status == 201, patient
            wanted = {"slot_id": slot, "patient_id": patient["id"]}
            status, held = await ask("POST", "/api/v1/appointments", wanted)
            assert status == 201, held
            await ask("POST", f"/api/v1/appointments/{held['id']}/cancel")
            # Taken back, it ends booking at once, and at the shard; the desk still books whoever comes there.
            assert (await ask("DELETE", "/api/v1/consents/health_data"))[0] == 200
            status, refused = await ask("POST", "/api/v1/appointments", wanted)
            assert (status, refused["code"], refused["consents"]) == (403, "consent_needed", ["health_data"])
            status, day = await desk("GET", f"/api/v1/desk/schedules/{schedule}")
            extra = {"revision": day["revision"], "slot": "09:00", "patient_id": patient["id"]}
            status, added = await desk("POST", f"/api/v1/desk/schedules/{schedule}/extra-patient", extra)
            assert status in (200, 201), added
            number = added["appointment"]["id"]
            assert (await desk("POST", f"/api/v1/desk/appointments/{number}/cancel", {"note": "x"}))[0] == 200
            at_desk = {"patient": PERSON, "slot_id": slot}
            status, registered = await desk("POST", "/api/v1/desk/appointments", at_desk)
            assert (status, registered["patient_id"]) == (201, patient["id"])
            # A number ahead comes first, whoever booked it; then the person is forgotten.
            path = f"/api/v1/patients/{patient['id']}/erasure"
            status, refused = await ask("POST", path, ERASE)
            assert (status, [x["code"] for x in refused["obstacles"]]) == (409, ["booking_ahead"])
            number = registered["id"]
            assert (await desk("POST", f"/api/v1/desk/appointments/{number}/cancel", {"note": "x"}))[0] == 200
            status, day = await desk("GET", f"/api/v1/desk/schedules/{schedule}")
            assert status == 200
            status, done = await ask("POST", path, ERASE)
            assert (status, done["is_done"]) == (200, True)
            for method, page in (
                ("GET", f"/api/v1/desk/schedules/{schedule}"),
                ("GET", f"/api/v1/desk/schedules/{schedule}/history"),
            ):
                status, shown = await desk(method, page)
                assert status == 200 and "诸葛瑾" not in json.dumps(shown, ensure_ascii=False)
            for page in ("/api/v1/appointments", "/api/v1/patients", "/api/v1/tickets", "/api/v1/notices"):
                status, shown = await ask("GET", page)
                assert status == 200 and "诸葛瑾" not in json.dumps(shown, ensure_ascii=False)
            status, mine = await ask("GET", f"/api/v1/appointments/{held['id']}")
            assert (status, mine["patient_name"]) == (200, ERASED_NAME)
            # The journal remains, and what goes along has its history, though nobody's name.
            status, told = await ask("GET", "/api/v1/account/export")
            assert status == 200 and "诸葛瑾" not in json.dumps(told, ensure_ascii=False)
            lines = {x["id"]: [line["what"] for line in x["history"]] for x in told["appointments"]}
            assert lines[held["id"]] == ["held", "cancelled"]
            row = await pool.fetchrow("select * from patient where id = $1", UUID(patient["id"]))
            assert row["record_key"] is None and row["id_index"] is None
            # Nor does the account that the desk kept for the document lead back to it.
            assert await pool.fetchval("select count(*) from account where openid like 'desk:%'") == 0
    finally:
        await world.close()
