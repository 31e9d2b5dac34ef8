"""Every environment variable of the package, typed and documented, in one class.

What belongs here: settings an operator may change, all named ``GEO_ASSETS_*`` (a ``.env`` file is not read).
What does not: parameters of a job, and Dagster's own settings, which live in ``dagster.yaml``.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from geo_assets.errors import SettingsError
from geo_assets.redaction import redact

__all__ = ["MOST_DAYS", "Settings", "get_settings"]

MOST_DAYS = 36_500
"""Longest that anything is kept; dates do not go back for ever."""


class Settings(BaseSettings):
    """All settings; read once a process by :func:`get_settings`."""

    # an empty variable, as compose files pass on what is not set, is no setting
    model_config = SettingsConfigDict(env_prefix="GEO_ASSETS_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(
        Path(".geo_assets"),
        description="Folder of all embedded state: ledger, listings, tables, catalog, temporary files.",
    )

    # Blob store
    blob_store: Literal["local", "azure", "memory"] = Field(
        "local", description="Where containers live: folders on disk, Azure Blob Storage, or memory (tests)."
    )
    blob_root: Path | None = Field(
        None, description="Folder whose sub-folders are the local containers; default: `containers` in the home."
    )
    azure_account: str | None = Field(None, description="Storage account name.")
    azure_endpoint: str | None = Field(
        None,
        description="Blob endpoint where it is not the public cloud's, e.g. http://127.0.0.1:10000/devstoreaccount1.",
    )
    azure_account_key: SecretStr | None = Field(None, description="Account key.")
    azure_sas_token: SecretStr | None = Field(None, description="SAS token (with or without the leading '?').")
    azure_connection_string: SecretStr | None = Field(None, description="Connection string; wins over the others.")

    # Ledger
    ledger_url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL of the ledger; default: SQLite in the home. PostgreSQL: postgresql+psycopg2://…",
    )

    # STAC catalog
    catalog_url: SecretStr | None = Field(
        None, description="URL of a PostgreSQL database for pgSTAC; default: a static catalog in files."
    )
    catalog_root: Path | None = Field(None, description="Folder of the static catalog; default: `catalog` in the home.")
    thumbnail_container: str = Field("thumbnails", description="Container of the thumbnails of catalogued rasters.")
    catalog_batch_size: int = Field(2000, ge=1, le=50000, description="Items written to pgSTAC at once.")

    # Vector tables
    tables_url: SecretStr | None = Field(
        None, description="URL of a PostGIS database for vector tables; default: GeoParquet files in the home."
    )
    tables_root: Path | None = Field(
        None, description="Folder of the GeoParquet tables; default: `tables` in the home."
    )
    table_schemas: str = Field("geo,public", description="Schemas that jobs may load tables into, separated by commas.")
    staging_schema: str = Field(
        "geo_assets_staging",
        description="Schema of PostGIS for tables that are being loaded, and the register of loaded ones.",
    )
    staging_container: str = Field(
        "staging", description="Container of what vector jobs prepared and have not loaded yet."
    )
    features_url: str | None = Field(
        None, description="Base URL of an OGC API Features service over the tables, for links in items."
    )
    tiles_url: str | None = Field(
        None, description="Base URL of a vector tile service over the tables, for links in items."
    )
    vector_max_gb: int = Field(64, ge=1, description="Most GB a vector file may have, unpacked where it is an archive.")
    vector_max_ratio: int = Field(
        200, ge=1, description="Most unpacked bytes a byte of an archive, above 64 MB unpacked."
    )
    vector_max_entries: int = Field(10_000, ge=1, description="Most entries of an archive, files of a dataset.")
    vector_max_columns: int = Field(1_500, ge=1, le=1_590, description="Most attributes of a layer.")
    vector_max_layers: int = Field(100, ge=1, description="Most layers of a file that are loaded by one job.")
    vector_max_feature_mb: int = Field(256, ge=1, description="Largest single feature, MB.")

    # Waves, chunks, tasks
    wave_size: int = Field(1000, ge=1, le=5000, description="Most partition keys one run handles.")
    waves_at_once: int = Field(4, ge=1, description="Most bulk waves of one workflow under way at a time.")
    interactive_limit: int = Field(
        20, ge=0, description="A submission of at most this many jobs counts as interactive and goes first."
    )
    job_chunk_size: int = Field(100, ge=1, le=1000, description="Jobs in one dynamic output.")
    task_chunk_size: int = Field(1000, ge=1, le=10000, description="Tasks of a fan-out stage in one dynamic output.")
    task_threads: int = Field(8, ge=1, description="Tasks at once where a workflow runs in threads.")
    task_processes: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Tasks at once where a workflow runs in worker processes; default: the number of cores.",
    )
    task_max_retries: int = Field(3, ge=0, le=10, description="Retries of a task after a transient error.")
    task_retry_base_delay: float = Field(5.0, ge=0, le=60, description="Seconds before the first retry; doubles.")
    task_retry_max_delay: float = Field(300.0, ge=0, le=3600, description="Longest wait before a retry, seconds.")
    max_releases: int = Field(
        3, ge=0, description="How often a job whose run died is queued again before it is given up as failed."
    )
    heartbeat_seconds: float = Field(10.0, gt=0, description="How often running tasks write their heartbeat.")

    # Workflow classes written for the original CoreMachine
    legacy_jobs: str | None = Field(
        None, description="Where a team's job classes are registered: module:NAME of a dict job type → class."
    )
    legacy_handlers: str | None = Field(
        None, description="Where their task handlers are registered: module:NAME of a dict task type → callable."
    )
    bronze_container: str = Field("bronze", description="Container of raw data: where rasters come from by default.")
    silver_container: str = Field("silver", description="Container of processed data: where COGs go.")
    gold_container: str = Field("gold", description="Container of exports, as legacy classes read it.")

    # Limits of one task in a worker process; a workflow may set its own
    task_wall_seconds: float = Field(3600.0, gt=0, description="Wall-clock limit of a task.")
    task_cpu_seconds: int = Field(3600, ge=1, description="CPU-time limit of a task.")
    task_memory_mb: int = Field(4096, ge=64, description="Memory limit of a worker process (data segment), MB.")
    task_file_size_mb: int = Field(65536, ge=1, description="Largest file a worker process may write, MB.")

    # Rasters: what a header may declare before anything is read
    raster_max_pixels: int = Field(100_000_000_000, ge=1, description="Most pixels (width x height) of a raster.")
    raster_max_bands: int = Field(4096, ge=1, description="Most bands of a raster.")
    raster_max_unpacked_gb: int = Field(1024, ge=1, description="Most GB a raster may have unpacked, all bands.")
    raster_max_block_mb: int = Field(512, ge=1, description="Largest strip or tile of a raster, MB unpacked.")
    raster_max_blocks: int = Field(50_000_000, ge=1, description="Most strips or tiles of a raster.")
    raster_max_ratio: int = Field(
        10_000, ge=1, description="Most unpacked bytes a byte of the file, for rasters above 1 GB unpacked."
    )
    disk_reserve_mb: int = Field(512, ge=0, description="MB that temporary files leave free on their disk.")

    # Container jobs
    listing_store: Literal["auto", "parquet", "postgres"] = Field(
        "auto",
        description="Where listings are kept as tables: Parquet files in the home, or the ledger's PostgreSQL database;"
        " auto: PostgreSQL where the ledger is.",
    )
    tasks_a_job_limit: int = Field(
        50_000,
        ge=0,
        description="Most blobs of a container that get a task each; beyond, a task takes 1,000 (catalogue: 50).",
    )
    listing_max_age: float = Field(
        0.0, ge=0, description="Seconds for which a finished listing or summary answers again; 0: always run anew."
    )

    # Sources: containers that are watched
    sources: Path | None = Field(
        None, description="A YAML file of sources, or a folder of such files; default: `sources.yaml` in the home."
    )
    defs: Path | None = Field(
        None, description="A folder of Dagster components (`defs.yaml`); default: `defs` in the package."
    )
    look_seconds: float = Field(
        15.0, gt=0, le=45, description="How long a sensor's tick may list a container; beyond, a run lists it."
    )
    events_queue: str | None = Field(
        None, description="Azure Storage queue of blob events (Event Grid), which shorten the wait for the next look."
    )
    events_queue_endpoint: str | None = Field(
        None,
        description="Queue endpoint where it is not the public cloud's, e.g. http://127.0.0.1:10001/devstoreaccount1.",
    )
    partition_keys_limit: int = Field(
        100_000, ge=1, description="Partition keys of an asset beyond which its pages are slow; more are reported."
    )

    # Failures told to others
    failure_webhook: SecretStr | None = Field(
        None, description="URL that a failed run is posted to as JSON; may hold a secret."
    )
    failure_webhook_hours: float = Field(
        6.0, ge=0, le=8_760, description="Hours for which a failure of the same kind is not posted again."
    )
    ui_url: str | None = Field(None, description="Address of the Dagster UI, for links in posts and reports.")

    # Clean-up
    keep_run_days: float = Field(
        30.0,
        gt=0,
        le=MOST_DAYS,
        description="Days that runs and their events are kept, where no partition shows them any more.",
    )
    keep_task_days: float = Field(
        30.0, gt=0, le=MOST_DAYS, description="Days that the ledger keeps the tasks of ended jobs."
    )
    keep_listing_days: float = Field(
        7.0, gt=0, le=MOST_DAYS, description="Days that listings are kept which are not the latest of their container."
    )
    keep_gone_days: float = Field(
        90.0,
        gt=0,
        le=MOST_DAYS,
        description="Days that a source remembers a blob that is gone, of which it takes nothing back.",
    )
    clean_up_cron: str = Field("17 3 * * *", description="When the clean-up runs, as a cron expression, UTC.")

    # Report
    report_container: str = Field("reports", description="Container that the catalog report is published to.")
    report_url: str | None = Field(None, description="Address at which the container of reports is served, for links.")

    # Dagster
    executor: Literal["in_process", "multiprocess", "celery", "k8s"] = Field(
        "in_process", description="Step executor of the workflow jobs. Dask is refused: it skips mapped steps."
    )
    executor_max_concurrent: int = Field(2, ge=1, description="Steps at once with the multiprocess executor.")
    sensor_seconds: int = Field(5, ge=1, description="Interval of the queued-jobs sensor.")
    code_url: str | None = Field(
        None,
        description="Address of the package's source code, for links from assets to it, e.g."
        " https://git.example.org/geo-assets/blob/main; default: the file on the machine that loads the code.",
    )

    @property
    def blob_root_path(self) -> Path:
        """The folder whose sub-folders are the local containers, absolute."""
        return (self.blob_root or self.home / "containers").expanduser().resolve()

    @property
    def home_path(self) -> Path:
        """The folder of all embedded state, absolute."""
        return self.home.expanduser().resolve()

    @property
    def listings_path(self) -> Path:
        """Where container listings are kept as Parquet, a folder a container."""
        return self.home_path / "listings"

    @property
    def sources_path(self) -> Path:
        """The YAML file of sources, or the folder of such files, absolute; it need not be there."""
        return (self.sources or self.home / "sources.yaml").expanduser().resolve()

    @property
    def defs_path(self) -> Path:
        """The folder of Dagster components, absolute."""
        return (self.defs or Path(__file__).parent / "defs").expanduser().resolve()

    @property
    def catalog_path(self) -> Path:
        """The folder of the static STAC catalog, absolute."""
        return (self.catalog_root or self.home / "catalog").expanduser().resolve()

    @property
    def tables_path(self) -> Path:
        """The folder of the GeoParquet tables, a folder a schema, absolute."""
        return (self.tables_root or self.home / "tables").expanduser().resolve()

    @property
    def allowed_schemas(self) -> tuple[str, ...]:
        """The schemas that jobs may load tables into."""
        return tuple(name.strip() for name in self.table_schemas.split(",") if name.strip())

    @property
    def scratch_path(self) -> Path:
        """Where temporary files lie: local copies of blobs and results before they are published."""
        return self.home_path / "scratch"

    @property
    def ledger_sqlalchemy_url(self) -> str:
        """The ledger's SQLAlchemy URL with the driver named. Holds the password: never log it."""
        if self.ledger_url is None:
            return f"sqlite:///{self.home_path / 'ledger.db'}"
        url = self.ledger_url.get_secret_value()
        scheme, separator, rest = url.partition("://")
        if separator and scheme in ("postgres", "postgresql"):
            # SQLAlchemy 2.1 reads a bare scheme as psycopg 3; dagster-postgres needs psycopg2 either way
            return f"postgresql+psycopg2://{rest}"
        return url


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: a variable is malformed; names it and says what it takes.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"GEO_ASSETS_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(redact(f"settings cannot be used: {problems}")) from None
