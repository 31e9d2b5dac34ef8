"""Dagster components of this code location, a folder each with a ``defs.yaml``.

What belongs here: what ``dg scaffold defs geo_assets.BlobSource NAME`` makes, and anything else that ``dg`` loads.
What does not: sources that are plain YAML (``sources.yaml`` in the home).  ``GEO_ASSETS_DEFS`` names another folder.
"""
