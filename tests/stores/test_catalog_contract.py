"""The contract of catalog stores: one suite that the static catalog and pgSTAC both pass.

What belongs here: what :class:`geo_assets.stores.catalog.CatalogStore` promises.  What does not: what only one store
can do or suffer (``test_static_catalog``, ``test_pgstac``).
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from geo_assets.errors import ParameterError
from geo_assets.stac.collections import CollectionDescription
from geo_assets.stac.items import DescribedBlob
from geo_assets.stac.validation import collection_problems
from geo_assets.stores.catalog import CatalogStore, ItemOutcome, ItemReferences, ItemStatus
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.static_catalog import StaticCatalog
from tests.stores.catalog_items import COLLECTION, item
from tests.stores.pgstac_database import pgstac_database, pgstac_url

__all__ = ["pgstac_database", "pgstac_url"]

Opener = Callable[[], CatalogStore]


@pytest.fixture(params=["static", pytest.param("pgstac", marks=pytest.mark.services)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same catalog again, as another process would."""
    opened: list[CatalogStore] = []
    url = request.getfixturevalue("pgstac_url") if request.param == "pgstac" else ""

    def open_one() -> CatalogStore:
        store: CatalogStore = PgstacCatalog(url, batch_size=7) if url else StaticCatalog(tmp_path / "catalog")
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def catalog(opener: Opener) -> CatalogStore:
    """An empty catalog."""
    return opener()


def statuses(outcomes: list[ItemOutcome]) -> list[str]:
    return [outcome.status.value for outcome in outcomes]


def extent(catalog: CatalogStore) -> dict[str, Any]:
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert collection_problems(collection) == []
    found: dict[str, Any] = collection["extent"]
    return found


def test_an_empty_catalog_has_nothing(catalog: CatalogStore) -> None:
    assert catalog.list_collections() == []
    assert catalog.get_collection(COLLECTION) is None
    assert catalog.get_item(COLLECTION, "x") is None
    assert list(catalog.iter_items(COLLECTION)) == []
    assert catalog.count_items(COLLECTION) == 0
    assert catalog.described_blobs(COLLECTION) == {}
    assert list(catalog.iter_references(COLLECTION)) == []
    assert catalog.refresh_collection(COLLECTION) is None
    assert not catalog.delete_collection(COLLECTION)
    assert statuses(catalog.delete_items(COLLECTION, ["x"])) == ["absent"]


def test_what_was_written_is_read_back_equal(catalog: CatalogStore) -> None:
    written = item(proj_numbers=[1.1, -0.5, 1e-7, 123456789.125, 2**53], text='"quotes" \\ and ünïcode 😀')
    assert statuses(catalog.upsert_items(COLLECTION, [written])) == ["created"]
    assert written["properties"].pop("proj:code") is None  # a null says nothing and is not kept
    assert catalog.get_item(COLLECTION, written["id"]) == written
    assert list(catalog.iter_items(COLLECTION)) == [written]
    described = {written["id"]: DescribedBlob(container="bronze", blob="a.tif", etag='"1"', recipe=None)}
    assert catalog.described_blobs(COLLECTION) == described
    assert catalog.described_blobs(COLLECTION, container="bronze") == described
    assert catalog.described_blobs(COLLECTION, container="silver") == {}


def test_items_say_which_version_of_which_blob_they_describe_and_how(catalog: CatalogStore) -> None:
    foreign = item(id="foreign")
    for name in ("container", "blob", "etag"):
        del foreign["properties"][f"geo_assets:{name}"]
    odd, half, bare = item(id="odd"), item(id="half"), item("b/ü.tif")
    odd["properties"]["geo_assets:container"] = 5
    half["properties"]["geo_assets:blob"] = None
    bare["properties"] |= {"geo_assets:etag": None, "geo_assets:recipe": 3}
    plain = item("a.tif", **{"geo_assets:recipe": "ab12"})
    silver = item("a.tif", id="silver", **{"geo_assets:container": "silver"})
    outcomes = catalog.upsert_items(COLLECTION, [foreign, odd, half, plain, bare, silver])
    assert statuses(outcomes) == ["created"] * 6
    in_bronze = {
        plain["id"]: DescribedBlob(container="bronze", blob="a.tif", etag='"1"', recipe="ab12"),
        bare["id"]: DescribedBlob(container="bronze", blob="b/ü.tif", etag=None, recipe=None),
    }
    in_silver = {"silver": DescribedBlob(container="silver", blob="a.tif", etag='"1"', recipe=None)}
    assert catalog.described_blobs(COLLECTION) == in_bronze | in_silver
    assert catalog.described_blobs(COLLECTION, container="bronze") == in_bronze
    assert catalog.described_blobs(COLLECTION, container="silver") == in_silver
    assert catalog.described_blobs(COLLECTION, container="5") == {}
    assert catalog.described_blobs("another") == {}


