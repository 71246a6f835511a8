"""All webhooks, for administrators: registered, looked after, tried out (web/events/registering.py)."""

from aiohttp import web

from web.auth import Staff
from web.events import webhook_work as work
from web.events.bodies import (
    DeliveriesAnswer,
    DeliveriesQuery,
    DeliveryPath,
    PingAnswer,
    WebhookAnswer,
    WebhookBody,
    WebhooksAnswer,
    WebhookSecretAnswer,
    WebhookStateBody,
)
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath

_TAGS = ["events"]
_PATH = "/api/v1/admin/webhooks"


@api.route("GET", _PATH, zh="Webhook 列表", tags=_TAGS, errors=[Fault.DATABASE_DOWN])
async def list_webhooks(request: web.Request) -> WebhooksAnswer:
    """All of them, the oldest first, with what waits for each."""
    return await work.listed(request, None)


@api.route(
    "POST",
    _PATH,
    zh="登记Webhook ",
    status=201,
    tags=_TAGS,
    errors=[
        Fault.WEBHOOKS_OFF,
        Fault.WEBHOOK_ADDRESS_REFUSED,
        Fault.TOO_MANY_WEBHOOKS,
        Fault.DATABASE_DOWN,
    ],
)
async def add_webhook(request: web.Request, *, staff: Staff, body: WebhookBody) -> WebhookSecretAnswer:
    """Events of these types are sent there from now on. The secret that signs them is told this once."""
    return await work.added(request, None, staff.username, body)


@api.route(
    "PUT",
    _PATH + "/{id}",
    zh="修改Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.WEBHOOK_ADDRESS_REFUSED, Fault.DATABASE_DOWN],
)
async def change_webhook(request: web.Request, *, path: IdPath, body: WebhookBody) -> WebhookAnswer:
    """Another address, other types. What waits already goes to the new address."""
    return await work.changed(request, None, path.id.bytes, body)


@api.route(
    "DELETE",
    _PATH + "/{id}",
    zh="删除Webhook ",
    status=204,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def remove_webhook(request: web.Request, *, path: IdPath) -> None:
    """With its log and all that waits for it."""
    await work.removed(request, None, path.id.bytes)


@api.route(
    "POST",
    _PATH + "/{id}/secret",
    zh="更换Webhook 密钥",
    status=201,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def rotate_webhook_secret(request: web.Request, *, path: IdPath) -> WebhookSecretAnswer:
    """A new secret, told this once. For a day each message has a signature by both."""
    return await work.rotated(request, None, path.id.bytes)


@api.route(
    "POST",
    _PATH + "/{id}/state",
    zh="启用或停用Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def set_webhook_state(request: web.Request, *, path: IdPath, body: WebhookStateBody) -> WebhookAnswer:
    """Enabled again, what waited is delivered; what happened while it was disabled is in the feed alone."""
    return await work.set_state(request, None, path.id.bytes, body.enabled)


@api.route(
    "POST",
    _PATH + "/{id}/ping",
    zh="测试Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def ping_webhook(request: web.Request, *, path: IdPath) -> PingAnswer:
    """Sends a signed message that says nothing, now, and tells how that went."""
    return await work.pinged(request, None, path.id.bytes)


@api.route(
    "GET",
    _PATH + "/{id}/deliveries",
    zh="Webhook 投递记录",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def list_webhook_deliveries(
    request: web.Request, *, path: IdPath, query: DeliveriesQuery
) -> DeliveriesAnswer:
    """Each try of the last 30 days, the latest first: when, which event, their status, how long it took."""
    return await work.deliveries(request, None, path.id.bytes, query)


@api.route(
    "POST",
    _PATH + "/{id}/deliveries/{event_id}/redeliver",
    zh="重新投递",
    status=202,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.NO_SUCH_EVENT, Fault.DATABASE_DOWN],
)
async def redeliver_webhook_event(request: web.Request, *, path: DeliveryPath) -> WebhookAnswer:
    """An event once more, or one that they refused for good: it is sent as soon as it can be."""
    return await work.redelivered(request, None, path.id.bytes, path.event_id)
