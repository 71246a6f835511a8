"""The short form of `make soak-payments`, on the real system: people pay while a shard and a gateway die."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_money_is_lost_doubled_or_kept_without_its_service_amid_kills(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command fails where a check of the money does, and where nothing was struck."""
    kills = ["--shard-kills", "1", "--gateway-kills", "1", "--postgres-kills", "0"]
    load = ["--payments", "300", "--rate", "15", "--hold", "10", "--refund-told-lost", "0"]
    # How fast is measured by the soak, on a machine that has nothing else to do.
    load += ["--drain", "150", "--classified-within", "240"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.payments", *kills, *load, "--no-write"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
    )
    told = " ".join(ran.stdout.split())
    with capsys.disabled():
        print(
            "\n" + "\n".join(line for line in ran.stdout.splitlines() if "killed" in line or "seed" in line)
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    paid = re.search(r"seed \d+: OK: (\d+) payments", told)
    assert paid is not None, told
    assert int(paid[1]) > 250, "there was nothing to lose"
    assert re.search(r"'late': [1-9]", told), told
    assert re.search(r"lost_the_seat_to_a_rival: [1-9]", told), told
    assert re.search(r"paid_twice: [1-9]", told), told
    assert re.search(r"forged: \{'", told), told
    assert "paid_unknown_here (open)" not in told
