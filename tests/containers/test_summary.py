"""Statistics against a plain Python loop, and in bounded memory.

What belongs here: :mod:`geo_assets.containers.summary`.  What does not: filtering and limits (``test_entries``).
"""

import itertools
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.containers.entries import EntryStream
from geo_assets.containers.filter import BlobFilter
from geo_assets.containers.summary import SIZE_BINS, Statistics, summarize
from tests.containers.generated import Blob, GeneratedStore

MB = 1024 * 1024
GB = 1024 * MB


def loop_over(blobs: list[Blob]) -> dict[str, Any]:
    """The original's way: one dict after the other."""
    types: dict[str, list[int]] = {}
    bins = dict.fromkeys(SIZE_BINS, 0)
    for blob in blobs:
        base = blob.name.rpartition("/")[2]
        end = base.rpartition(".")[2].lower()
        kept = types.setdefault(f".{end}" if "." in base and end else "no_extension", [0, 0])
        kept[0] += 1
        kept[1] += blob.size
        size = blob.size / MB
        name = (
            "0-10MB" if size < 10
            else "10-100MB" if size < 100
            else "100MB-1GB" if size < 1024
            else "1GB-10GB" if size < 10240
            else "10GB+"
        )  # fmt: skip
        bins[name] += 1
    return {
        "total_files": len(blobs),
        "total_size_bytes": sum(blob.size for blob in blobs),
        "largest": max(blobs, key=lambda blob: blob.size).name,
        "smallest": min(blobs, key=lambda blob: blob.size).name,
        "file_types": {
            name: {"count": count, "total_size_gb": round(size / GB, 4)} for name, (count, size) in types.items()
        },
        "size_distribution": bins,
        "days": (min(blob.days for blob in blobs), max(blob.days for blob in blobs)),
    }


sizes = st.one_of(
    st.integers(0, 12 * GB),
    st.sampled_from([0, 10 * MB - 1, 10 * MB, 100 * MB, GB - 1, GB, 10 * GB - 1, 10 * GB]),
)
names = st.text(st.sampled_from("ab./é T"), min_size=1, max_size=8)


@given(st.lists(st.builds(Blob, name=names, size=sizes, days=st.integers(0, 900)), min_size=1, max_size=40), st.data())
def test_statistics_equal_a_loop_over_dicts(blobs: list[Blob], data: st.DataObject) -> None:
    blobs = [blob._replace(name=f"{number}{blob.name}") for number, blob in enumerate(blobs)]
    size = data.draw(st.integers(1, len(blobs)))
    statistics = Statistics()
    for batch in itertools.batched(blobs, size):
        for frame in EntryStream(GeneratedStore([batch]), "c"):
            statistics.add(frame)
    found, expected = statistics.to_dict(), loop_over(blobs)
    for name in ("total_files", "total_size_bytes", "file_types", "size_distribution"):
        assert found[name] == expected[name]
    assert found["largest_file"]["name"] == expected["largest"]
    assert found["smallest_file"]["name"] == expected["smallest"]
    ordered = sorted(blobs, key=lambda blob: -blob.size)
    assert [file["size_bytes"] for file in found["largest_files"]] == [blob.size for blob in ordered[:10]]
    assert len({file["name"] for file in found["largest_files"]}) == min(10, len(blobs))
    low, high = expected["days"]
    assert found["date_range"]["oldest_file"].startswith(str((pl.date(2025, 1, 1) + pl.duration(days=low)).pipe(_day)))
    assert found["date_range"]["newest_file"].startswith(str((pl.date(2025, 1, 1) + pl.duration(days=high)).pipe(_day)))


def _day(expression: pl.Expr) -> Any:
    return pl.select(expression.cast(pl.Date)).item()


def test_the_statistics_of_nothing() -> None:
    assert Statistics().to_dict() == {
        "total_files": 0,
        "total_size_bytes": 0,
        "total_size_gb": 0.0,
        "largest_file": None,
        "smallest_file": None,
        "file_types": {},
        "size_distribution": {"0-10MB": 0, "10-100MB": 0, "100MB-1GB": 0, "1GB-10GB": 0, "10GB+": 0},
        "date_range": {"oldest_file": None, "newest_file": None},
        "largest_files": [],
        "oldest": None,
        "newest": None,
        "kinds": {kind: {"count": 0, "total_size_bytes": 0} for kind in ("raster", "vector", "sidecar", "other")},
    }
    empty = Statistics()
    empty.add(pl.DataFrame(schema={"name": pl.String, "size": pl.Int64, "last_modified": pl.Datetime("us", "UTC")}))
    assert empty.total_files == 0


def test_the_fields_of_the_original() -> None:
    blobs = [Blob("v1.2/big.TIF", 3 * GB, days=31), Blob("small", 10, days=0), Blob("a.tif", 20 * MB, days=1)]
    found = summarize(GeneratedStore([blobs]), "c").statistics
    assert found["total_size_gb"] == 3.02
    assert found["largest_file"] == {
        "name": "v1.2/big.TIF",
        "size_bytes": 3 * GB,
        "size_mb": 3072.0,
        "last_modified": "2025-02-01T00:00:00+00:00",
    }
    assert found["smallest_file"] == {
        "name": "small",
        "size_bytes": 10,
        "last_modified": "2025-01-01T00:00:00+00:00",
    }
    assert found["file_types"] == {
        ".tif": {"count": 2, "total_size_gb": 3.0195},
        "no_extension": {"count": 1, "total_size_gb": 0.0},
    }
    assert found["size_distribution"] == {"0-10MB": 1, "10-100MB": 1, "100MB-1GB": 0, "1GB-10GB": 1, "10GB+": 0}
    assert found["date_range"] == {
        "oldest_file": "2025-01-01T00:00:00+00:00",
        "newest_file": "2025-02-01T00:00:00+00:00",
    }


def test_a_summary_filters_then_limits() -> None:
    store = GeneratedStore([[Blob(f"{number}.{'tif' if number % 2 else 'txt'}") for number in range(20)]])
    summary = summarize(store, "c", blob_filter=BlobFilter(extensions=(".tif",)), limit=4)
    assert summary.statistics["total_files"] == 4
    assert summary.hit_limit
    assert summary.counts.filtered_out == 10


def test_a_dataset_is_one_file() -> None:
    summary = summarize(GeneratedStore([[Blob("a.gdb/1", 2), Blob("a.gdb/2", 3)]]), "c")
    assert summary.statistics["file_types"] == {".gdb": {"count": 1, "total_size_gb": 0.0}}
    assert summary.statistics["total_size_bytes"] == 5
