"""`xinglin import`: before the first server, beside a running one, and with files that are not right."""

import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from engine.embedded_postgres import running
from tests.support.system import ROOT, System, run

DEMO = ROOT / "web" / "demo" / "hospital"
HEARD_SECONDS_MAX = 15.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xinglin-import-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def copied(folder: Path, old: str = "", new: str = "") -> Path:
    """The demo hospital, with one text of its departments replaced."""
    hospital = folder / "hospital"
    shutil.copytree(DEMO, hospital, dirs_exist_ok=True)
    departments = hospital / "departments.csv"
    text = departments.read_text()
    assert old in text
    departments.write_text(text.replace(old, new) if old else text)
    return hospital


def names(system: System) -> list[str]:
    with urllib.request.urlopen(f"{system.address}/api/v1/departments", timeout=5) as answer:
        return [department["name"] for department in json.load(answer)["departments"]]


def numbers(line: str) -> list[str]:
    return [word for word in line.split() if word.isdecimal()]


async def test_wrong_files_are_told_line_by_line_and_change_nothing(database: str, folder: Path) -> None:
    hospital = copied(folder, "0301,03,", "0301,99,")
    (hospital / "rooms.csv").unlink()
    done = run("import", str(hospital), "--database-url", database)
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert told[0].startswith("departments.csv:5: parent_id '99' is unknown")
    assert any(line.startswith("rooms.csv: is missing") for line in told)
    assert told[-1] == f"xinglin: {len(told) - 1} errors, nothing was changed"
    connection = await asyncpg.connect(database)
    assert not await connection.fetchval("select count(*) from department")
    await connection.close()


def test_nothing_there_is_told(folder: Path) -> None:
    done = run("import", str(folder / "nowhere" / "hospital.yaml"), "--home", str(folder))
    assert done.returncode == 1
    assert "hospital.yaml: is missing" in done.stderr
    assert not (folder / "postgres").exists(), "wrong files start no database"


def test_a_database_that_does_not_answer_is_one_line(folder: Path) -> None:
    done = run("import", str(DEMO), "--database-url", "postgresql://u:secret@127.0.0.1:9/x")
    assert done.returncode == 1
    assert done.stderr.startswith("xinglin: PostgreSQL at postgresql://u@127.0.0.1:9/x does not answer")
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_before_the_first_server_the_home_gets_a_database_which_rests_again(folder: Path) -> None:
    home = folder / "home"
    done = run("import", str(DEMO), "--home", str(home))
    assert done.returncode == 0, done.stderr
    lines = {line.strip().rstrip(" 0123456789"): numbers(line) for line in done.stdout.splitlines()}
    departments = len((DEMO / "departments.csv").read_text().splitlines()) - 1
    assert lines["department"] == [str(departments), "0", "0"]
    assert int(lines["published day"][0]) > 1_000
    assert running(home) is None, "what the import started, it stops"

    again = run("import", str(DEMO / "hospital.yaml"), "--home", str(home))
    assert again.returncode == 0
    assert all(set(numbers(line)) <= {"0"} for line in again.stdout.splitlines())


def test_a_running_server_hears_of_it(system: System, folder: Path) -> None:
    before = names(system)
    assert "心血管内科" in before
    hospital = copied(folder, "心血管内科,Cardiology", "心脏科,Cardiology")
    try:
        done = run("import", str(hospital), "--home", str(system.home))
        assert done.returncode == 0, done.stderr
        (line,) = (x for x in done.stdout.splitlines() if x.startswith("department"))
        assert numbers(line) == ["0", "1", "0"]
        ends = time.monotonic() + HEARD_SECONDS_MAX
        while "心脏科" not in names(system):
            assert time.monotonic() < ends, "the gateways have not heard of the new catalog"
            time.sleep(0.05)
    finally:
        run("import", str(DEMO), "--home", str(system.home))
    assert running(system.home) is not None, "the server's database was borrowed, not stopped"
