"""Dagster's code references: where what makes an asset is written.

What belongs here: the link or file of one class or function.  What does not: putting it on assets (``lineage``,
``sources``).
"""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

import geo_assets

__all__ = ["code_references"]


def code_references(written: Callable[..., Any], code_url: str | None) -> dg.CodeReferencesMetadataValue:
    """Where a class or function is written: a link for ours where the code has an address, else the file.

    Args:
        written: a workflow, or what builds the asset.
        code_url: address of the folder that the package lies in; ``None``: there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # code references are a beta in Dagster 1.13
        try:
            found = _reference(Path(inspect.getsourcefile(written) or ""), written, code_url)
        except (TypeError, OSError):  # it was made at run time
            return dg.CodeReferencesMetadataValue(code_references=[])
        return dg.CodeReferencesMetadataValue(code_references=[found])


def _reference(
    file: Path, written: Callable[..., Any], code_url: str | None
) -> dg.UrlCodeReference | dg.LocalFileCodeReference:
    line = inspect.getsourcelines(written)[1]
    package = Path(geo_assets.__file__).parent
    if code_url is not None and file.is_relative_to(package):
        path = file.relative_to(package.parent).as_posix()
        return dg.UrlCodeReference(url=f"{code_url.rstrip('/')}/{path}#L{line}", label=path)
    return dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=written.__name__)
