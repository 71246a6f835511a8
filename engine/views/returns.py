"""How fast taken seats come back here, by number class and hours before the visit: learned from SQL.

A seat counts from the end of its hold on: before that it was perhaps never meant. It comes back when it is
cancelled or changed; what the hospital called off gives no seat to anybody.
"""

from typing import Final

import asyncpg

from engine.domain.odds import STRETCHES, Returns, Seen, learn

ROWS_MAX: Final = 50_000  # a sample is enough, and no gateway waits for more
DAYS: Final = 60
_FAR: Final = 24 * 366  # hours: where the last stretch ends for PostgreSQL

_SEEN: Final = """
with seat as (
    select number_class_id, starts_at,
           coalesce(hold_until, created_at) as began,
           least(case when status = 5 then updated_at else now() end, starts_at) as ended,
           status = 5 and updated_at < starts_at and reason in ('cancelled', 'changed') as returned
      from appointment tablesample system ($1) repeatable (0)
     where starts_at > now() - make_interval(days => $2) and reason is distinct from 'expired'
)
select s.number_class_id, b.n,
       sum(greatest(0, extract(epoch from least(s.ended, s.starts_at - b.near)
                                          - greatest(s.began, s.starts_at - b.far))) / 3600)::float8 as hours,
       count(*) filter (where s.returned and s.ended <= s.starts_at - b.near
                          and s.ended > s.starts_at - b.far)::int as returns
  from seat s cross join (select near * interval '1 hour' as near, far * interval '1 hour' as far, n
                            from unnest($3::float8[], $4::float8[]) with ordinality as u (near, far, n)) b
 where s.began < s.ended
 group by 1, 2"""


async def load_returns(pool: asyncpg.Pool) -> Returns:
    about = await pool.fetchval(
        "select greatest(reltuples, 1) from pg_class where oid = 'appointment'::regclass"
    )
    rows = await pool.fetch(
        _SEEN, min(100.0, 100.0 * ROWS_MAX / about), DAYS, STRETCHES[:-1], [*STRETCHES[1:-1], _FAR]
    )
    hours: dict[str, list[float]] = {}
    returns: dict[str, list[int]] = {}
    for row in rows:
        of, n = row["number_class_id"], row["n"] - 1
        hours.setdefault(of, [0.0] * (len(STRETCHES) - 1))[n] = row["hours"]
        returns.setdefault(of, [0] * (len(STRETCHES) - 1))[n] = row["returns"]
    return learn({of: Seen(tuple(hours[of]), tuple(returns[of])) for of in hours})
