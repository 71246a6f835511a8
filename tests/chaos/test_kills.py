"""The short form of `make chaos`, on the real system: real kills, under load."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_what_was_answered_survives_kills_of_shards_gateway_and_postgresql(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kills = ["--shard-kills", "2", "--postgres-kills", "1", "--gateway-kills", "1"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *kills, "--rate", "60", "--pause", "1", "2", "--no-write"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    with capsys.disabled():
        print("\n" + "\n".join(line for line in ran.stdout.splitlines() if "killed" in line))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 doubled" in " ".join(ran.stdout.split())
