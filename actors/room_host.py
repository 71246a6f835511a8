"""One waiting room: as host.py, for a department's day. It holds no claims, so nothing is ever undone."""

from dataclasses import replace
from typing import cast

from actors.host import Rules
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.queue_order import Rules as OrderOfTheRoom
from engine.domain.refusal import Reason, Refusal
from engine.domain.room_plan import opening
from engine.journal.group_commit import Work
from engine.journal.journal import Entry, Loaded
from engine.journal.rooms import enact_room


class RoomHost:
    """Not in one word more than its journal once `unsettled` reads 0."""

    __slots__ = ("_rules", "applied", "key", "last_used", "opening", "state", "unsettled", "version")

    def __init__(self, key: RoomKey, loaded: Loaded, now: int, rules: Rules) -> None:
        self.key = key
        self._rules = rules
        self.state = w.replay(loaded.events)
        self.version = len(loaded.events)
        self.applied = self.version  # what the version will be when all that is decided is written
        self.unsettled = 0
        self.last_used = now
        self.opening: list[Entry] = []
        if not loaded.events and loaded.room is not None:
            # Opened in memory; journaled with the first thing that happens, so that looking writes nothing.
            terms = rules.policy.waiting_of(key.department_id)
            self.opening = [
                enact_room(self.state, key, event, now) for event in opening(loaded.room, terms, now)
            ]

    @property
    def rules(self) -> OrderOfTheRoom:
        return self._rules.policy.waiting_of(self.key.department_id).rules

    @property
    def is_idle(self) -> bool:
        return not self.unsettled and w.next_wake(self.state, self.rules) is None

    def settle(self, work: Work) -> None:
        """From decide to the last apply there is no await."""
        command = cast(w.Command, work.command)
        if not self.state.day:
            work.reply = Refusal(Reason.NO_SUCH_WAITING_ROOM)
            return
        outcome = w.decide(self.state, command, work.now, self.rules)
        if isinstance(outcome, Refusal):
            work.reply = outcome
            return
        if outcome:
            entries = [enact_room(self.state, self.key, event, work.now) for event in outcome]
            work.entries = [*self.opening, *entries]
            self.opening = []
            self.applied += len(work.entries)
        # Also the second time: whoever lost the first answer reads what he has done.
        work.reply = replace(w.reply_to(self.state, command), seen=self.applied)

    def granted(self, work: Work) -> None:
        """There is nothing that could have been lost."""

    def undo(self, work: Work, reason: Reason) -> list[Entry]:
        raise AssertionError(f"a waiting room has no claims, yet {work.command} lost one: {reason}")
