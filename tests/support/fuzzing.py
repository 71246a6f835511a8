"""What schemathesis needs to get further than 404 and 401: ids that exist, and a token that may.

Generated requests with ids out of nowhere stop at the first check. So every other request gets its ids
replaced by those of a small world: departments, schedules, a patient, a number, a ticket. Which caller may do
what is read from the matrix of rights, as the system itself does.
"""

import asyncio
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import requests

from engine import embedded_postgres
from engine.domain.policy import Channel
from engine.records import partners
from engine.records.staff import NewStaff, Role, add_staff
from tests.support.system import System
from web.demo_staff import DEMO_PASSWORD, DEMO_PRACTITIONER
from web.passwords import hash_of
from web.patient.patients import new_id
from web.rights.matrix import ANYONE, MATRIX, PATIENT, STAFF, SYSTEM

HEADS_DEPARTMENT: Final = "03"  # of the department's head
SECONDS_MAX: Final = 20
PASSWORD_HASH: Final = hash_of(DEMO_PASSWORD)


@dataclass(slots=True)
class World:
    """A running system, who may use it, and ids that exist in it."""

    address: str
    database_url: str
    session: requests.Session
    ids: dict[str, str] = field(default_factory=dict)
    """Singular word of a collection -> the id of one: "schedule", "patient", ..."""
    usernames: dict[str, str] = field(default_factory=dict)  # role -> who has it
    tokens: dict[str, str] = field(default_factory=dict)  # caller -> token

    def ask(self, method: str, path: str, caller: str = ANYONE, body: Any = None) -> requests.Response:
        headers = {"Idempotency-Key": str(uuid4()), **self.headers_of(caller)}
        return self.session.request(
            method, self.address + path, json=body, headers=headers, timeout=SECONDS_MAX
        )

    def headers_of(self, caller: str) -> dict[str, str]:
        if caller == ANYONE:
            return {}
        token = self.tokens.get(caller) or self._sign_in(caller)
        return {"Authorization": f"Bearer {token}"}

    def sign_in_again(self, caller: str) -> None:
        """After something ended the session: signing out is an operation, too."""
        self.tokens.pop(caller, None)

    def _sign_in(self, caller: str) -> str:
        if caller == SYSTEM:
            self.tokens[caller] = self._token()
            return self.tokens[caller]
        grant = (
            {"grant": "wechat", "code": f"sandbox:rough-{uuid4().hex[:12]}"}
            if caller == PATIENT
            else {"grant": "password", "username": self.usernames[caller], "password": DEMO_PASSWORD}
        )
        answer = self.session.post(f"{self.address}/api/v1/sessions", json=grant, timeout=SECONDS_MAX)
        if answer.status_code == 401 and caller != PATIENT:  # locked by what was asked in their name
            grant["username"] = self.usernames[caller] = asyncio.run(new_staff(self.database_url, caller))
            answer = self.session.post(f"{self.address}/api/v1/sessions", json=grant, timeout=SECONDS_MAX)
        assert answer.status_code == 201, (caller, answer.text)
        token: str = answer.json()["access_token"]
        self.tokens[caller] = token
        return token

    def _token(self) -> str:
        """Of another system, which may all that systems may."""
        partner_id, secret = asyncio.run(new_partner(self.database_url))
        form = {"grant_type": "client_credentials", "client_id": partner_id, "client_secret": secret}
        answer = self.session.post(f"{self.address}/api/v1/partner/token", data=form, timeout=SECONDS_MAX)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def caller_of(self, operation_id: str) -> str:
        """Somebody whom the matrix lets do it; of several always the same one."""
        scopes = MATRIX[operation_id].scopes
        if ANYONE in scopes:
            return ANYONE
        callers = sorted(scopes)
        chosen = callers[zlib.crc32(operation_id.encode()) % len(callers)]
        return "manager" if chosen == STAFF else chosen


def world_of(system: System) -> World:
    """Somebody of each role, one of each thing."""
    url = embedded_postgres.running(system.home)
    assert url is not None
    world = World(system.address, url, requests.Session())
    for role in Role:
        world.usernames[role] = asyncio.run(new_staff(url, role))
    ids = world.ids
    made = world.ask("POST", "/api/v1/patients", PATIENT, {**_person(), "relation": "self"})
    assert made.status_code == 201, made.text
    ids["patient"] = made.json()["id"]
    department = _somewhere_to_book(world)
    person = {"department_id": department, "person": _person()}
    walked_in = world.ask("POST", "/api/v1/walk-ins", "desk", person)
    assert walked_in.status_code == 201, walked_in.text
    ids["ticket"] = walked_in.json()["id"]
    return world


