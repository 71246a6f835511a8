"""Accounts (logins), patients (people), and the rights of the ones to book for the others.

One identity, that is one document, is one patient row, whichever accounts book for it: facts such as missed
visits follow the person. A right ends (engine/domain/delegation.py) or is taken back; appointments made with
it stay. Ids go in and come out as 16 bytes.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, time
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from engine.domain.delegation import (
    ALL,
    GROWN_UP_YEARS,
    GUARDED,
    SELF,
    Consent,
    Rights,
    Way,
    Wish,
    birthday,
    ends_on,
    way_of,
)
from engine.domain.eligibility import full_years
from engine.records.delegations import Asked, DelegationRefusal, ask, has_own_account
from engine.records.identity import IN_REGISTER, IdType, Person, is_same_name
from engine.records.real_names import State, Verification
from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import (
    ID_NUMBER,
    NAME,
    PHONE,
    contact_key,
    contact_key_of,
    id_index,
    name_of,
    phone_of,
    phone_row,
    record_key,
)
from engine.vault.columns import CONTACT_KEY, RECORD_KEY
from engine.vault.vault import Vault

ACCOUNT_PATIENTS_MAX: Final = 10
ACCOUNT_PATIENTS_EVER_MAX: Final = 30
"""With those whose right has ended, so that no account becomes a turnstile for strangers."""
ID_DIGITS: Final = 4  # the last ones of a document's number, said again to renew
CONSENT_VERSION: Final = 1
"""Of what whoever adds a person says by it: docs/PEOPLE.md has the words."""


class PeopleRefusal(StrEnum):
    """Why nothing was done; web/faults.py has the words."""

    IDENTITY_MISMATCH = "identity_mismatch"
    TOO_MANY_PATIENTS = "too_many_patients"
    NO_SUCH_PATIENT = "no_such_patient"
    KEY_REUSED = "key_reused"
    DELEGATION_REVOKED = "delegation_revoked"
    CHILD_IS_GROWN_UP = "child_is_grown_up"
    ID_DIGITS_MISMATCH = "id_digits_mismatch"
    GUARDIAN_NEEDED = "guardian_needed"
    PERSON_MUST_CONSENT = "person_must_consent"


@dataclass(frozen=True, slots=True)
class DelegationTerms:
    """How rights are dated here."""

    days: int  # a grown-up's consent; Policy.delegation_days
    zone: ZoneInfo  # the hospital's, in which a birthday begins
    guardian_required: bool = False  # Policy.guardian_required
    word_is_enough: bool = False  # Policy.word_is_enough

    def years(self, birth_date: date | None, now: datetime) -> int | None:
        return None if birth_date is None else full_years(birth_date, now.astimezone(self.zone).date())

    def ends(self, relation: str, birth_date: date | None, now: datetime) -> datetime | None:
        day = ends_on(relation, birth_date, now.astimezone(self.zone).date(), self.days)
        return None if day is None else self._midnight(day)

    def grown_up(self, relation: str, birth_date: date | None) -> datetime | None:
        """When the right for a child or ward ends by itself; None for everybody else."""
        if relation not in GUARDED or birth_date is None:
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
    rights: Rights = ALL
    verification: State = "unverified"

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


async def account_of_desk(
    conn: asyncpg.Connection, vault: Vault, person: Person, new_id: bytes, now: datetime
) -> bytes:
    """The account that the hospital keeps for a person who registers at its desk; nobody signs in to it."""
    return await account_of_openid(conn, desk_openid(vault, person.id_type, person.id_number), new_id, now)


def desk_openid(vault: Vault, id_type: str, id_number: str) -> str:
    """Keyed: from a plain hash of it, whoever reads the table could find an identity number by trying."""
    return f"desk:{vault.index('account.openid', f'{id_type}/{id_number}').hex()}"


async def add_patient(
    conn: asyncpg.Connection,
    vault: Vault,
    account_id: bytes,
    patient: NewPatient,
    new_id: bytes,
    terms: DelegationTerms,
    now: datetime,
    verification: Verification | None = None,
) -> Patient | Asked | PeopleRefusal:
    """Makes a person one of the account's patients; again, the same with newest phone, relation and right.

    A grown-up who has an account of their own is asked there first: then only the request is stored. What
    they have given stays as they gave it. `verification`: what is known of the real name; None: ask the
    register in time.
    """
    person = patient.person
    account = UUID(bytes=account_id)
    async with conn.transaction():
        # One at a time for an account, so that the counts below hold.
        by_desk = await conn.fetchval(
            "select openid like 'desk:%' from account where id = $1 for update", account
        )
        known = await _by_identity(conn, vault, person)
        if known is None:
            if await _is_full(conn, account, now):
                return PeopleRefusal.TOO_MANY_PATIENTS
            way, _ = await _way(conn, account_id, None, patient.relation, person.birth_date, terms, now)
            if way is not Way.GIVEN and not by_desk:
                return _REFUSED[way]
            await _insert(conn, vault, person, new_id, now)
        # Ours, or that of another account which was faster. Of two that say `self` at once, one comes first.
        known = await _by_identity(conn, vault, person, "for no key update of p")
        assert known is not None
        patient_id = _bytes(known["id"])
        name = name_of(vault, patient_id, known["record_key"], known["name"])
        if not _is_same(name, known, person):
            return PeopleRefusal.IDENTITY_MISMATCH
        if await _is_full(conn, account, now, known["id"]):
            return PeopleRefusal.TOO_MANY_PATIENTS
        birth_date, sex = known["birth_date"] or person.birth_date, known["sex"] or person.sex
        way, consent = await _way(conn, account_id, patient_id, patient.relation, birth_date, terms, now)
        if by_desk:
            way, consent = Way.GIVEN, Consent.DESK
        if way is Way.ASKED:
            asked = await ask(
                conn, vault, account_id, patient_id, name, patient.relation, person.phone, new_id, now
            )
            return PeopleRefusal.TOO_MANY_PATIENTS if isinstance(asked, DelegationRefusal) else asked
        if way is not Way.GIVEN:
            return _REFUSED[way]
        contact = contact_key(patient_id, known["contact_key"])
        if contact.wrapped is None:  # it was erased, and here the person is again
            contact = await contact_key_of(conn, vault, patient_id)
        phone = vault.seal(contact, PHONE, phone_row(account_id, patient_id), person.phone)
        if consent is Consent.APPROVED:  # it stands as the person gave it
            await conn.execute(
                "update account_patient set phone = $3 where account_id = $1 and patient_id = $2",
                account,
                known["id"],
                phone,
            )
        else:
            expires_at = terms.ends(patient.relation, birth_date, now)
            await _give(conn, account, known["id"], patient.relation, phone, expires_at, consent, now)
        await _complete(conn, known, birth_date, sex, verification, person.id_type, now)
        added = await _patient_of(conn, vault, account, patient_id)
        assert added is not None
        return added


_REFUSED: Final = {
    Way.GUARDIAN_NEEDED: PeopleRefusal.GUARDIAN_NEEDED,
    Way.REFUSED: PeopleRefusal.DELEGATION_REVOKED,
}


async def _way(
    conn: asyncpg.Connection,
    account_id: bytes,
    patient_id: bytes | None,
    relation: str,
    birth_date: date | None,
    terms: DelegationTerms,
    now: datetime,
) -> tuple[Way, Consent]:
    """What becomes of the wish to act for somebody; `patient_id` None: nobody knows them yet."""
    own = had = None
    if patient_id is not None:
        own = await has_own_account(conn, patient_id, account_id)
        had = await conn.fetchrow(
            "select relation, revoked_at, revoked_by, expires_at from account_patient"
            " where account_id = $1 and patient_id = $2",
            UUID(bytes=account_id),
            UUID(bytes=patient_id),
        )
    years = terms.years(birth_date, now)
    guardian_known = terms.guardian_required and await _is_grown_up(conn, account_id, terms, now)
    is_live = (
        had is not None
        and had["revoked_at"] is None
        and (had["expires_at"] is None or had["expires_at"] > now)
        and had["relation"] == relation
    )
    taken_back_by = had["revoked_by"] if had is not None and had["revoked_by"] != "asker" else None
    wish = Wish(relation, years, bool(own), is_live, guardian_known, taken_back_by)
    way, consent = way_of(
        wish, guardian_required=terms.guardian_required, word_is_enough=terms.word_is_enough
    )
    if is_live and own and consent not in (Consent.OWN, Consent.GUARDIAN):
        consent = Consent.APPROVED
    return way, consent


async def _is_grown_up(
    conn: asyncpg.Connection, account_id: bytes, terms: DelegationTerms, now: datetime
) -> bool:
    """Whether the account's holder is known, and of age."""
    rows = await conn.fetch(
        "select p.birth_date from account_patient a join patient p on p.id = a.patient_id"
        " where a.account_id = $1 and a.relation = 'self' and a.revoked_at is null",
        UUID(bytes=account_id),
    )
    return any(
        years is not None and years >= GROWN_UP_YEARS
        for years in (terms.years(row["birth_date"], now) for row in rows)
    )


