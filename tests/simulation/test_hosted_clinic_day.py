"""Some hosted days of a department. More of them: `python -m tests.simulation.hosted_clinic_day 1 200`."""

import pytest

from actors import news, rooms
from engine.domain.refusal import Reason
from engine.journal.group_commit import Work
from tests.simulation import clinic_day, hosted_clinic_day

pytestmark = pytest.mark.skipif(
    not clinic_day.DATA.exists(), reason="the real data stands beside the repository, in ../shared/data"
)


@pytest.mark.parametrize("seed", [1, 4, 6])
def test_a_day_under_rules_of_its_own(seed: int) -> None:
    result = hosted_clinic_day.play(seed)
    assert result.finished > 50
    assert result.refused[Reason.STALE_VERSION], "no consoles raced"


def test_the_same_seed_is_the_same_day() -> None:
    assert str(hosted_clinic_day.play(9)) == str(hosted_clinic_day.play(9))


def test_a_failure_prints_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a feed that leaves one event out is a failure."""
    settled = rooms.Rooms.settled

    def forgetful(self: rooms.Rooms, work: Work, told: news.News) -> None:
        settled(self, work, told)
        for events in told.rooms.values():
            events[:] = [event for event in events if event[0] != 100]

    monkeypatch.setattr(rooms.Rooms, "settled", forgetful)
    with pytest.raises(AssertionError, match="told twice, or not at all"):
        hosted_clinic_day.play(3)
    assert "tests.simulation.hosted_clinic_day 3" in capsys.readouterr().err
