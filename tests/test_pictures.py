"""Pictures are small enough to be shown, and say what they were given."""

import base64
import random
import re
from itertools import pairwise
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.pictures import (
    GALLERY_CHARACTERS,
    SHOWN_AT_ONCE,
    Picture,
    bar_chart,
    coarse_histogram,
    data_uri,
    enlarged,
    gallery,
    histogram_svg,
    shown_at_once,
    trimmed_histogram,
)

SVG = "image/svg+xml"
NUMBERS = st.floats(-1e300, 1e300)


@st.composite
def histograms(draw: st.DrawFn) -> dict[str, Any]:
    buckets = draw(st.lists(st.integers(0, 10**12), min_size=1, max_size=256))
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    return {"count": len(buckets), "min": low, "max": high, "buckets": buckets}


def decoded(uri: str) -> bytes:
    """What a browser makes of a data URI."""
    head, _, body = uri.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode()


def outlines(svg: str) -> list[list[tuple[float, float]]]:
    """Corners of the filled paths of a histogram, left to right."""
    found = []
    for path in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):  # noqa: S314 - made here
        if path.get("fill") is None:
            continue
        x, y = 0.0, 0.0
        corners = []
        for command, numbers in re.findall(r"([MhvVz])([-\d,.]*)", path.get("d", "")):
            if command == "M":
                x, y = (float(number) for number in numbers.split(","))
            elif command == "h":
                x += float(numbers)
            elif command == "v":
                y += float(numbers)
            elif command == "V":
                y = float(numbers)
            corners.append((x, y))
        found.append(corners)
    return found


@given(st.dictionaries(st.text(max_size=40), st.floats(0, 1e15), max_size=30))
def test_any_labels_make_a_picture_that_is_shown_at_once(values: dict[str, float]) -> None:
    chart = bar_chart(values)
    assert len(chart) < SHOWN_AT_ONCE
    assert chart.startswith("```\n")
    assert chart.endswith("```")
    assert chart.count("`") == 6, "no label ends the block"


def test_the_largest_bar_is_the_longest_and_small_ones_are_seen() -> None:
    rows = bar_chart({".tif": 2000, ".gpkg": 1000, ".csv": 1, "none": 0}).splitlines()[1:-1]
    assert [row.count("█") for row in rows] == [20, 10, 1, 0]
    assert rows[0].split()[-1] == "2,000"
    assert rows[0].startswith(" .tif ")


def test_what_is_left_out_is_said() -> None:
    chart = bar_chart({f"type{number}": 1 for number in range(40)})
    assert "and 28 more" in chart


def test_negative_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        bar_chart({"a": -1})


@given(histograms(), st.integers(1, 64))
def test_a_coarse_histogram_counts_the_same_pixels(histogram: dict[str, Any], buckets: int) -> None:
    coarse = coarse_histogram(histogram, buckets)
    assert sum(coarse["buckets"]) == sum(histogram["buckets"])
    assert coarse["count"] == len(coarse["buckets"]) <= buckets
    assert (coarse["min"], coarse["max"]) == (histogram["min"], histogram["max"])


def test_a_coarse_histogram_adds_neighbours() -> None:
    fine = {"count": 8, "min": 0, "max": 8, "buckets": [1, 2, 3, 4, 5, 6, 7, 8]}
    assert coarse_histogram(fine, 4)["buckets"] == [3, 7, 11, 15]
    assert coarse_histogram(fine, 32)["buckets"] == fine["buckets"]


@given(st.lists(st.one_of(st.just({}), st.builds(lambda made: {"histogram": made}, histograms())), max_size=5))
def test_any_histograms_are_drawn_small_and_within_the_picture(bands: list[dict[str, Any]]) -> None:
    svg = histogram_svg(bands)
    if not svg:
        return
    assert len(svg) <= 1500
    assert shown_at_once(Picture(alt="Histogram", media_type=SVG, data=svg.encode())) is not None
    drawn = outlines(svg)
    assert 1 <= len(drawn) <= 3
    for corners in drawn:
        assert all(0 <= x <= 240 and 0 <= y <= 120 for x, y in corners)


def test_three_noisy_bands_are_shown_at_once() -> None:
    noise = random.Random(7)
    bands = [
        {"histogram": {"count": 256, "min": -1234.5, "max": 1e-5, "buckets": noise.choices(range(10**6), k=256)}}
        for _ in range(3)
    ]
    assert shown_at_once(Picture(alt="Histogram", media_type=SVG, data=histogram_svg(bands).encode())) is not None


