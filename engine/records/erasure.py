"""Being forgotten: what binds a hospital to somebody's data, and doing what engine/domain/retention.py says.

What must stay for the record is *restricted*: name and number move out of `patient` into `kept_identity`, so
no page, board, list or export finds them (it shows "erased"), until the law lets go or the person registers
anew with the same document. All else goes at once: rows are deleted, and what is sealed loses its key.

Keys are shredded last, as the ledger outside the database cannot be rolled back. A restored backup is made to
forget again at the next start (`erase_again`).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.audit.entries import SYSTEM, Entry, write
from engine.domain.delegation import CHILD, GROWN_UP_YEARS, SELF, WARD
from engine.domain.eligibility import full_years
from engine.domain.ids import derived
from engine.domain.retention import Datum, Decision, Fate, Kept, Standing, of_account, of_patient
from engine.records import consents, sessions
from engine.records.sealed_people import ID_NUMBER, NAME, account_key_of, contact_key_of, record_key
from engine.vault.erasures import Erasures, What
from engine.vault.vault import Vault

WHY: Final = "erased"
"""Of sessions that end with their account."""
EXPIRED_TOGETHER: Final = 100
ID_DIGITS: Final = (
    4  # the last ones of a document's number, said again so that nobody is forgotten by mistake
)
GUARDED: Final = (CHILD, WARD)

# A number that was booked and whose time is over is a visit unless somebody said that it was missed: many
# hospitals mark neither. Tickets count where somebody was seen, or measured.
_OF_PATIENT: Final = """
select (select max(starts_at) from appointment
         where patient_id = $1 and status in (2, 3, 4) and starts_at <= $2) as visited,
       (select max(coalesce(finished_at, started_at, arrived_at)) from ticket
         where patient_id = $1 and (started_at is not null or status = 8)) as seen,
       greatest((select max(v.at) from vitals v join ticket t on t.id = v.ticket_id
                  where t.patient_id = $1),
                (select max(issued_at) from report where patient_id = $1)) as measured,
       (select max(ends) from penalty where subject = $1 and lifted_at is null and ends > $2) as blocked,
       (select count(*) from appointment
         where patient_id = $1 and status in (2, 3) and starts_at > $2) as bookings_ahead,
       (select count(*) from appointment
         where patient_id = $1 and status = 1 and hold_until > $2) as bills_open,
       (select count(*) from ticket where patient_id = $1 and status < 8 and day >= $3::date - 1) as waits,
       (select count(*) from wish
         where status in ('waiting', 'offered') and $1 = any (patient_ids)) as wishes_open,
       (select count(*) from penalty where subject = $1 and appeal = 'open') as appeals_open"""
_OF_ACCOUNT: Final = """
select null::timestamptz as visited, null::timestamptz as seen, null::timestamptz as measured,
       (select max(ends) from penalty where subject = $1 and lifted_at is null and ends > $2) as blocked,
       (select count(*) from appointment
         where account_id = $1 and status in (2, 3) and starts_at > $2) as bookings_ahead,
       (select count(*) from appointment
         where account_id = $1 and status = 1 and hold_until > $2) as bills_open,
       (select count(*) from ticket t join appointment a on a.id = t.appointment_id
         where a.account_id = $1 and t.status < 8 and t.day >= $3::date - 1) as waits,
       (select count(*) from wish where status in ('waiting', 'offered') and account_id = $1) as wishes_open,
       (select count(*) from penalty
         where appeal = 'open' and (subject = $1 or appealed_by = $1)) as appeals_open"""


@dataclass(frozen=True, slots=True)
class Clock:
    now: datetime
    zone: ZoneInfo  # the hospital's, in which days begin

    @property
    def today(self) -> date:
        return self.now.astimezone(self.zone).date()


@dataclass(frozen=True, slots=True)
class OwnPerson:
    patient_id: bytes
    is_self: bool
    id_digits: str  # "": nobody can read them any more


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked to be forgotten, and what would become of each."""

    account_id: bytes  # who asks
    people: Mapping[bytes, Decision]
    login: Decision | None  # None: the account stays

    @property
    def is_free(self) -> bool:
        return not any(one.obstacles for one in self.people.values()) and not (
            self.login is not None and self.login.obstacles
        )


async def decided(
    connection: asyncpg.Connection,
    account_id: bytes,
    patient_ids: Sequence[bytes],
    clock: Clock,
    *,
    with_account: bool,
) -> Plan:
    """What would become of them today. Within the transaction that then forgets: the rows are locked."""
    account = UUID(bytes=account_id)
    await connection.execute("select from account where id = $1 for update", account)
    await connection.execute(
        "select from patient where id = any ($1::uuid[]) order by id for update",
        [UUID(bytes=one) for one in patient_ids],
    )
    people = {
        one: of_patient(await _standing(connection, _OF_PATIENT, one, clock), clock.today)
        for one in patient_ids
    }
    login = of_account(await _standing(connection, _OF_ACCOUNT, account_id, clock)) if with_account else None
    return Plan(account_id, people, login)


