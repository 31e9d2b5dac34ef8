"""The code location of the integration tests: our assembly with the test workflows."""

from geo_assets.build import build_definitions
from geo_assets.coremachine.binding import bind, registry_of
from tests.integration.workflows import DigestBlob, SurveyFolder

registry = registry_of([bind(DigestBlob, production=False), bind(SurveyFolder, production=False)])
defs = build_definitions(registry=registry)
