"""Some simulated days of a department. More of them: `python -m tests.simulation.clinic_day 1 500`."""

import pytest

from engine.domain import queue_order as q
from engine.domain import waiting_room as w
from engine.domain.queue_order import OrderRules, Rules
from engine.domain.refusal import Reason
from tests.simulation import clinic_day

pytestmark = pytest.mark.skipif(
    not clinic_day.DATA.exists(), reason="the real data stands beside the repository, in ../shared/data"
)


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_day_under_rules_of_its_own(seed: int) -> None:
    result = clinic_day.play(seed)
    assert result.finished > 50
    assert result.refused[Reason.STALE_VERSION], "no consoles raced"


def test_the_same_seed_is_the_same_day() -> None:
    assert str(clinic_day.play(7)) == str(clinic_day.play(7))


def test_a_failure_prints_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(w, "replay", lambda events: w.WaitingRoom())
    with pytest.raises(AssertionError, match="the journal tells another day"):
        clinic_day.play(3)
    assert "tests.simulation.clinic_day 3" in capsys.readouterr().err


def test_walk_ins_wait_shorter_when_they_are_mixed_in() -> None:
    """The rules do what they are for, over a few days."""

    def waited(mix: q.Mix) -> float:
        rules = Rules(order=OrderRules(mix=mix, overtaken_max=12))
        minutes = [m for seed in range(20, 26) for m in clinic_day.play(seed, rules).waited["walk-in"]]
        return sum(minutes) / len(minutes)

    assert waited(q.Mix.MIXED) < waited(q.Mix.BOOKED_FIRST)
