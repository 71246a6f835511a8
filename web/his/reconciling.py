"""Our numbers of a day beside the HIS's list of it: what a rule is clear for is healed, the rest is listed.

Whose number it is decides. Of ours they are told again what is so; of theirs we follow them. A number of ours
that they cancelled without a word is listed: somebody may stand at the window with it. Places that are kept
there for nobody here are given back. After each healing both sides are asked once more; only what is then the
same counts as healed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge

from actors.changes import ms
from engine.domain.his_rules import Difference, Differs, Listed, Phase, compare
from engine.domain.intake import Unfit
from engine.domain.policy import Channel
from engine.domain.schedule import Status as OurStatus
from engine.records import his as records
from engine.records import his_codes, his_differences
from engine.records.his import Kept
from engine.records.his_codes import Codes
from engine.records.his_differences import RunRow, subject_of
from integrations.connector import Refused
from integrations.his.his import His, Registration
from web.his import states
from web.his.hearing import Hearing, evidence_of
from web.his.telling import Restless, Telling

log = logging.getLogger(__name__)

NIGHT_HOUR: Final = 1  # of the hospital's clock
AHEAD_DAYS: Final = 14


class Figures:
    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.found = Counter(
            "xinglin_his_differences_found", "Differences with the HIS", ["kind"], registry=registry
        )
        self.healed = Counter(
            "xinglin_his_differences_healed", "Of these, healed by rule", ["kind"], registry=registry
        )
        self.open = Gauge("xinglin_his_differences_open", "That somebody must look at", registry=registry)
        self.days = Counter("xinglin_his_days_compared", "Days compared with the HIS", registry=registry)


@dataclass(frozen=True, slots=True)
class Reconciling:
    pool: asyncpg.Pool
    his: His
    telling: Telling
    hearing: Hearing
    zone: ZoneInfo
    figures: Figures

    async def compare(self, day: date) -> RunRow:
        """Raises TryAgain and OutcomeUnknown where they cannot be asked now."""
        began = datetime.now(UTC)
        codes = await his_codes.load(self.pool)
        theirs = await self.his.registrations(day)
        midnight = datetime.combine(day, time.min, self.zone)
        numbers = await records.numbers_of(self.pool, midnight, midnight + timedelta(days=1))
        listed = [_listed(one, codes) for one in theirs]
        matched, found = compare([(one.ours, one.believed, one.his_id) for one in numbers], listed)
        by_id = {one.ours.id: one for one in numbers}
        by_his_id = {one.his_id: one for one in theirs}
        healed, left = 0, list[tuple[Differs, str]]()
        for n, one in enumerate(found):
            kept = None if one.id is None else by_id.get(one.id)
            told = None if one.his_id is None else by_his_id.get(one.his_id)
            if one.kind is Differs.MISSING_HERE and await self._is_newer(one):
                continue
            self.figures.found.labels(one.kind.value).inc()
            subject = subject_of(one.id, one.his_id)
            evidence = _evidence(kept, told)
            how, why = await self._heal(one, kept, told, f"x{day:%y%m%d}{began:%H%M%S}{n:x}")
            if how:
                healed += 1
                self.figures.healed.labels(one.kind.value).inc()
                now = datetime.now(UTC)
                await his_differences.note_healed(self.pool, day, one.kind, subject, evidence, how, now)
                continue
            left.append((one.kind, subject))
            evidence = evidence if why is None else {**evidence, "tried": why}
            await his_differences.note(self.pool, day, one.kind, subject, evidence, datetime.now(UTC))
        await self._close_what_is_over(day, began, left)
        run = RunRow(day, began, datetime.now(UTC), len(numbers), len(theirs), matched, healed, len(left))
        await his_differences.keep_run(self.pool, run)
        self.figures.days.inc()
        await self.count()
        return run

    async def count(self) -> None:
        self.figures.open.set(await his_differences.open_count(self.pool))

    async def _close_what_is_over(
        self, day: date, began: datetime, left: Sequence[tuple[Differs, str]]
    ) -> None:
        await his_differences.close_others(self.pool, day, left, began)

    async def _is_newer(self, one: Difference) -> bool:
        """Given here after our list was read."""
        kept = None if one.id is None else await records.by_id(self.pool, one.id)
        return kept is not None and kept.ours.status in (OurStatus.PENDING, *states.COUNTS)

    async def _heal(
        self, one: Difference, kept: Kept | None, told: Registration | None, message_id: str
    ) -> tuple[str, str | None]:
        """What was done, if both sides are now the same; else why it was not."""
        try:
            how = await self._try(one, kept, told, message_id)
        except (Refused, Unfit, Restless) as failed:
            return "", _code(failed)
        if not how:
            return "", None
        return (how, None) if await self._is_same(one, kept, told) else ("", f"{how}, and still differs")

    async def _try(
        self, one: Difference, kept: Kept | None, told: Registration | None, message_id: str
    ) -> str:
        """ "": no rule is clear."""
        if one.kind is Differs.DOUBLED:
            return ""
        if one.kind is Differs.MISSING_HERE:
            assert told is not None
            return await self._take_in(told)
        assert kept is not None
        is_theirs = kept.ours.channel == Channel.HIS
        phase = Phase.GONE if told is None else states.phase_of(told.status)
        is_live = kept.ours.status in states.COUNTS
        if told is not None and is_live and phase is Phase.GONE and not is_theirs:
            return ""  # cancelled there, without a word
        follows = told is not None and is_live and (is_theirs or states.knows_more(phase, kept.ours.status))
        if follows and one.kind in (Differs.STATE, Differs.TIME):
            assert told is not None
            await self.hearing.take_in(told)
            return "taken over"
        root = await self._root(kept)
        await self.telling.look(root)
        await self.telling.settle(root, message_id)
        return "told again"

    async def _take_in(self, told: Registration) -> str:
        if told.booking_id is not None:
            # Ours, they say; but nobody has it here any more.
            await self.his.unlock(told.booking_id)
            return "given back" if states.phase_of(told.status) is Phase.LOCKED else ""
        if told.person is None or states.phase_of(told.status) is Phase.LOCKED:
            return ""
        await self.hearing.take_in(told)
        return "taken in"

    async def _root(self, kept: Kept) -> bytes:
        async with self.pool.acquire() as connection:
            return (await records.roots(connection, [kept.ours.id])).get(kept.ours.id, kept.ours.id)

    async def _is_same(self, one: Difference, kept: Kept | None, told: Registration | None) -> bool:
        """Asks both sides once more."""
        if kept is None or kept.ours.channel == Channel.HIS:
            return told is None or await self._is_followed(told)
        now = await records.by_id(self.pool, kept.ours.id)
        assert now is not None
        found = await self.his.find(kept.ours.id.hex())
        codes = await his_codes.load(self.pool)
        listed = [] if found is None else [_listed(found, codes)]
        _, again = compare([(now.ours, now.believed, now.his_id)], listed)
        return not again

    async def _is_followed(self, told: Registration) -> bool:
        """Of a registration of theirs, or a place that was kept for nobody."""
        if told.booking_id is not None and await self.hearing.known(told) is None:
            found = await self.his.find(told.booking_id)
            return found is None or states.phase_of(found.status) is Phase.GONE
        known = await self.hearing.known(told)
        is_live = known is not None and known.ours.status in states.COUNTS
        if known is None or not is_live or states.phase_of(told.status) is Phase.GONE:
            return not is_live and states.phase_of(told.status) is Phase.GONE
        listed = [_listed(told, await his_codes.load(self.pool))]
        _, again = compare([(known.ours, known.believed, known.his_id)], listed)
        return not again


def _listed(one: Registration, codes: Codes) -> Listed:
    try:
        booking_id = None if one.booking_id is None else bytes.fromhex(one.booking_id)
    except ValueError:
        booking_id = None
    return Listed(
        one.his_id,
        booking_id if booking_id is None or len(booking_id) == 16 else None,
        states.phase_of(one.status),
        codes.to_ours("practitioner", one.practitioner) if one.practitioner else "",
        ms(one.starts_at),
        one.number,
    )


def _evidence(kept: Kept | None, told: Registration | None) -> Mapping[str, Any]:
    """Both sides, as they were found: codes, times, numbers and states."""
    evidence: dict[str, Any] = {}
    if kept is not None:
        evidence |= {
            "ours": states.word_of(kept.ours.status),
            "slot_id": kept.ours.slot_id,
            "number": kept.ours.number,
            "department_id": kept.department_id,
        }
    return evidence if told is None else {**evidence, **evidence_of(told)}


def _code(failed: Exception) -> str:
    match failed:
        case Refused():
            return failed.code
        case Unfit():
            return f"{failed.finding.field} {failed.finding.rule}"
        case _:
            return "both sides talk past one another"
