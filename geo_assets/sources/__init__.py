"""Containers that are watched: which blobs of theirs become which jobs, and what was seen of them.

What belongs here: what a source is (``source``), how it looks at its container and what it remembers (``look``,
``register``), and how what it saw becomes queued jobs (``turn``).  What does not: Dagster (``geo_assets.assets``), and
listing itself (``geo_assets.containers``).

Imports settings, stores, ``containers`` and of ``coremachine`` what knows no Dagster: ledger, submission, binding.
"""
