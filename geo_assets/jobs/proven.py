"""What jobs prove on their way, as results of the asset checks that would look at it again.

What belongs here: reading the facts out of results, for the hook ``check_results`` and the news of other assets.  What
does not: looking again (``geo_assets.checking``), whose names these are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from geo_assets.checking import names
from geo_assets.coremachine.contract import CheckResult

__all__ = ["cog_checks", "item_checks", "raster_checks", "table_checks"]

_ROWS = ("rows_in", "rows_dropped", "rows_added")


def raster_checks(validation: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Of a validation: the verdict."""
    if validation.get("valid") and not validation.get("validation_skipped"):
        yield CheckResult(
            check=names.RASTER_VALID,
            passed=True,
            description="valid: every block was read",
            metadata={"source_etag": validation.get("source_etag")},
        )


def cog_checks(result: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Of a result of ``process_raster``: the proof of each COG, made before it was published."""
    cog: Mapping[str, Any] = result.get("cog") or {}
    if not cog:
        return
    proofs: list[Mapping[str, Any]] = [tier["proof"] for tier in cog["tiers"].values()]
    blocks = sum(proof["all_blocks_read"] for proof in proofs)
    yield CheckResult(
        check=names.COG_VALID,
        passed=all(proof["structure_valid"] for proof in proofs),
        description=f"valid, and all {blocks:,} blocks were decoded before it was published",
        metadata={"blocks": blocks},
    )
    compared = sum(proof["pixels_compared"] for proof in proofs)
    yield CheckResult(
        check=names.COG_MATCHES_SOURCE,
        passed=True,
        description=f"{compared:,} values were compared with the source's before it was published",
        metadata={"compared": compared, "source_etag": cog["source_etag"]},
    )


def item_checks(stac: Mapping[str, Any] | None) -> Iterator[CheckResult]:
    """Of what a result says of an item: the catalog takes valid ones only, and its blobs were there just before."""
    if not stac:
        return
    where = f"{stac['collection_id']}/{stac['item_id']}"
    yield CheckResult(
        check=names.ITEM_VALID, passed=True, description="valid when it was written", metadata={"items": [where]}
    )
    yield CheckResult(
        check=names.ITEM_HREFS_PRESENT,
        passed=True,
        description="what it points to was written just before it",
        metadata={"items": [where]},
    )


def table_checks(table: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Of what a result says of a table: its rows were counted before it was put in place."""
    report: Mapping[str, Any] = table.get("report") or {}
    loaded = int(table["rows_loaded"])
    read, dropped, added = (int(report.get(name, 0)) for name in _ROWS) if "rows_in" in report else (loaded, 0, 0)
    yield CheckResult(
        check=names.TABLE_COMPLETE,
        passed=read - dropped + added == loaded,
        description=f"{loaded:,} rows of the {read:,} read were counted when the table was put in place",
        metadata={"rows": int(table["rows"]), "loaded": loaded, "read": read},
    )
    kept = int((report.get("kept_invalid") or {}).get("count", 0))
    if table.get("geometry") and table["rows"] == loaded:
        yield CheckResult(
            check=names.GEOMETRIES_VALID,
            passed=not kept,
            warning=bool(kept),
            description=f"{kept:,} invalid geometries were kept on request"
            if kept
            else "every geometry was checked, and repaired where it had to be",
            metadata={"rows": loaded, "invalid": kept},
        )
