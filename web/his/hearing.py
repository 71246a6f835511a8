"""What is done at the windows of the HIS, done here: by the same actors and the same rules as everybody's.

Each message goes through the intake: seen twice it is used once, and what cannot be used is kept with its
reason. What an actor refuses (no seat is left) is answered to the HIS as refused, and stands in the list of
differences: they have sold what is sold here, and a person must look.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import asyncpg

from actors.changes import Changes, ms
from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.by import HIS
from engine.domain.his_rules import Differs, Phase
from engine.domain.ids import ScheduleKey, derived
from engine.domain.intake import Unfit
from engine.domain.limits import SLOT_MINUTES
from engine.domain.planning import Plan
from engine.domain.policy import Channel
from engine.domain.refusal import Reason, Refusal
from engine.journal.streams import read_stream
from engine.records import appointments, his_codes, his_differences
from engine.records import his as records
from engine.records.catalog import load_plan
from engine.records.his import Kept, Note
from engine.vault.vault import Vault
from integrations.connector import Refused, TryAgain
from integrations.his.his import Heard, Registration, ScheduleHeard
from web.his import states
from web.his.heard import (
    MASTER,
    PERSON,
    REGISTRATION,
    SCHEDULE,
    aggregate_of,
    body_of,
    interface_of,
    person_of,
    registration_of,
    schedule_of,
)
from web.his.people import People
from web.his.telling import Ask
from web.intake.intake import Intake, Taken, Use

log = logging.getLogger(__name__)

_NOT_NOW: Final = (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY)
_LIVE: Final = (s.Status.PENDING, s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED, s.Status.NOSHOW)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a registration of theirs belongs here."""

    key: ScheduleKey
    clock: str
    department_id: str
    starts_at: int

    @property
    def slot_id(self) -> str:
        return self.key.slot_id(self.clock)