def _person() -> dict[str, str]:
    return {
        "name": "张小明",
        "id_type": "passport",
        "id_number": "R" + uuid4().hex[:8].upper(),
        "phone": "13800138000",
        "sex": "male",
        "birth_date": "1990-01-01",
    }


def _somewhere_to_book(world: World) -> str:
    """A department where a number can be had: others asked anything of this system before us."""
    ids = world.ids
    refused = ""
    departments = world.ask("GET", "/api/v1/departments").json()["departments"]
    for department in (each["id"] for each in departments if each["sex"] is None and len(each["id"]) == 4):
        schedules = world.ask("GET", f"/api/v1/schedules?department={department}").json()["schedules"]
        for schedule in (each for each in schedules[-5:] if each["remaining"]):
            slots = world.ask("GET", f"/api/v1/schedules/{schedule['id']}/slots").json()["slots"]
            body = {"slot_id": slots[-1]["id"], "patient_id": ids["patient"]}
            held = world.ask("POST", "/api/v1/appointments", PATIENT, body)
            if held.status_code == 201:
                ids["department"], ids["schedule"], ids["slot"] = department, schedule["id"], slots[-1]["id"]
                ids["practitioner"] = schedule["practitioner_id"]
                ids["appointment"], ids["bill"] = held.json()["id"], held.json()["bill_id"]
                return str(department)
            refused = held.text
    raise AssertionError(f"no number anywhere: {refused}")


async def new_staff(database_url: str, role: str) -> str:
    """A username that has this role alone, with the demo's password."""
    new = NewStaff(
        f"{role.replace('_', '.')}.{uuid4().hex[:6]}",
        f"演示{role}",
        PASSWORD_HASH,
        (Role(role),),
        practitioner_id=DEMO_PRACTITIONER if role == Role.DOCTOR else None,
        department_id=HEADS_DEPARTMENT if role == Role.DEPARTMENT_HEAD else None,
        is_demo=True,
    )
    connection = await asyncpg.connect(database_url)
    try:
        await add_staff(connection, new, new_id(), datetime.now(UTC))
    finally:
        await connection.close()
    return new.username


async def new_partner(database_url: str) -> tuple[str, str]:
    """The client id and the secret of a system with every scope."""
    connection = await asyncpg.connect(database_url)
    try:
        name = f"rough-{uuid4().hex[:8]}"
        made, secret = await partners.add(
            connection, name, partners.SCOPES, Channel.REFERRAL, new_id(), datetime.now(UTC)
        )
    finally:
        await connection.close()
    return str(UUID(bytes=made.id)), secret


_SINGULAR: Final = {
    "departments": "department",
    "schedules": "schedule",
    "slots": "slot",
    "practitioners": "practitioner",
    "patients": "patient",
    "appointments": "appointment",
    "bills": "bill",
    "tickets": "ticket",
}


def real_path(path: str, given: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """The path's parameters with ids that exist, where the world has one: {id} after /schedules/ is one's."""
    parts = path.split("/")
    real = dict(given)
    for before, part in zip(parts, parts[1:], strict=False):
        if part.startswith("{") and part.endswith("}"):
            name = part[1:-1]
            kind = name.removesuffix("_id") if name.endswith("_id") else _SINGULAR.get(before, "")
            if kind in ids:
                real[name] = ids[kind]
    return real


def real_values(value: Any, ids: dict[str, str]) -> Any:
    """A body or a query with ids that exist: what is called slot_id is one's."""
    if isinstance(value, dict):
        return {
            name: ids[kind]
            if isinstance(held, str) and (kind := _kind(name)) in ids
            else real_values(held, ids)
            for name, held in value.items()
        }
    if isinstance(value, list):
        return [real_values(each, ids) for each in value]
    return value


def _kind(name: object) -> str:
    return str(name).removesuffix("_id")


def every_other() -> Iterator[bool]:
    while True:
        yield False
        yield True
