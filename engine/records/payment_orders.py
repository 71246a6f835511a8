"""What was asked of a provider for one attempt to pay: kept before it is asked, and never changed."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    attempt_id: bytes
    bill_id: bytes
    payer: bytes  # the account whose WeChat pays
    provider: str
    description: str
    expires_at: datetime  # nobody can pay it any more from then on
    made_at: datetime


async def keep(executor: Executor, order: PaymentOrder) -> PaymentOrder:
    """The one that is kept: of several that ask at once, the first one's."""
    await executor.execute(
        "insert into payment_order (attempt_id, bill_id, payer, provider, description, expires_at, made_at)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (attempt_id) do nothing",
        UUID(bytes=order.attempt_id),
        UUID(bytes=order.bill_id),
        UUID(bytes=order.payer),
        order.provider,
        order.description,
        order.expires_at,
        order.made_at,
    )
    kept = await payment_order(executor, order.attempt_id)
    assert kept is not None
    return kept


async def payment_order(executor: Executor, attempt_id: bytes) -> PaymentOrder | None:
    row = await executor.fetchrow(
        "select attempt_id, bill_id, payer, provider, description, expires_at, made_at"
        "  from payment_order where attempt_id = $1",
        UUID(bytes=attempt_id),
    )
    if row is None:
        return None
    return PaymentOrder(row["attempt_id"].bytes, row["bill_id"].bytes, row["payer"].bytes, *row[3:])


async def openid_of(executor: Executor, account_id: bytes) -> str | None:
    """By which WeChat knows this account; None: it does not (the hospital's own, one that was erased)."""
    openid: str | None = await executor.fetchval(
        "select openid from account where id = $1"
        "   and openid not like 'desk:%' and openid not like 'erased:%'",
        UUID(bytes=account_id),
    )
    return openid
