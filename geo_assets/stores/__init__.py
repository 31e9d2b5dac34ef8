"""Stores of blobs: containers of files in a local folder, in Azure Blob Storage, or in memory.

What belongs here: the protocols and their implementations, and :func:`open_blob_store`, which picks one by the
settings.  What does not: what blobs mean (``containers``, ``raster``, ``vector``), and anything of Dagster
(``resources``).
"""

from typing import TYPE_CHECKING, Any

from geo_assets.errors import SettingsError
from geo_assets.settings import Settings
from geo_assets.stores.blobs import FULL_LISTING_SCHEMA, LISTING_SCHEMA, BlobProperties, BlobStore, Detail

if TYPE_CHECKING:
    from geo_assets.stores.azure_access import AzureAccess

__all__ = [
    "FULL_LISTING_SCHEMA",
    "LISTING_SCHEMA",
    "BlobProperties",
    "BlobStore",
    "Detail",
    "account_access",
    "open_blob_store",
]


def open_blob_store(settings: Settings, *, credential: Any = None) -> BlobStore:
    """Open the blob store the settings name; nothing is requested yet.

    Args:
        settings: ``blob_store`` says which; the other ``blob_*`` and ``azure_*`` settings where it is.
        credential: a token credential for Azure, such as ``azure.identity.DefaultAzureCredential()``; used where the
            settings hold neither connection string, key nor SAS. Default: a ``DefaultAzureCredential``.

    Raises:
        SettingsError: the settings do not say which Azure account to use, or the connection string is malformed.
    """
    # each store is imported where it is wanted: the Azure SDK alone takes half a second
    if settings.blob_store == "local":
        from geo_assets.stores.local import LocalBlobStore  # noqa: PLC0415

        return LocalBlobStore(settings.blob_root_path)
    if settings.blob_store == "memory":
        from geo_assets.stores.memory import MemoryBlobStore  # noqa: PLC0415

        return MemoryBlobStore.named()
    return _open_azure(settings, credential)


def _open_azure(settings: Settings, credential: Any) -> BlobStore:
    from geo_assets.stores.azure import AzureBlobStore  # noqa: PLC0415

    return AzureBlobStore(account_access(settings, credential=credential))


def account_access(settings: Settings, *, credential: Any = None) -> "AzureAccess":
    """Where the storage account of the settings is and how to sign in to it; arguments and errors as above."""
    from geo_assets.stores.azure_access import AzureAccess  # noqa: PLC0415

    if settings.azure_connection_string is not None:
        return AzureAccess.of_connection_string(settings.azure_connection_string.get_secret_value())
    key = None if settings.azure_account_key is None else settings.azure_account_key.get_secret_value()
    sas = None if settings.azure_sas_token is None else settings.azure_sas_token.get_secret_value()
    if key is None and sas is None and credential is None:
        credential = _default_credential()
    return AzureAccess.of_account(
        settings.azure_account,
        endpoint=settings.azure_endpoint,
        key=key,
        sas_token=sas,
        token_credential=credential,
    )


def _default_credential() -> Any:
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    except ImportError:
        raise SettingsError(
            "no Azure credential is set and azure-identity is not installed: set GEO_ASSETS_AZURE_ACCOUNT_KEY,"
            " GEO_ASSETS_AZURE_SAS_TOKEN or GEO_ASSETS_AZURE_CONNECTION_STRING"
        ) from None
    return DefaultAzureCredential()
