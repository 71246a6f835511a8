"""The matrix of rights against the whole API: every operation, as everybody, about their own and others'.

A gateway and a shard in this process. Inner medicine has cardiology below it, where D0001 works: whoever of
the staff looks after a department looks after inner medicine. Neurology, with D0002, is on the other side,
and so is the second account with its patients.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr

from engine.domain.ids import ScheduleKey
from engine.domain.policy import Channel
from engine.records import change_requests, partners
from engine.records.change_requests import NewRequest
from engine.records.partners import Partner
from engine.records.staff import ADMINISTRATORS, NewStaff, Role, Staff, add_staff
from engine.settings import Settings
from tests.support.noon import noon_zone
from tests.support.one_process import SECRET, OneProcess, serving
from tests.support.rights_examples import EXAMPLES
from tests.support.stores import PostgresWorld, plan
from web.admin.settings_view import shown_settings
from web.app import make_app
from web.fresh_ids import new_id
from web.openapi import Operation, api
from web.partner.tokens import PartnerTokens
from web.rights.matrix import ANYONE, MATRIX, PATIENT, SEES, SYSTEM, TOPICS, Sees

Json = dict[str, Any]
OWN, OTHER = "own", "other"
NOBODY, ROLELESS = "nobody", "roleless"
CALLERS: Final = (NOBODY, PATIENT, SYSTEM, ROLELESS, *Role)
UNBOUND: Final = {*ADMINISTRATORS, Role.PARTNER, Role.KIOSK}
"""Who looks after no department."""
EVERYWHERE: Final = ("all", "self")
ONLINE: Final = {
    "stream": "a WebSocket, whose topics have lines of their own: test_every_topic_as_everybody",
}
MASKED_OUTSIDE: Final = ("read_board", "read_day_sheet")
"""Open to all of the named roles, but of a department that is not theirs no name is whole."""
NAMES: Final = {OWN: "欧阳明月", OTHER: "司徒晓峰"}
PHONES: Final = {OWN: "13712345678", OTHER: "13687654321"}
DOCUMENTS: Final = {OWN: "P7654321", OTHER: "P1234567"}
AT_ONCE: Final = 8


@dataclass
class House:
    one: OneProcess
    http: ClientSession
    world: PostgresWorld
    people: dict[str, Staff | Partner | bytes]
    """Who asks, by what they are called in CALLERS."""
    sides: dict[str, dict[str, str]]
    requests: dict[tuple[str, str], str] = field(default_factory=dict)
    """(role, side) -> a change that waits for just this role."""
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def headers(self, caller: str) -> dict[str, str]:
        who = self.people.get(caller)
        if who is None:
            return {}
        tokens = self.one.tokens
        if isinstance(who, Partner):
            return {"Authorization": f"Bearer {PartnerTokens(SECRET).issue(who, who.scopes)}"}
        pair = tokens.issue_staff(who) if isinstance(who, Staff) else tokens.issue(who)
        return {"Authorization": f"Bearer {pair.access_token}"}

    async def ask(
        self, caller: str, method: str, path: str, body: Any = None, query: dict[str, str] | None = None
    ) -> tuple[int, str]:
        headers = {**self.headers(caller), "Idempotency-Key": str(uuid4())}
        async with self.http.request(method, path, json=body, params=query or {}, headers=headers) as answer:
            return answer.status, await answer.text()

    async def good(self, caller: str, method: str, path: str, body: Any = None) -> Json:
        status, told = await self.ask(caller, method, path, body)
        assert status in (200, 201), (path, status, told)
        found: Json = json.loads(told)
        return found

    async def tried(self, operation: Operation, caller: str, side: str) -> tuple[int, str]:
        """A valid request of this operation about an object of this side."""
        example = EXAMPLES[operation.handler.__name__]
        words = dict(self.sides[side])
        number = next(self.numbers)
        words |= {"fresh": f"X{number:07}", "fresh_name": f"fresh-{number}"}
        words["request"] = self.requests.get((caller, side), str(uuid4()))
        who = self.people.get(caller)
        if side == OTHER and isinstance(who, Staff):
            words["somebody"] = str(UUID(bytes=who.id))
        path = operation.path.format(**{name: said.format(**words) for name, said in example.path.items()})
        return await self.ask(
            caller,
            operation.method,
            path,
            _filled(example.bodies.get(caller, example.body), words),
            _filled(example.query, words),
        )


def _filled(said: Any, words: dict[str, str]) -> Any:
    match said:
        case str():
            return said.format(**words)
        case dict():
            return {name: _filled(one, words) for name, one in said.items()}
        case list():
            return [_filled(one, words) for one in said]
    return said


@asynccontextmanager
async def opened(database: str) -> AsyncIterator[House]:
    world = PostgresWorld(database)
    zone = ZoneInfo(noon_zone())
    today = datetime.now(zone).date()
    await _catalog(world, zone, today)
    people: dict[str, Staff | Partner | bytes] = {
        PATIENT: secrets.token_bytes(16),
        OTHER: secrets.token_bytes(16),
    }
    pool = await world.pool()
    async with pool.acquire() as connection:
        for caller in (ROLELESS, "helper", "victim", *Role):
            roles = (caller,) if caller in set(Role) else ("manager", "desk") if caller == "helper" else ()
            new = NewStaff(
                f"a-{caller.replace('_', '-')}",
                "某某",
                "no hash",
                roles,
                "D0001" if caller == Role.DOCTOR else None,
                None if caller in UNBOUND or not roles or caller == "helper" else "inner",
            )
            people[caller] = await add_staff(
                connection, new, secrets.token_bytes(16), datetime.now(UTC), roles_later=True
            )
        people[SYSTEM], _ = await partners.add(
            connection, "a-system", partners.SCOPES, Channel.HIS, new_id(), datetime.now(UTC)
        )
    for account in (PATIENT, OTHER):
        who = people[account]
        assert isinstance(who, bytes)
        await pool.execute("insert into account values ($1, $2, now())", UUID(bytes=who), who.hex())
    async with serving(world) as one, ClientSession(one.address) as http:
        house = House(one, http, world, people, {})
        days = (today, today + timedelta(1), today + timedelta(2))
        house.sides[OWN] = await _side(house, OWN, PATIENT, "cardio", "D0001", days)
        house.sides[OTHER] = await _side(house, OTHER, OTHER, "neuro", "D0002", days)
        await _rows(house)
        yield house
    await world.close()


async def _catalog(world: PostgresWorld, zone: ZoneInfo, today: date) -> None:
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('h', $1)", str(zone))
    await pool.execute(
        "insert into department (id, parent_id, name, campus, position) values"
        " ('inner', null, '内科', 'east', 0), ('cardio', 'inner', '心内科', 'east', 1),"
        " ('neuro', null, '神经科', 'west', 2)"
    )
    await pool.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家', 5000)")
    for doctor, department in (("D0001", "cardio"), ("D0002", "neuro"), ("D0003", "cardio")):
        for ahead, hour in ((0, 16 if doctor == "D0003" else 14), (1, 9), (2, 9)):
            day = today + timedelta(ahead)
            starts = int(datetime.combine(day, time(hour), zone).timestamp() * 1000)
            session = plan(
                starts, 20, 20, department=department, clock=hour * 60,
                period="afternoon" if hour > 12 else "morning",
            )  # fmt: skip
            await world.publish(ScheduleKey(doctor, day.isoformat()), session)


async def _side(
    house: House, side: str, account: str, department: str, doctor: str, days: tuple[date, ...]
) -> dict[str, str]:
    """What there is of one side, made through the API."""
    today, tomorrow, later = (day.isoformat() for day in days)
    patients = []
    for n, relation in enumerate(("self", "relative", "other", "other")):
        body = {
            "name": NAMES[side],
            "id_type": "passport",
            "id_number": f"{DOCUMENTS[side]}{n or ''}",
            "phone": PHONES[side],
            "birth_date": "1980-01-01",
            "sex": "male",
            "relation": relation,
        }
        patients.append((await house.good(account, "POST", "/api/v1/patients", body))["id"])
    patient, relative, spare, punished = patients
    slot = f"{doctor}-{tomorrow.replace('-', '')}-0900"
    held = await _booked(house, account, slot, patient)
    await house.good("helper", "POST", f"/api/v1/cashier/appointments/{held['id']}/bill", {})
    gone = await _booked(house, account, f"{doctor}-{later.replace('-', '')}-0900", relative)
    await house.good(account, "POST", f"/api/v1/appointments/{gone['id']}/cancel")
    tickets = []
    for one in (patient, relative):
        body = {"department_id": department, "practitioner_id": doctor, "patient_id": one}
        tickets.append((await house.good("helper", "POST", "/api/v1/walk-ins", body))["id"])
    await house.good(account, "POST", f"/api/v1/tickets/{tickets[1]}/leave")
    wish = await house.good(
        account,
        "POST",
        "/api/v1/waitlist",
        {"patient_ids": [relative], "department": department, "from": later, "to": later},
    )
    texts = (await house.good(account, "GET", "/api/v1/consents"))["texts"]
    [version] = [text["version"] for text in texts if text["kind"] == "messages"]
    body = {"patient_id": spare, "kind": "emergency", "reason": "抢救室会诊，需了解既往情况"}
    glass = await house.good(Role.NURSE, "POST", "/api/v1/break-glass", body)
    who, victim = house.people[account], house.people["victim"]
    assert isinstance(who, bytes) and isinstance(victim, Staff)
    return {
        "department": department,
        "practitioner": doctor,
        "colleague": "D0003",
        "schedule": slot.rpartition("-")[0],
        "slot": slot,
        "clock": "09:00",
        "today": today,
        "tomorrow": tomorrow,
        "room": "R1",
        "account": str(UUID(bytes=who)),
        "patient": patient,
        "relative": relative,
        "spare": spare,
        "punished": punished,
        "document": DOCUMENTS[side],
        "appointment": held["id"],
        "bill": held["bill_id"],
        "cancelled": gone["id"],
        "ticket": tickets[0],
        "left": tickets[1],
        "somebody": str(UUID(bytes=victim.id)),
        "wish": wish["id"],
        "penalty": str(uuid4()),
        "appealed": str(uuid4()),
        "glass": glass["id"],
        "version": version,
        "nothing": str(uuid4()),
        "since": f"{today}T00:00:00+08:00",
        "until": f"{tomorrow}T00:00:00+08:00",
    }


async def _booked(house: House, account: str, slot: str, patient: str) -> Json:
    held = await house.good(account, "POST", "/api/v1/appointments", {"slot_id": slot, "patient_id": patient})
    await house.good(account, "POST", f"/api/v1/appointments/{held['id']}/confirm")
    return held


async def _rows(house: House) -> None:
    """What the API makes only in the course of days: penalties, appeals, changes that wait for consent."""
    pool = await house.world.pool()
    helper = house.people["helper"]
    assert isinstance(helper, Staff)
    system, own = house.people[SYSTEM], house.sides[OWN]
    assert isinstance(system, Partner)
    now = datetime.now(UTC)
    await partners.bring(pool, system.id, UUID(own["patient"]).bytes, now)
    for booked in ("appointment", "cancelled"):
        await partners.book(pool, system.id, UUID(own[booked]).bytes, now)
    for side, words in house.sides.items():
        words["report"] = await _reported(house, side)
        for name, appeal in (("penalty", "none"), ("appealed", "open")):
            await pool.execute(
                "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence,"
                " created_at, appeal, appealed_at) values ($1::uuid, 'patient', $2::uuid, 'no-shows',"
                " 'no_show', now() - interval '2 days', now() + interval '1 day', array[$3::uuid], now(), $4,"
                " case when $4 = 'open' then now() end)",
                words[name],
                words["punished"],
                words["appointment"],
                appeal,
            )
        for role in MATRIX["decide_change_request"].scopes:
            new = NewRequest(
                secrets.token_bytes(16), "change_capacity", role, words["schedule"], words["practitioner"],
                (words["department"],), {}, "0", "", helper.id,
            )  # fmt: skip
            async with pool.acquire() as connection:
                await change_requests.ask(connection, new, datetime.now(UTC))
            house.requests[role, side] = str(UUID(bytes=new.id))


async def _reported(house: House, side: str) -> str:
    """The id of a report of the side's patient, which a laboratory has delivered."""
    words = house.sides[side]
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"value": f"L-{side}"}],
        "status": "final",
        "code": {"text": "血常规"},
        "subject": {"identifier": {"system": "urn:xinglin:patient", "value": words["patient"]}},
        "issued": datetime.now(UTC).isoformat(),
        "presentedForm": [{"contentType": "text/plain", "data": "5q2j5bi4"}],
    }
    await house.good(SYSTEM, "POST", "/api/v1/integrations/lis/fhir/DiagnosticReport", report)
    account = PATIENT if side == OWN else OTHER
    path = f"/api/v1/patients/{words['patient']}/reports"
    return str((await house.good(account, "GET", path))["reports"][0]["id"])