async def _give(
    conn: asyncpg.Connection,
    account: UUID,
    patient: UUID,
    relation: str,
    phone: bytes,
    expires_at: datetime | None,
    consent: Consent,
    now: datetime,
) -> None:
    """What the right covers stays as it was, all of it at first."""
    await conn.execute(
        "insert into account_patient (account_id, patient_id, relation, phone, created_at, expires_at,"
        "   granted_by, consent, consent_version, consent_at)"
        " values ($1, $2, $3, $4, $5, $6, $1, $7, $8, $5)"
        " on conflict (account_id, patient_id) do update"
        " set relation = excluded.relation, phone = excluded.phone, expires_at = excluded.expires_at,"
        "     granted_by = excluded.granted_by, revoked_at = null, revoked_by = null,"
        "     consent = excluded.consent, consent_version = excluded.consent_version,"
        "     consent_at = excluded.consent_at",
        account,
        patient,
        relation,
        phone,
        now,
        expires_at,
        consent.value,
        CONSENT_VERSION,
    )


async def _complete(
    conn: asyncpg.Connection,
    known: asyncpg.Record,
    birth_date: date | None,
    sex: str | None,
    verification: Verification | None,
    id_type: IdType,
    now: datetime,
) -> None:
    """What was not known of the person until now."""
    if (birth_date, sex) != (known["birth_date"], known["sex"]):
        await conn.execute(
            "update patient set birth_date = coalesce(birth_date, $2), sex = coalesce(sex, $3) where id = $1",
            known["id"],
            birth_date,
            sex,
        )
    if known["verification"] == "verified":
        return
    if verification is not None and verification.state == "verified":
        await conn.execute(
            "update patient set verification = 'verified', verified_at = $2, verified_by = $3,"
            "       verify_at = null where id = $1",
            known["id"],
            verification.at,
            verification.by,
        )
        return
    ask_at = verification.ask_at if verification is not None else now if id_type in IN_REGISTER else None
    if ask_at is not None and known["verification"] == "unverified":
        await conn.execute(
            "update patient set verify_at = coalesce(verify_at, $2) where id = $1", known["id"], ask_at
        )


