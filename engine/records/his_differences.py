"""What we and the HIS say differently, and the days that were compared. Ids, codes, times: nobody's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import asyncpg
import orjson

from engine.domain.his_rules import Differs

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

_COLUMNS: Final = (
    "id, day, kind, subject, state, evidence::text as evidence, found_at, last_at, times, ended_at, ended_by,"
    " ended_why"
)


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    id: int
    day: date
    kind: str
    subject: str
    state: str
    evidence: Mapping[str, Any]
    found_at: datetime
    last_at: datetime
    times: int
    ended_at: datetime | None
    ended_by: str | None
    ended_why: str | None


@dataclass(frozen=True, slots=True)
class RunRow:
    day: date
    began_at: datetime
    ended_at: datetime
    ours: int
    theirs: int
    matched: int
    healed: int
    left_open: int


def subject_of(appointment_id: bytes | None, his_id: str | None) -> str:
    return f"his:{his_id}" if appointment_id is None else appointment_id.hex()


async def note(
    executor: Executor, day: date, kind: Differs, subject: str, evidence: Mapping[str, Any], now: datetime
) -> None:
    """Found, or found again."""
    await executor.execute(
        "insert into his_difference (day, kind, subject, state, evidence, found_at, last_at)"
        " values ($1, $2, $3, 'open', $4::text::jsonb, $5, $5)"
        " on conflict (day, kind, subject) where state = 'open' do update"
        "   set evidence = excluded.evidence, last_at = excluded.last_at, times = his_difference.times + 1",
        day,
        kind.value,
        subject,
        orjson.dumps(dict(evidence)).decode(),
        now,
    )


async def note_healed(
    executor: Executor,
    day: date,
    kind: Differs,
    subject: str,
    evidence: Mapping[str, Any],
    how: str,
    now: datetime,
) -> None:
    """Found, and mended by rule in the same round."""
    closed = await executor.fetchval(
        "update his_difference set state = 'healed', last_at = $5, ended_at = $5, ended_by = '',"
        " ended_why = $4 where day = $1 and kind = $2 and subject = $3 and state = 'open' returning id",
        day,
        kind.value,
        subject,
        how,
        now,
    )
    if closed is None:
        await executor.execute(
            "insert into his_difference (day, kind, subject, state, evidence, found_at, last_at, ended_at,"
            " ended_by, ended_why) values ($1, $2, $3, 'healed', $4::text::jsonb, $5, $5, $5, '', $6)",
            day,
            kind.value,
            subject,
            orjson.dumps(dict(evidence)).decode(),
            now,
            how,
        )


async def close_others(
    executor: Executor, day: date, found: Sequence[tuple[Differs, str]], now: datetime
) -> None:
    """What a whole comparison of the day has not found again is no difference any more."""
    await executor.execute(
        "update his_difference set state = 'healed', ended_at = $4, ended_by = '', ended_why = 'gone'"
        " where day = $1 and state = 'open' and last_at < $4"
        "   and not ((kind, subject) in (select * from unnest($2::text[], $3::text[])))",
        day,
        [kind.value for kind, _ in found],
        [subject for _, subject in found],
        now,
    )


async def settle(executor: Executor, id_: int, by: str, why: str, now: datetime) -> date | None:
    """Somebody has seen to it; its day. None: there is none, or it is over."""
    day: date | None = await executor.fetchval(
        "update his_difference set state = 'settled', ended_at = $2, ended_by = $3, ended_why = $4"
        " where id = $1 and state = 'open' returning day",
        id_,
        now,
        by,
        why,
    )
    return day


async def differences(
    executor: Executor, day: date | None, only_open: bool, before: int | None, limit: int
) -> list[DifferenceRow]:
    """The newest first."""
    rows = await executor.fetch(
        f"select {_COLUMNS} from his_difference where ($1::date is null or day = $1)"
        " and (not $2 or state = 'open') and ($3::bigint is null or id < $3) order by id desc limit $4",
        day,
        only_open,
        before,
        limit,
    )
    return [DifferenceRow(**{**row, "evidence": orjson.loads(row["evidence"])}) for row in rows]


async def open_count(executor: Executor) -> int:
    return int(await executor.fetchval("select count(*) from his_difference where state = 'open'"))


async def keep_run(executor: Executor, run: RunRow) -> None:
    await executor.execute(
        "insert into his_run (day, began_at, ended_at, ours, theirs, matched, healed, left_open)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        run.day,
        run.began_at,
        run.ended_at,
        run.ours,
        run.theirs,
        run.matched,
        run.healed,
        run.left_open,
    )


async def runs(executor: Executor, day: date | None, limit: int) -> list[RunRow]:
    """The newest first."""
    rows = await executor.fetch(
        "select day, began_at, ended_at, ours, theirs, matched, healed, left_open from his_run"
        " where ($1::date is null or day = $1) order by id desc limit $2",
        day,
        limit,
    )
    return [RunRow(*row) for row in rows]
