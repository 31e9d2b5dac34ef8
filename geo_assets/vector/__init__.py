"""Vector files: opened through one door, read as Arrow streams, prepared, described as tables.

What belongs here: what is inside a vector file and what becomes of it, as a plain library on local files.  What does
not: where blobs lie and tables are kept (``stores``), where and under which limits this code runs (``coremachine``),
and the workflows that use it (``geo_assets.jobs``).

**The division of labour** is that of ``geo_assets.raster``: a handler in the run's process fetches the blob with
:func:`~geo_assets.vector.local_copy.fetch`, and a function of this package, called by ``services["sandbox"].call``,
opens the copy.  It takes and returns plain dicts, and leaves what it prepared as Arrow files in a folder it is given.

- ``table``: what a table is: columns, geometry, types; plain values that pass between the layers.
- ``budget``: what a file may ask for.
- ``formats``: which driver a file is for, by its first bytes.
- ``content``: what GDAL does not notice in it: cut off, parts that do not fit, names of other files, functions.
- ``archives``: zip files, bounded before anything is unpacked.
- ``local_copy``: a blob, or the blobs of one dataset, as files in a private folder.
- ``open``: the one door; gives the layers of a file.
- ``gdal_fence``: GDAL as it may be while a file is open.
- ``layers``: what a layer is to those who read it: schema, CRS, batches.
- ``ogr_layers``, ``csv_layers``, ``geojson_layers``, ``parquet_layers``: the readers.
- ``shapefile``, ``geopackage``, ``moments``: what GDAL does not say of such files, and the times that it does.
- ``nested``, ``native_geometry``: what columnar files have in lists and structs, as JSON and as WKB.
- ``geojson_text``, ``geojson_shapes``: where GeoJSON features begin and end, and their coordinates as WKB.
- ``text_files``, ``text_values``: encodings, and types of values, where a file has nothing but text.
- ``columns``: names and types of columns, made fit for a table.
- ``fitting``: which columns of a table that is there take which rows, and the cast to them.
- ``wkb``: geometry as bytes: types, promotion, dimensions, without building objects where that is enough.
- ``coordinates``: reprojection, and whether numbers can be coordinates in a CRS.
- ``dateline``: what crosses the antimeridian or goes round a pole, cut there.
- ``geometry``: geometries checked, repaired and reprojected, every change counted.
- ``footprint``: boxes and outlines in longitude and latitude.
- ``table_map``: the picture of a table.
- ``read_ahead``: reading while the batch before is prepared.
- ``prepare``: all of this as one pass over a file.
"""
