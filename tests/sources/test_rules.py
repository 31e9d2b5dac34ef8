"""From a name to a job: parameters, placeholders, and sources that do not fit their workflow or each other."""

from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from geo_assets.coremachine.binding import Registry, bind, registry_of
from geo_assets.coremachine.contract import Workflow, WorkflowParameters
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.legacy import JobBaseMixin
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


# --- workflows of a team's own -------------------------------------------------------------------------------------


class TileParameters(WorkflowParameters):
    tile: str = Field(pattern=r"\.txt$")
    year: int = Field(ge=1990)
    scale: Annotated[float, Field(gt=0)] | None = None
    level: Literal[10, 20] = 10
    final: bool = False
    label: str | int = ""


class Tiles(Workflow):
    job_type = "tiles"
    Parameters = TileParameters
    stages: ClassVar = [{"number": 1, "name": "one", "task_type": "tile"}]
    handlers: ClassVar = {"tile": lambda params: {"success": True, "result": params}}
    key_parameter = "tile"

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        raise NotImplementedError


class Years(JobBaseMixin):
    """A legacy class that says what it takes."""

    job_type = "years"
    description = "Files of a year"
    stages: ClassVar = Tiles.stages
    parameters_schema: ClassVar = {
        "blob_name": {"type": "str", "required": True},
        "year": {"type": "int", "required": True, "min": 1990},
        "note": {"type": "str"},
    }

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        raise NotImplementedError


OWN: Registry = registry_of([bind(Tiles), bind(Years, Tiles.handlers)])
TILE = "{container}/{name}"


@pytest.mark.parametrize(
    ("keys", "name", "wanted"),
    [
        (
            {"workflow": "tiles", "parameters": {"tile": TILE, "year": "{stem}", "final": "{folder}"}},
            "TRUE/2024.txt",
            {"tile": "bronze/TRUE/2024.txt", "year": 2024, "final": True},
        ),
        (
            {
                "workflow": "tiles",
                "extract": r"_(?P<y>\d+)_(?P<s>[\d.]+)_(?P<l>\d+)_(?P<f>\d)",
                "parameters": {
                    "tile": TILE, "year": "{y}", "scale": "{s}",
                    "level": "{l}", "final": "{f}", "label": "{y}",
                },
            },
            "x_1999_0.50_20_0.txt",
            {
                "tile": "bronze/x_1999_0.50_20_0.txt", "year": 1999, "scale": 0.5,
                "level": 20, "final": False, "label": "1999",
            },
        ),
        (
            {"workflow": "years", "extract": "(?P<y>[0-9]{4})", "parameters": {"year": "{y}", "note": "{y}"}},
            "x_2024.tif",
            {"blob_name": "x_2024.tif", "year": 2024, "note": "2024"},
        ),
        (
            {"extract": "_q(?P<q>[0-9]+)", "parameters": {"jpeg_quality": "{q}"}},
            "x_q080.tif",
            {"container_name": "bronze", "blob_name": "x_q080.tif", "jpeg_quality": 80},
        ),
    ],
)  # fmt: skip
def test_a_workflow_gets_what_it_declares_and_numbers_where_it_takes_numbers(
    keys: dict[str, object], name: str, wanted: dict[str, Any]
) -> None:
    of = source(**keys)
    check_sources([of], {**REGISTRY, **OWN})
    binding = {**REGISTRY, **OWN}[of.workflow]
    assert grain(of, binding) == "blob"
    found = parameters_for(of, binding, name)
    assert found == wanted
    assert [type(value) for value in found.values()] == [type(value) for value in wanted.values()]
    assert binding.validate(found)


