"""Systems of others that call us: their credentials, what they may, and whom they have brought.

A client secret is 256 bits of chance and is told once; the database has its hash. Rotated, the one before it
is good for a while, so that both sides need not change at the same moment. Ids are 16 bytes.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.domain.policy import Channel
from engine.records.identity import IdType
from engine.records.sealed_people import id_index, name_of
from engine.vault.vault import Vault

Executor: TypeAlias = asyncpg.Connection | asyncpg.Pool

SCOPES: Final[dict[str, str]] = {
    "fhir.read": "排班与号源 / schedules, slots and practitioners through FHIR",
    "fhir.book": "为带来的患者预约 / patients it brings and their appointments through FHIR",
    "fhir.patients": "按证件查患者 / finds any patient whose document it can name",
    "his.write": "HIS 的挂号、排班与主数据 / registrations, schedules and master data of the HIS",
    "lis.write": "检验报告 / reports of the laboratory",
    "pacs.write": "影像检查 / studies of the PACS",
    "emr.read": "诊疗记录 / encounters, conditions, medications, allergies",
    "emr.write": "写入诊疗记录 / writes them",
    "events.read": "事件流与回调 / the feed of events and its webhooks",
}
"""What a partner may, and what it means. Routes name theirs in web/rights/matrix.yaml."""

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,39}")
SECRET_PREFIX: Final = "xls_"
"""Whoever finds one in a log or a repository knows what it is."""
OVERLAP: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Partner:
    id: bytes
    name: str
    scopes: frozenset[str]
    channel: Channel
    made_at: datetime
    expires_at: datetime | None = None
    disabled_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        return self.disabled_at is None and (self.expires_at is None or self.expires_at > now)


class NoSuchPartner(Exception):
    """Of this name."""


class PartnerWrong(Exception):
    """What cannot be a partner, in one line."""


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def hashed(secret: str) -> bytes:
    return hashlib.sha256(b"xinglin partner\0" + secret.encode()).digest()


_COLUMNS: Final = "p.id, p.name, p.scopes, p.channel, p.made_at, p.expires_at, p.disabled_at"


def _partner(row: asyncpg.Record) -> Partner:
    return Partner(
        row["id"].bytes,
        row["name"],
        frozenset(row["scopes"]),
        Channel(row["channel"]),
        row["made_at"],
        row["expires_at"],
        row["disabled_at"],
    )


async def add(
    connection: asyncpg.Connection,
    name: str,
    scopes: Iterable[str],
    channel: Channel,
    new_id: bytes,
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[Partner, str]:
    """The partner and its secret, which nobody can be told again. Raises PartnerWrong."""
    asked = sorted(set(scopes))
    if NAME.fullmatch(name) is None:
        raise PartnerWrong("a partner's name has 2 to 40 small letters, digits and hyphens")
    if not asked or (strange := set(asked) - SCOPES.keys()):
        unknown = sorted(strange) if asked else []
        raise PartnerWrong(f"no scopes are called {unknown}; they are {sorted(SCOPES)}")
    if channel not in list(Channel):
        raise PartnerWrong("a partner books through one channel")
    secret = new_secret()
    async with connection.transaction():
        added = await connection.execute(
            "insert into partner (id, name, scopes, channel, made_at, expires_at)"
            " values ($1, $2, $3, $4, $5, $6) on conflict (name) do nothing",
            UUID(bytes=new_id),
            name,
            asked,
            int(channel),
            now,
            expires_at,
        )
        if added == "INSERT 0 0":
            raise PartnerWrong(f"there is a partner called {name} already")
        await _add_secret(connection, new_id, secret, now)
    return Partner(new_id, name, frozenset(asked), channel, now, expires_at), secret


async def rotate(
    connection: asyncpg.Connection, name: str, now: datetime, overlap: timedelta = OVERLAP
) -> str:
    """The next secret; those before it end after `overlap`. Raises NoSuchPartner."""
    secret = new_secret()
    async with connection.transaction():
        partner_id = await connection.fetchval("select id from partner where name = $1 for update", name)
        if partner_id is None:
            raise NoSuchPartner(name)
        await connection.execute(
            "update partner_secret set expires_at = least(expires_at, $2) where partner_id = $1",
            partner_id,
            now + overlap,
        )
        await connection.execute(
            "delete from partner_secret where partner_id = $1 and expires_at <= $2", partner_id, now
        )
        await _add_secret(connection, partner_id.bytes, secret, now)
    return secret


async def _add_secret(connection: asyncpg.Connection, partner_id: bytes, secret: str, now: datetime) -> None:
    await connection.execute(
        "insert into partner_secret (hash, partner_id, made_at) values ($1, $2, $3)",
        hashed(secret),
        UUID(bytes=partner_id),
        now,
    )


async def disable(connection: asyncpg.Connection, name: str, now: datetime) -> Partner:
    """Its tokens end within seconds; again changes nothing. Raises NoSuchPartner."""
    row = await connection.fetchrow(
        f"update partner p set disabled_at = coalesce(disabled_at, $2) where name = $1 returning {_COLUMNS}",
        name,
        now,
    )
    if row is None:
        raise NoSuchPartner(name)
    return _partner(row)


async def allow(connection: asyncpg.Connection, name: str, scopes: Iterable[str]) -> Partner:
    """Another set of scopes from now on. Raises NoSuchPartner, PartnerWrong."""
    asked = sorted(set(scopes))
    if not asked or set(asked) - SCOPES.keys():
        raise PartnerWrong(f"scopes are {sorted(SCOPES)}")
    row = await connection.fetchrow(
        f"update partner p set scopes = $2 where name = $1 returning {_COLUMNS}", name, asked
    )
    if row is None:
        raise NoSuchPartner(name)
    return _partner(row)


async def partners(executor: Executor) -> list[Partner]:
    """By name, also those that are disabled."""
    return [_partner(row) for row in await executor.fetch(f"select {_COLUMNS} from partner p order by name")]


async def partner(executor: Executor, partner_id: bytes) -> Partner | None:
    row = await executor.fetchrow(f"select {_COLUMNS} from partner p where id = $1", UUID(bytes=partner_id))
    return None if row is None else _partner(row)


async def by_secret(executor: Executor, partner_id: bytes, secret: str, now: datetime) -> Partner | None:
    """Whose secret it is: only together with its client id, and while it is good."""
    row = await executor.fetchrow(
        f"select {_COLUMNS} from partner p join partner_secret s on s.partner_id = p.id"
        " where p.id = $1 and s.hash = $2 and (s.expires_at is null or s.expires_at > $3)",
        UUID(bytes=partner_id),
        hashed(secret),
        now,
    )
    return None if row is None else _partner(row)


# Whom a partner has brought, and what it has booked for them.


async def bring(connection: Executor, partner_id: bytes, patient_id: bytes, now: datetime) -> None:
    """From now on the partner sees this patient and may book for them. Again changes nothing."""
    await connection.execute(
        "insert into partner_patient (partner_id, patient_id, since) values ($1, $2, $3)"
        " on conflict do nothing",
        UUID(bytes=partner_id),
        UUID(bytes=patient_id),
        now,
    )


async def has_brought(executor: Executor, partner_id: bytes, patient_id: bytes) -> bool:
    found = await executor.fetchval(
        "select 1 from partner_patient where partner_id = $1 and patient_id = $2",
        UUID(bytes=partner_id),
        UUID(bytes=patient_id),
    )
    return found is not None


async def book(connection: Executor, partner_id: bytes, appointment_id: bytes, now: datetime) -> bool:
    """This number is the partner's from now on; whether it was not before."""
    added = await connection.execute(
        "insert into partner_appointment (partner_id, appointment_id, made_at) values ($1, $2, $3)"
        " on conflict do nothing",
        UUID(bytes=partner_id),
        UUID(bytes=appointment_id),
        now,
    )
    return bool(added == "INSERT 0 1")


