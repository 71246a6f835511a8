"""A number of ours as the HIS is told of it: in its codes, its patient's name opened just for that."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain.limits import SLOT_MINUTES
from engine.domain.planning import plan_from_data
from engine.domain.policy import Channel
from engine.records import his_codes
from engine.records.his_codes import Codes
from engine.records.patient_numbers import number_of
from engine.records.sealed_people import ID_NUMBER, name_of, phone_of, record_key
from engine.vault.vault import Vault
from integrations.his.his import Booking, Person

SYSTEM: Final = "his"
"""Whose patient numbers these are (engine/records/patient_numbers.py)."""
_SLOT: Final = timedelta(minutes=SLOT_MINUTES)

_BOOKING: Final = (
    "select a.id, a.schedule_id, a.slot_id, a.number, a.patient_id, a.account_id, a.fee_fen, a.starts_at,"
    " a.channel, a.department_id, p.record_key, p.contact_key, p.name, p.id_type, p.id_number, p.birth_date,"
    " p.sex, h.phone, s.plan::text as plan"
    " from appointment a join patient p on p.id = a.patient_id"
    " left join account_patient h on h.account_id = a.account_id and h.patient_id = a.patient_id"
    " left join schedule s on s.id = a.schedule_id where a.id = any ($1)"
)


@dataclass(frozen=True, slots=True)
class Bookings:
    """Reads them. Keep none of what it gives: it has people's names in it."""

    pool: asyncpg.Pool
    vault: Vault

    async def read(self, appointment_id: bytes, number: int | None = None) -> Booking:
        """`number`: theirs, where their numbers count. Raises LookupError where there is none."""
        found = await self.read_many([appointment_id], await his_codes.load(self.pool))
        booking = found.get(appointment_id)
        if booking is None:
            raise LookupError(f"there is no number {appointment_id.hex()}")
        return booking if number is None else replace(booking, number=number)

    async def read_many(self, ids: list[bytes], codes: Codes) -> dict[bytes, Booking]:
        rows = await self.pool.fetch(_BOOKING, [UUID(bytes=one) for one in ids])
        return {row["id"].bytes: await self._booking(row, codes) for row in rows}

    async def _booking(self, row: asyncpg.Record, codes: Codes) -> Booking:
        practitioner_id = row["schedule_id"].rpartition("-")[0]
        return Booking(
            id=row["id"].hex,
            department=codes.to_theirs("department", row["department_id"]),
            practitioner=codes.to_theirs("practitioner", practitioner_id),
            schedule=row["schedule_id"],
            session=_period(row["plan"], row["slot_id"].rpartition("-")[2]),
            starts_at=row["starts_at"],
            ends_at=row["starts_at"] + _SLOT,
            number=row["number"],
            fee_fen=row["fee_fen"],
            channel=Channel(row["channel"]).name.lower(),  # type: ignore[union-attr]
            person=await self._person(row),
        )

    async def _person(self, row: asyncpg.Record) -> Person:
        patient_id = row["patient_id"].bytes
        key = record_key(patient_id, row["record_key"])
        account_id = row["account_id"].bytes
        return Person(
            id=patient_id.hex(),
            his_id=await number_of(self.pool, self.vault, patient_id, SYSTEM),
            name=name_of(self.vault, patient_id, row["record_key"], row["name"]),
            sex=row["sex"],
            birth_date=row["birth_date"],
            id_type=row["id_type"],
            id_number=self.vault.open(key, ID_NUMBER, patient_id, row["id_number"]) or "",
            phone=phone_of(self.vault, account_id, patient_id, row["contact_key"], row["phone"]) or "",
        )


def _period(plan: str | None, clock: str) -> str:
    """morning | afternoon | night; "" where the slot is no more in its day."""
    if plan is None:
        return ""
    for session in plan_from_data(orjson.loads(plan)):
        if any(slot.clock == clock for slot in session.slots):
            return session.period
    return ""


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
