"""Brings a checked hospital into PostgreSQL: as a whole or not at all.

The tables then say what the files say, so a second run changes nothing; days that people have booked keep
their plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from typing import Final

import asyncpg

from engine.records.catalog import write_schedules
from engine.records.catalog_version import announce_change, lock_catalog
from engine.records.hospital_file import HospitalFiles
from engine.records.hospital_rules import (
    DEPARTMENTS,
    HOSPITAL,
    OVERRIDES,
    PRACTITIONERS,
    ROOMS,
    TEMPLATES,
    FileError,
    ImportRefused,
)
from engine.records.policies import policy_in_force, write_policy


@dataclass(frozen=True, slots=True)
class Changes:
    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


@dataclass(frozen=True, slots=True)
class ImportReport:
    tables: Mapping[str, Changes]  # by the name of the table
    schedules: int  # published days that were added, rewritten or taken away
    kept: int  # days the files would change, but people have booked: they keep their plan

    @property
    def changes(self) -> int:
        return sum(table.total for table in self.tables.values()) + self.schedules


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    file: str
    key: int  # so many columns, from the first, are the primary key
    columns: tuple[tuple[str, str], ...]  # name and PostgreSQL's type; in the order of the dataclass's fields


def _table(name: str, file: str, key: int, columns: str) -> _Table:
    words = columns.split()
    return _Table(name, file, key, tuple(zip(words[::2], words[1::2], strict=True)))


_HOSPITAL = _table("hospital", HOSPITAL, 0, "name text  name_en text  timezone text")
_NUMBER_CLASS = _table("number_class", HOSPITAL, 1, "id text  name text  fee_fen int")
_CAMPUS = _table("campus", HOSPITAL, 1, "name text  latitude float8  longitude float8  position int")
_HOLIDAY = _table("holiday", HOSPITAL, 1, "day date  name text  works_as smallint")
_DEPARTMENT = _table(
    "department",
    DEPARTMENTS,
    1,
    "id text  parent_id text  name text  name_en text  campus text  location text  intro text"
    "  sex text  age_min int  age_max int  position int",
)
_PRACTITIONER = _table(
    "practitioner",
    PRACTITIONERS,
    1,
    "id text  name text  title text  department_id text  specialty text  intro text  position int",
)
_ROOM = _table("room", ROOMS, 1, "id text  name text  department_id text")
_TEMPLATE = _table(
    "session_template",
    TEMPLATES,
    3,
    "practitioner_id text  weekday smallint  period text  starts time  ends time  capacity smallint"
    "  number_class_id text  department_id text  room_id text  fee_fen int",
)
_OVERRIDE = _table(
    "session_override",
    OVERRIDES,
    3,
    "practitioner_id text  day date  period text  closed boolean  starts time  ends time  capacity smallint",
)
_ENTITIES: Final = (_ROOM, _PRACTITIONER, _DEPARTMENT, _NUMBER_CLASS)  # in the order they can be deleted


async def import_hospital(
    connection: asyncpg.Connection, files: HospitalFiles, first_day: date, publish_days: int
) -> ImportReport:
    """Makes the database say what `files` say and publishes from `first_day` (the hospital's today) on.

    One transaction. Raises ImportRefused, with nothing changed, when something that is gone from the files
    is still needed, say by a day that people have booked.
    """
    async with connection.transaction():
        return await _import(connection, files, first_day, publish_days)


async def _import(
    connection: asyncpg.Connection, files: HospitalFiles, first_day: date, publish_days: int
) -> ImportReport:
    await lock_catalog(connection)
    tables: dict[str, Changes] = {}
    gone: dict[str, list[tuple[object, ...]]] = {}
    for table, rows in (
        (_HOSPITAL, (files.hospital,)),
        (_CAMPUS, files.campuses),
        (_NUMBER_CLASS, files.number_classes),
        (_HOLIDAY, files.holidays),
        (_DEPARTMENT, files.departments),
        (_PRACTITIONER, files.practitioners),
        (_ROOM, files.rooms),
        (_TEMPLATE, files.templates),
        (_OVERRIDE, files.overrides),
    ):
        tables[table.name], gone[table.name] = await _write(connection, table, [astuple(r) for r in rows])
    for table in (_CAMPUS, _HOLIDAY, _TEMPLATE, _OVERRIDE):  # nothing refers to these
        await _remove(connection, table, gone[table.name])

    ids = {table.name: [str(key[0]) for key in gone[table.name]] for table in _ENTITIES}
    await _refuse_what_is_booked(connection, ids)
    tables["policy"] = await _write_policy(connection, files.policy)
    published = await write_schedules(connection, first_day, publish_days)
    # Days before first_day that nobody ever opened.
    await connection.execute(
        "delete from schedule where practitioner_id = any ($1) and not opened", ids["practitioner"]
    )
    for table in _ENTITIES:
        try:
            await _remove(connection, table, gone[table.name])
        except asyncpg.ForeignKeyViolationError as error:
            # Tables of other subjects may refer to the catalog too; PostgreSQL's own words name them.
            reason = f"what is gone from this file is still needed, put it back: {error.detail}"
            raise ImportRefused([FileError(table.file, 0, reason)]) from error

    report = ImportReport(tables, published.changed, published.kept)
    if report.changes:
        await announce_change(connection)
    return report


async def _write_policy(connection: asyncpg.Connection, text: str | None) -> Changes:
    """A hospital without policy.yaml keeps the policy that is in force."""
    if text is None:
        return Changes()
    first = await policy_in_force(connection) is None
    changed = await write_policy(connection, text, "xinglin import")
    return Changes(added=int(changed and first), changed=int(changed and not first))


async def _write(
    connection: asyncpg.Connection, table: _Table, wanted: Sequence[tuple[object, ...]]
) -> tuple[Changes, list[tuple[object, ...]]]:
    """Inserts and updates what differs, and tells the keys that are no longer wanted."""
    columns = [column for column, _ in table.columns]
    names = ", ".join(columns)
    rows = await connection.fetch(f"select {names} from {table.name}")
    have = {tuple(row)[: table.key]: tuple(row) for row in rows}
    want = {row[: table.key]: row for row in wanted}
    different = [row for key, row in want.items() if have.get(key) != row]
    gone = [key for key in have if key not in want]
    if different:
        keys = ", ".join(columns[: table.key]) or "id"
        changes = ", ".join(f"{c} = excluded.{c}" for c in columns[table.key :])
        await connection.execute(
            f"insert into {table.name} ({names}) select * from unnest({_arrays(table.columns)})"
            f" on conflict ({keys}) do update set {changes}",
            *zip(*different, strict=True),
        )
    added = sum(1 for key in want if key not in have)
    return Changes(added, len(different) - added, len(gone)), gone


async def _remove(connection: asyncpg.Connection, table: _Table, keys: Sequence[tuple[object, ...]]) -> None:
    if not keys:
        return
    columns = table.columns[: table.key]
    names = ", ".join(column for column, _ in columns)
    same = " and ".join(f"t.{column} = gone.{column}" for column, _ in columns)
    await connection.execute(
        f"delete from {table.name} t using unnest({_arrays(columns)}) as gone ({names}) where {same}",
        *zip(*keys, strict=True),
    )


def _arrays(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(columns, start=1))


async def _refuse_what_is_booked(connection: asyncpg.Connection, gone: Mapping[str, list[str]]) -> None:
    """Opened days are patients' bookings: who and what they name must stay."""
    if not any(gone.values()):
        return
    # A plan's sessions are lists: 1 department, 2 number class, 3 room (planning.plan_as_data).
    rows = await connection.fetch(
        """
        select named.kind, named.id, min(s.id), count(distinct s.id)
          from schedule s, jsonb_array_elements(s.plan) as session,
               lateral (values ('practitioner', s.practitioner_id), ('department', session->>1),
                               ('number_class', session->>2), ('room', session->>3)) as named (kind, id)
         where s.opened
           and (named.kind = 'practitioner' and named.id = any ($1)
                or named.kind = 'department' and named.id = any ($2)
                or named.kind = 'number_class' and named.id = any ($3)
                or named.kind = 'room' and named.id = any ($4))
         group by named.kind, named.id order by named.kind, named.id
        """,
        *(gone[name] for name in ("practitioner", "department", "number_class", "room")),
    )
    errors = []
    for kind, id_, example, days in rows:
        file = next(table.file for table in _ENTITIES if table.name == kind)
        reason = f"{kind.replace('_', ' ')} {id_!r} is gone, but {days} day(s) with bookings need it, such as"
        reason += f" schedule {example}: put it back"
        if kind == "practitioner":
            reason += " (without templates no new days are published)"
        errors.append(FileError(file, 0, reason))
    if errors:
        raise ImportRefused(errors)
