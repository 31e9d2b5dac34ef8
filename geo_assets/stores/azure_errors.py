"""What Azure's answers mean: obstore's and the SDK's exceptions as our errors.

What belongs here: reading status, error code and text of a failed request.  What does not: deciding whether a 404
means the blob or its container (``azure`` asks).
"""

import re
from dataclasses import dataclass

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from obstore.exceptions import (
    AlreadyExistsError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from geo_assets.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    GeoAssetsError,
    PreconditionFailedError,
    StoreUnavailableError,
    ThrottledError,
    TransientError,
)
from geo_assets.redaction import redact

__all__ = ["Answer", "translated"]

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS_OF_TYPE: tuple[tuple[type[BaseException], int], ...] = (
    (NotFoundError, 404),
    (FileNotFoundError, 404),
    (ResourceNotFoundError, 404),
    (AlreadyExistsError, 409),
    (ResourceExistsError, 409),
    (PreconditionError, 412),
    (PermissionDeniedError, 403),
    (UnauthenticatedError, 401),
    (ClientAuthenticationError, 401),
)
_LONGEST = 400
_WORTH_WAITING = frozenset({"ContainerBeingDeleted", "OperationTimedOut", "ServerBusy", "InternalError"})
_SOMEBODY_ELSE = frozenset(
    {"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "InvalidBlockList", "InvalidBlockId"}
)


@dataclass(frozen=True)
class Answer:
    """Status, error code and text of a failed request, without secrets."""

    status: int | None
    """HTTP status; ``None`` where no answer came."""
    code: str | None
    """Azure's error code, e.g. ``ContainerNotFound``; HEAD requests have none."""
    text: str

    @classmethod
    def of(cls, error: BaseException) -> "Answer":
        """Read an exception of obstore or of the Azure SDK."""
        full = str(error)
        # obstore repeats everything, headers included, as debug output; the SDK adds the whole body
        text = " ".join(redact(full.partition("Debug source")[0].partition("<?xml")[0]).split()).rstrip(": ")
        status: int | None = None
        code: str | None = None
        if isinstance(error, HttpResponseError):
            status = error.status_code
            named = getattr(error, "error_code", None)
            code = str(getattr(named, "value", named)) if named else None
            text = text.partition(" RequestId:")[0]
        found = _STATUS.search(full)
        if status is None and found:
            status = int(found.group(1))
        if status is None:
            status = next((number for kind, number in _STATUS_OF_TYPE if isinstance(error, kind)), None)
        coded = _CODE.search(full)
        return cls(status, code or (coded.group(1) if coded else None), text[:_LONGEST])

    @property
    def said(self) -> str:
        """Status and code, as far as known."""
        return " ".join(str(part) for part in (self.status, self.code) if part) or "no answer"


def translated(answer: Answer, what: str) -> GeoAssetsError:
    """Our error for a failed request on ``what``; a 404 is not decided here and counts as an unexpected answer."""
    status, code = answer.status, answer.code
    error: GeoAssetsError
    if code == "BlobArchived":
        error = GeoAssetsError(f"{what} is in the archive tier; rehydrate it to hot or cool, then run again")
    elif status in (401, 403):
        error = AccessDeniedError(
            f"no permission for {what} ({answer.said}); check the account key, the SAS (expiry, permissions) or the"
            f" role of the identity (Storage Blob Data Reader or Contributor)"
        )
    elif status == 412 or code in _SOMEBODY_ELSE or (status == 409 and code is None):  # noqa: PLR2004
        error = PreconditionFailedError(f"{what} was not written ({answer.said}): another version is there")
    else:
        error = _outage(answer, what) or GeoAssetsError(
            f"the blob service refused {what} ({answer.said}): {answer.text}"
        )
    return error


def _outage(answer: Answer, what: str) -> TransientError | None:
    """The error for what passes by waiting, or ``None``."""
    status, code = answer.status, answer.code
    if code == "Md5Mismatch":
        return ChecksumMismatchError(f"{what} was not written: the data changed on its way to it; run the job again")
    if status is None:
        return StoreUnavailableError(
            f"the blob service cannot be reached for {what}; check the endpoint and the network ({answer.text})"
        )
    if status in (429, 503) or code == "ServerBusy":
        return ThrottledError(f"the storage account asks to slow down ({answer.said}) for {what}; try again later")
    if status >= 500 or status == 408 or code in _WORTH_WAITING:  # noqa: PLR2004
        return StoreUnavailableError(f"the blob service cannot serve {what} now ({answer.said}); try again later")
    return None
