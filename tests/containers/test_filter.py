"""The filter parameter: what it takes, what it refuses and in which words, what passes.

What belongs here: :class:`BlobFilter` alone.  What does not: limits and datasets (``test_entries``).
"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from geo_assets.containers.filter import BlobFilter
from geo_assets.errors import ParameterError

MB = 1024 * 1024


@pytest.mark.parametrize("given", [None, {}, {"prefix": None, "extensions": None, "min_size_mb": None}])
def test_nothing_given_lets_everything_pass(given: dict[str, Any] | None) -> None:
    assert BlobFilter.from_parameter(given) == BlobFilter()
    assert BlobFilter().expression() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prefix", "filter must be a dictionary"),
        ([], "filter must be a dictionary"),
        ({"prefix": 5}, "filter.prefix must be a string"),
        ({"extensions": ".tif"}, "filter.extensions must be a list"),
        ({"extensions": [1]}, "filter.extensions must be a list"),
        ({"extensions": ["."]}, "filter.extensions must be a list"),
        ({"min_size_mb": "5"}, "filter.min_size_mb must be a number"),
        ({"max_size_mb": True}, "filter.max_size_mb must be a number"),
        ({"max_size_mb": float("nan")}, "filter.max_size_mb must be a number"),
        ({"min_size_mb": -1}, "filter.min_size_mb must be a number of at least 0"),
        ({"min_size_mb": 2, "max_size_mb": 1}, "filter.min_size_mb must not be more than filter.max_size_mb"),
        ({"modified_after": "yesterday"}, "filter.modified_after must be an ISO 8601 date"),
        ({"modified_before": 20250101}, "filter.modified_before must be an ISO 8601 date"),
        ({"modified_before": "2025-02-30"}, "filter.modified_before must be an ISO 8601 date"),
        ({"modified_after": "0001-01-01T00:00:00+05:00"}, "filter.modified_after must be an ISO 8601 date"),
        ({"modified_after": "2025-02-01", "modified_before": "2025-01-01"}, "nothing could pass"),
        ({"extension": [".tif"]}, "unknown key 'extension'; it takes: prefix, extensions"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(given: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        BlobFilter.from_parameter(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-31", datetime(2025, 1, 31, tzinfo=UTC)),
        ("2025-01-31T12:00:00", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T12:00:00Z", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T12:00:00+02:00", datetime(2025, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))),
        (" 20250131T120000.5Z ", datetime(2025, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_dates_work_with_and_without_a_time_zone(text: str, expected: datetime) -> None:
    found = BlobFilter.from_parameter({"modified_after": text}).modified_after
    assert found == expected
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def passing(given: dict[str, Any]) -> list[str]:
    frame = pl.DataFrame(
        {
            "name": ["a.tif", "B.TIF", "c.aux.xml", "dir.tif/readme", "plain", "é.tif"],
            "size": [0, MB, MB + 1, 5 * MB, 10 * MB, 20 * MB],
            "last_modified": [datetime(2025, 1, day, tzinfo=UTC) for day in range(1, 7)],
        },
        schema_overrides={"last_modified": pl.Datetime("us", "UTC")},
    )
    condition = BlobFilter.from_parameter(given).expression()
    return frame["name"].to_list() if condition is None else frame.filter(condition)["name"].to_list()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"extensions": []}, 6),
        ({"extensions": [".tif"]}, ["a.tif", "B.TIF", "é.tif"]),
        ({"extensions": ["TIF", ".Xml"]}, ["a.tif", "B.TIF", "c.aux.xml", "é.tif"]),
        ({"extensions": [".aux.xml"]}, ["c.aux.xml"]),
        ({"min_size_mb": 1, "max_size_mb": 5}, ["B.TIF", "c.aux.xml", "dir.tif/readme"]),
        ({"max_size_mb": 0}, ["a.tif"]),
        ({"modified_after": "2025-01-05"}, ["plain", "é.tif"]),
        ({"modified_before": "2025-01-02T01:00:00+01:00"}, ["a.tif", "B.TIF"]),
        ({"modified_after": "2025-01-02", "extensions": ["tif"], "max_size_mb": 1}, ["B.TIF"]),
    ],
)
def test_all_conditions_must_hold(given: dict[str, Any], expected: list[str] | int) -> None:
    found = passing(given)
    assert (len(found) if isinstance(expected, int) else found) == expected
