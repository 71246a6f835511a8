"""Coupons in PostgreSQL: made in batches, shown by patients, each on one bill at a time.

A code is money to whoever shows it, so it is kept as a hash and told once, when it is made. That a coupon is
used once is one UPDATE: of two bills that want it, one has it. It is reserved before its bill is opened;
where the bill then never was (or was opened without it), the reservation lapses by itself. A bill that ends
without having cost anything gives it back.
"""

import hashlib
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.domain.ids import derived
from engine.domain.price_rules import Coupon

Executor: TypeAlias = asyncpg.Connection | asyncpg.Pool

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Without what is mistaken for something else: 0 and O, 1, I and L."""
CODE_CHARS: Final = 16  # 79 bits: nobody finds one, not even with all the hashes
GROUP_CHARS: Final = 4
COUNT_MAX: Final = 100_000
OPENING: Final = timedelta(minutes=10)
"""After so long, a bill that was about to be opened never will be."""


@dataclass(frozen=True, slots=True)
class NewCoupons:
    """Of one batch, all alike. Either `fen` or `percent`."""

    name: str  # what bills call it
    kinds: tuple[str, ...]
    begins_at: datetime
    ends_at: datetime
    fen: int = 0
    percent: int = 0
    at_least: int = 0
    patient_id: bytes | None = None  # None: whoever shows it


@dataclass(frozen=True, slots=True)
class CouponRow:
    id: bytes
    tail: str
    new: NewCoupons
    made_by: str
    made_at: datetime
    voided_at: datetime | None
    bill_id: bytes | None  # that has it now
    taken_at: datetime | None

    @property
    def label(self) -> str:
        """As bills name it: enough to tell it from the others of its batch, and not enough to use it."""
        return f"{self.new.name} {self.tail}"

    def rule(self) -> Coupon:
        """For engine/domain/price_rules.py."""
        new = self.new
        return Coupon(
            self.label, _ms(new.begins_at), _ms(new.ends_at), new.fen, new.percent, new.at_least, new.kinds
        )


def new_code() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARS))


def spelled(code: str) -> str:
    """As it is printed: in groups."""
    groups = [code[start : start + GROUP_CHARS] for start in range(0, CODE_CHARS, GROUP_CHARS)]
    return "-".join(groups)


def code_of(text: str) -> str | None:
    """What somebody typed, as the code that it is; None where it can be none."""
    plain = unicodedata.normalize("NFKC", text[:64]).upper()
    code = "".join(sign for sign in plain if sign not in " -_")
    return code if len(code) == CODE_CHARS and all(sign in ALPHABET for sign in code) else None


async def make(
    connection: asyncpg.Connection, new: NewCoupons, count: int, by: str, now: datetime
) -> list[str]:
    """Their codes, which nobody can be told again."""
    assert 0 < count <= COUNT_MAX
    codes = [new_code() for _ in range(count)]
    hashes = [_hash(code) for code in codes]
    await connection.executemany(
        "insert into coupon (id, code_hash, tail, name, fen, percent, at_least, kinds, begins_at, ends_at,"
        " patient_id, made_by, made_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        [
            (
                UUID(bytes=derived(b"coupon", code_hash)),
                code_hash,
                code[-GROUP_CHARS:],
                new.name,
                new.fen,
                new.percent,
                new.at_least,
                list(new.kinds),
                new.begins_at,
                new.ends_at,
                None if new.patient_id is None else UUID(bytes=new.patient_id),
                by,
                now,
            )
            for code, code_hash in zip(codes, hashes, strict=True)
        ],
    )
    return codes


_COLUMNS: Final = (
    "id, tail, name, kinds, begins_at, ends_at, fen, percent, at_least, patient_id, made_by, made_at,"
    " voided_at, bill_id, taken_at"
)

_ON_ITS_BILL: Final = """
exists (select from bill has, jsonb_array_elements(has.discounts) d
         where has.id = coupon.bill_id and d ->> 1 = 'coupon'
           and d ->> 2 = coupon.name || ' ' || coupon.tail)"""
_LAPSED: Final = f"(coupon.taken_at < $3::timestamptz and not {_ON_ITS_BILL})"
"""Its bill was never opened, or opened without it. $3: what was reserved before this was not in time."""


async def coupon(executor: Executor, code: str) -> CouponRow | None:
    """By its code, as code_of gives it."""
    row = await executor.fetchrow(f"select {_COLUMNS} from coupon where code_hash = $1", _hash(code))
    return None if row is None else _row(row)


async def is_free_for(executor: Executor, coupon_id: bytes, bill_id: bytes, now: datetime) -> bool:
    """Whether `take` would give it to this bill just now."""
    found: bool | None = await executor.fetchval(
        f"select bill_id is null or bill_id = $2 or {_LAPSED} from coupon where id = $1",
        UUID(bytes=coupon_id),
        UUID(bytes=bill_id),
        now - OPENING,
    )
    return bool(found)


async def take(executor: Executor, coupon_id: bytes, bill_id: bytes, now: datetime) -> bool:
    """Reserves it for this bill, about to be opened. False: another bill has it, or it was voided."""
    return bool(
        await executor.fetchval(
            "update coupon set bill_id = $2, taken_at = $4 where id = $1 and voided_at is null"
            f" and (bill_id is null or bill_id = $2 or {_LAPSED}) returning true",
            UUID(bytes=coupon_id),
            UUID(bytes=bill_id),
            now - OPENING,
            now,
        )
    )


async def give_back(executor: Executor, bill_id: bytes) -> int:
    """What this bill has of coupons and of counted discounts is anybody's again, where the bill came to its
    end without having cost anything (ENDED); a coupon that it was opened without, too. Gives how many these
    were; 0 for all other bills."""
    one = UUID(bytes=bill_id)
    coupons = await executor.fetch(
        "update coupon set bill_id = null, taken_at = null from bill b"
        f" where coupon.bill_id = b.id and b.id = $1 and ({ENDED} or not {_ON_ITS_BILL}) returning coupon.id",
        one,
    )
    claims = await executor.fetch(
        f"delete from price_claim c using bill b where c.bill_id = b.id and b.id = $1 and {ENDED}"
        " returning c.nth",
        one,
    )
    return len(coupons) + len(claims)


ENDED: Final = """
(b.status = 'refunded'
 or (b.status = 'closed' and b.paid = 0 and b.closed <> 'no_show'
     and not exists (select from payment p where p.bill_id = b.id and p.state <= 3)))"""
"""Of a bill b: refunded in full; or closed unpaid, with nobody who may still be paying. Who has not come to a
visit that cost nothing has had it."""


async def void(connection: asyncpg.Connection, ids: Sequence[bytes], by: str, now: datetime) -> int:
    """Nobody can use them from now on; bills that have one keep it. How many these were."""
    rows = await connection.fetch(
        "update coupon set voided_at = $2, voided_by = $3 where id = any ($1::uuid[]) and voided_at is null"
        " returning id",
        [UUID(bytes=one) for one in ids],
        now,
        by,
    )
    return len(rows)


async def coupons(
    executor: Executor, name: str | None = None, tail: str | None = None, limit: int = 1_000
) -> list[CouponRow]:
    """The newest first; of one batch, or those that end so."""
    rows = await executor.fetch(
        f"select {_COLUMNS} from coupon where ($1::text is null or name = $1)"
        " and ($2::text is null or tail = $2) order by made_at desc, id limit $3",
        name,
        tail,
        limit,
    )
    return [_row(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Batch:
    """Coupons that were made together."""

    name: str
    made_at: datetime
    made_by: str
    fen: int
    percent: int
    ends_at: datetime
    count: int
    taken: int  # that bills have now
    voided: int


async def batches(executor: Executor) -> list[Batch]:
    rows = await executor.fetch(
        "select name, made_at, made_by, fen, percent, ends_at, count(*)::int, count(bill_id)::int,"
        "       count(voided_at)::int"
        "  from coupon group by name, made_at, made_by, fen, percent, ends_at order by made_at desc"
    )
    return [Batch(*row) for row in rows]


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _row(row: asyncpg.Record) -> CouponRow:
    patient_id, bill_id = row["patient_id"], row["bill_id"]
    return CouponRow(
        row["id"].bytes,
        row["tail"],
        NewCoupons(
            row["name"],
            tuple(row["kinds"]),
            row["begins_at"],
            row["ends_at"],
            row["fen"],
            row["percent"],
            row["at_least"],
            None if patient_id is None else patient_id.bytes,
        ),
        row["made_by"],
        row["made_at"],
        row["voided_at"],
        None if bill_id is None else bill_id.bytes,
        row["taken_at"],
    )
