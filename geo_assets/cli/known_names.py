"""Which workflows and sources there are, for what filters name.

What belongs here: loading them, only where the ledger does not know a name.  What does not: looking names up
(``coremachine.known_names``).
"""

from geo_assets.coremachine import known_names
from geo_assets.coremachine.ledger import JobFilter, Ledger
from geo_assets.settings import get_settings

__all__ = ["require_known"]


def require_known(ledger: Ledger | None, which: JobFilter) -> None:
    """Make sure that what a filter names is, or was.

    Raises:
        ParameterError, JobNotFoundError: as ``coremachine.known_names``'s.
        ContractError, SettingsError: as loading workflows and sources.
    """
    known_names.require_known(ledger, which, workflows=_workflows, sources=_sources)


def _workflows() -> dict[str, str]:
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - the workflows bring Arrow with them

    return {binding.job_type: binding.asset for binding in load_registry(get_settings()).values()}


def _sources() -> list[str]:
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415 - as above
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - as above

    settings = get_settings()
    return [source.name for source in configured_sources(settings, load_registry(settings))]
