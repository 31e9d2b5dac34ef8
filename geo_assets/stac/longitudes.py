"""Unions of longitude intervals on the circle: the west and east edge of a bounding box.

What belongs here: the arithmetic of intervals that may cross the antimeridian, for the boxes of items and the extents
of collections.  What does not: geometry (``footprint``).  A box that crosses the antimeridian has west > east, as
RFC 7946 section 5.2 says.
"""

from collections.abc import Iterable
from itertools import pairwise

__all__ = ["LongitudeUnion", "bounding_box"]

_COMPACT_AT = 4096
_WHOLE = 360.0


class LongitudeUnion:
    """A growing union of longitude intervals in degrees, each ``west`` to ``east`` going east."""

    def __init__(self) -> None:
        self._pieces: list[tuple[float, float]] = []

    def add(self, west: float, east: float) -> None:
        """Add an interval; ``west > east`` is one that crosses the antimeridian."""
        if west > east:
            self._pieces += [(west, 180.0), (-180.0, east)]
        else:
            self._pieces.append((west, east))
        if len(self._pieces) > _COMPACT_AT:
            self._pieces = self._merged()

    def edges(self) -> tuple[float, float] | None:
        """West and east edge of the smallest interval that holds the union; ``None`` while it is empty.

        Of equally small ones it is the one that does not cross the antimeridian.
        """
        merged = self._merged()
        if not merged:
            return None
        west, east = merged[0][0], merged[-1][1]
        widest = west + _WHOLE - east  # the gap over the antimeridian: leaving it out gives the plain box
        for (_, left), (right, _) in pairwise(merged):
            if right - left > widest:
                widest, west, east = right - left, right, left
        return west, east

    def _merged(self) -> list[tuple[float, float]]:
        merged: list[tuple[float, float]] = []
        for west, east in sorted(self._pieces):
            if merged and west <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(east, merged[-1][1]))
            else:
                merged.append((west, east))
        return merged


def bounding_box(parts: Iterable[tuple[float, float, float, float]]) -> list[float]:
    """The GeoJSON bounding box of parts that each are (west, south, east, north) and do not cross.

    Parts that touch the antimeridian from both sides are one shape, and their box crosses it.

    Raises:
        ValueError: there are no parts.
    """
    boxes = list(parts)
    union = LongitudeUnion()
    for west, _, east, _ in boxes:
        union.add(west, east)
    edges = union.edges()
    if edges is None:
        raise ValueError("a bounding box needs at least one part")
    west, east = edges
    touching = any(box[0] == -180 for box in boxes) and any(box[2] == 180 for box in boxes)  # noqa: PLR2004
    if west > east and not touching:
        # far parts on both sides, not one shape over the line: the plain box, as every client reads it
        west, east = min(box[0] for box in boxes), max(box[2] for box in boxes)
    return [west, min(box[1] for box in boxes), east, max(box[3] for box in boxes)]
