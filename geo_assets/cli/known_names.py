"""Names in filters of jobs: one that nothing ever had is a slip of the pen, and no answer of nothing.

What belongs here: :func:`require_known`.  What does not: the filters themselves (``job_commands``).
"""

from collections.abc import Iterable

import sqlalchemy as sa

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import attempts, source_entries, source_looks
from geo_assets.errors import JobNotFoundError, ParameterError
from geo_assets.settings import get_settings

__all__ = ["require_known"]


def require_known(
    ledger: Ledger | None,
    *,
    asset: str | None = None,
    job_type: str | None = None,
    run_id: str | None = None,
    source: str | None = None,
) -> None:
    """Make sure that what a filter names is, or was; the ledger is asked first, as workflows take long to load.

    Raises:
        ParameterError: no workflow, asset or source of that name, now or in the ledger; says which there are.
        JobNotFoundError: the ledger has no job of that run.
        ContractError, SettingsError: as loading workflows and sources.
    """
    if job_type is not None and not _in_ledger(ledger, attempts.c.job_type == job_type):
        _require("workflow", job_type, _workflows())
    if asset is not None and not _in_ledger(ledger, attempts.c.asset == asset):
        _require("asset", asset, _workflows().values())
    if source is not None and not (
        _in_ledger(ledger, attempts.c.source == source)
        or _in_ledger(ledger, source_looks.c.source == source)
        or _in_ledger(ledger, source_entries.c.source == source)
    ):
        _require("source", source, _sources())
    if run_id is not None and not _in_ledger(ledger, attempts.c.run_id == run_id):
        raise JobNotFoundError(
            f"the ledger has no job of the run '{run_id}': give the run's whole id, as 'geo-assets status JOB_ID' shows"
            " it; the clean-up removes old ones"
        )


def _in_ledger(ledger: Ledger | None, condition: sa.ColumnElement[bool]) -> bool:
    return ledger is not None and bool(ledger.read(lambda c: c.scalar(sa.select(sa.exists().where(condition)))))


def _workflows() -> dict[str, str]:
    """Job type → asset."""
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - the workflows bring Arrow with them

    return {binding.job_type: binding.asset for binding in load_registry(get_settings()).values()}


def _sources() -> list[str]:
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415 - as above
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - as above

    settings = get_settings()
    return [source.name for source in configured_sources(settings, load_registry(settings))]


def _require(kind: str, name: str, known: Iterable[str]) -> None:
    names = sorted(set(known))
    if name not in names:
        raise ParameterError(f"there is no {kind} '{name}'; there are: {', '.join(names) or 'none'}")
