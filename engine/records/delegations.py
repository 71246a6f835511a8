"""Rights to act for others, as the person sees them whom they are about: who asks, who has which, until when.

A right is a row of account_patient (engine/records/patients.py); before somebody who has an account of their
own has said yes, it is a delegation_request. `self` in an account that somebody signs in to makes it the
person's own. The accounts that the hospital keeps by itself (openid desk:…) are nobody's: nobody is asked
there. Ids are 16 bytes; a right keeps the id of the request that it came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import asyncpg

from engine.domain.delegation import ALL, SELF, Consent, Rights
from engine.records.sealed_people import (
    ACCOUNT_PHONE,
    account_key,
    contact_key,
    contact_key_of,
    name_of,
    phone_of,
    phone_row,
)
from engine.records.sealed_people import PHONE as RIGHT_PHONE
from engine.vault.vault import Vault

REQUEST_DAYS: Final = 7
"""So long somebody has to answer."""
REQUESTS_MAX: Final = 10
"""Open ones of one account, so that none becomes a way to pester people."""
PHONE: Final = "delegation_request.phone"


class DelegationRefusal(StrEnum):
    """Why nothing was done; web/faults.py has the words."""

    NO_SUCH_DELEGATION = "no_such_delegation"
    DELEGATION_DECIDED = "delegation_decided"
    TOO_MANY_PATIENTS = "too_many_patients"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who acts, or would like to, as the person may know them."""

    name: str | None  # of the account's own `self`; None: it has none
    phone: str | None  # theirs, where WeChat has said so; else the one they gave for this person


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is open."""

    id: bytes
    patient_id: bytes
    patient_name: str
    relation: str
    asked_at: datetime
    ends_at: datetime
    asker: Asker | None  # None: oneself


@dataclass(frozen=True, slots=True)
class Given:
    """A right that others have."""

    id: bytes
    patient_id: bytes
    patient_name: str
    relation: str
    rights: Rights
    consent: Consent
    given_at: datetime
    expires_at: datetime | None
    asker: Asker


Outcome = Literal["approved", "rejected", "withdrawn", "changed", "revoked"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the person said, and whom it is about."""

    id: bytes
    patient_id: bytes
    status: Outcome
    expires_at: datetime | None = None
    is_new: bool = True  # False: it was so before


async def has_own_account(conn: asyncpg.Connection, patient_id: bytes, but: bytes) -> bool:
    """Whether this person signs in with another account than `but`."""
    return bool(
        await conn.fetchval(
            "select exists (select from account_patient ap join account a on a.id = ap.account_id"
            f"  where ap.patient_id = $1 and ap.account_id <> $2 and {_OWN})",
            UUID(bytes=patient_id),
            UUID(bytes=but),
        )
    )


async def ask(
    conn: asyncpg.Connection,
    vault: Vault,
    account_id: bytes,
    patient_id: bytes,
    name: str,
    relation: str,
    phone: str,
    new_id: bytes,
    now: datetime,
) -> Asked | DelegationRefusal:
    """Asks the person. Asking again, while it is open, is the same request with the newest relation, phone.

    In a transaction in which the account's row is locked."""
    account, patient = UUID(bytes=account_id), UUID(bytes=patient_id)
    await conn.execute(  # one that nobody answered makes room
        "update delegation_request set status = 'withdrawn', decided_at = ends_at, decided_by = 'time'"
        " where account_id = $1 and status = 'asked' and ends_at <= $2",
        account,
        now,
    )
    known = await conn.fetchrow(
        "select id, asked_at, ends_at from delegation_request"
        " where account_id = $1 and patient_id = $2 and status = 'asked' for update",
        account,
        patient,
    )
    if known is None:
        opened = await conn.fetchval(
            "select count(*) from delegation_request where account_id = $1 and status = 'asked'", account
        )
        if opened >= REQUESTS_MAX:
            return DelegationRefusal.TOO_MANY_PATIENTS
    id_ = new_id if known is None else known["id"].bytes
    asked_at = now if known is None else known["asked_at"]
    ends_at = now + timedelta(days=REQUEST_DAYS) if known is None else known["ends_at"]
    key = await contact_key_of(conn, vault, patient_id)
    await conn.execute(
        "insert into delegation_request"
        " (id, account_id, patient_id, relation, phone, status, asked_at, ends_at)"
        " values ($1, $2, $3, $4, $5, 'asked', $6, $7)"
        " on conflict (id) do update set relation = excluded.relation, phone = excluded.phone",
        UUID(bytes=id_),
        account,
        patient,
        relation,
        vault.seal(key, PHONE, id_, phone),
        asked_at,
        ends_at,
    )
    return Asked(id_, patient_id, name, relation, asked_at, ends_at, None)