def kind_of(caller: str) -> str:
    """Which kind of token they have."""
    return caller if caller in (NOBODY, PATIENT, SYSTEM) else "staff"


def code_of(told: str) -> str:
    """Of a problem, or of an OperationOutcome; "" where it is neither, as OAuth's own are."""
    said = json.loads(told)
    if said.get("resourceType") == "OperationOutcome":
        return str(said["issue"][0]["details"]["coding"][0]["code"])
    return str(said.get("code", ""))


def fault_of(operation: Operation, caller: str, side: str, status: int, told: str) -> str | None:
    """What is wrong with an answer, by the matrix; None where nothing is."""
    example = EXAMPLES[operation.handler.__name__]
    scope = operation.rights.scope_of(ANYONE if caller == NOBODY else caller)
    if caller == ROLELESS:
        scope = operation.rights.scopes.get("staff", operation.rights.scopes.get(ANYONE))
    if status >= 400 and code_of(told) in (*example.codes, "what_if_busy"):
        return None if scope is not None else "may not, so it is not for this to refuse it"
    if status >= 500:
        return "failed"
    if scope is None:
        security = operation.security
        fitting = {PATIENT: ("bearer", "either"), SYSTEM: ("system",)}
        fits = security in fitting.get(caller, ("staff", "either"))
        wanted = 403 if fits and caller != NOBODY else 401
        return None if status == wanted else f"may not, so {wanted} is right"
    if example.sided and side == OTHER and scope not in EVERYWHERE:
        return None if status in (403, 404) else f"may only {scope}, so 403 or 404 is right"
    if status in (401, 403) or (status == 404 and not example.missing):
        return f"may ({scope})"
    if status in (400, 415, 422) and code_of(told) in _WRONG_EXAMPLE:
        return "the example is wrong"
    if status < 300:
        outside = side == OTHER and operation.handler.__name__ in MASKED_OUTSIDE
        return _seen_too_much("masked" if outside else operation.rights.seen_by(caller), told)
    return None


