"""Names in filters of jobs: one that nothing ever had is a slip of the pen, and no answer of nothing.

What belongs here: :func:`require_known`.  What does not: the filters themselves (``ledger``), and which workflows and
sources there are, which the caller knows.
"""

from collections.abc import Callable, Collection, Mapping

import sqlalchemy as sa

from geo_assets.coremachine.ledger import JobFilter, Ledger
from geo_assets.coremachine.ledger_tables import attempts, source_entries, source_looks
from geo_assets.errors import JobNotFoundError, ParameterError

__all__ = ["require_known"]


def require_known(
    ledger: Ledger | None,
    which: JobFilter,
    *,
    workflows: Callable[[], Mapping[str, str]],
    sources: Callable[[], Collection[str]],
) -> None:
    """Make sure that what a filter names is, or was; the ledger is asked first, as workflows may take long to load.

    Args:
        ledger: that of the jobs; ``None`` where there is none yet.
        which: the filter; its asset, workflow, source and run are looked up.
        workflows: job type → asset of those there are now.
        sources: names of those there are now.

    Raises:
        ParameterError: no workflow, asset or source of that name, now or in the ledger; says which there are.
        JobNotFoundError: the ledger has no job of that run.
    """
    if which.job_type is not None and not _in_ledger(ledger, attempts.c.job_type == which.job_type):
        _require("workflow", which.job_type, workflows())
    if which.asset is not None and not _in_ledger(ledger, attempts.c.asset == which.asset):
        _require("asset", which.asset, workflows().values())
    if which.source is not None and not any(
        _in_ledger(ledger, table.c.source == which.source) for table in (attempts, source_looks, source_entries)
    ):
        _require("source", which.source, sources())
    if which.run_id is not None and not _in_ledger(ledger, attempts.c.run_id == which.run_id):
        raise JobNotFoundError(
            f"the ledger has no job of the run '{which.run_id}': give the run's whole id, as 'geo-assets status JOB_ID'"
            " shows it; the clean-up removes old ones"
        )


def _in_ledger(ledger: Ledger | None, condition: sa.ColumnElement[bool]) -> bool:
    return ledger is not None and bool(ledger.read(lambda c: c.scalar(sa.select(sa.exists().where(condition)))))


def _require(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ParameterError(f"there is no {kind} '{name}'; there are: {', '.join(sorted(set(known))) or 'none'}")
