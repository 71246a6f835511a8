"""What both families of webhook routes do. `mine`: the partner that asks; None: an administrator, who sees to
all of them."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
from aiohttp import web

from engine.records import webhooks as records
from engine.records.webhooks import TooMany, Webhook
from integrations.webhooks.addresses import AddressRefused, checked
from web import keys
from web.auditing import audited
from web.errors import Problem
from web.events import registering
from web.events.bodies import (
    DeliveriesAnswer,
    DeliveriesQuery,
    PingAnswer,
    WebhookAnswer,
    WebhookBody,
    WebhooksAnswer,
    WebhookSecretAnswer,
    delivery_answer,
    webhook_answer,
)
from web.faults import Fault


async def listed(request: web.Request, mine: bytes | None) -> WebhooksAnswer:
    pool = request.app[keys.POOL]
    found = await (records.webhooks(pool) if mine is None else records.of_partner(pool, mine))
    counts = await records.counts(pool, [one.id for one in found])
    return WebhooksAnswer([_told(request, one, counts.get(one.id, (0, 0))) for one in found])


async def added(request: web.Request, mine: bytes | None, by: str, body: WebhookBody) -> WebhookSecretAnswer:
    app = request.app
    settings = app[keys.SETTINGS]
    if not settings.webhooks:
        raise Problem(Fault.WEBHOOKS_OFF)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        try:
            made, secret = await registering.add(
                connection,
                app[keys.VAULT],
                mine,
                body.address,
                body.types,
                by,
                datetime.now(UTC),
                registering.allowed_of(settings),
            )
        except AddressRefused as refused:
            raise Problem(Fault.WEBHOOK_ADDRESS_REFUSED, why=refused.why) from None
        except TooMany:
            raise Problem(Fault.TOO_MANY_WEBHOOKS, limit=records.EACH_MAX) from None
        await _audited(request, connection, "webhook_added", made.id, {"types": list(made.types)})
    return WebhookSecretAnswer(str(UUID(bytes=made.id)), secret, None)


async def changed(request: web.Request, mine: bytes | None, id_: bytes, body: WebhookBody) -> WebhookAnswer:
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await _found(connection, mine, id_)
        try:
            checked(body.address, registering.allowed_of(app[keys.SETTINGS]))
        except AddressRefused as refused:
            raise Problem(Fault.WEBHOOK_ADDRESS_REFUSED, why=refused.why) from None
        types = tuple(dict.fromkeys(body.types))
        await records.change(connection, id_, body.address, types)
        detail = {"types": list(types), "address_changed": body.address != found.address}
        await _audited(request, connection, "webhook_changed", id_, detail)
        counted = await records.counts(connection, [id_])
    return _told(request, replace(found, address=body.address, types=types), counted.get(id_, (0, 0)))


async def removed(request: web.Request, mine: bytes | None, id_: bytes) -> None:
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        await _found(connection, mine, id_)
        await records.remove(connection, id_)
        await _audited(request, connection, "webhook_removed", id_, {})


async def rotated(request: web.Request, mine: bytes | None, id_: bytes) -> WebhookSecretAnswer:
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await _found(connection, mine, id_)
        secret, until = await registering.rotate(connection, app[keys.VAULT], found, datetime.now(UTC))
        await _audited(request, connection, "webhook_secret_rotated", id_, {})
    return WebhookSecretAnswer(str(UUID(bytes=id_)), secret, until.astimezone(app[keys.ZONE]))


async def set_state(request: web.Request, mine: bytes | None, id_: bytes, enabled: bool) -> WebhookAnswer:
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        await _found(connection, mine, id_)
        if enabled:
            await records.enable(connection, id_, now)
        else:
            await records.disable(connection, id_, "asked", now)
        await _audited(request, connection, "webhook_enabled" if enabled else "webhook_disabled", id_, {})
        found = await _found(connection, mine, id_)
        counted = await records.counts(connection, [id_])
    return _told(request, found, counted.get(id_, (0, 0)))


async def pinged(request: web.Request, mine: bytes | None, id_: bytes) -> PingAnswer:
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        found = await _found(connection, mine, id_)
        await _audited(request, connection, "webhook_pinged", id_, {})
    allowed = registering.allowed_of(app[keys.SETTINGS])
    sent = await registering.ping(app[keys.POOL], app[keys.VAULT], found, datetime.now(UTC), allowed)
    return PingAnswer(sent.is_delivered, sent.status, sent.ms, sent.trouble or None)


async def deliveries(
    request: web.Request, mine: bytes | None, id_: bytes, query: DeliveriesQuery
) -> DeliveriesAnswer:
    app = request.app
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await _found(connection, mine, id_)
        rows = await records.deliveries(connection, id_, query.before, query.limit + 1)
    zone = app[keys.ZONE]
    told = [delivery_answer(replace(one, at=one.at.astimezone(zone))) for one in rows[: query.limit]]
    return DeliveriesAnswer(told, told[-1].id if len(rows) > query.limit else None)


async def redelivered(request: web.Request, mine: bytes | None, id_: bytes, event_id: str) -> WebhookAnswer:
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        found = await _found(connection, mine, id_)
        try:
            await registering.redeliver(connection, found, event_id, datetime.now(UTC))
        except registering.NoSuchEvent:
            raise Problem(Fault.NO_SUCH_EVENT) from None
        await _audited(request, connection, "webhook_redelivery_asked", id_, {"event": event_id})
        counted = await records.counts(connection, [id_])
    return _told(request, found, counted.get(id_, (0, 0)))


async def _found(connection: asyncpg.Connection, mine: bytes | None, id_: bytes) -> Webhook:
    """Raises Problem: also of somebody else's, as if it were not there."""
    found = await records.webhook(connection, id_, lock=True)
    if found is None or (mine is not None and found.partner_id != mine):
        raise Problem(Fault.NO_SUCH_WEBHOOK)
    return found


async def _audited(
    request: web.Request, connection: asyncpg.Connection, action: str, id_: bytes, detail: dict[str, object]
) -> None:
    await audited(
        request, connection, action, object=("webhook", str(UUID(bytes=id_))), detail=detail or None
    )


def _told(request: web.Request, one: Webhook, counted: tuple[int, int]) -> WebhookAnswer:
    zone = request.app[keys.ZONE]
    local = replace(
        one,
        made_at=one.made_at.astimezone(zone),
        failing_since=None if one.failing_since is None else one.failing_since.astimezone(zone),
        disabled_at=None if one.disabled_at is None else one.disabled_at.astimezone(zone),
    )
    return webhook_answer(local, *counted)
