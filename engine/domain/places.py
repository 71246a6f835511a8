"""Places on the earth, and how far they are from each other.

Coordinates are degrees of GCJ-02, the datum that maps sold in China must use and that a mini-program reports
(`wx.getLocation({type: 'gcj02'})`). A satellite receiver's own WGS-84 is some hundred metres beside it, so
both ends of a distance must be of the same datum. Between two of GCJ-02 it is right to a few in a thousand.
"""

from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Final

_EARTH_RADIUS_M: Final = 6_371_008.8  # the mean of its three half axes (IUGG)


@dataclass(frozen=True, slots=True)
class Place:
    latitude: float  # degrees, north is positive; GCJ-02
    longitude: float  # degrees, east is positive; GCJ-02

    def __post_init__(self) -> None:
        assert -90 <= self.latitude <= 90
        assert -180 <= self.longitude <= 180


def metres_between(a: Place, b: Place) -> int:
    """Whole metres as the crow flies. Haversine: as exact for a few metres as for half the earth."""
    north = radians(b.latitude - a.latitude) / 2
    east = radians(b.longitude - a.longitude) / 2
    part = sin(north) ** 2 + cos(radians(a.latitude)) * cos(radians(b.latitude)) * sin(east) ** 2
    return round(2 * _EARTH_RADIUS_M * asin(min(1.0, sqrt(part))))
