"""Penalties: what somebody did too often becomes a block; an appeal may lift it, and amnesty forgets.

Offences are read off the appointment table and stored nowhere: a visit missed, a number given back, a hold
let go unpaid. What the hospital caused is none: a session that was called off or a substitute leave other
reasons or a fate there, and who did not take up what was offered to him had held nothing. `review` judges
(engine/domain/conduct.py) and writes what is new. It may run as often as one likes and over whomever: an
offence that has served for a penalty does not serve for the same rule again.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.audit.entries import SYSTEM, Entry, write
from engine.domain.conduct import Verdict, judge
from engine.domain.policy import ConductRule, Offence, Policy, Subject
from engine.domain.schedule import Status
from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import account_key, account_key_of, contact_key, contact_key_of, name_of
from engine.vault.vault import DataKey, Vault

OVERLAP: Final = timedelta(minutes=5)
"""How far a review looks back beyond the last one: longer than a write takes from decision to commit."""
SUBJECTS_TOGETHER: Final = 500
LISTED_MAX: Final = 100


class Appeal(StrEnum):
    NONE = "none"
    OPEN = "open"
    UPHELD = "upheld"  # the penalty stays
    LIFTED = "lifted"


class ConductRefusal(StrEnum):
    """Why nothing was done; web/faults.py has the words."""

    NO_SUCH_PENALTY = "no_such_penalty"
    PENALTY_OVER = "penalty_over"
    ALREADY_APPEALED = "already_appealed"
    NO_OPEN_APPEAL = "no_open_appeal"
    KEY_REUSED = "key_reused"


@dataclass(frozen=True, slots=True)
class Evidence:
    """An appointment that counted."""

    appointment_id: bytes
    schedule_id: str
    starts_at: datetime


@dataclass(frozen=True, slots=True)
class Penalty:
    id: bytes
    subject: Subject
    subject_id: bytes
    patient_name: str | None  # None: the penalty is the account's
    rule: str
    offence: Offence
    begins: datetime
    ends: datetime
    evidence: tuple[Evidence, ...]
    appeal: Appeal
    appealed_at: datetime | None
    appeal_text: str | None
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str | None
    lifted_at: datetime | None

    def is_in_force(self, now: datetime) -> bool:
        return self.lifted_at is None and self.begins <= now < self.ends


# Reviewing.


async def review(
    connection: asyncpg.Connection,
    policy: Policy,
    patient_ids: Collection[bytes],
    account_ids: Collection[bytes],
    now: datetime,
) -> list[bytes]:
    """Judges these people by all they ever did, and gives the ids of the penalties that are new.

    All, and not just a window: which offences make a block together depends on those that made the last one.

    A block that would be over by now is not written: nobody has felt it.
    """
    new: list[bytes] = []
    async with connection.transaction():
        # One review at a time: two that see different halves of a history would judge it twice.
        await connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
        for subject, ids in ((Subject.PATIENT, patient_ids), (Subject.ACCOUNT, account_ids)):
            rules = [rule for rule in policy.conduct if rule.subject is subject]
            if rules:
                for some in _parts(sorted(set(ids))):
                    new += await _review(connection, policy, subject, rules, some, now)
    return new


async def review_recent(connection: asyncpg.Connection, policy: Policy, now: datetime) -> list[bytes]:
    """Judges everybody who gave something up since the last time; call it every minute, from anywhere.

    Where another process is at it already, it has nothing to do. Rules look back when somebody offends, not
    when they are put in force: a new rule punishes nobody on the spot.
    """
    async with connection.transaction():
        if not await connection.fetchval(f"select pg_try_advisory_xact_lock({_LOCK})"):
            return []
        since = await connection.fetchval("select until from conduct_review")
        new: list[bytes] = []
        if policy.conduct:
            rows = await connection.fetch(
                "select distinct patient_id, account_id from appointment"
                " where status >= 5 and updated_at > $1",
                since - OVERLAP,
            )
            patients, accounts = {r["patient_id"].bytes for r in rows}, {r["account_id"].bytes for r in rows}
            new = await review(connection, policy, patients, accounts, now)
        await connection.execute("update conduct_review set until = greatest(until, $1)", now)
    return new


_FINGERPRINT: Final = "request_key.fingerprint"
_LOCK: Final = "hashtext('xinglin.conduct')"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class _Offended:
    appointment_id: UUID
    offence: Offence
    at: int  # ms


async def _review(
    connection: asyncpg.Connection,
    policy: Policy,
    subject: Subject,
    rules: Sequence[ConductRule],
    ids: Sequence[bytes],
    now: datetime,
) -> list[bytes]:
    offended = await _offences(connection, policy, subject, ids)
    served = await _served(connection, ids)
    new = []
    for subject_id, told in offended.items():
        for rule in rules:
            used = served.get((subject_id, rule.name), frozenset())
            counted = [one for one in told if one.appointment_id not in used]
            for verdict in judge([(one.offence, one.at) for one in counted], [rule], _ms(now)):
                if verdict.ends > _ms(now):
                    evidence = [counted[n].appointment_id for n in verdict.evidence]
                    penalty_id = await _write(connection, subject, subject_id, verdict, evidence, now)
                    if penalty_id is not None:
                        new.append(penalty_id)
    return new


async def _offences(
    connection: asyncpg.Connection, policy: Policy, subject: Subject, ids: Sequence[bytes]
) -> dict[UUID, list[_Offended]]:
    """By subject. An absence counts from the visit, whenever it was noted; all else from when it was done."""
    rows = await connection.fetch(
        f"select a.{subject.value}_id as subject, a.id, a.status, a.reason, a.starts_at, a.updated_at,"
        "        a.booked_by = '' and a.wish_id is null and a.replaces is null as is_own_hold"
        f"  from appointment a join {subject.value} s on s.id = a.{subject.value}_id"
        f" where a.{subject.value}_id = any($1::uuid[]) and a.status = any($2::smallint[])"
        "   and a.fate is null"
        "   and not exists (select from amnesty m where m.appointment_id = a.id)",
        [UUID(bytes=one) for one in ids],
        [int(Status.CANCELLED), int(Status.NOSHOW)],
    )
    late = timedelta(minutes=policy.late_cancel_minutes)
    found: dict[UUID, list[_Offended]] = {}
    for row in rows:
        told = found.setdefault(row["subject"], [])
        if row["status"] == Status.NOSHOW:
            told.append(_Offended(row["id"], Offence.NO_SHOW, _ms(row["starts_at"])))
        elif row["reason"] == "expired" and row["is_own_hold"]:
            told.append(_Offended(row["id"], Offence.DROPPED_HOLD, _ms(row["updated_at"])))
        elif row["reason"] == "cancelled":
            told.append(_Offended(row["id"], Offence.CANCEL, _ms(row["updated_at"])))
            if row["starts_at"] - row["updated_at"] < late:
                told.append(_Offended(row["id"], Offence.LATE_CANCEL, _ms(row["updated_at"])))
    for told in found.values():
        told.sort(key=lambda one: (one.at, one.appointment_id))
    return found


async def _served(
    connection: asyncpg.Connection, ids: Sequence[bytes]
) -> dict[tuple[UUID, str], frozenset[UUID]]:
    """(subject, rule) -> appointments that made a penalty which was not taken back."""
    rows = await connection.fetch(
        "select subject, rule, evidence from penalty where subject = any($1::uuid[]) and lifted_at is null",
        [UUID(bytes=one) for one in ids],
    )
    served: dict[tuple[UUID, str], frozenset[UUID]] = {}
    for row in rows:
        key = row["subject"], row["rule"]
        served[key] = served.get(key, frozenset()).union(row["evidence"])
    return served


async def _write(
    connection: asyncpg.Connection,
    subject: Subject,
    subject_id: UUID,
    verdict: Verdict,
    evidence: Sequence[UUID],
    now: datetime,
) -> bytes | None:
    """None when it is there already."""
    penalty_id = _penalty_id(subject_id, verdict.rule.name, evidence)
    written = await connection.fetchval(
        "insert into penalty"
        " (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (id) do nothing returning true",
        penalty_id,
        subject.value,
        subject_id,
        verdict.rule.name,
        verdict.rule.offence.value,
        _time(verdict.begins),
        _time(verdict.ends),
        evidence,
        now,
    )
    if not written:
        return None
    entry = Entry(
        "penalty_given",
        SYSTEM,
        (subject_id,) if subject is Subject.PATIENT else (),
        ("penalty", str(penalty_id)),
        detail={"rule": verdict.rule.name, "offence": verdict.rule.offence.value},
    )
    await write(connection, entry)
    return penalty_id.bytes


def _penalty_id(subject_id: UUID, rule: str, evidence: Iterable[UUID]) -> UUID:
    """The same misdeeds of one person are one penalty, whoever finds them; UUID version 8."""
    told = b"".join(sorted(one.bytes for one in evidence))
    digest = bytearray(
        hashlib.blake2b(subject_id.bytes + told + rule.encode(), digest_size=16, person=b"penalty").digest()
    )
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(digest))


# Reading.


async def penalties_of(
    connection: asyncpg.Connection, vault: Vault, account_id: bytes, now: datetime
) -> list[Penalty]:
    """The account's own and those of whom it may book for, latest first; also those that are over."""
    rows = await connection.fetch(
        f"{_PENALTY} where {_OF_ACCOUNT} order by x.begins desc, x.id limit {LISTED_MAX}",
        UUID(bytes=account_id),
        now,
    )
    return await _penalties(connection, vault, rows)