async def forget(connection: asyncpg.Connection, vault: Vault, plan: Plan, id_: bytes, clock: Clock) -> None:
    """All but the keys, which `shred` takes in the same transaction, last. `id_` is of what was asked."""
    for patient_id, decision in plan.people.items():
        # As with the account's below, so that the ledger names whoever is forgotten.
        await contact_key_of(connection, vault, patient_id)
        await _forget_patient(connection, patient_id, decision.kept_until, clock)
        await consents.withdraw_all(connection, None, patient_id, clock.now)
        await _note(connection, derived(b"erasure", id_, patient_id), plan, patient_id, decision, clock)
    if plan.login is not None:
        # A key of its own, if it never had one: the ledger names keys, and must know that this login is gone.
        await account_key_of(connection, vault, plan.account_id)
        await consents.withdraw_all(connection, plan.account_id, None, clock.now)
        await _forget_account(connection, UUID(bytes=plan.account_id), clock)
        await _note(connection, derived(b"erasure", id_), plan, None, plan.login, clock)


async def shred(connection: asyncpg.Connection, erasures: Erasures, plan: Plan, clock: Clock) -> None:
    """The last step before the commit. Raises engine.vault.erasures.ErasureFailed, with nothing erased."""
    for patient_id, decision in plan.people.items():
        await erasures.shred(connection, What.CONTACT, patient_id, clock.now)
        if decision.kept_until is None:
            await erasures.shred(connection, What.RECORD, patient_id, clock.now)
    if plan.login is not None:
        await erasures.shred(connection, What.ACCOUNT, plan.account_id, clock.now)


async def acts_for(
    connection: asyncpg.Connection, account_id: bytes, patient_id: bytes, clock: Clock
) -> bool:
    """Whether the account has a right for this patient, whoever that is."""
    return bool(
        await connection.fetchval(
            "select true from account_patient where account_id = $1 and patient_id = $2"
            " and revoked_at is null and (expires_at is null or expires_at > $3)",
            UUID(bytes=account_id),
            UUID(bytes=patient_id),
            clock.now,
        )
    )


async def was_asked(connection: asyncpg.Connection, id_: bytes, patient_id: bytes) -> Decision | None:
    """What was decided when the very same was asked before."""
    row = await connection.fetchrow(
        "select fates::text as fates, kept_until from erasure where id = $1",
        UUID(bytes=derived(b"erasure", id_, patient_id)),
    )
    if row is None:
        return None
    said = orjson.loads(row["fates"])
    fates = {
        datum: Kept(Fate(said[datum]["fate"]), _day(said[datum]["until"])) for datum in Datum if datum in said
    }
    return Decision((), fates, row["kept_until"])


async def own_people(
    connection: asyncpg.Connection, vault: Vault, account_id: bytes, clock: Clock
) -> list[OwnPerson]:
    """Those whom an account may have forgotten: oneself, and children under 18 whom it acts for."""
    rows = await connection.fetch(
        "select p.id, p.record_key, p.id_number, p.birth_date, ap.relation"
        "  from account_patient ap join patient p on p.id = ap.patient_id"
        " where ap.account_id = $1 and ap.revoked_at is null"
        "   and (ap.expires_at is null or ap.expires_at > $2)"
        " order by ap.created_at, p.id",
        UUID(bytes=account_id),
        clock.now,
    )
    found = []
    for row in rows:
        is_self = row["relation"] == SELF
        is_child = (
            row["birth_date"] is not None and full_years(row["birth_date"], clock.today) < GROWN_UP_YEARS
        )
        if is_self or (row["relation"] in GUARDED and is_child):
            id_ = row["id"].bytes
            number = vault.open(record_key(id_, row["record_key"]), ID_NUMBER, id_, row["id_number"])
            found.append(OwnPerson(id_, is_self, (number or "")[-ID_DIGITS:]))
    return found


