"""Looking again at what was published: one small function a check, at the real thing, as it is now.

What belongs here: the checks of rasters, tables and items, and running them over many partitions.  What does not:
Dagster (``geo_assets.assets.checks``), printing (``cli.check_command``), and what a job checks before it publishes.
"""
