"""What the parameters of the two container workflows have in common.

What belongs here: the checks of a container name and of the ``filter`` dict, in the original's words, and what both
show.  What does not: the parameter models, which differ in what they strip, default and hash.
"""

from collections.abc import Mapping
from typing import Any

from geo_assets.containers.filter import BlobFilter
from geo_assets.coremachine.contract import WorkflowParameters
from geo_assets.errors import UnsupportedNameError
from geo_assets.stores.blobs import check_container_name

__all__ = [
    "DETAIL_DESCRIPTION",
    "FILTER_DESCRIPTION",
    "check_container",
    "check_filter",
    "kinds_table",
    "without_new_defaults",
]

DETAIL_DESCRIPTION = (
    "basic: name, size, date and ETag of each blob. full: content type, hash, metadata and tags as well, and with the"
    " hashes duplicates; listing takes longer."
)

FILTER_DESCRIPTION = (
    "Which blobs count; all conditions must hold: prefix (text), extensions (list), min_size_mb, max_size_mb (numbers),"
    " modified_after, modified_before (ISO 8601, UTC where they name no time zone)."
)


def check_container(name: str) -> str:
    """Return ``name``.

    Raises:
        ValueError: no store could hold a container of that name.
    """
    try:
        return check_container_name(name)
    except UnsupportedNameError as error:
        raise ValueError(f"container_name cannot be used: {error}") from None


def check_filter(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` as it is, for it is hashed as it is.

    Raises:
        ParameterError: it cannot be used as a filter.
    """
    BlobFilter.from_parameter(given)
    return dict(given)


def without_new_defaults(model: WorkflowParameters, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` without those parameters, unknown to the original, that have their default: its job ids stay."""
    fields = type(model).model_fields
    return {
        name: value for name, value in given.items() if name not in ("detail", "magic") or value != fields[name].default
    }


def kinds_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kinds of a summary as rows of a table; those without blobs are left out."""
    kinds: Mapping[str, Mapping[str, int]] = summary.get("kinds") or {}
    return [{"kind": kind, **counts} for kind, counts in kinds.items() if counts["count"]]
