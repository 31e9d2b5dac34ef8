"""A code location of workflows that publish, for the tests of taking back."""

from geo_assets.build import build_definitions
from geo_assets.coremachine.binding import bind, registry_of
from tests.publishing import WORKFLOWS

registry = registry_of([bind(workflow, production=False) for workflow in WORKFLOWS])
defs = build_definitions(registry=registry)
