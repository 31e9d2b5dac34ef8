"""Dates with times as text, read as timestamps.

What belongs here: the texts that GDAL writes for such values, with and without a zone.  What does not: texts that
people write (``text_values``), and what a database can hold (``columns``).

GDAL is asked for text because its own timestamps lose the zone of some formats and turn local times into false ones.
"""

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute

__all__ = ["LOCAL", "ZONED", "fit", "kind_of", "zones_of"]

pc: Final[Any] = pyarrow.compute
"""Without its stubs, which know no plain texts as operands."""

LOCAL: Final = pa.timestamp("us")
ZONED: Final = pa.timestamp("us", tz="UTC")

_ZONE: Final = r"T.*(Z|[+-]\d\d(:?\d\d)?)$"


def zones_of(texts: Any) -> tuple[int, int]:
    """How many values have a zone, and how many have none."""
    zoned = pc.match_substring_regex(texts, _ZONE)
    return pc.sum(zoned).as_py() or 0, pc.sum(pc.invert(zoned)).as_py() or 0


def kind_of(texts: Any) -> pa.DataType:
    """Which type takes some texts: with a zone if any has one, and text where one is no date."""
    kind = ZONED if zones_of(texts)[0] else LOCAL
    return pa.string() if fit(texts, kind) is None else kind


def fit(texts: Any, kind: pa.DataType) -> tuple[Any, int] | None:
    """Read texts as timestamps; those without a zone are taken to be in UTC where ``kind`` has one.

    Args:
        texts: ``pa.string()`` array.
        kind: :data:`LOCAL`, :data:`ZONED` or ``pa.string()``, which leaves them as they are.

    Returns:
        An array of ``kind``, and how many zones were missing; ``None`` where one of the texts is no such thing: the
        year 20000, a zone if ``LOCAL``.
    """
    found = _cast(texts, kind)
    if found is not None:
        return found, 0
    if kind != ZONED:
        return None
    # Arrow wants a zone in all of them
    there = pc.match_substring_regex(texts, _ZONE)
    found = _cast(pc.if_else(there, texts, pc.binary_join_element_wise(texts, "Z", "")), kind)
    return None if found is None else (found, zones_of(texts)[1])


def _cast(texts: Any, kind: pa.DataType) -> Any:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        return None
