"""Containers: listing their blobs, summarizing them, analysing one.

What belongs here: what a container holds, read from any :class:`~geo_assets.stores.blobs.BlobStore`, in bounded
memory.  What does not: where blobs lie (``stores``), what is inside a file (``raster``, ``vector``), and the
workflows that use this (``geo_assets.jobs``).

- ``filter``: which blobs are meant, by prefix, extension, size and date.
- ``entries``: the stream all of this works on: blobs, with each ``.gdb`` folder as one dataset, filtered, then limited.
- ``listing``: that stream as a Parquet file, and its changes against the last one.
- ``summary``: its statistics.
- ``analysis``: one blob or dataset.
"""