_WRONG_EXAMPLE: Final = ("invalid_body", "invalid_query", "invalid_resource")


def _seen_too_much(sees: Sees, told: str) -> str | None:
    """Names, telephones and documents that an answer tells in full to somebody who may not see them so."""
    level = SEES.index(sees)
    if level < SEES.index("names") and any(name in told for name in NAMES.values()):
        return f"sees {sees}, and is told whole names"
    if level < SEES.index("phones") and any(phone in told for phone in PHONES.values()):
        return f"sees {sees}, and is told telephone numbers"
    if any(f'"{document}' in told for document in DOCUMENTS.values()):
        return "is told a whole document number"
    return None


@pytest.mark.timeout(180)
async def test_every_operation_as_everybody(database: str) -> None:
    """Refused where the matrix refuses, let in where it lets in, and told no more than it says."""
    wrong: list[str] = []
    async with opened(database) as house:
        gate = asyncio.Semaphore(AT_ONCE)

        async def all_of(caller: str) -> None:
            async with gate:
                for operation in api.operations:
                    name = operation.handler.__name__
                    if name in ONLINE or name not in EXAMPLES:  # the test below has the latter
                        continue
                    for side in (OWN, OTHER) if EXAMPLES[name].sided else (OWN,):
                        status, told = await house.tried(operation, caller, side)
                        if fault := fault_of(operation, caller, side, status, told):
                            wrong.append(f"{name} as {caller}, {side}: {status} {told[:160]}: {fault}")
                        if status in (401, 403) and operation.rights.scope_of(caller) is None:
                            break  # the handler was not reached, so the side does not matter

        await asyncio.gather(*map(all_of, CALLERS))
    assert not wrong, "\n".join(sorted(wrong))


