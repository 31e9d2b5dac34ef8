"""Loading vector files in whole jobs, over both table stores, and looking at what is there with other clients.

What belongs here: the fixtures ``tables_url``, ``open_bench`` and ``loader``; import them into a test module.  What
does not: tests.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
from sqlalchemy import create_engine, text

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.coremachine.ledger import Job
from geo_assets.unpublish import Taken, execute, plan
from tests.jobs.bench import Bench
from tests.vector.vectors import real

__all__ = ["Loader"]


class Loader:
    """A workbench with a table store, and other eyes to look at its tables."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tables: Any = bench.services["tables"]

    # files

    def add(self, *names: str) -> None:
        """Put real files into the bronze container."""
        for name in names:
            self.put(real(name))

    def put(self, path: Path, name: str | None = None) -> str:
        """Put a file, or the files of a folder, into the bronze container; returns the blob's name."""
        target = self.bench.containers / "bronze" / (name or path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            target.unlink(missing_ok=True)
            shutil.copy(path, target)
        return name or path.name

    def write(self, name: str, content: str | bytes) -> str:
        """Put a blob with this content into the bronze container; returns its name."""
        target = self.bench.containers / "bronze" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    # jobs

    def job(self, blob_name: str, table_name: str = "places", **params: Any) -> Job:
        """A job, however it ends."""
        return self.bench.run("ingest_vector", blob_name=blob_name, table_name=table_name, **params)

    def load(
        self, blob_name: str, table_name: str = "places", *, says: OutcomeKind | None = None, **params: Any
    ) -> dict[str, Any]:
        """The result of a job that must go well."""
        job = self.job(blob_name, table_name, **params)
        assert job.status is JobStatus.COMPLETED, (job.reason, job.error_details)
        assert says is None or job.outcome is says, (job.outcome, job.reason)
        assert job.result_data is not None
        assert json.loads(json.dumps(job.result_data, allow_nan=False)) == job.result_data
        self.require_clean()
        return job.result_data

    def refused(
        self,
        blob_name: str,
        code: str,
        *,
        outcome: OutcomeKind = OutcomeKind.INVALID,
        there: Sequence[str] | None = None,
        **params: Any,
    ) -> str:
        """The reason of a job that must end so, and leave the tables that were there, or these, and nothing else."""
        before = self.names() if there is None else list(there)
        job = self.job(blob_name, **params)
        assert (job.status, job.outcome) == (JobStatus.FAILED, outcome), (job.outcome, job.reason, job.result_data)
        reason = job.reason or ""
        assert reason.startswith(f"{code}: "), reason
        assert str(self.bench.settings.scratch_path) not in reason
        assert self.names() == before
        self.require_clean()
        return reason

    def by_hand(self, *statements: str) -> None:
        """What somebody does to the database."""
        url = self.bench.settings.tables_url
        assert url is not None
        engine = create_engine(url.get_secret_value())
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    # what there is

    def names(self, schema: str = "geo") -> list[str]:
        """Tables there are."""
        names: list[str] = self.tables.list_tables(schema)
        return names

    def items(self, collection: str = "vectors") -> list[str]:
        """Ids of the items there are."""
        return sorted(one["id"] for one in self.bench.services["catalog"].iter_items(collection))

    def table(self, name: str = "places", *, schema: str = "geo", geometry: str | None = "geom") -> Any:
        """A table as another client reads it, ordered by id."""
        url = self.bench.settings.tables_url
        if url is None:
            folder = self.bench.settings.tables_path / schema / name
            frame = pd.read_parquet(folder) if geometry is None else geopandas.read_parquet(folder)
            frame = frame.drop(columns=[column for column in frame if str(column).endswith("bbox")])
            return frame.sort_values("id", ignore_index=True)
        query = f'select * from "{schema}"."{name}" order by id'  # noqa: S608 - names of our own tables
        engine = create_engine(url.get_secret_value())
        try:
            if geometry is None:
                return pd.read_sql(query, engine)
            return geopandas.read_postgis(query, engine, geom_col=geometry)
        finally:
            engine.dispose()

    def rows(self, name: str = "places", *columns: str) -> list[Any]:
        """The values of some columns, by id; of one column, not in tuples."""
        found: list[dict[str, Any]] = [row for batch in self.tables.read("geo", name) for row in batch.to_pylist()]
        wanted: Sequence[str] = columns or ("id",)
        return [row[wanted[0]] if len(wanted) == 1 else tuple(row[one] for one in wanted) for row in found]

    def physical_ids(self, name: str = "places") -> list[int]:
        """The ids of a table in the order in which its rows lie."""
        url = self.bench.settings.tables_url
        if url is None:
            return pd.read_parquet(self.bench.settings.tables_path / "geo" / name, columns=["id"])["id"].tolist()
        engine = create_engine(url.get_secret_value())
        try:
            return pd.read_sql(f'select id from "geo"."{name}" order by ctid', engine)["id"].tolist()  # noqa: S608
        finally:
            engine.dispose()

    def require_clean(self) -> None:
        """Nothing lies between the stages, and no temporary file."""
        assert self.bench.files("staging") == []
        assert self.tables.sweep(older_than_seconds=0) == 0
        scratch = self.bench.settings.scratch_path
        assert not scratch.exists() or not list(scratch.iterdir())

    # taking back

    def end_run(self) -> None:
        """Let Dagster know of all jobs."""
        for run in range(1, self.bench._runs + 1):
            attempts = self.bench.ledger.attempts_of_run(f"run-{run}")
            self.bench.ledger.mark_emitted([attempt.attempt_id for attempt in attempts])

    def planned(self, *names: str, asset: str = "vector_table") -> dict[str, str]:
        """What taking back would do."""
        self.end_run()
        return fates(plan(self.bench.machine, asset, names))

    def take_back(self, *names: str, asset: str = "vector_table", force: bool = False) -> dict[str, str]:
        """What taking back did."""
        self.end_run()
        return fates(execute(self.bench.machine, self._wiped, asset, names, who="jane", force=force))

    @property
    def _wiped(self) -> Callable[[str, Sequence[str]], object]:
        self.wiped: dict[str, list[str]] = {}
        return lambda asset, keys: self.wiped.setdefault(asset, []).extend(keys)


def fates(taken: Sequence[Taken]) -> dict[str, str]:
    """Kind and name → what became of it."""
    return {f"{thing.kind} {thing.name}": thing.outcome.value for one in taken for thing in one.things}
