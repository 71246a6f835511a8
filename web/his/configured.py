"""Where the HIS is: the operator's file, or the demo's sandbox."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
from pydantic import TypeAdapter, ValidationError

from integrations.his.his_at import HisAt

SECONDS_MAX: Final = 1.5
"""Of one call to the sandbox: whoever waits for a number has two seconds in all."""
DEMO_ZONE: Final = "Asia/Shanghai"
_AT: Final = TypeAdapter(HisAt)


class HisFileRefused(Exception):
    """What is wrong with it, without what stands in it."""


def his_of_file(path: Path) -> HisAt:
    """A JSON object of HisAt's fields (docs/HIS.md). Raises HisFileRefused."""
    try:
        told = orjson.loads(path.read_bytes())
    except OSError as error:
        raise HisFileRefused(f"{path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise HisFileRefused(f"{path}:{error.lineno}:{error.colno}: is no JSON") from None
    if not isinstance(told, dict):
        raise HisFileRefused(f"{path}: is no JSON object")
    unknown = set(told) - {one.name for one in fields(HisAt)}
    if unknown:
        raise HisFileRefused(f"{path}: unknown: {', '.join(sorted(unknown))}")
    try:
        at = _AT.validate_python(told)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise HisFileRefused(f"{path}: {wrong}") from None
    outside = at.address.startswith("http://") and not at.address.startswith(
        ("http://127.0.0.1", "http://localhost", "http://[::1]")
    )
    if outside:
        raise HisFileRefused(f"{path}: address: names leave this machine over https alone")
    return at


def demo_at(ports: Mapping[str, int], secret: str) -> HisAt:
    return HisAt(
        form="rest",
        address=f"http://127.0.0.1:{ports['http']}",
        zone=DEMO_ZONE,
        seconds_max=SECONDS_MAX,
        secret=secret.encode(),
        listen_port=ports["notices"],
    )


@asynccontextmanager
async def demo_running(place: Any) -> AsyncIterator[None]:
    """The sandbox of web/systems_beside.py, with the departments and doctors of the demo hospital."""
    from engine.records.hospital_file import read_hospital
    from integrations.his.sandbox import Sandbox

    at = demo_at(place.ports, place.secret)
    sandbox = Sandbox(at.app_id, at.secret, zone=ZoneInfo(at.zone), notices_port=at.listen_port)
    with resources.as_file(resources.files("web") / "demo" / "hospital") as folder:
        hospital = read_hospital(folder)
    sandbox.hospital.departments += [{"code": one.id, "name": one.name} for one in hospital.departments]
    sandbox.hospital.practitioners += [
        {"code": one.id, "name": one.name, "title": one.title, "department": one.department_id}
        for one in hospital.practitioners
    ]
    async with sandbox.running(place.ports["http"], place.ports["mllp"]):
        yield
