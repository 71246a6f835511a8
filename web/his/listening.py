"""What the HIS says by HL7 v2 over MLLP, answered when it is dealt with."""

import asyncio

from engine.domain.intake import Finding
from integrations.connector import OutcomeUnknown, TryAgain
from integrations.his.his import Heard
from integrations.his.his_at import HisAt
from integrations.his.listener import Listener, Verdict
from web.his.hearing import Hearing
from web.intake.intake import Taken

UNREAD = "his.unread"
"""The interface of what could not even be read."""


async def listening(at: HisAt, hearing: Hearing) -> None:
    """For as long as it is awaited; nothing, where nobody is to be listened to."""
    if not at.listen_port:
        return

    async def on(heard: Heard, raw: bytes) -> Verdict:
        try:
            return verdict_on(await hearing.hear(heard, raw))
        except (TryAgain, OutcomeUnknown):
            return Verdict("AR", "not now")

    async def unread(message_id: str, raw: bytes, where: str, why: str) -> None:
        await hearing.intake.set_aside(UNREAD, message_id, raw, [Finding(where, why)])

    listener = Listener(at, on, unread)
    await listener.start()
    try:
        await asyncio.Event().wait()
    finally:
        await listener.stop()


def verdict_on(taken: Taken) -> Verdict:
    """AE for what was kept aside, with the reasons: words of rules, nobody's data."""
    if taken.is_good:
        return Verdict()
    why = "; ".join(f"{one.field} {one.rule} {one.expected}".strip() for one in taken.reasons[:3])
    return Verdict("AE", why)
