"""Geometries checked, repaired, reprojected and brought into range, and the account of it."""

import json
import struct
import time
import warnings
from collections import Counter
from typing import Any

import antimeridian
import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import ParameterError, VectorRefusedError
from geo_assets.vector import wkb
from geo_assets.vector.geometry import (
    AREA,
    LINE,
    NO_DIMENSION,
    POINT,
    GeometryOptions,
    GeometryPreparer,
    PreparedGeometries,
)

BOW_TIE = "POLYGON ((0 0, 1 1, 0 1, 1 0, 0 0))"
SQUARE = "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))"


def of_wkt(*texts: str | None) -> Any:
    with np.errstate(invalid="ignore"):
        return shapely.from_wkt(np.array(texts, object))


def open_ring(*points: tuple[float, float]) -> bytes:
    return struct.pack("<BIII", 1, 3, 1, len(points)) + np.array(points, "<f8").tobytes()


class Prepared:
    """What became of one batch."""

    def __init__(
        self, given: Any, *, source: Any = 4326, target: Any = 4326, first_row: int = 1, **options: Any
    ) -> None:
        self.column = wkb.from_shapely(of_wkt(*given)) if isinstance(given, list) else given
        self.preparer = GeometryPreparer(
            GeometryOptions(**options),
            source_crs=pyproj.CRS.from_user_input(source),
            target_crs=pyproj.CRS.from_user_input(target),
        )
        self.result: PreparedGeometries = self.preparer.prepare(self.column, first_row=first_row)
        self.report = self.preparer.report()
        json.dumps(self.report, allow_nan=False)

    @property
    def wkt(self) -> list[str | None]:
        return [None if one is None else str(shapely.to_wkt(one)) for one in self.geometries]

    @property
    def geometries(self) -> Any:
        return wkb.to_shapely(self.result.wkb)

    @property
    def source(self) -> list[int] | None:
        return None if self.result.source is None else self.result.source.tolist()

    @property
    def changes(self) -> dict[str, tuple[int, list[int]]]:
        counted = {name: one for name, one in self.report.items() if isinstance(one, dict) and one.get("count")}
        return {name: (one["count"], one.get("examples", [])) for name, one in counted.items()}


def refused(given: Any, **options: Any) -> VectorRefusedError:
    with pytest.raises(VectorRefusedError) as error:
        Prepared(given, **options)
    return error.value


# options


def test_options_are_plain_json_and_back() -> None:
    options = GeometryOptions(dimensions="XYZ", orient=False)
    assert GeometryOptions.from_dict(json.loads(json.dumps(options.as_dict()))) == options
    assert GeometryOptions.from_dict({}) == GeometryOptions()


@pytest.mark.parametrize(
    "values", [{"dimensions": "XYM"}, {"orient": "yes"}, {"orient": 1}, {"nothing": 1}, {"collections": None}]
)
def test_options_that_there_are_not_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        GeometryOptions.from_dict(values)


# rows add up


_OK = ["POINT (5 6)", SQUARE, "LINESTRING (1 2, 3 4)", "MULTIPOLYGON (((0 0, 0 1, 1 1, 0 0)))", "POINT Z (1 2 3)"]
_BAD = [
    None,
    "POINT EMPTY",
    "MULTIPOLYGON EMPTY",
    BOW_TIE,
    "LINESTRING (1 1, 1 1)",
    "POLYGON ((0 0, 1 1, 2 2, 0 0))",
    "POINT (1 900)",
    "POINT (NaN 1)",
    "LINESTRING (NaN 1, 2 3)",
    "GEOMETRYCOLLECTION (POINT (1 2), POINT (3 4), LINESTRING (1 1, 1 1), POLYGON ((0 0, 1 0, 1 1, 0 0)))",
    "GEOMETRYCOLLECTION EMPTY",
    "LINESTRING (170 0, 190 10)",
    "POLYGON ((179 0, 179 1, -179 1, -179 0, 179 0))",
]


def require_parts_add_up(preparer: GeometryPreparer, dimensions: list[int]) -> None:
    """Reports by dimension are right each, and together the report of all."""
    whole = preparer.report()
    tables = sorted(set(dimensions) - {NO_DIMENSION}) or [NO_DIMENSION]
    parts = [preparer.report(table) for table in tables]
    for part, table in zip(parts, tables, strict=True):
        with_leading = NO_DIMENSION if table == tables[0] else table
        assert part["rows_out"] == sum(one in (table, with_leading) for one in dimensions)
        assert part["rows_out"] == part["rows_in"] + part["rows_added"] - part["rows_dropped"]
    for name, value in whole.items():
        if isinstance(value, int):
            assert sum(part[name] for part in parts) == value
        elif isinstance(value, dict) and "count" in value:
            assert sum(part[name]["count"] for part in parts) == value["count"]
    assert sum((Counter(part["invalid_reasons"]) for part in parts), Counter()) == whole["invalid_reasons"]


