"""The HIS as a FHIR R4 server: Appointment, Patient, Practitioner, Schedule, Slot. docs/HL7.md has the words.

What is told is a state: an Appointment that we find by our id, created if there is none (If-None-Exist) and
changed at the version that we read (If-Match). The id of the message that changed it last is one of its
identifiers, so that the same message again changes nothing. A place of theirs is a free Slot, which becomes
busy-tentative in one transaction with its Appointment.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Final

import aiohttp

from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.fhir.client import CONFLICT, FhirClient, Resource, Server
from integrations.his.fhir_words import OF_KIND, OF_STATUS, Unfit, Words, actor_of, is_a
from integrations.his.his import (
    Booking,
    Day,
    DaySession,
    Department,
    Kind,
    Locked,
    Person,
    Practitioner,
    Registration,
    Status,
)
from integrations.his.his_at import HisAt

TRIES_MAX: Final = 4  # at a version that is another one by now
CODES_MAX: Final = 20_000
SLOTS_TRIED_MAX: Final = 8


class FhirHis:
    """A connector of his.py's protocol. The session is its owner's to close."""

    def __init__(self, at: HisAt, session: aiohttp.ClientSession) -> None:
        self._client = FhirClient(session, Server(at.address, at.token, at.seconds_max))
        self._words = Words(at.identifiers, at.zone_info)
        self._codes: dict[str, str] = {}  # Practitioner/… -> their code
        self._references: dict[str, str] = {}  # and back

    async def tell(
        self,
        message_id: str,
        kind: Kind,
        booking: Booking,
        *,
        before: Booking | None = None,
        reason: str = "",
    ) -> str:
        for _ in range(TRIES_MAX):
            try:
                his_id = await self._tell(message_id, kind, booking, reason)
                if before is not None and before.id != booking.id:
                    await self._give_up(before.id, f"{message_id}.before")
                return his_id
            except Refused as refused:
                if refused.code != CONFLICT:
                    raise
        raise TryAgain("HIS: it changes all the time")

    async def _tell(self, message_id: str, kind: Kind, booking: Booking, reason: str) -> str:
        there = await self._appointment(booking.id)
        status = OF_KIND[kind]
        if there is not None and self._words.value(there, "message") == message_id:
            return str(there["id"])
        if kind in (Kind.BOOKED, Kind.RESCHEDULED, Kind.CHANGED):
            if there is None and kind is Kind.CHANGED:
                raise Refused("unknown_booking", "HIS")
            told = await self._written(booking, status, message_id)
            if there is None:
                exists = f"identifier={self._words.token('appointment', booking.id)}"
                done = await self._client.create(told, if_none_exist=exists)
            else:
                done = await self._client.update({**there, **told})
            return str(done["id"])
        if there is None:
            raise Refused("unknown_booking", "HIS")
        changed = self._words.changed(there, status, message_id, reason)
        done = await self._client.update(changed)
        if status is Status.CANCELLED:
            await self._free_slots(there)
        return str(done["id"])

    async def find(self, booking_id: str) -> Registration | None:
        there = await self._appointment(booking_id)
        return None if there is None else await self._read(there)

    async def registrations(self, day: date) -> list[Registration]:
        start = datetime.combine(day, time(), self._words.zone)
        end = datetime.combine(day + timedelta(days=1), time(), self._words.zone)
        found = await self._between("Appointment", "date", start, end)
        rows = [await self._read(one) for one in found]
        return [row for row in rows if start <= row.starts_at < end]

    async def lock(self, booking: Booking) -> Locked:
        there = await self._appointment(booking.id)
        if there is not None and OF_STATUS.get(str(there.get("status"))) is not Status.CANCELLED:
            return self._locked(there)
        slots = await self._slots_of_day(booking)
        for slot in [one for one in slots if self._is_free_at(one, booking)][:SLOTS_TRIED_MAX]:
            number = self._number(slot, slots)
            told = await self._written(booking, Status.LOCKED, f"lock-{booking.id}", number)
            told["slot"] = [{"reference": f"Slot/{slot['id']}"}]
            try:
                await self._client.transact(
                    [_put({**slot, "status": "busy-tentative"}), self._placed(told, there)]
                )
            except Refused as refused:
                if refused.code != CONFLICT:
                    raise
                continue  # somebody was faster
            locked = await self._appointment(booking.id)
            if locked is None:
                raise OutcomeUnknown("HIS: a place that is not there")
            return self._locked(locked)
        raise Refused("slot_full", "HIS")

    async def unlock(self, booking_id: str) -> None:
        for _ in range(TRIES_MAX):
            there = await self._appointment(booking_id)
            if there is None or OF_STATUS.get(str(there.get("status"))) is not Status.LOCKED:
                return
            try:
                await self._client.update(
                    self._words.changed(there, Status.CANCELLED, f"unlock-{booking_id}")
                )
                await self._free_slots(there)
                return
            except Refused as refused:
                if refused.code != CONFLICT:
                    raise
        raise TryAgain("HIS: it changes all the time")

    async def departments(self) -> Sequence[Department]:
        found = await self._client.search("Organization", {"type": "dept"})
        codes = {f"Organization/{one['id']}": self._words.value(one, "department") for one in found}
        told = []
        for one in found:
            code, name = codes[f"Organization/{one['id']}"], one.get("name")
            parent = one.get("partOf")
            if code and isinstance(name, str):
                above = parent.get("reference") if isinstance(parent, dict) else None
                told.append(Department(code, name, codes.get(str(above))))
        return told

    async def practitioners(self) -> Sequence[Practitioner]:
        roles = await self._client.search("PractitionerRole", {})
        departments = {
            f"Organization/{one['id']}": self._words.value(one, "department")
            for one in await self._client.search("Organization", {"type": "dept"})
        }
        told = []
        people = {f"Practitioner/{one['id']}": one for one in await self._client.search("Practitioner", {})}
        for role in roles:
            who, where = _reference(role.get("practitioner")), _reference(role.get("organization"))
            person, department = people.get(who), departments.get(where)
            code = None if person is None else self._words.value(person, "practitioner")
            if person is None or code is None or not department:
                continue
            titles = role.get("code")
            title = titles[0].get("text", "") if isinstance(titles, list) and titles else ""
            told.append(Practitioner(code, self._words.person(person, "", "").name, title, department))
        return told

    async def schedules(self, first: date, last: date) -> Sequence[Day]:
        start = datetime.combine(first, time(), self._words.zone)
        end = datetime.combine(last + timedelta(days=1), time(), self._words.zone)
        slots = await self._between("Slot", "start", start, end)
        owners = {
            f"Schedule/{one['id']}": (await self._owner(one), self._department(one))
            for one in await self._client.search("Schedule", {})
        }
        found: dict[tuple[str, str, date], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for slot in slots:
            owner, department = owners.get(_reference(slot.get("schedule")), ("", ""))
            try:
                at = self._words.time(slot, "start")
            except Unfit as unfit:
                raise TryAgain(f"HIS: an answer that does not fit: {unfit.why}") from None
            if owner and start <= at < end:
                found[owner, department, at.date()][self._words.period(at)].append(str(slot.get("status")))
        return [
            Day(
                practitioner,
                department,
                day,
                tuple(
                    DaySession(
                        period,
                        len(each),
                        "suspended" if set(each) == {"busy-unavailable"} else "open",
                    )
                    for period, each in sessions.items()
                ),
            )
            for (practitioner, department, day), sessions in sorted(found.items())
        ]

    async def patient(self, id_type: str, id_number: str) -> Person | None:
        asked = {"identifier": self._words.token(f"paper:{id_type}", id_number)}
        found = await self._client.search("Patient", asked, is_private=True)
        if len(found) != 1:
            return None
        try:
            return self._words.person(found[0], id_type, id_number)
        except Unfit as unfit:
            raise TryAgain(f"HIS: an answer that does not fit: {unfit.why}") from None

    async def close(self) -> None:
        """Nothing is its own."""

    async def _appointment(self, booking_id: str) -> Resource | None:
        found = await self._client.search(
            "Appointment", {"identifier": self._words.token("appointment", booking_id)}
        )
        mine = [one for one in found if self._words.value(one, "appointment") == booking_id]
        if len(mine) > 1:
            raise Refused("doubled", "HIS: two appointments of one id")
        return mine[0] if mine else None

    async def _between(
        self, type_: str, parameter: str, start: datetime, end: datetime, *more: tuple[str, str]
    ) -> list[Resource]:
        bounds = [(parameter, f"ge{start.isoformat()}"), (parameter, f"lt{end.isoformat()}")]
        found = await self._client.search(type_, [*more, *bounds])
        kept = []
        for one in found:
            try:
                if start <= self._words.time(one, "start") < end:
                    kept.append(one)
            except Unfit:
                continue  # without a time it is in no day
        return kept

    async def _read(self, told: Resource) -> Registration:
        actor = actor_of(told, "Practitioner")
        try:
            return self._words.registration(told, await self._code(actor))
        except Unfit as unfit:
            raise TryAgain(f"HIS: an answer that does not fit: {unfit.why}") from None

    async def _code(self, actor: Resource) -> str:
        code = self._words.value(actor, "practitioner")
        if code is not None:
            return code
        reference = _reference(actor)
        known = self._codes.get(reference)
        if known is None:
            found = await self._client.read("Practitioner", reference.partition("/")[2])
            known = self._words.value(found, "practitioner")
            if known is None:
                raise Unfit("participant")
            self._remember(reference, known)
        return known

    async def _practitioner(self, code: str) -> Resource:
        """A Reference: to the resource where they have one, by its identifier anyway."""
        if code not in self._references:
            found = await self._client.search(
                "Practitioner", {"identifier": self._words.token("practitioner", code)}
            )
            if found:
                self._remember(f"Practitioner/{found[0]['id']}", code)
        told: Resource = {
            "type": "Practitioner",
            "identifier": self._words.identifier("practitioner", code),
        }
        if code in self._references:
            told["reference"] = self._references[code]
        return told

    def _remember(self, reference: str, code: str) -> None:
        if len(self._codes) >= CODES_MAX:
            self._codes.clear()
            self._references.clear()
        self._codes[reference], self._references[code] = code, reference

    async def _written(
        self, booking: Booking, status: Status, message_id: str, number: int | None = None
    ) -> Resource:
        patient, practitioner = await asyncio.gather(
            self._patient(booking.person), self._practitioner(booking.practitioner)
        )
        told = self._words.appointment(booking, status, message_id, patient, practitioner)
        if number is not None:
            told["identifier"][2] = self._words.identifier("number", str(number))
        return told

    async def _patient(self, person: Person) -> str:
        if person.his_id:
            return f"Patient/{person.his_id}"
        exists = f"identifier={self._words.token('patient', person.id or '')}"
        done = await self._client.create(self._words.patient(person), if_none_exist=exists)
        return f"Patient/{done['id']}"

    async def _give_up(self, booking_id: str, message_id: str) -> None:
        old = await self._appointment(booking_id)
        if old is not None and OF_STATUS.get(str(old.get("status"))) is not Status.CANCELLED:
            await self._client.update(self._words.changed(old, Status.CANCELLED, message_id))
            await self._free_slots(old)

    async def _slots_of_day(self, booking: Booking) -> list[Resource]:
        """All of that doctor's, in their order."""
        reference = _reference(await self._practitioner(booking.practitioner))
        if not reference:
            raise Refused("unknown_practitioner", "HIS")
        day = booking.starts_at.astimezone(self._words.zone).date()
        start = datetime.combine(day, time(), self._words.zone)
        slots: list[Resource] = []
        for one in await self._client.search("Schedule", {"actor": reference}):
            of_schedule = ("schedule", f"Schedule/{one['id']}")
            slots += await self._between("Slot", "start", start, start + timedelta(days=1), of_schedule)
        return sorted(slots, key=lambda one: (self._words.time(one, "start"), str(one["id"])))

    def _is_free_at(self, slot: Resource, booking: Booking) -> bool:
        """Their places need not be cut as ours are: one that has some of the booking's time will do."""
        try:
            start, end = self._words.time(slot, "start"), self._words.time(slot, "end")
        except Unfit:
            return False
        return slot.get("status") == "free" and start < booking.ends_at and booking.starts_at < end

    def _number(self, slot: Resource, slots: list[Resource]) -> int:
        said = self._words.value(slot, "number")
        return int(said) if said and said.isdigit() else slots.index(slot) + 1

    def _locked(self, there: Resource) -> Locked:
        number = self._words.value(there, "number")
        if number is None or not number.isdigit():
            raise OutcomeUnknown("HIS: a place without a number")
        return Locked(str(there["id"]), int(number))

    def _placed(self, told: Resource, there: Resource | None) -> Resource:
        if there is not None:
            return _put({**there, **told})
        exists = (
            f"identifier={self._words.token('appointment', self._words.value(told, 'appointment') or '')}"
        )
        return {
            "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000001",
            "resource": told,
            "request": {"method": "POST", "url": "Appointment", "ifNoneExist": exists},
        }

    async def _free_slots(self, appointment: Resource) -> None:
        """Of a place given back. One that is somebody else's by now is left alone."""
        for one in appointment.get("slot") or ():
            slot = await self._client.read("Slot", _reference(one).partition("/")[2])
            if slot is not None and slot.get("status") in ("busy", "busy-tentative"):
                await self._client.update({**slot, "status": "free"})

    async def _owner(self, schedule: Resource) -> str:
        for actor in schedule.get("actor") or ():
            if isinstance(actor, dict) and is_a(actor, "Practitioner"):
                try:
                    return await self._code(actor)
                except Unfit:
                    return ""
        return ""

    def _department(self, schedule: Resource) -> str:
        for service in schedule.get("serviceType") or ():
            for coding in (service.get("coding") or ()) if isinstance(service, dict) else ():
                if isinstance(coding, dict) and coding.get("system") == f"{self._words.base}:department":
                    return str(coding.get("code", ""))
        return ""


def _reference(told: object) -> str:
    said = told.get("reference") if isinstance(told, dict) else None
    return said if isinstance(said, str) else ""


def _put(resource: Resource) -> Resource:
    path = f"{resource['resourceType']}/{resource['id']}"
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    request = {"method": "PUT", "url": path} | ({"ifMatch": f'W/"{version}"'} if version else {})
    return {"fullUrl": path, "resource": resource, "request": request}
