"""STAC items and collections: how a raster or a table is described so that any STAC client finds it.

What belongs here: footprints, identifiers, item and collection documents, and the checks they pass before they are
written.  What does not: where items are kept (``geo_assets.stores.catalog``), how rasters are opened (``raster``),
and anything of Dagster.  Import from the modules: this one loads nothing, as the catalog stores want no GDAL.
"""