@dataclass(frozen=True, slots=True)
class Hearing:
    pool: asyncpg.Pool
    vault: Vault
    people: People
    ask: Ask
    changes: Changes
    intake: Intake

    def join(self) -> None:
        """So that what was kept aside is tried again in this process."""
        for interface, use in self._uses().items():
            self.intake.receives(interface, use)

    async def hear(self, heard: Heard, raw: bytes = b"") -> Taken:
        """Raises TryAgain, OutcomeUnknown: they should send it again."""
        interface = interface_of(heard)
        return await self.intake.take(
            interface,
            heard.message_id,
            body_of(heard),
            self._uses()[interface],
            raw,
            aggregate=aggregate_of(heard),
        )

    def _uses(self) -> dict[str, Use]:
        return {
            REGISTRATION: self.registration,
            SCHEDULE: self.schedule,
            PERSON: self.person,
            MASTER: self.master,
        }

    # Registrations.

    async def registration(self, body: Mapping[str, Any]) -> None:
        await self.take_in(registration_of(body), datetime.fromisoformat(body["at"]))

    async def take_in(self, told: Registration, at: datetime | None = None) -> None:
        """`at`: when they said so; None: it is so now. Raises Unfit, Refused, TryAgain."""
        known = await self.known(told)
        phase = states.phase_of(told.status)
        if known is not None:
            is_ours = known.ours.channel != Channel.HIS
            is_old = is_ours and None not in (at, known.noted_at) and at <= known.noted_at  # type: ignore[operator]
            await self._follow(known, told, phase, is_old)
        elif phase not in (Phase.GONE, Phase.LOCKED):
            await self._registered(told, phase)

    async def known(self, told: Registration) -> Kept | None:
        """The number of ours that it is."""
        if told.booking_id is not None:
            try:
                return await records.by_id(self.pool, bytes.fromhex(told.booking_id))
            except ValueError:
                raise Unfit("registration.booking_id", "unknown_code") from None
        return await records.by_his_id(self.pool, told.his_id)

    async def _registered(self, told: Registration, phase: Phase) -> None:
        """Somebody was registered at their window."""
        place = await self.place_of(told)
        now = datetime.now(UTC)
        patient_id, account_id = await self.people.known(told.person, now)
        number = derived(b"his", told.his_id.encode())
        # Before the actor is asked: what it then commits must not be told to those who told us.
        theirs = Note(Phase.BOOKED, told.his_id, place.slot_id, place.starts_at, told.number, "theirs")
        await records.note(self.pool, number, place.department_id, theirs)
        hold = s.HoldSeat(number, place.clock, patient_id, account_id, channel=int(Channel.HIS), by=HIS)
        outcome = await self._asked(place.key, hold)
        if isinstance(outcome, s.Answer) and outcome.status == s.Status.PENDING:
            outcome = await self._asked(place.key, s.ConfirmAppointment(number, account_id, HIS))
        if isinstance(outcome, Refusal):
            await self._refused_here(number, told, place, outcome)
        if phase is not Phase.BOOKED:
            kept = await records.by_id(self.pool, number)
            assert kept is not None
            await self._attended(kept, phase)

    async def _refused_here(self, number: bytes, told: Registration, place: Place, refusal: Refusal) -> None:
        await records.forget(self.pool, number)
        await self._differs(
            place.starts_at,
            Differs.REFUSED_HERE,
            his_differences.subject_of(None, told.his_id),
            {"reason": refusal.reason.value, **evidence_of(told), "slot_id": place.slot_id},
        )
        raise Refused(refusal.reason.value)

    async def _follow(self, known: Kept, told: Registration, phase: Phase, is_old: bool) -> None:
        """What became of a number that both sides know. `is_old`: said before we told them something else, so
        where and when it is we know better."""
        if known.ours.status not in _LIVE:
            return  # it is over here, and they are told so, or were
        if phase is Phase.GONE:
            await self._cancelled(known, told)
        elif phase is not Phase.LOCKED:
            if not is_old and ms(told.starts_at) != known.ours.starts_at:
                known = await self._moved(known, told)
            if states.knows_more(phase, known.ours.status):
                await self._attended(known, phase)

    async def _cancelled(self, known: Kept, told: Registration) -> None:
        await records.note(self.pool, known.ours.id, known.department_id, Note(Phase.GONE))
        command = s.CancelAppointment(known.ours.id, known.account_id, HIS, "cancelled at the HIS")
        outcome = await self._asked(_key(known), command)
        if isinstance(outcome, Refusal):
            await self._differs_by(known, Differs.STATE, outcome, told)

    async def _attended(self, known: Kept, phase: Phase) -> None:
        """Who came, was seen, or did not come, as they say it."""
        status = states.ATTENDED[phase]
        await records.note(self.pool, known.ours.id, known.department_id, Note(phase))
        outcome = await self._asked(_key(known), s.RecordAttendance(known.ours.id, status, HIS))
        if isinstance(outcome, Refusal):
            day_start = known.ours.starts_at
            subject = his_differences.subject_of(known.ours.id, None)
            told = {"reason": outcome.reason.value, "theirs": phase.value, "ours": known.ours.status}
            await self._differs(day_start, Differs.STATE, subject, told)

    async def _moved(self, known: Kept, told: Registration) -> Kept:
        """Another time, or another doctor, for the same patient."""
        place = await self.place_of(told)
        old = await appointments.any_appointment(self.pool, self.vault, known.ours.id)
        assert old is not None
        new_id = derived(b"his moved", known.ours.id, place.slot_id.encode())
        theirs = Note(Phase.BOOKED, told.his_id, place.slot_id, place.starts_at, told.number, "theirs")
        await records.note(self.pool, new_id, place.department_id, theirs)
        outcome = await self.changes.change(
            old, place.key, place.clock, new_id, place.department_id, place.starts_at, HIS, int(Channel.HIS)
        )
        if isinstance(outcome, Refusal) and outcome.reason not in _NOT_NOW:
            await records.forget(self.pool, new_id)
            await self._differs_by(known, Differs.TIME, outcome, told)
            raise Refused(outcome.reason.value)
        if not isinstance(outcome, s.Answer):
            raise TryAgain("a change is not settled yet")
        await records.note(self.pool, known.ours.id, known.department_id, Note(Phase.GONE))
        kept = await records.by_id(self.pool, new_id)
        assert kept is not None
        return kept

    async def place_of(self, told: Registration) -> Place:
        """Raises Unfit for codes that nobody knows, and times at which there is no clinic."""
        codes = await his_codes.load(self.pool)
        department_id = codes.to_ours("department", told.department)
        practitioner_id = codes.to_ours("practitioner", told.practitioner)
        await self._must_exist("department", department_id)
        await self._must_exist("practitioner", practitioner_id)
        local = told.starts_at.astimezone(self.people.zone)
        key = ScheduleKey(practitioner_id, local.date().isoformat())
        state = await self._day(key)
        at = ms(told.starts_at)
        for slot in state.slots.values():
            if slot.starts_at <= at < slot.starts_at + SLOT_MINUTES * 60_000:
                if slot.session.department_id != department_id:
                    raise Unfit("registration.department", "another_department")
                return Place(key, slot.clock, department_id, slot.starts_at)
        raise Unfit("registration.starts_at", "no_such_slot")

    async def _must_exist(self, kind: his_codes.Kind, ours: str) -> None:
        if await his_codes.name_of(self.pool, kind, ours) is None:
            raise Unfit(f"registration.{kind}", "unknown_code")

    # Schedules.

    async def schedule(self, body: Mapping[str, Any]) -> None:
        """停诊, its end, and another number of places. Raises Unfit, Refused, TryAgain."""
        told = schedule_of(body)
        codes = await his_codes.load(self.pool)
        key = ScheduleKey(codes.to_ours("practitioner", told.practitioner), told.day.isoformat())
        state = await self._day(key)
        periods = list(dict.fromkeys(slot.session.period for slot in state.slots.values()))
        if told.period is not None:
            periods = [one for one in periods if one == told.period]
        if not periods:
            raise Unfit("period" if state.slots else "practitioner", "no_such_session")
        for period in periods:
            for command in _commands(state, told, period, datetime.now(UTC)):
                outcome = await self._asked(key, command)
                if isinstance(outcome, Refusal):
                    raise Refused(outcome.reason.value)

    async def _day(self, key: ScheduleKey) -> s.Schedule:
        """As it is committed, or as it was published."""
        async with self.pool.acquire() as connection:
            recorded = await read_stream(connection, key.stream)
            plan: Plan | None = None if recorded else await load_plan(connection, key.schedule_id)
        state = s.replay([one.event for one in recorded])
        if plan is not None:
            s.apply(state, s.ScheduleOpened(plan))
        return state

    # People, and what they call departments and doctors.

    async def person(self, body: Mapping[str, Any]) -> None:
        """Of somebody nobody knows here nothing is kept: who registers is told with the registration."""
        await self.people.linked(person_of(body["person"]), body.get("merged_from"), datetime.now(UTC))

    async def master(self, body: Mapping[str, Any]) -> None:
        """A code that means somebody of ours is fine; a new one waits until a person says who it is:
        `xinglin his map`. Raises Unfit."""
        codes = await his_codes.load(self.pool)
        kind: his_codes.Kind = "department" if body["kind"] == "department" else "practitioner"
        ours = codes.to_ours(kind, body["code"])
        name = await his_codes.name_of(self.pool, kind, ours)
        if name is None:
            raise Unfit("code", "unknown_code")
        if body.get("name") and name.strip() != body["name"].strip():
            raise Unfit("name", "another_name")

    # Asking.

    async def _asked(self, key: ScheduleKey, command: s.Command) -> s.Reply | Refusal:
        """Raises TryAgain while nobody knows: every command carries an id that its repetition finds."""
        outcome = await self.ask(key.stream, command)
        if isinstance(outcome, Refusal):
            if outcome.reason in _NOT_NOW:
                raise TryAgain(f"{type(command).__name__}: {outcome.reason}")
            return outcome
        if isinstance(outcome, (s.Answer, s.Many, s.Revised, s.Waiting)):
            return outcome
        raise TryAgain(f"{type(command).__name__}: no answer")

    async def _differs_by(self, known: Kept, kind: Differs, refusal: Refusal, told: Registration) -> None:
        evidence = {"reason": refusal.reason.value, "ours": known.ours.status, **evidence_of(told)}
        subject = his_differences.subject_of(known.ours.id, None)
        await self._differs(known.ours.starts_at, kind, subject, evidence)

    async def _differs(
        self, starts_at: int, kind: Differs, subject: str, evidence: Mapping[str, Any]
    ) -> None:
        day = self._day_of(starts_at)
        await his_differences.note(self.pool, day, kind, subject, evidence, datetime.now(UTC))

    def _day_of(self, at: int) -> date:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(self.people.zone).date()


