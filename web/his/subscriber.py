"""What the HIS wants to hear of: the outbox's subscriber "his".

Its messages only say which number to look at. What there is to tell is found out when it is delivered
(web/his/telling.py), so names never lie in the outbox, and a number that was given up before the HIS came
back is not told as booked.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from actors.delivery import Message
from actors.outbox import Committed, Draft
from engine.domain import schedule as s
from engine.domain.ids import SCHEDULE_PREFIX, ScheduleKey
from engine.records import his as records
from web.his.telling import Telling

KIND: Final = "registration"
_OF_A_NUMBER: Final = (s.SeatReleased, s.SeatRestored, s.AttendanceRecorded)
_OF_A_DAY: Final = (s.SessionMoved,)


class ToHis:
    name = "his"
    kinds: frozenset[type] = frozenset({s.SeatHeld, s.SeatBooked, *_OF_A_NUMBER, *_OF_A_DAY})

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        """One for each event of a number that they know, are to know, or must be asked about."""
        booked = [one.event.appointment_id for one in events if isinstance(one.event, s.SeatBooked)]
        held = [one.event.appointment_id for one in events if isinstance(one.event, s.SeatHeld)]
        first = set(await records.asked_first(connection, held)) if held else set()
        due = [*booked, *first]
        if due:
            await records.mark_due(connection, due)
        others = [one.event.appointment_id for one in events if isinstance(one.event, _OF_A_NUMBER)]
        known = await records.told(connection, [*due, *others]) if due or others else set()
        days = {
            one.stream: ScheduleKey.of_stream(one.stream).schedule_id
            for one in events
            if isinstance(one.event, _OF_A_DAY) and one.stream.startswith(SCHEDULE_PREFIX)
        }
        of_days = await records.told_of_days(connection, list(days.values())) if days else {}
        wanted: list[tuple[Committed, bytes]] = []
        for one in events:
            event = one.event
            if isinstance(event, _OF_A_DAY):
                wanted += [(one, id_) for id_ in of_days.get(days.get(one.stream, ""), ())]
            elif isinstance(event, s.SeatHeld):
                wanted += [(one, event.appointment_id)] if event.appointment_id in first else []
            elif isinstance(event, (s.SeatBooked, *_OF_A_NUMBER)) and event.appointment_id in known:
                wanted.append((one, event.appointment_id))
        if not wanted:
            return []
        roots = await records.roots(connection, list({id_ for _, id_ in wanted}))
        return [
            Draft(one.shard, one.seq, roots[id_].hex(), KIND, {"appointment_id": id_.hex()})
            for one, id_ in wanted
            if id_ in roots
        ]

    async def deliver(self, message: Message) -> None:
        """Raises TryAgain, Refused, OutcomeUnknown."""
        await self._telling.settle(bytes.fromhex(message.aggregate), message.id, message.is_uncertain)
