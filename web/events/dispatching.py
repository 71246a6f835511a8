"""Delivers to webhooks what waits for them: each webhook a lane of its own, so that none waits for another.

    queued      by the outbox (systems.py), in the transaction that moves its cursor: nothing is missed
    a lane      takes what is due, streams beside each other, one after another within a stream
    they fail   (no answer, 5xx, 429): the whole lane pauses, longer each time, then tries one message
    they refuse (other 4xx): that message is tried a few times more and then is dead; its stream goes on
    410         disabled at once; nothing delivered for FAILING_MAX, or WAITING_MAX behind: disabled as well

At least once: a try whose end is unknown is repeated with the same id. One process of all does it (run).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge

from engine.database import AWAY, connect
from engine.records import event_feed
from engine.records import webhooks as records
from engine.records.webhooks import Again, Delivery, Waiting, Webhook
from engine.vault.failed import Erased, SealBroken, VaultBehind
from engine.vault.vault import DataKey, Vault
from integrations.webhooks.client import Endpoint, Sender, Sent
from web.events.envelope import CONTENT_TYPE, encoded
from web.events.reading import public_of_raw
from web.events.vocabulary import PublicEvent

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.3
BATCH_MAX: Final = 64
AT_ONCE_MAX: Final = 4  # streams of one webhook
LANES_MAX: Final = 64  # webhooks that are served at one time
PAUSE_SECONDS: Final = 1.0  # after the first failure; doubled with each
PAUSE_SECONDS_MAX: Final = 600.0
REFUSED_AGAIN: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600)
)  # then it is dead
FAILING_MAX: Final = timedelta(days=3)
TEND_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 1.0
_LOCK: Final = "select pg_try_advisory_lock(hashtext('xinglin.webhooks'))"


@dataclass(slots=True)
class _Lane:
    """One webhook's."""

    failures: int = 0  # in a row, of the endpoint
    rests_until: datetime | None = None
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Tried:
    message: Waiting
    event: PublicEvent
    sent: Sent


