"""Asks a record system's FHIR server for what is new, and tells it of our finished visits.

    emr = EmrClient(session, EmrAt("https://emr.example/fhir", token))
    await emr.changed("Condition", since)      # Page: its resources, and where to go on
    await emr.tell_visit(visit)                # the id of its Encounter there

Telling is idempotent: who and what is told are looked for by our identifiers, and created only where they
are not there (If-None-Exist). What is raised is FhirClient's; after OutcomeUnknown it may be told again.
"""

from datetime import datetime
from typing import Any, Final

import aiohttp

from integrations.emr.emr import APPOINTMENT_SYSTEM, PATIENT_SYSTEM, EmrAt, Visit
from integrations.emr.translate import encounter_of, patient_of
from integrations.fhir.client import FhirClient, Page, Resource, Server

SECONDS_MAX: Final = 10.0
PAGE: Final = 100
PAGES_MAX: Final = 50  # of one question


class EmrClient:
    """The session is its owner's to close."""

    def __init__(self, session: aiohttp.ClientSession, at: EmrAt, seconds_max: float = SECONDS_MAX) -> None:
        self._fhir = FhirClient(
            session, Server(at.address, at.token, seconds_max, username=at.username, password=at.password)
        )

    async def changed(self, type_: str, since: datetime | None, following: str = "") -> Page:
        """What was changed there since, the oldest first: the first page, or the one that `following` is."""
        asked = [("_sort", "_lastUpdated"), ("_count", str(PAGE))]
        if since is not None:
            asked.append(("_lastUpdated", f"ge{since.isoformat()}"))
        return await self._fhir.page(type_, asked, following)

    async def patient(self, id_: str) -> Resource | None:
        return await self._fhir.read("Patient", id_)

    async def tell_visit(self, visit: Visit) -> str:
        """Their id of the encounter."""
        patient = await self._known_or_new(PATIENT_SYSTEM, visit.person.id, patient_of(visit.person))
        encounter = encounter_of(visit, f"Patient/{patient}")
        return await self._known_or_new(APPOINTMENT_SYSTEM, visit.id, encounter)

    async def _known_or_new(self, system: str, value: str, resource: dict[str, Any]) -> str:
        query = {"identifier": f"{system}|{value}"}
        for one in await self._fhir.search(resource["resourceType"], query):
            if _has(one, system, value):
                return str(one["id"])
        created = await self._fhir.create(resource, if_none_exist=f"identifier={system}|{value}")
        return str(created["id"])


def _has(resource: Resource, system: str, value: str) -> bool:
    """They may not know this kind of question, and answer with everything."""
    identifiers = resource.get("identifier")
    return (
        isinstance(resource.get("id"), str)
        and isinstance(identifiers, list)
        and any(
            isinstance(one, dict) and one.get("system") == system and one.get("value") == value
            for one in identifiers
        )
    )
