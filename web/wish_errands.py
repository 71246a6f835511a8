"""What has to be done for wishes (候补) beside waiting: they are put on lists, taken off them, and ended.

A wish lives in one row and at up to sixty actors. Each step is an errand that may be done twice:

    join_wish      <wish>/<schedule>   ask that actor; what it refuses for good is passed over
    wish_ended     <wish>              leave every actor, and give back what was offered
    match_wishes   <schedule>          a day that was opened is a place for wishes that it suits
"""

import asyncio
import time
from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Final

from aiohttp import web

from actors.directory import Outcome, Unknown
from actors.errands import Handle, TryAgain
from actors.rounds import Round
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey, derived
from engine.domain.limits import ANSWER_MS_MAX, WISH_DAYS_MAX, WISH_SCHEDULES_MAX
from engine.domain.odds import Returns
from engine.domain.refusal import Reason, Refusal
from engine.records import wishes as records
from engine.records.appointments import AppointmentRecord
from engine.records.catalog import ScheduleRow, load_schedules
from engine.records.wishes import NewWish, Wanted, WishRecord
from engine.views.places import OVER, below, find_places
from engine.views.returns import load_returns
from web import keys

LOOK_SECONDS: Final = 2.0
LEARN_SECONDS: Final = 300.0
PASSING: Final = (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY)
"""Refusals that speak of the moment, not of what was asked."""


