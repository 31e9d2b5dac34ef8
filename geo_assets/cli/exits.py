"""How a command ends: exit statuses, and errors as one line instead of a traceback.

What belongs here: the statuses, which error means which, and the group that every command runs in.  What does not:
what is printed when all is well (``output``).
"""

import json
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from geo_assets.errors import (
    AccessDeniedError,
    GeoAssetsError,
    NotFoundError,
    ParameterError,
    SchemaVersionError,
    SettingsError,
    TransientError,
    UnsupportedNameError,
)
from geo_assets.redaction import redact

__all__ = [
    "EXITS_HELP",
    "FAILED",
    "INTERNAL",
    "INTERRUPTED",
    "JSON_WANTED",
    "NOT_FOUND",
    "TIMED_OUT",
    "UNAVAILABLE",
    "USAGE",
    "GeoAssetsGroup",
    "exit_status",
]

FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNAVAILABLE = 4
TIMED_OUT = 5
INTERNAL = 70
INTERRUPTED = 130

EXITS_HELP = (
    "Exit status: 0 all well · 1 something failed · 2 wrong usage or parameter · 3 not found ·"
    " 4 store or ledger cannot be used · 5 timed out while waiting · 70 a bug · 130 interrupted."
)

JSON_WANTED = "geo_assets.json"
"""Key in the context's ``meta`` that says whether ``--json`` was given."""

# The first that fits counts
_STATUSES: tuple[tuple[type[GeoAssetsError], int], ...] = (
    (ParameterError, USAGE),
    (SettingsError, USAGE),
    (UnsupportedNameError, USAGE),
    (NotFoundError, NOT_FOUND),
    (TransientError, UNAVAILABLE),
    (AccessDeniedError, UNAVAILABLE),
    (SchemaVersionError, UNAVAILABLE),
)


def exit_status(error: GeoAssetsError) -> int:
    """The exit status an error stands for."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), FAILED)


class GeoAssetsGroup(TyperGroup):
    """Runs commands; turns errors into one line on stderr and an exit status, with secrets taken out."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except GeoAssetsError as error:
            raise _ended(ctx, error, str(error), exit_status(error)) from None
        except KeyboardInterrupt as error:
            message = " ".join(str(part) for part in error.args) or "interrupted"
            raise _ended(ctx, error, message, INTERRUPTED) from None
        except BrokenPipeError:
            raise  # `geo-assets jobs | head`: typer ends quietly
        except OSError as error:
            raise _ended(ctx, error, str(error), UNAVAILABLE) from None
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise  # usage errors and requested exits
            sys.stderr.write(redact(traceback.format_exc()))
            raise _ended(ctx, error, f"this is a bug: {type(error).__name__}: {error}", INTERNAL) from None


def _ended(ctx: Any, error: BaseException, message: str, status: int) -> typer.Exit:
    message = redact(message)
    sys.stderr.write(f"geo-assets: {message}\n")
    if ctx.meta.get(JSON_WANTED):
        # stdout stays readable for programs whatever happens
        sys.stdout.write(json.dumps({"error": type(error).__name__, "message": message, "exit_status": status}) + "\n")
    return typer.Exit(status)