async def open_appeals(
    connection: asyncpg.Connection, vault: Vault, after: datetime | None = None, limit: int = LISTED_MAX
) -> list[Penalty]:
    """Those who have waited longest first. `after` pages on from the last one's appealed_at."""
    rows = await connection.fetch(
        f"{_PENALTY} where x.appeal = 'open' and ($1::timestamptz is null or x.appealed_at > $1)"
        " order by x.appealed_at, x.id limit $2",
        after,
        limit,
    )
    return await _penalties(connection, vault, rows)


_PENALTY: Final = (
    "select x.*, p.name as patient_name, p.record_key, coalesce(p.contact_key, c.contact_key) as contact_key"
    "  from penalty x"
    "  left join patient p on x.subject_kind = 'patient' and p.id = x.subject"
    "  left join account c on x.subject_kind = 'account' and c.id = x.subject"
)
APPEAL_TEXT: Final = "penalty.appeal_text"
DECISION_REASON: Final = "penalty.decision_reason"
_OF_ACCOUNT: Final = (
    "(x.subject = $1 or x.subject in (select patient_id from account_patient where account_id = $1"
    " and revoked_at is null and (expires_at is null or expires_at > $2)))"
)


async def _penalties(
    connection: asyncpg.Connection, vault: Vault, rows: Sequence[asyncpg.Record]
) -> list[Penalty]:
    wanted = {one for row in rows for one in row["evidence"]}
    known = {
        row["id"]: Evidence(row["id"].bytes, row["schedule_id"], row["starts_at"])
        for row in await connection.fetch(
            "select id, schedule_id, starts_at from appointment where id = any($1::uuid[])", list(wanted)
        )
    }
    return [
        _as_penalty(vault, row, tuple(known[one] for one in row["evidence"] if one in known)) for row in rows
    ]


