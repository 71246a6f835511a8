"""Events to a real RabbitMQ, which is killed in the middle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import aio_pika
import orjson
import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from actors.outbox import Outbox
from engine.embedded_postgres import EmbeddedPostgres
from engine.settings import Settings
from integrations.broker.broker import Broker
from integrations.broker.rabbitmq import Publisher
from integrations.connector import TryAgain
from tests.support.copies import copied, migrated
from tests.support.eventful import Hospital
from tests.support.rabbitmq import RabbitMq, running
from web.events.to_broker import ToBroker

EXCHANGE = "xinglin.events"


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMq]:
    with running() as broker:
        yield broker


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def database(original: str) -> AsyncIterator[str]:
    async with copied(original) as url:
        yield url


async def _bound(url: str, queue: str, key: str) -> None:
    """A durable queue of somebody's, bound to ours."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        await (await channel.declare_queue(queue, durable=True)).bind(exchange, key)


async def _read(
    url: str, queue: str, ids: int, before: list[aio_pika.abc.AbstractIncomingMessage] | None = None
) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """What was read before and what lies there, until it is so many different ids and nothing is left.

    A broker that was killed gives out again what was acknowledged just before, so what
    counts is the ids of both readings together.
    """
    connection = await aio_pika.connect(url)
    found = list(before or [])
    async with connection, asyncio.timeout(60):
        channel = await connection.channel()
        place = await channel.get_queue(queue)
        while True:
            message = await place.get(fail=False)
            if message is not None:
                await message.ack()
                found.append(message)
            elif len({one.message_id for one in found}) >= ids:
                return found
            else:
                await asyncio.sleep(0.05)  # the outbox is still at it


async def test_the_broker_is_killed_and_nothing_is_missing_or_out_of_order(
    rabbitmq: RabbitMq, database: str
) -> None:
    hospital = await Hospital.open(database)
    await _bound(rabbitmq.url, "his", "appointment.*")
    await _bound(rabbitmq.url, "booked", "appointment.booked")
    publisher = Publisher(Broker(rabbitmq.url, EXCHANGE))
    outbox = Outbox(
        database, ToBroker(publisher), from_beginning=True, registry=CollectorRegistry(), look_seconds=0.05
    )
    running_ = asyncio.create_task(outbox.run())
    try:
        await hospital.book(30, of=0)
        first = await _read(rabbitmq.url, "his", 60)
        for n in range(6):
            if n == 2:
                await asyncio.to_thread(rabbitmq.kill)
            await hospital.book(20, of=n % 2)  # nobody's booking waits for the broker
        await asyncio.to_thread(rabbitmq.start)
        told = await _read(rabbitmq.url, "his", 300, first)
        booked = await _read(rabbitmq.url, "booked", 150)
    finally:
        running_.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running_
        await publisher.close()
        await hospital.close()
    said = [orjson.loads(one.body) for one in told]
    assert len({one["id"] for one in said}) == 300
    assert {one.routing_key for one in booked} == {"appointment.booked"}
    newest: dict[str, str] = {}
    seen: set[str] = set()
    for one in said:  # the first time that each was told is in order; some may come twice
        if one["id"] not in seen:
            assert one["sequence"] > newest.get(one["partitionkey"], "")
            newest[one["partitionkey"]] = one["sequence"]
            seen.add(one["id"])
    message = first[0]
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert (message.message_id, message.type, message.app_id) == (said[0]["id"], said[0]["type"], "xinglin")
    assert message.content_type is not None and message.content_type.startswith(
        "application/cloudevents+json"
    )


async def test_what_no_queue_takes_is_held_back_where_that_is_asked(rabbitmq: RabbitMq) -> None:
    publisher = Publisher(Broker(rabbitmq.url, "lonely", is_mandatory=True))
    careless = Publisher(Broker(rabbitmq.url, "lonely"))
    try:
        await careless.publish("a.b", "1", "s", b"{}")
        with pytest.raises(TryAgain):
            await publisher.publish("a.b", "1", "s", b"{}")
    finally:
        await publisher.close()
        await careless.close()


async def test_a_broker_that_is_not_there_is_tried_again_and_tells_no_password() -> None:
    url = URL("amqp://127.0.0.1:1/").with_user("somebody").with_password("secret-word")
    broker = Broker(str(url), "x")
    publisher = Publisher(broker)
    with pytest.raises(TryAgain) as failed:
        await publisher.publish("a.b", "1", "s", b"{}")
    assert "secret-word" not in f"{failed.value!r}{broker!r}"
    await publisher.close()


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("amqps://u:p@mq.example/", True),
        ("amqp://u:p@127.0.0.1:5672/", True),
        ("amqp://localhost", True),
        ("amqp://mq.example/", False),
        ("amqp://u:p@127.0.0.1.example/", False),
        ("amqp://127.0.0.1@mq.example/", False),
        ("http://mq.example/", False),
    ],
)
def test_events_leave_this_machine_encrypted(url: str, fits: bool) -> None:
    if fits:
        assert Settings(broker_url=url).broker_url.get_secret_value() == url
    else:
        with pytest.raises(ValueError):
            Settings(broker_url=url)
