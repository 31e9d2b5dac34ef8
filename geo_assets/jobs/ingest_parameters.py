"""Parameters of ``ingest_vector``: the original's, in its words, and those that came since.

What belongs here: the model, and the options of reading and preparing that follow from it.  What does not: the stages
(``ingest_vector``).
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import WorkflowParameters
from geo_assets.errors import ParameterError
from geo_assets.jobs.blob_tasks import BlobParameters
from geo_assets.jobs.vector_cataloguing import CatalogueTableParameters
from geo_assets.settings import get_settings
from geo_assets.stores.tables import LoadMode

__all__ = ["FILE_EXTENSIONS", "IngestVectorParameters", "geometry_options", "read_options"]

FILE_EXTENSIONS = (
    "csv", "geojson", "json", "gpkg", "kml", "kmz", "shp", "zip",
    "geojsonl", "geojsons", "ndjson", "fgb", "parquet", "geoparquet", "gdb", "tsv", "txt",
)  # fmt: skip
"""The original's eight, and those that came since."""
_ORIGINAL = frozenset(
    ["blob_name", "file_extension", "table_name", "container_name", "schema", "chunk_size", "converter_params"]
)
_CONVERTER = frozenset(["wkt_column", "lat_name", "lon_name", "layer_name", "kml_name", "shp_name"])
_LEAST_CHUNK, _MOST_CHUNK = 100, 10_000
_ALL_LAYERS = "*"
_READ = ("file_extension", "layer", "encoding", "delimiter", "input_crs")
_GEOMETRY = ("null_geometries", "invalid_geometries", "impossible_coordinates", "collections", "mixed_dimensions",
             "dimensions", "orient", "antimeridian")  # fmt: skip


