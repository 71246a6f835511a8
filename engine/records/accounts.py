"""Accounts as WeChat knows them: who signs in, and the phone that was bound. Ids are 16 bytes."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from engine.records.patients import account_of_openid
from engine.records.sealed_people import ACCOUNT_PHONE, account_key, account_key_of
from engine.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Account:
    id: bytes
    created_at: datetime
    phone: str | None  # None: not bound, or erased
    phone_bound_at: datetime | None
    same_phone: int  # other accounts that it is bound to as well


async def account_of_wechat(
    conn: asyncpg.Connection, openid: str, unionid: str | None, new_id: bytes, now: datetime
) -> bytes:
    """The account that signs in; WeChat's newest word about its unionid is kept."""
    account_id = await account_of_openid(conn, openid, new_id, now)
    if unionid is not None:
        await conn.execute(
            "update account set unionid = $2 where id = $1 and unionid is distinct from $2",
            UUID(bytes=account_id),
            unionid,
        )
    return account_id


async def account_of_id(conn: asyncpg.Connection, vault: Vault, account_id: bytes) -> Account | None:
    row = await conn.fetchrow(
        "select created_at, contact_key, phone, phone_bound_at,"
        "       (select count(*) from account b"
        "         where b.phone_index = a.phone_index and b.id <> a.id) as others"
        "  from account a where id = $1",
        UUID(bytes=account_id),
    )
    if row is None:
        return None
    key = account_key(account_id, row["contact_key"])
    phone = vault.open(key, ACCOUNT_PHONE, account_id, row["phone"])
    return Account(account_id, row["created_at"], phone, row["phone_bound_at"], row["others"])


async def bind_phone(
    conn: asyncpg.Connection, vault: Vault, account_id: bytes, phone: str, now: datetime
) -> None:
    """Instead of the one before it, if there is one. Call it in a transaction. `phone` is normal."""
    key = await account_key_of(conn, vault, account_id)
    await conn.execute(
        "update account set phone = $2, phone_index = $3, phone_bound_at = $4 where id = $1",
        UUID(bytes=account_id),
        vault.seal(key, ACCOUNT_PHONE, account_id, phone),
        vault.index(ACCOUNT_PHONE, phone),
        now,
    )