@pytest.mark.parametrize("text", ["20x4", "", "2024 ", "1_000", "٣"])
def test_what_is_no_number_is_refused_in_a_sentence(text: str) -> None:
    of = source(workflow="tiles", extract=r"\((?P<y>.*)\)", parameters={"tile": TILE, "year": "{y}"})
    with pytest.raises(ParameterError) as refused:
        parameters_for(of, OWN["tiles"], f"a({text}).txt")
    assert str(refused.value) == f"source 'a': `parameters`: year takes a whole number, but {{y}} is '{text}'"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"workflow": "tiles", "parameters": {"year": 2024}}, "takes neither a container nor a blob: give it the blob"),
        ({"workflow": "tiles", "parameters": {"tile": "{{name}}", "year": 2024}}, "takes neither"),
        ({"workflow": "tiles", "parameters": {"tile": TILE}}, "used: source 'a': year is required"),
        ({"workflow": "tiles", "parameters": {"tile": TILE, "year": 1}}, "year: Input should be greater than"),
        ({"workflow": "tiles", "parameters": {"tile": TILE, "year": "{table}"}}, "a whole number, but {table} is"),
        ({"workflow": "tiles", "parameters": {"tile": TILE, "blob_name": "x"}}, "unknown parameter 'blob_name'"),
        ({"workflow": "tiles", "parameters": {"tile": TILE, "year": "{stem}", "labl": "{stem}"}}, "parameter 'labl'"),
        ({"workflow": "years"}, "Parameter 'year' is required"),
        ({"workflow": "years", "parameters": {"year": "2024"}}, "Parameter 'year' must be an integer, got str"),
    ],
)  # fmt: skip
def test_what_no_name_can_mend_is_refused_when_it_is_loaded(keys: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_sources([source(**keys)], OWN)
    assert told in str(refused.value)


# --- the check of all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"workflow": "proces_raster"}, "there is no 'proces_raster': did you mean `process_raster`?"),
        ({"workflow": "xyz"}, "source 'a': Unknown job type: 'xyz'. Available: hello_world"),
        ({"workflow": "hello_world"}, "source 'a': the workflow hello_world takes neither a container nor a blob"),
        ({"workflow": "stac_catalog_vectors"}, "takes neither a container nor a blob"),
        ({"parameters": {"colection_id": "x"}}, "unknown parameter 'colection_id'"),
        ({"parameters": {"colection_id": "{stem}"}}, "unknown parameter 'colection_id'"),
        ({"workflow": "ingest_vector", "parameters": {"tabel_name": "{stem}"}}, "unknown parameter 'tabel_name'"),
        ({"parameters": {"tiers": "gold"}}, "source 'a': tiers must be one of analysis"),
        ({"parameters": {"tiers": "gold", "target_crs": "EPSG:{stem}"}}, "source 'a': tiers must be one of analysis"),
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
    ("key", "placeholder"),
    [
        ("target_crs", "EPSG:{x}"),
        ("tiers", ["{x}"]),
        ("tiers", "{x}"),
        ("compression", "{x}"),
        ("compression", {"analysis": "{x}"}),
        ("blocksize", "{x}"),
        ("jpeg_quality", "{x}"),
        ("overview_resampling", "{x}"),
        ("reproject_resampling", "{x}"),
        ("raster_type", "{x}"),
        ("id_rule", "{x}"),
        ("datetime_pattern", "{x}"),
    ],
)
def test_what_only_a_name_can_tell_is_not_refused_when_it_is_loaded(key: str, placeholder: object) -> None:
    check_sources([source(extract="_(?P<x>[a-z0-9]+)", parameters={key: placeholder})], REGISTRY)


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
        ({"workflow": "stac_catalog_container"}, {"workflow": "summarize_container"}, True),
        (
            {"workflow": "stac_catalog_container", "prefix": "a/"},
            {"workflow": "stac_catalog_container", "prefix": "b/"},
            False,
        ),
    ],
)
def test_two_sources_never_have_one_blob_or_partition(
    one: dict[str, object], other: dict[str, object], *, apart: bool
) -> None:
    pair = [source(**one), source(**{"name": "b", **other})]
    for given_order in (pair, pair[::-1]):
        if apart:
            check_sources(given_order, REGISTRY)
            continue
        with pytest.raises(SettingsError, match=r"both watch 'bronze/.* a blob could be theirs both|both make jobs of"):
            check_sources(given_order, REGISTRY)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(SettingsError, match="source 'a' is there twice: rename one"):
        check_sources([source(), source(container="silver")], REGISTRY)
