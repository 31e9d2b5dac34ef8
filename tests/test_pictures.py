"""Pictures are well-formed, small, and say what they were given."""

import base64
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.pictures import as_markdown, bar_chart, human_bytes


@given(st.dictionaries(st.text(max_size=40), st.floats(0, 1e15), max_size=12))
def test_any_labels_make_a_well_formed_picture(values: dict[str, float]) -> None:
    printable = {"".join(c for c in label if c.isprintable()): value for label, value in values.items()}
    root = ET.fromstring(bar_chart(printable))  # noqa: S314 - our own output
    assert len(root.findall("{*}rect")) == len(printable)


def test_the_largest_bar_is_the_longest_and_labels_are_escaped() -> None:
    svg = bar_chart({"<tif>": 10, "gpkg": 5, "none": 0}, shown={"<tif>": "10 files"})
    root = ET.fromstring(svg)  # noqa: S314 - our own output
    widths = [float(rect.attrib["width"]) for rect in root.findall("{*}rect")]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert widths[2] == 0
    assert [text.text for text in root.findall("{*}text")][:2] == ["<tif>", "10 files"]


def test_markdown_holds_the_picture() -> None:
    svg = bar_chart({"a": 1})
    markdown = as_markdown(svg, alternative="sizes")
    assert markdown.startswith("![sizes](data:image/svg+xml;base64,")
    assert base64.b64decode(markdown.partition("base64,")[2].rstrip(")")).decode() == svg


def test_negative_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        bar_chart({"a": -1})


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (7_452_056, "7.1 MB"), (2**40, "1.00 TB"), (1536, "1.5 kB")]
)
def test_sizes_as_people_write_them(size: int, text: str) -> None:
    assert human_bytes(size) == text
