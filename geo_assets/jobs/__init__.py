"""The workflows, one module each, and their registry.

What belongs here: parameters, stages, tasks, handlers and aggregation of each workflow.  What does not: how they
run (``coremachine``) and what they do to files (``containers``, ``raster``, ``vector``, ``stac``).
"""

from geo_assets.coremachine.binding import Binding, bind, registry_of
from geo_assets.coremachine.legacy import configured_workflows
from geo_assets.jobs.hello_world import HelloWorld
from geo_assets.jobs.ingest_vector import IngestVector
from geo_assets.jobs.list_container_contents import ListContainerContents
from geo_assets.jobs.process_raster import ProcessRaster
from geo_assets.jobs.stac_catalog_container import StacCatalogContainer
from geo_assets.jobs.stac_catalog_raster import StacCatalogRaster
from geo_assets.jobs.stac_catalog_vectors import StacCatalogVectors
from geo_assets.jobs.summarize_container import SummarizeContainer
from geo_assets.jobs.validate_raster_job import ValidateRasterJob
from geo_assets.settings import Settings

WORKFLOWS: tuple[type, ...] = (
    HelloWorld,
    ListContainerContents,
    SummarizeContainer,
    ValidateRasterJob,
    ProcessRaster,
    StacCatalogRaster,
    StacCatalogContainer,
    IngestVector,
    StacCatalogVectors,
)
"""Our own workflows. A new one is a module here and a line in this tuple."""


def load_registry(settings: Settings) -> dict[str, Binding]:
    """Our workflows and those named by ``GEO_ASSETS_LEGACY_JOBS``, checked and bound.

    Raises:
        ContractError: a class cannot be run; one sentence that names the class and the element.
        SettingsError: only one of the two settings for legacy classes is set.
    """
    bindings = [bind(workflow) for workflow in WORKFLOWS]
    bindings += [bind(workflow, handlers) for workflow, handlers in configured_workflows(settings)]
    return registry_of(bindings)
