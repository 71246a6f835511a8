"""A HIS beside a gateway and a shard in this process: an outside system's memory behind the connector's
protocol, with a ledger of what was applied and switches for what goes wrong. The wires have tests of their
own; tests/integration/test_his_system.py has the sandbox on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import asyncpg

from actors.changes import Changes
from actors.delivery import Message
from actors.directory import Outcome
from actors.outbox import Committed
from engine.domain import schedule as s
from engine.domain.his_rules import next_step
from engine.domain.limits import ANSWER_MS_MAX
from engine.journal.codec import unpack_event
from engine.records import his as records
from engine.records.catalog_version import announce_change
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.his.his import (
    Booking,
    Kind,
    Locked,
    Person,
    Registration,
    RegistrationHeard,
    Status,
)
from tests.support.till import Till, till_at
from web import keys
from web.his.bookings import Bookings
from web.his.hearing import Hearing
from web.his.people import People
from web.his.reconciling import Figures, Reconciling
from web.his.subscriber import ToHis
from web.his.telling import Telling
from web.intake.intake import Intake, Taken

TRIES_MAX: Final = 40
_STATUSES: Final = {
    Kind.BOOKED: Status.BOOKED,
    Kind.RESCHEDULED: Status.BOOKED,
    Kind.CHANGED: Status.BOOKED,
    Kind.CANCELLED: Status.CANCELLED,
    Kind.ARRIVED: Status.ARRIVED,
    Kind.FULFILLED: Status.FULFILLED,
    Kind.NO_SHOW: Status.NO_SHOW,
}


@dataclass
class LedgerHis:
    """Their side. `faults` are taken from the front, one for each call that changes something: None is none,
    `busy` nothing was done, `lost` it was done and nobody was told, `gone` neither."""

    places: int | None = None
    """Of each doctor's half-hour; None: as many as are asked for"""
    faults: list[str | None] = field(default_factory=list)
    deaf: bool = False
    """Nothing can be asked either"""
    had: dict[str, Registration] = field(default_factory=dict)
    """By our id, or by theirs where it is theirs alone"""
    ledger: list[tuple[str, Kind | str, str]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    _ids: int = 0

    async def tell(
        self,
        message_id: str,
        kind: Kind,
        booking: Booking,
        *,
        before: Booking | None = None,
        reason: str = "",
    ) -> str:
        assert len(message_id) <= 20, "MSH-10 holds no more"
        fault = self._fault()
        if message_id not in self.seen:
            self.seen[message_id] = self._applied(kind, booking, before)
            self.ledger.append((message_id, kind, booking.id))
        self._end(fault)
        return self.seen[message_id]

    def _applied(self, kind: Kind, booking: Booking, before: Booking | None) -> str:
        known = self.had.get(booking.id)
        live = known is not None and known.status is not Status.CANCELLED
        if kind is Kind.BOOKED:
            if live and known is not None and known.status is not Status.LOCKED:
                raise Refused("already_booked")
            his_id = known.his_id if live and known is not None else self._new_id()
        elif kind is Kind.RESCHEDULED:
            assert before is not None
            old = self.had.get(before.id)
            if old is None or old.status is Status.CANCELLED:
                raise Refused("unknown_booking")
            self.had[before.id] = replace(old, status=Status.CANCELLED)
            his_id = old.his_id
        else:
            if not live or known is None:
                raise Refused("unknown_booking")
            his_id = known.his_id
        self.had[booking.id] = Registration(
            booking.id,
            his_id,
            booking.department,
            booking.practitioner,
            booking.starts_at,
            booking.number,
            _STATUSES[kind],
            booking.person,
        )
        return his_id

    async def find(self, booking_id: str) -> Registration | None:
        self._must_hear()
        return self.had.get(booking_id)

    async def registrations(self, day: date) -> list[Registration]:
        self._must_hear()
        start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=14)
        return [one for one in self.had.values() if start <= one.starts_at < start + timedelta(hours=52)]

    async def lock(self, booking: Booking) -> Locked:
        fault = self._fault()
        known = self.had.get(booking.id)
        if known is None or known.status is Status.CANCELLED:
            taken = [
                one
                for one in self.had.values()
                if one.status is not Status.CANCELLED
                and (one.practitioner, one.starts_at) == (booking.practitioner, booking.starts_at)
            ]
            if self.places is not None and len(taken) >= self.places:
                raise Refused("slot_full")
            known = Registration(
                booking.id,
                self._new_id(),
                booking.department,
                booking.practitioner,
                booking.starts_at,
                100 + len(taken),
                Status.LOCKED,
            )
            self.had[booking.id] = known
            self.ledger.append(("", "lock", booking.id))
        assert known.number is not None
        self._end(fault)
        return Locked(known.his_id, known.number)

    async def unlock(self, booking_id: str) -> None:
        fault = self._fault()
        known = self.had.get(booking_id)
        if known is not None and known.status is Status.LOCKED:
            self.had[booking_id] = replace(known, status=Status.CANCELLED)
            self.ledger.append(("", "unlock", booking_id))
        self._end(fault)

    async def departments(self) -> list[Any]:
        return []

    async def practitioners(self) -> list[Any]:
        return []

    async def schedules(self, first: date, last: date) -> list[Any]:
        return []

    async def patient(self, id_type: str, id_number: str) -> Person | None:
        return None

    async def close(self) -> None:
        return

    @property
    def live(self) -> dict[str, Status]:
        return {id_: one.status for id_, one in self.had.items() if one.status is not Status.CANCELLED}

    def register(self, person: Person, practitioner: str, starts_at: datetime) -> Registration:
        """At their window."""
        his_id = self._new_id()
        one = Registration(None, his_id, "cardio", practitioner, starts_at, 7, Status.BOOKED, person)
        self.had[his_id] = one
        return one

    def _new_id(self) -> str:
        self._ids += 1
        return f"R{self._ids:06d}"

    def _must_hear(self) -> None:
        if self.deaf:
            raise TryAgain("out of reach")

    def _fault(self) -> str | None:
        self._must_hear()
        fault = self.faults.pop(0) if self.faults else None
        if fault == "busy":
            raise TryAgain("busy", 0.0)
        if fault == "gone":
            raise OutcomeUnknown("the line broke")
        return fault

    def _end(self, fault: str | None) -> None:
        if fault == "lost":
            raise OutcomeUnknown("the line broke after it was done")