def evidence_of(told: Registration) -> dict[str, Any]:
    """What they say of it, without its person."""
    return {
        "his_id": told.his_id,
        "their_status": told.status.value,
        "their_department": told.department,
        "their_practitioner": told.practitioner,
        "their_start": told.starts_at.isoformat(),
        "their_number": told.number,
    }


def _commands(state: s.Schedule, told: ScheduleHeard, period: str, now: datetime) -> list[s.Structural]:
    """Ids come of what is asked for and of the day's state, so that a message used twice changes once."""
    slots = [slot for slot in state.slots.values() if slot.session.period == period]
    status = slots[0].session.status
    command_id = derived(
        b"his day",
        f"{told.practitioner}/{told.day}/{period}/{told.what}/{told.capacity}/{state.revision}".encode(),
    )
    note = told.reason[:200]
    match told.what:
        case "suspended":
            if status == "suspended":
                return []
            return [s.SetSessionStatus(command_id, -1, HIS, note, period, "suspended", "his")]
        case "resumed":
            if status == "open":
                return []
            return [s.SetSessionStatus(command_id, -1, HIS, note, period, "open", "his")]
        case "capacity":
            return _to_capacity(slots, told, period, command_id, now)
        case "opened":
            return []  # it is there already: what is not was refused before
    raise Unfit("what", "unknown_code")


