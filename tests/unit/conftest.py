"""Unit tests never start Ray: whatever needs it belongs to tests/integration."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def ray_cannot_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Importing ray fails, and so does `ray.init` where another test had it imported before."""
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)  # `import ray` raises ModuleNotFoundError
    yield
