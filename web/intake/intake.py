"""What every message of another system goes through: seen before? for us? as it should be? can it be used?

    intake.receives("lis.report", store)
    taken = await intake.take("lis.report", "LIS/0815", body, store, raw)

A message is used once, or kept aside with its reasons; then those behind it go on. Kept ones are sealed,
counted, listed for the administrator, and tried again when somebody asks (`xinglin intake retry`), with the
rules of then. What is about a patient nobody knows here waits without alarm until the patient is added.

`use` may run twice for one message (a process that dies between using and noting it), so it is idempotent.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from prometheus_client import CollectorRegistry

from engine.database import AWAY
from engine.domain.intake import Finding, InterfaceRules, Rules, Unclaimed, Unfit, findings
from engine.records import intake as records
from engine.records.intake import Contents, Due, Incoming
from engine.records.intake_rules import RulesRefused, read_rules
from engine.vault.failed import VaultBehind, VaultFailed
from engine.vault.vault import Vault
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from web.intake.figures import IntakeCounts

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
RECHECK_SECONDS: Final = 60.0
RECHECK_SPAN: Final = timedelta(minutes=15)
ID_CHARS_MAX: Final = 400
RAW_BYTES_MAX: Final = 16 * 1024 * 1024
ASIDE_MAX: Final = 5_000
"""In quarantine of one interface, before what cannot be read is thrown away."""
RETRIED_MAX: Final = 200
"""In one look, so that a round ends."""
DEFAULTS: Final = "rules.yaml"

Use = Callable[[Mapping[str, Any]], Awaitable[None]]


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # it was accepted before
    QUARANTINED = "quarantined"
    UNCLAIMED = "unclaimed"  # kept for a patient nobody knows here yet: nothing is wrong with it


@dataclass(frozen=True, slots=True)
class Taken:
    outcome: Outcome
    id: bytes | None = None
    """Of what is kept."""
    reasons: tuple[Finding, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the sender may forget it."""
        return self.outcome is not Outcome.QUARANTINED


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


@cache
def default_rules() -> Rules:
    """The program's own. Raises RulesRefused: then the program is broken."""
    return read_rules((files("web.intake") / DEFAULTS).read_text("utf-8"), file=DEFAULTS)


