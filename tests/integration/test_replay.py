"""`xinglin replay` against the real system: real appointments where the data set lies beside us."""

from pathlib import Path

import orjson

from tests.support import no_shows
from tests.support.system import System, run

ROWS = 400


def test_a_slice_is_booked_and_audited(system: System, tmp_path: Path) -> None:
    file = no_shows.REAL
    if not file.exists():  # elsewhere than where this project is made: invented rows in the same format
        file = tmp_path / "invented.csv"
        file.write_text(no_shows.invented(ROWS))
    report = tmp_path / "report.json"
    done = run(
        *("replay", str(file), "--limit", str(ROWS), "--concurrency", "32", "--address", system.address),
        *("--home", str(system.home), "--report", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    said = orjson.loads(report.read_bytes())
    bookings = said["bookings"]
    assert said["malformed"] == []
    assert said["people"]["failed"] == {}
    assert bookings["rows"] == ROWS
    assert bookings["held"] + sum(bookings["refused"].values()) == ROWS
    assert bookings["held"] > ROWS * 0.8, "an empty hospital has room"
    assert bookings["confirmed"] == bookings["held"]
    assert 0 < bookings["cancelled"] < bookings["held"] / 2
    assert set(bookings["refused"]) <= {"already_booked", "time_conflict", "slot_full", "no_department"}
    checks = {check["check"]: check for check in said["audit"]}
    assert checks["acknowledged bookings"]["examined"] == bookings["held"]
    assert not any(check["faults"] for check in checks.values())

    audited = run("audit", "--home", str(system.home))
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert audited.stdout.count("OK") == len(checks) - 1


def test_malformed_rows_are_told_and_make_the_exit_status_1_unless_skipped(
    system: System, tmp_path: Path
) -> None:
    file = tmp_path / "bad.csv"
    bad = no_shows.line(Age="-1")
    file.write_text("\n".join((no_shows.HEADER, no_shows.line(PatientId="4711"), *[bad] * 12)) + "\n")
    arguments = ["replay", str(file), "--address", system.address, "--home", str(system.home)]
    done = run(*arguments)
    assert done.returncode == 1
    assert f"{file}:3: Age '-1'" in done.stdout
    assert done.stdout.count("Age '-1'") == 10
    assert "12 malformed rows left out of 13" in done.stdout
    assert "FAILED" not in done.stdout
    assert run(*arguments, "--skip-bad").returncode == 0


def test_what_cannot_be_replayed_is_one_line(system: System, tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text("\n".join((no_shows.HEADER, no_shows.line())) + "\n")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    server = ["--address", system.address, "--home", str(system.home)]
    for arguments, why in (
        ([str(tmp_path / "none.csv"), *server], "No such file"),
        ([str(other), *server], "not the header of 'Medical Appointment No Shows'"),
        ([str(good), "--address", system.address, "--home", str(tmp_path)], "no server runs in"),
        ([str(good), "--address", "http://127.0.0.1:9", "--home", str(system.home)], "no Xinglin answers"),
        ([str(good), *server, "--report", str(tmp_path / "no" / "r.json")], "cannot write"),
    ):
        done = run("replay", *arguments)
        assert done.returncode == 1
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
