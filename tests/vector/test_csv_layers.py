"""CSV as layers: against OGR, by properties, and by the faults of real files."""

import csv
import datetime as dt
import io
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import csv_layers
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SchemaWidenedError
from geo_assets.vector.text_values import WHOLE
from tests.vector import reading
from tests.vector.reading import column, wkt
from tests.vector.vectors import real


def opened(path: Path, text: str | bytes | None = None, **options: Any) -> Layer:
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    (layer,) = csv_layers.open_layers(path, stem=path.stem, **options)
    return layer


def read(path: Path, text: str | bytes | None = None, **options: Any) -> tuple[Layer, pa.Table]:
    return reading.read(lambda types: opened(path, text, types=types, **options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places.csv"


# --- against another reader ------------------------------------------------------------------------------------


def test_cities_are_those_that_pandas_reads() -> None:
    layer, table = read(real("world_cities.csv"), lat_name="lat", lon_name="lng")
    wanted = pd.read_csv(
        real("world_cities.csv"), dtype={"admin1": str, "admin2": str}, keep_default_na=False, na_values={"": ""}
    )
    assert table.num_rows == len(wanted) == 171_075
    for name in ("name", "country", "admin1", "admin2"):
        assert column(table, name) == [value or None for value in wanted[name]], name
    points = shapely.from_wkb(table[GEOMETRY].to_numpy())
    np.testing.assert_array_equal(shapely.get_coordinates(points), wanted[["lng", "lat"]].to_numpy())
    assert column(table, "lat") == wanted["lat"].tolist()
    assert layer.crs is not None
    assert layer.crs.to_epsg() == 4326
    assert "NA" in column(table, "country")  # Namibia


def test_states_are_those_that_ogr_reads() -> None:
    layer, table = read(real("us_states_wkt.csv"), wkt_column="wkt")
    wanted = geopandas.read_file(real("us_states_wkt.csv"), engine="pyogrio")
    assert table.column_names == ["id", "name", GEOMETRY]
    assert column(table, "id") == wanted["id"].tolist()  # "04" stays text
    expected = shapely.from_wkt(wanted["wkt"])
    assert shapely.equals_exact(shapely.from_wkb(table[GEOMETRY].to_numpy()), expected).all()
    assert any("EPSG:4326" in note for note in layer.notes)


CELLS = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8), st.just('a "b", c\nd')
)


