"""The demo's picture archive: the sandbox, at the place it is given."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from aiohttp import web as http

from integrations.pacs.pacs import PacsAt
from integrations.pacs.sandbox import Sandbox

if TYPE_CHECKING:  # it names this module
    from web.systems_beside import Place

ZONE = ZoneInfo("Asia/Shanghai")  # of the demo's hospital
USERNAME = "xinglin"


RUNNING: Final[list[Sandbox]] = []
"""The one of this process: the record system's doctors order pictures of it (web/emr/beside.py)."""


def at(ports: Mapping[str, int], secret: str) -> PacsAt:
    """It forgets when it ends, so it is asked by days: its list of changes would begin anew."""
    return PacsAt(
        f"http://127.0.0.1:{ports['http']}/dicom-web",
        ZONE,
        USERNAME,
        secret,
        patient_system="xinglin",
    )


@contextlib.asynccontextmanager
async def running(place: "Place") -> AsyncIterator[None]:
    sandbox = Sandbox(USERNAME, place.secret, zone=ZONE)
    runner = http.AppRunner(sandbox.app())
    await runner.setup()
    await http.TCPSite(runner, "127.0.0.1", place.ports["http"]).start()
    RUNNING.append(sandbox)
    try:
        yield
    finally:
        RUNNING.remove(sandbox)
        await runner.cleanup()
