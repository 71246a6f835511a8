"""What a shard does for bills: next to nothing. What time or others bring them, errands do from outside."""

from collections.abc import Iterator
from typing import Final

from actors.bill_host import BillHost
from actors.host import Rules
from actors.news import News
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.journal.group_commit import Work
from engine.journal.journal import Loaded

BILL_RESTS_AFTER_MS: Final = 60_000
"""Sooner than other actors: a bill is paid within a minute, and a rush makes many thousands of them."""


class Bills:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def host(self, stream: str, loaded: Loaded, now: int) -> BillHost:
        return BillHost(BillKey.of_stream(stream), loaded, now, self._rules)

    def follow(self, host: BillHost, command: object) -> None:
        """Nothing comes at once after a command."""

    def wakes(self, host: BillHost) -> Iterator[int]:
        """Time itself changes nothing there."""
        return iter(())

    def error(self, host: BillHost) -> int:
        """Fen that the ledger and the payments and refunds tell differently."""
        return p.ledger_error(host.state)

    def settled(self, work: Work, news: News) -> None:
        """Nobody looks on."""

    async def wake(self, host: BillHost) -> None:
        """Nothing wakes it."""
