"""The Dagster resource over blob stores, by the settings and by dagster-azure's resource.

What belongs here: how the resource opens a store.  What does not: the stores.
"""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dagster_azure.blob import (
    AzureBlobStorageAnonymousCredential,
    AzureBlobStorageDefaultCredential,
    AzureBlobStorageKeyCredential,
    AzureBlobStorageResource,
    AzureBlobStorageSASTokenCredential,
)

from geo_assets.resources.blob_store import BlobStoreResource
from geo_assets.settings import get_settings
from geo_assets.stores.local import LocalBlobStore

if TYPE_CHECKING:
    from tests.conftest import Azurite


def test_without_azure_the_settings_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_BLOB_ROOT", str(tmp_path / "here"))
    get_settings.cache_clear()
    store = BlobStoreResource().store()
    assert isinstance(store, LocalBlobStore)
    assert store.root == tmp_path / "here"


def test_dagster_azures_key_signs_in(azurite: "Azurite") -> None:
    azure = AzureBlobStorageResource(
        account_url=azurite.endpoint, credential=AzureBlobStorageKeyCredential(key=azurite.account_key)
    )
    store = BlobStoreResource(azure_blob_storage=azure).store()
    container = f"t{uuid.uuid4().hex}"
    store.create_container(container)
    store.put(container, "a", b"x")
    assert store.read(container, "a") == b"x"


@pytest.mark.parametrize(
    ("credential", "way"),
    [
        (AzureBlobStorageSASTokenCredential(token="?sv=1&sig=x"), "sas_token"),
        (AzureBlobStorageDefaultCredential(), "token_credential"),
        (AzureBlobStorageAnonymousCredential(), None),
    ],
)
def test_each_credential_of_dagster_azure_is_understood(credential: Any, way: str | None) -> None:
    azure = AzureBlobStorageResource(account_url="https://acc.blob.core.windows.net", credential=credential)
    store: Any = BlobStoreResource(azure_blob_storage=azure).store()
    access = store._access
    assert access.account == "acc"
    assert [name for name in ("key", "sas_token", "token_credential") if getattr(access, name)] == (
        [way] if way else []
    )
