"""The picture of a table.

What belongs here: ``geo_assets.vector.table_map``: what is kept, what is drawn, and that pictures fit where they go.
What does not: Markdown around them (``tests/test_pictures``).
"""

import base64
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from geo_assets.pictures import Picture, enlarged, gallery, shown_at_once
from geo_assets.vector.table_map import FULL_SIDE, MEDIA_TYPE, SMALL_BYTES, TINY_BYTES, TableSketch
from geo_assets.vector.wkb import from_points, from_shapely

RANDOM = np.random.default_rng(1)


def sketched(crs: int, dimension: int, *batches: Any) -> TableSketch:
    sketch = TableSketch(pyproj.CRS(crs))
    for batch in batches:
        sketch.add(batch, dimension)
    return sketch


def drawn(folder: Path, sketch: TableSketch) -> np.ndarray[Any, Any]:
    """Pixels (rows, columns, 3) of the full picture, after all three have been looked at."""
    made = sketch.draw(folder)
    data = Path(made["path"]).read_bytes()
    assert (made["size"], made["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    full = Image.open(io.BytesIO(data))
    assert made["media_type"] == MEDIA_TYPE
    assert full.format == "WEBP"
    assert full.size == (made["width"], made["height"])
    assert max(full.size) == FULL_SIDE
    assert min(full.size) >= FULL_SIDE // 3
    small, tiny = base64.b64decode(made["small"]), base64.b64decode(made["tiny"])
    assert len(small) <= SMALL_BYTES
    assert len(tiny) <= TINY_BYTES
    assert max(Image.open(io.BytesIO(small)).size) >= 100
    assert max(Image.open(io.BytesIO(tiny)).size) >= 40
    return np.asarray(full.convert("RGB"), int)


def reddish(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((pixels[..., 0] > 150) & (pixels[..., 1] < 90), bool)


def bluish(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(pixels[..., 2] - pixels[..., 0] > 45, bool)


def test_one_point_is_a_dot_in_the_middle(tmp_path: Path) -> None:
    pixels = drawn(tmp_path, sketched(4326, 0, from_points(np.array([[13.4, 52.5]]))))
    rows, columns = np.nonzero(reddish(pixels))
    assert (rows.mean(), columns.mean()) == pytest.approx((pixels.shape[0] / 2, pixels.shape[1] / 2), abs=2)
    assert 40 < len(rows) < 200


def test_points_are_where_they_are(tmp_path: Path) -> None:
    # south-west, and far fewer in the north-east
    south_west = RANDOM.uniform([10, 50], [11, 50.6], (4_900, 2))
    north_east = RANDOM.uniform([19, 55], [20, 55.6], (100, 2))
    pixels = drawn(tmp_path, sketched(4326, 0, from_points(np.vstack([south_west, north_east]))))
    marked = bluish(pixels) | reddish(pixels)
    high, wide = marked.shape
    lower_left, upper_right = marked[high // 2 :, : wide // 2].sum(), marked[: high // 2, wide // 2 :].sum()
    assert lower_left > upper_right > 50
    assert marked[: high // 2, : wide // 2].sum() + marked[high // 2 :, wide // 2 :].sum() < 20


def test_a_hole_is_not_filled_and_what_lies_in_it_is(tmp_path: Path) -> None:
    ring = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 6, 6))
    enclave = shapely.box(4, 4, 5, 5)
    pixels = drawn(tmp_path, sketched(4326, 2, from_shapely(np.array([enclave, ring]))))
    high, wide = pixels.shape[:2]
    filled = bluish(pixels)
    middle = high // 2, wide // 2
    assert filled[middle]
    assert not filled[middle[0], int(wide * (0.07 + 0.86 * 3.5 / 9))]
    assert filled[middle[0], int(wide * (0.07 + 0.86 * 1.5 / 9))]
    assert not filled[middle[0], 8]


def test_a_line_is_drawn(tmp_path: Path) -> None:
    line = shapely.LineString([(13.4, 52.5), (13.6, 52.6)])
    assert 300 < bluish(drawn(tmp_path, sketched(4326, 1, from_shapely(np.array([line]))))).sum() < 3_000


def test_fault_27_what_lies_on_both_sides_of_the_antimeridian_is_drawn_together(tmp_path: Path) -> None:
    halves = shapely.MultiPolygon([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -177, -16)])
    pixels = drawn(tmp_path, sketched(4326, 2, from_shapely(np.array([halves]))))
    high, wide = pixels.shape[:2]
    assert bluish(pixels).mean() > 0.5
    assert bluish(pixels)[high // 2, wide // 4]
    assert bluish(pixels)[high // 2, wide * 3 // 4]


def test_an_area_over_the_antimeridian_in_its_own_projection(tmp_path: Path) -> None:
    chatham = shapely.box(1_400_000, 5_000_000, 2_800_000, 5_600_000)  # metres, from 171 to 172 degrees west
    pixels = drawn(tmp_path, sketched(2193, 2, from_shapely(np.array([chatham]))))
    assert bluish(pixels).mean() > 0.4


def test_an_empty_table_is_a_map_of_the_world(tmp_path: Path) -> None:
    empty: Any = pa.array([None], pa.binary())
    pixels = drawn(tmp_path, sketched(4326, 0, empty, pa.array([], pa.binary())))
    assert not reddish(pixels).any()
    # the Sahara, and the Pacific
    assert pixels[120 - 40, 256 + 20].tolist() != pixels[128, 60].tolist()


def test_specks_of_a_sample_are_drawn_as_places(tmp_path: Path) -> None:
    corners = RANDOM.normal([10, 50], 0.2, (30_000, 2))
    buildings = from_shapely(shapely.box(*corners.T, *(corners + 1e-4).T))
    sketch = sketched(4326, 2, buildings.slice(0, 20_000), buildings.slice(20_000))
    assert len(sketch._places) == 20_000
    assert len(sketch._shapes) == 4_000
    pixels = drawn(tmp_path, sketch)
    assert reddish(pixels).sum() > 1_000


def test_the_sample_is_of_all_batches() -> None:
    batches = [from_points(np.full((50_000, 2), float(number))) for number in range(8)]
    sketch = sketched(4326, 0, *batches)
    _, counts = np.unique(sketch._places[:, 0], return_counts=True)
    assert counts.sum() == 20_000
    assert counts == pytest.approx(np.full(8, 2_500), abs=250)


@pytest.mark.parametrize(
    ("geometry", "dimension"),
    [
        ("POINT (1 2)", 0),
        ("POINT Z (1 2 3)", 0),
        ("POINT ZM (1 2 3 4)", 0),
        ("MULTIPOINT (1 2, 3 4)", 0),
        ("LINESTRING (1 2, 3 4)", 1),
        ("MULTILINESTRING Z ((1 2 0, 3 4 0))", 1),
        ("POLYGON ((1 2, 3 4, 3 2, 1 2))", 2),
        ("MULTIPOLYGON ZM (((1 2 0 0, 3 4 0 0, 3 2 0 0, 1 2 0 0)))", 2),
    ],
)
def test_places_are_read_out_of_any_wkb(geometry: str, dimension: int, tmp_path: Path) -> None:
    wkb = from_shapely(np.array([None, shapely.from_wkt(geometry), None]))
    sketch = sketched(4326, dimension, wkb)
    assert sketch._places.tolist() == [[1.0, 2.0]]
    pixels = drawn(tmp_path, sketch)
    assert (reddish(pixels) | bluish(pixels)).sum() > 20


def test_vertices_stay_few_whatever_comes() -> None:
    coast = shapely.Point(10, 50).buffer(1.0, quad_segs=5_000)
    wkb = from_shapely(np.array([shapely.affinity.translate(coast, at % 7, at % 5) for at in range(10)]))
    sketch = sketched(4326, 2, *[wkb] * 30)
    assert shapely.get_num_coordinates(sketch._shapes).sum() <= 300_000
    assert len(sketch._shapes) > 30


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(0, 90), st.floats(0, 90)), max_size=5),
    st.integers(0, 2),
)
def test_anything_can_be_drawn(tmp_path: Path, boxes: list[tuple[float, float, float, float]], dimension: int) -> None:
    shapes = [shapely.box(x, y, min(x + wide, 180.0), min(y + high, 90.0)) for x, y, wide, high in boxes]
    if dimension == 0:
        shapes = [shapely.Point(x, y) for x, y, _, _ in boxes]
    elif dimension == 1:
        shapes = [shapely.LineString(shape.exterior.coords) for shape in shapes]
    drawn(tmp_path, sketched(4326, dimension, from_shapely(np.array(shapes, object))))


def test_pictures_fit_into_the_event(tmp_path: Path) -> None:
    made = sketched(4326, 0, from_points(RANDOM.uniform([-180, -60], [180, 75], (30_000, 2)))).draw(tmp_path)
    tiny = Picture(alt="Map of geo.places", media_type=MEDIA_TYPE, data=base64.b64decode(made["tiny"]))
    assert shown_at_once(enlarged(tiny, width=made["width"], height=made["height"])) is not None
    small = Picture(alt="Map of geo.places", media_type=MEDIA_TYPE, data=base64.b64decode(made["small"]))
    assert "data:image/webp" in gallery("", [small])


def test_a_million_points_take_no_time() -> None:
    wkb = from_points(RANDOM.normal(size=(1_000_000, 2)))
    batches = [wkb.slice(start, 200_000) for start in range(0, 1_000_000, 200_000)]
    began = time.process_time()
    sketched(4326, 0, *batches)
    # some 0.02 s; an accident with objects a row takes seconds
    assert time.process_time() - began < 0.5
