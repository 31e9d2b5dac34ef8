"""The asset ``catalog_report`` on real published items: the page in the container, the event, the lineage."""

from collections.abc import Iterator

import dagster as dg
import pytest

from geo_assets.assets.report import build_report
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.definitions import defs
from geo_assets.settings import Settings
from tests.jobs.bench import Bench

REPORT = dg.AssetKey("catalog_report")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A raster with a COG and an item, and one that has neither."""
    sandbox = Sandbox(Settings(task_processes=1))
    made = Bench(
        tmp_path_factory.mktemp("bench"), sandbox, report_url="http://127.0.0.1:3001/", ui_url="http://127.0.0.1:3000"
    )
    made.put("bronze", "alpha_3857.tif", "no_crs_float64.tif")
    made.run_many("process_raster", [{"container_name": "bronze", "blob_name": name} for name in made.files("bronze")])
    yield made
    made.ledger.close()
    sandbox.close(kill=True)


def materialize(machine: CoreMachine) -> dict[str, dg.MetadataValue]:
    class Resource:
        def machine(self) -> CoreMachine:
            return machine

    definitions = dg.Definitions.merge(
        build_report(machine.settings, machine.registry),
        dg.Definitions(
            assets=[dg.AssetSpec("raster_stac_item"), dg.AssetSpec("vector_stac_item")], resources={MACHINE: Resource()}
        ),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("draw_catalog_report").execute_in_process(instance=instance)
        (event,) = result.asset_materializations_for_node("catalog_report")
    return dict(event.metadata)


def test_the_page_lies_in_the_container_and_the_event_leads_to_it(bench: Bench) -> None:
    metadata = materialize(bench.machine)
    page = bench.services["blobs"].read("reports", "catalog.html").decode()
    assert "bronze%2Falpha_3857.tif" in page
    assert "CRS_MISSING" in page
    assert bench.files("reports") == ["catalog.html"]
    assert metadata["page"] == dg.MetadataValue.url("http://127.0.0.1:3001/catalog.html")
    assert metadata["geo/items"].value == 1
    assert metadata["geo/failures"].value == 1
    counts = metadata["counts"]
    assert isinstance(counts, dg.TableMetadataValue)
    (row,) = counts.records
    assert (row.data["collection"], row.data["items"]) == ("cogs", 1)
    for name, most in (("map", 1000), ("pictures", 12_000)):
        drawn = metadata[name].value
        assert isinstance(drawn, str)
        assert "data:image/svg+xml" in drawn
        assert len(drawn) <= most
    assert "not in the report" not in metadata
    # a second one takes its place
    bench.services["blobs"].create_container("another")
    materialize(bench.machine)
    assert bench.services["blobs"].read("reports", "catalog.html").decode() != page


def test_it_stands_below_the_items_and_runs_by_itself_only_where_somebody_wants_it() -> None:
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get(REPORT).parent_keys} == {"raster_stac_item", "vector_stac_item"}
    for upstream in graph.get(REPORT).parent_keys:
        mapping = graph.get_partition_mapping(REPORT, upstream)
        assert isinstance(mapping, dg.AllPartitionMapping)
    schedule = defs.resolve_schedule_def("catalog_report_daily")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert graph.get(REPORT).freshness_policy is None  # it would be overdue where nobody switched the schedule on
