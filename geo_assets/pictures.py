"""Small pictures for the Dagster UI: SVG as Markdown, a few hundred bytes to a few kilobytes each.

What belongs here: drawing from plain numbers, and the Markdown form that the UI renders offline (looked at in
Chromium: an image with a data URI).  What does not: thumbnails of rasters and maps, which need geodata libraries.
"""

import base64
from collections.abc import Mapping
from html import escape

_ROW = 20
_LABEL = 130
_BARS = 260
_VALUE = 110
_INK = "#4b5563"
_BAR = "#4f6bed"


def bar_chart(values: Mapping[str, float], *, shown: Mapping[str, str] | None = None) -> str:
    """Horizontal bars as an SVG document, one a value, in the order given.

    Args:
        values: label → number, none negative.
        shown: label → text at the end of its bar; default: the number with thousands separators.

    Raises:
        ValueError: a value is negative.
    """
    if any(value < 0 for value in values.values()):
        raise ValueError("bars have no negative length")
    largest = max(values.values(), default=0) or 1
    height = max(1, len(values)) * _ROW
    size = f'width="{_LABEL + _BARS + _VALUE}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    for row, (label, value) in enumerate(values.items()):
        top = row * _ROW
        width = _BARS * value / largest
        text = (shown or {}).get(label, f"{value:,.0f}")
        parts.append(
            f'<text x="{_LABEL - 6}" y="{top + 14}" text-anchor="end" fill="{_INK}">{escape(label[:22])}</text>'
            f'<rect x="{_LABEL}" y="{top + 3}" width="{max(width, 1 if value else 0):.1f}" height="14" rx="2"'
            f' fill="{_BAR}"/>'
            f'<text x="{_LABEL + width + 5:.1f}" y="{top + 14}" fill="{_INK}">{escape(text)}</text>'
        )
    parts.append("</svg>")
    return "".join(parts)


def as_markdown(svg: str, *, alternative: str) -> str:
    """The picture as Markdown with a data URI; ``alternative`` is read where it cannot be seen."""
    data = base64.b64encode(svg.encode()).decode()
    return f"![{alternative}](data:image/svg+xml;base64,{data})"


def human_bytes(size: float) -> str:
    """A size in bytes as people write it: ``7.1 MB`` (1 MB = 1024² bytes, as the original counted)."""
    step = 1024.0
    for unit in ("B", "kB", "MB", "GB"):
        if size < step:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= step
    return f"{size:.2f} TB"