async def asked_by(conn: asyncpg.Connection, vault: Vault, account_id: bytes, now: datetime) -> list[Asked]:
    """What this account has asked and nobody has answered yet, oldest first."""
    rows = await conn.fetch(
        f"{_ASKED} where r.account_id = $1 and r.status = 'asked' and r.ends_at > $2"
        " order by r.asked_at, r.id",
        UUID(bytes=account_id),
        now,
    )
    return [_asked(vault, row, with_asker=False) for row in rows]


async def asked_of(conn: asyncpg.Connection, vault: Vault, account_id: bytes, now: datetime) -> list[Asked]:
    """What others ask of the people who are this account's `self`, oldest first."""
    rows = await conn.fetch(
        f"{_ASKED} where r.patient_id in ({_MINE}) and r.account_id <> $1"
        "   and r.status = 'asked' and r.ends_at > $2 order by r.asked_at, r.id",
        UUID(bytes=account_id),
        now,
    )
    return [_asked(vault, row, with_asker=True) for row in rows]


async def asked_for(conn: asyncpg.Connection, vault: Vault, patient_id: bytes, now: datetime) -> list[Asked]:
    """What is open about a person, as a desk sees it."""
    rows = await conn.fetch(
        f"{_ASKED} where r.patient_id = $1 and r.status = 'asked' and r.ends_at > $2"
        " order by r.asked_at, r.id",
        UUID(bytes=patient_id),
        now,
    )
    return [_asked(vault, row, with_asker=True) for row in rows]


async def given_by(conn: asyncpg.Connection, vault: Vault, account_id: bytes, now: datetime) -> list[Given]:
    """Rights that others have for the people who are this account's `self`, oldest first."""
    rows = await conn.fetch(
        f"{_GIVEN} where g.patient_id in ({_MINE}) and g.account_id <> $1 and {_LIVE}"
        "   and a.openid not like 'desk:%' order by g.created_at, g.id",
        UUID(bytes=account_id),
        now,
    )
    return [_given(vault, row) for row in rows]


async def approve(
    conn: asyncpg.Connection,
    vault: Vault,
    request_id: bytes,
    person: bytes | None,
    by: str,
    rights: Rights,
    expires_at: datetime | None,
    version: int,
    now: datetime,
) -> Decision | DelegationRefusal:
    """Gives what was asked. `person` is the account that says yes; None: a desk that has seen the papers.

    Once more says what there is. Call it in a transaction; the caller knows whether the account is full.
    """
    row = await _locked(conn, request_id, person)
    if row is None:
        return DelegationRefusal.NO_SUCH_DELEGATION
    patient_id, asker = row["patient_id"].bytes, row["account_id"].bytes
    if row["status"] == "approved":
        return Decision(request_id, patient_id, "approved", await _ends(conn, row), is_new=False)
    if row["status"] != "asked" or row["ends_at"] <= now:
        return DelegationRefusal.DELEGATION_DECIDED
    key = await contact_key_of(conn, vault, patient_id)
    phone = vault.open(key, PHONE, request_id, row["phone"])
    consent = Consent.DESK if person is None else Consent.APPROVED
    if row["relation"] == SELF:  # of oneself everything, for good
        rights, expires_at = ALL, None
    await conn.execute(
        "insert into account_patient (account_id, patient_id, relation, phone, created_at, expires_at,"
        "   granted_by, id, may_book, may_see, may_pay, consent, consent_version, consent_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $5)"
        " on conflict (account_id, patient_id) do update"
        " set relation = excluded.relation, phone = excluded.phone, expires_at = excluded.expires_at,"
        "     granted_by = excluded.granted_by, revoked_at = null, revoked_by = null, id = excluded.id,"
        "     may_book = excluded.may_book, may_see = excluded.may_see, may_pay = excluded.may_pay,"
        "     consent = excluded.consent, consent_version = excluded.consent_version,"
        "     consent_at = excluded.consent_at",
        row["account_id"],
        row["patient_id"],
        row["relation"],
        None if phone is None else vault.seal(key, RIGHT_PHONE, phone_row(asker, patient_id), phone),
        now,
        expires_at,
        None if person is None else UUID(bytes=person),
        UUID(bytes=request_id),
        *_flags(rights),
        consent.value,
        version,
    )
    await _decide(conn, request_id, "approved", by, now)
    return Decision(request_id, patient_id, "approved", expires_at)