@given(
    st.lists(st.lists(st.sampled_from(_OK + _BAD), max_size=12), min_size=1, max_size=4),
    st.sampled_from(["drop", "keep"]),
    st.sampled_from(["repair", "drop", "keep"]),
    st.sampled_from([4326, 3857, 4258]),
)
def test_rows_in_and_out_add_up(batches: list[list[str | None]], nulls: str, invalid: str, target: int) -> None:
    preparer = GeometryPreparer(
        GeometryOptions.from_dict(
            {
                "null_geometries": nulls,
                "invalid_geometries": invalid,
                "impossible_coordinates": "drop",
                "collections": "split",
            }
        ),
        source_crs=pyproj.CRS.from_epsg(4326),
        target_crs=pyproj.CRS.from_epsg(target),
    )
    rows, home, nulls_at = 0, NO_DIMENSION, Counter[int]()
    dimensions: list[int] = []
    for batch in batches:
        prepared = preparer.prepare(wkb.from_shapely(of_wkt(*batch)), first_row=rows + 1)
        rows += len(batch)
        dimensions += prepared.dimension.tolist()
        source = np.arange(len(batch)) if prepared.source is None else prepared.source
        assert len(source) == len(prepared.wkb) == len(prepared.dimension)
        assert (np.diff(source) >= 0).all()
        geometries = wkb.to_shapely(prepared.wkb)
        assert wkb.is_plain(prepared.wkb).all()
        there = ~shapely.is_missing(geometries)
        assert (shapely.get_dimensions(geometries[there]) == prepared.dimension[there]).all()
        home = prepared.dimension[there].min() if there.any() else home
        assert (prepared.dimension[~there] == home).all()
        nulls_at[int(home)] += int((~there).sum())
    report = preparer.report()
    assert report["rows_in"] == rows
    assert report["rows_out"] == len(dimensions)
    assert report["rows_out"] == rows + report["rows_added"] - report["rows_dropped"]
    gone = ["collapsed", "dropped_invalid", "impossible", *(["null", "empty"] if nulls == "drop" else [])]
    assert report["rows_dropped"] == sum(report[name]["count"] for name in gone)
    for dimension in (POINT, LINE, AREA):
        assert preparer.facts(dimension).count == dimensions.count(dimension) - nulls_at[dimension]
    require_parts_add_up(preparer, dimensions)
    flat = [text for batch in batches for text in batch]
    assert report["null"]["count"] == flat.count(None)
    assert report["impossible"]["count"] == sum(text is not None and ("NaN" in text or "900" in text) for text in flat)
    json.dumps(report, allow_nan=False)


@given(st.lists(st.sampled_from(_OK[:2] + _OK[4:]), min_size=1, max_size=20), st.integers(0, 5))
def test_clean_rows_are_the_same_buffer(texts: list[str], start: int) -> None:
    column = wkb.from_shapely(of_wkt(*texts)).slice(min(start, len(texts) - 1))
    found = Prepared(column)
    assert found.result.wkb is column
    assert found.result.source is None
    assert not {name for name in found.changes if name != "filled_z"}


def test_examples_are_row_numbers_of_the_layer() -> None:
    preparer = GeometryPreparer(GeometryOptions(), source_crs=pyproj.CRS(4326), target_crs=pyproj.CRS(4326))
    for batch in range(3):
        preparer.prepare(wkb.from_shapely(of_wkt(*["POINT (1 2)", None] * 4)), first_row=batch * 8 + 1)
    assert preparer.report()["null"] == {"count": 12, "examples": [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]}


def test_a_report_of_one_dimension_tells_of_its_rows() -> None:
    lines = ["LINESTRING (1 1, 1 1)", "LINESTRING (170 0, -170 0)", "LINESTRING (0 0, 1 1)"]
    pair = "GEOMETRYCOLLECTION (POINT (1 2), POLYGON ((0 0, 1 0, 1 1, 0 0)))"
    found = Prepared([None, *lines, BOW_TIE, SQUARE, "POINT (190 0)", pair], collections="split")
    points, of_lines, areas = (found.preparer.report(one) for one in (POINT, LINE, AREA))
    assert [one["rows_in"] for one in (points, of_lines, areas)] == [3, 3, 2]
    assert [one["rows_out"] for one in (points, of_lines, areas)] == [2, 2, 3]
    assert points["null"] == {"count": 1, "examples": [1]}
    assert points["wrapped_longitudes"] == {"count": 1, "examples": [7]}
    assert points["split_collections"] == {"count": 1, "examples": [8]}
    assert of_lines["split_antimeridian"] == {"count": 1, "examples": [3]}
    assert of_lines["collapsed"] == {"count": 1, "examples": [2]}
    assert areas["repaired"] == {"count": 1, "examples": [5]}
    assert areas["invalid_reasons"] == {"Self-intersection": 1}
    assert [one["row"] for one in of_lines["invalid_examples"]] == [2]
    # without a table of lines, what became of them is told with the points
    only = Prepared([*lines[:1], SQUARE, "POINT (0 0)"])
    assert only.preparer.report(POINT)["collapsed"] == {"count": 1, "examples": [1]}
    assert only.preparer.report(AREA)["rows_dropped"] == 0


# fault 26


@pytest.mark.parametrize("rest", ["POINT (3 4)", "LINESTRING (3 4, 5 6)"])
def test_fault_26_null_and_empty_geometry(rest: str) -> None:
    empty = "POINT EMPTY" if rest.startswith("POINT") else "LINESTRING EMPTY"
    given = ["POINT (1 2)", None, empty, rest]
    dropped = Prepared(given)
    assert (dropped.wkt, dropped.source) == (["POINT (1 2)", rest], [0, 3])
    assert dropped.changes == {"null": (1, [2]), "empty": (1, [3])}
    kept = Prepared(given, null_geometries="keep")
    assert (kept.wkt, kept.source) == (["POINT (1 2)", None, None, rest], None)
    assert kept.result.dimension.tolist()[1:3] == [POINT, POINT]
    assert kept.changes == dropped.changes
    error = refused(given, null_geometries="refuse")
    assert error.code == "NULL_GEOMETRIES"
    assert "row 2 has no geometry" in str(error)
    error = refused(given[2:], null_geometries="refuse", first_row=3)
    assert "row 3 has an empty geometry" in str(error)