async def expire(
    connection: asyncpg.Connection, erasures: Erasures, clock: Clock, limit: int = EXPIRED_TOGETHER
) -> list[bytes]:
    """Erases what was kept for as long as the law wanted; whose that was. Each in a transaction of its own.

    Looked at anew for each: a visit that was written down later keeps the record longer.
    """
    rows = await connection.fetch(
        "select patient_id from kept_identity where until <= $1 order by until, patient_id limit $2",
        clock.today,
        limit,
    )
    gone = []
    for row in rows:
        patient_id = row["patient_id"].bytes
        async with connection.transaction():
            kept = await connection.fetchval(
                "select until from kept_identity where patient_id = $1 for update", row["patient_id"]
            )
            decision = of_patient(await _standing(connection, _OF_PATIENT, patient_id, clock), clock.today)
            if kept is None:  # is back since
                continue
            if decision.kept_until is not None or decision.obstacles:
                if decision.kept_until is not None:
                    await connection.execute(
                        "update kept_identity set until = $2 where patient_id = $1",
                        row["patient_id"],
                        decision.kept_until,
                    )
                continue
            await _forget_patient(connection, patient_id, None, clock)
            await connection.execute(
                "update erasure set finished_at = $2 where patient_id = $1 and finished_at is null",
                row["patient_id"],
                clock.now,
            )
            await write(connection, Entry("record_expired", SYSTEM, subjects=(patient_id,)))
            await erasures.shred(connection, What.RECORD, patient_id, clock.now)
            gone.append(patient_id)
    return gone


async def erase_again(connection: asyncpg.Connection, erasures: Erasures, clock: Clock) -> int:
    """After Erasures.apply: what a restore has brought back beside the keys; how many people and logins."""
    again = 0
    named = await erasures.entries()
    for row in await connection.fetch(
        "select p.id, p.record_key is null as wholly from patient p where p.id = any ($1::uuid[])"
        # Who has come back since has a new one.
        "   and p.contact_key is null"
        "   and (p.name is not null or p.birth_date is not null and p.record_key is null"
        "        or exists (select from account_patient ap where ap.patient_id = p.id"
        "                    and (ap.revoked_at is null or ap.phone is not null)))",
        [UUID(bytes=entry.row) for entry in named if entry.what is What.CONTACT],
    ):
        patient_id = row["id"].bytes
        async with connection.transaction():
            decision = of_patient(await _standing(connection, _OF_PATIENT, patient_id, clock), clock.today)
            kept_until = None if row["wholly"] else decision.kept_until
            await _forget_patient(connection, patient_id, kept_until, clock)
            await consents.withdraw_all(connection, None, patient_id, clock.now)
        again += 1
    for entry in named:
        if entry.what is not What.ACCOUNT:
            continue
        account = UUID(bytes=entry.row)
        async with connection.transaction():
            if await connection.fetchval(
                "select true from account where id = $1 and erased_at is null for update", account
            ):
                await consents.withdraw_all(connection, entry.row, None, clock.now)
                await _forget_account(connection, account, clock)
                again += 1
    return again


@dataclass(frozen=True, slots=True)
class RestrictedIdentity:
    name: str
    id_type: str
    id_number: str
    until: date


async def restricted_identity(
    connection: asyncpg.Connection, vault: Vault, patient_id: bytes
) -> RestrictedIdentity | None:
    """Who somebody restricted was, for whom the law lets know. The caller notes it in the audit."""
    row = await connection.fetchrow(
        "select k.name, k.id_number, k.until, p.id_type, p.record_key"
        "  from kept_identity k join patient p on p.id = k.patient_id where k.patient_id = $1",
        UUID(bytes=patient_id),
    )
    if row is None:
        return None
    key = record_key(patient_id, row["record_key"])
    return RestrictedIdentity(
        vault.open(key, NAME, patient_id, row["name"]) or "",
        row["id_type"],
        vault.open(key, ID_NUMBER, patient_id, row["id_number"]) or "",
        row["until"],
    )


async def is_restricted(connection: asyncpg.Connection | asyncpg.Pool, patient_id: bytes) -> bool:
    """Whether this person was forgotten: nobody reads their record in the ordinary course of work."""
    return bool(
        await connection.fetchval(
            "select true from kept_identity where patient_id = $1", UUID(bytes=patient_id)
        )
    )


async def _standing(connection: asyncpg.Connection, query: str, id_: bytes, clock: Clock) -> Standing:
    row = await connection.fetchrow(query, UUID(bytes=id_), clock.now, clock.today)
    visits = [at for at in (row["visited"], row["seen"], row["measured"]) if at is not None]
    return Standing(
        last_visit=max(visits).astimezone(clock.zone).date() if visits else None,
        # The day after: on its last day it blocks until some hour.
        blocked_until=None if row["blocked"] is None else _day_after(row["blocked"], clock),
        bookings_ahead=row["bookings_ahead"],
        bills_open=row["bills_open"],
        waits=row["waits"],
        wishes_open=row["wishes_open"],
        appeals_open=row["appeals_open"],
    )


def _day(said: str | None) -> date | None:
    return None if said is None else date.fromisoformat(said)


def _day_after(at: datetime, clock: Clock) -> date:
    return date.fromordinal(at.astimezone(clock.zone).date().toordinal() + 1)


