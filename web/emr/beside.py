"""The demo's record system: the sandbox, whose doctors write something down after each visit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from aiohttp import web as http

from integrations.emr.emr import PATIENT_SYSTEM, EmrAt
from integrations.emr.sandbox import Sandbox
from web.imaging import beside as imaging

if TYPE_CHECKING:  # it names this module
    from web.systems_beside import Place


def at(ports: Mapping[str, int], secret: str) -> EmrAt:
    return EmrAt(f"http://127.0.0.1:{ports['http']}/fhir", secret)


async def picture(encounter: dict[str, Any], patient: dict[str, Any]) -> None:
    """Whoever was seen has had a picture taken, where the demo has an archive."""
    ours = [one["value"] for one in patient["identifier"] if one.get("system") == PATIENT_SYSTEM]
    if not imaging.RUNNING or not ours:
        return
    born = patient.get("birthDate")
    await asyncio.to_thread(
        imaging.RUNNING[-1].take_pictures,
        ours[0],
        patient["name"][0]["text"],
        sex={"male": "M", "female": "F"}.get(patient.get("gender", ""), ""),
        birth_date=None if born is None else date.fromisoformat(born),
        pictures=1,
    )


@contextlib.asynccontextmanager
async def running(place: "Place") -> AsyncIterator[None]:
    runner = http.AppRunner(Sandbox(place.secret, writes_back=True, on_visit=picture).app())
    await runner.setup()
    await http.TCPSite(runner, "127.0.0.1", place.ports["http"]).start()
    try:
        yield
    finally:
        await runner.cleanup()