async def end_other_selves(conn: asyncpg.Connection, patient_id: bytes, but: bytes, now: datetime) -> int:
    """A clerk has seen whose papers these are: other accounts say `self` of this person no more."""
    ended = await conn.fetch(
        "update account_patient ap set revoked_at = $3, revoked_by = 'desk', may_see = false"
        "  from account a where a.id = ap.account_id and a.openid not like 'desk:%'"
        "   and ap.patient_id = $1 and ap.account_id <> $2 and ap.relation = 'self' and ap.revoked_at is null"
        " returning ap.account_id",
        UUID(bytes=patient_id),
        UUID(bytes=but),
        now,
    )
    return len(ended)


async def reject(
    conn: asyncpg.Connection, request_id: bytes, person: bytes, now: datetime
) -> Decision | DelegationRefusal:
    """Once more changes nothing. Call it in a transaction."""
    row = await _locked(conn, request_id, person)
    if row is None:
        return DelegationRefusal.NO_SUCH_DELEGATION
    is_new = row["status"] == "asked" and row["ends_at"] > now
    if is_new:
        await _decide(conn, request_id, "rejected", UUID(bytes=person).hex, now)
    elif row["status"] != "rejected":
        return DelegationRefusal.DELEGATION_DECIDED
    return Decision(request_id, row["patient_id"].bytes, "rejected", is_new=is_new)


async def change(
    conn: asyncpg.Connection,
    right_id: bytes,
    person: bytes,
    rights: Rights,
    expires_at: datetime | None,
    now: datetime,
) -> Decision | DelegationRefusal:
    """What a right covers from now on, and until when. Call it in a transaction."""
    row = await conn.fetchrow(
        "update account_patient g set may_book = $4, may_see = $5, may_pay = $6, expires_at = $7"
        f" where id = $3 and patient_id in ({_MINE}) and account_id <> $1 and relation <> 'self' and {_LIVE}"
        " returning patient_id, expires_at",
        UUID(bytes=person),
        now,
        UUID(bytes=right_id),
        *_flags(rights),
        expires_at,
    )
    if row is None:
        return DelegationRefusal.NO_SUCH_DELEGATION
    return Decision(right_id, row["patient_id"].bytes, "changed", row["expires_at"])


async def take_back(
    conn: asyncpg.Connection, delegation_id: bytes, account_id: bytes, now: datetime
) -> Decision | DelegationRefusal:
    """The person takes a right back, at once and without a reason; or who asked takes the request back. Once
    more changes nothing. What was booked with it stays booked, and is not shown any more when it has taken
    place. Call it in a transaction."""
    row = await conn.fetchrow(
        "update account_patient set revoked_at = coalesce(revoked_at, $2), may_see = false,"
        "       revoked_by = coalesce(revoked_by, 'person')"
        f" where id = $3 and patient_id in ({_MINE}) and account_id <> $1 returning patient_id, revoked_at",
        UUID(bytes=account_id),
        now,
        UUID(bytes=delegation_id),
    )
    if row is not None:
        return Decision(
            delegation_id,
            row["patient_id"].bytes,
            "revoked",
            row["revoked_at"],
            row["revoked_at"] == now,
        )
    row = await conn.fetchrow(
        "select patient_id, status from delegation_request where id = $1 and account_id = $2 for update",
        UUID(bytes=delegation_id),
        UUID(bytes=account_id),
    )
    if row is None:
        return DelegationRefusal.NO_SUCH_DELEGATION
    is_new = row["status"] == "asked"
    if is_new:
        await _decide(conn, delegation_id, "withdrawn", UUID(bytes=account_id).hex, now)
    elif row["status"] != "withdrawn":
        return DelegationRefusal.DELEGATION_DECIDED
    return Decision(delegation_id, row["patient_id"].bytes, "withdrawn", is_new=is_new)


@dataclass(frozen=True, slots=True)
class Asking:
    """What a right's end is reckoned from, and whose it will be."""

    account_id: bytes
    patient_id: bytes
    relation: str
    birth_date: date | None


async def asking(conn: asyncpg.Connection, request_id: bytes) -> Asking | None:
    row = await conn.fetchrow(
        "select r.account_id, r.patient_id, r.relation, p.birth_date from delegation_request r"
        "  join patient p on p.id = r.patient_id where r.id = $1",
        UUID(bytes=request_id),
    )
    if row is None:
        return None
    return Asking(row["account_id"].bytes, row["patient_id"].bytes, row["relation"], row["birth_date"])


async def changed_since(conn: asyncpg.Connection, since: datetime) -> list[bytes]:
    """Accounts whose rights are others since then."""
    rows = await conn.fetch("select distinct account_id from account_patient where changed_at >= $1", since)
    return [row["account_id"].bytes for row in rows]


