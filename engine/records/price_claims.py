"""What the records know of a patient when a bill is made, and discounts that are given only so many times.

A first-visit discount is given to a patient once, a free follow-up so often for a visit that was paid. Each
that is given is a row with its number; of two bills that want the same number one has it. Like coupons
(coupons.py) they are claimed before the bill is opened, lapse where it never was, and are given back by a
bill that ends without having cost anything.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.domain.price_rules import Visitor
from engine.records.coupons import OPENING

Executor: TypeAlias = asyncpg.Connection | asyncpg.Pool

FIRST_VISIT: Final = "first_visit"
FREE_FOLLOW_UP: Final = "free_follow_up"

_LIVE: Final = """
(c.taken_at >= $5::timestamptz or exists (
    select from bill b, jsonb_array_elements(b.discounts) d where b.id = c.bill_id and d ->> 1 = c.kind))"""
"""Its bill has the discount, or may be about to be opened with it."""

_VISITOR: Final = f"""
select not exists (select from appointment v where v.patient_id = $1 and v.status = 4)
       and not exists (select from price_claim c where c.kind = 'first_visit' and c.subject = $1
                          and c.bill_id <> $4 and {_LIVE}) as is_first,
       paid.id, paid.starts_at, paid.schedule_id,
       (select count(*)::int from price_claim c where c.kind = 'free_follow_up' and c.subject = paid.id
           and c.bill_id <> $4 and {_LIVE}) as free
  from (select) one
  left join lateral (
       select a.id, a.starts_at, a.schedule_id from appointment a join bill b on b.appointment_id = a.id
        where a.patient_id = $1 and a.department_id = $2 and a.status = 4 and a.id <> $3
          and b.is_settled and b.paid > b.refunded + b.owed_back
          and exists (select from jsonb_array_elements(b.lines) l where l ->> 1 = 'registration')
        order by a.starts_at desc limit 1) paid on true"""


@dataclass(frozen=True, slots=True)
class Known:
    """Of a patient, for one bill."""

    visitor: Visitor
    paid_visit: bytes | None  # the appointment that a free follow-up would follow


async def known_of(
    executor: Executor,
    patient_id: bytes,
    department_id: str,
    practitioner_id: str,
    appointment_id: bytes,
    bill_id: bytes,
    now: datetime,
) -> Known:
    """What this bill itself has claimed before does not count against it."""
    row = await executor.fetchrow(
        _VISITOR,
        UUID(bytes=patient_id),
        department_id,
        UUID(bytes=appointment_id),
        UUID(bytes=bill_id),
        now - OPENING,
    )
    paid_at: datetime | None = row["starts_at"]
    visitor = Visitor(
        is_first_visit=row["is_first"],
        department_id=department_id,
        practitioner_id=practitioner_id,
        paid_visit_at=0 if paid_at is None else int(paid_at.timestamp() * 1000),
        paid_practitioner_id="" if paid_at is None else row["schedule_id"].rpartition("-")[0],
        free_visits=row["free"],
    )
    return Known(visitor, None if row["id"] is None else row["id"].bytes)


async def claim(
    connection: asyncpg.Connection, kind: str, subject: bytes, at_most: int, bill_id: bytes, now: datetime
) -> bool:
    """Takes the first number that is free, of `at_most`; False: there is none left. The same bill asks again
    for nothing."""
    arguments = kind, UUID(bytes=subject), UUID(bytes=bill_id)
    await connection.execute(
        "delete from price_claim c where c.kind = $1 and c.subject = $2 and c.bill_id <> $3 and c.nth < $4"
        f" and not {_LIVE}",
        *arguments,
        at_most,
        now - OPENING,
    )
    return bool(
        await connection.fetchval(
            "with mine as (select nth from price_claim where kind = $1 and subject = $2 and bill_id = $3),"
            " new as (insert into price_claim (kind, subject, nth, bill_id, taken_at)"
            "         select $1, $2, n, $3, $5 from generate_series(0, $4::int - 1) n"
            "          where not exists (select from mine)"
            "            and not exists (select from price_claim c"
            "                             where c.kind = $1 and c.subject = $2 and c.nth = n)"
            "          order by n limit 1 on conflict (kind, subject, nth) do nothing returning nth)"
            " select true where exists (select from mine) or exists (select from new)",
            *arguments,
            at_most,
            now,
        )
    )