async def _forget_patient(
    connection: asyncpg.Connection, patient_id: bytes, kept_until: date | None, clock: Clock
) -> None:
    """All but the keys. `kept_until` None: nothing that leads to the person stays."""
    patient = UUID(bytes=patient_id)
    # First the rights, so that nothing below is brought back by their trigger.
    await connection.execute(
        "update account_patient set phone = null, revoked_at = coalesce(revoked_at, $2),"
        # Oneself may come back; who acted for them has to be asked for anew.
        "       revoked_by = coalesce(revoked_by, case relation when 'self' then 'asker' else 'person' end)"
        " where patient_id = $1",
        patient,
        clock.now,
    )
    await connection.execute(
        "update delegation_request set phone = null,"
        "       decided_at = case status when 'asked' then $2 else decided_at end,"
        "       status = case status when 'asked' then 'withdrawn' else status end where patient_id = $1",
        patient,
        clock.now,
    )
    for statement in _FORGET_PATIENT:
        await connection.execute(statement, patient)
    if kept_until is None:
        await connection.execute("delete from kept_identity where patient_id = $1", patient)
        await connection.execute("delete from patient_number where patient_id = $1", patient)
        # The hospital's own account for this person is called after the document, by a keyed hash.
        await connection.execute(
            "update account set openid = 'erased:' || replace(gen_random_uuid()::text, '-', '')"
            " where openid like 'desk:%' and id in"
            "   (select account_id from account_patient where patient_id = $1 and relation = 'self')",
            patient,
        )
        await connection.execute(
            "update patient set name = null, id_number = null, id_index = null, birth_date = null, sex = null"
            " where id = $1",
            patient,
        )
        return
    await connection.execute(
        "insert into kept_identity (patient_id, name, id_number, since, until)"
        " select id, name, id_number, $2, $3 from patient where id = $1"
        " on conflict (patient_id) do update set until = excluded.until",
        patient,
        clock.now,
        kept_until,
    )
    await connection.execute("update patient set name = null, id_number = null where id = $1", patient)


_FORGET_PATIENT: Final = (
    "delete from notice where patient_id = $1",
    "delete from way where appointment_id in (select id from appointment where patient_id = $1)",
    "update penalty set appeal_text = null, decision_reason = null where subject = $1",
    "update no_show_call set note = null"
    " where appointment_id in (select id from appointment where patient_id = $1)",
    "update patient set verify_at = null where id = $1",
    "delete from partner_patient where patient_id = $1",
)


async def _forget_account(connection: asyncpg.Connection, account: UUID, clock: Clock) -> None:
    await sessions.revoke_of_owner(connection, account.bytes, WHY, clock.now)
    await connection.execute(
        "update account set openid = $2, unionid = null, phone = null, phone_index = null,"
        "       phone_bound_at = null, erased_at = $3 where id = $1",
        account,
        # Nobody's: who signs in with the old one is somebody new.
        f"erased:{secrets.token_hex(16)}",
        clock.now,
    )
    await connection.execute(
        "update account_patient set phone = null, revoked_at = coalesce(revoked_at, $2),"
        "       revoked_by = coalesce(revoked_by, 'asker') where account_id = $1",
        account,
        clock.now,
    )
    await connection.execute(
        "update delegation_request set phone = null,"
        "       decided_at = case status when 'asked' then $2 else decided_at end,"
        "       status = case status when 'asked' then 'withdrawn' else status end where account_id = $1",
        account,
        clock.now,
    )
    for statement in _FORGET_ACCOUNT:
        await connection.execute(statement, account)


_FORGET_ACCOUNT: Final = (
    "update session set device = '' where owner = $1",
    "delete from identity_guess where account_id = $1",
    "delete from request_key where owner = $1",
    "update penalty set appeal_text = null, decision_reason = null"
    " where subject = $1 or (subject_kind = 'account' and appealed_by = $1)",
)


async def _note(
    connection: asyncpg.Connection,
    id_: bytes,
    plan: Plan,
    patient_id: bytes | None,
    decision: Decision,
    clock: Clock,
) -> None:
    await connection.execute(
        "insert into erasure (id, account_id, patient_id, at, fates, kept_until, finished_at)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        UUID(bytes=id_),
        UUID(bytes=plan.account_id),
        None if patient_id is None else UUID(bytes=patient_id),
        clock.now,
        orjson.dumps(as_data(decision.fates)).decode(),
        decision.kept_until,
        clock.now if decision.kept_until is None else None,
    )


def as_data(fates: Mapping[Datum, Kept]) -> dict[str, Any]:
    return {datum.value: {"fate": kept.fate.value, "until": kept.until} for datum, kept in fates.items()}
