"""Publishes to RabbitMQ, and believes only its confirmation.

    publisher = Publisher(Broker("amqps://xinglin:…@mq.example/", "xinglin.events"))
    await publisher.publish("appointment.booked", "0-1234", "schedule/D1/2026-11-24", body)

Persistent, to a durable topic exchange, with publisher confirms; the routing key is the event's type. Which
failure is which:

    no connection, the channel is gone before anything was sent    TryAgain
    the broker says no (nack), or no queue takes it and one must   TryAgain
    the line breaks, or time is up, before it confirms             OutcomeUnknown: sent again, the same
                                                                   message_id; whoever reads drops what it had

The connection is made when it is needed and made again after it broke, one at a time; publishes that wait for
confirmation share it.
"""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aio_pika
from aio_pika import exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

from integrations.broker.broker import Broker
from integrations.connector import OutcomeUnknown, TryAgain

log = logging.getLogger(__name__)
for _name in (
    "aio_pika",
    "aiormq",
):  # they tell each failed connection twice, with a traceback: we tell it once
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_SECONDS_MAX: Final = 5.0
CONFIRM_SECONDS_MAX: Final = 10.0
_BROKEN: Final = (exceptions.AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


@dataclass(slots=True)
class _Line:
    connection: AbstractConnection
    channel: AbstractChannel
    exchange: AbstractExchange

    @property
    def is_open(self) -> bool:
        return not self.connection.is_closed and not self.channel.is_closed


class Publisher:
    """`close` it."""

    def __init__(
        self,
        broker: Broker,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
        confirm_seconds_max: float = CONFIRM_SECONDS_MAX,
    ) -> None:
        self._broker = broker
        self._connect_seconds_max = connect_seconds_max
        self._confirm_seconds_max = confirm_seconds_max
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()

    async def publish(
        self,
        type_: str,
        message_id: str,
        partition: str,
        body: bytes,
        *,
        at: datetime | None = None,
        content_type: str = "application/cloudevents+json",
    ) -> None:
        """Returns when the broker has it for good. `partition`: within it, order matters."""
        line = await self._opened()
        message = aio_pika.Message(
            body,
            content_type=content_type,
            message_id=message_id,
            type=type_,
            app_id="xinglin",
            timestamp=at,
            headers={"partitionkey": partition},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        try:
            async with asyncio.timeout(self._confirm_seconds_max):
                await line.exchange.publish(message, type_, mandatory=self._broker.is_mandatory)
        except exceptions.PublishError:
            raise TryAgain("no queue takes it") from None
        except exceptions.DeliveryError:
            raise TryAgain("the broker does not take it") from None
        except exceptions.ChannelInvalidStateError:
            await self._drop(line)
            raise TryAgain("the channel is closed") from None
        except asyncio.CancelledError:
            # The library cancels what waits for a confirmation when its connection breaks.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._drop(line)
            raise OutcomeUnknown("no confirmation: the line broke") from None
        except _BROKEN as error:
            await self._drop(line)
            raise OutcomeUnknown(f"no confirmation: {type(error).__name__}") from None

    async def close(self) -> None:
        if self._line is not None:
            await self._drop(self._line)

    async def _opened(self) -> _Line:
        """The line there is, or a new one. Raises TryAgain."""
        line = self._line
        if line is not None and line.is_open:
            return line
        async with self._connecting:  # whoever comes meanwhile takes what the first one made
            line = self._line
            if line is not None and line.is_open:
                return line
            if line is not None:
                await self._drop(line)
            try:
                async with asyncio.timeout(self._connect_seconds_max):
                    self._line = await self._connected()
            except _BROKEN as error:
                raise TryAgain(f"no connection: {type(error).__name__}") from None
            return self._line

    async def _connected(self) -> _Line:
        connection = await aio_pika.connect(
            self._broker.url, ssl_context=self._tls(), client_properties={"connection_name": "xinglin"}
        )
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.declare_exchange(
                self._broker.exchange, aio_pika.ExchangeType.TOPIC, durable=True
            )
        except BaseException:
            with contextlib.suppress(*_BROKEN):
                await connection.close()
            raise
        log.info("connected to the broker")
        return _Line(connection, channel, exchange)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._broker.url.startswith("amqps:"):
            return None
        return ssl.create_default_context(cafile=self._broker.ca_file)

    async def _drop(self, line: _Line) -> None:
        if self._line is line:
            self._line = None
        with contextlib.suppress(*_BROKEN):
            async with asyncio.timeout(1.0):
                await line.connection.close()
