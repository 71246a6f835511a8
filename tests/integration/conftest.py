"""One running system for all integration tests that want one."""

from collections.abc import Iterator

import pytest

from tests.support.system import WITHOUT_LIMITS, System, started


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """`xinglin serve --demo`. Shared: leave the catalog as it was, and book as people of your own."""
    with started() as system:
        yield system


@pytest.fixture(scope="session")
def rough_system() -> Iterator[System]:
    """Another one, without rate limits, for tests that ask anything of it: nothing in it is as it was."""
    with started(environment=WITHOUT_LIMITS) as system:
        yield system
