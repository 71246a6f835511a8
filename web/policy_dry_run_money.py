"""`xinglin policy dry-run`, the part about money: what recorded registrations would have cost, what would
have been given back, and who could not have paid at the hospital, under one policy and under another.

Prices are computed anew in the order in which numbers were booked, with what was known of the patient then; a
discount that is given so many times is given so many times. Coupons are as they were. Nothing is written.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.table import Table

from engine.domain import price_rules
from engine.domain.money import yuan
from engine.domain.policy import Policy
from engine.domain.price_rules import Kind, Line, Visitor
from engine.domain.refund_rules import Cause, cause_of, part, percent_back
from engine.domain.schedule import Status

_GIVEN_UP: Final = (Status.CANCELLED, Status.NOSHOW)

_NUMBERS: Final = """
select a.id, a.patient_id, a.department_id, a.number_class_id, a.schedule_id, a.status, a.reason, a.fate,
       a.fee_fen, a.starts_at, a.updated_at, b.paid, coalesce(b.is_deferred, false) as is_deferred,
       b.id is null as has_no_bill, not exists (
           select from appointment v
            where v.patient_id = a.patient_id and v.status = 4 and v.starts_at < a.starts_at) as is_first,
       paid.id as paid_id, paid.starts_at as paid_at, paid.schedule_id as paid_schedule
  from appointment a left join bill b on b.id = a.id
  left join lateral (
       select v.id, v.starts_at, v.schedule_id from appointment v join bill w on w.appointment_id = v.id
        where v.patient_id = a.patient_id and v.department_id = a.department_id and v.status = 4
          and v.starts_at < a.starts_at and w.is_settled and w.paid > w.refunded + w.owed_back
        order by v.starts_at desc limit 1) paid on true
 where right(a.schedule_id, 8) between $1 and $2
 order by a.created_at, a.id"""


@dataclass(frozen=True, slots=True)
class MoneyNumber:
    """A recorded number, and what was known of its patient when it was booked."""

    patient_id: bytes
    department_id: str
    number_class_id: str
    fee_fen: int
    starts_at: datetime
    visitor: Visitor
    paid_visit: bytes
    paid: int  # online or at the desk; 0: nothing yet
    at_hospital: bool  # to be paid there
    gone: Cause | None  # why it was given up; None: it was kept
    gone_at: datetime


@dataclass(frozen=True, slots=True)
class MoneyOutcome:
    """Under one policy."""

    discounts: Counter[tuple[str, str]]  # (rule, name) -> fen
    refunds: Counter[tuple[str, str, str]]  # (department, class, cause) -> fen
    too_dear: int  # numbers that could not have been left to be paid at the hospital


async def read_numbers(connection: asyncpg.Connection, first: date, last: date) -> list[MoneyNumber]:
    rows = await connection.fetch(_NUMBERS, f"{first:%Y%m%d}", f"{last:%Y%m%d}")
    return [_number(row) for row in rows]


def rehearse_money(numbers: Iterable[MoneyNumber], policy: Policy) -> MoneyOutcome:
    discounts: Counter[tuple[str, str]] = Counter()
    refunds: Counter[tuple[str, str, str]] = Counter()
    too_dear = 0
    first: set[bytes] = set()  # who had the discount of a first visit
    free: dict[bytes, int] = defaultdict(int)  # free visits that a paid one has brought
    allowed = policy.money.at_hospital
    for one in numbers:
        if one.gone is not None and not one.paid:
            continue  # it never cost anything
        visitor = Visitor(
            one.visitor.is_first_visit and one.patient_id not in first,
            one.department_id,
            one.visitor.practitioner_id,
            one.visitor.paid_visit_at,
            one.visitor.paid_practitioner_id,
            free[one.paid_visit],
        )
        line = Line("registration", Kind.REGISTRATION, one.number_class_id, one.fee_fen)
        found, _ = price_rules.price((line,), visitor, policy.prices, _ms(one.starts_at))
        for each in found:
            discounts[each.rule, each.name] += each.fen
            if one.gone is None and each.rule == "first_visit":
                first.add(one.patient_id)
            if one.gone is None and each.rule == "free_follow_up":
                free[one.paid_visit] += 1
        left = one.fee_fen - sum(each.fen for each in found)
        if one.at_hospital:
            too_dear += allowed is None or (allowed.fen_max is not None and left > allowed.fen_max)
        if one.gone is not None and one.paid:
            terms = policy.money.refunds.terms_of(one.department_id, one.number_class_id)
            percent = percent_back(terms, one.gone, _ms(one.starts_at), _ms(one.gone_at))
            refunds[one.department_id, one.number_class_id, one.gone.value] += part(one.paid, percent)
    return MoneyOutcome(discounts, refunds, too_dear)


def show_money(numbers: list[MoneyNumber], before: Policy, after: Policy, console: Console) -> None:
    """What would differ; only where somebody has paid, or a rule has taken something off."""
    old, new = rehearse_money(numbers, before), rehearse_money(numbers, after)
    off = _table("What price rules would have taken off", "rule", "name", "in force", "then")
    for rule in sorted(old.discounts.keys() | new.discounts.keys()):
        off.add_row(*rule, yuan(old.discounts[rule]), yuan(new.discounts[rule]))
    back = _table("What would have been given back", "department", "class", "why", "in force", "then")
    for which in sorted(old.refunds.keys() | new.refunds.keys()):
        back.add_row(*which, yuan(old.refunds[which]), yuan(new.refunds[which]))
    for table in (off, back):
        if not table.rows:
            table.add_row("nothing, under either policy", *[""] * (len(table.columns) - 1))
        console.print()
        console.print(table)
    count = sum(one.at_hospital for one in numbers)
    console.print()
    console.print(
        f"Of {count} numbers to be paid at the hospital, {old.too_dear} would not have been let in force and"
        f" {new.too_dear} then"
    )


def _table(title: str, *words: str) -> Table:
    table = Table(*words, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns[-2:]:
        column.justify = "right"
    return table


def _number(row: asyncpg.Record) -> MoneyNumber:
    paid_at: datetime | None = row["paid_at"]
    visitor = Visitor(
        row["is_first"],
        row["department_id"],
        _practitioner(row["schedule_id"]),
        0 if paid_at is None else _ms(paid_at),
        "" if paid_at is None else _practitioner(row["paid_schedule"]),
    )
    paid_visit: UUID | None = row["paid_id"]
    return MoneyNumber(
        row["patient_id"].bytes,
        row["department_id"],
        row["number_class_id"],
        row["fee_fen"],
        row["starts_at"],
        visitor,
        b"" if paid_visit is None else paid_visit.bytes,
        row["paid"] or 0,
        row["is_deferred"] or (row["has_no_bill"] and row["status"] not in _GIVEN_UP),
        _cause(row),
        row["updated_at"],
    )


def _cause(row: asyncpg.Record) -> Cause | None:
    """A change (改签) gives nothing back: its bill goes along."""
    if row["status"] == Status.NOSHOW:
        return Cause.NO_SHOW
    if row["status"] != Status.CANCELLED or row["reason"] == "changed":
        return None
    return Cause.SUSPENDED if row["fate"] else cause_of(row["reason"] or "")


def _practitioner(schedule_id: str) -> str:
    return schedule_id.rpartition("-")[0]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
