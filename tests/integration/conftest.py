"""One running system for all integration tests that want one."""

from collections.abc import Iterator

import pytest

from tests.support.system import System, started


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """`xinglin serve --demo`. Shared: leave the catalog as it was, and book as people of your own."""
    with started() as system:
        yield system