class Wishes:
    """Of one gateway."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._looked_at = -1
        self._returns = Returns()
        self._learned_at: float | None = None

    def handlers(self) -> dict[str, Handle]:
        return {records.JOIN: self._join, records.ENDED: self._ended, records.MATCH: self._match}

    def rounds(self) -> list[Round]:
        return [Round("wishes", LOOK_SECONDS, self.look)]

    # Errands.

    async def _join(self, key: str, data: dict[str, Any]) -> None:
        wish_id, _, schedule_id = key.partition("/")
        wish = await records.wish(self._app[keys.POOL], bytes.fromhex(wish_id))
        if wish is not None and wish.is_open and not (await self.join(wish, [schedule_id]))[1]:
            raise TryAgain("the schedule's actor did not answer")

    async def _ended(self, key: str, data: dict[str, Any]) -> None:
        await self.leave(bytes.fromhex(key), str(data.get("reason", "closed")))

    async def _match(self, key: str, data: dict[str, Any]) -> None:
        await self._find_more(await self._as_it_is(key))

    async def join(
        self, wish: WishRecord, schedule_ids: Collection[str], made_now: bool = False
    ) -> tuple[WishRecord, dict[str, s.Waiting | Refusal]]:
        """Asks these actors; gives what they said. Those that do not answer now are left to their errands.

        Where every place refuses for good, and no day that is still to come could do, the wish ends; one that
        was `made_now` with the refusal, which its maker is told.
        """
        deadline = _deadline()
        asked: dict[str, asyncio.Future[Outcome]] = {}
        said: dict[str, s.Waiting | Refusal] = {}
        for schedule_id in schedule_ids:
            key = ScheduleKey.of_schedule(schedule_id)
            if key is None or schedule_id not in wish.places:
                said[schedule_id] = Refusal(Reason.NO_SUCH_SCHEDULE)
                continue
            command = s.JoinWaitlist(
                wish.id,
                wish.account_id,
                wish.patient_ids,
                tuple(wish.places[schedule_id]),
                wish.priority,
                wish.made_at,
                wish.until,
                derived(b"wish seed", wish.id, key.stream.encode()),
                wish.wanted.replaces,
            )
            asked[schedule_id] = self._app[keys.DIRECTORY].ask(key.stream, command, deadline)
        for schedule_id, answer in asked.items():
            outcome = await answer
            if isinstance(outcome, s.Waiting) or (
                isinstance(outcome, Refusal) and outcome.reason not in PASSING
            ):
                said[schedule_id] = outcome
        if not said:
            return wish, said
        pool = self._app[keys.POOL]
        refused = {k: v for k, v in said.items() if isinstance(v, Refusal)}
        joined = [k for k in said if k not in refused]
        now = await records.settle_places(pool, wish.id, joined, list(refused))
        assert now is not None
        if refused and now.is_open and not now.places and not await self.could_come(now.wanted):
            refusal = next(iter(refused.values()))
            await records.end_wish(pool, wish.id, refusal.reason, refusal if made_now else None)
            now = await records.wish(pool, wish.id)
            assert now is not None
        return now, said

    async def leave(self, wish_id: bytes, reason: str) -> None:
        """Takes a wish that has ended off every list. Raises TryAgain until all actors have said so."""
        pool, directory = self._app[keys.POOL], self._app[keys.DIRECTORY]
        wish = await records.wish(pool, wish_id)
        if wish is None or (reason == "closed" and wish.status == "offered"):
            return  # what is offered at one place stands, though the time of the wish is over elsewhere
        await records.note_reason(pool, wish_id, reason)
        await records.forget_joins(pool, wish_id)
        deadline = _deadline()
        found = [ScheduleKey.of_schedule(each) for each in wish.places]
        command = s.LeaveWaitlist(wish_id, wish.reason or reason)
        await _all(directory.ask(key.stream, command, deadline) for key in found if key is not None)
        # From here on nothing more is offered. What was offered before goes to the next, unless it met the
        # wish: then a family's other numbers are theirs to confirm.
        offers = (await records.offered(pool, [wish_id])).get(wish_id, [])
        if any(offer.status != s.Status.PENDING for offer in offers):
            return
        deadline = _deadline()
        await _all(
            directory.ask(
                offer.key.stream,
                s.CancelAppointment(offer.appointment_id, offer.account_id, SYSTEM, "wish ended"),
                deadline,
            )
            for offer in offers
        )

    # From time to time.

    async def look(self) -> None:
        """Ends what is over, and finds new places when the published days have changed."""
        await records.end_what_is_over(self._app[keys.POOL])
        structure = self._app[keys.AVAILABILITY].structure
        has_changed = structure != self._looked_at
        today = datetime.now(self._app[keys.ZONE]).date()
        for wish in await records.open_wishes(self._app[keys.POOL], last_by=today):
            if wish.status == "waiting" and self._is_spent(wish, today):
                await records.end_wish(self._app[keys.POOL], wish.id, "closed")
        for wish in await records.open_wishes(self._app[keys.POOL]) if has_changed else ():
            await self._find_more_for(wish, self._rows_for(wish.wanted))
            await asyncio.sleep(0)  # there may be thousands, and people are waiting for answers
        self._looked_at = structure

    async def returns(self) -> Returns:
        """How fast seats come back here: learned anew every few minutes, by whoever asks first then."""
        now = time.monotonic()
        if self._learned_at is None or now - self._learned_at > LEARN_SECONDS:
            self._learned_at = now
            self._returns = await load_returns(self._app[keys.POOL])
        return self._returns

    # For whoever makes one.

    async def could_come(self, wanted: Wanted) -> bool:
        """Whether a day that is not published yet could do."""
        availability, zone = self._app[keys.AVAILABILITY], self._app[keys.ZONE]
        published = max((row.day for row in availability.schedules()), default=datetime.now(zone).date())
        first = max(wanted.first_day, published + timedelta(1))
        days = [first + timedelta(n) for n in range((wanted.last_day - first).days + 1)]
        departments = below(availability.catalog, wanted.department_id)
        return await records.could_be_published(self._app[keys.POOL], wanted, departments, days)

    async def make_for(self, old: AppointmentRecord) -> bytes | None:
        """First on the waiting lists of the doctor whose session was called off, for that patient: the same
        department, within the policy's days of the visit. None when no such day is to come."""
        app = self._app
        zone, policy = app[keys.ZONE], app[keys.POLICY].policy
        visit = old.starts_at.astimezone(zone).date()
        days = min(policy.suspension.days_max, WISH_DAYS_MAX // 2)
        first = max(datetime.now(zone).date(), visit - timedelta(days))
        wanted = Wanted(
            old.department_id,
            first,
            max(first, visit + timedelta(days)),
            (old.schedule_id.rpartition("-")[0],),
        )
        availability, now = app[keys.AVAILABILITY], now_ms()
        people = await records.members(app[keys.POOL], [old.patient_id], old.id)
        others = availability.schedules(practitioner_id=wanted.practitioner_ids[0])
        # What was called off a moment ago may still look open from here.
        rows = [row for row in others if row.id != old.schedule_id] + await self._as_it_is(old.schedule_id)
        found = find_places(rows, availability.catalog, policy, wanted, people.values(), now)
        if not found.places and not await self.could_come(wanted):
            return None
        wish = NewWish(
            derived(b"wish", old.id, b"suspended"),
            old.account_id,
            (old.patient_id,),
            wanted,
            found.places,
            end_of(wanted.last_day, zone),
            now,
            priority=1,
        )
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            # Not at once: until its fate is decided the old number stands in the way on its own day.
            await records.add_wish(connection, wish)
        return wish.id

    async def _as_it_is(self, schedule_id: str) -> list[ScheduleRow]:
        """A day by the table, which is never behind its actor."""
        key = ScheduleKey.of_schedule(schedule_id)
        if key is None:
            return []
        day = date.fromisoformat(key.day)
        async with self._app[keys.POOL].acquire() as connection:
            return [row for row in await load_schedules(connection, day, day) if row.id == schedule_id]

    def _rows_for(self, wanted: Wanted) -> list[ScheduleRow]:
        """The published days on which it may be."""
        return list(
            self._app[keys.AVAILABILITY].schedules(
                wanted.department_id, title=wanted.title, first=wanted.first_day, last=wanted.last_day
            )
        )

    def _is_spent(self, wish: WishRecord, today: date) -> bool:
        """On its last day: whether the list of its last slot has closed."""
        catalog, policy = self._app[keys.AVAILABILITY].catalog, self._app[keys.POLICY].policy
        found = find_places(self._rows_for(wish.wanted), catalog, policy, wish.wanted, (), now_ms())
        return wish.wanted.last_day < today or found.why_not == OVER

    async def _find_more(self, rows: Collection[ScheduleRow]) -> None:
        """Puts open wishes on the lists of days that suit them and that they do not know yet."""
        if not rows:
            return
        catalog = self._app[keys.AVAILABILITY].catalog
        departments = {session.department_id for row in rows for session in row.sessions}
        parents = {d.parent_id for d in catalog.departments.values() if d.id in departments and d.parent_id}
        for wish in await records.open_wishes(self._app[keys.POOL], departments | parents):
            await self._find_more_for(wish, rows)

    async def _find_more_for(self, wish: WishRecord, rows: Iterable[ScheduleRow]) -> None:
        pool = self._app[keys.POOL]
        new = [row for row in rows if row.id not in wish.places and row.id not in wish.passed_over]
        room = WISH_SCHEDULES_MAX - len(wish.places)
        catalog, policy, now = self._app[keys.AVAILABILITY].catalog, self._app[keys.POLICY].policy, now_ms()
        # Who they are and what they have costs a query, so it is asked only where a day would do at all.
        if room <= 0 or not find_places(new, catalog, policy, wish.wanted, (), now).places:
            return
        people = await records.members(pool, wish.patient_ids, wish.wanted.replaces)
        found = find_places(new, catalog, policy, wish.wanted, people.values(), now).places
        if found:
            await records.add_places(pool, wish.id, dict(list(found.items())[:room]))


async def _all(asked: Iterable[asyncio.Future[Outcome]]) -> None:
    for outcome in await asyncio.gather(*asked):
        if isinstance(outcome, Unknown) or (isinstance(outcome, Refusal) and outcome.reason in PASSING):
            raise TryAgain("an actor did not answer")


def end_of(day: date, zone: tzinfo) -> int:
    """Midnight after it (ms)."""
    return round(datetime.combine(day + timedelta(1), datetime.min.time(), zone).timestamp() * 1000)


def now_ms() -> int:
    return int(time.time() * 1000)


def _deadline() -> float:
    return asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
