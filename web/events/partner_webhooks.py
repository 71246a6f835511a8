"""A partner's own webhooks: registered, looked after, tried out (web/events/registering.py)."""

from aiohttp import web

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
from web.partner.sight import Partner
from web.patient.bodies import IdPath

_TAGS = ["events"]
_PATH = "/api/v1/partner/webhooks"


@api.route("GET", _PATH, zh="本系统的 Webhook 列表", tags=_TAGS, errors=[Fault.DATABASE_DOWN])
async def list_own_webhooks(request: web.Request, *, partner: Partner) -> WebhooksAnswer:
    """Its own, the oldest first, with what waits for each."""
    return await work.listed(request, partner.id)


@api.route(
    "POST",
    _PATH,
    zh="登记本系统的 Webhook ",
    status=201,
    tags=_TAGS,
    errors=[
        Fault.WEBHOOKS_OFF,
        Fault.WEBHOOK_ADDRESS_REFUSED,
        Fault.TOO_MANY_WEBHOOKS,
        Fault.DATABASE_DOWN,
    ],
)
async def add_own_webhook(
    request: web.Request, *, partner: Partner, body: WebhookBody
) -> WebhookSecretAnswer:
    """Events of these types are sent there from now on. The secret that signs them is told this once."""
    return await work.added(request, partner.id, partner.name, body)


@api.route(
    "PUT",
    _PATH + "/{id}",
    zh="修改本系统的 Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.WEBHOOK_ADDRESS_REFUSED, Fault.DATABASE_DOWN],
)
async def change_own_webhook(
    request: web.Request, *, partner: Partner, path: IdPath, body: WebhookBody
) -> WebhookAnswer:
    """Another address, other types. What waits already goes to the new address."""
    return await work.changed(request, partner.id, path.id.bytes, body)


@api.route(
    "DELETE",
    _PATH + "/{id}",
    zh="删除本系统的 Webhook ",
    status=204,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def remove_own_webhook(request: web.Request, *, partner: Partner, path: IdPath) -> None:
    """With its log and all that waits for it."""
    await work.removed(request, partner.id, path.id.bytes)


@api.route(
    "POST",
    _PATH + "/{id}/secret",
    zh="更换本系统的 Webhook 密钥",
    status=201,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def rotate_own_webhook_secret(
    request: web.Request, *, partner: Partner, path: IdPath
) -> WebhookSecretAnswer:
    """A new secret, told this once. For a day each message has a signature by both."""
    return await work.rotated(request, partner.id, path.id.bytes)


@api.route(
    "POST",
    _PATH + "/{id}/state",
    zh="启用或停用本系统的 Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def set_own_webhook_state(
    request: web.Request, *, partner: Partner, path: IdPath, body: WebhookStateBody
) -> WebhookAnswer:
    """Enabled again, what waited is delivered; what happened while it was disabled is in the feed alone."""
    return await work.set_state(request, partner.id, path.id.bytes, body.enabled)


@api.route(
    "POST",
    _PATH + "/{id}/ping",
    zh="测试本系统的 Webhook ",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def ping_own_webhook(request: web.Request, *, partner: Partner, path: IdPath) -> PingAnswer:
    """Sends a signed message that says nothing, now, and tells how that went."""
    return await work.pinged(request, partner.id, path.id.bytes)


@api.route(
    "GET",
    _PATH + "/{id}/deliveries",
    zh="本系统的 Webhook 投递记录",
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.DATABASE_DOWN],
)
async def list_own_webhook_deliveries(
    request: web.Request, *, partner: Partner, path: IdPath, query: DeliveriesQuery
) -> DeliveriesAnswer:
    """Each try of the last 30 days, the latest first: when, which event, their status, how long it took."""
    return await work.deliveries(request, partner.id, path.id.bytes, query)


@api.route(
    "POST",
    _PATH + "/{id}/deliveries/{event_id}/redeliver",
    zh="重新投递",
    status=202,
    tags=_TAGS,
    errors=[Fault.NO_SUCH_WEBHOOK, Fault.NO_SUCH_EVENT, Fault.DATABASE_DOWN],
)
async def redeliver_own_webhook_event(
    request: web.Request, *, partner: Partner, path: DeliveryPath
) -> WebhookAnswer:
    """An event once more, or one that they refused for good: it is sent as soon as it can be."""
    return await work.redelivered(request, partner.id, path.id.bytes, path.event_id)
