"""Every exception this package raises on purpose, as one tree.

::

    GeoAssetsError
    ├── ParameterError (ValueError)           a parameter is unknown, missing, of the wrong type or out of range
    │   └── UnknownJobTypeError               no workflow of that name is registered
    ├── ContractError                         a workflow class does not keep the seven-element contract
    ├── SettingsError                         a GEO_ASSETS_* setting cannot be used
    ├── NotFoundError                         what was asked for is not there
    │   ├── ContainerNotFoundError
    │   ├── BlobNotFoundError
    │   ├── TableNotFoundError
    │   └── JobNotFoundError
    ├── AccessDeniedError                     the credential may not do this
    ├── UnsupportedNameError                  a blob name the store cannot hold or we refuse to open
    ├── PreconditionFailedError               a conditional write found something else there
    ├── RasterRefusedError                    a file is not opened: its kind, what it names, or its header's size
    ├── RasterUnreadableError                 a raster is damaged or cut off
    ├── VectorRefusedError                    a file is not opened or a layer not loaded: what it is, names or says
    ├── VectorUnreadableError                 a vector file is damaged or cut off
    ├── TableError                            a vector table cannot be loaded as asked
    │   ├── TableExistsError                  there is one already
    │   ├── TableInUseError                   replacing it would lose what depends on it
    │   ├── TableSchemaError                  its columns do not take these rows
    │   ├── TableDataError                    a value is refused, or rows are missing or too many
    │   └── StagingLostError                  what was loaded so far is gone
    ├── CogProofError                         a COG just written is not what it must be, and is not published
    ├── TransientError                        worth trying again, unchanged
    │   ├── ThrottledError                    the service asked us to slow down
    │   ├── StoreUnavailableError             the blob service cannot be reached
    │   ├── DiskFullError                     not enough room for temporary files
    │   ├── SourceChangedError                a blob was replaced while it was being read
    │   ├── ChecksumMismatchError             what reached the blob store is not what was sent
    │   ├── LookTooLongError                  a container is too large to be listed at once
    │   ├── LookOvertakenError                another process saw or queued the same, and was faster
    │   ├── LedgerUnavailableError            the ledger database cannot be reached
    │   ├── CatalogUnavailableError           the catalog database cannot be reached, or is locked too long
    │   ├── TableStoreUnavailableError        the table database cannot be reached, or is locked too long
    │   └── WebhookError                      the failure webhook did not take what was posted
    ├── CountsError                           counts that must add up do not; a bug
    ├── CatalogError                          the STAC catalog is damaged, of another version, or lost what was written
    │   └── DamagedItemError                  what lies where an item should be is none
    ├── NoItemError                           no STAC item can be made of this; says why
    └── LedgerError
        ├── IllegalTransitionError            a status change the ledger does not allow
        ├── FenceLostError                    a later attempt owns this work; the late result was refused
        ├── PartitionBusyError                a job of the partition waits or is at work
        └── SchemaVersionError                the database is newer or older than this code

A message says what happened, to which object, and what to do next.  It never holds a credential or a signed
URL: text from outside passes through :func:`geo_assets.redaction.redact` first.  Exceptions are for bugs,
outages and refused input before work starts; what happens to one input of a batch is an outcome, a value.
"""


class GeoAssetsError(Exception):
    """Base of everything raised on purpose."""


