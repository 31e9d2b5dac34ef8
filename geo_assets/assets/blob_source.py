"""``geo_assets.BlobSource``: a source as a Dagster component, ten lines of ``defs.yaml``.

What belongs here: the component, and loading the folder of components.  What does not: what a source is
(``geo_assets.sources``), its sensor (``source_sensors``) and its asset (``sources``).
"""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Self

import dagster as dg
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException
from dagster.components.scaffold.scaffold import NoParams
from pydantic import BaseModel, ValidationError

import geo_assets.defs
from geo_assets.dagster_home import CODE_LOCATION
from geo_assets.errors import SettingsError
from geo_assets.redaction import redact
from geo_assets.settings import Settings, get_settings
from geo_assets.sources.rules import check_sources
from geo_assets.sources.source import Source, explain

__all__ = ["BlobSource", "component_sources", "component_tree"]

_DEFS_MODULE = "geo_assets_configured_defs"


class _Scaffolder(dg.Scaffolder[NoParams]):
    """``dg scaffold defs geo_assets.BlobSource NAME``: a source that can be loaded as it is, to be edited."""

    def scaffold(self, request: dg.ScaffoldRequest[NoParams]) -> None:
        """Write the ``defs.yaml``."""
        name = re.sub("[^a-z0-9_]", "_", request.target_path.name.lower())
        dg.scaffold_component(
            request,
            {
                "name": name if name[:1].isalpha() else f"source_{name}",
                "container": get_settings().bronze_container,
                "prefix": f"{name}/",
                "workflow": "process_raster",
                "parameters": {"collection_id": name},
                "every": "5m",
            },
        )


@dg.scaffold_with(_Scaffolder)
class BlobSource(dg.Component):
    """A watched container, and what becomes of its blobs.

    The attributes are the keys of a source in YAML, as docs/sources.md explains them.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The keys of a source."""
        return Source

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Make the component; ``{{ env.NAME }}`` and the like in its attributes are filled in.

        Raises:
            SettingsError: they cannot be used then.
        """
        if attributes is None:
            raise SettingsError("a geo_assets.BlobSource has no attributes: give it name, container and workflow")
        given = context.resolution_context.at_path("attributes").resolve_value(
            attributes.model_dump(exclude_unset=True)
        )
        try:
            return cls(Source.model_validate(given))
        except ValidationError as error:
            raise SettingsError(f"a geo_assets.BlobSource cannot be used: {'; '.join(explain(error))}") from None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The source's sensor and its asset.

        Raises:
            SettingsError: the source does not fit its workflow.
        """
        from geo_assets.assets.source_sensors import build_source_sensors  # noqa: PLC0415 - not to describe the keys
        from geo_assets.assets.sources import build_source_assets  # noqa: PLC0415
        from geo_assets.jobs import load_registry  # noqa: PLC0415

        settings = get_settings()
        registry = load_registry(settings)
        check_sources([self.source], registry)
        module = context.defs_module_name.partition(".")[0]
        # what others call their code location, only its server knows
        location = CODE_LOCATION if module in (geo_assets.__name__, _DEFS_MODULE) else None
        return dg.Definitions.merge(
            build_source_sensors(settings, registry, [self.source]),
            build_source_assets([self.source], settings, location=location),
        )


def component_tree(settings: Settings) -> ComponentTree | None:
    """The components of the folder that the settings name, or of ``geo_assets/defs``; ``None`` where there are none.

    Raises:
        SettingsError: the folder is not there.
    """
    folder = settings.defs_path
    if not folder.is_dir():
        raise SettingsError(f"GEO_ASSETS_DEFS: there is no folder {folder}")
    if not any(found for kind in ("*.yaml", "*.yml", "*.py") for found in folder.glob(f"*/**/{kind}")):
        return None
    return ComponentTree.from_module(defs_module=_module(folder), project_root=folder.parent)


def component_sources(tree: ComponentTree | None) -> tuple[Source, ...]:
    """The sources among the components.

    Raises:
        SettingsError: one cannot be loaded; names file, line and key.
    """
    if tree is None:
        return ()
    try:
        return tuple(found.source for found in tree.get_all_components(BlobSource))
    except ComponentTreeException as error:
        # what is wrong stands in the cause; the exception itself draws the tree
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        told = "; ".join(explain(cause)) if isinstance(cause, ValidationError) else str(cause)
        raise SettingsError(redact(f"components of {tree.defs_module_path} cannot be used: {told}")) from error


def _module(folder: Path) -> ModuleType:
    """The folder as a module, which need not be on Python's path."""
    if folder == Path(geo_assets.defs.__file__).parent:
        return geo_assets.defs
    for name in [name for name in sys.modules if name.partition(".")[0] == _DEFS_MODULE]:
        del sys.modules[name]  # of another folder, or older
    module = ModuleType(_DEFS_MODULE)
    module.__file__ = str(folder / "__init__.py")
    module.__path__ = [str(folder)]
    sys.modules[_DEFS_MODULE] = module
    return module
