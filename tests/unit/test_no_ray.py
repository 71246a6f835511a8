"""The guard of this folder guards."""

import importlib

import pytest


def test_a_unit_test_cannot_import_ray() -> None:
    with pytest.raises(ImportError):
        importlib.import_module("ray")
    with pytest.raises(ImportError):
        importlib.import_module("ray.util")


def test_a_unit_test_cannot_reach_ray_through_the_cluster() -> None:
    with pytest.raises(ImportError):
        importlib.import_module("actors.cluster")
