"""Who a patient is stands nowhere but in the gateways' memory: not in a dump, the data files, the WAL, the
logs, nor in what shards and PostgreSQL hold in memory."""

import asyncio
import base64
import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest

from benchmarks.check import database_url
from engine import embedded_postgres
from engine.records.identity import check_digit
from tests.integration.test_api import Hospital, Person
from tests.integration.test_desk_appointments import day_of
from tests.integration.test_desk_schedules import Colleague
from tests.support.searching import Search, file, memory, spellings
from tests.support.system import System

SIGNS = "龘靐齉爩鱻麤龗灪吁籲"  # nobody's name, and in nobody's dictionary


def numbered(born: date) -> str:
    first = f"110105{born:%Y%m%d}{secrets.randbelow(900) + 100}"
    return first + check_digit(first)


@dataclass(frozen=True, slots=True)
class Planted:
    """People as they come, by telephone, at the window and at the triage desk, and all that was said."""

    hospital: Hospital
    words: tuple[str, ...]
    patient_id: str
    seen_by_shards: bytes


@pytest.fixture(scope="module")
def planted(system: System) -> Planted:
    hospital = Hospital(system)
    desk, nurse = Colleague(hospital, "demo-desk"), Colleague(hospital, "demo-nurse")
    name, her = (f"赵{''.join(secrets.choice(SIGNS) for _ in range(3))}" for _ in range(2))
    number, passport = numbered(date(1980, 2, 3)), f"Q{secrets.randbelow(10**9):09}"
    phone, hers = (f"139{secrets.randbelow(10**8):08}" for _ in range(2))
    appeal, called, measured, decided = (
        f"{word}{''.join(secrets.choice(SIGNS) for _ in range(4))}"
        for word in ("申诉", "电话", "主诉", "决定")
    )

    person = Person(hospital, hospital.token("vault-" + secrets.token_hex(6)))
    person.add(name=name, id_type="resident_id", id_number=number, phone=phone)
    day = day_of(hospital, "0304")
    held = person.hold(day["slots"][0]["id"], "vault").good(201)
    paid = {"provider": "at_hospital"}
    hospital.post(f"/api/v1/bills/{held['bill_id']}/payments", person.token, paid, "pay").good(201)
    at_window = {"name": her, "id_type": "passport", "id_number": passport, "phone": hers}
    at_window |= {"sex": "female", "birth_date": "1980-01-01"}
    told = desk.post("appointments", {"slot_id": day["slots"][1]["id"], "patient": at_window}).good(201)
    ring = {"outcome": "will_not_come", "note": called}
    desk.post(f"appointments/{told['id']}/calls", ring).good()
    walk_in = {"department_id": "0304", "person": at_window}
    ticket = hospital.post("/api/v1/walk-ins", desk.token, walk_in, str(uuid4())).good(201)
    path = f"/api/v1/tickets/{ticket['id']}/vitals"
    hospital.post(path, nurse.token, {"pulse": 71, "note": measured}, str(uuid4())).good(201)
    penalty = asyncio.run(penalised(system, person.patient_id, held["id"]))
    hospital.post(f"/api/v1/penalties/{penalty}/appeals", person.token, {"text": appeal}, "appeal").good(201)
    manager = Colleague(hospital, "demo-manager")
    manager.post(f"appeals/{penalty}/decision", {"decision": "uphold", "reason": decided}).good()
    # Everything is read back, so that whoever could hold on to it has seen it.
    assert hospital.get(path, nurse.token).good()["vitals"][0]["note"] == measured
    assert hospital.get(f"/api/v1/appointments/{held['id']}", person.token).good()["patient_name"] == name
    [penalised_] = hospital.get("/api/v1/penalties", person.token).good()["penalties"]
    assert penalised_["appeal"]["text"] == appeal
    words = (name, her, number, passport, phone, hers, appeal, called, measured, decided)
    return Planted(hospital, words, person.patient_id, UUID(person.patient_id).bytes)


async def penalised(system: System, patient_id: str, appointment_id: str) -> str:
    connection = await asyncpg.connect(database_url(system.home))
    now, id_ = datetime.now(UTC), uuid4()
    await connection.execute(
        "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
        " values ($1, 'patient', $2, 'three_no_shows', 'no_show', $3, $4, $5, $3)",
        id_, UUID(patient_id), now, now + timedelta(days=1), [UUID(appointment_id)],
    )  # fmt: skip
    await connection.close()
    return str(id_)


@pytest.fixture
def control(system: System) -> Iterator[str]:
    """A word in a plain column: a search that finds nothing must be able to."""
    word = f"对照{''.join(secrets.choice(SIGNS) for _ in range(5))}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(database_url(system.home))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run(f"create table vault_control as select '{word}'::text as word"))
    asyncio.run(run("checkpoint"))  # to the files
    yield word
    asyncio.run(run("drop table vault_control"))


def test_no_dump_and_no_file_of_the_database_holds_them(
    system: System, planted: Planted, control: str, tmp_path: Path
) -> None:
    search = Search([*planted.words, control])
    program = embedded_postgres.program("pg_dump")
    dump = tmp_path / "dump.sql"
    subprocess.run([program, "--file", str(dump), database_url(system.home)], check=True)
    assert search.of(file(dump)) == {control}
    data = system.home / "postgres"
    found = search.below(data)
    assert {word for words in found.values() for word in words} == {control}, found
    where = {path.relative_to(data).parts[0] for path, words in found.items() if words}
    assert where >= {"base", "pg_wal"}, "the control is in the table's file and in the WAL"


def test_no_log_holds_them(system: System, planted: Planted) -> None:
    search = Search([*planted.words, "/api/v1/patients"])
    logs = [system.log, *system.home.glob("*.log"), *(system.home / "logs").rglob("*")]
    assert set().union(*(search.of(file(log)) for log in logs if log.is_file())) == {"/api/v1/patients"}


def called(system: System, name: str) -> list[int]:
    found = []
    for one in psutil.Process(system.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "".join(one.cmdline()[:1]).startswith(name):
                found.append(one.pid)
    return found


def test_neither_shards_nor_postgresql_hold_them_in_memory(
    system: System, planted: Planted, control: str
) -> None:
    """And a gateway, which must, cannot be made to write a core file."""
    search = Search([*planted.words, control])
    shards, gateways = called(system, "ray::Shard"), called(system, "ray::Gateway")
    server = psutil.Process(int((system.home / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
    postgres = [server.pid, *(one.pid for one in server.children())]
    assert shards and gateways and len(postgres) > 5
    assert search.of(memory(shards)) == set()
    assert any(planted.seen_by_shards in piece for piece in memory(shards)), "a control"
    assert search.of(memory(postgres)) == {control}
    if os.geteuid() == 0:
        assert search.of(memory(gateways)), "the search would have found them"
    else:
        with pytest.raises(PermissionError):  # not even who started it may look
            search.of(memory(gateways))
    for pid in gateways:
        limits = Path(f"/proc/{pid}/limits").read_text()
        [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]


def test_every_spelling_is_found() -> None:
    word = "张伟13800138000"
    search = Search([word])
    for spelled in spellings(word):
        assert search.of(iter([b"xx", spelled[:5], spelled[5:], b"xx"])) == {word}
    for shift in range(3):
        for encoding in ("utf-8", "gb18030", "utf-16-le"):
            around = base64.b64encode(b"\xfe" * shift + word.encode(encoding) + b"\x07\x08")
            assert search.of(iter([around])) == {word}
    assert search.of(iter([b"nothing", "张三13800138001".encode()])) == set()
