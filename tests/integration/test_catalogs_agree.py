"""The static catalog and pgSTAC hold the same items of real rasters, and STAC clients read the same from both.

What belongs here: one container catalogued into each by the whole bulk job, compared item by item, and read with pystac
and, through stac-fastapi-pgstac, with pystac-client.  What does not: what each catalog promises (``tests/stores``),
what goes into an item (``tests/stac``).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pystac_client
import pytest
from shapely.geometry import box, shape

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import Settings
from geo_assets.stac.validation import collection_problems, item_problems
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.static_catalog import StaticCatalog
from tests.jobs.bench import Bench
from tests.services.found import REPOSITORY
from tests.stac.rasters import GEOREFERENCED
from tests.stac.schemas import extension_problems
from tests.stores.pgstac_database import pgstac_database, pgstac_url
from tests.stores.stac_api import stac_api

__all__ = ["pgstac_database", "pgstac_url"]

COLLECTION = "rasters"
WITHOUT_A_PLACE = ("no_crs_float64.tif", "rotated_no_crs.tif")
CHECKED = {
    json.loads(path.read_text())["$id"].rstrip("#") for path in (REPOSITORY / "tests/data/schemas").rglob("*.json")
}
OF_THE_RUN = ("created", "updated", "geo_assets:job_id")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Worker processes for all tests."""
    made = Sandbox(Settings(task_processes=2))
    yield made
    made.close(kill=True)


@pytest.fixture
def benches(
    request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox, pgstac_url: str
) -> Iterator[dict[str, Bench]]:
    """The same container of real rasters catalogued into each catalog, as STAC 1.1 or what the test asks for."""
    version = getattr(request, "param", "1.1.0")
    made = {}
    for name, url in (("static", None), ("pgstac", pgstac_url)):
        (tmp_path / name).mkdir()
        made[name] = Bench(tmp_path / name, sandbox, blob_root=tmp_path / "containers", catalog_url=url)
    made["static"].put("scenes", *GEOREFERENCED, *WITHOUT_A_PLACE)
    for bench in made.values():
        assert catalogue(bench, version) == {"created": len(GEOREFERENCED), "invalid": len(WITHOUT_A_PLACE)}
    yield made
    for bench in made.values():
        bench.services["catalog"].close()


def catalogue(bench: Bench, version: str = "1.1.0") -> dict[str, int]:
    """Run the bulk job; returns how many rasters ended how.  Those without a place on Earth are named each time."""
    job = bench.run("stac_catalog_container", container_name="scenes", collection_id=COLLECTION, stac_version=version)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    result = job.result_data or {}
    assert sorted(failure["blob_name"] for failure in result["failures"]) == sorted(WITHOUT_A_PLACE)
    return {kind.value: result["summary"][kind.value] for kind in OutcomeKind if result["summary"][kind.value]}


def items(bench: Bench) -> dict[str, dict[str, Any]]:
    """What a catalog gives back, by id, each checked; without what differs from run to run."""
    found = {}
    for item in bench.services["catalog"].iter_items(COLLECTION):
        assert item_problems(item) == []
        assert extension_problems(item) == []
        assert item["stac_version"] == "1.0.0" or set(item["stac_extensions"]) <= CHECKED
        found[item["id"]] = {**item, "properties": of_the_raster(item["properties"])}
    return found


def of_the_raster(properties: dict[str, Any]) -> dict[str, Any]:
    """Properties without those that differ from run to run, which must be there."""
    assert set(OF_THE_RUN) <= set(properties)
    return {name: value for name, value in properties.items() if name not in OF_THE_RUN}


def as_read(entry: pystac.Item) -> dict[str, Any]:
    """What a client made of an item, in the form of :func:`items`; links are the catalog's own."""
    plain = entry.to_dict(include_self_link=False, transform_hrefs=False)
    return {**plain, "properties": of_the_raster(plain["properties"]), "links": []}


@pytest.mark.parametrize(("benches", "version"), [("1.1.0",) * 2, ("1.0.0",) * 2], indirect=["benches"])
def test_both_catalogs_hold_the_same(benches: dict[str, Bench], version: str) -> None:
    static, pgstac = (benches[name].services["catalog"] for name in ("static", "pgstac"))
    assert isinstance(static, StaticCatalog)
    assert isinstance(pgstac, PgstacCatalog)
    assert items(benches["static"]) == items(benches["pgstac"])
    assert {item["stac_version"] for item in items(benches["static"]).values()} == {version}
    assert {blob.blob for blob in static.described_blobs(COLLECTION).values()} == set(GEOREFERENCED)
    assert static.described_blobs(COLLECTION) == pgstac.described_blobs(COLLECTION)
    collection = pgstac.get_collection(COLLECTION)
    assert collection is not None
    assert collection_problems(collection) == []
    without_mirror = dict(static.get_collection(COLLECTION) or {})
    assert set(without_mirror.pop("assets")) == {"geoparquet-items"}
    assert without_mirror == collection
    for bench in benches.values():
        assert catalogue(bench, version) == {"unchanged": len(GEOREFERENCED), "invalid": len(WITHOUT_A_PLACE)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server's own, on this Python
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_clients_read_the_same_from_both(
    benches: dict[str, Bench], pgstac_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = items(benches["static"])
    root = pystac.Catalog.from_file(str(benches["static"].settings.catalog_path / "catalog.json"))
    from_files = {entry.id: as_read(entry) for entry in root.get_items(recursive=True)}
    assert from_files == written
    asked = {
        "Europe": ([5.0, 45.0, 15.0, 55.0], 1),
        "New York": ([-75.0, 40.0, -72.0, 42.0], 2),
        "the South Pole": ([-180.0, -90.0, 180.0, -89.0], 0),
    }
    with stac_api(pgstac_url, monkeypatch) as address:
        client = pystac_client.Client.open(address)
        through_api = {entry.id: as_read(entry) for entry in client.search(collections=[COLLECTION], limit=4).items()}
        assert through_api == written
        for place, (edges, count) in asked.items():
            found = {entry.id for entry in client.search(bbox=edges).items()}
            assert found == {
                item_id for item_id, item in written.items() if shape(item["geometry"]).intersects(box(*edges))
            }, place
            assert len(found) == count, place
        for item_id in written:
            [entry] = client.search(ids=[item_id]).items()
            assert entry.collection_id == COLLECTION
        assert list(client.search(collections=["another"]).items()) == []
        collection, from_file = client.get_collection(COLLECTION), root.get_child(COLLECTION)
        assert isinstance(collection, pystac.Collection)
        assert isinstance(from_file, pystac.Collection)
        assert collection.extent.to_dict() == from_file.extent.to_dict()
        assert collection.summaries.to_dict() == from_file.summaries.to_dict()