def _to_capacity(
    slots: list[seats.Slot], told: ScheduleHeard, period: str, command_id: bytes, now: datetime
) -> list[s.Structural]:
    """So many places in the session: spread evenly over the slots that are still ahead."""
    if told.capacity is None or told.capacity < 0:
        raise Unfit("capacity", "missing")
    ahead = sorted((one for one in slots if one.starts_at > ms(now)), key=lambda one: one.starts_at)
    if not ahead:
        raise Unfit("period", "in_the_past")
    more = told.capacity - sum(one.capacity - one.blocked.bit_count() for one in slots)
    deltas = {slot.clock: 0 for slot in ahead}
    room = {slot.clock: (seats.free(slot) | slot.cooling).bit_count() for slot in ahead}
    left = abs(more)
    while left:
        took = False
        for clock in deltas:
            if left and (more > 0 or room[clock] > 0):
                deltas[clock] += 1 if more > 0 else -1
                room[clock] -= 1
                left -= 1
                took = True
        if not took:
            raise Refused(Reason.BELOW_SOLD.value)
    note = told.reason[:200]
    return [
        s.ChangeCapacity(
            derived(b"his slot", command_id, clock.encode()), -1, HIS, note, period, clock, delta
        )
        for clock, delta in deltas.items()
        if delta
    ]


def _key(known: Kept) -> ScheduleKey:
    key = ScheduleKey.of_schedule(known.ours.slot_id.rpartition("-")[0])
    assert key is not None
    return key
