"""The stream and the month, on a running system: whoever looks sees what others do."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse

from actors.feed import Changes
from engine.domain import schedule as s
from engine.domain.planning import Plan, PlannedSlot, Session, Share, Stage, plan_as_data
from engine.domain.policy import EVERYBODY, Channel, Policy, Return, Returned, Terms
from engine.domain.refusal import Refusal
from engine.records.appointments import seats_taken
from engine.records.catalog import load_catalog, load_schedules
from engine.records.identity import check_digit
from engine.views.availability import Availability
from tests.support.stores import PostgresWorld, Served, doctor, uid
from tests.support.system import System

HOUR = 3_600_000
ANSWER_SECONDS_MAX = 10.0  # else it hangs; how fast it is, benchmarks/month.py tells
Json = dict[str, Any]


class Person:
    def __init__(self, http: ClientSession) -> None:
        self.http = http

    async def sign_in(self) -> None:
        grant = {"grant": "wechat", "code": f"sandbox:{secrets.token_hex(8)}"}
        async with self.http.post("/api/v1/sessions", json=grant) as answer:
            self.token = (await answer.json())["access_token"]
        born = date(1960, 1, 1) + timedelta(days=secrets.randbelow(12_000))
        stem = f"110101{born:%Y%m%d}{secrets.randbelow(1000):03}"
        body = {
            "name": "张伟",
            "id_type": "resident_id",
            "id_number": stem + check_digit(stem),
            "phone": "13800138000",
            "relation": "self",
        }
        async with self.http.post("/api/v1/patients", json=body, headers=self.headers) as answer:
            self.patient_id = (await answer.json())["id"]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def hold(self, slot_id: str) -> Json:
        body = {"slot_id": slot_id, "patient_id": self.patient_id}
        headers = {**self.headers, "Idempotency-Key": secrets.token_hex(8)}
        async with self.http.post("/api/v1/appointments", json=body, headers=headers) as answer:
            held: Json = await answer.json()
            assert answer.status == 201, held
            return held

    async def cancel(self, appointment_id: str) -> None:
        headers = {**self.headers, "Idempotency-Key": secrets.token_hex(8)}
        path = f"/api/v1/appointments/{appointment_id}/cancel"
        async with self.http.post(path, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


@pytest.fixture
async def http(system: System) -> AsyncIterator[ClientSession]:
    async with ClientSession(system.address) as session:
        yield session


async def _day(http: ClientSession, taken: set[str]) -> Json:
    """A day that sees everybody, of which nobody has a number yet."""
    async with http.get("/api/v1/departments") as answer:
        departments = (await answer.json())["departments"]
    open_to_all = {d["id"] for d in departments if (d["sex"], d["age_min"], d["age_max"]) == (None,) * 3}
    async with http.get("/api/v1/schedules") as answer:
        schedules = (await answer.json())["schedules"]
    days = [
        s
        for s in schedules
        if s["sessions"][0]["department_id"] in open_to_all
        and s["remaining"] == s["capacity"] > 0
        and s["date"] > schedules[0]["date"]
        and s["practitioner_id"] not in taken
    ]
    found: Json = secrets.choice(days)
    taken.add(found["practitioner_id"])
    return found


async def _read(socket: ClientWebSocketResponse) -> Json:
    found: Json = orjson.loads(await asyncio.wait_for(socket.receive_str(), ANSWER_SECONDS_MAX))
    return found


async def _news_of(socket: ClientWebSocketResponse, slot_id: str) -> Json:
    """The next change of this slot; others book in the shared system as well."""
    while True:
        for change in (await _read(socket)).get("changed", ()):
            if change["slot_id"] == slot_id:
                return dict(change)


async def test_a_patient_who_looks_sees_another_book_and_cancel(http: ClientSession) -> None:
    taken: set[str] = set()
    mine, other = await _day(http, taken), await _day(http, taken)
    person = Person(http)
    await person.sign_in()
    async with http.ws_connect("/api/v1/stream") as socket:
        assert "hello" in await _read(socket)
        await socket.send_json(
            {"subscribe": [f"schedule/{mine['id']}", f"practitioner/{other['practitioner_id']}"]}
        )
        snapshot = await _read(socket)
        slot, *_ = snapshot["schedules"][0]["slots"]
        assert (snapshot["snapshot"], slot["remaining"]) == (f"schedule/{mine['id']}", slot["capacity"])
        listed = (await _read(socket))["schedules"]
        assert other in listed, "the very same as GET /api/v1/schedules says"
        held = await person.hold(slot["slot_id"])
        assert await _news_of(socket, slot["slot_id"]) == {**slot, "remaining": slot["capacity"] - 1}
        await person.cancel(held["id"])
        assert await _news_of(socket, slot["slot_id"]) == slot
        async with http.get(f"/api/v1/schedules/{other['id']}/slots") as answer:
            theirs = (await answer.json())["slots"][0]["id"]
        # Of what is no longer watched nothing comes; a later message of something else shows that.
        await socket.send_json({"unsubscribe": [f"schedule/{mine['id']}"]})
        await socket.send_json({"subscribe": [f"schedule/{other['id']}"]})
        while (await _read(socket)).get("snapshot") != f"schedule/{other['id']}":
            pass
        again = await person.hold(slot["slot_id"])
        await person.cancel(again["id"])
        await person.hold(theirs)
        while True:
            told = await _read(socket)
            ids = [change["slot_id"] for change in told["changed"]]
            assert slot["slot_id"] not in ids
            if theirs in ids:
                break


async def test_what_has_not_changed_is_not_sent_again(http: ClientSession) -> None:
    day = await _day(http, set())
    department = day["sessions"][0]["department_id"]
    slots = f"/api/v1/schedules/{day['id']}/slots"
    for path in (
        slots,
        "/api/v1/departments",
        f"/api/v1/departments/{department}/practitioners",
        f"/api/v1/practitioners/{day['practitioner_id']}",
        f"/api/v1/schedules?practitioner={day['practitioner_id']}",
    ):
        async with http.get(path) as answer:
            assert answer.status == 200
            etag, cached = answer.headers["ETag"], answer.headers["Cache-Control"]
            assert cached == "public, no-cache" and "Vary" not in answer.headers
        async with http.get(path, headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
            assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == (etag, cached)
    async with http.get(slots) as answer:
        etag, before = answer.headers["ETag"], await answer.json()
    person = Person(http)
    await person.sign_in()
    async with http.ws_connect("/api/v1/stream") as socket:
        await socket.send_json({"subscribe": [f"schedule/{day['id']}"]})
        await person.hold(before["slots"][0]["id"])
        await _news_of(socket, before["slots"][0]["id"])
        async with http.get(slots, headers={"If-None-Match": etag}) as answer:
            assert answer.status == 200 and answer.headers["ETag"] != etag
            after = await answer.json()
    assert after["slots"][0]["remaining"] == before["slots"][0]["remaining"] - 1
    assert after["version"] > before["version"]


async def test_the_stream_is_in_the_document(http: ClientSession) -> None:
    async with http.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    assert "101" in paths["/api/v1/stream"]["get"]["responses"]
    assert "304" in paths["/api/v1/schedules"]["get"]["responses"]


# A snapshot, from SQL to what a patient sees.


async def test_a_snapshot_from_the_database_says_which_seats_are_left_in_each_share(database: str) -> None:
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    async with pool.acquire() as connection:
        day = await connection.fetchval("select current_date + 3")
        midnight = int((await connection.fetchval("select extract(epoch from $1::date)", day)) * 1000)
        opens = midnight - 24 * HOUR
        shares = (
            Share("", (Stage(opens - HOUR, EVERYBODY),)),
            Share("window", (Stage(opens - HOUR, Channel.WINDOW), Stage(opens, EVERYBODY))),
        )
        starts = midnight + HOUR
        shared = Session(
            "morning", "d", "c", None, 1, (PlannedSlot("0900", starts, 5, ((0, 2), (1, 1), (0, 2))),), shares
        )
        plain = Session("morning", "d", "c", None, 1, (PlannedSlot("0900", starts, 5),))
        await connection.execute(
            "insert into department (id, name, campus, position) values ('d', 'd', 'x', 1)"
        )
        for number, (plan, unfree) in enumerate(
            ((shared, {"0900": [2]}), (plain, {"0900": [4]}), (plain, {}))
        ):
            who = f"D{number}"
            await connection.execute(
                "insert into practitioner (id, name, title, department_id, position)"
                " values ($1, $1, 'chief', 'd', 1)",
                who,
            )
            await connection.execute(
                "insert into schedule (id, practitioner_id, day, plan, opened, unfree)"
                " values ($1, $2, $3, $4::jsonb, $5, $6::jsonb)",
                f"{who}-{day:%Y%m%d}",
                who,
                day,
                orjson.dumps(plan_as_data((plan,))).decode(),
                number < 2,
                orjson.dumps(unfree).decode(),
            )
            for seat, status in ((0, 1), (1, 5), (3, 2)):
                if number < 2:
                    await connection.execute(
                        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number,"
                        " patient_id, account_id, status, fee_fen, starts_at, created_at, updated_at)"
                        " values (gen_random_uuid(), $1, $1 || '-0900', $2, 5, 1, gen_random_uuid(),"
                        " gen_random_uuid(), $3, 1, to_timestamp($4 / 1000.0), now(), now())",
                        f"{who}-{day:%Y%m%d}",
                        seat,
                        status,
                        starts,
                    )
        catalog = await load_catalog(connection)
    taken = await seats_taken(pool)
    await pool.close()
    day_id = f"{day:%Y%m%d}"
    assert taken.seats == {f"D0-{day_id}-0900": 3, f"D1-{day_id}-0900": 3}
    assert {slot: sorted(seats) for slot, seats in taken.which.items()} == {f"D0-{day_id}-0900": [0, 2, 3]}
    view = Availability(catalog, [])
    view.reset(None, taken, 1)

    def left(who: str, channel: Channel, now: int) -> tuple[int, int]:
        row = view.schedule(f"{who}-{day_id}")
        assert row is not None
        (slot,) = view.slots(row, channel, now)
        return slot.remaining, slot.capacity

    assert left("D0", Channel.MINI_PROGRAM, opens - 1) == (2, 4)
    assert left("D0", Channel.WINDOW, opens - 1) == (2, 5)
    assert left("D0", Channel.MINI_PROGRAM, opens) == (2, 5)
    assert left("D1", Channel.MINI_PROGRAM, opens) == (2, 5)
    assert view.schedule(f"D2-{day_id}") is None, "nobody has opened it: the catalog tells of it"


# The feed and the snapshot tell the same story, whatever is done to a day.

STAFF = ("window-1", "because")


def _steps(starts: int, plan: Plan) -> dict[str, list[s.Command]]:
    def id(n: int) -> bytes:
        return uid("c", n)

    def held(n: int, clock: str, channel: Channel = Channel.WINDOW) -> s.HoldSeat:
        return s.HoldSeat(uid("a", n), clock, uid("patient", n), uid("account", n), 900, int(channel))

    evening = Session("night", "cardio", "expert", None, 1, (PlannedSlot("1900", starts + 9 * HOUR, 4),))
    return {
        "held by two channels": [held(0, "0800"), held(1, "0800"), held(2, "0830"), held(3, "0800")],
        "booked": [s.ConfirmAppointment(uid("a", 0), uid("account", 0))],
        "given back, and cooling": [s.CancelAppointment(uid("a", 1), uid("account", 1))],
        "more seats": [s.ChangeCapacity(id(1), -1, *STAFF, "morning", "0830", 2)],
        "fewer seats": [s.ChangeCapacity(id(2), -1, *STAFF, "morning", "", -1)],
        "seats beyond the plan": [s.AddSeats(id(3), -1, *STAFF, "0800", 2, int(Channel.WINDOW))],
        "another session": [s.OpenSession(id(4), -1, *STAFF, evening)],
        "held there": [held(4, "1900", Channel.MINI_PROGRAM)],
        "moved": [
            s.MoveSession(
                id(5),
                -1,
                *STAFF,
                "morning",
                (("0800", "0900", starts + HOUR), ("0830", "0930", starts + HOUR + HOUR // 2)),
                None,
            )
        ],
        "paused": [s.SetSessionStatus(id(6), -1, *STAFF, "morning", "paused", "late")],
        "resumed": [s.SetSessionStatus(id(7), -1, *STAFF, "morning", "open", "late")],
        "held after all that": [held(5, "0930"), held(6, "0900")],
        "a substitute": [s.SubstituteSession(id(8), -1, *STAFF, "morning", "D9")],
        "called off": [s.SetSessionStatus(id(9), -1, *STAFF, "night", "suspended", "ill")],
    }


async def test_whoever_follows_sees_what_a_gateway_that_starts_now_sees(database: str) -> None:
    world = PostgresWorld(database)
    pool = await world.pool()
    key = doctor(1, f"{await pool.fetchval('select current_date + 1')}")
    starts = world.clock() + 2 * HOUR
    opens = world.clock() + HOUR
    shares = (
        Share("", (Stage(starts - 9 * HOUR, EVERYBODY),)),
        Share("window", (Stage(starts - 9 * HOUR, Channel.WINDOW), Stage(opens, EVERYBODY))),
    )
    plan = (
        Session(
            "morning",
            "cardio",
            "expert",
            "r1",
            5000,
            tuple(
                PlannedSlot(clock, starts + n * HOUR // 2, 5, ((0, 2), (1, 2), (0, 1)))
                for n, clock in enumerate(("0800", "0830"))
            ),
            shares,
        ),
    )
    await world.publish(key, plan)
    await world.register([(uid("account", n), uid("patient", n)) for n in range(8)])
    rules = Policy(
        account_holds_max=100, terms={("", ""): Terms(returned=Returned(Return.COOL_DOWN, 60, 60))}
    )
    served = await Served.open(world, policy=rules)

    async def fresh() -> tuple[Availability, tuple[int, int]]:
        async with pool.acquire() as connection:
            view = Availability(await load_catalog(connection), [])
            view.replace(view.catalog, await load_schedules(connection, date.fromisoformat(key.day)))
        taken = await seats_taken(pool)
        view.reset(None, taken, taken.seqs[0][1])
        return view, taken.seqs[0]

    def seen(view: Availability) -> list[object]:
        row = view.schedule(key.schedule_id)
        assert row is not None
        return [
            (channel, now, slot.slot_id, slot.starts_at, slot.capacity, slot.remaining, slot.opens_at)
            + (slot.session.status, slot.session.substitute_id, slot.session.room_id)
            for channel in (Channel.MINI_PROGRAM, Channel.WINDOW)
            for now in (opens - 1, opens, starts)
            for slot in view.slots(row, channel, now)
        ]

    follower, at = await fresh()
    shown = [seen(follower)]
    for what, commands in _steps(starts, plan).items():
        replies = await served.ask(key, *commands)
        assert not any(isinstance(reply, Refusal) for reply in replies), (what, replies)
        while (news := Changes.unpack(await served.shard.changes(*at))).seq < served.shard.feed.seq:
            pass
        assert news.remaining is not None
        at = news.epoch, news.seq
        follower.change(news.remaining, news.plans, news.seq)
        now, position = await fresh()
        assert position == at
        assert seen(follower) == seen(now), what
        shown.append(seen(follower))
    # Confirming alone changes nothing that can be seen, and neither does a seat that cools after it was held.
    same = [n for n in range(1, len(shown)) if shown[n] == shown[n - 1]]
    assert [list(_steps(starts, plan))[n - 1] for n in same] == ["booked", "given back, and cooling"]
    await served.stop()
    await world.close()
