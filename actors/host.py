"""One actor: decide, apply, journal, reply. The only place where they meet. A plain class."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, cast

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.journal.group_commit import Work
from engine.journal.journal import Entry, Loaded, enact


@dataclass(slots=True)
class Rules:
    """What `decide` is told beside the time: shared by all hosts of a shard, changed when the policy is."""

    policy: Policy
    chance: Callable[[], int]
    """A number below 2**64 that nobody can guess."""


ALL_OR_NOTHING: Final = (
    s.HoldGroup,
    s.AddPatient,
    s.OfferSeats,
    s.LeaveFor,
    s.SettleChange,
    s.CancelAppointment,
)
"""Commands whose events stand or fall together: those that claims may be lost with. What comes about by the
way (a hold that ended, a wish, another revision) stays."""

ONE_AT_A_TIME: Final = (s.AddPatient, s.LeaveFor, s.SettleChange, s.CancelAppointment)
"""Of these: what frees or makes a seat. Until its claims are decided nobody else may build on that."""

_OF_MANY: Final = (s.SessionMoved, s.SessionStatusSet)
"""Events that touch whoever is there."""

_atoms = count(1)


class Host:
    """A practitioner's day, alive. Not in one word more than its journal once `unsettled` reads 0."""

    __slots__ = (
        "_barrier",
        "_before",
        "_rules",
        "key",
        "last_used",
        "opening",
        "state",
        "ungranted",
        "unsettled",
        "version",
    )

    def __init__(self, key: ScheduleKey, loaded: Loaded, now: int, rules: Rules) -> None:
        self.key = key
        self._rules = rules
        self.state = s.replay(loaded.events)
        self.version = len(loaded.events)
        self.unsettled = 0
        self.ungranted: set[bytes] = set()  # appointments whose claims the next flush will decide
        self._barrier: Work | None = None
        """Nothing else is decided until this is: it waits for claims of others, or others wait for its."""
        self._before: s.Appointment | None = None
        """What the barrier's command found, should it have to be undone."""
        self.last_used = now
        self.opening: list[Entry] = []
        if not loaded.events and loaded.plan is not None:
            # Opened in memory; journaled with the first thing that happens, so that looking writes nothing.
            self.opening = [enact(self.state, key, s.ScheduleOpened(loaded.plan), now)]

    @property
    def exists(self) -> bool:
        return bool(self.state.slots)

    @property
    def is_idle(self) -> bool:
        state = self.state
        return not (self.unsettled or state.holds or state.changes or state.cooling or state.wishes)

    def knows(self, appointment_id: bytes) -> bool:
        return appointment_id in self.state.appointments

    def settle(self, work: Work) -> None:
        """From decide to the last apply there is no await: nobody else may decide on a stale state."""
        command = cast(s.Command, work.command)
        if not self.exists and not isinstance(command, s.OpenSession):
            work.reply = Refusal(Reason.NO_SUCH_SCHEDULE)
            return
        if self._barrier is not None and self._barrier is not work:
            # A seat came free by a claim that may still be lost: nobody may take it before that is known.
            work.reply = None
            return
        outcome: list[s.Event] | Refusal
        if work.refused is not None and not self._is_known(command):
            outcome = work.refused
        else:
            rules = self._rules
            outcome = s.decide(self.state, command, work.now, rules.policy, rules.chance())
        self._barrier = None
        if isinstance(outcome, Refusal):
            work.reply = outcome
            return
        if self.ungranted and self._builds_on_ungranted(outcome):
            # Nothing is built on a claim that may still be lost. The flush that decides it comes first.
            work.reply = None
            if any(isinstance(event, _OF_MANY) for event in outcome):
                self._barrier = work  # or it would wait as long as others come
            return
        if outcome:
            self._enact(work, outcome)
        work.reply = s.reply_to(self.state, command)

    def _builds_on_ungranted(self, outcome: list[s.Event]) -> bool:
        for event in outcome:
            match event:
                case s.SeatBooked() | s.SeatReleased() | s.AttendanceRecorded():
                    if event.appointment_id in self.ungranted:
                        return True
                case s.SessionMoved() | s.SessionStatusSet():
                    slots, appointments = self.state.slots, self.state.appointments
                    if any(
                        (held := appointments.get(appointment_id)) is not None
                        and slots[held.clock].session.period == event.period
                        for appointment_id in self.ungranted
                    ):
                        return True
                case _:
                    pass
        return False

    def _is_known(self, command: s.Command) -> bool:
        """A retry: it finds its first answer, whatever its patient may do by now."""
        match command:
            case s.HoldSeat():
                return self.knows(command.appointment_id)
            case s.HoldGroup():
                return bool(command.members) and self.knows(command.members[0][0])
            case s.AddPatient():
                return self.knows(command.appointment_id)
            case s.LeaveFor():
                left = self.state.appointments.get(command.appointment_id)
                left_for = None if left is None or left.reason != "changed" else left.successor
                return left_for == command.successor
            case s.JoinWaitlist():
                return command.wish_id in self.state.wishes
            case _:
                return False

    def _enact(self, work: Work, outcome: list[s.Event]) -> None:
        command = work.command
        if isinstance(command, ONE_AT_A_TIME):
            before = self.state.appointments.get(command.appointment_id)
            self._before = None if before is None else copy.copy(before)
        entries = [enact(self.state, self.key, event, work.now) for event in outcome]
        if isinstance(command, ALL_OR_NOTHING):
            atom = next(_atoms)
            for entry in entries:
                if entry.gains or isinstance(entry.event, s.SeatHeld | s.SeatBooked | s.FateDecided):
                    entry.atom = atom
                if entry.gains and isinstance(command, ONE_AT_A_TIME):
                    self._barrier = work
        work.entries = [*self.opening, *entries] if self.opening else entries
        self.opening = []
        self.ungranted.update(claim.owner for entry in entries for claim in entry.gains)

    def granted(self, work: Work) -> None:
        if self._barrier is work:
            self._barrier = None
        self.ungranted.difference_update(claim.owner for entry in work.entries for claim in entry.gains)

    def undo(self, work: Work, reason: Reason) -> list[Entry]:
        """What lost a claim goes back in the same transaction: each event by its opposite, the last first."""
        command = work.command
        if isinstance(command, s.ConfirmAppointment):
            work.reply = Refusal(Reason.HOLD_EXPIRED)
            released = s.SeatReleased(command.appointment_id, "expired")
            return [enact(self.state, self.key, released, work.now)]
        if isinstance(command, s.SettleChange | s.CancelAppointment):
            # The other actor has given the old number up for this one: the change was made.
            undone = self._opposites(work)
            booked = enact(self.state, self.key, s.SeatBooked(command.appointment_id), work.now)
            assert booked.more is not None
            booked.more.errands += [
                ["wish_ended", entry.event.wish_id.hex(), {"reason": "met", "at": self.key.stream}]
                for entry in work.entries
                if isinstance(entry.event, s.WishEnded)
            ]
            work.reply = s.answer(self.state, command.appointment_id)
            return [*undone, booked]
        work.reply = Refusal(reason)
        return self._opposites(work)

    def _opposites(self, work: Work) -> list[Entry]:
        undone = []
        for entry in reversed(work.entries):
            event = self._opposite(entry, work)
            if event is None:
                continue
            opposite = enact(self.state, self.key, event, work.now)
            if isinstance(event, s.SeatReleased) and event.reason == "lost_claim":
                # It never had a row or a claim; what bears its id belongs to whoever won.
                opposite.change, opposite.gains, opposite.drops, opposite.more = None, (), (), None
            undone.append(opposite)
        return undone

    def _opposite(self, entry: Entry, work: Work) -> s.Event | None:
        event, command, before = entry.event, work.command, self._before
        match event:
            case s.SeatHeld():
                return s.SeatReleased(event.appointment_id, "lost_claim")
            case s.SeatReleased() if entry.atom and before is not None:
                return s.SeatRestored(event.appointment_id, before.status)
            case s.SeatBooked() if isinstance(command, s.LeaveFor):
                return s.SeatReleased(event.appointment_id, "expired")
            case s.FateDecided() if entry.atom and before is not None:
                return s.FateDecided(event.appointment_id, before.fate, before.successor)
            case s.AttendanceRecorded():
                return s.AttendanceRecorded(event.appointment_id, s.Status.NOSHOW, event.by)
            case s.SeatsAdded():
                # The added patient's seat is the last one: nobody else has been decided on since.
                last = self.state.slots[event.clock].capacity
                return s.SeatsBlocked(event.clock, tuple(range(last - event.count, last)))
            case _:
                return None
