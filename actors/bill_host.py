"""One bill: as host.py, for money. It holds no claims, so nothing is ever undone."""

from dataclasses import replace
from typing import cast

from actors.host import Rules
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.refusal import Reason, Refusal
from engine.journal.bills import enact_bill
from engine.journal.group_commit import Work
from engine.journal.journal import Entry, Loaded


class BillHost:
    """Not in one word more than its journal once `unsettled` reads 0."""

    __slots__ = ("_rules", "applied", "key", "last_used", "state", "unsettled", "version")

    def __init__(self, key: BillKey, loaded: Loaded, now: int, rules: Rules) -> None:
        self.key = key
        self._rules = rules
        self.state = p.replay(loaded.events)
        self.version = len(loaded.events)
        self.applied = self.version  # what the version will be when all that is decided is written
        self.unsettled = 0
        self.last_used = now

    @property
    def is_idle(self) -> bool:
        """What time brings is an errand's, so nothing keeps it awake."""
        return not self.unsettled

    def settle(self, work: Work) -> None:
        """From decide to the last apply there is no await."""
        command = cast(p.Command, work.command)
        if isinstance(command, p.OpenBill) and command.bill_id != self.key.bill_id:
            work.reply = Refusal(Reason.BILL_UNFIT, {"why": "id"})
            return
        outcome = p.decide(self.state, command, work.now, self._rules.policy.money)
        if isinstance(outcome, Refusal):
            work.reply = outcome
            return
        if outcome:
            work.entries = enact_bill(self.state, self.key, outcome, work.now, self.applied + 1)
            self.applied += len(work.entries)
        # Also the second time: whoever lost the first answer reads what he has done.
        work.reply = replace(p.reply_to(self.state, command), seen=self.applied)

    def granted(self, work: Work) -> None:
        """There is nothing that could have been lost."""

    def undo(self, work: Work, reason: Reason) -> list[Entry]:
        raise AssertionError(f"a bill has no claims, yet {type(work.command).__name__} lost one: {reason}")