def test_fault_26_open_ring() -> None:
    column = pa.array([shapely.to_wkb(of_wkt(SQUARE)[0]), open_ring((0, 0), (1, 0), (1, 1), (0, 1))])
    found = Prepared(column)
    assert found.wkt == [SQUARE, SQUARE]
    assert found.changes == {"repaired": (1, [2])}
    assert found.report["invalid_reasons"] == {"Ring not closed": 1}
    assert Prepared(column, invalid_geometries="keep").changes == {"repaired": (1, [2])}
    assert Prepared(column, invalid_geometries="drop").changes == {"dropped_invalid": (1, [2])}
    assert "row 2: Ring not closed" in str(refused(column, invalid_geometries="refuse"))


@pytest.mark.parametrize("value", [b"\x01\x03\x00\x00\x00\x01", b"nothing", b"", struct.pack("<BII2d", 1, 2, 1, 1, 2)])
def test_fault_26_geometry_that_cannot_be_read(value: bytes) -> None:
    column = pa.array([value, *shapely.to_wkb(of_wkt("LINESTRING (1 2, 3 4)"))])
    for invalid in ("repair", "keep", "drop"):
        found = Prepared(column, invalid_geometries=invalid)
        assert (found.wkt, found.source) == (["LINESTRING (1 2, 3 4)"], [1])
        assert found.changes == {"dropped_invalid": (1, [1])}
        assert found.report["invalid_examples"] == [{"row": 1, "reason": "Unreadable"}]
    assert refused(column, invalid_geometries="refuse").code == "INVALID_GEOMETRIES"


@pytest.mark.parametrize(
    ("invalid", "area", "reason"),
    [
        (BOW_TIE, 0.5, "Self-intersection"),
        (
            "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 3 1, 3 3, 1 3, 1 1), (1.5 1.5, 2 1.5, 2 2, 1.5 1.5))",
            12.0,
            "Holes are nested",
        ),
        ("MULTIPOLYGON (((0 0, 2 0, 2 2, 0 2, 0 0)), ((1 0, 3 0, 3 2, 1 2, 1 0)))", 6.0, "Self-intersection"),
        ("POLYGON ((0 0, 2 0, 2 2, 1 2, 1 3, 1 2, 0 2, 0 0))", 4.0, "Self-intersection"),
    ],
)
def test_fault_26_self_intersection_bow_tie_nested_holes(invalid: str, area: float, reason: str) -> None:
    found = Prepared([SQUARE, invalid])
    expected = shapely.make_valid(of_wkt(invalid)[0], method="structure", keep_collapsed=False)
    assert shapely.equals(found.geometries[1], expected)
    assert found.geometries[1].area == pytest.approx(area)
    assert shapely.is_valid(found.geometries).all()
    assert found.changes == {"repaired": (1, [2])}
    assert found.report["invalid_reasons"] == {reason: 1}
    assert found.report["invalid_examples"][0]["reason"].startswith(f"{reason}[")
    assert Prepared([SQUARE, invalid], invalid_geometries="drop").source == [0]
    kept = Prepared([SQUARE, invalid], invalid_geometries="keep", orient=False)
    assert kept.result.wkb is kept.column
    assert kept.changes == {"kept_invalid": (1, [2])}
    error = refused([SQUARE, invalid], invalid_geometries="refuse")
    assert error.code == "INVALID_GEOMETRIES"
    assert f"row 2: {reason}" in str(error)


@pytest.mark.parametrize("flat", ["POLYGON ((0 0, 1 1, 2 2, 0 0))", "LINESTRING (1 1, 1 1)"])
def test_fault_26_what_collapses_is_dropped_and_said(flat: str) -> None:
    found = Prepared([SQUARE, flat])
    assert found.source == [0]
    assert found.changes == {"collapsed": (1, [2])}


def test_fault_26_nan_and_infinity() -> None:
    for text in ("POINT (NaN 1)", "POINT (1 Infinity)", "LINESTRING (1 2, NaN 3)", "MULTIPOINT ((1 2), (NaN 3))"):
        for crs in (4326, 25832):
            error = refused([text], source=crs)
            assert error.code == "COORDINATES_CONTRADICT_CRS"
            assert "row 1 has coordinates that are not finite" in str(error)
    found = Prepared(
        ["POINT (1 2)", "POINT (NaN 1)", "POINT Z (1 2 NaN)", "LINESTRING (NaN 1, 2 3)"], impossible_coordinates="drop"
    )
    assert found.source == [0, 2]
    assert found.changes == {"impossible": (2, [2, 4]), "flattened": (1, [])}


