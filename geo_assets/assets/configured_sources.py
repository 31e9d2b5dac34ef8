"""All sources that are configured, in the YAML and as components: what everybody takes who needs them.

What belongs here: finding them.  What does not: what a source is (``geo_assets.sources``) and the component
(``blob_source``).

This module is imported without Dagster, which takes a second that commands without components do without.
"""

from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings
from geo_assets.sources.rules import check_sources
from geo_assets.sources.source import Source, load_sources

__all__ = ["configured_sources", "listed_sources"]


def listed_sources(settings: Settings) -> tuple[Source, ...]:
    """Those of the YAML.

    Raises:
        SettingsError: the file or folder that ``GEO_ASSETS_SOURCES`` names is not there, or cannot be used.
    """
    return load_sources(settings.sources_path, required=settings.sources is not None)


def configured_sources(settings: Settings, registry: Registry) -> tuple[Source, ...]:
    """Those of the YAML and of the components, checked against the workflows.

    Raises:
        SettingsError: one cannot be used, or what the settings name is not there; says which and why.
    """
    found = listed_sources(settings)
    if settings.defs is not None or any(settings.defs_path.glob("*/**/*.*")):
        from geo_assets.assets.blob_source import component_sources, component_tree  # noqa: PLC0415 - brings Dagster

        found += component_sources(component_tree(settings))
    check_sources(found, registry)
    return found
