"""Everything that is known of an account and its people, to be taken along (PIPL 45): rows for a JSON file.

Whose data it is decides how much: of oneself and of one's children under 18 everything; of others whom the
account acts for what that right shows (their person, and visits where it covers them). Numbers of documents
are masked: who finds the file must not be able to pass for somebody. Ids are UUIDs as text, times UTC.

Rows come in pages, by a unique key, so memory stays bounded and no connection waits for a slow reader.
EXPORTED and LEFT_OUT name every table that knows of people: a new one has to be put into one of the two.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

import asyncpg
import orjson

from engine.domain.consents import kinds_of
from engine.records import bills_export
from engine.records import vitals as vitals_records
from engine.records.bills_export import own_bill
from engine.records.clinical_export import ENTRIES, STUDIES, own_entry, own_study
from engine.records.conduct import APPEAL_TEXT, DECISION_REASON
from engine.records.corrections import NAME_BEFORE
from engine.records.erasure import Clock, own_people
from engine.records.identity import masked_id_number
from engine.records.no_show_calls import NOTE as CALL_NOTE
from engine.records.no_show_calls import note_row
from engine.records.reports_export import NUMBERS, REPORTS, own_number, own_report
from engine.records.sealed_people import (
    ACCOUNT_PHONE,
    ID_NUMBER,
    account_key,
    contact_key,
    name_of,
    phone_of,
    record_key,
)
from engine.vault.vault import Vault

FORMAT: Final = "xinglin-export-1"
PAGE: Final = 200  # rows that are read together

EXPORTED: Final[Mapping[str, str]] = {
    "account": "account",
    "account_patient": "people",
    "patient": "people",
    "appointment": "appointments",
    "event": "appointments",  # the history of each
    "bill": "bills",
    "payment": "bills",
    "refund": "bills",
    "hospital_bill": "bills",
    "ticket": "tickets",
    "vitals": "vitals",
    "report": "reports",
    "report_version": "reports",
    "report_attachment": "reports",
    "patient_number": "numbers",
    "imaging_study": "imaging",
    "clinical_entry": "clinical",
    "wish": "wishes",
    "penalty": "penalties",
    "amnesty": "penalties",
    "consent": "consents",
    "delegation_request": "delegations",
    "session": "sessions",
    "notice": "notices",
    "way": "ways",
    "no_show_call": "calls",
    "calling_list_look": "looks",
    "audit_entry": "accesses",
    "break_glass": "accesses",
    "correction": "corrections",
    "erasure": "erasures",
}
"""Table -> the section of the file that has what it knows."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "event_source": "where the public events come from: positions in the journal",
    "his_registration": "how far the hospital's own system was told of a number that is in its section",
    "webhook": "addresses of other systems that hear of events",
    "webhook_delivery": "how often and when they were told: ids alone, of events that are in their sections",
    "webhook_message": "the same, as far as it waits",
    "intake_message": "messages of other systems that wait, sealed; what is used of them is in its section",
    "partner": "other systems and what they may; nobody's data",
    "partner_secret": "hashes of their secrets",
    "partner_patient": "which of them brought a person: `accesses` has each time they looked",
    "partner_appointment": "which of them took a number that `appointments` tells",
    "posting": "the hospital's ledger, by the ids of bills: amounts that `bills` tells",
    "coupon": "offers of the hospital, by hashes of their codes; what a bill had of one is in `bills`",
    "price_claim": "that a discount was given once; derived from what `bills` tells",
    "cash_receipt": "the desk's own numbering; the number of a receipt is in the payments of `bills`",
    "hospital_asked": "refunds that the hospital's billing asked for; `bills` has them",
    "hospital_told": "what the hospital's billing was told of the payments and refunds of `bills`",
    "payment_order": "what providers were asked, by the ids of payments; `bills` tells of these",
    "payment_alarm": "messages in a provider's name that were not believed; nothing of a person",
    "statement_row": "what providers say of the payments and refunds of `bills`, by their ids",
    "difference": "where they and `bills` differed, by the ids of payments; the cashier's work",
    "closed_day": "work of the staff: sums of a day",
    "claim": "keys that keep a number from being given twice; derived from what `appointments` tells",
    "request_key": "hashes of requests, so that a retry is known; gone after 30 days",
    "identity_guess": "times of attempts to name somebody, so that nobody tries people out; gone after a day",
    "kept_identity": "people who asked to be forgotten: nobody but the law may ask for it",
    "change_request": "work of the staff; names no patient but by the id of an appointment or a bill",
    "week_change": "schedule work of the staff",
    "errand": "work under way, by the ids of appointments and wishes",
    "staff": "the staff",
    "oidc_link": "the staff's sign-in",
    "second_factor": "the staff's sign-in",
    "recovery_code": "the staff's sign-in",
    "sign_in_address": "the staff's sign-in",
    "sign_in_step": "the staff's sign-in",
}
"""Tables that hold ids of people or accounts and are in no section, and why."""


