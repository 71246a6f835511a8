"""Accounts (logins), patients (people), and the rights of the ones to book for the others.

One identity, that is one document, is one patient row, whichever accounts book for it: facts such as missed
visits follow the person. A right ends (engine/domain/delegation.py) or is taken back; appointments made with
it stay. Ids go in and come out as 16 bytes.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, time
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from engine.domain.delegation import CHILD, GROWN_UP_YEARS, birthday, ends_on
from engine.records.identity import IdType, Person, is_same_name
from engine.records.request_keys import KeyUse, use_key

ACCOUNT_PATIENTS_MAX: Final = 10
ACCOUNT_PATIENTS_EVER_MAX: Final = 30
"""With those whose right has ended, so that no account becomes a turnstile for strangers."""
ID_DIGITS: Final = 4  # the last ones of a document's number, said again to renew


class PeopleRefusal(StrEnum):
    """Why nothing was done; web/faults.py has the words."""

    IDENTITY_MISMATCH = "identity_mismatch"
    TOO_MANY_PATIENTS = "too_many_patients"
    NO_SUCH_PATIENT = "no_such_patient"
    KEY_REUSED = "key_reused"
    DELEGATION_REVOKED = "delegation_revoked"
    CHILD_IS_GROWN_UP = "child_is_grown_up"
    ID_DIGITS_MISMATCH = "id_digits_mismatch"


@dataclass(frozen=True, slots=True)
class DelegationTerms:
    """How rights are dated here."""

    days: int  # a grown-up's consent; Policy.delegation_days
    zone: ZoneInfo  # the hospital's, in which a birthday begins

    def ends(self, relation: str, birth_date: date | None, now: datetime) -> datetime | None:
        day = ends_on(relation, birth_date, now.astimezone(self.zone).date(), self.days)
        return None if day is None else self._midnight(day)

    def grown_up(self, relation: str, birth_date: date | None) -> datetime | None:
        """When a child's right ends by itself; None for everybody else."""
        if relation != CHILD or birth_date is None:
            return None
        return self._midnight(birthday(birth_date, GROWN_UP_YEARS))

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self.zone)


@dataclass(frozen=True, slots=True)
class NewPatient:
    person: Person
    relation: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A person as one account knows them: relation, phone and the right to book are that account's."""

    id: bytes
    name: str
    id_type: IdType
    id_number: str
    phone: str
    relation: str
    birth_date: date | None
    sex: str | None
    expires_at: datetime | None = None  # None: for good
    revoked_at: datetime | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the right ends or has ended, whichever way."""
        return self.revoked_at or self.expires_at

    def is_expired(self, now: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= now


async def account_of_openid(conn: asyncpg.Connection, openid: str, new_id: bytes, now: datetime) -> bytes:
    """The account that this openid signs in to; it is `new_id` the first time, however many ask at once."""
    known = await conn.fetchval("select id from account where openid = $1", openid)
    if known is None:
        known = await conn.fetchval(
            "insert into account (id, openid, created_at) values ($1, $2, $3)"
            " on conflict (openid) do nothing returning id",
            UUID(bytes=new_id),
            openid,
            now,
        )
    if known is None:  # another sign-in was faster, and has committed: on conflict waited for it
        known = await conn.fetchval("select id from account where openid = $1", openid)
    assert known is not None
    return _bytes(known)


async def add_patient(
    conn: asyncpg.Connection,
    account_id: bytes,
    patient: NewPatient,
    new_id: bytes,
    terms: DelegationTerms,
    now: datetime,
) -> Patient | PeopleRefusal:
    """Makes a person one of the account's patients; again, the same with newest phone, relation and right."""
    person = patient.person
    account = UUID(bytes=account_id)
    async with conn.transaction():
        # One at a time for an account, so that the counts below hold.
        await conn.execute("select from account where id = $1 for update", account)
        known = await _by_identity(conn, person)
        if known is None:
            if await _is_full(conn, account, now):
                return PeopleRefusal.TOO_MANY_PATIENTS
            await conn.execute(
                "insert into patient (id, id_type, id_number, name, birth_date, sex, created_at)"
                " values ($1, $2, $3, $4, $5, $6, $7) on conflict (id_type, id_number) do nothing",
                UUID(bytes=new_id),
                person.id_type.value,
                person.id_number,
                person.name,
                person.birth_date,
                person.sex,
                now,
            )
            # Ours, or that of another account which was faster.
            known = await _by_identity(conn, person)
            assert known is not None
        if not _is_same(known, person):
            return PeopleRefusal.IDENTITY_MISMATCH
        if await _is_full(conn, account, now, known["id"]):
            return PeopleRefusal.TOO_MANY_PATIENTS
        birth_date, sex = known["birth_date"] or person.birth_date, known["sex"] or person.sex
        expires_at = terms.ends(patient.relation, birth_date, now)
        await conn.execute(
            "insert into account_patient"
            " (account_id, patient_id, relation, phone, created_at, expires_at, granted_by)"
            " values ($1, $2, $3, $4, $5, $6, $1)"
            " on conflict (account_id, patient_id) do update"
            " set relation = excluded.relation, phone = excluded.phone, expires_at = excluded.expires_at,"
            "     granted_by = excluded.granted_by, revoked_at = null",
            account,
            known["id"],
            patient.relation,
            person.phone,
            now,
            expires_at,
        )
        if (birth_date, sex) != (known["birth_date"], known["sex"]):
            await conn.execute(
                "update patient set birth_date = coalesce(birth_date, $2), sex = coalesce(sex, $3)"
                " where id = $1",
                known["id"],
                birth_date,
                sex,
            )
        return Patient(
            _bytes(known["id"]),
            known["name"],
            person.id_type,
            person.id_number,
            person.phone,
            patient.relation,
            birth_date,
            sex,
            expires_at,
        )