SUBSCRIBED: Final = {
    "schedule": "{schedule}",
    "department": "{department}",
    "practitioner": "{practitioner}",
    "ticket": "{ticket}",
    "calls": "{department}",
    "queue": "{department}",
    "crowd": "{department}",
    "indicators": "{department}",
    "actors": "all",
    "alerts": "break-glass",
}


@pytest.mark.timeout(180)
async def test_every_topic_as_everybody(database: str) -> None:
    assert SUBSCRIBED.keys() == TOPICS.keys()
    wrong: list[str] = []
    async with opened(database) as house:

        async def told(caller: str, topic: str) -> Json:
            """What the stream answers to a subscription: the topic's snapshot, or why not."""
            headers = house.headers(caller)
            async with house.http.ws_connect("/api/v1/stream", headers=headers) as stream:
                await stream.send_json({"subscribe": [topic]})
                while True:
                    message: Json = await stream.receive_json(timeout=20)
                    if message.get("snapshot") == topic or "error" in message:
                        return message

        watchers = [caller for caller in CALLERS if caller != SYSTEM]  # systems have a feed of their own
        for (kind, rights), caller in itertools.product(TOPICS.items(), watchers):
            scope = rights.scope_of(ANYONE if caller == NOBODY else caller)
            if caller == ROLELESS:
                scope = rights.scopes.get("staff", rights.scopes.get(ANYONE))
            for side in (OWN, OTHER):
                message = await told(caller, f"{kind}/{SUBSCRIBED[kind].format(**house.sides[side])}")
                may = scope is not None and (side == OWN or scope in EVERYWHERE)
                fault = None if ("snapshot" in message) is may else f"may ({scope})" if may else "may not"
                if fault is None and may:
                    fault = _seen_too_much(rights.seen_by(caller), json.dumps(message, ensure_ascii=False))
                if fault is not None:
                    wrong.append(f"{kind} as {caller}, {side}: {str(message)[:160]}: {fault}")
    assert not wrong, "\n".join(sorted(wrong))