_MINE: Final = """
with recursive mine (id) as (
    select b.appointment_id from partner_appointment b where b.partner_id = $1
    union
    select a.id from mine m join appointment a on a.replaces = m.id
)"""
"""What a partner has taken, and what came, or is offered, in its place."""


async def is_its_appointment(executor: Executor, partner_id: bytes, appointment_id: bytes) -> bool:
    """Whether it, or what it came in place of, is one that the partner took."""
    found = await executor.fetchval(
        "with recursive line (id) as ("
        "    select $2::uuid"
        "    union"
        "    select a.replaces from line l join appointment a on a.id = l.id where a.replaces is not null)"
        " select 1 from line l join partner_appointment b on b.appointment_id = l.id"
        "  where b.partner_id = $1 limit 1",
        UUID(bytes=partner_id),
        UUID(bytes=appointment_id),
    )
    return found is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of its appointments a partner asks for. None: any."""

    patient_ids: Sequence[bytes] | None = None
    practitioner_ids: Sequence[str] | None = None
    slot_ids: Sequence[str] | None = None
    statuses: Sequence[int] | None = None
    ids: Sequence[bytes] | None = None
    starts_from: datetime | None = None
    starts_before: datetime | None = None


async def appointments_of(
    executor: Executor, partner_id: bytes, wanted: Wanted, offset: int, limit: int
) -> tuple[int, list[bytes]]:
    """How many there are, and one page of their ids, by time and id."""
    rows = await executor.fetch(
        f"{_MINE} select a.id, count(*) over () as total from mine m join appointment a on a.id = m.id"
        " where ($2::uuid[] is null or a.patient_id = any ($2))"
        "   and ($3::text[] is null or left(a.schedule_id, -9) = any ($3))"
        "   and ($4::text[] is null or a.slot_id = any ($4))"
        "   and ($5::smallint[] is null or a.status = any ($5))"
        "   and ($6::uuid[] is null or a.id = any ($6))"
        "   and ($7::timestamptz is null or a.starts_at >= $7)"
        "   and ($8::timestamptz is null or a.starts_at < $8)"
        " order by a.starts_at, a.id offset $9 limit $10",
        UUID(bytes=partner_id),
        _uuids(wanted.patient_ids),
        wanted.practitioner_ids,
        wanted.slot_ids,
        wanted.statuses,
        _uuids(wanted.ids),
        wanted.starts_from,
        wanted.starts_before,
        offset,
        limit,
    )
    return (rows[0]["total"] if rows else 0), [row["id"].bytes for row in rows]


def _uuids(ids: Sequence[bytes] | None) -> list[UUID] | None:
    return None if ids is None else [UUID(bytes=one) for one in ids]


@dataclass(frozen=True, slots=True)
class KnownPatient:
    """A person as partners see them: no number of a document, no telephone."""

    id: bytes
    name: str
    id_type: str
    birth_date: date | None
    sex: str | None  # male | female


_PERSON: Final = "select p.id, p.name, p.id_type, p.birth_date, p.sex, p.record_key from patient p"


async def patients(
    executor: Executor, vault: Vault, partner_id: bytes, ids: Sequence[bytes]
) -> list[KnownPatient]:
    """Those of them that the partner has brought. Who was forgotten is none."""
    rows = await executor.fetch(
        f"{_PERSON} join partner_patient b on b.patient_id = p.id"
        " where b.partner_id = $1 and p.id = any ($2) and p.name is not null order by p.id",
        UUID(bytes=partner_id),
        _uuids(ids),
    )
    return [_known(vault, row) for row in rows]


async def patient_by_document(
    executor: Executor, vault: Vault, id_type: IdType, id_number: str
) -> KnownPatient | None:
    """Whoever's partner asks. `id_number` is normal: engine/records/identity.py."""
    row = await executor.fetchrow(
        f"{_PERSON} where p.id_index = $1 and p.name is not null",
        id_index(vault, id_type.value, id_number),
    )
    return None if row is None else _known(vault, row)


def _known(vault: Vault, row: asyncpg.Record) -> KnownPatient:
    id_ = row["id"].bytes
    name = name_of(vault, id_, row["record_key"], row["name"])
    return KnownPatient(id_, name, row["id_type"], row["birth_date"], row["sex"])
