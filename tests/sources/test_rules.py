"""From a name to a job: parameters, placeholders, and sources that do not fit their workflow or each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.errors import ParameterError, SettingsError
from geo_assets.jobs import load_registry
from geo_assets.settings import Settings
from geo_assets.sources.rules import check_sources, grain, parameters_for
from geo_assets.sources.source import Source
from geo_assets.vector.columns import check_table_name, table_name_of

REGISTRY: Registry = load_registry(Settings())


def source(**keys: object) -> Source:
    return Source.model_validate({"name": "a", "container": "bronze", "workflow": "process_raster", **keys})


def parameters(of: Source, name: str) -> dict[str, Any]:
    return parameters_for(of, REGISTRY[of.workflow], name)


@pytest.mark.parametrize(
    ("workflow", "wanted"),
    [
        ("process_raster", "blob"),
        ("validate_raster_job", "blob"),
        ("stac_catalog_raster", "blob"),
        ("ingest_vector", "blob"),
        ("list_container_contents", "container"),
        ("summarize_container", "container"),
        ("stac_catalog_container", "container"),
    ],
)
def test_every_workflow_about_files_can_be_given_them(workflow: str, wanted: str) -> None:
    binding = REGISTRY[workflow]
    of = source(workflow=workflow)
    assert grain(of, binding) == wanted
    given_to_it = parameters(of, "2026/x.tif" if workflow != "ingest_vector" else "2026/x.gpkg")
    validated = binding.validate(given_to_it)
    key = decode_partition_key(binding.partition_key(validated, binding.job_id(validated)))
    assert key == {"blob": "bronze/2026/x.tif", "container": "bronze"}[wanted] or key == "geo.x"


def test_placeholders_and_groups_fill_every_text() -> None:
    of = source(
        extract=r"_(?P<year>\d{4})(?P<month>\d\d)?",
        parameters={
            "collection_id": "aerials-{year}",
            "plain": 7,
            "nested": {"{year}": ["{stem}", "{folder}|{name}", "{{literal}}"]},
            "month": "<{month}>",
        },
    )
    assert parameters(of, "ch/zurich/ortho_2026.TIF") == {
        "container_name": "bronze",
        "blob_name": "ch/zurich/ortho_2026.TIF",
        "collection_id": "aerials-2026",
        "plain": 7,
        "nested": {"{year}": ["ortho_2026", "ch/zurich|ch/zurich/ortho_2026.TIF", "{literal}"]},
        "month": "<>",
    }
    with pytest.raises(ParameterError, match=r"`extract` of source 'a' is not found in 'ortho\.tif'"):
        parameters(of, "ortho.tif")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("x/Straßen Zürich.GPKG", "straßen_zürich"),
        ("2026.csv", "t_2026"),
        ("order.geojson", "t_order"),
        ("roads.shp.zip", "roads"),
        ("city.gdb", "city"),
        ("no extension", "no_extension"),
        (".gpkg", "gpkg"),
    ],
)
def test_a_table_is_called_after_its_file_and_replaced_when_that_changed(name: str, table: str) -> None:
    given_to_it = parameters(source(workflow="ingest_vector"), name)
    assert given_to_it == {
        "container_name": "bronze",
        "blob_name": name,
        "table_name": table,
        "load_mode": "overwrite",
    }


def test_a_table_can_be_called_otherwise() -> None:
    of = source(workflow="ingest_vector", parameters={"table_name": "{folder}_{stem}", "load_mode": "append"})
    assert parameters(of, "a/b/Roads.shp")["table_name"] == "a_b_roads"
    assert parameters(of, "a/b/Roads.shp")["load_mode"] == "append"
    fixed = source(workflow="ingest_vector", parameters={"table_name": "Roads!"})
    assert parameters(fixed, "a.shp")["table_name"] == "Roads!"  # as it stands, for the workflow to refuse
    with pytest.raises(ParameterError, match="no table can be called after '---'"):
        parameters(source(workflow="ingest_vector"), "---.shp")
    assert parameters(source(), "---.tif")["blob_name"] == "---.tif"


@given(st.text(max_size=1200))
def test_every_name_with_a_letter_or_digit_makes_a_table(text: str) -> None:
    try:
        name = table_name_of(text)
    except ParameterError:
        assert not any(character.isascii() and character.isalnum() for character in text[:1000])
        return
    assert check_table_name(name) == name


def test_long_names_make_tables_apart() -> None:
    assert table_name_of("a" * 70) != table_name_of("a" * 71)
    assert table_name_of("a" * 1500) != table_name_of("a" * 1500 + "b")


def test_a_container_workflow_is_told_the_prefix_and_nothing_of_names() -> None:
    for workflow, told in (
        ("list_container_contents", {"filter": {"prefix": "2026/"}}),
        ("stac_catalog_container", {"prefix": "2026/"}),
    ):
        of = source(workflow=workflow, prefix="2026/")
        assert parameters(of, "2026/a.tif") == parameters(of, "2026/b.tif") == {"container_name": "bronze", **told}
        assert REGISTRY[workflow].validate(parameters(of, ""))
        assert parameters(of.model_copy(update={"prefix": ""}), "") == {"container_name": "bronze"}


# --- the check of all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"workflow": "proces_raster"}, "there is no 'proces_raster': did you mean `process_raster`?"),
        ({"workflow": "xyz"}, "source 'a': Unknown job type: 'xyz'. Available: hello_world"),
        ({"workflow": "hello_world"}, "source 'a': the workflow hello_world takes neither a container nor a blob"),
        ({"workflow": "stac_catalog_vectors"}, "takes neither a container nor a blob"),
        ({"parameters": {"colection_id": "x"}}, "unknown parameter 'colection_id'"),
        ({"parameters": {"tiers": "gold"}}, "source 'a': tiers must be one of analysis"),
        ({"parameters": {"blob_name": "a.tif"}}, "source 'a': `parameters`: blob_name follows from the source"),
        (
            {"parameters": {"collection_id": "{steam}"}},
            "has the unknown placeholder {steam}; there are {container}, {name}, ",
        ),
        ({"parameters": {"collection_id": "{year}"}}, "has the unknown placeholder {year}"),
        ({"parameters": {"collection_id": "{stem!r}"}}, "has the unknown placeholder"),
        ({"parameters": {"collection_id": "{stem:>9}"}}, "has the unknown placeholder"),
        ({"parameters": {"collection_id": "{name.__class__}"}}, "has the unknown placeholder {name.__class__}"),
        ({"parameters": {"collection_id": "a}"}}, "has a brace alone"),
        (
            {"workflow": "summarize_container", "parameters": {"filter": {"prefix": "{folder}"}}},
            "there are {container}",
        ),
        ({"workflow": "ingest_vector", "parameters": {"table_name": "select"}}, "reserved word"),
        ({"workflow": "ingest_vector", "parameters": {"schema": "secret"}}, "schema must be one of geo, public"),
    ],
)
def test_a_source_that_cannot_work_is_refused_when_it_is_loaded(keys: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_sources([source(**keys)], REGISTRY)
    assert told in str(refused.value)
    assert str(refused.value).count("source 'a'") == 1


def test_parameters_whose_groups_are_not_known_yet_are_not_refused() -> None:
    check_sources(
        [
            source(extract="(?P<x>a)", parameters={"collection_id": "{x}", "datetime_pattern": None}),
            source(name="b", workflow="ingest_vector", extract="(?P<t>a)", parameters={"table_name": "{t}"}),
            source(name="c", workflow="ingest_vector", prefix="x/", container="c", parameters={"schema": "geo"}),
        ],
        REGISTRY,
    )


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ({}, {}, False),
        ({}, {"prefix": "2026/"}, False),
        ({"prefix": "2025/"}, {"prefix": "2026/"}, True),
        ({}, {"container": "silver"}, True),
        ({}, {"workflow": "validate_raster_job"}, True),
        ({"match": "*_rgb.tif"}, {"match": "*_dem.tif"}, True),
        ({"match": "*.tif"}, {"match": "*_dem.tif"}, False),
        ({"exclude": ["*_dem.tif", "*.jp2"]}, {"match": "*_dem.tif"}, True),
        ({"workflow": "stac_catalog_container"}, {"workflow": "stac_catalog_container"}, False),
    ],
)
def test_two_sources_never_have_one_blob(one: dict[str, object], other: dict[str, object], *, apart: bool) -> None:
    pair = [source(**one), source(**{"name": "b", **other})]
    for given_order in (pair, pair[::-1]):
        if apart:
            check_sources(given_order, REGISTRY)
            continue
        with pytest.raises(SettingsError, match=r"both watch 'bronze/.* so that a blob could be theirs both"):
            check_sources(given_order, REGISTRY)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(SettingsError, match="source 'a' is there twice: rename one"):
        check_sources([source(), source(container="silver")], REGISTRY)