def _as_penalty(vault: Vault, row: asyncpg.Record, evidence: tuple[Evidence, ...]) -> Penalty:
    id_, subject, subject_id = row["id"].bytes, Subject(row["subject_kind"]), row["subject"].bytes
    of_patient = subject is Subject.PATIENT
    key = (contact_key if of_patient else account_key)(subject_id, row["contact_key"])
    name = name_of(vault, subject_id, row["record_key"], row["patient_name"]) if of_patient else None
    return Penalty(
        id=id_,
        subject=subject,
        subject_id=subject_id,
        patient_name=name,
        rule=row["rule"],
        offence=Offence(row["offence"]),
        begins=row["begins"],
        ends=row["ends"],
        evidence=evidence,
        appeal=Appeal(row["appeal"]),
        appealed_at=row["appealed_at"],
        appeal_text=vault.open(key, APPEAL_TEXT, id_, row["appeal_text"]),
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        decision_reason=vault.open(key, DECISION_REASON, id_, row["decision_reason"]),
        lifted_at=row["lifted_at"],
    )


async def _key_of(connection: asyncpg.Connection, vault: Vault, kind: str, subject: UUID) -> DataKey:
    """That appeals of this person or account are sealed with."""
    made = contact_key_of if kind == Subject.PATIENT else account_key_of
    return await made(connection, vault, subject.bytes)


# Appeals.