def test_every_operation_has_an_example() -> None:
    make_app()  # declares all of them
    names = {operation.handler.__name__ for operation in api.operations}
    assert names == EXAMPLES.keys() | ONLINE.keys()
    assert not EXAMPLES.keys() & ONLINE.keys()


# Records, and breaking the glass.


async def test_a_record_is_read_by_whom_it_concerns_or_behind_broken_glass(database: str) -> None:
    async with opened(database) as house:
        own, other = house.sides[OWN], house.sides[OTHER]
        pool = await house.world.pool()

        async def read(caller: str, patient: str) -> tuple[int, Json]:
            status, told = await house.ask(caller, "GET", f"/api/v1/records/patients/{patient}")
            return status, json.loads(told)

        async def noted(action: str) -> list[Any]:
            rows = await pool.fetch("select * from audit_entry where action = $1 order by id", action)
            return list(rows)

        status, told = await read(Role.DOCTOR, own["patient"])
        assert (status, told["relation"], told["until"]) == (200, "own_patient", None)
        assert told["patient"]["name"] == NAMES[OWN] and DOCUMENTS[OWN] not in told["patient"]["id_number"]
        assert [one["appointment_id"] for one in told["visits"]] == [own["appointment"]]
        assert [one["id"] for one in told["tickets"]] == [own["ticket"]] and told["vitals"] == []
        vitals = {"systolic": 120, "diastolic": 80, "note": "头晕两天"}
        await house.good(Role.NURSE, "POST", f"/api/v1/tickets/{own['ticket']}/vitals", vitals)
        _, told = await read(Role.NURSE, own["patient"])
        assert (told["relation"], told["vitals"][0]["note"]) == ("here_today", "头晕两天")
        _, told = await read(Role.DESK, own["patient"])
        assert (told["relation"], told["vitals"]) == ("here_today", None)

        # Out of relation: told nothing, not even whether there is such a patient; and noted.
        for caller in (Role.DOCTOR, Role.NURSE, Role.DESK):
            for patient in (other["patient"], str(uuid4())):
                status, told = await read(caller, patient)
                assert (status, told["code"]) == (403, "out_of_relation")
                assert "break-glass" in told["detail"] and NAMES[OTHER] not in str(told)
        refused = [row for row in await noted("patient_record_read") if row["outcome"] == "refused"]
        assert [len(row["subjects"]) for row in refused] == [1, 0, 1, 0, 1, 0]

        async def broken(reason: str, key: str, patient: str = other["patient"]) -> tuple[int, Json]:
            body = {"patient_id": patient, "kind": "consultation", "reason": reason}
            headers = {**house.headers(Role.DOCTOR), "Idempotency-Key": key}
            async with house.http.post("/api/v1/break-glass", json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        for short in ("需要", "          a", "x" * 9, ""):
            assert (await broken(short, "k0"))[0] == 422
        because = "神经科请求心内科急会诊，需看既往记录"
        status, glass = await broken(because, "k1")
        assert status == 201
        left = datetime.fromisoformat(glass["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=59) < left <= timedelta(minutes=60)
        assert (await broken(because, "k1"))[1] == glass, "a retry finds it"
        assert (await broken(because + "？", "k1"))[1]["code"] == "key_reused"
        assert (await broken(because, "k2", str(uuid4())))[1]["code"] == "no_such_patient"
        sealed = await pool.fetchval("select reason from break_glass where id = $1", glass["id"])
        assert because.encode() not in sealed
        status, told = await read(Role.DOCTOR, other["patient"])
        assert (status, told["relation"], told["until"]) == (200, "broken_glass", glass["expires_at"])
        assert (await read(Role.DOCTOR, other["relative"]))[0] == 403, "one patient, not the family"
        assert (await read(Role.NURSE, other["patient"]))[0] == 403, "one reader, not the ward"
        assert len(await noted("glass_broken")) == 1 + len(house.sides), "once, and the two of _side"
        async with house.http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        [counted] = [x for x in lines if x.startswith("xinglin_break_glass_total") and "consultation" in x]
        assert counted.endswith(" 1.0")

        # Somebody else looks at it.
        path = "/api/v1/admin/break-glass"
        headers = house.headers(Role.SECURITY_ADMIN)
        async with house.http.ws_connect("/api/v1/stream", headers=headers) as alarm, asyncio.timeout(20):
            await alarm.send_json({"subscribe": ["alerts/break-glass"]})

            async def told_of(unreviewed: int) -> Json:
                """The first message that says so many: one that was on its way may come before."""
                while True:
                    message: Json = await alarm.receive_json()
                    if message.get("unreviewed") == unreviewed:
                        return message

            latest = (await told_of(3))["latest"][0]
            assert (latest["id"], latest["username"]) == (glass["id"], "a-doctor")
            await broken("再次急会诊，复查既往记录", "k3")
            assert NAMES[OTHER] not in str(await told_of(4))
        for caller in (Role.SYSTEM_ADMIN, Role.MANAGER, PATIENT):
            async with house.http.ws_connect("/api/v1/stream", headers=house.headers(caller)) as alarm:
                await alarm.send_json({"subscribe": ["alerts/break-glass"]})
                assert "hello" in await alarm.receive_json()
                assert (await alarm.receive_json())["error"]["code"] == "forbidden"
        listed = await house.good(Role.SECURITY_ADMIN, "GET", f"{path}?unreviewed=true")
        assert listed["unreviewed"] == 4 and listed["broken"][1]["id"] == glass["id"]
        seen = listed["broken"][1]
        assert (seen["username"], seen["reason"], seen["patient_name"]) == ("a-doctor", because, "司**峰")
        review = {"verdict": "justified", "note": "会诊记录已核对"}
        judged = await house.good(Role.SECURITY_ADMIN, "POST", f"{path}/{glass['id']}/review", review)
        assert (judged["verdict"], judged["reviewed_by"]) == ("justified", "a-security-admin")
        status, text = await house.ask(Role.SECURITY_ADMIN, "POST", f"{path}/{glass['id']}/review", review)
        assert (status, json.loads(text)["code"]) == (409, "already_reviewed")
        listed = await house.good(Role.SECURITY_ADMIN, "GET", f"{path}?unreviewed=true")
        assert listed["unreviewed"] == 3
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute("update break_glass set reviewed_by = staff_id")

        # After an hour it is whole again.
        await pool.execute(
            "update break_glass set at = at - interval '1 hour', expires_at = expires_at - interval '1 hour'"
        )
        assert (await read(Role.DOCTOR, other["patient"]))[0] == 403


async def test_whose_patient_it_is_follows_who_sees_them(database: str) -> None:
    """A number with somebody else is theirs once they hold that session; a place in a line is, as soon as
    they call from it."""
    async with opened(database) as house:
        own = house.sides[OWN]
        today = own["today"]

        async def relation(caller: str, patient: str) -> str:
            _, told = await house.ask(caller, "GET", f"/api/v1/records/patients/{patient}")
            said = json.loads(told)
            return str(said.get("relation", said.get("code")))

        assert await relation(Role.DOCTOR, own["patient"]) == "own_patient", "waits for nobody else"
        assert await relation(Role.DOCTOR, own["relative"]) == "out_of_relation", "left before being seen"
        assert await relation(Role.DOCTOR, own["spare"]) == "out_of_relation"

        day = f"D0003-{today.replace('-', '')}"
        await _booked(house, PATIENT, f"{day}-1600", own["spare"])
        assert await relation(Role.DOCTOR, own["spare"]) == "out_of_relation", "a colleague's number"
        assert await relation(Role.NURSE, own["spare"]) == "here_today"
        sheet = await house.good("helper", "GET", f"/api/v1/desk/schedules/{day}")
        change = {"revision": sheet["revision"], "period": "afternoon", "practitioner_id": "D0001"}
        await house.good("helper", "POST", f"/api/v1/desk/schedules/{day}/substitute", change)
        async with asyncio.timeout(20):
            while await relation(Role.DOCTOR, own["spare"]) != "own_patient":
                await asyncio.sleep(0)  # until the gateway has heard of it

        taken = {"department_id": "cardio", "patient_id": own["punished"]}
        await house.good("helper", "POST", "/api/v1/walk-ins", taken)
        assert await relation(Role.DOCTOR, own["punished"]) == "out_of_relation", "waits for whoever is free"
        await house.good(Role.DOCTOR, "POST", "/api/v1/queues/cardio/rooms/R5/open", {})
        async with asyncio.timeout(20):
            while await relation(Role.DOCTOR, own["punished"]) != "own_patient":
                await asyncio.sleep(0)


# The three administrators.


async def test_who_makes_an_account_gives_it_no_rights(database: str) -> None:
    async with opened(database) as house:
        pool = await house.world.pool()
        staff = "/api/v1/admin/staff"
        new = {"username": "li.si", "name": "李四", "password": "a long phrase nobody guesses"}
        made = await house.good(Role.SYSTEM_ADMIN, "POST", staff, new)
        assert (made["roles"], made["must_change_password"]) == ([], True)
        status, told = await house.ask(Role.SYSTEM_ADMIN, "POST", staff, new)
        assert (status, json.loads(told)["code"]) == (422, "staff_refused") and "li.si is taken" in told
        weak = {**new, "username": "wang.wu", "password": "password"}
        assert (
            json.loads((await house.ask(Role.SYSTEM_ADMIN, "POST", staff, weak))[1])["code"]
            == "password_unfit"
        )

        async def given(caller: str, staff_id: str, **rights: Any) -> str:
            status, told = await house.ask(caller, "PUT", f"{staff}/{staff_id}/roles", rights)
            return "done" if status == 204 else str(json.loads(told)["code"])

        one = made["id"]
        assert await given(Role.SYSTEM_ADMIN, one, roles=["nurse"]) == "forbidden"
        assert await given(Role.SECURITY_ADMIN, one, roles=["nurse"], department_id="inner") == "done"
        for wrong in (
            {"roles": ["department_head"]},
            {"roles": ["doctor"]},
            {"roles": ["nurse"], "department_id": "nowhere"},
            {"roles": ["nurse"], "campus": "moon"},
        ):
            assert await given(Role.SECURITY_ADMIN, one, **wrong) == "staff_refused", wrong
        for roles in (["audit_admin"], ["system_admin", "security_admin"], ["security_admin", "desk"]):
            assert await given(Role.SECURITY_ADMIN, one, roles=roles) == "only_at_the_machine"
        admin = house.people[Role.AUDIT_ADMIN]
        assert isinstance(admin, Staff)
        auditor = str(UUID(bytes=admin.id))
        assert await given(Role.SECURITY_ADMIN, auditor, roles=[]) == "only_at_the_machine"
        status, told = await house.ask(Role.SYSTEM_ADMIN, "POST", f"{staff}/{auditor}/disable")
        assert (status, json.loads(told)["code"]) == (403, "only_at_the_machine")
        rows = (await house.good(Role.AUDIT_ADMIN, "GET", staff))["staff"]
        [seen] = [row for row in rows if row["id"] == one]
        assert (seen["roles"], seen["department_id"]) == (["nurse"], "inner"), "nothing of it was done"
        me = house.people[Role.SECURITY_ADMIN]
        assert isinstance(me, Staff)
        assert await given(Role.SECURITY_ADMIN, str(UUID(bytes=me.id)), roles=["nurse"]) == "not_by_oneself"
        await pool.execute("update staff set made_by = $1 where id = $2", UUID(bytes=me.id), UUID(one))
        assert await given(Role.SECURITY_ADMIN, one, roles=["manager"]) == "not_by_maker"

        # The schema holds it, too, whatever program writes.
        for roles in (["system_admin", "audit_admin"], ["security_admin", "nurse"]):
            with pytest.raises(asyncpg.CheckViolationError):
                await pool.execute("update staff set roles = $1 where id = $2", roles, UUID(one))

        # Who comes back has no rights: else disabling and enabling would give some.
        for verb in ("disable", "disable", "enable"):
            assert (await house.ask(Role.SYSTEM_ADMIN, "POST", f"{staff}/{one}/{verb}"))[0] == 204
        row = await pool.fetchrow("select disabled, roles from staff where id = $1", UUID(one))
        assert (row["disabled"], row["roles"]) == (False, [])
        detail = [
            (entry["action"], json.loads(entry["detail"] or "{}").get("after"))
            for entry in await pool.fetch(
                "select action, detail from audit_entry where object_id = $1 order by id", one
            )
        ]
        assert detail == [
            ("staff_added", None),
            ("staff_roles_given", ["nurse"]),
            ("staff_disabled", None),
            ("staff_enabled", None),
        ]

        shown = (await house.good(Role.SYSTEM_ADMIN, "GET", "/api/v1/admin/settings"))["settings"]
        values = {row["name"]: row["value"] for row in shown}
        assert values["XINGLIN_RELATION_DAYS"] == "30"
        assert values.keys() == {f"XINGLIN_{name.upper()}" for name in Settings.model_fields}


def test_settings_are_shown_without_their_secrets() -> None:
    settings = Settings(
        wechat_app_secret=SecretStr("hunter2"),
        database_url=SecretStr("postgresql://x:hunter2@y/z"),
        vault_key="pkcs11:token=x?pin-value=hunter2",
    )
    shown = {row.name: row.value for row in shown_settings(settings)}
    assert "hunter2" not in str(shown)
    assert shown["XINGLIN_VAULT_KEY"] == shown["XINGLIN_WECHAT_APP_SECRET"] == "********"
    assert (shown["XINGLIN_PORT"], shown["XINGLIN_RAY_ADDRESS"]) == ("8080", "")