async def may_pay(pool: asyncpg.Pool, account_id: bytes, patient_id: bytes) -> bool:
    """Unless the person said otherwise. A right that has ended pays for what it has booked."""
    refused = await pool.fetchval(
        "select exists (select from account_patient"
        "                where account_id = $1 and patient_id = $2 and not may_pay)",
        account_id.hex(),
        patient_id.hex(),
    )
    return not refused


_OWN: Final = "ap.relation = 'self' and ap.revoked_at is null and a.openid not like 'desk:%'"
_LIVE: Final = "g.revoked_at is null and (g.expires_at is null or g.expires_at > $2)"
_MINE: Final = (
    "select patient_id from account_patient"
    " where account_id = $1 and relation = 'self' and revoked_at is null"
)
_ASKER: Final = (
    "a.contact_key as asker_key, a.phone as asker_phone, s.id as self_id, s.name as self_name,"
    " s.record_key as self_key, p.name, p.record_key, p.contact_key"
)
_SELF: Final = (
    " left join lateral (select q.id, q.name, q.record_key from account_patient o join patient q"
    "                       on q.id = o.patient_id"
    "                     where o.account_id = a.id and o.relation = 'self' and o.revoked_at is null"
    "                     order by o.created_at limit 1) s on true"
)
_ASKED: Final = (
    f"select r.*, {_ASKER} from delegation_request r join account a on a.id = r.account_id"
    f"  join patient p on p.id = r.patient_id {_SELF}"
)
_GIVEN: Final = (
    f"select g.*, {_ASKER} from account_patient g join account a on a.id = g.account_id"
    f"  join patient p on p.id = g.patient_id {_SELF}"
)


def _asked(vault: Vault, row: asyncpg.Record, *, with_asker: bool) -> Asked:
    id_, patient_id = row["id"].bytes, row["patient_id"].bytes
    told = vault.open(contact_key(patient_id, row["contact_key"]), PHONE, id_, row["phone"])
    return Asked(
        id_,
        patient_id,
        name_of(vault, patient_id, row["record_key"], row["name"]),
        row["relation"],
        row["asked_at"],
        row["ends_at"],
        _asker(vault, row, told) if with_asker else None,
    )


def _given(vault: Vault, row: asyncpg.Record) -> Given:
    account_id, patient_id = row["account_id"].bytes, row["patient_id"].bytes
    told = phone_of(vault, account_id, patient_id, row["contact_key"], row["phone"])
    return Given(
        row["id"].bytes,
        patient_id,
        name_of(vault, patient_id, row["record_key"], row["name"]),
        row["relation"],
        Rights(row["may_book"], row["may_see"], row["may_pay"]),
        Consent(row["consent"]),
        row["consent_at"] or row["created_at"],
        row["expires_at"],
        _asker(vault, row, told),
    )


def _asker(vault: Vault, row: asyncpg.Record, told: str | None) -> Asker:
    account_id = row["account_id"].bytes
    bound = vault.open(
        account_key(account_id, row["asker_key"]), ACCOUNT_PHONE, account_id, row["asker_phone"]
    )
    self_id = row["self_id"]
    name = None if self_id is None else name_of(vault, self_id.bytes, row["self_key"], row["self_name"])
    return Asker(name, bound or told)


def _flags(rights: Rights) -> Sequence[bool]:
    return rights.book, rights.see_visits, rights.pay


async def _locked(conn: asyncpg.Connection, request_id: bytes, person: bytes | None) -> asyncpg.Record | None:
    """A request that this account may answer; None for `person`: a desk may answer all."""
    mine = (
        f" and account_id <> $1 and patient_id in ({_MINE})"
        if person is not None
        else " and $1::uuid is null"
    )
    return await conn.fetchrow(
        f"select * from delegation_request where id = $2{mine} for update",
        None if person is None else UUID(bytes=person),
        UUID(bytes=request_id),
    )


async def _ends(conn: asyncpg.Connection, row: asyncpg.Record) -> datetime | None:
    found: datetime | None = await conn.fetchval(
        "select expires_at from account_patient where account_id = $1 and patient_id = $2",
        row["account_id"],
        row["patient_id"],
    )
    return found


async def _decide(conn: asyncpg.Connection, request_id: bytes, status: str, by: str, now: datetime) -> None:
    await conn.execute(
        "update delegation_request set status = $2, decided_at = $3, decided_by = $4 where id = $1",
        UUID(bytes=request_id),
        status,
        now,
        by,
    )