class _Refused(Exception):
    """Rolls the transaction back, the request's key with it."""

    def __init__(self, refusal: ConductRefusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


async def appeal(
    connection: asyncpg.Connection,
    vault: Vault,
    account_id: bytes,
    penalty_id: bytes,
    text: str,
    key: str,
    now: datetime,
) -> Penalty | ConductRefusal:
    """Asks the hospital to look at a penalty again: once, while it stands. Meanwhile it blocks."""
    wanted = UUID(bytes=penalty_id)
    try:
        async with connection.transaction():
            row = await connection.fetchrow(
                f"{_PENALTY} where {_OF_ACCOUNT} and x.id = $3 for update of x",
                UUID(bytes=account_id),
                now,
                wanted,
            )
            if row is None:
                raise _Refused(ConductRefusal.NO_SUCH_PENALTY)
            asked = ("appeal", penalty_id.hex(), vault.index(_FINGERPRINT, text).hex())
            if await _is_first(connection, account_id, key, asked, now):
                if row["appeal"] != Appeal.NONE:
                    raise _Refused(ConductRefusal.ALREADY_APPEALED)
                if row["lifted_at"] is not None or row["ends"] <= now:
                    raise _Refused(ConductRefusal.PENALTY_OVER)
                key_ = await _key_of(connection, vault, row["subject_kind"], row["subject"])
                await connection.execute(
                    "update penalty set appeal = 'open', appealed_by = $2, appealed_at = $3, appeal_text = $4"
                    " where id = $1",
                    wanted,
                    UUID(bytes=account_id),
                    now,
                    vault.seal(key_, APPEAL_TEXT, penalty_id, text),
                )
            return await _penalty(connection, vault, wanted)
    except _Refused as refused:
        return refused.refusal


async def decide(
    connection: asyncpg.Connection,
    vault: Vault,
    policy: Policy,
    penalty_id: bytes,
    *,
    lift: bool,
    reason: str,
    staff_id: bytes,
    username: str,
    key: str,
    now: datetime,
) -> Penalty | ConductRefusal:
    """Ends an open appeal. Lifting frees at once and forgives the evidence, so it never counts again.

    A penalty under another rule that had counted the same appointments stands on nothing any more and is
    lifted with it; what remains of its evidence is judged anew.
    """
    wanted = UUID(bytes=penalty_id)
    try:
        async with connection.transaction():
            await connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
            row = await connection.fetchrow("select * from penalty where id = $1 for update", wanted)
            if row is None:
                raise _Refused(ConductRefusal.NO_SUCH_PENALTY)
            asked = (
                "decision",
                penalty_id.hex(),
                "lift" if lift else "uphold",
                vault.index(_FINGERPRINT, reason).hex(),
            )
            if await _is_first(connection, staff_id, key, asked, now):
                if row["appeal"] != Appeal.OPEN:
                    raise _Refused(ConductRefusal.NO_OPEN_APPEAL)
                key_ = await _key_of(connection, vault, row["subject_kind"], row["subject"])
                await connection.execute(
                    "update penalty set appeal = $2, decided_by = $3, decided_at = $4, decision_reason = $5,"
                    " lifted_at = case when $6 then coalesce(lifted_at, $4) end where id = $1",
                    wanted,
                    Appeal.LIFTED if lift else Appeal.UPHELD,
                    username,
                    now,
                    vault.seal(key_, DECISION_REASON, penalty_id, reason),
                    lift,
                )
                if lift:
                    await _forgive(connection, vault, policy, wanted, row["evidence"], username, reason, now)
            return await _penalty(connection, vault, wanted)
    except _Refused as refused:
        return refused.refusal


async def _forgive(
    connection: asyncpg.Connection,
    vault: Vault,
    policy: Policy,
    penalty_id: UUID,
    evidence: Sequence[UUID],
    username: str,
    reason: str,
    now: datetime,
) -> None:
    await connection.execute(
        "insert into amnesty (appointment_id, penalty_id, granted_by, at)"
        " select one, $2, $3, $4 from unnest($1::uuid[]) one on conflict do nothing",
        evidence,
        penalty_id,
        username,
        now,
    )
    rows = await connection.fetch(
        "select patient_id, account_id from appointment where id = any($1::uuid[])", evidence
    )
    patients, accounts = {row["patient_id"] for row in rows}, {row["account_id"] for row in rows}
    others = await connection.fetch(
        "select id, subject_kind, subject from penalty"
        " where subject = any($1::uuid[]) and evidence && $2::uuid[] and lifted_at is null and ends > $3"
        " order by id for update",
        list(patients | accounts),
        evidence,
        now,
    )
    for row in others:
        key_ = await _key_of(connection, vault, row["subject_kind"], row["subject"])
        await connection.execute(
            "update penalty set lifted_at = $2, decided_by = $3, decided_at = $2, decision_reason = $4,"
            "       appeal = case appeal when 'open' then 'lifted' else appeal end where id = $1",
            row["id"],
            now,
            username,
            vault.seal(key_, DECISION_REASON, row["id"].bytes, reason),
        )
    await review(connection, policy, {one.bytes for one in patients}, {one.bytes for one in accounts}, now)


async def _is_first(
    connection: asyncpg.Connection, owner: bytes, key: str, asked: tuple[str, ...], now: datetime
) -> bool:
    use = await use_key(connection, owner, key, asked, now)
    if use is KeyUse.OTHER:
        raise _Refused(ConductRefusal.KEY_REUSED)
    return use is KeyUse.FIRST


async def _penalty(connection: asyncpg.Connection, vault: Vault, penalty_id: UUID) -> Penalty:
    rows = await connection.fetch(f"{_PENALTY} where x.id = $1", penalty_id)
    (found,) = await _penalties(connection, vault, rows)
    return found


def _parts(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for n in range(0, len(ids), SUBJECTS_TOGETHER):
        yield ids[n : n + SUBJECTS_TOGETHER]


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // _MILLISECOND


def _time(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND
