"""Pictures are small enough to be shown, and say what they were given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.pictures import SHOWN_AT_ONCE, bar_chart


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
