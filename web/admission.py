"""How many bookings may be under way at one gateway. Past the bound the answer is a fast refusal, never a
slow one: what is admitted is then still answered in time."""

from prometheus_client import Counter, Gauge


class Admission:
    def __init__(self, limit: int, shed: Counter, admitted: Gauge) -> None:
        self._limit = limit
        self._shed = shed
        self._gauge = admitted
        self._admitted = 0
        admitted.set_function(lambda: self._admitted)

    @property
    def is_full(self) -> bool:
        return self._admitted >= self._limit

    def count_shed(self) -> None:
        """One refused before it was even read."""
        self._shed.inc()

    def enter(self) -> bool:
        """False: full, and counted as shed. True: pair it with one `leave`."""
        if self.is_full:
            self._shed.inc()
            return False
        self._admitted += 1
        return True

    def leave(self) -> None:
        self._admitted -= 1