class Intake:
    """Of one process."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        vault: Vault,
        registry: CollectorRegistry | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._now = now
        self._counts = IntakeCounts(registry)
        self._uses: dict[str, Use] = {}
        self._rules = default_rules()
        self._rules_version = 0
        self._rechecked_at = datetime.min.replace(tzinfo=UTC)
        self._turns: dict[bytes, _Turn] = {}

    def receives(self, interface: str, use: Use) -> None:
        """Who uses its messages when they are tried again, in this process."""
        self._uses[interface] = use

    async def take(
        self,
        interface: str,
        message_id: str,
        body: Mapping[str, Any],
        use: Use,
        raw: bytes = b"",
        *,
        aggregate: str = "",
    ) -> Taken:
        """What became of it. Raises what says that it is worth sending again: TryAgain, OutcomeUnknown, a
        database that is away. Nothing is noted then."""
        return await self._judged(interface, message_id, Contents(message_id, body, raw), use, aggregate)

    async def set_aside(
        self, interface: str, message_id: str, raw: bytes, reasons: Sequence[Finding]
    ) -> Taken:
        """Keeps what could not even be read. `message_id` "": it has none that can be made out."""
        contents = Contents(message_id, None, raw)
        digest = self._digest(contents)
        index = records.message_index(self._vault, interface, message_id[:ID_CHARS_MAX] or digest.hex())
        incoming = Incoming(interface, message_id, digest, None, contents, self._now())
        look = await records.look(self._pool, interface, index, None)
        if look.known is not None and look.known.state == "accepted":
            index = records.message_index(self._vault, interface, digest.hex())
        if await records.is_full(self._pool, interface, ASIDE_MAX):
            # Whoever sends rubbish without end fills no table; figures and the log still tell of it.
            self._counts.count(interface, Outcome.QUARANTINED.value)
            log.error("%s: too much is in quarantine: what cannot be read is not kept any more", interface)
            return Taken(Outcome.QUARANTINED, None, tuple(reasons))
        return await self._quarantined(index, incoming, tuple(reasons))

    async def retry_waiting(self) -> int:
        """Tries again what somebody asked for and what is claimed by now; how many. For a Round, or `run`."""
        now = self._now()
        if now - self._rechecked_at >= timedelta(seconds=RECHECK_SECONDS):
            self._rechecked_at = now
            await records.recheck_claims(self._pool, now - RECHECK_SPAN, now)
        tried = 0
        while tried < RETRIED_MAX:
            due = await records.due(self._pool, list(self._uses), self._now())
            if due is None:
                break
            tried += 1
            await self._tried(due)
        return tried

    async def run(self) -> None:
        """retry_waiting, for as long as the process lives."""
        while True:
            try:
                await self.retry_waiting()
            except (VaultBehind, *AWAY) as error:
                log.warning("what waits at the intake could not be tried: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    # Inside.

    async def _judged(
        self, interface: str, message_id: str, contents: Contents, use: Use, aggregate: str
    ) -> Taken:
        vault = self._vault
        index = records.message_index(vault, interface, message_id)
        behind = records.aggregate_index(vault, interface, aggregate)
        digest = self._digest(contents)
        incoming = Incoming(interface, message_id, digest, behind, contents, self._now())
        async with self._turn(index):
            look = await records.look(self._pool, interface, index, behind)
            await self._follow_rules(look.rules_version)
            known = look.known
            if known is not None and known.state in ("accepted", "dropped"):
                if known.digest == digest:
                    self._counts.count(interface, Outcome.DUPLICATE.value)
                    return Taken(Outcome.DUPLICATE, known.id)
                if known.state == "accepted":
                    other = records.message_index(vault, interface, f"{message_id}\0{digest.hex()}")
                    reason = Finding("", "same_id_other_content", "a new id for a new message")
                    return await self._quarantined(other, incoming, (reason,))
            if not message_id or len(message_id) > ID_CHARS_MAX:
                reason = Finding("", "message_id", f"1 to {ID_CHARS_MAX} characters")
                return await self._quarantined(index, incoming, (reason,))
            if look.is_behind:
                reason = Finding("", "behind", "an earlier message of the same thing first")
                return await self._quarantined(index, incoming, (reason,))
            return await self._used(index, incoming, use)

    async def _used(self, index: bytes, incoming: Incoming, use: Use) -> Taken:
        interface, body = incoming.interface, incoming.contents.body
        assert body is not None
        reasons = findings(self._rules.get(interface, InterfaceRules()), body, incoming.now)
        if reasons:
            return await self._quarantined(index, incoming, reasons)
        try:
            await use(body)
        except Unfit as unfit:
            return await self._quarantined(index, incoming, (unfit.finding,))
        except Refused as refused:
            return await self._quarantined(index, incoming, (Finding("", "refused", refused.code),))
        except Unclaimed as unclaimed:
            id_ = await records.kept(
                self._pool, self._vault, index, incoming, "unclaimed", (), unclaimed.keys
            )
            self._counts.count(interface, Outcome.UNCLAIMED.value)
            return Taken(Outcome.UNCLAIMED, id_)
        except _WORTH_ANOTHER_TRY:
            raise
        except Exception as error:
            # A fault of ours, which the next try of the same message would meet again: it must not stop the
            # line. What the exception says may be the message's, so only what it is and where is told.
            log.error("%s: a message could not be used: %s at %s", interface, *_what_and_where(error))
            return await self._quarantined(index, incoming, (Finding("", "failed", type(error).__name__),))
        id_or_none = await records.accepted(self._pool, index, incoming)
        outcome = Outcome.DUPLICATE if id_or_none is None else Outcome.ACCEPTED
        self._counts.count(interface, outcome.value)
        return Taken(outcome, records.id_of(index))

    async def _quarantined(self, index: bytes, incoming: Incoming, reasons: tuple[Finding, ...]) -> Taken:
        id_ = await records.kept(self._pool, self._vault, index, incoming, "quarantined", reasons)
        self._counts.count(incoming.interface, Outcome.QUARANTINED.value)
        for rule in {one.rule for one in reasons}:
            self._counts.found(incoming.interface, rule)
        log.error(
            "%s: message %s is in quarantine: %s; see `xinglin intake show`",
            incoming.interface,
            UUID(bytes=id_),
            "; ".join(f"{one.field} {one.rule}".strip() for one in reasons[:5]),
        )
        return Taken(Outcome.QUARANTINED, id_, reasons)

    async def _tried(self, due: Due) -> None:
        try:
            contents = await records.contents(self._pool, self._vault, due.id)
        except VaultFailed as failed:
            log.error("%s: message %s cannot be opened: %s", due.interface, UUID(bytes=due.id), failed)
            return
        if contents is None or contents.body is None:
            await records.not_now(self._pool, due.id)  # what cannot be read has to be sent anew
            return
        async with self._turn(due.index):
            look = await records.look(self._pool, due.interface, due.index, due.aggregate)
            if look.known is None or look.known.state not in ("quarantined", "unclaimed"):
                return
            await self._follow_rules(look.rules_version)
            if look.is_behind:
                await records.not_now(self._pool, due.id)
                return
            incoming = Incoming(
                due.interface, contents.message_id, due.digest, due.aggregate, contents, self._now()
            )
            try:
                await self._used(due.index, incoming, self._uses[due.interface])
            except _WORTH_ANOTHER_TRY as error:
                # The lease runs out, and it is tried again.
                log.warning(
                    "%s: message %s is tried again later: %s",
                    due.interface,
                    UUID(bytes=due.id),
                    type(error).__name__,
                )

    async def _follow_rules(self, version: int) -> None:
        """The hospital's own, as soon as they are in force."""
        if version == self._rules_version:
            return
        record = await records.rules_in_force(self._pool)
        try:
            self._rules = default_rules() if record is None else read_rules(record.text, default_rules())
        except RulesRefused as refused:
            log.error("the intake's rules in force cannot be read, so those before stay: %s", refused)
        self._rules_version = version

    def _digest(self, contents: Contents) -> bytes:
        """Of what was read, so that a message sent again with another time in its header is the same."""
        if contents.body is None:
            said = contents.raw.hex()
        else:
            said = orjson.dumps(contents.body, option=orjson.OPT_SORT_KEYS).decode()
        return self._vault.index("intake_message.digest", said)

    @asynccontextmanager
    async def _turn(self, index: bytes) -> AsyncIterator[None]:
        """One at a time for one message, within this process."""
        turn = self._turns.setdefault(index, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(index, None)


_WORTH_ANOTHER_TRY: Final = (
    TryAgain,
    OutcomeUnknown,
    OSError,
    TimeoutError,
    VaultBehind,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError,
)


def _what_and_where(error: Exception) -> tuple[str, str]:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return type(error).__name__, where
