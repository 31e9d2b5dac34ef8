"""Checks of vector tables: all rows are there, and their geometries are valid.

What belongs here: comparing what the store holds with what the loads recorded.  What does not: items (``items``), the
stores' own statements.
"""

from collections.abc import Mapping
from typing import Any

from geo_assets.checking.finding import Evidence, Finding, failed, passed, warned
from geo_assets.coremachine.contract import JobStatus
from geo_assets.errors import TableNotFoundError
from geo_assets.stores.tables import TableRecord, TableStore
from geo_assets.vector.table import TableLoad

__all__ = ["geometries_valid", "table_complete", "table_of"]

_RELOAD = "load the file again (mode overwrite)"
_ADDED_UP = ("rows_in", "rows_dropped", "rows_added")
_MOST = 1_000_000
"""Rows up to which all geometries are looked at."""


def table_of(evidence: Evidence) -> tuple[str, str]:
    """Schema and name of the table of a partition."""
    schema, _, table = evidence.name.partition(".")
    return schema, table


def table_complete(evidence: Evidence) -> Finding:
    """The table has the rows that were read, less those that were dropped, load by load."""
    tables: TableStore = evidence.services["tables"]
    schema, table = table_of(evidence)
    try:
        there = tables.validity(schema, table, most=0).rows
    except TableNotFoundError:
        return failed(f"the table {evidence.name} is gone: {_RELOAD}")
    record = tables.record(schema, table)
    if record is None:
        return failed(f"another table has the name {evidence.name} now: it was not loaded by us, or replaced since")
    wanted = sum(load.rows for load in record.loads)
    problems = [problem for load in record.loads if (problem := _load_problem(evidence, record, load))]
    facts = {"rows": there, "loaded": wanted, "loads": len(record.loads), "version": record.version}
    if there != wanted:
        problems.append(
            f"the table has {there:,} rows, but {wanted:,} were loaded: rows were added or removed by other means;"
            f" {_RELOAD}"
        )
    if problems:
        return failed("; ".join(problems), **facts)
    read = sum(_counted(load)[0] for load in record.loads)
    return passed(f"{there:,} rows, as many as were loaded of the {read:,} read", read=read, **facts)


def _counted(load: TableLoad) -> tuple[int, int, int]:
    """Rows read for this table, dropped, and added by splitting collections."""
    report: Mapping[str, Any] = load.details.get("report") or {}
    if not all(name in report for name in _ADDED_UP):
        return load.rows, 0, 0  # a table without geometry: nothing is ever dropped
    read, dropped, added = (int(report[name]) for name in _ADDED_UP)
    return read, dropped, added


def _load_problem(evidence: Evidence, record: TableRecord, load: TableLoad) -> str:
    """What does not add up of one load; empty where all does."""
    read, dropped, added = _counted(load)
    if read - dropped + added != load.rows:
        return f"of {read:,} rows read, {dropped:,} dropped and {added:,} added, {load.rows:,} were loaded"
    said = _rows_said_by_job(evidence, record, load)
    if said is not None and said != load.rows:
        return f"the job {load.job_id[:12]} loaded {said:,} rows, but the table's record says {load.rows:,}"
    return ""


def _rows_said_by_job(evidence: Evidence, record: TableRecord, load: TableLoad) -> int | None:
    """How many rows of this table the job's own result says it loaded; ``None``: the ledger knows it no more."""
    # not the partition's attempts: a layer's table is made by a job of another partition
    for attempt in reversed(evidence.machine.ledger.attempts_of_job("ingest_vector", load.job_id)):
        result = attempt.result_data or {}
        if attempt.status is not JobStatus.COMPLETED or (result.get("source") or {}).get("etag") != load.source.get(
            "etag"
        ):
            continue
        for made in result.get("tables") or ():
            if (made["schema"], made["table"]) == (record.schema, record.table):
                return int(made["rows_loaded"])
    return None


def geometries_valid(evidence: Evidence) -> Finding:
    """Every geometry is valid; where they were kept as they are on request, invalid ones are a warning."""
    tables: TableStore = evidence.services["tables"]
    schema, table = table_of(evidence)
    try:
        found = tables.validity(schema, table, most=_MOST)
    except TableNotFoundError:
        return failed(f"the table {evidence.name} is gone: {_RELOAD}")
    share = "all" if found.exact else f"of {found.rows:,} rows a sample, spread over the table:"
    facts = {"rows": found.rows, "geometries_looked_at": found.looked_at, "invalid": found.invalid}
    if not found.invalid:
        return passed(f"{share} {found.looked_at:,} geometries are valid", **facts)
    kept = sum(_kept(load) for load in (getattr(tables.record(schema, table), "loads", ())))
    what = f"{found.invalid:,} of {found.looked_at:,} geometries are not valid ({'; '.join(found.examples)})"
    if found.exact and found.invalid <= kept:
        return warned(f"{what}; they were kept on request (invalid_geometries: keep)", **facts)
    return failed(f"{what}: {_RELOAD}, which repairs them", **facts)


def _kept(load: TableLoad) -> int:
    report: Mapping[str, Any] = load.details.get("report") or {}
    return int((report.get("kept_invalid") or {}).get("count", 0))
