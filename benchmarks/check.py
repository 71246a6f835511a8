"""After a run: was anything oversold, lost or doubled? Asked of SQL, not of what measured the run.

    python -m benchmarks.check --home DIR --url http://127.0.0.1:8080 --acked FILE

What people were promised comes from the file that the load wrote outside the system (see locustfile.py).
"""

import argparse
import asyncio
import json
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from web.audit import audit_url

_PENDING, _BOOKED, _CANCELLED = 1, 2, 5  # engine/domain/schedule.py Status; at most 4 holds its seat
_SHOWN_MAX: Final = 3

# The capacity as published, not as the booking itself remembers it; then twice the same seat.
_OVERSOLD: Final = """
with slot as (
    select s.id || '-' || (x.slot ->> 0) as id, (x.slot ->> 2)::int as capacity
      from schedule s, jsonb_array_elements(s.plan) as p (session),
           jsonb_array_elements(p.session -> 5) as x (slot)
     where s.opened),
live as (
    select slot_id, count(*) as taken, count(distinct seat) as seats
      from appointment where status <= 4 group by slot_id)
select l.slot_id, l.taken, l.seats, coalesce(s.capacity, 0) as capacity
  from live l left join slot s on s.id = l.slot_id
 where l.taken > coalesce(s.capacity, 0) or l.seats < l.taken
"""
# One person, twice at one time; or twice in a department on a day.
_DOUBLED: Final = """
with session as (
    select distinct s.id as schedule_id, s.day, p.session ->> 1 as department_id,
           s.id || '-' || (x.slot ->> 0) as slot_id
      from schedule s, jsonb_array_elements(s.plan) as p (session),
           jsonb_array_elements(p.session -> 5) as x (slot)
     where s.opened),
live as (
    select a.patient_id, a.starts_at, s.department_id, s.day
      from appointment a join session s using (slot_id)
     where a.status = 2 or (a.status <= 4 and a.hold_until > now()))
select patient_id::text || ' at ' || starts_at as what from live
 group by patient_id, starts_at having count(*) > 1
union all
select patient_id::text || ' in ' || department_id || ' on ' || day from live
 group by patient_id, department_id, day having count(*) > 1
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """All lists must be empty, the error 0."""

    promised: int  # bookings that were answered 201
    oversold: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    conservation_error: float = 0.0
    audit: list[str] = field(default_factory=list)
    """What `xinglin audit` would say: journal, tables and replayed state are not one story."""

    def faults(self) -> list[str]:
        """What is wrong, one line each, with examples."""
        found = [
            f"{len(examples)} {name}: {'; '.join(examples[:_SHOWN_MAX])}"
            for name, examples in (
                ("oversold", self.oversold),
                ("admitted bookings missing or changed", self.missing),
                ("doubled", self.doubled),
                ("audits failed", self.audit),
            )
            if examples
        ]
        if self.conservation_error:
            found.append(f"xinglin_conservation_error reads {self.conservation_error:g}, must be 0")
        return found


@dataclass(slots=True)
class Promise:
    """One booking as its patient knows it."""

    number: int
    slot_id: str
    patient_id: str
    statuses: set[int]
    """Any of these may be in SQL: a change that was asked for but not answered may have been done."""


def promises(lines: Iterable[str]) -> tuple[dict[str, Promise], list[str]]:
    """Each promised booking, and the Idempotency-Keys that were given two different ones."""
    found: dict[str, Promise] = {}
    of_key: dict[str, str] = {}
    twice = []
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        match said["said"]:
            case "held":
                if of_key.setdefault(said["key"], said["id"]) != said["id"]:
                    twice.append(f"key {said['key']} gave {of_key[said['key']]} and {said['id']}")
                found[said["id"]] = Promise(said["number"], said["slot_id"], said["patient_id"], {_PENDING})
            case "confirm asked":
                found[said["id"]].statuses.add(_BOOKED)
            case "cancel asked":
                found[said["id"]].statuses.add(_CANCELLED)
            case "change asked":
                found[said["id"]].statuses.add(_CANCELLED)
            case "changed":
                found[said["id"]].statuses = {_CANCELLED}
                found[said["new"]] = Promise(said["number"], said["slot_id"], said["patient_id"], {_BOOKED})
            case "booked":
                found[said["id"]].statuses = {_BOOKED}
            case "cancelled":
                found[said["id"]].statuses = {_CANCELLED}
            case other:
                raise ValueError(f"nobody says {other!r}")
    return found, twice


async def check(database_url: str, acked: Path, metrics: str) -> Findings:
    """`metrics` is the text of /metrics. Holds must still run: check before they expire."""
    with acked.open(encoding="utf-8") as lines:
        promised, twice = promises(lines)
    connection = await asyncpg.connect(database_url)
    try:
        oversold = [
            f"{row['slot_id']} gave {row['taken']} numbers ({row['seats']} seats) of {row['capacity']}"
            for row in await connection.fetch(_OVERSOLD)
        ]
        doubled = [row["what"] for row in await connection.fetch(_DOUBLED)]
        rows = await connection.fetch(
            "select id, number, slot_id, patient_id, status from appointment where id = any ($1::uuid[])",
            list(promised),
        )
    finally:
        await connection.close()
    return Findings(
        len(promised),
        oversold,
        _missing(promised, {str(UUID(str(row["id"]))): row for row in rows}),
        twice + doubled,
        sum(values_of(metrics, "xinglin_conservation_error")),
        [
            f"{c.name}: {c.faults} of {c.examined}, {'; '.join(c.examples)}"
            for c in await audit_url(database_url)
            if not c.ok
        ],
    )


def _missing(promised: dict[str, Promise], rows: dict[str, asyncpg.Record]) -> list[str]:
    found = []
    for appointment_id, promise in promised.items():
        row = rows.get(appointment_id)
        if row is None:
            found.append(f"{appointment_id} is not there")
            continue
        have = (row["number"], row["slot_id"], str(row["patient_id"]))
        said = (promise.number, promise.slot_id, promise.patient_id)
        if have != said:
            found.append(f"{appointment_id} was promised as {said}, is {have}")
        elif row["status"] not in promise.statuses:
            found.append(f"{appointment_id} was promised with status {promise.statuses}, has {row['status']}")
    return found


def values_of(metrics: str, name: str) -> list[float]:
    """Every sample of that name, of all processes."""
    return [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name
    ]


def database_url(home: Path) -> str:
    """Of the embedded PostgreSQL that serves `home` right now."""
    port = (home / "postgres" / "postmaster.pid").read_text().splitlines()[3]
    password = (home / "postgres.password").read_text().strip()
    return f"postgresql://xinglin:{password}@127.0.0.1:{port}/xinglin"


def metrics_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--acked", type=Path, required=True)
    options = parser.parse_args()
    findings = asyncio.run(check(database_url(options.home), options.acked, metrics_of(options.url)))
    print(f"{findings.promised} bookings were promised")
    for fault in findings.faults():
        print(fault, file=sys.stderr)
    sys.exit(bool(findings.faults()))


if __name__ == "__main__":
    main()
