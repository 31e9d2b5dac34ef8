"""Fixtures of the store tests: the same suite over each store.

What belongs here: ``store`` (parametrised) and ``container``.  What does not: filling them, which each test does.
"""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.memory import MemoryBlobStore

if TYPE_CHECKING:
    from tests.conftest import Azurite

STORES = ["local", "memory", pytest.param("azure", marks=pytest.mark.services)]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """Each store in turn, empty (Azurite is shared: use ``container`` or names of your own)."""
    if request.param == "local":
        return LocalBlobStore(tmp_path / "containers")
    if request.param == "memory":
        return MemoryBlobStore()
    azurite: Azurite = request.getfixturevalue("azurite")
    return AzureBlobStore(AzureAccess.of_connection_string(azurite.connection_string), max_retries=1)


@pytest.fixture
def container(store: BlobStore) -> str:
    """A new, empty container of ``store``."""
    name = f"t{uuid.uuid4().hex}"
    store.create_container(name)
    return name
