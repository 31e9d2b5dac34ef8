"""Unions of longitudes on the circle.

What belongs here: ``geo_assets.stac.longitudes``.  What does not: extents as a whole.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.stac.longitudes import LongitudeUnion, bounding_box


def union(*intervals: tuple[float, float]) -> tuple[float, float] | None:
    found = LongitudeUnion()
    for west, east in intervals:
        found.add(west, east)
    return found.edges()


def test_unions() -> None:
    assert union() is None
    assert union((1, 2)) == (1, 2)
    assert union((1, 2), (5, 6)) == (1, 6)
    assert union((170, 175), (-178, -170)) == (170, -170)
    assert union((170, -170), (150, 160)) == (150, -170)
    assert union((-180, 180), (5, 6)) == (-180, 180)
    assert union((170, -170), (-100, 100)) == (-100, -170)
    assert union((-120, -60), (60, 120)) == (-120, 120)


@given(st.lists(st.tuples(st.integers(-180, 180), st.integers(-180, 180)), min_size=1, max_size=6), st.booleans())
def test_the_result_holds_every_interval_and_is_smallest(intervals: list[tuple[int, int]], compacted: bool) -> None:  # noqa: FBT001
    found = LongitudeUnion()
    for _ in range(1500 if compacted else 1):  # beyond the point where pieces are merged
        for west, east in intervals:
            found.add(west, east)
    edges = found.edges()
    assert edges is not None

    def degrees(west: float, east: float) -> set[int]:
        # halves of degrees, so that touching and overlapping are told apart
        doubled = range(int(2 * west), int(2 * (east if west <= east else east + 360)) + 1)
        return {value % 720 for value in doubled}

    covered = set().union(*(degrees(*interval) for interval in intervals))
    assert covered <= degrees(*edges)
    gaps = sorted(set(range(720)) - covered)
    longest = run = 0
    for value in range(1440):
        run = run + 1 if value % 720 in gaps else 0
        longest = max(longest, min(run, 720))
    assert len(degrees(*edges)) == 720 - longest or len(degrees(*edges)) == 720


def test_boxes_of_shapes() -> None:
    assert bounding_box([(170, -5, 180, 5), (-180, -6, -170, 4)]) == [170, -6, -170, 5]
    assert bounding_box([(-180, -90, 180, 90)]) == [-180, -90, 180, 90]
    # islands far apart on both sides, none of them at the line
    assert bounding_box([(170, 0, 175, 1), (-175, 0, -170, 1)]) == [-175, 0, 175, 1]
    with pytest.raises(ValueError, match="at least one"):
        bounding_box([])
