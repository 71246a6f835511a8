"""A HIS of the sandbox's, in each of its forms, for tests."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp

from integrations.his.his import Booking, His, Person
from integrations.his.his_at import HisAt, make
from integrations.his.sandbox import Sandbox

ZONE = ZoneInfo("Asia/Shanghai")
SECRET = b"0123456789abcdef"
DAY = date(2026, 11, 30)
FORMS = ("rest", "hl7v2", "fhir")
PERSON = Person(
    "ab" * 16, None, "张|三^𠮷", "male", date(1990, 1, 1), "resident_id", "11010519900101001X", "13800000000"
)


def booking(n: int, **more: Any) -> Booking:
    at = datetime(DAY.year, DAY.month, DAY.day, 9, 0, tzinfo=ZONE)
    made = Booking(
        f"{n:032x}",
        "0201",
        "D0001",
        f"D0001-{DAY}",
        "morning",
        at,
        at + timedelta(minutes=30),
        n,
        1500,
        "app",
        PERSON,
    )
    return replace(made, **more)


@dataclass(frozen=True, slots=True)
class Spoken:
    form: str
    his: His
    sandbox: Sandbox


def at_of(sandbox: Sandbox, form: str, **more: Any) -> HisAt:
    match form:
        case "rest":
            at = HisAt("rest", sandbox.address, secret=SECRET)
        case "fhir":
            at = HisAt("fhir", sandbox.address + "/fhir")
        case _:
            at = HisAt("hl7v2", host="127.0.0.1", port=sandbox.mllp_port)
    return replace(at, **more)


@contextlib.asynccontextmanager
async def spoken(form: str, **more: Any) -> AsyncIterator[Spoken]:
    """`more`: of HisAt."""
    sandbox = Sandbox("xinglin", SECRET, zone=ZONE)
    async with sandbox.running(), aiohttp.ClientSession() as session:
        his = make(at_of(sandbox, form, **more), session)
        try:
            yield Spoken(form, his, sandbox)
        finally:
            await his.close()
