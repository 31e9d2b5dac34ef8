"""Groups of reasons: a thousand failures make a handful, and what tells them apart is left."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.coremachine.reasons import NO_REASON, group_of

REASONS = {
    "FILE_UNREADABLE: the TIFF is cut off: it goes on to byte {:,} at least, the file ends at {:,}": (
        "FILE_UNREADABLE: the TIFF is cut off: it goes on to byte N at least, the file ends at N"
    ),
    "HTTP_404: the blob '{1}' does not exist in container '{1}'": (
        "HTTP_404: the blob … does not exist in container …"
    ),
    "the header declares {:,} pixels; at most {:,} are read (GEO_ASSETS_RASTER_MAX_PIXELS)": (
        "the header declares N pixels; at most N are read (GEO_ASSETS_RASTER_MAX_PIXELS)"
    ),
    'the file\'s metadata names "{1}" in /data/{0}/x.tif and https://a.example/{0}?v={0}': (
        "the file's metadata names … in …"
    ),
    "the run 3f2504e0-4f89-11d3-9a0c-{0:012x} ended before this job did, {0} time(s) over": (
        "the run … ended before this job did, N time(s) over"
    ),
    "replaced on 2026-11-24 12:00:{0:02} UTC, ETag 0x8DD{0:X}": "replaced on N, ETag …",
    "the file is no raster we open (first bytes 25 50 44 46 {0:02x} ff)": (
        "the file is no raster we open (first bytes …)"
    ),
    "the zip archive has shapefiles: 'a', 'b{0}', 'c' and {0} more": "the zip archive has shapefiles: …",
    "bronze/tile_{0}.tif was replaced while it was read": "… was replaced while it was read",
    "tile_{0}.geojson is ESRI JSON": "… is ESRI JSON",
    "the HDF5 file {0}.h5 holds JPEG 2000 in EPSG:4326 (WGS 84 / UTM zone 32N), int16 at {0}; Arc/Info writes none": (
        "the HDF5 file … holds JPEG 2000 in EPSG:4326 (WGS 84 / UTM zone 32N), int16 at N; Arc/Info writes none"
    ),
    "killed by SIGKILL after {0}.5 s at {0}%": "killed by SIGKILL after N s at N",
}


@pytest.mark.parametrize(("text", "group"), REASONS.items())
@given(st.integers(0, 59), st.text(st.characters(exclude_characters="'\"\\\r\n", exclude_categories=["C", "Z"])))
def test_what_is_particular_goes_and_the_rest_stays(text: str, group: str, number: int, name: str) -> None:
    assert group_of(text.format(number, name) if "{1}" in text else text.format(number, number)) == group


@given(
    st.text(st.sampled_from("a Z_/.'\"`…N0129,:-+eE%()x\n“”éab"))
    | st.lists(
        st.sampled_from(["JPEG 2000", "JPEG ", "Arc/Info", "Arc/", "HDF5", "EPSG:", "4326", " ", "/", ".", "'", ","])
    ).map("".join)
    | st.text()
)
def test_a_group_is_short_and_its_own_group(text: str) -> None:
    group = group_of(text)
    assert group
    assert len(group) <= 200
    assert group_of(group) == group


@given(st.from_regex(r"\A[A-Z]+(_[A-Z0-9]+)+\Z"))
def test_codes_stay(code: str) -> None:
    assert group_of(f"{code}: 17 of 'them'") == f"{code}: N of …"[:200] or len(code) > 180


def test_different_reasons_stay_different() -> None:
    groups = {group_of(text.format(1, 1)) for text in REASONS}
    assert len(groups) == len(REASONS)


@pytest.mark.parametrize("none", [None, "", " \n ", "\n"])
def test_no_reason_is_a_group(none: str | None) -> None:
    assert group_of(none) == NO_REASON


@pytest.mark.parametrize(
    "piece", ["'", '"', "a.", "/", "a/", "1", "-", "%", "b'", "a" * 7, "0x", "aa ", "…,", "A_", "x://"]
)
def test_texts_of_strangers_take_no_time(piece: str) -> None:
    started = time.perf_counter()
    group_of(piece * 100_000)
    assert time.perf_counter() - started < 1