@pytest.mark.parametrize(
    ("given", "options", "dimensions", "flattened", "filled"),
    [
        (["POINT (1 2)", "POINT Z (1 2 3)"], "auto", "XYZ", 0, 1),
        (["POINT (1 2)", "POINT Z (1 2 0)", "POINT Z (1 2 NaN)"], "auto", "XY", 2, 0),
        (["POINT ZM (1 2 0 5)", "POINT Z (1 2 0)"], "auto", "XYM", 2, 0),
        (["POINT ZM (1 2 3 5)"], "auto", "XYZM", 0, 0),
        (["POINT ZM (1 2 3 5)"], "XY", "XY", 1, 0),
        (["POINT ZM (1 2 3 5)", "POINT (1 2)"], "XYZ", "XYZ", 1, 1),
        (["POINT Z (1 2 0)", "POINT M (1 2 0)"], "keep", "XYZM", 0, 1),
    ],
)
def test_fault_26_z_and_m(given: list[str], options: str, dimensions: str, flattened: int, filled: int) -> None:
    found = Prepared(given, dimensions=options)
    facts = found.preparer.facts(POINT)
    assert (facts.dimensions, facts.flattened, facts.filled_z) == (dimensions, flattened, filled)
    assert found.report["flattened"] == {"count": flattened}
    assert found.report["filled_z"] == {"count": filled}
    column = wkb.conform(found.result.wkb, type=facts.type, dimensions=facts.dimensions)
    assert {wkb.kinds_of(column)[at] // 1000 for at in range(len(column))} == {
        ("XY", "XYZ", "XYM", "XYZM").index(dimensions)
    }


def test_fault_26_z_and_m_survive_reprojection() -> None:
    shape = "LINESTRING ZM (500000 5300000 7 8, 500100 5300000 9 10)"
    found = Prepared([shape, "LINESTRING Z (500000 5300000 7, 500100 5300000 9)"], source=25832)
    coordinates = shapely.get_coordinates(found.geometries, include_z=True, include_m=True)
    np.testing.assert_array_equal(coordinates[:, 2], [7, 9, 7, 9])
    np.testing.assert_array_equal(coordinates[:2, 3], [8, 10])


@pytest.mark.parametrize("code", [8, 9, 10, 11, 12, 15, 16, 17])
def test_fault_26_curves_are_refused(code: int) -> None:
    arc = struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0)
    curve = struct.pack("<BII", 1, code, 0)
    inside = struct.pack("<BII", 1, 7, 1) + arc
    for value in (curve, inside):
        error = refused(pa.array([*shapely.to_wkb(of_wkt(SQUARE)), value]))
        assert error.code == "CURVES"
        assert "row 2 has" in str(error)


def test_fault_26_geometry_collection() -> None:
    nested = (
        "GEOMETRYCOLLECTION (POINT (1 2), POLYGON ((0 0, 1 0, 1 1, 0 0)),"
        " GEOMETRYCOLLECTION (MULTIPOINT ((3 3), (4 4)), POINT EMPTY, LINESTRING (0 0, 1 1)))"
    )
    error = refused(["POINT (1 2)", nested])
    assert error.code == "GEOMETRY_COLLECTION"
    assert "row 2 has a GeometryCollection" in str(error)
    found = Prepared(["POINT (1 2)", nested, SQUARE], collections="split")
    assert found.source == [0, 1, 1, 1, 2]
    assert found.wkt[1:4] == [
        "MULTIPOINT ((1 2), (3 3), (4 4))",
        "MULTILINESTRING ((0 0, 1 1))",
        "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))",
    ]
    assert found.result.dimension.tolist() == [POINT, POINT, LINE, AREA, AREA]
    assert found.changes == {"split_collections": (1, [2])}
    assert found.report["rows_added"] == 2


def test_fault_26_mixed_single_and_multi() -> None:
    found = Prepared([SQUARE, "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))", SQUARE, "POINT (1 2)"])
    facts = found.preparer.facts(AREA)
    assert facts.types == {"MultiPolygon": 1, "Polygon": 2}
    assert facts.type == "MultiPolygon"
    assert found.preparer.facts(POINT).type == "Point"
    assert found.preparer.facts(LINE).type == "Geometry"
    assert found.preparer.facts(LINE).count == 0


def test_fault_26_polygon_of_a_million_vertices() -> None:
    turn = np.linspace(0, 2 * np.pi, 1_000_000)
    radius = 1 + 0.3 * np.sin(turn * 4000)
    ring = np.column_stack([radius * np.cos(turn), radius * np.sin(turn)])
    ring[-1] = ring[0]
    column = wkb.from_shapely([shapely.Polygon(ring)])
    assert Prepared(column).result.wkb is column


@pytest.mark.parametrize("flavor", ["iso", "extended"])
@pytest.mark.parametrize("byte_order", [0, 1])
def test_any_flavour_of_wkb_becomes_plain(flavor: str, byte_order: int) -> None:
    shapes = shapely.set_srid(of_wkt("POINT Z (1 2 3)", SQUARE, "POINT (1 2)"), 4326)
    found = Prepared(
        pa.array(shapely.to_wkb(shapes, flavor=flavor, byte_order=byte_order, include_srid=flavor == "extended"))
    )
    assert wkb.is_plain(found.result.wkb).all()
    assert found.result.wkb.to_pylist() == shapely.to_wkb(shapes, flavor="iso").tolist()
    assert not {name for name in found.changes if name != "filled_z"}


# fault 25


@pytest.mark.parametrize("point", ["POINT (48 116)", "LINESTRING (48 116, 49 115)"])
def test_fault_25_latitude_and_longitude_swapped(point: str) -> None:
    error = refused(["POINT (1 2)", point])
    assert error.code == "COORDINATES_CONTRADICT_CRS"
    assert "row 2 has coordinates that look like latitude and longitude swapped" in str(error)
    assert "(row 2: 48, 116)" in str(error)
    assert Prepared(["POINT (1 2)", point], impossible_coordinates="drop").changes == {"impossible": (1, [2])}


ESRI_WKT = pyproj.CRS.from_epsg(25832).to_wkt("WKT1_ESRI")