def test_one_huge_bucket_does_not_flatten_the_rest() -> None:
    buckets = [10_000, 100, 0, 400]
    ((*_, (_, last), _, _),) = outlines(histogram_svg([{"histogram": {"min": 0, "max": 4, "buckets": buckets}}]))
    assert last == 120 - 24, "a 25th of the count is a fifth of the height"


def test_a_histogram_starts_and_ends_where_there_are_values() -> None:
    buckets = [0] * 256
    buckets[10], buckets[19] = 5, 5
    svg = histogram_svg([{"histogram": {"min": 0, "max": 256, "buckets": buckets}}])
    assert ">10<" in svg
    assert ">20<" in svg


@pytest.mark.parametrize(
    ("counts", "labels", "bars"),
    [({0: 9, 1: 9}, "01", 2), ({0: 4, 255: 9}, "0 255", 2), ({3: 1, 4: 4, 5: 9}, "35", 3), ({7: 9}, "", 0)],
)
def test_few_whole_numbers_are_bars_at_what_they_are(counts: dict[int, int], labels: str, bars: int) -> None:
    whole = {"count": 256, "min": 0, "max": 255, "buckets": [counts.get(value, 0) for value in range(256)]}
    # as it is kept with a job's result
    svg = histogram_svg([{"histogram": coarse_histogram(trimmed_histogram(whole))}])
    assert svg == histogram_svg([{"histogram": whole}])
    assert "".join(re.findall(r">(\d+)<", svg)) == labels.replace(" ", "")
    tops = [y for corners in outlines(svg) for _, y in corners] if svg else []
    assert sum(before == 120 > after for before, after in pairwise(tops)) == bars


def test_bands_without_a_histogram_draw_nothing() -> None:
    assert not histogram_svg([])
    assert not histogram_svg([{"count": 5, "valid_percent": 0.0}])
    assert not histogram_svg([{"histogram": {"min": 3, "max": 3, "buckets": [9]}}])
    assert not histogram_svg([{"histogram": {"min": 0, "max": 3, "buckets": [0, 0]}}])


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_a_data_uri_holds_the_bytes_and_cannot_end_early(data: bytes) -> None:
    uri = data_uri("image/x", data)
    assert decoded(uri) == data
    assert not set(uri) & set('()<>[]" \n\t`\\#')


def test_text_is_not_encoded_more_than_it_must() -> None:
    assert data_uri(SVG, b"<svg d='M0,1h2'/>") == "data:image/svg+xml,%3Csvg%20d='M0,1h2'/%3E"
    assert data_uri("image/webp", b"\xff\x00").startswith("data:image/webp;base64,")


@given(st.text(max_size=20_000), st.lists(st.builds(Picture, alt=st.text(max_size=20), media_type=st.just("image/x"),
                                                    data=st.binary(max_size=6000)), max_size=6))  # fmt: skip
def test_a_gallery_is_never_too_long(sentence: str, pictures: list[Picture]) -> None:
    assert len(gallery(sentence, pictures)) <= GALLERY_CHARACTERS


def test_a_gallery_keeps_the_first_pictures() -> None:
    pictures = [Picture(alt=f"n{number}", media_type="image/x", data=b"\xff" * 3000) for number in range(4)]
    shown = gallery("made", pictures)
    assert shown.startswith("made\n\n![n0](data:")
    assert [f"![n{number}]" in shown for number in range(4)] == [True, True, False, False]


def test_a_picture_that_is_too_large_is_not_shown_at_once() -> None:
    assert shown_at_once(Picture(alt="a", media_type="image/x", data=b"\xff" * 900)) is None
    small = shown_at_once(Picture(alt="a](b) <c>\n", media_type="image/x", data=b"\xff"))
    assert small == "![a (b)  c  ](data:image/x;base64,/w==)"


def test_an_enlarged_picture_holds_the_first_one() -> None:
    large = enlarged(Picture(alt="a", media_type="image/webp", data=b"\xffdata"), width=160, height=90)
    root = ET.fromstring(large.data)  # noqa: S314 - made here
    assert (large.alt, large.media_type, root.get("width"), root.get("height")) == ("a", SVG, "160", "90")
    assert decoded(root[0].get("href", "")) == b"\xffdata"