class ParameterError(GeoAssetsError, ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class UnknownJobTypeError(ParameterError):
    """No workflow of that name is registered."""


class ContractError(GeoAssetsError):
    """A workflow class does not keep the seven-element contract."""


class SettingsError(GeoAssetsError):
    """A ``GEO_ASSETS_*`` setting cannot be used."""


class NotFoundError(GeoAssetsError):
    """What was asked for is not there."""


class ContainerNotFoundError(NotFoundError):
    """The container does not exist in the blob store."""


class BlobNotFoundError(NotFoundError):
    """The blob does not exist in its container.

    Args:
        message: which, and what to do.
        container: which, for those who ask whether it holds anything at all.
    """

    def __init__(self, message: str, *, container: str | None = None) -> None:
        super().__init__(message)
        self.container = container


class TableNotFoundError(NotFoundError):
    """There is no such vector table."""


class JobNotFoundError(NotFoundError):
    """The ledger holds no such job."""


class AccessDeniedError(GeoAssetsError):
    """The credential in use may not do this."""


class UnsupportedNameError(GeoAssetsError):
    """A blob name the store cannot hold or we refuse to open."""


class PreconditionFailedError(GeoAssetsError):
    """A conditional write found another version, or something where nothing was expected."""


class RasterRefusedError(GeoAssetsError):
    """A file is not opened: no raster we know, one that names other files, or one whose header asks for too much."""


class RasterUnreadableError(GeoAssetsError):
    """A raster is damaged or cut off."""


class VectorRefusedError(GeoAssetsError):
    """A file is not opened, or a layer not loaded: no vector we know, what it names, or what its rows say.

    Args:
        message: what is wrong and what to do.
        code: for machines, in capitals, such as ``NO_CRS``.
    """

    def __init__(self, message: str, *, code: str = "FILE_REFUSED") -> None:
        super().__init__(message)
        self.code = code


class VectorUnreadableError(GeoAssetsError):
    """A vector file is damaged or cut off."""


class TableError(GeoAssetsError):
    """A vector table cannot be loaded as asked."""


class TableExistsError(TableError):
    """There is a table of that name, and the load was not to replace it or add to it."""


class TableInUseError(TableError):
    """Replacing or removing a table would lose what depends on it."""


class TableSchemaError(TableError):
    """A table's columns do not take the rows that were to be added."""


class TableDataError(TableError):
    """The store refuses a value, or rows are missing or too many."""


class StagingLostError(TableError):
    """What was loaded so far is gone; the load starts anew."""


class CogProofError(GeoAssetsError):
    """A COG just written is not what it must be; it is not published."""


class TransientError(GeoAssetsError):
    """Worth trying again, unchanged."""


class ThrottledError(TransientError):
    """The service asked us to slow down."""


class StoreUnavailableError(TransientError):
    """The blob service cannot be reached."""


class DiskFullError(TransientError):
    """There is not enough room for temporary files; other tasks give theirs back when they end."""


class SourceChangedError(TransientError):
    """A blob was replaced while it was being read."""


class ChecksumMismatchError(TransientError):
    """What reached the blob store is not what was sent; nothing was published."""


class LookTooLongError(TransientError):
    """A container took longer to list than the look at it may take; nothing was written."""


class LookOvertakenError(TransientError):
    """Another process wrote what a source saw, or queued it, at the same moment; nothing was written twice."""


class LedgerUnavailableError(TransientError):
    """The ledger database cannot be reached."""


class CatalogUnavailableError(TransientError):
    """The catalog cannot be reached or read, or another writer holds it for too long."""


class TableStoreUnavailableError(TransientError):
    """The table database cannot be reached, or another session holds a lock for too long."""


class WebhookError(TransientError):
    """The failure webhook did not take what was posted.

    Args:
        message: what happened, without the URL.
        is_down: whether it would take nothing else now either: no answer, overloaded, broken.
        may_have_arrived: whether it may have been taken all the same.
    """

    def __init__(self, message: str, *, is_down: bool, may_have_arrived: bool = False) -> None:
        super().__init__(message)
        self.is_down = is_down
        self.may_have_arrived = may_have_arrived


class CountsError(GeoAssetsError):
    """Counts that must add up do not: a bug of ours."""


class CatalogError(GeoAssetsError):
    """The STAC catalog is damaged, of another version, or does not hold what was written to it."""


class DamagedItemError(CatalogError):
    """What lies where an item should be in the STAC catalog is none; writing the item anew mends it."""


class NoItemError(GeoAssetsError):
    """No STAC item can be made of a dataset, for instance because nothing says where on Earth it lies."""


class LedgerError(GeoAssetsError):
    """The ledger refused an operation."""


class IllegalTransitionError(LedgerError):
    """A status change that the ledger does not allow."""


class FenceLostError(LedgerError):
    """A later attempt owns this work; the late result was refused and nothing was written."""


class PartitionBusyError(LedgerError):
    """A job of the partition waits or is at work, so that it cannot be taken back now."""


class SchemaVersionError(LedgerError):
    """The ledger database is newer or older than this code understands."""
