"""Distances between places: against known ones, and as distances are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.places import Place, metres_between

BEIJING = Place(39.9042, 116.4074)
SHANGHAI = Place(31.2304, 121.4737)
PLACES = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        (BEIJING, BEIJING, 0),
        (Place(0, 0), Place(1, 0), 111_195),  # a degree of a great circle: 2 pi 6371.0088 km / 360
        (Place(0, 0), Place(0, 1), 111_195),
        (Place(60, 0), Place(60, 1), 55_597),  # half of it, less what the great circle cuts off
        (Place(0, 179.5), Place(0, -179.5), 111_195),  # over the date line
        (Place(90, 0), Place(90, 77), 0),  # a pole has no longitude
        (Place(0, 0), Place(0, 180), 20_015_114),
        (BEIJING, SHANGHAI, 1_067_312),
        (BEIJING, Place(39.9042, 116.4133), 503),
        (BEIJING, Place(39.90870, 116.4074), 500),
    ],
)
def test_known_distances(a: Place, b: Place, metres: int) -> None:
    assert metres_between(a, b) == metres


@given(PLACES, PLACES, PLACES)
def test_they_are_distances(a: Place, b: Place, c: Place) -> None:
    assert 0 <= metres_between(a, b) == metres_between(b, a) <= 20_015_114
    assert metres_between(a, c) <= metres_between(a, b) + metres_between(b, c) + 2  # rounding


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(91, 0), (0, 181), (116.4074, 39.9042), (float("nan"), 0)]
)
def test_there_is_no_such_place(latitude: float, longitude: float) -> None:
    with pytest.raises(AssertionError):
        Place(latitude, longitude)
