"""The processes that carry events out: to the broker, and to webhooks. Each reads the journal by an outbox of
its own, so one that is away holds nothing back of the other."""

import asyncio
from typing import Final

from actors.outbox import Outbox
from engine.records import event_feed
from integrations.broker.broker import Broker
from integrations.broker.rabbitmq import Publisher
from integrations.webhooks.client import Sender
from web.events import dispatching
from web.events.registering import allowed_of
from web.events.to_broker import ToBroker
from web.events.to_webhooks import ToWebhooks
from web.sync.app import SyncApp

IN_FLIGHT_MAX: Final = 200
"""Publishes that wait for their confirmation; one by one each would take its 3 ms."""


class BrokerSystem:
    def __init__(self, app: SyncApp) -> None:
        broker: Broker = app.systems.broker
        self._publisher = Publisher(broker)
        self._outbox = Outbox(
            app.database_url,
            ToBroker(self._publisher),
            in_flight_max=IN_FLIGHT_MAX,
            registry=app.registry,
        )

    async def run(self) -> None:
        try:
            await self._outbox.run()
        finally:
            await self._publisher.close()


class WebhookSystem:
    def __init__(self, app: SyncApp) -> None:
        self._app = app
        self._figures = dispatching.Figures(app.registry)
        self._outbox = Outbox(app.database_url, ToWebhooks(), registry=app.registry)

    async def run(self) -> None:
        app = self._app
        source = await event_feed.source(app.pool)
        sender = Sender(allowed_of(app.settings))
        dispatcher = dispatching.Dispatcher(app.pool, app.vault, sender, source.id, self._figures)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._outbox.run())
                both.create_task(dispatcher.run(app.database_url))
        finally:
            await sender.close()
