"""A practitioner's day as it is committed: replayed from the journal, or as it was published."""

from dataclasses import dataclass
from datetime import date

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.recorded import Recorded
from engine.domain.refusal import Reason
from engine.domain.seats import Slot
from engine.journal.streams import read_stream
from engine.records.catalog import Practitioner, load_plan
from web import keys
from web.auth import Staff, may_manage
from web.errors import Problem
from web.faults import Fault


@dataclass(frozen=True, slots=True)
class Day:
    key: ScheduleKey
    practitioner: Practitioner
    state: s.Schedule
    recorded: list[Recorded]

    @property
    def date(self) -> date:
        return date.fromisoformat(self.key.day)

    @property
    def sessions(self) -> dict[str, list[Slot]]:
        """period -> its slots, in the order of the day."""
        found: dict[str, list[Slot]] = {}
        for slot in sorted(self.state.slots.values(), key=lambda slot: slot.starts_at):
            found.setdefault(slot.session.period, []).append(slot)
        return found

    @property
    def departments(self) -> set[str]:
        """Of its sessions; where there is no clinic, the practitioner's own."""
        return {x.session.department_id for x in self.state.slots.values()} or {
            self.practitioner.department_id
        }


async def read_day(app: web.Application, schedule_id: str) -> Day:
    """Raises Problem where there can be no such day. A day without a clinic has no sessions."""
    key = ScheduleKey.of_schedule(schedule_id)
    practitioner = (
        None if key is None else app[keys.AVAILABILITY].catalog.practitioners.get(key.practitioner_id)
    )
    if key is None or practitioner is None or not _is_date(key.day):
        raise Problem(Reason.NO_SUCH_SCHEDULE)
    async with app[keys.POOL].acquire() as connection:
        recorded = await read_stream(connection, key.stream)
        plan = None if recorded else await load_plan(connection, schedule_id)
    state = s.replay([one.event for one in recorded])
    if plan is not None:
        s.apply(state, s.ScheduleOpened(plan))
    return Day(key, practitioner, state, recorded)


def must_manage(app: web.Application, staff: Staff, practitioner_id: str, departments: set[str]) -> None:
    """Raises Problem unless all of it is theirs to change."""
    catalog = app[keys.AVAILABILITY].catalog
    if not all(may_manage(staff, one, practitioner_id, catalog.departments) for one in departments):
        raise Problem(Fault.FORBIDDEN)


def _is_date(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True