@pytest.mark.parametrize(
    ("crs", "points"),
    [
        (4258, ["POINT (48 11)", "POINT (52 8)"]),
        (25832, ["POINT (5300000 500000)"]),
        (ESRI_WKT, ["POINT (5300000 500000)"]),
    ],
)
def test_fault_25_swapped_in_a_crs_of_a_region(crs: int, points: list[str]) -> None:
    error = refused(points, source=crs)
    assert error.code == "COORDINATES_CONTRADICT_CRS"
    assert "swapped" in str(error)
    assert f"EPSG:{crs if crs == 4258 else 25832}" in str(error)


def test_fault_25_metres_in_degrees() -> None:
    error = refused(["POINT (500000 5300000)"] * 7)
    assert error.code == "COORDINATES_CONTRADICT_CRS"
    assert "7 rows so far (1, 2, 3, 4, 5, …) have coordinates that look like metres" in str(error)


@pytest.mark.parametrize("crs", [25832, 3857, 3035, 2154])
def test_fault_25_degrees_in_metres(crs: int) -> None:
    for point in ("POINT (11 48)", "LINESTRING (11 48, 12 49)"):
        error = refused([point], source=crs)
        assert error.code == "COORDINATES_CONTRADICT_CRS"
        assert f"look like degrees, but the unit of EPSG:{crs} is the metre" in str(error)


@pytest.mark.parametrize("kind", ["POINT (11 48)", "LINESTRING (11 48, 12 49)", "LINESTRING (11 48, 500000 5300000)"])
@pytest.mark.parametrize("in_batch", [0, 2])
def test_fault_25_degrees_among_metres_in_any_batch(kind: str, in_batch: int) -> None:
    batches = [["POINT (500000 5300000)", "POINT (510000 5310000)"] for _ in range(3)]
    batches[in_batch] = [*batches[in_batch], kind] if in_batch == 0 else [kind]
    columns = [wkb.from_shapely(of_wkt(*batch)) for batch in batches]
    numbers = [1 + sum(len(one) for one in columns[:at]) for at in range(3)]
    wrong = numbers[in_batch] + len(columns[in_batch]) - 1

    def prepare(option: str) -> GeometryPreparer:
        preparer = GeometryPreparer(
            GeometryOptions.from_dict({"impossible_coordinates": option}),
            source_crs=pyproj.CRS.from_epsg(25832),
            target_crs=pyproj.CRS.from_epsg(4326),
        )
        for column, number in zip(columns, numbers, strict=True):
            preparer.prepare(column, first_row=number)
        return preparer

    with pytest.raises(VectorRefusedError, match=f"row {wrong} has coordinates that look like degrees") as error:
        prepare("refuse")
    assert error.value.code == "COORDINATES_CONTRADICT_CRS"
    assert prepare("drop").report()["impossible"] == {"count": 1, "examples": [wrong]}


def test_fault_25_metres_near_an_origin_that_is_used_are_no_degrees() -> None:
    # Web Mercator has its origin in the gulf of Guinea, the British grid off Cornwall
    assert "impossible" not in Prepared(["POINT (11 48)", "POINT (500000 5300000)"], source=3857).changes
    assert "impossible" not in Prepared(["POINT (100 80)", "POINT (400000 300000)"], source=27700).changes


@pytest.mark.parametrize("crs", [4978, 7789])
def test_fault_25_a_geocentric_crs_is_refused(crs: int) -> None:
    for source, target in ((crs, 4326), (4326, crs)):
        error = refused(["POINT Z (4177000 855000 4728000)"], source=source, target=target)
        assert error.code == "CRS_GEOCENTRIC"
        assert f"EPSG:{crs} is geocentric" in str(error)


@pytest.mark.parametrize("crs", [3031, "+proj=laea +lat_0=48 +lon_0=11 +type=crs"])
def test_fault_25_metres_near_an_origin_where_there_is_data_are_none_of_degrees(crs: Any) -> None:
    assert Prepared(["POINT (11 48)"], source=crs).changes == {"reprojected": (1, [1])}


@pytest.mark.parametrize("point", ["POINT (1e30 1)", "LINESTRING (1e30 1, 500000 5300000)"])
def test_fault_25_coordinates_that_do_not_transform(point: str) -> None:
    error = refused(["POINT (500000 5300000)", point], source=25832)
    assert error.code == "COORDINATES_CONTRADICT_CRS"
    assert "row 2 has coordinates that do not transform to EPSG:4326" in str(error)
    found = Prepared([point, "POINT (500000 5300000)"], source=25832, impossible_coordinates="drop")
    assert found.source == [1]
    assert found.changes == {"impossible": (1, [1]), "reprojected": (1, [2])}


LATLON_WKT = pyproj.CRS.from_epsg(4326).to_wkt()
CUSTOM_WKT = pyproj.CRS("+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +x_0=500000 +ellps=GRS80 +units=m +type=crs").to_wkt()


@pytest.mark.parametrize(
    ("crs", "xy"),
    [
        (25832, (691607.0, 5334760.0)),
        (3035, (4437000.0, 2779000.0)),
        (31468, (4468000.0, 5333000.0)),
        (3857, (1288000.0, 6129000.0)),
        ("EPSG:25832+7837", (691607.0, 5334760.0)),
        (CUSTOM_WKT, (691607.0, 5334760.0)),
    ],
)
@pytest.mark.parametrize("target", [4326, LATLON_WKT, 3857])
def test_fault_25_axis_order_and_reprojection_as_geopandas(crs: Any, xy: tuple[float, float], target: Any) -> None:
    shapes = [shapely.Point(xy), shapely.Point(xy).buffer(1000), shapely.Point(*xy, 520)]
    expected = geopandas.GeoSeries([*shapes[:2], shapes[0]], crs=crs).to_crs(target)
    for rows in ([0, 0], [0, 1, 2]):
        column = wkb.from_shapely([shapes[row] for row in rows])
        found = Prepared(column, source=crs, target=target, orient=False)
        for one, other in zip(found.geometries, expected.iloc[rows], strict=True):
            assert shapely.equals_exact(one, other, tolerance=1e-9 if target != 3857 else 1e-4)
    assert shapely.get_z(found.geometries[2]) == 520
    if target == 4326:
        x, y = shapely.get_coordinates(found.geometries[0])[0]
        assert (x, y) == pytest.approx((11.58, 48.14), abs=0.2)


