"""External assets at the root of the lineage: what exists outside and is only looked at.

What belongs here: their specs.  What does not: what a source is (``geo_assets.sources``), its sensor
(``source_sensors``), listing containers (``geo_assets.containers``), what depends on a source (``lineage``).
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import dagster as dg

from geo_assets.assets.code_references import code_references
from geo_assets.dagster_home import CODE_LOCATION
from geo_assets.errors import SettingsError
from geo_assets.redaction import redact
from geo_assets.settings import Settings, get_settings
from geo_assets.sources.source import Source

__all__ = [
    "SOURCE_CONTAINER",
    "build_source_assets",
    "sensor_page",
    "source_container",
    "source_key",
    "what_is_watched",
]

SOURCE_CONTAINER = "source_container"
_GROUP = "sources"
_OWNERS = ("team:geo-archive",)
_DOCS = "docs/sources.md"


def source_container(settings: Settings) -> dg.AssetSpec:
    """Stands for every container, watched or not: which ones there are, nobody needs to say beforehand."""
    return dg.AssetSpec(
        SOURCE_CONTAINER,
        description="Any container of rasters and vector files: a folder of GEO_ASSETS_BLOB_ROOT, or a container of an"
        " Azure storage account. Nothing here writes to it. Materialize a partition of container_contents to list one;"
        f" to have one watched, make it a source ({_DOCS}).",
        group_name=_GROUP,
        kinds={"azure", "file"},
        owners=list(_OWNERS),
        tags={"geo_assets/domain": "sources"},
        metadata={
            "dagster/code_references": code_references(source_container, settings.code_url),
            "geo/docs": f"docs/assets.md#{SOURCE_CONTAINER}",
        },
    )


def source_key(name: str) -> dg.AssetKey:
    """Key of the external asset of a source."""
    return dg.AssetKey(["source", name])


def sensor_page(settings: Settings, name: str, location: str = CODE_LOCATION) -> dg.UrlMetadataValue:
    """Link to the page of a source's sensor in the UI; without the address of the UI, from its root."""
    base = (settings.ui_url or "").rstrip("/")
    return dg.MetadataValue.url(f"{base}/locations/{quote(location, safe='')}/sensors/source_{name}")


def what_is_watched(source: Source) -> str:
    """One line: container, names, workflow."""
    matching = ", ".join(source.match) or f"what {source.workflow} reads"
    without = f", without {', '.join(source.exclude)}" if source.exclude else ""
    return f"{source.container}/{source.prefix}: {matching}{without} → {source.workflow}"


def build_source_assets(
    sources: Sequence[Source], settings: Settings | None = None, *, location: str | None = CODE_LOCATION
) -> dg.Definitions:
    """The external asset of each source.

    Args:
        sources: which.
        settings: default: the environment's.
        location: what the code location is called in the UI, for links; ``None``: nobody knows.
    """
    settings = settings or get_settings()
    return dg.Definitions(assets=[_spec(source, settings, location) for source in sources])


def _spec(source: Source, settings: Settings, location: str | None) -> dg.AssetSpec:
    part = f", names that start with `{source.prefix}`" if source.prefix else ""
    matching = ", ".join(f"`{glob}`" for glob in source.match) or f"what {source.workflow} reads"
    code_url = settings.code_url
    facts: dict[str, Any] = {
        "watches": what_is_watched(source),
        "container": source.container,
        "prefix": source.prefix or None,
        "match": matching,
        "exclude": ", ".join(f"`{glob}`" for glob in source.exclude) or None,
        "workflow": source.workflow,
        "sensor": f"source_{source.name}" if location is None else sensor_page(settings, source.name, location),
        "when_removed": source.when_removed,
        "docs": _DOCS if code_url is None else dg.MetadataValue.url(f"{code_url.rstrip('/')}/{_DOCS}"),
    }
    metadata = {f"geo/{name}": value for name, value in facts.items() if value is not None}
    # what every key of it means
    metadata["dagster/code_references"] = code_references(Source, code_url)
    if (uri := container_uri(settings, source.container, source.prefix)) is not None:
        metadata["dagster/uri"] = uri
    return dg.AssetSpec(
        source_key(source.name),
        description=f"The container `{source.container}`{part}, watched by the sensor `source_{source.name}`: each"
        f" new or changed blob ({matching}) becomes a job of `{source.workflow}`. Nothing here writes to it.\n\nIt"
        f" lies outside, so there is nothing to materialize; switch its sensor on or off instead ({_DOCS}).",
        group_name=_GROUP,
        kinds={"azure"} if settings.blob_store == "azure" else {"file"},
        owners=list(_OWNERS),
        tags={"geo_assets/domain": "sources"},
        metadata=metadata,
    )


def container_uri(settings: Settings, container: str, prefix: str = "") -> str | None:
    """Where a container lies, without query or credentials; ``None`` where the settings alone do not say."""
    if settings.blob_store == "local":
        base = settings.blob_root_path.as_uri()
    elif settings.blob_store == "azure":
        try:
            base = _account(settings)
        except SettingsError:  # whoever opens the store is told
            return None
    else:
        return None
    return redact(f"{base}/{quote(container)}/{quote(prefix)}")


def _account(settings: Settings) -> str:
    from geo_assets.stores.azure_access import AzureAccess  # noqa: PLC0415 - with the Azure SDK, where it is wanted

    given = settings.azure_connection_string
    if given is not None:
        return AzureAccess.of_connection_string(given.get_secret_value()).endpoint
    return AzureAccess.of_account(settings.azure_account, endpoint=settings.azure_endpoint).endpoint