class Figures:
    """On /metrics of the process that delivers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tries = Counter(
            "xinglin_webhook_tries",
            "Tries to deliver, by what became of them",
            ["outcome"],
            registry=registry,
        )
        self.webhooks = Gauge("xinglin_webhooks", "Webhooks by state", ["state"], registry=registry)
        self.messages = Gauge("xinglin_webhook_messages", "Messages by state", ["state"], registry=registry)

    def show(self, now: records.Figures) -> None:
        self.webhooks.labels("enabled").set(now.enabled)
        self.webhooks.labels("failing").set(now.failing)
        self.webhooks.labels("disabled").set(now.disabled)
        self.messages.labels("waiting").set(now.waiting)
        self.messages.labels("dead").set(now.dead)


class Dispatcher:
    """Of one process."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        vault: Vault,
        sender: Sender,
        source: str,
        figures: Figures,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._sender = sender
        self._source = source
        self._figures = figures
        self._now = now
        self._chance = chance
        self._lanes: dict[bytes, _Lane] = {}

    async def run(self, database_url: str) -> None:
        """For as long as it is awaited, while no other process does it: a lock of a connection of its own."""
        while True:
            try:
                connection = await connect(database_url)
                try:
                    await self._while_ours(connection)
                finally:
                    connection.terminate()
            except AWAY as error:
                log.warning("webhooks wait for the database: %s", type(error).__name__)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _while_ours(self, connection: asyncpg.Connection) -> None:
        while not await connection.fetchval(_LOCK):
            await asyncio.sleep(AGAIN_SECONDS)
        loop = asyncio.get_running_loop()
        tended = 0.0
        try:
            while not connection.is_closed():
                if loop.time() - tended >= TEND_SECONDS:
                    await self.tend()
                    tended = loop.time()
                await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._stop()

    async def look(self) -> list[asyncio.Task[None]]:
        """Starts the lanes of whoever has something due and does not rest; gives all that are at work."""
        now = self._now()
        for webhook in await records.with_work(self._pool, now):
            lane = self._lanes.setdefault(webhook.id, _Lane())
            at_work = sum(one.task is not None and not one.task.done() for one in self._lanes.values())
            if lane.task is not None and not lane.task.done():
                continue
            if at_work >= LANES_MAX or (lane.rests_until is not None and lane.rests_until > now):
                continue
            lane.task = asyncio.create_task(self._serve(webhook, lane))
        return [one.task for one in self._lanes.values() if one.task is not None and not one.task.done()]

    async def tend(self) -> None:
        """Ends what has failed for too long, forgets what is old, counts."""
        now = self._now()
        for id_ in await records.too_far_behind(self._pool):
            await self._disable(id_, "too_far_behind")
        await records.forget(self._pool, now)
        self._figures.show(await records.figures(self._pool))

    async def _stop(self) -> None:
        tasks = [one.task for one in self._lanes.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, webhook: Webhook, lane: _Lane) -> None:
        """What is due for one webhook, until nothing is or it fails."""
        try:
            endpoint = Endpoint(webhook.address, self._secrets(webhook))
            while await self._batch(webhook.id, endpoint, lane):
                pass
        except AWAY as error:
            log.warning("a webhook's deliveries wait for the database: %s", type(error).__name__)
        except VaultBehind as error:
            log.warning("a webhook waits for the vault: %s", error)
        except (Erased, SealBroken) as error:
            log.error("the secret of the webhook %s cannot be opened: %s", webhook.id.hex(), error)
            await self._disable(webhook.id, "secret")

    async def _batch(self, id_: bytes, endpoint: Endpoint, lane: _Lane) -> bool:
        """Whether there may be more to do at once."""
        limit = BATCH_MAX if not lane.failures else 1  # one looks whether they are back
        waiting = await records.due(self._pool, id_, self._now(), limit)
        if not waiting:
            return False
        raw = await event_feed.at_positions(self._pool, [(one.shard, one.seq) for one in waiting])
        found = {(one.shard, one.seq): one for one in await public_of_raw(self._pool, raw)}
        untold = [(one.shard, one.seq) for one in waiting if (one.shard, one.seq) not in found]
        streams = [
            list(group)
            for _, group in groupby(
                sorted((one for one in waiting if (one.shard, one.seq) in found), key=lambda one: one.stream),
                key=lambda one: one.stream,
            )
        ]
        tried = await self._send(endpoint, streams, found)
        return await self._settle(id_, lane, tried, untold)

    async def _send(
        self,
        endpoint: Endpoint,
        streams: list[list[Waiting]],
        found: dict[tuple[int, int], PublicEvent],
    ) -> list[_Tried]:
        """Streams beside each other, each in order and up to its first failure; all end when they fail."""
        tried: list[_Tried] = []
        room = asyncio.Semaphore(AT_ONCE_MAX)
        is_failing = False

        async def one_after_another(stream: list[Waiting]) -> None:
            nonlocal is_failing
            async with room:
                for message in stream:
                    if is_failing:
                        return
                    event = found[message.shard, message.seq]
                    body = encoded(event, self._source)
                    sent = await self._sender.send(endpoint, event.id, CONTENT_TYPE, body)
                    tried.append(_Tried(message, event, sent))
                    if not sent.is_delivered:
                        is_failing = is_failing or not sent.is_refused
                        return

        await asyncio.gather(*(one_after_another(stream) for stream in streams))
        return tried

    async def _settle(
        self, id_: bytes, lane: _Lane, tried: list[_Tried], untold: list[tuple[int, int]]
    ) -> bool:
        now = self._now()
        failed = [one for one in tried if not one.sent.is_delivered and not one.sent.is_refused]
        if failed:
            lane.failures += 1
            pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * 2 ** min(lane.failures - 1, 16))
            asked = max((one.sent.after or 0.0 for one in failed), default=0.0)
            lane.rests_until = now + timedelta(seconds=max(asked, pause * (0.5 + self._chance() / 2)))
        elif tried:
            lane.failures, lane.rests_until = 0, None
        again = [self._again(one, lane, now) for one in tried if not one.sent.is_delivered]
        done = [(one.message.shard, one.message.seq) for one in tried if one.sent.is_delivered]
        async with self._pool.acquire() as connection:
            since = await records.settle(
                connection,
                id_,
                [*done, *untold],
                again,
                [
                    Delivery(
                        one.event.id,
                        one.event.type,
                        now,
                        one.message.tries + 1,
                        one.sent.status,
                        one.sent.ms,
                        one.sent.trouble,
                    )
                    for one in tried
                ],
                bool(done),
                now,
            )
        for one in tried:
            self._figures.tries.labels(one.sent.trouble or "delivered").inc()
        for dead in again:
            if dead.is_dead:
                log.error("the webhook %s refuses the event %s-%s for good", id_.hex(), dead.shard, dead.seq)
        if any(one.sent.is_gone for one in failed):
            await self._disable(id_, "gone")
            return False
        if since is not None and now - since >= FAILING_MAX:
            await self._disable(id_, "failing")
            return False
        return not failed

    def _again(self, one: _Tried, lane: _Lane, now: datetime) -> Again:
        message = one.message
        if one.sent.is_refused:
            is_dead = message.tries >= len(REFUSED_AGAIN)
            pause = REFUSED_AGAIN[min(message.tries, len(REFUSED_AGAIN) - 1)]
            return Again(message.shard, message.seq, now + pause, is_dead)
        return Again(message.shard, message.seq, lane.rests_until or now, False)

    async def _disable(self, id_: bytes, why: str) -> None:
        if await records.disable(self._pool, id_, why, self._now()):
            log.error("the webhook %s is disabled: %s", id_.hex(), why)

    def _secrets(self, webhook: Webhook) -> list[str]:
        return secrets_in_force(self._vault, webhook, self._now())


def secrets_in_force(vault: Vault, webhook: Webhook, now: datetime) -> list[str]:
    """The newest first. Raises Erased, SealBroken, VaultBehind."""
    key = DataKey(records.KEY_FIELD, webhook.id, webhook.data_key)
    opened = [vault.open(key, records.SECRET_FIELD, webhook.id, webhook.secret)]
    if webhook.before_until is not None and webhook.before_until > now:
        opened.append(vault.open(key, records.SECRET_FIELD, webhook.id, webhook.secret_before))
    found = [one for one in opened if one is not None]
    if not found:
        raise Erased("the webhook has no secret")
    return found