@dataclass
class Wired:
    """Everything of web/his over one in-process gateway."""

    till: Till
    his: LedgerHis
    telling: Telling
    hearing: Hearing
    reconciling: Reconciling
    subscriber: ToHis
    tries_max: int = TRIES_MAX
    _seqs: dict[int, int] = field(default_factory=dict)
    _waiting: list[Message] = field(default_factory=list)
    _times: dict[str, datetime] = field(default_factory=dict)

    async def deliver(self, restart: bool = False) -> None:
        """All that is committed, as the outbox does it: one transaction for the cursor, then one message
        after another. `restart`: what was on its way is begun again by somebody who knows of no try."""
        rows = await self.till.pool.fetch("select * from event order by shard, seq")
        new = [
            Committed(
                row["shard"],
                row["seq"],
                row["stream"],
                row["version"],
                row["at"],
                unpack_event(row["type"], row["data"]),
            )
            for row in rows
            if row["seq"] > self._seqs.get(row["shard"], 0)
        ]
        self._seqs |= {one.shard: one.seq for one in new}
        wanted = [one for one in new if type(one.event) in self.subscriber.kinds]
        if wanted:
            async with self.till.pool.acquire() as connection, connection.transaction():
                drafts = await self.subscriber.messages(connection, wanted)
            now = datetime.now(UTC)
            self._waiting += [
                Message(f"{d.shard}-{d.seq}-{n}", d.aggregate, d.kind, dict(d.data), now, 0, False)
                for n, d in enumerate(drafts)
            ]
        for _ in range(self.tries_max):
            if not self._waiting:
                return
            message = self._waiting[0]
            try:
                await self.subscriber.deliver(message)
            except TryAgain:
                self._waiting[0] = replace(message, tries=message.tries + 1)
            except OutcomeUnknown:
                self._waiting[0] = replace(message, tries=message.tries + 1, is_uncertain=not restart)
            else:
                self._waiting.pop(0)
        assert not self._waiting, f"{len(self._waiting)} messages are not delivered"

    async def truth(self, department_id: str, *, is_theirs: bool) -> None:
        async with self.till.pool.acquire() as connection, connection.transaction():
            await records.set_truth(connection, department_id, is_theirs)
            await announce_change(connection)
        await self.till.one.gateway._truth.read(self.till.pool)

    async def agreed(self) -> None:
        """Both sides have the same, nothing is left to tell, and no half-hour has more than its places."""
        rows = await self.till.pool.fetch("select id, status, slot_id, channel from appointment")
        ours = {row["id"].hex for row in rows if row["status"] in (2, 3, 4, 6)}
        theirs = set()
        for id_, one in self.his.had.items():
            if one.status is Status.CANCELLED:
                continue
            known = await self.hearing.known(one)
            theirs.add(id_ if known is None else known.ours.id.hex())
        assert theirs == ours
        for row in rows:
            chain = await records.chain(self.till.pool, row["id"].bytes)
            assert next_step([(one.ours, one.believed) for one in chain]) is None
        for slot_id in {row["slot_id"] for row in rows}:
            assert sum(row["slot_id"] == slot_id and row["status"] <= 4 for row in rows) <= 2

    async def heard(self, one: Registration, message_id: str, at: datetime | None = None) -> Taken:
        """A message has one time, however often it comes."""
        at = self._times.setdefault(message_id, at or datetime.now(UTC))
        return await self.hearing.hear(RegistrationHeard(message_id, at, one))

    def at(self, clock: str = "09:00") -> datetime:
        hour, minute = map(int, clock.split(":"))
        day = self.till.day
        return datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.till.zone)

    async def differences(self) -> list[tuple[str, str]]:
        rows = await self.till.pool.fetch("select kind, state from his_difference order by id")
        return [(row["kind"], row["state"]) for row in rows]


