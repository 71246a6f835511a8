"""The guard of this folder guards."""

import importlib
import sys

import pytest


def test_a_unit_test_cannot_import_ray() -> None:
    with pytest.raises(ImportError):
        importlib.import_module("ray")
    with pytest.raises(ImportError):
        importlib.import_module("ray.util")


def test_a_unit_test_cannot_reach_ray_through_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "actors.cluster", raising=False)  # tests of whole systems came before
    with pytest.raises(ImportError):
        importlib.import_module("actors.cluster")
