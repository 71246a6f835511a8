"""The express lane and the usual way: one set of answers. Real sockets, bytes written by hand.

Which way an answer came is seen from outside: aiohttp's own response names its `Server`, the express lane's
has no such header.
"""

import json
import random
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from engine.records.identity import check_digit
from tests.support.system import System
from web.auth import Tokens
from web.door import HELD_BYTES_MAX

PATH = "/api/v1/appointments"
ANSWER_SECONDS_MAX = 10.0
SETTLE_SECONDS_MAX = 5.0
LANE_TRIES_MAX = 20
REST_SECONDS = 0.003
COMPARED = ("Content-Type", "Retry-After", "WWW-Authenticate", "Cache-Control", "Content-Language", "Vary")


# A client that sees every byte.


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found

    @property
    def was_express(self) -> bool:
        return "server" not in self.headers

    @property
    def told(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """What must not depend on the way."""
        compared = {name: self.headers[name.lower()] for name in COMPARED if name.lower() in self.headers}
        return self.status, compared, self.body


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._have = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> Answer:
        head = self._until(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), first  # to what is no HTTP/1.1, aiohttp answers in 1.0
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._have) < length:
            self._receive()
        body, self._have = self._have[:length], self._have[length:]
        return Answer(int(status), headers, body)

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    def warm(self) -> None:
        """One request on the usual way, and a moment for its handler to come to rest: only then is the lane
        open. Nothing but the way depends on it."""
        assert self.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
        time.sleep(REST_SECONDS)

    def continues(self) -> bool:
        return self._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"

    def is_closed_by_peer(self) -> bool:
        """True when nothing more comes, however the peer says so."""
        try:
            return self._have == b"" and self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Gone at once and without a word, as a telephone in a tunnel."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._have:
            self._receive()
        found, _, self._have = self._have.partition(end)
        return found

    def _receive(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError(f"closed in the middle of an answer: {self._have!r}")
        self._have += data


@contextmanager
def connected(port: int) -> Iterator[Wire]:
    wire = Wire(port)
    try:
        wire.warm()
        yield wire
    finally:
        wire.close()


@dataclass(frozen=True, slots=True)
class Request:
    """A booking's request, spelled out; a header may come twice or not at all."""

    body: bytes
    headers: tuple[tuple[str, str | bytes], ...]

    def encoded(self, *more: tuple[str, str], length: int | None = None, method: str = "POST") -> bytes:
        size = len(self.body) if length is None else length
        lines = [("Host", "x"), *self.headers, *more, ("Content-Length", str(size))]
        told = [f"{n}: ".encode() + (v if isinstance(v, bytes) else v.encode()) for n, v in lines]
        return b"\r\n".join([f"{method} {PATH} HTTP/1.1".encode(), *told, b"", self.body])

    def head(self, *more: tuple[str, str]) -> bytes:
        return self.encoded(*more).removesuffix(self.body)


def request(
    token: str | None,
    key: str | None,
    body: object,
    content_type: str | None = "application/json",
    authorization: str | bytes | None = None,
    **more: str,
) -> Request:
    authorization = f"Bearer {token}" if authorization is None and token is not None else authorization
    wanted = {
        "Authorization": authorization,
        "Idempotency-Key": key,
        "Content-Type": content_type,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    headers = tuple((name, value) for name, value in wanted.items() if value is not None)
    return Request(body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


# People and free seats.


@dataclass(frozen=True, slots=True)
class Person:
    token: str
    patient_id: str


@dataclass(slots=True)
class World:
    """The system as these tests use it: people of their own, on days that others leave alone."""

    system: System
    schedules: list[dict[str, Any]] = field(default_factory=list)
    expired: str = ""

    def json(self, method: str, path: str, token: str = "", body: object = None) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}"]
        lines += ["Content-Type: application/json"] if content else []
        lines += [f"Authorization: Bearer {token}"] if token else []
        wire = Wire(self.system.port)
        try:
            answer = wire.ask("\r\n".join([*lines, "", ""]).encode() + content)
        finally:
            wire.close()
        assert answer.status in (200, 201), answer
        return answer.body

    def token(self) -> str:
        grant = {"grant": "wechat", "code": f"sandbox:express-{secrets.token_hex(8)}"}
        token: str = self.json("POST", "/api/v1/sessions", body=grant)["access_token"]
        return token

    def person(self) -> Person:
        return self.patient_of(self.token(), id_type="passport", id_number="X" + secrets.token_hex(6).upper())

    def adult_man(self) -> Person:
        born = date(1960, 1, 1) + timedelta(days=random.randrange(12_000))
        first_17 = f"110105{born:%Y%m%d}{random.randrange(500) * 2 + 1:03d}"
        return self.patient_of(
            self.token(), id_type="resident_id", id_number=first_17 + check_digit(first_17)
        )

    def patient_of(self, token: str, **document: str) -> Person:
        form = {"name": "测试者", "phone": "13800000000", "relation": "self", **document}
        return Person(token, self.json("POST", "/api/v1/patients", token, form)["id"])

    def free_schedule(self, department: str | None = None) -> dict[str, Any]:
        """A practitioner's day on which every seat is free."""
        candidates = [
            s
            for s in self.schedules
            if department is None or any(each["department_id"] == department for each in s["sessions"])
        ]
        random.shuffle(candidates)
        for schedule in candidates:
            slots = self.slots(schedule["id"])
            if all(slot["remaining"] == slot["capacity"] for slot in slots):
                return schedule
        raise AssertionError("no day is free")

    def slots(self, schedule_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("GET", f"/api/v1/schedules/{schedule_id}/slots")["slots"]
        return found

    def free_slots(self, department: str | None = None) -> list[str]:
        return [slot["id"] for slot in self.slots(self.free_schedule(department)["id"])]

    def free_slot(self, department: str | None = None) -> str:
        return random.choice(self.free_slots(department))

    def good(self, **more: str) -> Request:
        """A booking that nobody refuses."""
        person = self.person()
        body = {"slot_id": self.free_slot(), "patient_id": person.patient_id}
        return request(person.token, str(uuid4()), body, **more)

    def mine(self, token: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("GET", PATH, token)["appointments"]
        return found


@pytest.fixture(scope="module")
def world(system: System) -> World:
    world = World(system)
    soon = datetime.now(ZoneInfo("Asia/Shanghai")).date() + timedelta(days=3)
    world.schedules = world.json("GET", f"/api/v1/schedules?from={soon}")["schedules"]
    # Signed with the very key of this system, an hour ago, for half an hour.
    tokens = Tokens((system.home / "token.key").read_bytes(), 1800, 1800, lambda: time.time() - 3600)
    world.expired = tokens.issue(uuid4().bytes).access_token
    return world


def express(world: World, wanted: Request) -> Answer:
    """Asks until it went the express way. That a retry changes nothing is the key's promise."""
    for _ in range(LANE_TRIES_MAX):
        with connected(world.system.port) as wire:
            answer = wire.ask(wanted.encoded())
        if answer.was_express:
            return answer
    raise AssertionError(f"never went express in {LANE_TRIES_MAX} tries: {answer}")


def usual(world: World, wanted: Request) -> Answer:
    with connected(world.system.port) as wire:
        answer = wire.ask(wanted.encoded(("Connection", "close")))
        assert not answer.was_express, "Connection: close goes the usual way"
        assert wire.is_closed_by_peer()
    return answer


# The table. Each makes the request, and says what both ways must answer.

Made = Callable[[World], Request]


def with_body(make: Callable[[str, str], bytes]) -> Made:
    """A body that is made of a free slot and the asker's patient."""

    def made(world: World) -> Request:
        person = world.person()
        return request(person.token, "k", make(world.free_slot(), person.patient_id))

    return made


def with_headers(**given: Any) -> Made:
    """A good booking but for its headers."""

    def made(world: World) -> Request:
        person = world.person()
        body = {"slot_id": world.free_slot(), "patient_id": person.patient_id}
        return request(**{"token": person.token, "key": "k", "body": body, **given})

    return made


def with_slot(spelled: str) -> Made:
    return with_body(lambda _, patient: json.dumps({"slot_id": spelled, "patient_id": patient}).encode())


def _unsigned(world: World) -> Request:
    """Another's signature under one's own claims."""
    wanted = world.good()
    head, claims, _ = dict(wanted.headers)["Authorization"].split(".")  # type: ignore[arg-type]
    other = world.token().rpartition(".")[2]
    return request(None, "k", wanted.body, authorization=f"{head}.{claims}.{other}")


def _expired(world: World) -> Request:
    return request(world.expired, "k", world.good().body)


def _key_twice(world: World) -> Request:
    wanted = world.good()
    return Request(wanted.body, (*wanted.headers, ("Idempotency-Key", "another")))


def _token_twice(world: World) -> Request:
    """The first of two is read, whichever way."""
    wanted = world.good()
    return Request(wanted.body, (*wanted.headers, ("Authorization", "Bearer nonsense")))


def _unknown_patient(world: World) -> Request:
    return request(world.token(), "k", {"slot_id": world.free_slot(), "patient_id": str(uuid4())})


def _others_patient(world: World) -> Request:
    body = {"slot_id": world.free_slot(), "patient_id": world.person().patient_id}
    return request(world.token(), "k", body)


def _booked(world: World, person: Person, slot_id: str, key: str) -> None:
    wanted = request(person.token, key, {"slot_id": slot_id, "patient_id": person.patient_id})
    assert usual(world, wanted).status == 201


def _key_reused(world: World, same_doctor: bool) -> Request:
    person = world.person()
    slots = world.free_slots()
    _booked(world, person, slots[0], "k")
    other = slots[1] if same_doctor else _elsewhere(world, slots[0])
    return request(person.token, "k", {"slot_id": other, "patient_id": person.patient_id})


def _elsewhere(world: World, slot_id: str) -> str:
    """A slot of another doctor, another department, another day."""
    department = _department_of(world, slot_id)
    while True:
        found = world.free_slot()
        if found[:-5] != slot_id[:-5] and _department_of(world, found) != department:
            return found


def _department_of(world: World, slot_id: str) -> str:
    schedule = next(s for s in world.schedules if slot_id.startswith(s["id"] + "-"))
    department: str = schedule["sessions"][0]["department_id"]
    return department


def _already_booked(world: World) -> Request:
    person, slots = world.person(), world.free_slots()
    _booked(world, person, slots[0], "first")
    return request(person.token, "second", {"slot_id": slots[1], "patient_id": person.patient_id})


def _full(world: World) -> Request:
    schedule = world.free_schedule()
    slot = world.slots(schedule["id"])[0]
    for _ in range(slot["capacity"]):
        _booked(world, world.person(), slot["id"], "k")
    ends = time.monotonic() + SETTLE_SECONDS_MAX
    # Both ways tell alternatives from memory; wait until it has heard of the last seat.
    while world.slots(schedule["id"])[0]["remaining"]:
        assert time.monotonic() < ends, "the feed never said that the slot is full"
        time.sleep(0.02)
    person = world.person()
    return request(person.token, "k", {"slot_id": slot["id"], "patient_id": person.patient_id})


def _not_eligible(world: World, department: str, language: str) -> Request:
    person = world.adult_man()
    body = {"slot_id": world.free_slot(department), "patient_id": person.patient_id}
    return request(person.token, "k", body, Accept_Language=language)


def _body(slot: str, patient: str, **more: object) -> bytes:
    return json.dumps({"slot_id": slot, "patient_id": patient, **more}).encode()


TABLE: dict[str, tuple[int, str | None, Made]] = {
    "good": (201, None, World.good),
    "good, in English": (201, None, partial(World.good, Accept_Language="en")),
    "good, keep-alive asked for": (201, None, partial(World.good, Connection="keep-alive")),
    "a long key": (201, None, with_headers(key="k" * 128)),
    "a key of odd signs": (201, None, with_headers(key='!"#$%&()*+,-./:;<=>?@[]^_`{|}~')),
    "scheme in small letters": (
        201,
        None,
        lambda w: (
            (p := w.person())
            and request(
                None,
                "k",
                {"slot_id": w.free_slot(), "patient_id": p.patient_id},
                authorization=f"bearer {p.token}",
            )
        ),
    ),
    "two tokens, the first good": (201, None, _token_twice),
    "no token": (401, "unauthenticated", with_headers(token=None)),
    "an empty token": (401, "unauthenticated", with_headers(token="")),
    "another scheme": (401, "unauthenticated", with_headers(authorization="Basic eDp4")),
    "no JWT": (401, "unauthenticated", with_headers(token="nonsense")),
    "bytes beyond ASCII as a token": (401, "unauthenticated", with_headers(authorization=b"Bearer \xff\xfe")),
    "a token without end": (401, "unauthenticated", with_headers(token="x" * 4000)),
    "another's signature": (401, "unauthenticated", _unsigned),
    "an expired token": (401, "token_expired", _expired),
    "no token, in English": (401, "unauthenticated", with_headers(token=None, Accept_Language="en")),
    "no token, nor anything else right": (
        401,
        "unauthenticated",
        with_headers(token=None, key=None, content_type="text/plain", body=b"{"),
    ),
    "no key": (400, "missing_idempotency_key", with_headers(key=None)),
    "no key, in English": (400, "missing_idempotency_key", with_headers(key=None, Accept_Language="en-GB")),
    "an empty key": (400, "invalid_idempotency_key", with_headers(key="")),
    "a key with a space": (400, "invalid_idempotency_key", with_headers(key="a b")),
    "a key too long": (400, "invalid_idempotency_key", with_headers(key="k" * 129)),
    "a Chinese key": (400, "invalid_idempotency_key", with_headers(key="键")),
    "two keys": (400, "invalid_idempotency_key", _key_twice),
    "no key and a broken body": (400, "missing_idempotency_key", with_headers(key=None, body=b"{")),
    "no content type": (415, "unsupported_media_type", with_headers(content_type=None)),
    "text": (415, "unsupported_media_type", with_headers(content_type="text/plain")),
    "a form": (
        415,
        "unsupported_media_type",
        with_headers(content_type="application/x-www-form-urlencoded"),
    ),
    "JSON by a longer name": (415, "unsupported_media_type", with_headers(content_type="application/jsonp")),
    "JSON in GBK": (
        415,
        "unsupported_media_type",
        with_headers(content_type="application/json; charset=gbk"),
    ),
    "JSON in UTF-16": (
        415,
        "unsupported_media_type",
        with_headers(content_type="application/json; charset=utf-16"),
    ),
    "wrong type and broken body": (
        415,
        "unsupported_media_type",
        with_headers(content_type="text/plain", body=b"{"),
    ),
    "charset=utf-8": (201, None, with_headers(content_type="application/json; charset=utf-8")),
    "charset=UTF-8, no space": (201, None, with_headers(content_type="application/json;charset=UTF-8")),
    "charset=utf8": (201, None, with_headers(content_type="application/json; charset=utf8")),
    "in capitals": (201, None, with_headers(content_type="Application/JSON")),
    "half a body": (400, "malformed_json", with_body(lambda s, p: _body(s, p)[:-1])),
    "a blank": (400, "malformed_json", with_body(lambda s, p: b" ")),
    "something after it": (400, "malformed_json", with_body(lambda s, p: _body(s, p) + b"x")),
    "a byte order mark": (400, "malformed_json", with_body(lambda s, p: b"\xef\xbb\xbf" + _body(s, p))),
    "NaN": (400, "malformed_json", with_body(lambda s, p: b'{"slot_id":NaN,"patient_id":"x"}')),
    "Infinity": (400, "malformed_json", with_body(lambda s, p: b'{"slot_id":-Infinity}')),
    "1e999": (400, "malformed_json", with_body(lambda s, p: b'{"slot_id":1e999}')),
    "not UTF-8": (400, "malformed_json", with_body(lambda s, p: b'{"slot_id":"\xff","patient_id":"x"}')),
    "a lone surrogate": (400, "malformed_json", with_body(lambda s, p: rb'{"slot_id":"\ud800"}')),
    "nested without end": (400, "malformed_json", with_body(lambda s, p: b"[" * 8000 + b"]" * 8000)),
    "the same key twice": (
        400,
        "duplicate_key",
        with_body(lambda s, p: _body(s, p)[:-1] + f',"slot_id":"{s}"}}'.encode()),
    ),
    "a key twice, deep inside": (
        400,
        "duplicate_key",
        with_body(lambda s, p: _body(s, p)[:-1] + b',"x":[{"a":1,"a":1}]}'),
    ),
    "16 KiB of blanks around it": (
        413,
        "body_too_large",
        with_body(lambda s, p: _body(s, p) + b" " * 16 * 1024),
    ),
    "no object": (422, "invalid_body", with_body(lambda s, p: b"[]")),
    "null": (422, "invalid_body", with_body(lambda s, p: b"null")),
    "empty object": (422, "invalid_body", with_body(lambda s, p: b"{}")),
    "an unknown field": (422, "invalid_body", with_body(lambda s, p: _body(s, p, number=1))),
    "a number for a slot": (
        422,
        "invalid_body",
        with_body(lambda s, p: json.dumps({"slot_id": 7, "patient_id": p}).encode()),
    ),
    "null for a patient": (
        422,
        "invalid_body",
        with_body(lambda s, p: json.dumps({"slot_id": s, "patient_id": None}).encode()),
    ),
    "no UUID for a patient": (
        422,
        "invalid_body",
        with_body(lambda s, p: json.dumps({"slot_id": s, "patient_id": "me"}).encode()),
    ),
    "a slot without end": (422, "invalid_body", with_slot("D" * 65)),
    "a Chinese slot": (422, "invalid_body", with_slot("D0001-20261124-０800")),
    "a slot with a line break": (422, "invalid_body", with_slot("D0001-20261124-0800\n")),
    "an ill-spelled slot": (404, "no_such_slot", with_slot("D0001-20261124")),
    "a slot at 08:15": (404, "no_such_slot", with_slot("D0001-20261124-0815")),
    "a slot at 25:00": (404, "no_such_slot", with_slot("D0001-20261124-2500")),
    "an unknown doctor": (404, "no_such_schedule", with_slot("D9999-20261124-0800")),
    "a day that is no day": (404, "no_such_schedule", with_slot("D0001-20261341-0800")),
    "a day long past": (404, "no_such_schedule", with_slot("D0001-20200106-0800")),
    "a slot the doctor has not": (
        404,
        "no_such_slot",
        with_body(lambda s, p: _body(s[:-4] + "0330", p)),
    ),
    "an unknown patient": (403, "not_eligible", _unknown_patient),
    "a patient of another account": (403, "not_eligible", _others_patient),
    "a used key, another slot": (422, "key_reused", partial(_key_reused, same_doctor=True)),
    "a used key, another doctor": (422, "key_reused", partial(_key_reused, same_doctor=False)),
    "booked already": (409, "already_booked", _already_booked),
    "full": (409, "slot_full", _full),
    "a man in gynaecology": (
        403,
        "not_eligible",
        partial(_not_eligible, department="0501", language="en"),
    ),
    "an adult among children": (
        403,
        "not_eligible",
        partial(_not_eligible, department="0704", language="zh-CN,en;q=0.5"),
    ),
}


@pytest.mark.parametrize("express_first", [True, False], ids=["express first", "usual first"])
@pytest.mark.parametrize("name", TABLE)
def test_both_ways_give_the_same_answer(world: World, name: str, express_first: bool) -> None:
    status, code, make = TABLE[name]
    wanted = make(world)
    ways = (express, usual) if express_first else (usual, express)
    first, second = (way(world, wanted) for way in ways)
    assert first.told == second.told
    assert first.status == status, first
    assert first.body.get("code") == code
    assert int(first.headers["content-length"]) == len(first.raw)
    if code is not None:
        assert first.headers["content-type"] == "application/problem+json"
        english = any(name == "Accept-Language" and str(v).startswith("en") for name, v in wanted.headers)
        assert first.headers["content-language"] == ("en" if english else "zh-CN")
        assert first.body["title"].isascii() == english
    assert first.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in first.headers) == (status == 401)


def test_two_bookings_of_two_ways_differ_in_ids_and_times_alone(world: World) -> None:
    slot_id = next(
        slot["id"]
        for schedule in world.schedules
        for slot in world.slots(schedule["id"])
        if slot["remaining"] == slot["capacity"] >= 2
    )
    bodies = []
    for number, way in enumerate((express, usual), 1):
        person = world.person()
        answer = way(world, request(person.token, "k", {"slot_id": slot_id, "patient_id": person.patient_id}))
        body = answer.body
        assert answer.status == 201
        UUID(body["id"])
        pay_by = datetime.fromisoformat(body.pop("pay_by"))
        left = (pay_by - datetime.now(pay_by.tzinfo)).total_seconds()
        assert 14 * 60 < left < 15 * 60 + 5 and pay_by.utcoffset() == timedelta(hours=8)
        assert body.pop("bill_id") == body.pop("id")
        bodies.append({**body, "number": body["number"] - number})
    assert bodies[0] == bodies[1]


# Bytes in other shapes.


@pytest.mark.parametrize("way", [express, usual])
@pytest.mark.parametrize("refused", [False, True])
def test_every_answer_names_its_request(
    world: World, way: Callable[[World, Request], Answer], refused: bool
) -> None:
    """Also a booking's: whoever complains of one is found in the logs."""
    given, spelled = secrets.token_hex(16), {"slot_id": "no-such-slot"} if refused else {}

    def asked(**more: str) -> str:
        wanted = world.good(**more)
        body = {**json.loads(wanted.body), **spelled}
        answer = way(world, Request(json.dumps(body).encode(), wanted.headers))
        assert (answer.status == 201) is not refused
        return answer.headers["x-request-id"]

    assert asked(X_Request_Id=given.upper()) == given
    made, another = asked(), asked(X_Request_Id="13800138000")
    assert made != another and all(re.fullmatch("[0-9a-f]{32}", one) for one in (made, another))


def test_two_requests_in_one_segment_are_answered_in_order(world: World) -> None:
    one, two = world.good(), world.good()
    with connected(world.system.port) as wire:
        wire.send(one.encoded() + two.encoded())
        answers = [wire.answer(), wire.answer()]
    assert [answer.status for answer in answers] == [201, 201]
    assert [answer.body["slot_id"] for answer in answers] == [slot_of(one), slot_of(two)]


def test_a_pipeline_of_mixed_requests_is_answered_in_order(world: World) -> None:
    wanted = [world.good() for _ in range(4)]
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = request("nonsense", "k", b"{}").encoded()
    with connected(world.system.port) as wire:
        wire.send(b"".join(each.encoded() + get + bad for each in wanted))
        for each in wanted:
            booked, health, refused = wire.answer(), wire.answer(), wire.answer()
            assert (booked.status, booked.body["slot_id"]) == (201, slot_of(each))
            assert (health.status, health.body) == (200, {"status": "ok"})
            assert (refused.status, refused.body["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("pause", [0.0, 0.0005, 0.001, 0.002])
@pytest.mark.parametrize("second", ["booking", "reading"])
def test_a_request_sent_while_the_first_is_pending_is_answered_after_it(
    world: World, second: str, pause: float
) -> None:
    one, two = world.good(), world.good()
    then = two.encoded() if second == "booking" else b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(world.system.port) as wire:
        wire.send(one.encoded())
        time.sleep(pause)  # read, perhaps, but not answered: a booking waits for its commit
        wire.send(then)
        first, after = wire.answer(), wire.answer()
        assert (first.status, first.body["slot_id"]) == (201, slot_of(one))
        if second == "booking":
            assert (after.status, after.body["slot_id"]) == (201, slot_of(two))
        else:
            assert (after.status, after.body) == (200, {"status": "ok"})
        # And the connection is as good as before.
        assert wire.ask(one.encoded()).body == first.body


@pytest.mark.parametrize("at", ["in the request line", "in the head", "before the body", "in the body"])
def test_a_request_in_two_segments(world: World, at: str) -> None:
    wanted = world.good()
    whole, head = wanted.encoded(), len(wanted.head())
    cut = {"in the request line": 7, "in the head": 60, "before the body": head, "in the body": head + 9}[at]
    with connected(world.system.port) as wire:
        wire.send(whole[:cut])
        time.sleep(0.05)  # so that the kernel does not join what is sent
        answer = wire.ask(whole[cut:])
        assert answer.status == 201
        assert wire.ask(whole).body == answer.body


def test_a_body_in_chunks(world: World) -> None:
    wanted = world.good()
    chunks = [wanted.body[:11], wanted.body[11:]]
    told = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = wanted.head().split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    with connected(world.system.port) as wire:
        answer = wire.ask(head + told)
        assert answer.status == 201
        wire.send(head)
        time.sleep(0.05)
        assert wire.ask(told).body == answer.body
        assert wire.ask(wanted.encoded()).body == answer.body


def test_expect_100_continue(world: World) -> None:
    wanted = world.good()
    with connected(world.system.port) as wire:
        wire.send(wanted.head(("Expect", "100-continue")))
        assert wire.continues()
        answer = wire.ask(wanted.body)
        assert answer.status == 201
        # Sent whole, without waiting for leave.
        wire.send(wanted.encoded(("Expect", "100-continue")))
        assert wire.continues()
        assert wire.answer().body == answer.body


def test_another_expectation_is_refused(world: World) -> None:
    with connected(world.system.port) as wire:
        answer = wire.ask(world.good().encoded(("Expect", "a miracle")))
    assert (answer.status, answer.body["code"]) == (417, "expectation_failed")


def test_http_1_0_and_a_query_go_the_usual_way_to_the_same_answer(world: World) -> None:
    wanted = world.good()
    first = express(world, wanted)
    for old, new in ((b"HTTP/1.1", b"HTTP/1.0"), (PATH.encode(), PATH.encode() + b"?x=1")):
        with connected(world.system.port) as wire:
            answer = wire.ask(wanted.encoded().replace(old, new, 1))
        assert not answer.was_express
        assert answer.told == first.told


def test_one_connection_carries_many_bookings_and_readings(world: World) -> None:
    people = [world.person() for _ in range(4)]
    seen: dict[str, dict[str, Any]] = {}
    slots = {person.patient_id: world.free_slot() for person in people}
    ways = set()
    with connected(world.system.port) as wire:
        for round_ in range(25):
            for person in people:
                body = {"slot_id": slots[person.patient_id], "patient_id": person.patient_id}
                booked = wire.ask(request(person.token, "k", body).encoded())
                ways.add(booked.was_express)
                assert booked.status == 201
                assert seen.setdefault(person.patient_id, booked.body) == booked.body
                path = f"{PATH}/{booked.body['id']}"
                read = wire.ask(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {person.token}\r\n\r\n".encode()
                )
                assert (read.status, read.body["number"]) == (200, booked.body["number"])
                assert wire.ask(request(None, "k", b"{}").encoded()).status == 401
                if round_ % 5 == 0:
                    assert wire.ask(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").status == 404
    assert True in ways, "the express lane was never taken"
    for person in people:
        assert len(world.mine(person.token)) == 1


@pytest.mark.parametrize("farewell", [Wire.reset, Wire.close])
def test_a_client_that_is_gone_before_the_answer_booked_once(
    world: World, farewell: Callable[[Wire], None]
) -> None:
    person = world.person()
    wanted = request(person.token, "tunnel", {"slot_id": world.free_slot(), "patient_id": person.patient_id})
    wire = Wire(world.system.port)
    wire.warm()
    wire.send(wanted.encoded())
    farewell(wire)
    # Asked from the start of the second try on: by then the first was read, or it never will be.
    again = express(world, wanted)
    assert again.status == 201
    assert express(world, wanted).body == usual(world, wanted).body == again.body
    assert [each["id"] for each in world.mine(person.token)] == [again.body["id"]]


# What must not get through. A refusal of bytes closes the connection: nobody knows where the next begins.


def refused(world: World, raw: bytes, status: int, code: str) -> Answer:
    with connected(world.system.port) as wire:
        answer = wire.ask(raw)
        assert (answer.status, answer.body["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        if code == "malformed_request":
            assert wire.is_closed_by_peer()
    return answer


def nothing_was_booked(world: World, wanted: Request) -> None:
    token = str(dict(wanted.headers)["Authorization"]).removeprefix("Bearer ")
    assert world.mine(token) == []


def test_content_length_with_transfer_encoding_is_refused(world: World) -> None:
    wanted = world.good()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(wanted.body), wanted.body)
    for head in (
        wanted.head().removesuffix(b"\r\n") + b"Transfer-Encoding: chunked\r\n\r\n",
        wanted.head().replace(b"Host: x", b"Transfer-Encoding: chunked\r\nHost: x"),
    ):
        refused(world, head + chunked, 400, "malformed_request")
    nothing_was_booked(world, wanted)


def test_two_lengths_are_refused(world: World) -> None:
    wanted = world.good()
    for other in (len(wanted.body), len(wanted.body) + 1, 0):
        refused(world, wanted.encoded(("Content-Length", str(other))), 400, "malformed_request")
    nothing_was_booked(world, wanted)


@pytest.mark.parametrize(
    "length", [b"-1", b"+60", b"0x3c", b"6 0", b"60, 60", b"", b"99999999999999999999999", "６０".encode()]
)
def test_a_length_that_is_none_is_refused(world: World, length: bytes) -> None:
    wanted = world.good()
    head = wanted.head().split(b"Content-Length")[0] + b"Content-Length: " + length + b"\r\n\r\n"
    refused(world, head + wanted.body, 400, "malformed_request")
    nothing_was_booked(world, wanted)


def test_a_body_of_20_kilobytes_is_too_large(world: World) -> None:
    person = world.person()
    body = b'{"slot_id":"' + b"x" * 20_000 + b'"}'
    wanted = request(person.token, "k", body)
    refused(world, wanted.encoded(), 413, "body_too_large")
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    head = wanted.head().split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    refused(world, head + chunk + b"0\r\n\r\n", 413, "body_too_large")
    # Said at once, without a single byte of it.
    with connected(world.system.port) as wire:
        assert wire.ask(wanted.head()).status == 413


@pytest.mark.parametrize("size", [16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1])
def test_the_bound_of_a_body_is_one_both_ways(world: World, size: int) -> None:
    person = world.person()
    body = json.dumps({"slot_id": world.free_slot(), "patient_id": person.patient_id}).encode()
    wanted = request(person.token, "k", body.ljust(size))
    answer = express(world, wanted)
    assert answer.told == usual(world, wanted).told
    assert answer.status == (201 if size <= 16 * 1024 else 413)


def test_a_very_long_header_is_refused(world: World) -> None:
    wanted = world.good()
    refused(world, wanted.encoded(("X-Long", "x" * 40_000)), 400, "malformed_request")
    refused(world, b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request")
    nothing_was_booked(world, wanted)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n",
        b"HELO hospital\r\n\r\n",
        b"\r\n\r\n\x00\r\n\r\n",
        b"POST /api/v1/appointments HTTP/9.9\r\n\r\n",
        b"POST /api/v1/appointments HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}",
        b"POST /api/v1/appointments HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /api/v1/appointments HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"{}" * 100 + b"\r\n\r\n",
    ],
    ids=["TLS", "SMTP", "blank lines", "HTTP/9.9", "space before colon", "NUL", "space in a name", "braces"],
)
def test_garbage_is_a_problem_and_the_end_of_the_connection(world: World, garbage: bytes) -> None:
    refused(world, garbage, 400, "malformed_request")


def test_garbage_behind_a_booking_ends_the_connection_and_books_nothing_twice(world: World) -> None:
    """Read together with the booking, it spoils that too; read later, only itself."""
    for pause in (0.0, 0.001, 0.05):
        person = world.person()
        body = {"slot_id": world.free_slot(), "patient_id": person.patient_id}
        wanted = request(person.token, "k", body)
        with connected(world.system.port) as wire:
            wire.send(wanted.encoded())
            time.sleep(pause)
            wire.send(b"\x00garbage\r\n\r\n")
            first = last = wire.answer()
            if first.status == 201:
                last = wire.answer()
            assert (last.status, last.body["code"]) == (400, "malformed_request")
            assert wire.is_closed_by_peer()
        again = express(world, wanted)
        assert again.status == 201
        assert first.status == 400 or first.body == again.body
        assert len(world.mine(person.token)) == 1


def test_the_lane_does_not_mix_up_whose_answer_is_whose(world: World) -> None:
    """Twenty connections at once, each with bookings of its own."""
    people = [world.person() for _ in range(20)]
    wanted = [
        request(p.token, "k", {"slot_id": world.free_slot(), "patient_id": p.patient_id}) for p in people
    ]
    start = threading.Barrier(len(wanted))
    answers: list[list[Answer]] = [[] for _ in wanted]

    def ask(number: int) -> None:
        with connected(world.system.port) as wire:
            start.wait()
            answers[number] = [wire.ask(wanted[number].encoded()) for _ in range(10)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for person, each, told in zip(people, wanted, answers, strict=True):
        assert {answer.status for answer in told} == {201}
        assert all(answer.body == told[0].body for answer in told)
        assert told[0].body["slot_id"] == slot_of(each)
        assert [a["id"] for a in world.mine(person.token)] == [told[0].body["id"]]


def slot_of(wanted: Request) -> str:
    slot: str = json.loads(wanted.body)["slot_id"]
    return slot


def test_more_than_is_held_sent_ahead_of_an_answer_is_answered_in_the_end(world: World) -> None:
    wanted = world.good()
    many = 1000
    refused = request("nonsense", "k", b"{}").encoded()
    assert many * len(refused) > 2 * HELD_BYTES_MAX
    with connected(world.system.port) as wire:
        wire.send(wanted.encoded())
        # From aside, for both buffers between us may fill while nobody reads.
        sender = threading.Thread(target=wire.send, args=(refused * many,))
        sender.start()
        answers = [wire.answer() for _ in range(1 + many)]
        sender.join()
    assert answers[0].status == 201
    assert {answer.status for answer in answers[1:]} == {401}


@pytest.mark.parametrize("trial", range(4))
def test_a_stream_of_bookings_in_small_segments_is_answered_in_order(world: World, trial: int) -> None:
    person, slots = world.person(), world.free_slots()
    many = 200
    wanted = [
        request(person.token, "k", {"slot_id": slots[n % 2], "patient_id": person.patient_id})
        for n in range(many)
    ]
    stream = b"".join(each.encoded() for each in wanted)
    cuts = [0, *sorted(random.sample(range(1, len(stream)), len(stream) // 100)), len(stream)]
    with connected(world.system.port) as wire:

        def send() -> None:
            for start, end in zip(cuts, cuts[1:], strict=False):
                wire.send(stream[start:end])

        sender = threading.Thread(target=send)
        sender.start()
        answers = [wire.answer() for _ in range(many)]
        sender.join()
    # One key, two bodies by turns: the first is booked, the other is refused.
    assert [answer.status for answer in answers] == [201, 422] * (many // 2)


@pytest.mark.parametrize(
    "content_type",
    [
        'application/json; charset="utf-8"',
        "application/json; charset='utf-8'",
        "application/json; version=1",
        "application/json;",
        "application/json;charset=utf-8;",
        "application/json\t; charset=utf-8",
        "application / json",
        "app lication/json",
    ],
)
def test_an_odd_content_type_gets_one_answer_both_ways(world: World, content_type: str) -> None:
    person = world.person()
    body = {"slot_id": world.free_slot(), "patient_id": person.patient_id}
    wanted = request(person.token, "k", body, content_type=content_type)
    assert express(world, wanted).told == usual(world, wanted).told
