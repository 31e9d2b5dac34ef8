"""The blob store as a Dagster resource, for assets and ops of one's own; workflows get theirs from ``services``.

What belongs here: the thin wrapper, and signing in by dagster-azure's resource.  What does not: the stores
(``geo_assets.stores``).

Importing this module imports dagster-azure, which takes most of a second; nothing of ours does so at start.
"""

from typing import Any

import dagster as dg
from dagster_azure.blob import (
    AzureBlobStorageDefaultCredential,
    AzureBlobStorageKeyCredential,
    AzureBlobStorageResource,
    AzureBlobStorageSASTokenCredential,
)

from geo_assets.settings import get_settings
from geo_assets.stores import BlobStore, open_blob_store

__all__ = ["BlobStoreResource", "azure_blob_store"]


class BlobStoreResource(dg.ConfigurableResource[BlobStore]):
    """The blob store of the settings or, if given, of a dagster-azure resource, whose sign-in is used."""

    azure_blob_storage: AzureBlobStorageResource | None = None
    """Where containers are; default: where the ``GEO_ASSETS_*`` settings say."""

    def store(self) -> BlobStore:
        """Open the store.

        Raises:
            SettingsError: the settings or the credential cannot be used.
        """
        if self.azure_blob_storage is None:
            return open_blob_store(get_settings())
        return azure_blob_store(self.azure_blob_storage)


def azure_blob_store(resource: AzureBlobStorageResource) -> BlobStore:
    """The blob store of the account that a dagster-azure resource signs in to.

    Raises:
        SettingsError: its credential cannot be used.
    """
    from geo_assets.stores.azure import AzureBlobStore  # noqa: PLC0415 - with the Azure SDK, where it is wanted
    from geo_assets.stores.azure_access import AzureAccess  # noqa: PLC0415

    given = resource.credential
    signed: dict[str, Any] = {}
    if isinstance(given, AzureBlobStorageKeyCredential):
        signed = {"key": given.key}
    elif isinstance(given, AzureBlobStorageSASTokenCredential):
        signed = {"sas_token": given.token}
    elif isinstance(given, AzureBlobStorageDefaultCredential):
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415

        signed = {"token_credential": DefaultAzureCredential(**given.kwargs)}
    return AzureBlobStore(AzureAccess.of_account(None, endpoint=resource.account_url, **signed))
