"""Whom a registration of the HIS is for: known by their number or by their papers, or new."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import asyncpg

from engine.domain.intake import Unfit
from engine.domain.policy import Policy
from engine.records import patients
from engine.records.day_people import account_for
from engine.records.identity import IdentityFault, IdType, identify, is_same_name, normal_id_number
from engine.records.patient_numbers import link, patient_by_number
from engine.records.policies import load_policy
from engine.records.sealed_people import id_index, name_of
from engine.vault.vault import Vault
from integrations.his.his import Person
from web.fresh_ids import new_id
from web.his.bookings import SYSTEM


@dataclass(frozen=True, slots=True)
class People:
    pool: asyncpg.Pool
    vault: Vault
    zone: ZoneInfo

    async def known(self, person: Person | None, now: datetime) -> tuple[bytes, bytes]:
        """Patient and the account that the number is booked with. Raises Unfit."""
        if person is None:
            raise Unfit("registration.person", "missing")
        async with self.pool.acquire() as connection, connection.transaction():
            patient_id = None
            if person.his_id:
                patient_id = await patient_by_number(connection, self.vault, SYSTEM, person.his_id)
            if patient_id is not None:
                account_id = await account_for(connection, patient_id, now)
                if account_id is not None:
                    return patient_id, account_id
            patient_id, account_id = await self._by_papers(connection, person, now)
            if person.his_id:
                await link(connection, self.vault, patient_id, SYSTEM, person.his_id, SYSTEM, now)
            return patient_id, account_id

    async def _by_papers(
        self, connection: asyncpg.Connection, person: Person, now: datetime
    ) -> tuple[bytes, bytes]:
        """As if they stood at our own window."""
        try:
            id_type = IdType(person.id_type)
        except ValueError:
            raise Unfit("registration.person.id_type", "unknown_code") from None
        found = identify(
            person.name,
            id_type,
            person.id_number,
            person.phone,
            now.astimezone(self.zone).date(),
            person.birth_date,
            person.sex,
        )
        if isinstance(found, IdentityFault):
            raise Unfit("registration.person", found.value)
        policy = await load_policy(connection, Policy())
        terms = patients.DelegationTerms(
            policy.delegation_days, self.zone, policy.guardian_required, policy.word_is_enough
        )
        account_id = await patients.account_of_desk(connection, self.vault, found, new_id(), now)
        added = await patients.add_patient(
            connection, self.vault, account_id, patients.NewPatient(found, "self"), new_id(), terms, now
        )
        if not isinstance(added, patients.Patient):
            why = added.value if isinstance(added, patients.PeopleRefusal) else "consent_needed"
            raise Unfit("registration.person", why)
        return added.id, account_id

    async def linked(self, person: Person, merged_from: str | None, now: datetime) -> bool:
        """Their number of somebody we know; of a merge, what the old number meant is what the new one means.

        False: nobody we know. Raises Unfit where the two numbers are two people here."""
        if not person.his_id:
            raise Unfit("person.his_id", "missing")
        async with self.pool.acquire() as connection, connection.transaction():
            known = await patient_by_number(connection, self.vault, SYSTEM, person.his_id)
            old = None
            if merged_from:
                old = await patient_by_number(connection, self.vault, SYSTEM, merged_from)
            if known is not None and old is not None and known != old:
                raise Unfit("merged_from", "two_people")
            patient_id = known or old or await self._by_id_number(connection, person)
            if patient_id is None:
                return False
            for number in (person.his_id, merged_from):
                if number:
                    await link(connection, self.vault, patient_id, SYSTEM, number, SYSTEM, now)
        return True

    async def _by_id_number(self, connection: asyncpg.Connection, person: Person) -> bytes | None:
        if person.id_type not in set(IdType) or not person.id_number:
            return None
        number = normal_id_number(IdType(person.id_type), person.id_number)
        if number is None:
            raise Unfit("person.id_number", "invalid_id_number")
        row = await connection.fetchrow(
            "select id, record_key, name from patient where id_index = $1",
            id_index(self.vault, person.id_type, number),
        )
        if row is None:
            return None
        name = name_of(self.vault, row["id"].bytes, row["record_key"], row["name"])
        if person.name and not is_same_name(name, person.name):
            raise Unfit("person.name", "another_person")
        found: bytes = row["id"].bytes
        return found
