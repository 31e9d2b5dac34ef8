"""The stream of entries: datasets, filter before limit, counts that add up.

What belongs here: :class:`EntryStream` on made-up listings.  What does not: what is made of the stream.
"""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.containers import entries as entries_module
from geo_assets.containers.entries import ENTRY_SCHEMA, EntryStream
from geo_assets.containers.filter import BlobFilter
from tests.containers.generated import EPOCH, Blob, GeneratedStore


def read(stream: EntryStream) -> pl.DataFrame:
    frames = list(stream)
    for frame in frames:
        assert frame.schema == pl.Schema(ENTRY_SCHEMA)
        assert frame.height
    counts = stream.counts
    assert counts.entries == counts.listed + counts.filtered_out + counts.beyond_limit
    assert counts.listed == sum(frame.height for frame in frames)
    return pl.concat([pl.DataFrame(schema=ENTRY_SCHEMA), *frames])


def stream_of(*blobs: Blob, size: int = 2, limit: int | None = None, **conditions: Any) -> EntryStream:
    batches = [blobs[start : start + size] for start in range(0, len(blobs), size)]
    return EntryStream(GeneratedStore(batches), "c", blob_filter=BlobFilter.from_parameter(conditions), limit=limit)


def test_a_gdb_folder_is_one_dataset_after_all_blobs() -> None:
    stream = stream_of(
        Blob("a.tif", 5),
        Blob("data/roads.gdb/a0001.gdbtable", 10, days=3),
        Blob("data/roads.gdb/a0001.spx", 7, days=9),
        Blob("data/roads.gdb/sub/timestamps", 1, days=1),
        Blob("data/z.tif", 6),
        Blob("UPPER.GDB/x", 2),
        Blob("v.gdb/inner.gdb/x", 2),
        Blob("x.gdb", 4),
        Blob("y.gdb.zip", 4),
        Blob("z.gdbx/file", 4),
    )
    found = read(stream)
    assert found["name"].to_list() == [
        "a.tif", "data/z.tif", "x.gdb", "y.gdb.zip", "z.gdbx/file", "UPPER.GDB", "data/roads.gdb", "v.gdb",
    ]  # fmt: skip
    roads = found.row(by_predicate=pl.col("name") == "data/roads.gdb", named=True)
    assert (roads["size"], roads["file_count"], roads["etag"], roads["problem"]) == (18, 3, None, None)
    assert (roads["last_modified"] - EPOCH).days == 9
    assert (stream.counts.blobs, stream.counts.datasets, stream.counts.parts) == (10, 3, 5)
    assert found["file_count"].null_count() == 5


def test_a_dataset_is_filtered_as_a_whole() -> None:
    parts = [Blob(f"a.gdb/{number}", 600_000, days=number) for number in range(4)]
    assert read(stream_of(*parts, min_size_mb=2))["name"].to_list() == ["a.gdb"]
    assert read(stream_of(*parts, extensions=[".gdb"]))["name"].to_list() == ["a.gdb"]
    assert read(stream_of(*parts, max_size_mb=2)).height == 0
    assert read(stream_of(*parts, modified_after="2025-01-04")).height == 1


@pytest.mark.parametrize("prefix", ["data/a.gdb/", "data/a.gdb/0", "data/a.gdb/0/deep"])
def test_a_prefix_within_a_dataset_means_the_dataset(prefix: str) -> None:
    store = GeneratedStore([[Blob("data/a.gdb/0"), Blob("data/a.gdb/1"), Blob("data/a.gdbs")]])
    found = read(EntryStream(store, "c", blob_filter=BlobFilter(prefix=prefix)))
    assert found.select("name", "file_count").rows() == [("data/a.gdb", 2)]
    assert store.prefixes == ["data/a.gdb/"]


def test_the_prefix_is_asked_of_the_store() -> None:
    store = GeneratedStore([[Blob("a/1"), Blob("b/1")]])
    assert read(EntryStream(store, "c", blob_filter=BlobFilter(prefix="a/")))["name"].to_list() == ["a/1"]
    assert store.prefixes == ["a/"]


