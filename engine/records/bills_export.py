"""Bills as somebody takes them along: what was to be paid, was paid, and came back. Amounts in fen."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from engine.records.hospital_bills import opened_names
from engine.vault.vault import Vault

QUERY: Final = """
select b.id as k, b.*, h.names, o.record_key,
       (select coalesce(jsonb_agg(jsonb_build_array(p.provider, p.fen, p.received, p.transaction_id,
                                                    p.begun_at, p.paid_at) order by p.begun_at, p.id), '[]')
          from payment p where p.bill_id = b.id) as payments,
       (select coalesce(jsonb_agg(jsonb_build_array(r.fen, r.cause, r.state = 5, r.reference, r.begun_at,
                                                    r.since) order by r.begun_at, r.id), '[]')
          from refund r where r.bill_id = b.id) as refunds
  from bill b left join hospital_bill h on h.bill_id = b.id left join patient o on o.id = b.patient_id
 where b.patient_id = any ($2::uuid[])
 or b.account_id = $1 and not exists (select from account_patient h
      where h.account_id = b.account_id and h.patient_id = b.patient_id and not h.may_see)"""
"""Of oneself and one's children; of others those that this account has opened, unless the person has hidden
visits from it."""


@dataclass(frozen=True, slots=True)
class OwnBillLine:
    kind: str  # registration | drug | examination
    item: str  # the catalog's code
    name: str  # of a drug or examination; "": what the code says
    fen: int
    quantity: int


@dataclass(frozen=True, slots=True)
class OwnDiscount:
    rule: str
    name: str
    fen: int


@dataclass(frozen=True, slots=True)
class OwnPayment:
    provider: str
    fen: int
    received_fen: int
    transaction_id: str  # the provider's
    begun_at: datetime
    paid_at: datetime | None


@dataclass(frozen=True, slots=True)
class OwnRefund:
    fen: int
    cause: str
    is_done: bool
    reference: str  # the provider's
    asked_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class OwnBill:
    id: str
    patient_id: str
    opened_by_this_account: bool
    order: str
    appointment_id: str | None
    status: str
    fen: int
    paid_fen: int
    refunded_fen: int
    opened_at: datetime
    updated_at: datetime
    lines: list[OwnBillLine]
    discounts: list[OwnDiscount]
    payments: list[OwnPayment]
    refunds: list[OwnRefund]


def own_bill(vault: Vault, row: asyncpg.Record, account_id: bytes) -> OwnBill:
    appointment_id = row["appointment_id"]
    names = opened_names(vault, row["patient_id"].bytes, row["record_key"], row["id"].bytes, row["names"])
    return OwnBill(
        str(row["id"]),
        str(row["patient_id"]),
        row["account_id"].bytes == account_id,
        row["order_no"],
        None if appointment_id is None else str(appointment_id),
        row["status"],
        row["fen"],
        row["paid"],
        row["refunded"],
        row["opened_at"],
        row["updated_at"],
        [
            OwnBillLine(kind, item, names.get(line_id, ""), fen, quantity)
            for line_id, kind, item, fen, quantity in _json(row["lines"])
        ],
        [OwnDiscount(rule, name, fen) for _, rule, name, fen, *_ in _json(row["discounts"])],
        [
            OwnPayment(provider, fen, received, transaction_id, _at(begun), paid and _at(paid))
            for provider, fen, received, transaction_id, begun, paid in _json(row["payments"])
        ],
        [
            OwnRefund(fen, cause, is_done, reference, _at(begun), _at(since))
            for fen, cause, is_done, reference, begun, since in _json(row["refunds"])
        ],
    )


def _json(value: str) -> list[Any]:
    found: list[Any] = orjson.loads(value)
    return found


def _at(value: str) -> datetime:
    return datetime.fromisoformat(value)
