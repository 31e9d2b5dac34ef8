"""Item ids and file names: different names never share one.

What belongs here: ``geo_assets.stac.identifiers``.  What does not: how stores treat odd ids.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import ParameterError
from geo_assets.stac.identifiers import MAX_ID_LENGTH, file_stem, raster_item_id, table_item_id

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        ("tile_1.tif", "bronze~tile_1.tif"),
        ("2024/ortho/tile-1.tif", "bronze~2024~ortho~tile-1.tif"),
        ("a b.tif", "bronze~a=20b.tif"),
        ("a~b=c", "bronze~a=7Eb=3Dc"),
        ("é", "bronze~=C3=A9"),
    ],
)
def test_ordinary_names_stay_readable(blob: str, expected: str) -> None:
    assert raster_item_id("bronze", blob) == expected


@given(st.lists(st.tuples(st.sampled_from(["a", "a-b", "b"]), NAMES), unique=True, max_size=30))
def test_two_blobs_never_share_an_id(blobs: list[tuple[str, str]]) -> None:
    ids = {raster_item_id(container, name) for container, name in blobs}
    assert len(ids) == len(blobs)
    assert all(len(found) <= MAX_ID_LENGTH and found.isascii() and "/" not in found for found in ids)


@given(st.lists(NAMES, unique=True, max_size=30))
def test_two_ids_never_share_a_file(names: list[str]) -> None:
    stems = {file_stem(name) for name in names}
    assert len(stems) == len(names)
    assert not any(stem.startswith(".") or "/" in stem or len(stem) > MAX_ID_LENGTH for stem in stems)


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    ids = {raster_item_id("c", "x" * 1000 + end) for end in ("a", "b", "")}
    assert len(ids) == 3


def test_the_legacy_rule_is_the_originals() -> None:
    found = {raster_item_id("bronze", name, rule="legacy", collection_id="dev") for name in ("a/b.tif", "a-b.tif")}
    assert found == {"dev-a-b-tif"}
    with pytest.raises(ParameterError, match="collection"):
        raster_item_id("bronze", "a", rule="legacy")
    with pytest.raises(ParameterError, match="unknown id rule"):
        raster_item_id("bronze", "a", rule="other")  # type: ignore[arg-type]


def test_tables() -> None:
    assert table_item_id("geo", "roads_2024") == "postgis-geo-roads_2024"
    assert len({table_item_id(*names) for names in [("a-b", "c"), ("a", "b-c"), ("a", "b.c"), ("a.b", "c")]}) == 4


@pytest.mark.parametrize("names", [("", "a"), ("a", ""), ("a", "\ud800")])
def test_names_that_are_none_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ParameterError):
        raster_item_id(*names)
    with pytest.raises(ParameterError):
        table_item_id(*names)