def test_a_range_of_time_keeps_its_null_datetime(catalog: CatalogStore) -> None:
    ranged = item(datetime=None, start_datetime="1960-01-01T00:00:00Z", end_datetime="9999-12-31T00:00:00Z")
    assert statuses(catalog.upsert_items(COLLECTION, [ranged])) == ["created"]
    assert statuses(catalog.upsert_items(COLLECTION, [ranged])) == ["unchanged"]
    stored = catalog.get_item(COLLECTION, ranged["id"])
    assert stored is not None
    assert stored["properties"]["datetime"] is None


def test_a_collection_is_made_on_first_use_and_lists_itself(catalog: CatalogStore) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    assert catalog.list_collections() == [COLLECTION]
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert collection["title"] == "Cloud Optimized GeoTIFFs"


def test_unchanged_items_are_not_rewritten(catalog: CatalogStore) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    again = item(created="2025-01-01T00:00:00Z", updated="2025-01-01T00:00:00Z")
    again["properties"]["geo_assets:job_id"] = "f" * 64
    assert statuses(catalog.upsert_items(COLLECTION, [again])) == ["unchanged"]
    stored = catalog.get_item(COLLECTION, again["id"])
    assert stored is not None
    assert stored["properties"]["updated"] == "2024-01-01T00:00:00Z"


def test_a_changed_item_is_updated_and_keeps_created(catalog: CatalogStore) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    changed = item(gsd=20.0, created="2025-01-01T00:00:00Z", updated="2025-01-01T00:00:00Z")
    assert statuses(catalog.upsert_items(COLLECTION, [changed])) == ["updated"]
    stored = catalog.get_item(COLLECTION, changed["id"])
    assert stored is not None
    assert stored["properties"]["gsd"] == 20.0
    assert stored["properties"]["created"] == "2024-01-01T00:00:00Z"
    assert stored["properties"]["updated"] == "2025-01-01T00:00:00Z"
    assert catalog.count_items(COLLECTION) == 1


def test_an_item_whose_time_moved_leaves_no_copy(catalog: CatalogStore) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    moved = {**item(), "properties": {**item()["properties"], "datetime": "1960-05-05T00:00:00Z"}}
    assert statuses(catalog.upsert_items(COLLECTION, [moved])) == ["updated"]
    assert catalog.count_items(COLLECTION) == 1
    assert extent(catalog)["temporal"]["interval"] == [["1960-05-05T00:00:00Z"] * 2]


def test_bad_items_leave_the_good_ones_alone(catalog: CatalogStore) -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
    batch = [
        item("1.tif"),
        item("2.tif", geometry=bow_tie, bbox=[0, 0, 1, 1]),
        item("3.tif"),
        item("4.tif", gsd=float("nan")),
        item("5.tif", note="a\x00b"),
    ]
    outcomes = catalog.upsert_items(COLLECTION, batch)
    assert statuses(outcomes) == ["created", "invalid", "created", "invalid", "invalid"]
    assert all(outcome.reason for outcome in outcomes if outcome.status is ItemStatus.INVALID)
    assert [outcome.item_id for outcome in outcomes] == [entry["id"] for entry in batch]
    assert catalog.count_items(COLLECTION) == 2


def test_an_id_twice_in_a_batch_counts_once(catalog: CatalogStore) -> None:
    outcomes = catalog.upsert_items(COLLECTION, [item(gsd=1.0), item("b.tif"), item(gsd=2.0)])
    assert statuses(outcomes) == ["skipped", "created", "created"]
    stored = catalog.get_item(COLLECTION, item()["id"])
    assert stored is not None
    assert stored["properties"]["gsd"] == 2.0
    assert catalog.count_items(COLLECTION) == 2