class IngestVectorParameters(CatalogueTableParameters, BlobParameters):
    """Parameters of ``ingest_vector``."""

    blob_name: str = Field(description="Name of the vector file in its container; of a bare shapefile the .shp.")
    file_extension: str = Field(
        "",
        description="Kind of file: csv, geojson, gpkg, kml, kmz, shp, zip and so on. Default: the blob's own ending.",
    )
    table_name: str = Field(
        description="Name of the table; of a file with several layers, what the names of its tables begin with."
    )
    # pydantic's own models have a method of the parameter's name
    schema_name: str = Field(
        "geo", alias="schema", description="Schema of the table; one of those GEO_ASSETS_TABLE_SCHEMAS allows."
    )
    chunk_size: int | None = Field(None, description="Rows a chunk, 100 to 10,000. Default: by size.")
    converter_params: dict[str, Any] = Field(
        default_factory=dict,
        description="wkt_column, or lat_name and lon_name (CSV); layer_name (GeoPackage); kml_name (KMZ); shp_name"
        " (zip).",
    )
    load_mode: LoadMode = Field(
        "create",
        description="create: the table must not be there. overwrite: it is replaced whole. append: rows are added.",
    )
    layer: str | None = Field(None, description="Which layer of the file. Default: all, a table each.")
    target_crs: str | None = Field(
        "EPSG:4326", description="CRS of the table; null keeps the file's own, which must have an EPSG code."
    )
    input_crs: str | None = Field(None, description="CRS of a file that does not say.")
    geometry_column: str = Field("geom", description="Name of the geometry column.")
    encoding: str | None = Field(None, description="Encoding of texts, such as cp1252. Default: found out.")
    delimiter: str | None = Field(None, description="What separates the columns of a CSV. Default: found out.")
    null_geometries: Literal["drop", "keep", "refuse"] = Field(
        "drop", description="Rows without a geometry or with an empty one."
    )
    invalid_geometries: Literal["repair", "drop", "keep", "refuse"] = Field(
        "repair", description="Geometries that are not valid, such as bow-ties."
    )
    impossible_coordinates: Literal["refuse", "drop"] = Field(
        "refuse", description="Coordinates that cannot be in the CRS: refuse the file, or drop these rows."
    )
    collections: Literal["refuse", "split"] = Field(
        "refuse", description="GeometryCollections: refuse the file, or split them into points, lines and polygons."
    )
    mixed_dimensions: Literal["refuse", "split"] = Field(
        "refuse", description="Points, lines and polygons in one layer: refuse the file, or make a table of each."
    )
    dimensions: Literal["auto", "XY", "XYZ", "keep"] = Field(
        "auto",
        description="auto: Z and M are kept where they say something. XY: dropped. XYZ: Z kept, or 0. keep: kept.",
    )
    orient: bool = Field(default=True, description="Whether rings are turned as RFC 7946 wants them.")
    antimeridian: bool = Field(
        default=True, description="Whether longitudes are brought within ±180 and geometries across 180° cut there."
    )
    cluster: bool = Field(default=False, description="Whether rows are ordered along a Hilbert curve.")

    @model_validator(mode="before")
    @classmethod
    def _require_table(cls, data: Any) -> Any:
        if isinstance(data, dict) and "table_name" not in data:
            raise ValueError("table_name is required")
        return data

    @field_validator("file_extension", mode="plain")
    @classmethod
    def _check_extension(cls, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("file_extension must be a string")  # noqa: TRY004 - pydantic wants ValueError
        found = value.strip().lower().removeprefix(".")
        if found and found not in FILE_EXTENSIONS:
            raise ValueError(_not_supported(found))
        return found

    @field_validator("table_name", mode="plain")
    @classmethod
    def _check_table(cls, value: Any) -> str:
        from geo_assets.vector.columns import check_table_name  # noqa: PLC0415 - with the vectors, where one is loaded

        try:
            return check_table_name(value)
        except ParameterError as error:
            raise ValueError(str(error)) from None

    @field_validator("geometry_column", mode="after")
    @classmethod
    def _check_geometry_column(cls, value: str) -> str:
        from geo_assets.vector.columns import check_table_name  # noqa: PLC0415

        try:
            checked = check_table_name(value)
        except ParameterError as error:
            raise ValueError(str(error).replace("table_name", "geometry_column")) from None
        if checked == "id":
            raise ValueError("geometry_column cannot be id: that is the table's own key")
        return checked

    @field_validator("schema_name", mode="plain")
    @classmethod
    def _check_schema(cls, value: Any) -> str:
        allowed = get_settings().allowed_schemas
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(
                f"schema must be one of {', '.join(allowed)}, got {value!r:.100}; others are allowed by the setting"
                " GEO_ASSETS_TABLE_SCHEMAS"
            )
        return value

    @field_validator("chunk_size", mode="plain")
    @classmethod
    def _check_chunk_size(cls, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not _LEAST_CHUNK <= value <= _MOST_CHUNK:
            raise ValueError(f"chunk_size must be an integer from {_LEAST_CHUNK} to {_MOST_CHUNK}, or null")
        return value

    @field_validator("converter_params", mode="plain")
    @classmethod
    def _check_converter(cls, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("converter_params must be a dictionary")  # noqa: TRY004 - pydantic wants ValueError
        if unknown := sorted(str(name) for name in set(value) - _CONVERTER):
            raise ValueError(
                f"converter_params: unknown {', '.join(unknown)}; it takes {', '.join(sorted(_CONVERTER))}"
            )
        if bad := sorted(name for name, given in value.items() if given is not None and not isinstance(given, str)):
            raise ValueError(f"converter_params: {', '.join(bad)} must be a string")
        return dict(value)

    @field_validator("target_crs", "input_crs", mode="before")
    @classmethod
    def _take_a_code(cls, value: Any) -> Any:
        return f"EPSG:{value}" if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("target_crs", "input_crs", mode="after")
    @classmethod
    def _check_crs(cls, value: str | None) -> str | None:
        if value is not None:
            import pyproj  # noqa: PLC0415 - with the vectors, where one is loaded

            try:
                pyproj.CRS.from_user_input(value)
            except pyproj.exceptions.CRSError:
                raise ValueError(f"'{value[:100]}' is no coordinate reference system; try EPSG:4326") from None
        return value

    @model_validator(mode="after")
    def _need_extension(self) -> "IngestVectorParameters":
        if not self.file_extension:
            found = self.blob_name.rpartition("/")[2].rpartition(".")
            ending = found[2].lower() if found[1] else ""
            if ending not in FILE_EXTENSIONS:
                raise ValueError(_not_supported(ending) if ending else "file_extension is required")
            object.__setattr__(self, "file_extension", ending)
        return self

    @classmethod
    def plain(cls, model: WorkflowParameters) -> dict[str, Any]:
        """The parameters as they are hashed: the original's, and those of ours that are not the default.

        The container is named, as the original's default was.
        """
        given = model.model_dump(mode="json", by_alias=True)
        defaults = cls.model_validate({"blob_name": "a.csv", "table_name": "places"}).model_dump(
            mode="json", by_alias=True
        )
        kept = {name: value for name, value in given.items() if name in _ORIGINAL or value != defaults[name]}
        return {**kept, "container_name": kept["container_name"] or get_settings().bronze_container}


def _not_supported(extension: str) -> str:
    return f"file_extension '{extension}' not supported. Supported: {', '.join(FILE_EXTENSIONS)}"


def read_options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """How the file is read: :class:`~geo_assets.vector.open.ReadOptions` as a dict."""
    converter: Mapping[str, Any] = chosen["converter_params"]
    given = {name: converter.get(name) for name in sorted(_CONVERTER)}
    layer = chosen["layer"] or converter.get("layer_name") or _ALL_LAYERS
    return {**given, **{name: chosen[name] for name in _READ}, "layer": layer}


def geometry_options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """How geometries are prepared: :class:`~geo_assets.vector.geometry.GeometryOptions` as a dict."""
    return {name: chosen[name] for name in _GEOMETRY}
