"""Every asset of the code location says what a person needs to find and trust it, and the lineage holds together."""

from collections.abc import Iterator

import dagster as dg
import pytest

from geo_assets.assets.sources import build_source_assets, container_uri
from geo_assets.build import build_definitions
from geo_assets.jobs.process_raster import ProcessRaster
from geo_assets.settings import Settings
from geo_assets.sources.source import Source
from tests.services.found import REPOSITORY

SOURCES = [
    Source(name="coast", container="coast-2024", prefix="images/", match=("*.tif",), workflow="process_raster"),
    Source(name="roads", container="roads", workflow="ingest_vector", exclude=("old/*",), when_removed="unpublish"),
    Source(name="drop", container="drop", workflow="stac_catalog_container"),
]
defs = build_definitions(sources=SOURCES)
SPECS = defs.resolve_all_asset_specs()
GROUPS = {"sources", "containers", "rasters", "vectors", "catalog", "reports", "examples"}


def test_an_asset_names_its_group_kinds_owners_and_purpose() -> None:
    for spec in SPECS:
        assert spec.group_name in GROUPS, spec.key
        assert spec.kinds, spec.key
        assert spec.owners, spec.key
        assert len(spec.description or "") > 20, spec.key
        assert spec.tags.get("geo_assets/domain"), spec.key


def test_an_asset_with_partitions_of_blobs_or_tables_has_no_condition_and_no_freshness() -> None:
    """Each update of one partition would be a run of its own."""
    small = [spec for spec in SPECS if getattr(spec.partitions_def, "name", "containers") != "containers"]
    assert len(small) >= 5
    for spec in small:
        assert spec.automation_condition is None, spec.key
        assert spec.freshness_policy is None, spec.key


def test_automation_waits_for_listings_only_and_is_off_at_first() -> None:
    by_key = {spec.key.to_user_string(): spec for spec in SPECS}
    automated = {name for name, spec in by_key.items() if spec.automation_condition is not None}
    assert {"container_summary", "container_stac_items"} <= automated
    sensor = defs.resolve_sensor_def("container_automation")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def with_keys() -> Iterator[dg.DagsterInstance]:
    """An instance with one key of each set, to look things up in."""
    with dg.DagsterInstance.ephemeral() as made:
        for name, only in (("containers", "coast"), ("raster_blobs", "coast/a.tif"), ("vector_tables", "geo.roads")):
            made.add_dynamic_partitions(name, [only])
        yield made


def _evaluated(
    instance: dg.DagsterInstance, before: dg.EvaluateAutomationConditionsResult | None
) -> dg.EvaluateAutomationConditionsResult:
    selection = dg.AssetSelection.assets("container_summary", "container_stac_items")
    cursor = before.cursor if before is not None else None
    return dg.evaluate_automation_conditions(defs=defs, instance=instance, asset_selection=selection, cursor=cursor)