def test_fault_25_grads_are_no_degrees() -> None:
    found = Prepared(["POINT (0 50)", "POINT (0 99)"], source=4807)
    assert shapely.get_coordinates(found.geometries).tolist()[0] == pytest.approx([2.337, 45], abs=0.01)
    assert refused(["POINT (0 101)"], source=4807).code == "COORDINATES_CONTRADICT_CRS"


def test_fault_25_a_grid_that_is_not_here_is_said() -> None:
    found = Prepared(["POINT (4468000 5333000)"], source=31468)
    assert any("needs grid files that are not installed" in note for note in found.report["notes"])
    assert Prepared(["POINT (500000 5300000)"], source=25832).report["notes"] == []


def test_fault_25_compound_crs_leaves_heights_alone_and_says_so() -> None:
    found = Prepared(["POINT Z (691607 5334760 520)"], source="EPSG:25832+7837")
    assert shapely.get_z(found.geometries[0]) == 520
    assert "heights were left as they are" in found.report["notes"][0]


@pytest.mark.parametrize(
    ("source", "target"), [(4326, "OGC:CRS84"), (4326, LATLON_WKT), (4258, 4326), (4979, 4326), (25832, 25832)]
)
def test_fault_25_crs_that_are_the_same_change_no_byte(source: Any, target: Any) -> None:
    given = ["POINT (500000 5300000)"] if source == 25832 else ["POINT (11 48)"]
    found = Prepared(given, source=source, target=target)
    assert found.result.wkb is found.column
    assert found.changes == {}


def test_fault_25_a_local_crs_has_no_way_anywhere() -> None:
    local = pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(VectorRefusedError, match="no way from the CRS site to EPSG:4326") as error:
        GeometryPreparer(GeometryOptions(), source_crs=local, target_crs=pyproj.CRS(4326))
    assert error.value.code == "CRS_UNUSABLE"


# fault 27


def test_fault_27_latitude_900() -> None:
    for point in ("POINT (10 900)", "LINESTRING (10 900, 11 50)"):
        error = refused([point])
        assert error.code == "COORDINATES_CONTRADICT_CRS"
        assert "no longitude and latitude" in str(error)
        assert "(row 1: 10, 900)" in str(error)


def test_fault_27_longitudes_from_0_to_360() -> None:
    found = Prepared(["POINT (190 5)", "POINT (180 1)", "POINT (-190 5)", "POINT (360 0)"])
    assert found.wkt == ["POINT (-170 5)", "POINT (180 1)", "POINT (170 5)", "POINT (0 0)"]
    assert found.changes == {"wrapped_longitudes": (3, [1, 3, 4])}
    found = Prepared(["MULTIPOINT ((190 5), (10 5))", "LINESTRING ZM (200 1 2 3, 210 2 3 4)", SQUARE])
    assert found.wkt == ["MULTIPOINT ((-170 5), (10 5))", "LINESTRING ZM (-160 1 2 3, -150 2 3 4)", SQUARE]
    assert found.changes["wrapped_longitudes"] == (2, [1, 2])
    shifted = Prepared(["POLYGON ((180 0, 200 0, 200 10, 180 10, 180 0))", "LINESTRING (-180 0, -180 10, 180 20)"])
    assert shapely.bounds(shifted.geometries[0]).tolist() == [-180, 0, -160, 10]
    on_line = Prepared(["MULTILINESTRING ((180 0, 180 1), (190 0, 200 0))"])
    assert on_line.wkt == ["MULTILINESTRING ((180 0, 180 1), (-170 0, -160 0))"]
    world = Prepared(["POLYGON ((0 -90, 360 -90, 360 90, 0 90, 0 -90))"])
    assert shapely.equals(world.geometries[0], shapely.box(-180, -90, 180, 90))
    kept = Prepared(["POINT (190 5)", "LINESTRING (170 0, 190 10)"], antimeridian=False)
    assert kept.result.wkb is kept.column


@pytest.mark.parametrize(
    "crossing",
    [
        "POLYGON ((170 0, 190 0, 190 10, 170 10, 170 0))",
        "POLYGON ((170 0, -170 0, -170 10, 170 10, 170 0))",
        "POLYGON ((170 0, -180 0, -170 0, -170 10, 170 10, 170 0))",
        "POLYGON ((-190 0, -170 0, -170 10, -190 10, -190 0))",
        "MULTIPOLYGON (((170 0, -170 0, -170 10, 170 10, 170 0)))",
    ],
)
def test_fault_27_areas_across_the_antimeridian(crossing: str) -> None:
    found = Prepared([crossing, SQUARE])
    expected = of_wkt(
        "MULTIPOLYGON (((170 0, 180 0, 180 10, 170 10, 170 0)), ((-180 0, -170 0, -170 10, -180 10, -180 0)))"
    )
    assert shapely.equals(found.geometries[0], expected[0])
    assert found.changes == {"split_antimeridian": (1, [1])}
    assert found.report["invalid_reasons"] == {}


