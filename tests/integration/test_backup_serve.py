"""`xinglin serve --backup-to`, `xinglin backup` and `xinglin restore`, as an engineer types them."""

import json
import secrets
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.backup.key_file import make_key_file
from engine.embedded_postgres import free_port
from tests.support.system import System, run, started

PATIENCE_SECONDS = 90.0
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Story:
    folder: Path
    appointment: str
    metrics: dict[str, float]
    beside: Done  # `xinglin backup` while it serves
    listed: Done
    verified: Done
    wrong_key: Done
    restored: Done
    audited: Done
    chain: Done  # of the audit, in the restored home, with what was kept in the second place
    again: Done  # restored over what was restored
    found: str  # the appointment in the restored database


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with tempfile.TemporaryDirectory(prefix="xinglin-backup-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        place, key, new = folder / "place", folder / "backup.key", folder / "new"
        place.mkdir()
        make_key_file(key)
        make_key_file(folder / "other.key")
        where = ("--key-file", str(key))
        with started("--backup-to", str(place), *where) as system:
            until(lambda: any(place.glob("*/base-*.manifest")))
            until(lambda: figures(system).get("xinglin_backup_base_age_seconds", -1.0) >= 0.0)
            metrics = figures(system)
            beside = run("backup", "--to", str(place), *where, "--home", str(system.home))
            appointment = book(system)
            public_key = run("audit", "key", "--home", str(system.home)).stdout.strip()
            # Stopping ships what was written last.
        listed = run("backup", "list", "--to", str(place), *where)
        verified = run("backup", "--to", str(place), *where, "verify", "--all")
        wrong = run("restore", "--from", str(place), "--key-file", f"{folder}/other.key", "--home", str(new))
        restored = run("restore", "--from", str(place), *where, "--home", str(new))
        audited = run("audit", "--home", str(new))
        kept = sorted((place / "audit").iterdir())[-1]
        chain = run(
            *("audit", "verify", "--home", str(new), "--trust", public_key, "--checkpoints", str(kept))
        )
        again = run("restore", "--from", str(place), *where, "--home", str(new))
        yield Story(
            folder,
            appointment,
            metrics,
            beside,
            listed,
            verified,
            wrong,
            restored,
            audited,
            chain,
            again,
            status_of(new, appointment),
        )


def until(is_so: Any) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < ends, "not within patience"
        time.sleep(0.1)


def ask(system: System, path: str, body: Any = None, token: str = "") -> Any:
    request = urllib.request.Request(
        f"{system.address}/api/v1/{path}",
        None if body is None else json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_hex(8),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def book(system: System) -> str:
    token = ask(system, "sessions", {"grant": "wechat", "code": "sandbox:backup"})["access_token"]
    person = {
        "name": "张伟",
        "id_type": "resident_id",
        "id_number": "11010119900307803X",
        "phone": "13800138000",
        "relation": "self",
    }
    patient = ask(system, "patients", person, token)["id"]
    schedule = ask(system, "schedules?department=0304")["schedules"][-1]["id"]
    slot = ask(system, f"schedules/{schedule}/slots")["slots"][0]["id"]
    held = ask(system, "appointments", {"slot_id": slot, "patient_id": patient}, token)
    return str(held["id"])


def figures(system: System) -> dict[str, float]:
    with urllib.request.urlopen(f"{system.address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("xinglin_backup_")
    }


def status_of(home: Path, appointment: str) -> str:
    import asyncio

    import asyncpg

    from engine import embedded_postgres

    async def asked(url: str) -> str:
        connection = await asyncpg.connect(url)
        try:
            return str(await connection.fetchval("select id from appointment where id = $1", appointment))
        finally:
            await connection.close()

    with embedded_postgres.borrowed(home) as url:
        return asyncio.run(asked(url))


def test_while_it_serves_the_metrics_say_how_backups_stand(story: Story) -> None:
    assert story.metrics["xinglin_backup_failing"] == 0
    assert 0 <= story.metrics["xinglin_backup_base_age_seconds"] < PATIENCE_SECONDS * 2
    assert 0 <= story.metrics["xinglin_backup_lag_seconds"] < PATIENCE_SECONDS
    assert story.metrics["xinglin_backup_archived_until_timestamp_seconds"] > 1.7e9


def test_a_backup_by_hand_goes_into_the_chain_that_is_archived(story: Story) -> None:
    assert story.beside.returncode == 0, story.beside.stderr
    assert len([one for one in (story.folder / "place").iterdir() if one.name != "audit"]) == 1
    assert len(list((story.folder / "place").glob("*/base-*.manifest"))) == 2


def test_it_is_listed_and_verified(story: Story) -> None:
    assert story.listed.stdout.count("base-") == 2, story.listed.stdout + story.listed.stderr
    assert story.verified.returncode == 0, story.verified.stderr
    assert story.verified.stdout.count("parts are right") == 2


def test_a_booking_made_just_before_the_end_is_restored_and_the_audit_is_green(story: Story) -> None:
    assert story.restored.returncode == 0, story.restored.stderr
    assert "the last transaction in it is of" in story.restored.stdout
    assert story.found == story.appointment
    assert story.audited.returncode == 0, story.audited.stdout + story.audited.stderr
    assert story.chain.returncode == 0, story.chain.stdout + story.chain.stderr
    assert story.chain.stdout.rstrip().endswith("OK")


def test_a_wrong_key_is_one_line_and_leaves_nothing(story: Story) -> None:
    assert story.wrong_key.returncode == 1
    assert "needs the key" in story.wrong_key.stderr
    assert story.wrong_key.stderr.count("\n") == 1


def test_over_a_living_home_nothing_is_restored(story: Story) -> None:
    assert story.again.returncode == 1
    assert "never over a living one" in story.again.stderr
    assert story.again.stderr.count("\n") == 1


def test_nothing_of_the_hospital_can_be_read_in_the_place(story: Story) -> None:
    files = [file for file in (story.folder / "place").rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        assert content.startswith(b"XLB1") or file.parent.name == "audit", file
        assert "张伟".encode() not in content and b"11010119900307803X" not in content


def test_serve_says_before_it_starts_what_is_wrong_with_key_or_place(tmp_path: Path) -> None:
    key = tmp_path / "key"
    make_key_file(key)
    key.chmod(0o644)
    for options, says in [
        (("--backup-to", str(tmp_path)), "backups need a key"),
        (("--backup-to", str(tmp_path), "--key-file", str(key)), "chmod 600"),
        (("--backup-to", str(tmp_path / "no"), "--key-file", str(key)), "chmod 600"),
    ]:
        done = run("serve", "--demo", "--home", str(tmp_path / "home"), "--port", str(free_port()), *options)
        assert done.returncode == 1 and says in done.stderr, done.stderr
        assert not (tmp_path / "home" / "postgres").exists()
