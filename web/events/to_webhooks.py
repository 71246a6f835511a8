"""Events for webhooks. Those are many, and one that is down must not hold the outbox: so what follows from an
event is a row for each webhook that wants it, written in the transaction that moves the outbox's cursor, and
delivered from there (dispatching.py). The outbox itself gets no messages."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg

from engine.records import webhooks as records
from integrations.connector import TryAgain
from web.events.reading import Decoded, Wanted, public
from web.events.vocabulary import PUBLISHED

if TYPE_CHECKING:  # names alone
    from actors.outbox import Draft, Message


class ToWebhooks:
    """As the outbox knows it."""

    name = "webhooks"
    kinds = PUBLISHED

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Decoded]) -> "list[Draft]":
        wanting = [(id_, Wanted(types)) for id_, types in await records.wanting(connection)]
        if wanting:
            told = await public(connection, events)
            rows = [
                (id_, one.shard, one.seq, one.stream)
                for one in told
                for id_, wanted in wanting
                if wanted.has(one.type)
            ]
            await records.put(connection, rows, datetime.now(UTC))
        return []

    async def deliver(self, message: "Message") -> None:
        """Never asked."""
        raise TryAgain("webhooks have no messages in the outbox")
