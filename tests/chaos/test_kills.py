"""The short form of `make chaos`, on the real system: real kills, under load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_what_was_answered_survives_kills_of_shards_gateway_and_postgresql(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bookings, changes, families, waiting lists and sessions that are called off: all are in the load."""
    kills = ["--shard-kills", "3", "--postgres-kills", "1", "--gateway-kills", "1"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *kills, "--rate", "30", "--pause", "2", "3", "--no-write"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
    )
    told = " ".join(ran.stdout.split())
    with capsys.disabled():
        print("\n" + "\n".join(line for line in ran.stdout.splitlines() if "killed" in line))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 doubled" in told
    for kind in ("change", "group", "suspend", "wait"):
        asked = re.search(rf"│ {kind} +│ +(\d+)", ran.stdout)
        assert asked is not None, ran.stdout
        assert int(asked[1]) > 0
    amid = re.search(r"(\d+) of (\d+) kills struck while changes were under way", told)
    assert amid is not None, told
    assert int(amid[1]) > 0, "no kill struck in the middle of a change: the run proves little"
