"""The limit of open files is raised as far as it goes, and said where that is too low."""

import logging
import resource
from collections.abc import Iterator

import pytest

from web.file_limit import OTHERS, raise_file_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_goes_up_to_the_systems(limits: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with caplog.at_level(logging.WARNING):
        raise_file_limit(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert not caplog.records


def test_what_is_too_low_is_said(limits: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    _, hard = limits
    with caplog.at_level(logging.WARNING):
        raise_file_limit(hard - OTHERS + 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "XINGLIN_STREAM_CONNECTIONS_MAX" in caplog.text and str(hard) in caplog.text