def stranger(n: int, **changes: Any) -> Person:
    whole: dict[str, Any] = {
        "id": None,
        "his_id": f"P{n:06d}",
        "name": "欧阳明月",
        "sex": "female",
        "birth_date": date(1980, 1, 1),
        "id_type": "passport",
        "id_number": f"H{n:07d}",
        "phone": "13712345678",
    }
    return Person(**{**whole, **changes})


@asynccontextmanager
async def wired_at(database: str, **given: Any) -> AsyncIterator[Wired]:
    """D0001 … D0004 of `cardio` tomorrow, two seats at 09:00 and two at 09:30 each."""
    async with till_at(database, **given) as till:
        gateway = till.one.gateway
        his = LedgerHis()
        gateway._truth.his = his
        vault = gateway._runner.app[keys.VAULT]
        pool: asyncpg.Pool = till.pool

        async def ask(stream: str, command: s.Command) -> Outcome:
            deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
            return await gateway._directory.ask(stream, command, deadline)

        telling = Telling(pool, his, Bookings(pool, vault), ask, till.zone)
        people = People(pool, vault, till.zone)
        hearing = Hearing(pool, vault, people, ask, Changes(gateway._directory), Intake(pool, vault))
        hearing.join()
        reconciling = Reconciling(pool, his, telling, hearing, till.zone, Figures(None))
        yield Wired(till, his, telling, hearing, reconciling, ToHis(telling))
