"""Rasters: opened through one door, read whole, judged.

What belongs here: what is inside a raster file, as a plain library on local files.  What does not: where blobs lie
(``stores``), where and under which limits this code runs (``coremachine``), and the workflows that use it
(``geo_assets.jobs``).

**The division of labour.**  A file that someone uploaded is opened in a worker process under limits, without
credentials, and nowhere else.  So a handler of a raster workflow runs in the run's process, where the stores are: it
fetches the blob with :func:`~geo_assets.raster.local_copy.fetch` into a private folder and hands the path to
``services["sandbox"].call(function, params)``.  The function lies here, takes and returns plain dicts, and opens the
path with :func:`~geo_assets.raster.open.open_raster`.  Nothing here may be called on an uploaded file by code that
runs in the run's process, except ``fetch`` and :func:`~geo_assets.raster.formats.sniff`, which only look at
bytes.

- ``formats``: which driver a file is for, by its first bytes; what GDAL does not notice about a file.
- ``open``: the one door.
- ``local_copy``: a blob as a file in a private folder.
- ``tiff``: the few tags of a TIFF that rasterio does not tell.
- ``crs``: reading, comparing and doubting coordinate reference systems.
- ``statistics``: every block of every band, once, in bounded memory.
- ``raster_type``: what kind of picture or measurement it is, and the COG settings that suit it.
- ``validate``: all of this as one verdict.
"""