@dataclass(frozen=True, slots=True)
class OwnAccount:
    id: str
    created_at: datetime
    openid: str
    unionid: str | None
    phone: str | None
    phone_bound_at: datetime | None
    consents: list[str]


@dataclass(frozen=True, slots=True)
class OwnPatient:
    id: str
    relation: str
    is_own: bool  # everything of this person is in the file
    name: str
    id_type: str
    id_number: str  # masked
    birth_date: date | None
    sex: str | None
    phone: str
    verification: str
    added_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    may_book: bool
    may_see: bool
    may_pay: bool


@dataclass(frozen=True, slots=True)
class OwnLine:
    """Something that happened to a number."""

    at: datetime
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnAppointment:
    id: str
    patient_id: str
    booked_by_this_account: bool
    schedule_id: str
    slot_id: str
    department_id: str
    number: int
    status: int  # 1 pending … 6 noshow
    reason: str | None
    fee_fen: int
    starts_at: datetime
    created_at: datetime
    updated_at: datetime
    channel: int
    replaces: str | None
    successor: str | None
    changes: int
    will_come: bool
    fate: str | None
    history: list[OwnLine]


@dataclass(frozen=True, slots=True)
class OwnTicket:
    id: str
    patient_id: str
    appointment_id: str | None
    department_id: str
    day: date
    label: str
    status: int
    practitioner_id: str
    room_id: str
    arrived_at: datetime
    first_called_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    done: list[Any]  # stages that are over


@dataclass(frozen=True, slots=True)
class OwnVitals:
    id: str
    patient_id: str
    ticket_id: str
    at: datetime
    systolic: int | None
    diastolic: int | None
    pulse: int | None
    temperature: float | None
    spo2: int | None
    height_cm: float | None
    weight_kg: float | None
    note: str


@dataclass(frozen=True, slots=True)
class OwnWish:
    id: str
    patient_ids: list[str]
    department_id: str
    wanted: dict[str, Any]  # as it was asked for
    status: str
    reason: str | None
    appointment_id: str | None
    until: datetime
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OwnPenalty:
    id: str
    subject_kind: str
    subject_id: str
    rule: str
    offence: str
    begins: datetime
    ends: datetime
    evidence: list[str]
    forgiven: list[str]
    appeal: str
    appealed_at: datetime | None
    appeal_text: str | None
    decided_at: datetime | None
    decision_reason: str | None
    lifted_at: datetime | None


@dataclass(frozen=True, slots=True)
class OwnConsent:
    id: int
    patient_id: str | None
    kind: str
    act: str
    version: str
    language: str
    text_sha256: str
    at: datetime
    how: str


@dataclass(frozen=True, slots=True)
class OwnDelegation:
    """Who asked to act for whom; also those who asked to act for oneself."""

    id: str
    patient_id: str
    asked_by_this_account: bool
    relation: str
    status: str
    asked_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    id: str
    method: str
    device: str
    created_at: datetime
    last_seen_at: datetime
    ends_at: datetime
    revoked_at: datetime | None
    revoked_why: str | None


@dataclass(frozen=True, slots=True)
class OwnNotice:
    id: int
    patient_id: str
    kind: str
    step: str
    department_id: str
    day: date
    at: datetime
    data: dict[str, Any]  # what its words name


@dataclass(frozen=True, slots=True)
class OwnWay:
    appointment_id: str
    minutes: int
    told_at: datetime


@dataclass(frozen=True, slots=True)
class OwnCall:
    id: int
    appointment_id: str
    at: datetime
    outcome: str
    note: str


@dataclass(frozen=True, slots=True)
class OwnLook:
    """Somebody saw the list of whom to ring; `in_full`: with telephones."""

    id: int
    at: datetime
    department_id: str
    in_full: bool


@dataclass(frozen=True, slots=True)
class OwnAccess:
    """A reading or a change of this person's data: by whom, as a kind and roles."""

    id: int
    patient_ids: list[str]
    at: datetime
    action: str
    by_kind: str
    by_roles: list[str]
    by_department_id: str | None
    outcome: str