def test_the_limit_counts_after_filtering() -> None:
    blobs = [Blob(f"{number}.{'tif' if number % 10 == 9 else 'txt'}") for number in range(100)]
    stream = stream_of(*blobs, limit=5, extensions=["tif"])
    assert read(stream)["name"].to_list() == ["9.tif", "19.tif", "29.tif", "39.tif", "49.tif"]
    assert stream.hit_limit


def test_reading_stops_once_the_limit_is_reached() -> None:
    store = GeneratedStore([[Blob(f"{batch}-{number}") for number in range(10)] for batch in range(100)])
    stream = EntryStream(store, "c", limit=15)
    assert read(stream).height == 15
    assert store.taken == 2
    assert (stream.counts.blobs, stream.counts.beyond_limit) == (20, 5)


def test_datasets_count_against_the_limit_too() -> None:
    stream = stream_of(Blob("a"), Blob("b.gdb/1"), Blob("c.gdb/1"), Blob("d"), limit=3)
    assert read(stream)["name"].to_list() == ["a", "d", "b.gdb"]
    assert stream.counts.beyond_limit == 1


def test_a_limit_that_is_not_reached_says_so() -> None:
    stream = stream_of(Blob("a"), Blob("b"), limit=3)
    assert read(stream).height == 2
    assert not stream.hit_limit


def test_names_that_cannot_be_opened_stay_entries() -> None:
    bad = "unsupported name: 'x\\n'"
    stream = stream_of(Blob("a"), Blob(r"x\n", 7, problem=bad), Blob(r"d.gdb/y\n", 3, problem=bad), Blob("d.gdb/z", 2))
    found = read(stream)
    assert found.select("name", "size").rows() == [("a", 1), (r"x\n", 7), (r"d.gdb/y\n", 3), ("d.gdb", 2)]
    assert stream.counts.unsupported == 2


def test_an_empty_container_gives_nothing() -> None:
    stream = stream_of()
    assert read(stream).height == 0
    assert stream.counts.entries == 0


@given(
    st.lists(
        st.builds(
            Blob,
            name=st.lists(st.sampled_from(["a", "b.gdb", "C.GDB", "d.tif"]), min_size=1, max_size=3).map("/".join),
            size=st.integers(0, 3 << 20),
            days=st.integers(0, 3),
            problem=st.none(),
        ),
        max_size=12,
        unique_by=lambda blob: blob.name,
    ),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from([None, 1, 2]),
)
def test_the_stream_agrees_with_the_rules_spelt_out(
    blobs: list[Blob], size: int, limit: int | None, most: float | None
) -> None:
    plain = [blob for blob in blobs if _dataset(blob.name) is None]
    datasets: dict[str, int] = {}
    for blob in blobs:
        name = _dataset(blob.name)
        if name is not None:
            datasets[name] = datasets.get(name, 0) + blob.size
    expected = [(blob.name, blob.size) for blob in plain] + sorted(datasets.items())
    if most is not None:
        expected = [entry for entry in expected if entry[1] <= most * 1024 * 1024]
    stream = stream_of(*blobs, size=size, limit=limit, max_size_mb=most)
    found = read(stream).select("name", "size").rows()
    if limit is None or len([entry for entry in expected if entry[0] not in datasets]) >= limit:
        assert found == expected[:limit]
    else:
        assert found == expected[: len(found)]
        assert len(found) == min(limit, len(expected))


def _dataset(name: str) -> str | None:
    segments = name.split("/")
    for position, segment in enumerate(segments[:-1]):
        if segment.lower().endswith(".gdb"):
            return "/".join(segments[: position + 1])
    return None


def test_frames_are_joined_to_a_good_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "_ROWS", 25)
    batches = [[Blob(f"{batch}-{number}") for number in range(10)] for batch in range(7)]
    assert [frame.height for frame in EntryStream(GeneratedStore(batches), "c")] == [30, 30, 10]
