"""Table stores: where vector tables are kept, behind one interface.

What belongs here: the protocol, the values it gives and takes, and :func:`open_table_store`, which picks a store by the
settings.  What does not: any one store (``postgis``, ``geoparquet``), reading files (``geo_assets.vector``).

**A table is whole for whoever reads it.**  Rows are loaded into a *staging* that no reader sees, in chunks that can be
loaded at the same time, by other processes, twice, or again after a crash: a chunk counts once.  :meth:`publish` checks
that nothing is missing and puts the staging in the target's place in one step.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

from geo_assets.settings import Settings
from geo_assets.vector.table import TableDefinition, TableLoad

__all__ = [
    "GeometryFacts",
    "GeometryValidity",
    "LoadMode",
    "PublishedTable",
    "StagedTable",
    "TableColumn",
    "TableFacts",
    "TableRecord",
    "TableStore",
    "open_table_store",
]

LoadMode = Literal["create", "overwrite", "append"]
"""``create``: the table must not be there. ``overwrite``: replaced, if it is. ``append``: rows are added to it, or it
is made."""


@dataclass(frozen=True, kw_only=True)
class StagedTable:
    """A staging: what will be a table, or rows of one."""

    token: str
    """Names the staging; no two loads share one."""
    definition: TableDefinition
    mode: LoadMode
    target_version: str | None
    """Version of the target when the staging was made; ``None``: it was not there. :meth:`publish` refuses to replace,
    or to add to, anything else."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for task parameters."""
        return {**asdict(self), "definition": self.definition.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StagedTable":
        """The inverse of :meth:`as_dict`."""
        return cls(**{**values, "definition": TableDefinition.from_dict(values["definition"])})


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table after a load."""

    schema: str
    table: str
    version: str
    """Changes with every load, and whenever somebody puts another table in its place."""
    rows: int
    """All of the table's, counted."""
    rows_loaded: int
    replaced: bool
    """Whether there was a table before."""
    href: str
    """Where it is read from; without credentials."""


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """What the store remembers of a table that was loaded by it."""

    schema: str
    table: str
    version: str
    loads: tuple[TableLoad, ...]
    """Oldest first; those of an overwritten table are gone with it."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the source."""


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """One column of a table that is there."""

    name: str
    type: str
    """As the database names it."""
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class GeometryFacts:
    """One geometry column of a table that is there."""

    name: str
    type: str
    """As declared: ``Point``, …, ``Geometry``."""
    srid: int | None
    """``None``: the column says nothing of its CRS."""
    dimensions: str = "XY"


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What is known of a table that is there, whoever made it."""

    schema: str
    table: str
    columns: tuple[TableColumn, ...]
    """All, geometry columns among them, in order."""
    geometries: tuple[GeometryFacts, ...]
    described: str | None
    """Which geometry column the following is about; ``None``: the table has none."""
    row_count: int
    exact: bool
    """Whether ``row_count``, ``bbox`` and ``footprint`` were computed from all rows, or estimated by statistics."""
    geometry_types: tuple[str, ...] = ()
    """Those that rows have, sorted: ``MultiPolygon``, ``Polygon``."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in EPSG:4326 degrees; west > east across the antimeridian. ``None``: no geometry."""
    native_bbox: tuple[float, float, float, float] | None = None
    """Left, bottom, right, top in the column's own CRS."""
    footprint: Mapping[str, Any] | None = None
    """GeoJSON in EPSG:4326, split at the antimeridian: an outline around all geometries."""
    datetime_range: tuple[str, str] | None = None
    """First and last value of the column that was asked for, RFC 3339 in UTC."""
    version: str | None = None
    record: TableRecord | None = None
    href: str = ""
    description: str | None = None
    """The table's comment."""


@dataclass(frozen=True, kw_only=True)
class GeometryValidity:
    """How many geometries of a table are valid, whoever made it."""

    rows: int
    """All that the table has."""
    looked_at: int
    """Geometries looked at, all columns together; nulls are none."""
    invalid: int
    examples: tuple[str, ...] = ()
    """Why the first ones are not valid, with their place, and their id where rows have one."""
    exact: bool = True
    """Whether all were looked at, or a part spread over the table."""


class TableStore(Protocol):
    """Vector tables; safe to use from several threads, processes and machines at once.

    Raises:
        TableStoreUnavailableError: the store cannot be reached, or a lock is held too long; try again later. Every
            method may raise it.
        AccessDeniedError: the role may not do this; says which right is missing.
    """

    @property
    def description(self) -> str:
        """What store this is, for messages; never a credential."""
        ...

    @property
    def kind(self) -> Literal["postgis", "geoparquet"]:
        """Which kind."""
        ...

    def check_target(self, schema: str, table: str, mode: LoadMode) -> str | None:
        """Find out, before any work, whether a load can end well; returns the version of the table that is there.

        Raises:
            TableExistsError: ``create``, and there is a table (or view) of that name.
            TableInUseError: ``overwrite`` would lose what depends on the table (foreign keys, materialized views,
                triggers, row security, partitions, …); names it.
        """
        ...

    def begin(self, definition: TableDefinition, mode: LoadMode) -> StagedTable:
        """Make a staging, in one go, so that chunks only fill it.

        Where rows are added to a table, the staging's definition has the table's types, where they take the rows'
        (``vector.fitting`` says which do, and casts batches), and the type and dimensions of its geometry.

        Raises:
            TableExistsError, TableInUseError: as :meth:`check_target`.
            TableSchemaError: ``append``, and the table's columns, geometry type or SRID do not take these rows; names
                every difference.
        """
        ...

    def load_chunk(self, staged: StagedTable, chunk: int, batches: Iterable[pa.RecordBatch]) -> int:
        """Load one chunk; returns its rows. A chunk that is there already is not loaded again.

        Args:
            staged: of :meth:`begin`, which may have been called in another process.
            chunk: its number, from 0.
            batches: of ``staged.definition.chunk_schema``, geometries already of the column's type.

        Raises:
            StagingLostError: the staging is gone (discarded, published, or made anew).
            TableDataError: the store refuses a value; says which.
        """
        ...

    def publish(
        self,
        staged: Sequence[StagedTable],
        loads: Sequence[TableLoad],
        *,
        chunks: Sequence[int],
        cluster: bool = False,
    ) -> list[PublishedTable]:
        """Check, index and put in place several stagings, all or none.

        Args:
            staged: the stagings of one job.
            loads: what each holds and where it came from; ``rows`` is how many there must be.
            chunks: how many chunks each must have.
            cluster: order the rows along a Hilbert curve.

        Raises:
            TableDataError: rows or chunks are missing or too many; nothing was published.
            PreconditionFailedError: the target is not what it was when the staging was made.
            TableExistsError, TableInUseError, TableSchemaError: as :meth:`begin`.
            StagingLostError: a staging is gone, and what it held is not published either.
        """
        ...

    def discard(self, tokens: Iterable[str]) -> None:
        """Remove stagings; those that are gone are no matter."""
        ...

    def sweep(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        """Remove (``dry_run``: count) stagings that nobody has touched for so long; returns how many."""
        ...

    def record(self, schema: str, table: str) -> TableRecord | None:
        """What the store remembers of a table; ``None`` where it is not there, or not as it was loaded."""
        ...

    def records(self) -> Iterator[TableRecord]:
        """What the store remembers of every table that is as it was loaded, in no order."""
        ...

    def loaded_by(self, job_id: str) -> list[TableRecord]:
        """The tables that hold rows loaded by a job (one of their loads has this ``job_id``), sorted by name."""
        ...

    def describe(
        self,
        schema: str,
        table: str,
        *,
        geometry_column: str | None = None,
        datetime_column: str | None = None,
        exact: bool = True,
    ) -> TableFacts:
        """Look at a table, whoever made it.

        Args:
            schema: its schema.
            table: its name.
            geometry_column: which one, where there are several; default: the first.
            datetime_column: whose range is wanted.
            exact: look at every row, or take what statistics say (count and box; the footprint is then the box).

        Raises:
            TableNotFoundError: it is not there, or the role may not see it.
            ParameterError: no such geometry or date column.
        """
        ...

    def validity(self, schema: str, table: str, *, most: int = 1_000_000) -> GeometryValidity:
        """Look whether geometries are valid: all of them, or about ``most`` where the table has more rows.

        With 0, rows are counted and nothing else.

        Raises:
            TableNotFoundError: it is not there.
            TableDataError: it cannot be read.
        """
        ...

    def list_tables(self, schema: str) -> list[str]:
        """Names of the tables in a schema, sorted; none where there is no such schema."""
        ...

    def read(self, schema: str, table: str, *, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Stream rows ordered by id, attributes as they travel in chunks, geometries as WKB.

        Raises:
            TableNotFoundError: it is not there.
        """
        ...

    def drop(self, schema: str, table: str, *, versions: Sequence[str] | None = None) -> bool:
        """Remove a table if it is there in one of these versions (``None``: whatever is there); whether it was.

        Raises:
            PreconditionFailedError: it is there in another version, or, where versions are asked for, it is
                :meth:`touched`.
            TableInUseError: something depends on it; names it.
        """
        ...

    def touched(self, schema: str, table: str) -> bool:
        """Whether a table holds other rows than the loads in its record: rows were added or removed by other means.

        How many there are is compared, not what is in them.  Also where there is a table that the store knows nothing
        of; not where there is none.
        """
        ...

    def blockers(self, schema: str, table: str) -> list[str]:
        """What depends on a table so that :meth:`drop` would refuse: views, foreign keys of others, …; sorted."""
        ...

    def close(self) -> None:
        """Give back connections; the store is not used afterwards."""
        ...


def open_table_store(settings: Settings) -> TableStore:
    """Open the table store the settings name: PostGIS where they hold a URL, else GeoParquet in the home.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
    """
    # each store is imported where it is wanted
    if settings.tables_url is not None:
        from geo_assets.stores.postgis import PostgisTables  # noqa: PLC0415

        return PostgisTables(settings.tables_url.get_secret_value(), staging_schema=settings.staging_schema)
    from geo_assets.stores.geoparquet import GeoParquetTables  # noqa: PLC0415

    return GeoParquetTables(settings.tables_path)
