"""When a raster was taken, and where that was found.

What belongs here: ``geo_assets.stac.acquisition``.  What does not: the item around it.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import ParameterError
from geo_assets.stac.acquisition import acquisition, check_datetime_pattern

BLOB_DATE = datetime(2023, 6, 1, tzinfo=UTC)
TAGS = {"": {"TIFFTAG_DATETIME": "2001:02:03 04:05:06"}}


def test_the_order_of_what_is_believed() -> None:
    name, pattern, given_time = "S2_20190807T101112_x.tif", "%Y%m%dT%H%M%S", datetime(1999, 1, 1, tzinfo=UTC)
    found = acquisition(name=name, tags=TAGS, pattern=pattern, given=given_time, blob_date=BLOB_DATE)
    assert found == (given_time, "parameter")
    found = acquisition(name=name, tags=TAGS, pattern=pattern, blob_date=BLOB_DATE)
    assert found == (datetime(2019, 8, 7, 10, 11, 12, tzinfo=UTC), "name pattern")
    found = acquisition(name=name, tags=TAGS, blob_date=BLOB_DATE)
    assert found == (datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), "tag TIFFTAG_DATETIME")
    assert acquisition(name=name, tags={}, blob_date=BLOB_DATE) == (BLOB_DATE, "blob date")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert acquisition(name=name, tags={}, now=now) == (now, "cataloguing")


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a/2020/060/x.tif", "%Y/%j", datetime(2020, 2, 29, tzinfo=UTC)),
        ("dem_1953.tif", "_%Y.", datetime(1953, 1, 1, tzinfo=UTC)),
        ("v20191399_20191231.tif", "%Y%m%d", datetime(2019, 12, 31, tzinfo=UTC)),
        ("x_20190231.tif", "%Y%m%d", None),
        ("120190807.tif", "%Y%m%d", None),
        ("00000101.tif", "%Y%m%d", None),
        ("50%_2019.tif", "%%_%Y", datetime(2019, 1, 1, tzinfo=UTC)),
    ],
)
def test_dates_in_names(name: str, pattern: str, expected: datetime | None) -> None:
    found = acquisition(name=name, tags={}, pattern=pattern, blob_date=BLOB_DATE)
    assert found.moment == (expected or BLOB_DATE)


@pytest.mark.parametrize("pattern", ["", "%m%d", "%Y%Y", "%Y%q", "%Y%", "x" * 300])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ParameterError, match="pattern"):
        check_datetime_pattern(pattern)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            {"IMAGERY": {"ACQUISITIONDATETIME": "2015-03-04 05:06:07"}, **TAGS},
            datetime(2015, 3, 4, 5, 6, 7, tzinfo=UTC),
        ),
        ({"": {"time_coverage_start": "2015-03-04T05:06:07+02:00"}}, datetime(2015, 3, 4, 3, 6, 7, tzinfo=UTC)),
        ({"": {"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}}, BLOB_DATE),
        ({"": {"TIFFTAG_DATETIME": "yesterday"}}, BLOB_DATE),
        ({"": {"datetime": "0001-01-01T00:00:00+23:00"}}, BLOB_DATE),
    ],
)
def test_tags(tags: dict[str, dict[str, str]], expected: datetime) -> None:
    assert acquisition(name="x", tags=tags, blob_date=BLOB_DATE).moment == expected


def test_times_without_a_zone_are_utc() -> None:
    assert acquisition(name="x", tags={}, given=datetime(2020, 1, 1)).moment == datetime(2020, 1, 1, tzinfo=UTC)  # noqa: DTZ001
    other = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert acquisition(name="x", tags={}, given=other).moment == other


@given(st.text(max_size=60))
def test_any_tag_and_name_is_survived(text: str) -> None:
    found = acquisition(name=text, tags={"": {"datetime": text}}, pattern="%Y%m%d", blob_date=BLOB_DATE)
    assert found.moment.tzinfo is not None
