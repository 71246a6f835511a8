"""Events for the broker: every public one is a message of the outbox, in order within its stream. The outbox
repeats what the broker does not confirm."""

from collections.abc import Sequence

import asyncpg
import orjson

from actors.outbox import Committed, Draft, Message
from engine.records import event_feed
from integrations.broker.rabbitmq import Publisher
from web.events.envelope import CONTENT_TYPE, cloud_event
from web.events.reading import public
from web.events.vocabulary import PUBLISHED


class ToBroker:
    """As the outbox knows it."""

    name = "broker"
    kinds = PUBLISHED

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        source = await event_feed.source(connection)
        return [
            Draft(one.shard, one.seq, one.stream, one.type, cloud_event(one, source.id))
            for one in await public(connection, events)
        ]

    async def deliver(self, message: Message) -> None:
        """Raises TryAgain, OutcomeUnknown. The same message twice has one id: readers drop the second."""
        event = message.data
        await self._publisher.publish(
            message.kind,
            str(event["id"]),
            message.aggregate,
            orjson.dumps(event),
            at=message.at,
            content_type=CONTENT_TYPE,
        )