@dataclass(frozen=True, slots=True)
class OwnCorrection:
    id: str
    patient_id: str
    at: datetime
    changed: list[str]
    name_before: str | None
    birth_date_before: date | None
    sex_before: str | None


@dataclass(frozen=True, slots=True)
class OwnErasure:
    id: str
    patient_id: str | None
    at: datetime
    kept_until: date | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose data it is that goes into the file."""

    account_id: bytes
    own: tuple[UUID, ...]  # oneself, and children
    seen: tuple[UUID, ...]  # with them, those whose visits the account may see


_Scope = Literal["account", "own", "seen", "both"]


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    query: str  # takes what the scope says, then the last key and the page
    scope: _Scope
    first: Any  # a key before all others
    row: Callable[[Vault, asyncpg.Record, Whose], Any]

    def arguments(self, whose: Whose) -> tuple[Any, ...]:
        account = UUID(bytes=whose.account_id)
        match self.scope:
            case "account":
                return (account,)
            case "own":
                return (list(whose.own),)
            case "seen":
                return (list(whose.seen),)
            case _:
                return account, list(whose.own)


async def whose(connection: asyncpg.Connection, vault: Vault, account_id: bytes, clock: Clock) -> Whose:
    own = [UUID(bytes=one.patient_id) for one in await own_people(connection, vault, account_id, clock)]
    rows = await connection.fetch(
        "select patient_id from account_patient where account_id = $1 and may_see and revoked_at is null"
        " and (expires_at is null or expires_at > $2)",
        UUID(bytes=account_id),
        clock.now,
    )
    seen = {row["patient_id"] for row in rows} | set(own)
    return Whose(account_id, tuple(own), tuple(sorted(seen)))


async def account_of(connection: asyncpg.Connection, vault: Vault, account_id: bytes) -> OwnAccount:
    row = await connection.fetchrow("select * from account where id = $1", UUID(bytes=account_id))
    phone = vault.open(account_key(account_id, row["contact_key"]), ACCOUNT_PHONE, account_id, row["phone"])
    return OwnAccount(
        str(row["id"]),
        row["created_at"],
        row["openid"],
        row["unionid"],
        phone,
        row["phone_bound_at"],
        list(kinds_of(max(0, row["consents"]))),
    )


async def pages(
    pool: asyncpg.Pool, vault: Vault, section: Section, of: Whose, page: int = PAGE
) -> AsyncIterator[list[Any]]:
    """Each read by itself: between two of them no connection is held."""
    last, arguments = section.first, section.arguments(of)
    while True:
        n = len(arguments)
        rows = await pool.fetch(
            f"select * from ({section.query}) x where x.k > ${n + 1} order by x.k limit ${n + 2}",
            *arguments,
            last,
            page,
        )
        if rows:
            yield [section.row(vault, row, of) for row in rows]
            last = rows[-1]["k"]
        if len(rows) < page:
            return


# Rows.


def _patient(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnPatient:
    id_ = row["id"].bytes
    number = vault.open(record_key(id_, row["record_key"]), ID_NUMBER, id_, row["id_number"])
    return OwnPatient(
        str(row["id"]),
        row["relation"],
        row["id"] in of.own,
        name_of(vault, id_, row["record_key"], row["name"]),
        row["id_type"],
        masked_id_number(number or ""),
        row["birth_date"],
        row["sex"],
        phone_of(vault, of.account_id, id_, row["contact_key"], row["phone"]) or "",
        row["verification"],
        row["added_at"],
        row["expires_at"],
        row["revoked_at"],
        row["may_book"],
        row["may_see"],
        row["may_pay"],
    )


def _appointment(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnAppointment:
    return OwnAppointment(
        str(row["id"]),
        str(row["patient_id"]),
        row["account_id"].bytes == of.account_id,
        row["schedule_id"],
        row["slot_id"],
        row["department_id"],
        row["number"],
        row["status"],
        row["reason"],
        row["fee_fen"],
        row["starts_at"],
        row["created_at"],
        row["updated_at"],
        row["channel"],
        _text(row["replaces"]),
        _text(row["successor"]),
        row["changes"],
        row["will_come"],
        row["fate"],
        [],
    )


def _ticket(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnTicket:
    return OwnTicket(
        str(row["id"]),
        str(row["patient_id"]),
        _text(row["appointment_id"]),
        row["department_id"],
        row["day"],
        f"{row['prefix']}{row['number']:03}",
        row["status"],
        row["practitioner_id"],
        row["room_id"],
        row["arrived_at"],
        row["first_called_at"],
        row["started_at"],
        row["finished_at"],
        orjson.loads(row["done"]),
    )


def _vitals(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnVitals:
    key = record_key(row["patient_id"].bytes, row["record_key"])
    return OwnVitals(
        str(row["id"]),
        str(row["patient_id"]),
        str(row["ticket_id"]),
        row["at"],
        row["systolic"],
        row["diastolic"],
        row["pulse"],
        _number(row["temperature"]),
        row["spo2"],
        _number(row["height_cm"]),
        _number(row["weight_kg"]),
        vault.open(key, vitals_records.NOTE, row["id"].bytes, row["note"]) or "",
    )


def _wish(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnWish:
    return OwnWish(
        str(row["id"]),
        [str(one) for one in row["patient_ids"]],
        row["department_id"],
        orjson.loads(row["wanted"]),
        row["status"],
        row["reason"],
        _text(row["appointment_id"]),
        row["until"],
        row["created_at"],
        row["updated_at"],
    )


def _penalty(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnPenalty:
    id_, subject = row["id"].bytes, row["subject"].bytes
    key = (contact_key if row["subject_kind"] == "patient" else account_key)(subject, row["contact_key"])
    return OwnPenalty(
        str(row["id"]),
        row["subject_kind"],
        str(row["subject"]),
        row["rule"],
        row["offence"],
        row["begins"],
        row["ends"],
        [str(one) for one in row["evidence"]],
        [str(one) for one in row["forgiven"]],
        row["appeal"],
        row["appealed_at"],
        vault.open(key, APPEAL_TEXT, id_, row["appeal_text"]),
        row["decided_at"],
        vault.open(key, DECISION_REASON, id_, row["decision_reason"]),
        row["lifted_at"],
    )


def _consent(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnConsent:
    return OwnConsent(
        row["id"],
        _text(row["patient_id"]),
        row["kind"],
        row["act"],
        row["version"],
        row["language"],
        row["text_sha256"].hex(),
        row["at"],
        row["how"],
    )


def _delegation(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnDelegation:
    return OwnDelegation(
        str(row["id"]),
        str(row["patient_id"]),
        row["account_id"].bytes == of.account_id,
        row["relation"],
        row["status"],
        row["asked_at"],
        row["decided_at"],
    )


def _session(vault: Vault, row: asyncpg.Record, of: Whose) -> SessionRecord:
    return SessionRecord(str(row["id"]), *tuple(row)[1:8])


def _notice(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnNotice:
    return OwnNotice(
        row["id"],
        str(row["patient_id"]),
        row["kind"],
        row["step"],
        row["department_id"],
        row["day"],
        row["at"],
        orjson.loads(row["data"]),
    )


def _way(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnWay:
    return OwnWay(str(row["appointment_id"]), row["minutes"], row["told_at"])


def _call(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnCall:
    key = contact_key(row["patient_id"].bytes, row["contact_key"])
    note = vault.open(key, CALL_NOTE, note_row(row["appointment_id"].bytes, row["at"]), row["note"])
    return OwnCall(row["id"], str(row["appointment_id"]), row["at"], row["outcome"], note or "")


def _look(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnLook:
    return OwnLook(row["id"], row["at"], row["department_id"], row["in_full"])


def _access(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnAccess:
    mine = set(of.own)
    return OwnAccess(
        row["id"],
        [str(one) for one in row["subjects"] if one in mine],
        row["at"],
        row["action"],
        row["by_kind"],
        list(row["roles"] or ()),
        row["department_id"],
        row["outcome"],
    )


def _correction(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnCorrection:
    key = record_key(row["patient_id"].bytes, row["record_key"])
    return OwnCorrection(
        str(row["id"]),
        str(row["patient_id"]),
        row["at"],
        list(row["changed"]),
        vault.open(key, NAME_BEFORE, row["id"].bytes, row["name"]),
        row["birth_date"],
        row["sex"],
    )


def _erasure(vault: Vault, row: asyncpg.Record, of: Whose) -> OwnErasure:
    return OwnErasure(
        str(row["id"]), _text(row["patient_id"]), row["at"], row["kept_until"], row["finished_at"]
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)


_ZERO: Final = UUID(int=0)

SECTIONS: Final = (
    Section(
        "people",
        "select p.id as k, p.*, a.phone, a.relation, a.created_at as added_at, a.expires_at, a.revoked_at,"
        "       a.may_book, a.may_see, a.may_pay"
        "  from account_patient a join patient p on p.id = a.patient_id where a.account_id = $1",
        "account",
        _ZERO,
        _patient,
    ),
    Section(
        "appointments",
        # Of others, those that this account has booked, unless the person has hidden them from it.
        "select a.id as k, a.* from appointment a where a.patient_id = any ($2::uuid[])"
        " or a.account_id = $1 and not exists (select from account_patient h"
        "      where h.account_id = a.account_id and h.patient_id = a.patient_id and not h.may_see)",
        "both",
        _ZERO,
        _appointment,
    ),
    Section(
        "bills",
        bills_export.QUERY,
        "both",
        _ZERO,
        lambda vault, row, of: own_bill(vault, row, of.account_id),
    ),
    Section(
        "tickets",
        "select t.id as k, t.* from ticket t where t.patient_id = any ($1::uuid[])",
        "seen",
        _ZERO,
        _ticket,
    ),
    Section(
        "vitals",
        "select v.id as k, v.*, t.patient_id, p.record_key from vitals v join ticket t on t.id = v.ticket_id"
        "  join patient p on p.id = t.patient_id where t.patient_id = any ($1::uuid[])",
        "own",
        _ZERO,
        _vitals,
    ),
    Section("reports", REPORTS, "own", _ZERO, lambda vault, row, of: own_report(vault, row)),
    Section("numbers", NUMBERS, "own", _ZERO, lambda vault, row, of: own_number(vault, row)),
    Section("imaging", STUDIES, "own", _ZERO, lambda vault, row, of: own_study(vault, row)),
    Section("clinical", ENTRIES, "own", _ZERO, lambda vault, row, of: own_entry(vault, row)),
    Section(
        "wishes",
        "select w.id as k, w.* from wish w where w.account_id = $1",
        "account",
        _ZERO,
        _wish,
    ),
    Section(
        "penalties",
        "select x.id as k, x.*, coalesce(p.contact_key, a.contact_key) as contact_key,"
        "       array(select m.appointment_id from amnesty m where m.penalty_id = x.id) as forgiven"
        "  from penalty x left join patient p on x.subject_kind = 'patient' and p.id = x.subject"
        "  left join account a on x.subject_kind = 'account' and a.id = x.subject"
        " where x.subject = $1 or x.subject = any ($2::uuid[])",
        "both",
        _ZERO,
        _penalty,
    ),
    Section(
        "consents", "select c.id as k, c.* from consent c where c.account_id = $1", "account", 0, _consent
    ),
    Section(
        "delegations",
        "select d.id as k, d.* from delegation_request d"
        " where d.account_id = $1 or d.patient_id = any ($2::uuid[])",
        "both",
        _ZERO,
        _delegation,
    ),
    Section(
        "sessions",
        "select id, method, device, created_at, last_seen_at, ends_at, revoked_at, revoked_why, id as k"
        "  from session where owner = $1",
        "account",
        _ZERO,
        _session,
    ),
    Section(
        "notices",
        "select n.id as k, n.* from notice n where n.patient_id = any ($1::uuid[])",
        "seen",
        0,
        _notice,
    ),
    Section(
        "ways",
        "select w.appointment_id as k, w.* from way w join appointment a on a.id = w.appointment_id"
        " where a.account_id = $1 or a.patient_id = any ($2::uuid[])",
        "both",
        _ZERO,
        _way,
    ),
    Section(
        "calls",
        "select c.id as k, c.*, a.patient_id, p.contact_key from no_show_call c"
        "  join appointment a on a.id = c.appointment_id join patient p on p.id = a.patient_id"
        " where a.patient_id = any ($1::uuid[])",
        "own",
        0,
        _call,
    ),
    Section(
        "looks",
        "select l.id as k, l.* from calling_list_look l where l.patient_ids && $1::uuid[]",
        "own",
        0,
        _look,
    ),
    Section(
        "accesses",
        "select e.id as k, e.id, e.subjects, e.at, e.action, e.by_kind, e.outcome, s.roles, s.department_id"
        "  from audit_entry e left join staff s on e.by_kind = 'staff' and s.id = e.by_id"
        " where e.subjects && $1::uuid[]",
        "own",
        0,
        _access,
    ),
    Section(
        "corrections",
        "select c.id as k, c.*, p.record_key from correction c join patient p on p.id = c.patient_id"
        " where c.patient_id = any ($1::uuid[])",
        "own",
        _ZERO,
        _correction,
    ),
    Section(
        "erasures", "select e.id as k, e.* from erasure e where e.account_id = $1", "account", _ZERO, _erasure
    ),
)
