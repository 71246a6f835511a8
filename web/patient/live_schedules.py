"""Practitioners' days on the stream: one of them, a department's, a practitioner's. Everybody may look."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo

import orjson

from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason
from engine.records.catalog import ScheduleRow
from engine.views.availability import Availability
from web.errors import Problem
from web.faults import Fault
from web.patient.pages import Pages, Wanted


def with_slots(pages: Pages, row: ScheduleRow, now: int) -> bytes:
    """A schedule's answer, and each of its slots as `changed` tells of it."""
    return b'%b,"slots":[%b]}' % (
        pages.schedule(row, now).body[:-1],
        b",".join(pages.counts(row, now).values()),
    )


def _snapshot(topic: str, schedules: Iterable[bytes], version: int) -> bytes:
    return b'{"snapshot":%b,"schedules":[%b],"version":%d}' % (
        orjson.dumps(topic),
        b",".join(schedules),
        version,
    )


@dataclass(frozen=True, slots=True)
class OneSchedule:
    """schedule/<id>: a practitioner's day with its slots."""

    availability: Availability
    pages: Pages
    now: Callable[[], int]

    def rows(self, name: str, who: object) -> list[ScheduleRow]:
        row = self.availability.schedule(name) if ScheduleKey.of_schedule(name) else None
        if row is None or row.practitioner_id not in self.availability.catalog.practitioners:
            raise Problem(Reason.NO_SUCH_SCHEDULE)
        return [row]

    async def snapshot(self, topic: str, name: str) -> bytes:
        (row,) = self.rows(name, None)
        whole = with_slots(self.pages, row, self.now())
        return _snapshot(topic, [whole], self.availability.version(name))


@dataclass(frozen=True, slots=True)
class Many:
    """From today on: what GET /api/v1/schedules answers."""

    availability: Availability
    pages: Pages
    now: Callable[[], int]
    zone: tzinfo

    def wanted(self, name: str) -> Wanted:
        raise NotImplementedError

    def rows(self, name: str, who: object) -> list[ScheduleRow]:
        return list(self.availability.schedules(*self.wanted(name)))

    async def snapshot(self, topic: str, name: str) -> bytes:
        selection = await self.pages.selection(self.wanted(name), self.now())
        version = max((self.availability.version(id) for id in selection.places), default=0)
        return _snapshot(topic, [part.body for part in selection.parts], version)

    def today(self) -> Wanted:
        return Wanted(first=datetime.fromtimestamp(self.now() / 1000, self.zone).date())


class OfDepartment(Many):
    """department/<id>, with those below it."""

    def wanted(self, name: str) -> Wanted:
        if name not in self.availability.catalog.departments:
            raise Problem(Fault.NO_SUCH_DEPARTMENT)
        return self.today()._replace(department_id=name)


class OfPractitioner(Many):
    """practitioner/<id>"""

    def wanted(self, name: str) -> Wanted:
        if name not in self.availability.catalog.practitioners:
            raise Problem(Fault.NO_SUCH_PRACTITIONER)
        return self.today()._replace(practitioner_id=name)