def test_two_blobs_never_share_an_id(catalog: CatalogStore) -> None:
    in_one_batch = [item("a/b.tif", id="cogs-a-b-tif"), item("a-b.tif", id="cogs-a-b-tif")]
    assert statuses(catalog.upsert_items(COLLECTION, in_one_batch)) == ["invalid", "invalid"]
    assert statuses(catalog.upsert_items(COLLECTION, in_one_batch[:1])) == ["created"]
    [refused] = catalog.upsert_items(COLLECTION, in_one_batch[1:])
    assert refused.status is ItemStatus.INVALID
    assert refused.reason is not None
    assert "bronze/a/b.tif" in refused.reason


@pytest.mark.parametrize(
    "odd",
    ["a/b", "with space", "back\\slash", ".", "..", "é😀", "x" * 500, "%2F", "a'; drop table items; --", "~", "A"],
)
def test_any_id_is_kept(catalog: CatalogStore, odd: str) -> None:
    catalog.upsert_items(COLLECTION, [item(id="a"), item(id="x" * 499)])
    assert statuses(catalog.upsert_items(COLLECTION, [item(id=odd)])) == ["created"]
    stored = catalog.get_item(COLLECTION, odd)
    assert stored is not None
    assert stored["id"] == odd
    assert catalog.count_items(COLLECTION) == 3
    assert statuses(catalog.delete_items(COLLECTION, [odd])) == ["deleted"]
    assert catalog.count_items(COLLECTION) == 2


def test_more_items_than_a_batch_holds(catalog: CatalogStore) -> None:
    batch = [item(f"{number}.tif") for number in range(30)]
    assert set(statuses(catalog.upsert_items(COLLECTION, batch))) == {"created"}
    batch[3]["properties"]["gsd"] = 1.0
    assert statuses(catalog.upsert_items(COLLECTION, batch)) == ["unchanged"] * 3 + ["updated"] + ["unchanged"] * 26
    assert {entry["id"] for entry in catalog.iter_items(COLLECTION)} == {entry["id"] for entry in batch}


def test_extent_and_summaries_grow_and_shrink_with_the_items(catalog: CatalogStore) -> None:
    first = item("1.tif", gsd=1, **{"proj:code": "EPSG:32632"})
    second = item("2.tif", bbox=[-20.0, -5.0, -10.0, 5.0], gsd=30.0, **{"proj:code": "EPSG:4326"})
    second["properties"] |= {
        "datetime": None,
        "start_datetime": "2020-01-01T00:00:00+00:00",
        "end_datetime": "2021-01-01T00:00:00Z",
    }
    catalog.upsert_items(COLLECTION, [first, second])
    assert extent(catalog) == {
        "spatial": {"bbox": [[-20.0, -5.0, 11.0, 51.0]]},
        "temporal": {"interval": [["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"]]},
    }
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert collection["summaries"] == {
        "gsd": {"minimum": 1, "maximum": 30.0},
        "proj:code": ["EPSG:32632", "EPSG:4326"],
    }
    catalog.delete_items(COLLECTION, [second["id"]])
    assert extent(catalog) == {
        "spatial": {"bbox": [[10.0, 50.0, 11.0, 51.0]]},
        "temporal": {"interval": [["2020-01-02T03:04:05Z"] * 2]},
    }


def test_the_extent_crosses_the_antimeridian_where_the_items_do(catalog: CatalogStore) -> None:
    catalog.upsert_items(
        COLLECTION, [item("1.tif", bbox=[170.0, 0.0, 175.0, 1.0]), item("2.tif", bbox=[-178.0, 0.0, -175.0, 1.0])]
    )
    assert extent(catalog)["spatial"]["bbox"] == [[170.0, 0.0, -175.0, 1.0]]


def test_refreshing_can_wait(catalog: CatalogStore, opener: Opener) -> None:
    for number in range(3):
        catalog.upsert_items(COLLECTION, [item(f"{number}.tif", bbox=[number, 0.0, number + 1, 1.0])], refresh=False)
    assert catalog.count_items(COLLECTION) == 3
    opener().refresh_collection(COLLECTION)
    assert extent(catalog)["spatial"]["bbox"] == [[0.0, 0.0, 3.0, 1.0]]


def test_what_people_wrote_into_a_collection_stays(catalog: CatalogStore) -> None:
    described = CollectionDescription(
        id=COLLECTION, title="Our rasters", description="All of them.", license="CC-BY-4.0", keywords=("a",)
    )
    assert catalog.ensure_collection(described)["title"] == "Our rasters"
    assert catalog.ensure_collection(CollectionDescription(id=COLLECTION, title="x", description="y"))["title"] == (
        "Our rasters"
    )
    catalog.upsert_items(COLLECTION, [item()])
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert (collection["title"], collection["license"], collection["keywords"]) == ("Our rasters", "CC-BY-4.0", ["a"])


