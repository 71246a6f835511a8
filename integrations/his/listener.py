"""Listens to what a HIS says by HL7 v2, and answers when it is dealt with.

    listener = Listener(at, on, unread)
    await listener.start()              # listener.port

`on` is given each thing heard, in its order, with the message as it came; its verdict is the answer: AA
taken, AE not as it is, AR not now: the sender sends again. What cannot be read, is for another hospital or of
a kind that is not taken is answered AR, with where and why, after `unread` was told of it. A failure of `on`
is answered AE, for the sender to send again: so what was answered AA is never lost.
"""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from integrations.his.his import Heard
from integrations.his.his_at import HisAt
from integrations.his.hl7_heard import Unsupported, heard_of
from integrations.hl7v2 import ack, mllp
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message, header_of, parse


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why`: for the sender's people, without a patient's data."""

    code: str = ack.ACCEPTED
    why: str = ""


On = Callable[[Heard, bytes], Awaitable[Verdict]]
Unread = Callable[[str, bytes, str, str], Awaitable[None]]
"""Message id or "", the bytes, where, why."""


class Listener:
    def __init__(self, at: HisAt, on: On, unread: Unread | None = None) -> None:
        self._at = at
        self._on = on
        self._unread = unread
        self._server: mllp.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.port

    async def start(self) -> None:
        """Raises OSError where it cannot listen."""
        peers = tuple(ipaddress.ip_network(one) for one in self._at.listen_peers)
        limits = mllp.Limits(peers=peers)
        self._server = await mllp.serve(self._at.listen_host, self._at.listen_port, self._handle, limits)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _handle(self, raw: bytes) -> mllp.Answers:
        try:
            message = parse(raw, self._at.charset)
            self._must_be_ours(message)
            heard = heard_of(message, self._at.zone_info)
        except Malformed as malformed:
            if self._unread is not None:
                await self._unread(_id_of(raw), raw, malformed.where, malformed.why)
            if isinstance(malformed, Unsupported):
                trouble = ack.Trouble(ack.UNSUPPORTED_KIND, malformed.text, malformed.where)
                return ack.refusal(raw, ack.REJECTED, trouble)
            raise
        for one in heard:
            verdict = await self._on(one, raw)
            if verdict.code != ack.ACCEPTED:
                number = ack.INTERNAL if verdict.code == ack.REJECTED else ack.TABLE
                return ack.answers(message, verdict.code, ack.Trouble(number, verdict.why))
        return ack.answers(message, ack.ACCEPTED)

    def _must_be_ours(self, message: Message) -> None:
        """By MSH-5 and MSH-6, where they name somebody."""
        for said, ours, where in zip(message.receiving, self._at.us, ("MSH-5", "MSH-6"), strict=True):
            if said and said != ours:
                raise Malformed(where, "receiver", "a message for another hospital")


def _id_of(raw: bytes) -> str:
    header = header_of(raw)
    if header is None:
        return ""
    try:
        return f"{header.text(3)[:64]}/{header.text(10)[:199]}"
    except Malformed:
        return ""
