"""How fast seats come back, learned from the appointment table."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from engine.domain.odds import ASSUMED, NOTHING_SEEN, PRIOR_HOURS, STRETCHES, Returns, Seen, learn
from engine.domain.schedule import Status
from engine.views.returns import load_returns

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        yield pool


async def seat(
    pool: asyncpg.Pool,
    began: float,
    ended: float | None = None,
    reason: str | None = None,
    status: Status = Status.FULFILLED,
    of: str = "expert",
    visit: datetime = NOW - 48 * HOUR,
) -> None:
    """Held from `began` until `ended` hours before the visit (None: kept)."""
    updated = visit - (ended or 0) * HOUR
    await pool.execute(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        "  status, reason, fee_fen, starts_at, hold_until, created_at, updated_at, number_class_id)"
        " values ($1, 's', $2, 0, 1, 1, $1, $1, $3, $4, 0, $5, $6, $7, $8, $9)",
        uuid4(),
        str(uuid4()),
        status,
        reason,
        visit,
        visit - began * HOUR,
        visit - began * HOUR - timedelta(minutes=15),
        updated,
        of,
    )


def rate(returns: int, hours: float, towards: float) -> float:
    return (returns + PRIOR_HOURS * towards) / (hours + PRIOR_HOURS)


async def test_an_empty_table_says_nothing(pool: asyncpg.Pool) -> None:
    assert await load_returns(pool) == Returns(ASSUMED, {})


async def test_each_stretch_counts_its_hours_and_returns(pool: asyncpg.Pool) -> None:
    cancelled = Status.CANCELLED
    await seat(pool, 30)  # 6 h of the stretch from 24 to 48, then all that is nearer
    await seat(pool, 100, 40, "cancelled", cancelled)  # 4 h beyond 96, 48, and 8; comes back there
    await seat(pool, 20, 5, "changed", cancelled)
    await seat(pool, 20, 19, "expired", cancelled)  # it was never booked
    await seat(pool, 20, 10, "suspended", cancelled)  # a seat for nobody: its hours count alone
    await seat(pool, 50, status=Status.NOSHOW)
    hours = [0.0] * len(ASSUMED)
    for began, ended in ((30, 0), (100, 40), (20, 5), (20, 10), (50, 0)):
        for n in range(len(ASSUMED)):
            hours[n] += max(0.0, min(STRETCHES[n + 1], began) - max(STRETCHES[n], ended))
    returns = [0, 1, 0, 0, 1, 0, 0, 0]  # 5 h before is in the stretch from 2, 40 h in that from 24
    learned = await load_returns(pool)
    for n in range(len(ASSUMED)):
        assert learned.everywhere[n] == pytest.approx(rate(returns[n], hours[n], ASSUMED[n]), rel=1e-6), n
    assert learned.of("expert")[1] == pytest.approx(rate(1, hours[1], learned.everywhere[1]), rel=1e-6)
    assert learned.of("ordinary") == learned.everywhere


async def test_classes_are_learned_apart_and_seats_still_held_count_so_far(pool: asyncpg.Pool) -> None:
    ahead = NOW + 24 * HOUR
    await seat(pool, 48, of="expert", status=Status.BOOKED, visit=ahead)
    await seat(pool, 48, 30, "cancelled", Status.CANCELLED, of="special")
    learned = await load_returns(pool)
    n = STRETCHES.index(24.0)
    expected = learn(
        {
            "expert": Seen((0.0,) * n + (24.0,) + (0.0,) * (len(ASSUMED) - n - 1), NOTHING_SEEN.returns),
            "special": Seen(
                (0.0,) * n + (18.0,) + (0.0,) * (len(ASSUMED) - n - 1),
                (0,) * n + (1,) + (0,) * (len(ASSUMED) - n - 1),
            ),
        }
    )
    assert learned.of("expert") == pytest.approx(expected.of("expert"), rel=1e-3)
    assert learned.of("special") == pytest.approx(expected.of("special"), rel=1e-3)
    assert learned.of("special")[n] > learned.of("expert")[n]
