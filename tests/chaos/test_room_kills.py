"""Waiting rooms on the real system: real kills while people check in and consoles call."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_ticket_is_lost_and_nobody_called_twice_amid_kills(capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of what `make chaos` has in its load. The command fails where a check does."""
    kills = ["--shard-kills", "2", "--postgres-kills", "1", "--gateway-kills", "1"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.rooms_of_chaos", *kills],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    told = " ".join(ran.stdout.split())
    with capsys.disabled():
        print(
            "\n" + "\n".join(line for line in ran.stdout.splitlines() if "killed" in line or "seed" in line)
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.search(r"(\d+) tickets .* (\d+) calls, (\d+) seen; (\d+) unknown at first, 0 never", told)
    assert found is not None, told
    tickets, calls, seen, doubted = map(int, found.groups())
    assert tickets > 30 and calls > 30 and seen > 30, "there was nothing to lose"
    assert doubted > 0, "no kill struck in the middle of anything: the run proves little"
    assert "unexpected refusals none" in told