def test_fault_27_holes_across_the_antimeridian() -> None:
    shell, inside = "170 0, -170 0, -170 10, 170 10, 170 0", "172 1, 172 2, 173 2, 172 1"
    found = Prepared([f"POLYGON (({shell}), (-175 2, 175 2, 175 8, -175 8, -175 2), ({inside}))"])
    assert found.geometries[0].area == pytest.approx(200 - 60 - 0.5)
    assert found.geometries[0].geom_type == "MultiPolygon"
    assert shapely.is_valid(found.geometries[0])


def test_fault_27_lines_across_the_antimeridian_keep_their_height_and_cross_themselves() -> None:
    found = Prepared(["LINESTRING Z (179 0 1, -179 1 2)", "LINESTRING (170 0, -175 10, -175 0, 171 10)"])
    assert found.wkt[0] == "MULTILINESTRING Z ((179 0 1, 180 0.5 1.5), (-180 0.5 1.5, -179 1 2))"
    assert len(found.geometries[1].geoms) == 3
    assert found.changes["split_antimeridian"] == (2, [1, 2])


def test_fault_27_what_only_touches_the_antimeridian_is_not_cut() -> None:
    given = ["POLYGON ((170 0, -180 0, -180 1, 170 1, 170 0))", "POLYGON ((170 0, 180 0, 180 1, 170 1, 170 0))"]
    found = Prepared(given)
    assert found.wkt == [given[1], given[1]]
    assert found.changes == {"wrapped_longitudes": (1, [1])}


@pytest.mark.parametrize(
    "whole",
    [
        "POLYGON ((-180 -90, 180 -90, 180 90, -180 90, -180 -90))",
        "POLYGON ((-180 -90, 180 -90, 180 -70, 0 -65, -180 -70, -180 -90))",
        "MULTIPOLYGON (((170 0, 180 0, 180 1, 170 1, 170 0)), ((-180 0, -170 0, -170 1, -180 1, -180 0)))",
        "POLYGON ((-170 0, 0 0, 170 0, 170 10, 0 10, -170 10, -170 0))",
    ],
)
def test_fault_27_what_is_in_range_already_stays(whole: str) -> None:
    found = Prepared([whole])
    assert found.result.wkb is found.column
    assert found.changes == {}


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("pole", [90, -90])
def test_fault_27_areas_round_a_pole(pole: int, clockwise: bool) -> None:  # noqa: FBT001
    longitudes = np.array([0, 60, 120, 180, -120, -60, 0])[:: -1 if clockwise else 1]
    outer, inner = (np.column_stack([longitudes, np.full(7, latitude * pole / 90)]) for latitude in (60, 80))
    found = Prepared(wkb.from_shapely([shapely.Polygon(outer), shapely.Polygon(outer, [inner])]))
    assert shapely.equals(found.geometries[0], shapely.box(-180, min(pole, pole * 2 / 3), 180, max(pole, pole * 2 / 3)))
    assert found.geometries[1].area == pytest.approx(360 * 20)
    assert shapely.is_valid(found.geometries).all()
    assert found.changes["split_antimeridian"] == (2, [1, 2])


def test_fault_27_an_invalid_area_round_a_pole() -> None:
    spike = "POLYGON ((0 60, 90 60, 90 50, 90 60, 180 60, -90 60, 0 60))"
    found = Prepared([spike])
    assert shapely.equals(found.geometries[0], shapely.box(-180, 60, 180, 90))


@pytest.mark.parametrize(("crs", "pole"), [(3031, -90), (3413, 90)])
def test_fault_27_a_polar_projection(crs: int, pole: int) -> None:
    cap = shapely.Point(0, 0).buffer(1_000_000)
    beside = shapely.Point(1_200_000, 300_000).buffer(100_000)
    found = Prepared(wkb.from_shapely([cap, beside]), source=crs)
    west, south, east, north = shapely.bounds(found.geometries[0])
    assert (west, east) == (-180, 180)
    assert pole in (south, north)
    assert found.changes["split_antimeridian"] == (1, [1])
    np.testing.assert_allclose(
        shapely.bounds(found.geometries[1]), geopandas.GeoSeries([beside], crs=crs).to_crs(4326).total_bounds
    )


