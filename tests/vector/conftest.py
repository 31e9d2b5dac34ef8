"""What the vector tests share.

What belongs here: fixtures.  What does not: making files (``files``).
"""

from tests.raster.conftest import listener

__all__ = ["listener"]