def test_collections_are_apart(catalog: CatalogStore) -> None:
    catalog.upsert_items("one", [item()])
    assert statuses(catalog.upsert_items("two", [item(gsd=3.0)])) == ["created"]
    assert catalog.list_collections() == ["one", "two"]
    assert catalog.delete_collection("one")
    assert catalog.list_collections() == ["two"]
    assert catalog.count_items("one") == 0
    kept = catalog.get_item("two", item()["id"])
    assert kept is not None
    assert kept["collection"] == "two"
    assert statuses(catalog.upsert_items("one", [item()])) == ["created"]


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 129])
def test_a_collection_id_that_cannot_be_one_is_refused(catalog: CatalogStore, bad: str) -> None:
    with pytest.raises(ParameterError, match="collection id"):
        catalog.upsert_items(bad, [item()])


def test_structural_links_are_the_stores_business(catalog: CatalogStore) -> None:
    linked = item()
    related = {"rel": "related", "href": "https://example.org/more"}
    linked["links"] = [
        {"rel": "collection", "href": "./gone.json"},
        {"rel": "self", "href": "https://e.org/x"},
        related,
    ]
    catalog.upsert_items(COLLECTION, [linked])
    stored = catalog.get_item(COLLECTION, linked["id"])
    assert stored is not None
    assert stored["links"] == [related]
    assert statuses(catalog.upsert_items(COLLECTION, [linked])) == ["unchanged"]


def test_writers_at_once_lose_nothing(opener: Opener) -> None:
    stores = [opener() for _ in range(4)]

    def write(worker: int) -> list[str]:
        order = list(range(40))
        random.Random(worker).shuffle(order)
        found: list[str] = []
        for start in range(0, 40, 8):
            batch = [item(f"{number}.tif", bbox=[number, 0.0, number + 1, 1.0]) for number in order[start : start + 8]]
            found += statuses(stores[worker].upsert_items(COLLECTION, batch))
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [status for each in pool.map(write, range(4)) for status in each]
    assert found.count("created") == 40
    assert found.count("unchanged") == 120
    assert stores[0].count_items(COLLECTION) == 40
    assert extent(stores[0])["spatial"]["bbox"] == [[0.0, 0.0, 40.0, 1.0]]


def test_one_store_serves_many_threads(catalog: CatalogStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for outcomes in pool.map(
            lambda number: catalog.upsert_items(COLLECTION, [item(f"{number}.tif")], refresh=False), range(24)
        ):
            assert statuses(outcomes) == ["created"]
    catalog.refresh_collection(COLLECTION)
    assert catalog.count_items(COLLECTION) == 24


def test_references_tell_what_an_item_points_at_and_who_made_it(
    catalog: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_assets.stores.pgstac._PAGE", 2)
    cog = item("é b.tif", id="cog")
    cog["assets"]["data"]["href"] = "https://example.org/bronze/%C3%A9%20b.tif"
    cog["assets"]["thumbnail"] = {"href": "file:///thumbnails/x.webp", "roles": ["thumbnail"]}
    table = item("t", id="table", **{"geo_assets:schema": "geo", "geo_assets:table": "roads"})
    foreign = item("x", id="foreign")
    for one in (table, foreign):
        for name in ("container", "blob"):
            del one["properties"][f"geo_assets:{name}"]
    del foreign["properties"]["geo_assets:job_id"], foreign["properties"]["geo_assets:etag"]
    foreign["assets"] = {}
    assert statuses(catalog.upsert_items(COLLECTION, [cog, table, foreign])) == ["created"] * 3
    found = {one.item_id: one for one in catalog.iter_references(COLLECTION)}
    assert found == {
        "cog": ItemReferences(
            item_id="cog",
            blob=("bronze", "é b.tif"),
            table=None,
            job_id="0" * 64,
            hrefs=("https://example.org/bronze/%C3%A9%20b.tif", "file:///thumbnails/x.webp"),
        ),
        "table": ItemReferences(
            item_id="table",
            blob=None,
            table=("geo", "roads"),
            job_id="0" * 64,
            hrefs=("https://example.org/bronze/t",),
        ),
        "foreign": ItemReferences(item_id="foreign", blob=None, table=None, job_id=None, hrefs=()),
    }