async def account_has_room(
    conn: asyncpg.Connection, account_id: bytes, patient_id: bytes, now: datetime
) -> bool:
    """Whether this patient may be one of the account's. In a transaction: the account is locked from here."""
    account = UUID(bytes=account_id)
    await conn.execute("select from account where id = $1 for update", account)
    return not await _is_full(conn, account, now, UUID(bytes=patient_id))


async def patients_of(conn: asyncpg.Connection, vault: Vault, account_id: bytes) -> list[Patient]:
    """In the order in which they were added, also those whose right has ended."""
    rows = await conn.fetch(
        f"{_PATIENT} where a.account_id = $1 order by a.created_at, p.id", UUID(bytes=account_id)
    )
    return [_patient(vault, row) for row in rows]


async def renew(
    conn: asyncpg.Connection,
    vault: Vault,
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
        patient = await _patient_of(conn, vault, account, patient_id)
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
        if patient.relation != SELF and await has_own_account(conn, patient_id, account_id):
            return PeopleRefusal.PERSON_MUST_CONSENT
        if patient.is_expired(now) and await _is_full(conn, account, now, UUID(bytes=patient_id)):
            return PeopleRefusal.TOO_MANY_PATIENTS
        # Four digits are soon tried: what is kept of them is keyed.
        digits = vault.index("request_key.fingerprint", id_digits).hex()
        use = await use_key(conn, account_id, key, ("renewal", patient_id.hex(), digits), now)
        if use is not KeyUse.FIRST:
            return patient if use is KeyUse.AGAIN else PeopleRefusal.KEY_REUSED
        expires_at = terms.ends(patient.relation, patient.birth_date, now)
        await conn.execute(
            "update account_patient"
            " set expires_at = $3, granted_by = $1, consent_at = $4, consent_version = $5"
            " where account_id = $1 and patient_id = $2",
            account,
            UUID(bytes=patient_id),
            expires_at,
            now,
            CONSENT_VERSION,
        )
        return replace(patient, expires_at=expires_at)


async def revoke(
    conn: asyncpg.Connection, vault: Vault, account_id: bytes, patient_id: bytes, now: datetime
) -> Patient | PeopleRefusal:
    """Takes the right back; once more changes nothing. What was booked with it stays booked."""
    await conn.execute(
        "update account_patient set revoked_at = $3, revoked_by = 'asker'"
        " where account_id = $1 and patient_id = $2 and revoked_at is null",
        UUID(bytes=account_id),
        UUID(bytes=patient_id),
        now,
    )
    patient = await _patient_of(conn, vault, UUID(bytes=account_id), patient_id)
    return PeopleRefusal.NO_SUCH_PATIENT if patient is None else patient


_PATIENT: Final = (
    "select p.id, p.name, p.id_type, p.id_number, a.phone, a.relation, p.birth_date, p.sex,"
    "       a.expires_at, a.revoked_at, a.account_id, p.record_key, p.contact_key, a.may_book, a.may_see,"
    "       a.may_pay, p.verification"
    "  from account_patient a join patient p on p.id = a.patient_id"
)


async def _patient_of(
    conn: asyncpg.Connection, vault: Vault, account: UUID, patient_id: bytes
) -> Patient | None:
    row = await conn.fetchrow(
        f"{_PATIENT} where a.account_id = $1 and a.patient_id = $2", account, UUID(bytes=patient_id)
    )
    return None if row is None else _patient(vault, row)


def _patient(vault: Vault, row: asyncpg.Record) -> Patient:
    id_, account_id = _bytes(row["id"]), _bytes(row["account_id"])
    return Patient(
        id_,
        name_of(vault, id_, row["record_key"], row["name"]),
        IdType(row["id_type"]),
        vault.open(record_key(id_, row["record_key"]), ID_NUMBER, id_, row["id_number"]) or "",
        phone_of(vault, account_id, id_, row["contact_key"], row["phone"]) or "",
        row["relation"],
        row["birth_date"],
        row["sex"],
        row["expires_at"],
        row["revoked_at"],
        Rights(row["may_book"], row["may_see"], row["may_pay"]),
        row["verification"],
    )


async def _insert(
    conn: asyncpg.Connection, vault: Vault, person: Person, new_id: bytes, now: datetime
) -> None:
    """Nothing where somebody with this document is there already."""
    record, contact = vault.new_key(RECORD_KEY.field, new_id), vault.new_key(CONTACT_KEY.field, new_id)
    await conn.execute(
        "insert into patient (id, id_type, id_number, id_index, name, birth_date, sex, created_at,"
        " record_key, contact_key)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id_index) do nothing",
        UUID(bytes=new_id),
        person.id_type.value,
        vault.seal(record, ID_NUMBER, new_id, person.id_number),
        id_index(vault, person.id_type, person.id_number),
        vault.seal(record, NAME, new_id, person.name),
        person.birth_date,
        person.sex,
        now,
        record.wrapped,
        contact.wrapped,
    )


async def _by_identity(
    conn: asyncpg.Connection,
    vault: Vault,
    person: Person,
    lock: Literal["", "for no key update of p"] = "",
) -> asyncpg.Record | None:
    return await conn.fetchrow(
        # Who was forgotten but for the record is found by the document, and is back with the next row of
        # account_patient: engine/records/erasure.py.
        "select p.id, coalesce(p.name, k.name) as name, p.birth_date, p.sex, p.record_key, p.contact_key,"
        "       p.verification"
        f"  from patient p left join kept_identity k on k.patient_id = p.id where p.id_index = $1 {lock}",
        id_index(vault, person.id_type, person.id_number),
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


def _is_same(name: str, known: asyncpg.Record, person: Person) -> bool:
    """What is known of this identity and what was typed may leave things out, but not disagree."""
    return (
        is_same_name(name, person.name)
        and (None in (known["birth_date"], person.birth_date) or known["birth_date"] == person.birth_date)
        and (None in (known["sex"], person.sex) or known["sex"] == person.sex)
    )


def _bytes(value: UUID | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.bytes