async def patients_of(conn: asyncpg.Connection, account_id: bytes) -> list[Patient]:
    """In the order in which they were added, also those whose right has ended."""
    rows = await conn.fetch(
        f"{_PATIENT} where a.account_id = $1 order by a.created_at, p.id", UUID(bytes=account_id)
    )
    return [_patient(row) for row in rows]


async def renew(
    conn: asyncpg.Connection,
    account_id: bytes,
    patient_id: bytes,
    id_digits: str,
    key: str,
    terms: DelegationTerms,
    now: datetime,
) -> Patient | PeopleRefusal:
    """Gives the right anew, from now on, to who knows the document's last digits. A retry changes nothing.

    A minor's right ends with childhood and no earlier or later, so renewing it says what there is. Who has
    grown up meanwhile has to consent like any grown-up: added again, with the whole number.
    """
    account = UUID(bytes=account_id)
    async with conn.transaction():
        await conn.execute("select from account where id = $1 for update", account)
        patient = await _patient_of(conn, account, patient_id)
        if patient is None:
            return PeopleRefusal.NO_SUCH_PATIENT
        if patient.revoked_at is not None:
            return PeopleRefusal.DELEGATION_REVOKED
        if patient.id_number[-ID_DIGITS:] != id_digits.upper():
            return PeopleRefusal.ID_DIGITS_MISMATCH
        if patient.expires_at is None:
            return patient
        if patient.expires_at == terms.grown_up(patient.relation, patient.birth_date):
            return PeopleRefusal.CHILD_IS_GROWN_UP if patient.is_expired(now) else patient
        if patient.is_expired(now) and await _is_full(conn, account, now, UUID(bytes=patient_id)):
            return PeopleRefusal.TOO_MANY_PATIENTS
        use = await use_key(conn, account_id, key, ("renewal", patient_id.hex(), id_digits), now)
        if use is not KeyUse.FIRST:
            return patient if use is KeyUse.AGAIN else PeopleRefusal.KEY_REUSED
        expires_at = terms.ends(patient.relation, patient.birth_date, now)
        await conn.execute(
            "update account_patient set expires_at = $3, granted_by = $1"
            " where account_id = $1 and patient_id = $2",
            account,
            UUID(bytes=patient_id),
            expires_at,
        )
        return replace(patient, expires_at=expires_at)


async def revoke(
    conn: asyncpg.Connection, account_id: bytes, patient_id: bytes, now: datetime
) -> Patient | PeopleRefusal:
    """Takes the right back; once more changes nothing. What was booked with it stays booked."""
    await conn.execute(
        "update account_patient set revoked_at = $3"
        " where account_id = $1 and patient_id = $2 and revoked_at is null",
        UUID(bytes=account_id),
        UUID(bytes=patient_id),
        now,
    )
    patient = await _patient_of(conn, UUID(bytes=account_id), patient_id)
    return PeopleRefusal.NO_SUCH_PATIENT if patient is None else patient


_PATIENT: Final = (
    "select p.id, p.name, p.id_type, p.id_number, a.phone, a.relation, p.birth_date, p.sex,"
    "       a.expires_at, a.revoked_at"
    "  from account_patient a join patient p on p.id = a.patient_id"
)


async def _patient_of(conn: asyncpg.Connection, account: UUID, patient_id: bytes) -> Patient | None:
    row = await conn.fetchrow(
        f"{_PATIENT} where a.account_id = $1 and a.patient_id = $2", account, UUID(bytes=patient_id)
    )
    return None if row is None else _patient(row)


def _patient(row: asyncpg.Record) -> Patient:
    return Patient(
        _bytes(row["id"]),
        row["name"],
        IdType(row["id_type"]),
        row["id_number"],
        row["phone"],
        row["relation"],
        row["birth_date"],
        row["sex"],
        row["expires_at"],
        row["revoked_at"],
    )


async def _by_identity(conn: asyncpg.Connection, person: Person) -> asyncpg.Record | None:
    return await conn.fetchrow(
        "select id, name, birth_date, sex from patient where id_type = $1 and id_number = $2",
        person.id_type.value,
        person.id_number,
    )


async def _is_full(conn: asyncpg.Connection, account: UUID, now: datetime, but: UUID | None = None) -> bool:
    """Whether the account may not have one patient more. `but` does not count: it may be one of its own."""
    live, ever, was_there = await conn.fetchrow(
        "select count(*) filter (where patient_id is distinct from $3 and revoked_at is null"
        "                        and (expires_at is null or expires_at > $2)),"
        "       count(*), coalesce(bool_or(patient_id = $3), false)"
        "  from account_patient where account_id = $1",
        account,
        now,
        but,
    )
    return bool(live >= ACCOUNT_PATIENTS_MAX or (ever >= ACCOUNT_PATIENTS_EVER_MAX and not was_there))


def _is_same(known: asyncpg.Record, person: Person) -> bool:
    """What is known of this identity and what was typed may leave things out, but not disagree."""
    return (
        is_same_name(known["name"], person.name)
        and (None in (known["birth_date"], person.birth_date) or known["birth_date"] == person.birth_date)
        and (None in (known["sex"], person.sex) or known["sex"] == person.sex)
    )


def _bytes(value: UUID | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.bytes
