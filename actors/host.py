"""One actor: decide, apply, journal, reply. The only place where they meet. A plain class."""

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason, Refusal
from engine.journal.group_commit import Work
from engine.journal.journal import Entry, Loaded, enact


class Host:
    """A practitioner's day, alive. Not in one word more than its journal once `unsettled` reads 0."""

    __slots__ = ("key", "last_used", "opening", "state", "ungranted", "unsettled", "version")

    def __init__(self, key: ScheduleKey, loaded: Loaded, now: int) -> None:
        self.key = key
        self.state = s.replay(loaded.events)
        self.version = len(loaded.events)
        self.unsettled = 0
        self.ungranted: set[bytes] = set()  # appointments whose claims the next flush will decide
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
        return self.unsettled == 0 and not self.state.holds

    def knows(self, appointment_id: bytes) -> bool:
        return appointment_id in self.state.appointments

    def settle(self, work: Work) -> None:
        """From decide to the last apply there is no await: nobody else may decide on a stale state."""
        if not self.exists:
            work.reply = Refusal(Reason.NO_SUCH_SCHEDULE)
            return
        command = work.command
        outcome: list[s.Event] | Refusal
        if work.refused is not None and not (
            isinstance(command, s.HoldSeat) and self.knows(command.appointment_id)
        ):
            outcome = work.refused
        else:
            outcome = s.decide(self.state, command, work.now)
        if isinstance(outcome, Refusal):
            work.reply = outcome
            return
        if any(
            isinstance(event, s.SeatBooked | s.SeatReleased) and event.appointment_id in self.ungranted
            for event in outcome
        ):
            # Nothing is built on a claim that may still be lost. The flush that decides it comes first.
            work.reply = None
            return
        if outcome:
            work.entries = [
                *self.opening,
                *(enact(self.state, self.key, event, work.now) for event in outcome),
            ]
            self.opening = []
            self.ungranted.update(claim.owner for entry in work.entries for claim in entry.gains)
        work.reply = self._answer(command)

    def granted(self, work: Work) -> None:
        self.ungranted.difference_update(claim.owner for entry in work.entries for claim in entry.gains)

    def undo(self, work: Work, reason: Reason) -> list[Entry]:
        """A number whose claim went to somebody else goes back, in the same transaction."""
        command = work.command
        if isinstance(command, s.HoldSeat):
            work.reply = Refusal(reason)
            entry = enact(
                self.state, self.key, s.SeatReleased(command.appointment_id, "lost_claim"), work.now
            )
            # It never had a row or a claim; what bears its id belongs to whoever won.
            entry.change, entry.drops = None, ()
        else:
            assert isinstance(command, s.ConfirmAppointment)
            work.reply = Refusal(Reason.HOLD_EXPIRED)
            entry = enact(self.state, self.key, s.SeatReleased(command.appointment_id, "expired"), work.now)
        return [entry]

    def _answer(self, command: s.Command) -> s.Answer:
        if isinstance(command, s.HoldSeat | s.ConfirmAppointment | s.CancelAppointment):
            return s.answer(self.state, command.appointment_id)
        return NOTHING


NOTHING = s.Answer(b"", "", 0, 0, 0)
"""The answer to a command about no appointment."""
