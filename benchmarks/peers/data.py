"""What every peer books: doctors with so many seats that a run never sells out, and patients enough for one
number each. Written with SQL, the same rows for all."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import orjson

from engine.domain.planning import PlannedSlot, Session, plan_as_data
from web.auth import Tokens

ACCOUNTS = 40_000
PATIENTS_PER_ACCOUNT = 10  # what an account may have; they book one after the other, as a family does
SLOTS_PER_DAY = 16
CAPACITY = 9_000


@dataclass(frozen=True, slots=True)
class People:
    """Every patient with a token of the account that may book for it."""

    tokens: list[str]  # by account
    patients: list[tuple[int, str]]  # (account number, patient id)


def _uuid(kind: int, number: int) -> str:
    return f"{kind:08x}-0000-7000-8000-{number:012x}"


def account_id(account: int) -> bytes:
    """Of the account with this number."""
    return bytes.fromhex(_uuid(1, account).replace("-", ""))


async def prepare(connection: asyncpg.Connection, secret: bytes) -> People:
    """Accounts, patients, and the hospital's frame. Schedules: see `open_schedules`."""
    now = datetime.now(UTC)
    signer = Tokens(secret, 7_200, 7_200)
    accounts = [_uuid(1, n) for n in range(ACCOUNTS)]
    patients = [(n // PATIENTS_PER_ACCOUNT, _uuid(2, n)) for n in range(ACCOUNTS * PATIENTS_PER_ACCOUNT)]
    async with connection.transaction():
        await connection.execute(
            "insert into hospital (name, timezone) values ('Benchmark', 'Asia/Shanghai')"
        )
        await connection.execute(
            "insert into department (id, name, campus, position) values ('bench', 'Bench', 'main', 1)"
        )
        await connection.copy_records_to_table(
            "account",
            records=[(a, f"bench-{n}", now) for n, a in enumerate(accounts)],
            columns=["id", "openid", "created_at"],
        )
        await connection.copy_records_to_table(
            "patient",
            records=[(p, "passport", now) for _, p in patients],
            columns=["id", "id_type", "created_at"],
        )
        await connection.copy_records_to_table(
            "account_patient",
            records=[(accounts[a], p, "self", now) for a, p in patients],
            columns=["account_id", "patient_id", "relation", "created_at"],
        )
    await connection.execute("analyze")
    tokens = [signer.issue(bytes.fromhex(a.replace("-", ""))).access_token for a in accounts]
    return People(tokens, patients)


async def open_schedules(
    connection: asyncpg.Connection,
    prefix: str,
    doctors: int,
    day: date,
    capacity: int = CAPACITY,
    department: str = "bench",
) -> list[str]:
    """Slot ids of so many doctors on one day. Marked as opened, so that no publishing takes them away."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    slots = []
    for n in range(SLOTS_PER_DAY):
        start = midnight + timedelta(minutes=30 * n)
        clock = (start + timedelta(hours=8)).strftime("%H%M")
        slots.append(PlannedSlot(clock, int(start.timestamp() * 1000), capacity))
    plan = orjson.dumps(plan_as_data((Session("morning", department, "expert", None, 5000, tuple(slots)),)))
    ids = [f"{prefix}{n:05}" for n in range(doctors)]
    async with connection.transaction():
        await connection.executemany(
            "insert into practitioner (id, name, title, department_id, position)"
            " values ($1, $1, 'chief', $2, 1) on conflict do nothing",
            [(i, department) for i in ids],
        )
        await connection.executemany(
            "insert into schedule (id, practitioner_id, day, plan, opened)"
            " values ($1, $2, $3, $4::jsonb, true)",
            [(f"{i}-{day:%Y%m%d}", i, day, plan.decode()) for i in ids],
        )
        version = await connection.fetchval(
            "update catalog_version set version = version + 1 returning version"
        )
        await connection.execute("select pg_notify('catalog', $1)", str(version))
    return [f"{i}-{day:%Y%m%d}-{slot.clock}" for i in ids for slot in slots]


class Requests:
    """Files of requests for wrk. Each patient is used once in a day, so no run stands in another's way."""

    def __init__(self, people: People, folder: Path) -> None:
        self._people = people
        self._folder = folder
        (folder / "tokens").write_text("\n".join(people.tokens) + "\n")

    def write(self, name: str, slot_ids: list[str], count: int) -> Path:
        """Lines of `account number, slot, patient`: slots in turn, spread so that neighbours differ."""
        people = self._people.patients[:count]
        step = 7919  # a prime, so that slots come in no order
        file = self._folder / name
        file.write_text(
            "".join(
                f"{account} {slot_ids[n * step % len(slot_ids)]} {patient}\n"
                for n, (account, patient) in enumerate(people)
            )
        )
        return file
