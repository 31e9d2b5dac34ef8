"""The catalog as one page for people who look rather than read.

What belongs here: gathering what the stores and the ledger know (``gathering``) and drawing it (``page``).  What does
not: publishing the page (``geo_assets.assets.report``) and the command line (``geo_assets.cli.report_command``).
"""

from geo_assets.report.facts import Report
from geo_assets.report.gathering import gather
from geo_assets.report.page import MEDIA_TYPE, PAGE_NAME, render
from geo_assets.report.world import small_map, tiny_map

__all__ = ["MEDIA_TYPE", "PAGE_NAME", "Report", "gather", "render", "small_map", "tiny_map"]