def test_a_listed_container_is_summarized_and_catalogued_and_items_start_nothing(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("containers", ["coast", "hills"])
    instance.add_dynamic_partitions("raster_blobs", ["coast/a.tif"])
    evaluated = _evaluated(instance, None)
    for asset, partition in (("container_contents", "coast"), ("raster_stac_item", "coast/a.tif")):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    again = _evaluated(instance, evaluated)
    for asset in ("container_summary", "container_stac_items"):
        assert evaluated.get_requested_partitions(dg.AssetKey(asset)) == set()
        assert again.get_requested_partitions(dg.AssetKey(asset)) == {"coast"}
    instance.report_runless_asset_event(dg.AssetMaterialization("raster_stac_item", partition="coast/a.tif"))
    later = _evaluated(instance, again)
    assert later.total_requested == 0


def test_every_workflow_asset_has_a_job_a_submit_job_and_a_check() -> None:
    repository = defs.get_repository_def()
    jobs = set(repository.job_names)
    checks = {key.asset_key.to_user_string() for key in repository.asset_graph.asset_check_keys}
    workflows = {spec.tags["geo_assets/job_type"]: spec for spec in SPECS if "geo_assets/job_type" in spec.tags}
    assert len(workflows) >= 4
    for job_type, spec in workflows.items():
        assert {job_type, f"submit_{job_type}"} <= jobs
        assert spec.key.to_user_string() in checks


def test_whatever_is_told_that_its_blob_is_gone_has_the_check_that_shows_it() -> None:
    checks = {key.asset_key for key in defs.resolve_asset_graph().asset_check_keys if key.name == "source_present"}
    told = {"raster_blobs", "vector_tables"}
    assert checks == {spec.key for spec in SPECS if getattr(spec.partitions_def, "name", None) in told}


def test_what_has_a_freshness_policy_is_kept_fresh_from_the_start() -> None:
    """Where nothing runs by itself, an asset that was made once would be overdue for ever."""
    fresh = {spec.key for spec in SPECS if spec.freshness_policy is not None}
    assert fresh == {dg.AssetKey("reconciliation")}
    schedules = defs.get_repository_def().schedule_defs
    running = [one for one in schedules if one.default_status is dg.DefaultScheduleStatus.RUNNING]
    kept = {key for one in running for key in defs.resolve_job_def(one.job_name).asset_layer.selected_asset_keys}
    assert fresh <= kept


# --- lineage -----------------------------------------------------------------------------------------------------


def test_each_source_is_a_root_that_feeds_its_workflows_asset() -> None:
    graph = defs.resolve_asset_graph()
    for source, asset in zip(SOURCES, ("cog", "vector_table", "container_stac_items"), strict=True):
        node = graph.get(dg.AssetKey(["source", source.name]))
        assert not node.parent_keys
        assert node.is_external
        assert node.child_keys == {dg.AssetKey(asset), dg.AssetKey("container_contents")}


@pytest.mark.parametrize("item", ["raster_stac_item", "vector_stac_item", "container_stac_items"])
def test_from_an_item_one_gets_back_to_containers_and_sources(item: str) -> None:
    graph = defs.resolve_asset_graph()
    ancestors: set[dg.AssetKey] = set()
    new = {dg.AssetKey(item)}
    while new:
        new = {parent for key in new for parent in graph.get(key).parent_keys} - ancestors
        ancestors |= new
    named = {key.to_user_string() for key in ancestors}
    assert {"container_contents", "source_container"} <= named
    assert any(name.startswith("source/") for name in named)


def test_edges_between_two_definitions_of_partitions_take_all() -> None:
    """Dagster's own mapping between them would name partitions that do not exist."""
    graph = defs.resolve_asset_graph()
    partitions = {spec.key: spec.partitions_def for spec in SPECS}
    between = 0
    for spec in SPECS:
        for dep in spec.deps:
            above = partitions[dep.asset_key]
            mapping = graph.get_partition_mapping(spec.key, dep.asset_key)
            if None in (above, spec.partitions_def):
                continue
            if above == spec.partitions_def:
                assert isinstance(mapping, dg.IdentityPartitionMapping), (spec.key, dep.asset_key)
            else:
                between += 1
                assert isinstance(dep.partition_mapping, dg.AllPartitionMapping), (spec.key, dep.asset_key)
    assert between >= 3


@pytest.mark.parametrize("with_upstream", [False, True], ids=["alone", "with its upstream"])
@pytest.mark.parametrize(
    ("asset", "key"),
    [
        ("container_contents", "coast"),
        ("container_summary", "coast"),
        ("container_stac_items", "coast"),
        ("raster_validation", "coast/a.tif"),
        ("cog", "coast/a.tif"),
        ("raster_stac_item", "coast/a.tif"),
        ("vector_table", "geo.roads"),
        ("vector_stac_item", "geo.roads"),
    ],
)
def test_a_partition_can_be_backfilled(
    with_keys: dg.DagsterInstance, asset: str, key: str, *, with_upstream: bool
) -> None:
    """The keys that Dagster finds for the assets of a backfill are ones that there are."""
    graph = defs.resolve_asset_graph()
    selection = dg.AssetSelection.assets(asset)
    chosen = (selection.upstream() if with_upstream else selection).resolve(graph)
    partitioned = {one for one in chosen if graph.get(one).partitions_def is not None and graph.get(one).is_executable}
    assert dg.AssetKey(asset) in partitioned
    assert len(partitioned) == 1 or with_upstream
    with dg.partition_loading_context(dynamic_partitions_store=with_keys):
        for child in partitioned:
            definition = graph.get(child).partitions_def
            assert definition is not None
            subset = definition.subset_with_partition_keys(
                [key if child == dg.AssetKey(asset) else definition.get_partition_keys()[0]]
            )
            for parent in graph.get(child).parent_keys & partitioned:
                above = graph.get(parent).partitions_def
                assert above is not None
                mapped = graph.get_partition_mapping(
                    child, parent
                ).get_upstream_mapped_partitions_result_for_partitions(subset, definition, above)
                assert not mapped.required_but_nonexistent_subset.get_partition_keys()
                assert set(mapped.partitions_subset.get_partition_keys()) <= set(above.get_partition_keys())


# --- what is said of sources and of code ---------------------------------------------------------------------------


def test_a_source_says_where_it_lies_what_matches_and_what_becomes_of_it() -> None:
    coast, roads, _ = build_source_assets(
        SOURCES, Settings(blob_store="azure", azure_account="archive")
    ).resolve_all_asset_specs()
    assert coast.metadata["dagster/uri"] == "https://archive.blob.core.windows.net/coast-2024/images/"
    assert (coast.metadata["geo/match"], coast.metadata["geo/workflow"]) == ("`*.tif`", "process_raster")
    assert (roads.metadata["geo/exclude"], roads.metadata["geo/when_removed"]) == ("`old/*`", "unpublish")
    for word in (
        "coast-2024",
        "images/",
        "source_coast",
        "process_raster",
        "nothing to materialize",
        "docs/sources.md",
    ):
        assert word in (coast.description or "")
    assert coast.kinds == {"azure"}


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ({"azure_endpoint": "https://u:pw@blobs.example.org/acc/?sig=canary"}, "https://blobs.example.org/acc/c/"),
        (
            {"azure_connection_string": "BlobEndpoint=https://a.example.org;SharedAccessSignature=sv=1&sig=canary"},
            "https://a.example.org/c/",
        ),
        ({"azure_connection_string": "AccountName=acc;AccountKey=canary=="}, "https://acc.blob.core.windows.net/c/"),
        ({"azure_connection_string": "accountname=acc; EndpointSuffix=example.cn"}, "https://acc.blob.example.cn/c/"),
        ({"azure_connection_string": "UseDevelopmentStorage=true"}, "http://127.0.0.1:10000/devstoreaccount1/c/"),
        ({"azure_connection_string": "canary"}, None),
        ({}, None),
    ],
)
def test_the_address_of_a_container_holds_no_secret(given: dict[str, str], uri: str | None) -> None:
    assert container_uri(Settings(blob_store="azure", **given), "c") == uri  # type: ignore[arg-type]