@settings(max_examples=40)
@given(rows=st.lists(st.tuples(CELLS, st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20))
def test_what_was_written_is_read(tmp_path_factory: Any, rows: list[tuple[str | None, float, float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NOTNULL)
    writer.writerow(["what", "lat", "lon"])
    writer.writerows([(f"_{what}" if what is not None else None, lat, lon) for what, lat, lon in rows])
    _, table = read(tmp_path_factory.mktemp("written") / "a.csv", text.getvalue(), encoding="utf-8", delimiter=",")
    assert column(table, "what") == [None if what is None else f"_{what}" for what, _, _ in rows]
    assert column(table, "lat") == [lat for _, lat, _ in rows]
    points = shapely.get_coordinates(shapely.from_wkb(table[GEOMETRY].to_numpy()))
    np.testing.assert_array_equal(points, [(lon, lat) for _, lat, lon in rows])


# --- types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        (["1", "-2", ""], pa.int64(), [1, -2, None]),
        (["1", "2.5"], pa.float64(), [1.0, 2.5]),
        (["9223372036854775808", "1"], WHOLE, [Decimal(9223372036854775808), Decimal(1)]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (["00123", "99950"], pa.string(), ["00123", "99950"]),
        (["+4930123", "+4989"], pa.string(), ["+4930123", "+4989"]),
        (["0x1F", "0x2A"], pa.string(), ["0x1F", "0x2A"]),
        (["1e999"], pa.string(), ["1e999"]),
        (["true", "FALSE", ""], pa.bool_(), [True, False, None]),
        (["yes", "no"], pa.string(), ["yes", "no"]),
        (["0", "1"], pa.int64(), [0, 1]),
        (["NA", "1"], pa.string(), ["NA", "1"]),
        (["NaN"], pa.string(), ["NaN"]),
        (['""', "a", ""], pa.string(), ["", "a", None]),
        (['""', '"5"', ""], pa.int64(), [None, 5, None]),
        (["2024-02-29", ""], pa.date32(), [dt.date(2024, 2, 29), None]),
        (["0000-01-01"], pa.string(), ["0000-01-01"]),
        (["20000-01-01"], pa.string(), ["20000-01-01"]),
        (["2024-02-30"], pa.string(), ["2024-02-30"]),
        (["2024-01-01T10:00:00", "2024-01-02 11:30"], pa.timestamp("us"), None),
        (["2024-01-01T10:00:00Z", "2024-01-02T10:00:00+02:00"], pa.timestamp("us", "UTC"), None),
        (["2024-01-01T10:00:00Z", "2024-01-02T10:00:00"], pa.string(), None),
        (["=cmd|' /C calc'!A0", "@SUM(1)"], pa.string(), ["=cmd|' /C calc'!A0", "@SUM(1)"]),
        (["", ""], pa.string(), [None, None]),
    ],
)
def test_a_column_has_the_type_of_all_its_values(
    path: Path, values: list[str], kind: pa.DataType, wanted: list[Any] | None
) -> None:
    _, table = read(path, "v,lat,lon\n" + "".join(f"{value},1,2\n" for value in values))
    assert table.schema.field("v").type == kind
    if wanted is not None:
        assert column(table, "v") == wanted


LONG = 20_000
"""Rows after which a second block has begun, with small blocks."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_layers, "_BLOCKS", (64 * 1024, 1024 * 1024, 32 * 1024 * 1024))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("early", "late", "kind", "shown"),
    [
        ("1", "1.5", pa.float64(), None),
        ("1", "9223372036854775808", WHOLE, None),
        ("1", "007", pa.string(), "'007'"),
        ("", "2024-01-01", pa.date32(), None),
        ("2024-01-01", "soon", pa.string(), "'soon'"),
        ("9007199254740993", "1.5", pa.string(), "'1.5'"),
    ],
)
def test_a_later_value_widens_a_column_and_a_note_names_its_row(
    path: Path, early: str, late: str, kind: pa.DataType, shown: str | None
) -> None:
    text = "v,lat,lon\n" + f"{early},10.25,20.5\n" * LONG + f"{late},1,2\n"
    layer = opened(path, text)
    with pytest.raises(SchemaWidenedError, match="'v'"):
        list(layer.batches())
    layer, table = read(path, text)
    assert table.schema.field("v").type == kind
    assert table.num_rows == LONG + 1
    notes = [note for note in layer.notes if "'v'" in note]
    assert notes == [] if shown is None else f"row {LONG + 1:,} is {shown}" in notes[0]


@pytest.mark.usefixtures("small_blocks")
def test_all_columns_are_widened_by_one_new_start(path: Path) -> None:
    rows = [f"{at},{at},10.5,20.5\n" for at in range(LONG)]
    rows[LONG // 2] = "1.5,1,10.5,20.5\n"
    rows[-1] = "1,x,10.5,20.5\n"
    layer = opened(path, "a,b,lat,lon\n" + "".join(rows))
    with pytest.raises(SchemaWidenedError) as caught:
        list(layer.batches())
    assert caught.value.types == {"a": pa.float64(), "b": pa.string()}


# --- geometry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("lat,lon", "POINT (2 1)"),
        ("Latitude,LONGITUDE", "POINT (2 1)"),
        ("latitude,lng", "POINT (2 1)"),
        ("y,x", "POINT (2 1)"),
        (" lat , long ", "POINT (2 1)"),
    ],
)
def test_coordinates_are_found_by_their_usual_names(path: Path, header: str, found: str) -> None:
    layer, table = read(path, f"{header}\n1,2\n")
    assert wkt(table) == [found]
    assert [one.name for one in layer.fields] == header.split(",")  # they stay attributes
    assert any("were found in columns" in note for note in layer.notes)


def test_wkt_wins_over_coordinates(path: Path) -> None:
    _, table = read(path, "lat,lon,shape\n1,2,POINT (5 6)\n", wkt_column="shape", lat_name="lat", lon_name="lon")
    assert wkt(table) == ["POINT (5 6)"]
    assert table.column_names == ["lat", "lon", GEOMETRY]


def test_bad_coordinates_give_no_geometry_and_are_counted_with_their_rows(path: Path) -> None:
    layer, table = read(path, "n,lat,lon\n1,5,6\n2,,6\n3,here,there\n4,nan,1\n5, 7 ,+8\n6,inf,2\n")
    assert wkt(table) == ["POINT (6 5)", None, None, None, "POINT (8 7)", None]
    notes = " ".join(layer.notes)
    assert "1 without a geometry, as a coordinate is empty (row 2)" in notes
    assert "3 without a geometry, as a coordinate is no number (rows 3, 4, 6)" in notes


def test_bad_wkt_gives_no_geometry_and_is_counted(path: Path) -> None:
    text = 'wkt,n\n"POINT (1 2)",1\n"POINT (1",2\n,3\n"POLYGON Z ((0 0 1,1 0 1,1 1 1,0 0 1))",4\n'
    layer, table = read(path, text)
    assert wkt(table) == ["POINT (1 2)", None, None, "POLYGON Z ((0 0 1, 1 0 1, 1 1 1, 0 0 1))"]
    assert "1 without a geometry, as its text is neither WKT nor hexadecimal WKB (row 2)" in layer.notes
    assert "1 without a geometry, as its text is empty (row 3)" in layer.notes


def test_ewkt_and_hexadecimal_wkb_say_their_crs(path: Path) -> None:
    shape = shapely.set_srid(shapely.Point(400_000, 5_700_000), 25832)
    text = f"geom,n\nSRID=25832;POINT (400000 5700000),1\n{shapely.to_wkb(shape, hex=True, include_srid=True)},2\n"
    layer, table = read(path, text)
    assert layer.crs is not None
    assert layer.crs.to_epsg() == 25832
    assert wkt(table) == ["POINT (400000 5700000)"] * 2
    assert {len(value) for value in column(table, GEOMETRY)} == {21}  # ISO WKB, which has no SRID


def test_two_crs_in_one_column_are_refused(path: Path) -> None:
    layer = opened(path, "geom\nSRID=4326;POINT (1 2)\nSRID=25832;POINT (400000 5700000)\n")
    with pytest.raises(VectorRefusedError, match="25832"):
        list(layer.batches())


@pytest.mark.parametrize(
    "curve",
    [
        "CIRCULARSTRING (0 0, 1 1, 2 0)",
        "CURVEPOLYGON (CIRCULARSTRING (0 0, 1 1, 2 0, 1 -1, 0 0))",
        "MULTISURFACE (CURVEPOLYGON (CIRCULARSTRING (0 0, 1 1, 2 0, 1 -1, 0 0)))",
        "GEOMETRYCOLLECTION (CIRCULARSTRING (0 0, 1 1, 2 0))",
        struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0).hex(),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_curves_are_refused_wherever_they_are(path: Path, curve: str) -> None:
    wanted = [0, 10_000]
    if curve.startswith("GEOMETRYCOLLECTION"):
        wanted = [0]  # later what prepares geometries refuses it
    for before in wanted:
        with pytest.raises(VectorRefusedError, match="CONVERT_TO_LINEAR") as error:
            read(path, "wkt,n\n" + "POINT (1 2),1\n" * before + f'"{curve}",2\n')
        assert error.value.code == "CURVES"


def test_metres_without_a_crs_are_not_called_degrees(path: Path) -> None:
    assert opened(path, "x,y\n400000,5700000\n").crs is None
    assert opened(path, "wkt\nPOINT (400000 5700000)\n").crs is None


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"wkt_column": "nope"}, "nope"),
        ({"lat_name": "a", "lon_name": "nope"}, "nope"),
        ({"lat_name": "a"}, "only one"),
    ],
)
def test_columns_that_are_named_but_not_there_are_refused(path: Path, options: dict[str, str], missing: str) -> None:
    with pytest.raises(VectorRefusedError, match=missing):
        opened(path, "a,b\n1,2\n", **options)


# --- faults ----------------------------------------------------------------------------------------------------


def test_fault_31_lat_lon_absent(path: Path) -> None:
    with pytest.raises(VectorRefusedError) as caught:
        opened(path, "a,b\n1,2\n")
    message = str(caught.value)
    assert "CSV conversion requires either 'wkt_column' or both 'lat_name' and 'lon_name'" in message
    assert "'a', 'b'" in message


def test_fault_31_decimal_comma(path: Path) -> None:
    layer, table = read(
        path, "ort;lat;lon;hoehe;einwohner\nKöln;50,94;6,96;37,5;1.073.096\nUlm;48,4;9,99;478;126.405\n"
    )
    assert wkt(table) == ["POINT (6.96 50.94)", "POINT (9.99 48.4)"]
    assert column(table, "hoehe") == [37.5, 478.0]
    assert column(table, "einwohner") == ["1.073.096", "126.405"]  # points for thousands: text, not 126.405
    assert "Numbers have a decimal comma" in layer.notes


def test_fault_31_thousands_with_commas_are_no_decimals(path: Path) -> None:
    _, table = read(path, "lat;lon;people\n1.5;2.5;1,234\n1.5;2.5;12,345\n")
    assert column(table, "people") == ["1,234", "12,345"]


def test_fault_31_quoted_newlines(path: Path) -> None:
    _, table = read(path, 'note,"two\nlines",lat,lon\r\n"a\nb, ""c""",x,1,2\r\nd,y,3,4\r\n')
    assert table.column_names == ["note", "two\nlines", "lat", "lon", GEOMETRY]
    assert column(table, "note") == ['a\nb, "c"', "d"]
    assert wkt(table) == ["POINT (2 1)", "POINT (4 3)"]


def test_fault_31_one_column(path: Path) -> None:
    _, table = read(path, 'wkt\n"POINT (1 2)"\n"LINESTRING (0 0, 1 1)"\n')
    assert table.column_names == [GEOMETRY]
    assert wkt(table) == ["POINT (1 2)", "LINESTRING (0 0, 1 1)"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(path: Path, delimiter: str) -> None:
    rows = [["name", "lat", "lon", "text"], ["a", "1.5", "2.5", '"x, y; z"'], ["b", "3", "4", "w"]]
    _, table = read(path, "\n".join(delimiter.join(row) for row in rows))
    assert column(table, "text") == ["x, y; z", "w"]


def test_the_delimiter_given_is_used(path: Path) -> None:
    _, table = read(path, "a:lat:lon\nx,1:2:3\n", delimiter=":")
    assert column(table, "a") == ["x,1"]
    with pytest.raises(VectorRefusedError, match="one character"):
        opened(path, "lat,lon\n1,2\n", delimiter="::")


@pytest.mark.parametrize("row", ["1,2,3,4\n", "1,2\n"])
def test_ragged_rows_are_errors_that_name_the_row(path: Path, row: str) -> None:
    with pytest.raises(VectorUnreadableError, match=r"Row 3 of places.csv has . values"):
        opened(path, "a,lat,lon\n1,2,3\n4,5,6\n" + row)


@pytest.mark.usefixtures("small_blocks")
def test_a_ragged_row_far_down_is_an_error(path: Path) -> None:
    layer = opened(path, "a,lat,lon\n" + "12,34.5,67.5\n" * LONG * 2 + "1,2\n")
    with pytest.raises(VectorUnreadableError, match=f"Row {LONG * 2 + 1:,} of"):
        list(layer.batches())


def test_header_only(path: Path) -> None:
    layer, table = read(path, "name,lat,lon\n")
    assert table.num_rows == 0
    assert [one.type for one in layer.fields] == [pa.string()] * 3


@pytest.mark.parametrize("text", ["", "\n", "\ufeff"])
def test_a_file_without_a_header_row_is_refused(path: Path, text: str) -> None:
    with pytest.raises(VectorRefusedError):
        opened(path, text)


def test_fault_24_names_that_are_empty_or_repeat_are_kept_as_they_are(path: Path) -> None:
    layer, table = read(path, ",a,a,A,id,geom,lat,lon\n1,2,x,4,5,6,7,8\n")
    assert [one.name for one in layer.fields] == ["", "a", "a", "A", "id", "geom", "lat", "lon"]
    assert [values.to_pylist() for values in table.columns[:4]] == [[1], [2], ["x"], [4]]


def test_fault_24_two_thousand_columns(path: Path) -> None:
    names = [f"c{at}" for at in range(2000)]
    layer, table = read(path, ",".join([*names, "lat", "lon"]) + "\n" + ",".join(map(str, range(2002))) + "\n")
    assert len(layer.fields) == 2002
    assert column(table, "c1999") == [1999]


@pytest.mark.parametrize(
    ("encoding", "word", "noted"),
    [
        ("utf-8", "Köln", False),
        ("utf-8-sig", "Köln", False),
        ("utf-16", "Köln 北京", False),
        ("utf-16-le", "Köln", True),
        ("utf-16-be", "Köln", True),
        ("cp1252", "Köln Straße »9«", True),
        ("gb18030", "北京市朝阳区", True),
        ("cp1251", "Санкт-Петербург", True),
    ],
)
def test_fault_28_encodings(path: Path, encoding: str, word: str, noted: bool) -> None:  # noqa: FBT001
    layer, table = read(path, f"name,lat,lon\n{word},1,2\nplain,3,4\n".encode(encoding))
    assert column(table, "name") == [word, "plain"]
    assert any("encoding was guessed" in note for note in layer.notes) == noted


def test_fault_28_a_delimiter_byte_within_a_gbk_character(path: Path) -> None:
    word = next(chr(code) for code in range(0x4E00, 0x9FFF) if b"|" in chr(code).encode("gbk", "ignore"))
    _, table = read(path, f"name|lat|lon\n{word}|1|2\n".encode("gbk"), encoding="gbk", delimiter="|")
    assert column(table, "name") == [word]


def test_fault_28_bytes_that_do_not_decode_later_are_named(path: Path) -> None:
    text = b"name,lat,lon\n" + b"abcdefgh,1.25,2.25\n" * 300_000 + b"K\xf6ln,1,2\n"
    with pytest.raises(VectorUnreadableError, match=r"Byte 5,700,014 .* .line 300,002.*utf-8.*'encoding'"):
        list(opened(path, text).batches())


def test_fault_28_an_encoding_that_is_none_is_refused(path: Path) -> None:
    for encoding in ("klingon", "zip", "hex"):
        with pytest.raises(VectorRefusedError, match=encoding):
            opened(path, "lat,lon\n1,2\n", encoding=encoding)


def test_fault_28_nul_in_text_is_kept(path: Path) -> None:
    _, table = read(path, b"name,lat,lon\na\0b,1,2\nc,3,4\n")
    assert column(table, "name") == ["a\0b", "c"]


# --- size ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
def test_a_row_longer_than_a_block_is_read_once(path: Path) -> None:
    ring = ", ".join(f"{np.cos(at):.9f} {np.sin(at):.9f}" for at in np.linspace(0, 6.28, 60_000))
    rows = ["1,POINT (1 2)\n"] * LONG + [f'2,"LINESTRING ({ring})"\n', "3,POINT (3 4)\n"]
    _, table = read(path, "n,wkt\n" + "".join(rows))
    assert table.num_rows == LONG + 2
    assert column(table, "n")[-3:] == [1, 2, 3]
    assert shapely.get_num_coordinates(shapely.from_wkb(table[GEOMETRY][-2].as_py())) == 60_000


def test_batches_are_bounded(path: Path) -> None:
    layer = opened(path, "y,x\n" + "1,2\n" * 2_000_000)
    sizes = [(batch.nbytes, batch.num_rows) for batch in layer.batches()]
    assert max(size for size, _ in sizes) <= BATCH_BYTES
    assert sum(rows for _, rows in sizes) == 2_000_000