@given(st.integers(0, 359), st.integers(-60, 60), st.integers(3, 9), st.floats(1, 25))
def test_cutting_agrees_with_the_antimeridian_library(lon: int, lat: int, corners: int, radius: float) -> None:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = np.column_stack([(lon + radius * np.cos(turn) + 180) % 360 - 180, lat + radius * np.sin(turn)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = antimeridian.fix_polygon(shapely.Polygon(ring), great_circle=False)
    found = Prepared(wkb.from_shapely([shapely.Polygon(ring)]), invalid_geometries="keep")
    assert shapely.symmetric_difference(found.geometries[0], shapely.make_valid(expected)).area < 1e-4


def test_fault_27_invalid_areas_across_the_antimeridian() -> None:
    bow_tie = ["POLYGON ((170 0, 190 10, 170 10, 190 0, 170 0))"]
    kept = Prepared(bow_tie, invalid_geometries="keep", orient=False)
    assert kept.result.wkb is kept.column
    assert kept.changes == {"kept_invalid": (1, [1])}
    repaired = Prepared(bow_tie)
    assert repaired.geometries[0].area == pytest.approx(100)
    assert repaired.changes == {"repaired": (1, [1]), "split_antimeridian": (1, [1])}


# winding


def test_only_rings_that_are_wound_wrongly_are_turned() -> None:
    wrong = "POLYGON ((0 0, 0 4, 4 4, 4 0, 0 0), (1 1, 2 1, 2 2, 1 1))"
    found = Prepared([SQUARE, wrong])
    assert found.result.wkb[0] == found.column[0]
    polygon = found.geometries[1]
    assert shapely.is_ccw(polygon.exterior)
    assert not shapely.is_ccw(polygon.interiors[0])
    assert shapely.equals(polygon, of_wkt(wrong)[0])
    assert found.changes == {"reoriented": (1, [2])}
    assert Prepared([SQUARE, wrong], orient=False).changes == {}


# against independent readers, and speed


def _random(kind: str, rows: int) -> npt.NDArray[np.object_]:
    rng = np.random.default_rng(5)
    centres = rng.uniform([6.5, 47.5], [11.5, 54.5], (rows, 2))
    points = shapely.points(centres)
    made = points if kind == "points" else shapely.buffer(points, 0.001, quad_segs=3)
    return np.asarray(made, object)


@pytest.mark.parametrize("kind", ["points", "areas"])
@pytest.mark.parametrize("crs", [25832, 3857, 31467, 4277])
def test_many_rows_are_reprojected_as_by_pyproj(kind: str, crs: int) -> None:
    given = _random(kind, 2000)
    transformer = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    there = shapely.transform(given, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    found = Prepared(wkb.from_shapely(there), source=crs, orient=False)
    back = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    expected = np.column_stack(back.transform(*shapely.get_coordinates(there).T))
    np.testing.assert_array_equal(shapely.get_coordinates(found.geometries), expected)
    assert found.report["reprojected"] == {"count": 2000, "examples": list(range(1, 11))}


def test_clean_points_and_areas_are_looked_at_quickly() -> None:
    # a tenth of the sizes that are measured by benchmarks, with room for others at work
    for kind, rows in (("points", 100_000), ("areas", 30_000)):
        column = wkb.from_shapely(_random(kind, rows))
        started = time.perf_counter()
        assert Prepared(column, orient=False).result.wkb is column
        assert time.perf_counter() - started < 1


def test_what_reprojection_makes_invalid_is_repaired_and_counted() -> None:
    # a hole some nanometres wide is one in metres, and too few points in degrees
    corner = np.array([-2_000_000.0, 2_000_000.0])
    hole = corner + 100 + np.array([[0, 0], [0, 5e-10], [5e-10, 5e-10], [0, 0]])
    shell = corner + np.array([[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]])
    shapes = np.array([shapely.Polygon(shell, [hole])], object)
    assert shapely.is_valid(shapes).all()
    preparer = GeometryPreparer(
        GeometryOptions(), source_crs=pyproj.CRS.from_epsg(5070), target_crs=pyproj.CRS.from_epsg(4326)
    )
    prepared = preparer.prepare(wkb.from_shapely(shapes), first_row=1)
    assert shapely.is_valid(wkb.to_shapely(prepared.wkb)).all()
    report = preparer.report()
    assert report["repaired_moved"] == {"count": 1, "examples": [1]}
    assert report["repaired"]["count"] == 0


_NANOMETRES = np.array([-2_000_000.0, 2_000_000.0])


def valid_only_in_metres() -> Any:
    hole = _NANOMETRES + 100 + np.array([[0, 0], [0, 5e-10], [5e-10, 5e-10], [0, 0]])
    shell = _NANOMETRES + np.array([[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]])
    return wkb.from_shapely([shapely.Polygon(shell, [hole]), shapely.Polygon(shell)])


def test_what_reprojection_makes_invalid_is_dropped_or_refused_where_that_is_wanted() -> None:
    dropped = Prepared(valid_only_in_metres(), source=5070, invalid_geometries="drop")
    assert dropped.source == [1]
    assert dropped.changes["dropped_invalid"] == (1, [1])
    assert "repaired_moved" not in dropped.changes
    assert dropped.report["invalid_reasons"]
    assert dropped.report["rows_dropped"] == 1
    error = refused(valid_only_in_metres(), source=5070, invalid_geometries="refuse")
    assert error.code == "INVALID_GEOMETRIES"
    assert "row 1" in str(error)
    kept = Prepared(valid_only_in_metres(), source=5070, invalid_geometries="keep")
    assert kept.source is None


def test_m_and_z_that_are_lost_on_the_way_are_counted() -> None:
    cut = ["LINESTRING M (0 0 1, 1 1 2)", "LINESTRING M (170 0 1, -170 0 2)", "LINESTRING ZM (170 0 1 1, 190 0 2 2)"]
    found = Prepared(cut)
    assert shapely.has_m(found.geometries).tolist() == [True, False, False]
    assert found.changes["lost_m"] == (2, [2, 3])
    assert "lost_z" not in found.changes
    tie = "POLYGON ZM ((0 0 1 1, 1 1 2 2, 0 1 3 3, 1 0 4 4, 0 0 1 1))"
    found = Prepared([SQUARE, tie])
    assert found.changes["repaired"] == (1, [2])
    unknown = np.isnan(shapely.get_coordinates(found.geometries[1:], include_z=True, include_m=True)).any(axis=0)
    assert {name for name in ("lost_z", "lost_m") if name in found.changes} == {
        name for name, lost in zip(("lost_z", "lost_m"), unknown[2:], strict=True) if lost
    }
    assert found.changes["lost_m"] == (1, [2])