def _references(spec: dg.AssetSpec) -> list[object]:
    value = spec.metadata["dagster/code_references"]
    assert isinstance(value, dg.CodeReferencesMetadataValue)
    return list(value.code_references)


def test_every_asset_leads_to_its_code_and_its_page() -> None:
    assert len(SPECS) > 10
    for spec in SPECS:
        (reference,) = _references(spec)
        assert isinstance(reference, dg.LocalFileCodeReference)
        assert reference.file_path.endswith(".py")
        page, _, anchor = str(spec.metadata["geo/docs"]).partition("#")
        written = (REPOSITORY / page).read_text().replace("`", "")
        assert f"### {anchor}\n" in written or spec.key.has_prefix(["source"])


def test_links_to_code_take_the_address_that_is_set() -> None:
    made = build_definitions(settings=Settings(code_url="https://git.example.org/geo-assets/blob/main/"), sources=[])
    (cog,) = [spec for spec in made.resolve_all_asset_specs() if spec.key == dg.AssetKey("cog")]
    (reference,) = _references(cog)
    assert isinstance(reference, dg.UrlCodeReference)
    place, _, line = reference.url.partition("#L")
    assert place == "https://git.example.org/geo-assets/blob/main/geo_assets/jobs/process_raster.py"
    source = (REPOSITORY / "geo_assets" / "jobs" / "process_raster.py").read_text().splitlines()
    assert source[int(line) - 1].startswith(f"class {ProcessRaster.__name__}")
    assert str(REPOSITORY) not in reference.url
    watching = build_source_assets(SOURCES[:1], Settings(code_url="https://git.example.org/geo-assets/blob/main/"))
    made = dg.Definitions.merge(made, watching)
    for name, module in (
        ("catalog_report", "assets/report"),
        ("reconciliation", "assets/reconciliation"),
        ("source_container", "assets/sources"),
        ("source/coast", "sources/source"),
    ):
        (spec,) = [spec for spec in made.resolve_all_asset_specs() if spec.key == dg.AssetKey.from_user_string(name)]
        (reference,) = _references(spec)
        assert isinstance(reference, dg.UrlCodeReference)
        assert f"/geo_assets/{module}.py#L" in reference.url
