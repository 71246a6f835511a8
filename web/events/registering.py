"""What may be done with webhooks, whoever asks: a partner with its own, administrators with all, the command
line. Each change is audited by whoever calls this, in the same transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from engine.records import event_feed
from engine.records import webhooks as records
from engine.records.webhooks import Delivery, Webhook
from engine.settings import Settings
from engine.vault.vault import DataKey, Vault
from integrations.webhooks.addresses import Allowed, checked, networks_of
from integrations.webhooks.client import Endpoint, Sender, Sent
from integrations.webhooks.signing import new_secret
from web.events.dispatching import secrets_in_force
from web.events.envelope import CONTENT_TYPE
from web.events.reading import public_of_raw
from web.fresh_ids import new_id

PING_SECONDS_MAX: Final = 5.0
BEFORE: Final = timedelta(hours=24)
"""After a rotation, the secret before signs as well for so long."""
PING: Final = "webhook.ping"


class NoSuchEvent(Exception):
    """There is none with this number, or it is not told outside."""


def allowed_of(settings: Settings) -> Allowed:
    """Where the operator lets webhooks go."""
    return Allowed(networks_of(settings.webhook_networks), plain_loopback=settings.demo)


async def add(
    connection: asyncpg.Connection,
    vault: Vault,
    partner_id: bytes | None,
    address: str,
    types: Sequence[str],
    by: str,
    now: datetime,
    allowed: Allowed,
) -> tuple[Webhook, str]:
    """With its secret, which is told this once. Raises AddressRefused, TooMany."""
    checked(address, allowed)
    id_ = new_id()
    key = vault.new_key(records.KEY_FIELD, id_)
    secret = new_secret()
    sealed = vault.seal(key, records.SECRET_FIELD, id_, secret)
    made = Webhook(
        id_,
        partner_id,
        address,
        tuple(dict.fromkeys(types)),
        key.wrapped,
        sealed,
        None,
        None,
        now,
        by,
        None,
        None,
        "",
    )
    await records.add(connection, made)
    return made, secret


async def rotate(
    connection: asyncpg.Connection, vault: Vault, webhook: Webhook, now: datetime
) -> tuple[str, datetime]:
    """Another secret, and until when the one before signs as well."""
    key = DataKey(records.KEY_FIELD, webhook.id, webhook.data_key)
    secret = new_secret()
    until = now + BEFORE
    sealed = vault.seal(key, records.SECRET_FIELD, webhook.id, secret)
    await records.rotate(connection, webhook.id, sealed, until)
    return secret, until


async def ping(pool: asyncpg.Pool, vault: Vault, webhook: Webhook, now: datetime, allowed: Allowed) -> Sent:
    """A message that says nothing, sent at once, also to who is disabled; the log has it, too."""
    source = await event_feed.source(pool)
    id_ = f"ping-{UUID(bytes=new_id())}"
    body = orjson.dumps(
        {
            "specversion": "1.0",
            "id": id_,
            "source": source.id,
            "type": PING,
            "time": now.isoformat(timespec="milliseconds"),
            "data": {},
        }
    )
    sender = Sender(allowed, PING_SECONDS_MAX)
    try:
        endpoint = Endpoint(webhook.address, secrets_in_force(vault, webhook, now))
        sent = await sender.send(endpoint, id_, CONTENT_TYPE, body)
    finally:
        await sender.close()
    await records.note(pool, webhook.id, [Delivery(id_, PING, now, 0, sent.status, sent.ms, sent.trouble)])
    return sent


async def redeliver(connection: asyncpg.Connection, webhook: Webhook, event_id: str, now: datetime) -> None:
    """Once more, or at last. Raises NoSuchEvent."""
    shard, _, seq = event_id.partition("-")
    found = await event_feed.at_positions(connection, [(int(shard), int(seq))])
    if not await public_of_raw(connection, found):
        raise NoSuchEvent
    await records.put_again(connection, webhook.id, found[0].shard, found[0].seq, found[0].stream, now)
