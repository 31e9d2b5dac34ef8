"""The code location that Dagster loads."""

from geo_assets.build import build_definitions

defs = build_definitions()
