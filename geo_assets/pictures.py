"""Small pictures for the Dagster UI: bars of text, histograms as SVG, and galleries of pictures in Markdown.

What belongs here: drawing from plain numbers what the UI shows at once, and putting pictures into Markdown.  What does
not: thumbnails (``raster.thumbnail``) and maps (``stac.locator_map``), which need geodata libraries.

The UI renders Markdown in a partition's metadata only below 1,000 characters; anything longer hides behind a link.
The description of a materialization has no such limit, but it is no place for pictures: the partition's page does not
show it, and the log of the run shows it as plain text (all read in the UI's source and looked at in Chromium).  So
pictures come twice: each small enough to be shown at once, and all together larger, as a gallery a click away.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

__all__ = [
    "GALLERY_CHARACTERS",
    "SHOWN_AT_ONCE",
    "Picture",
    "bar_chart",
    "coarse_histogram",
    "data_uri",
    "enlarged",
    "gallery",
    "histogram_svg",
    "shown_at_once",
    "trimmed_histogram",
]

_MOST_ROWS = 12
_LABEL = 20
_BAR = 20
SHOWN_AT_ONCE: Final = 1000
"""Characters of Markdown that the UI shows without a click; a picture stays below."""
GALLERY_CHARACTERS: Final = 12_000
"""Most characters of a gallery: with three small pictures and a table of facts, an event stays within 16 kB."""

_WIDTH, _HEIGHT = 240, 120
_NARROWEST = 1e-300
"""Width of a histogram that can still be drawn to scale."""
_BUCKETS = 32
_FEWER_BUCKETS = (_BUCKETS, 24, 16, 8)
_APART = 16
"""Most values that are drawn as bars with gaps between them."""
_HISTOGRAM_CHARACTERS = 950
_HISTOGRAM_BANDS = 3
_BAND_COLOURS = ("#c33", "#3a3", "#36c")
_ONE_COLOUR = "#567"
_UNTOUCHED = "/:=,;@!*+$?~.-_'"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a gallery."""

    alt: str
    """What it shows, for those who do not see it."""
    media_type: str
    data: bytes


def bar_chart(values: Mapping[str, float]) -> str:
    """Horizontal bars as a Markdown code block: a row a value, in the order given, at most twelve.

    Args:
        values: label → number, none negative.

    Raises:
        ValueError: a value is negative.
    """
    if any(value < 0 for value in values.values()):
        raise ValueError("bars have no negative length")
    shown = dict(list(values.items())[:_MOST_ROWS])
    largest = max(shown.values(), default=0) or 1
    labels = {label: _printable(label)[:_LABEL] for label in shown}
    width = max((len(label) for label in labels.values()), default=0)
    rows = [
        f"{labels[label]:>{width}} {'█' * max(round(_BAR * value / largest), 1 if value else 0)} {value:,.0f}"
        for label, value in shown.items()
    ]
    if len(values) > len(shown):
        rows.append(f"{'':>{width}} and {len(values) - len(shown)} more")
    return "\n".join(["```", *rows, "```"])


def coarse_histogram(histogram: Mapping[str, Any], buckets: int = _BUCKETS) -> dict[str, Any]:
    """Merge the buckets of a histogram into at most so many of equal width.

    Args:
        histogram: ``min``, ``max``, ``buckets`` (counts) and ``count`` (how many), as ``stac.sampling`` documents.
        buckets: most buckets of the result, at least 1.

    Returns:
        A histogram of the same kind with the same sum; a bucket that lies across a border counts where it begins.
    """
    counts = histogram["buckets"]
    few = min(buckets, len(counts))
    merged = [0] * few
    for position, count in enumerate(counts):
        merged[position * few // len(counts)] += count
    return {"count": few, "min": histogram["min"], "max": histogram["max"], "buckets": merged}


def trimmed_histogram(histogram: Mapping[str, Any]) -> dict[str, Any]:
    """A histogram without the empty buckets at its ends: bytes are counted from 0 to 255, whatever there is.

    Where each bucket counts one whole number, as of bytes, ``min`` and ``max`` are the first and the last that there
    is, and between few of them there are empty buckets, so that a mask of 0 and 1 is two bars and no block.

    Args:
        histogram: as for :func:`coarse_histogram`.

    Returns:
        A histogram of the same kind with the same sum; trimming it again changes nothing of what is drawn.
    """
    counts, low, high = histogram["buckets"], histogram["min"], histogram["max"]
    filled = [position for position, count in enumerate(counts) if count]
    if not filled:
        return dict(histogram)
    first, beyond = filled[0], filled[-1] + 1
    kept = counts[first:beyond]
    if high - low + 1 == len(counts) and float(low).is_integer():
        low, high = low + first, low + beyond - 1
        if len(kept) <= _APART:
            kept = [number for count in kept for number in (count, 0)][:-1]
    else:
        width = (high - low) / len(counts)
        low, high = low + first * width if first else low, low + beyond * width if beyond < len(counts) else high
    return {"count": len(kept), "min": low, "max": high, "buckets": kept}


def histogram_svg(bands: Sequence[Mapping[str, Any]]) -> str:
    """Draw the histograms of up to three bands over each other.

    Heights go by the square root of the counts, so that one huge bucket does not flatten the rest.

    Args:
        bands: statistics a band, as ``stac.sampling`` documents; those without a histogram are left out.

    Returns:
        An SVG document, small enough to be shown at once; empty where no band has a histogram.
    """
    histograms = [trimmed_histogram(band["histogram"]) for band in bands if _has_values(band)]
    histograms = [one for one in histograms if one["max"] > one["min"]][:_HISTOGRAM_BANDS]
    if not histograms:
        return ""
    for buckets in _FEWER_BUCKETS:
        drawn = _overlaid([coarse_histogram(histogram, buckets) for histogram in histograms])
        if len(data_uri("image/svg+xml", drawn.encode())) <= _HISTOGRAM_CHARACTERS:
            break
    return drawn


def data_uri(media_type: str, data: bytes) -> str:
    """The address of a picture that holds the picture: text percent-encoded where that is shorter, else base64."""
    encoded = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    try:
        # a bracket, blank or quote would end the address in Markdown or HTML
        plain = f"data:{media_type},{quote(data.decode(), safe=_UNTOUCHED)}"
    except UnicodeDecodeError:
        return encoded
    return min(plain, encoded, key=len)


def enlarged(picture: Picture, *, width: int, height: int) -> Picture:
    """The same picture shown at another size, in pixels: Markdown has no other way to say it."""
    size = f"width='{width}' height='{height}'"
    address = data_uri(picture.media_type, picture.data)
    drawing = f"<svg xmlns='http://www.w3.org/2000/svg' {size}><image {size} href='{address}'/></svg>"
    return Picture(alt=picture.alt, media_type="image/svg+xml", data=drawing.encode())


def shown_at_once(picture: Picture) -> str | None:
    """A picture as Markdown that the UI shows without a click; ``None`` where it is too large for that."""
    image = _markdown(picture)
    return image if len(image) < SHOWN_AT_ONCE else None


def gallery(sentence: str, pictures: Sequence[Picture]) -> str:
    """A sentence and pictures beside each other, as Markdown of at most :data:`GALLERY_CHARACTERS` characters.

    Args:
        sentence: what comes first; cut where it alone is too long.
        pictures: the most important one first; where one does not fit, it and all after it are left out.
    """
    text = sentence[:GALLERY_CHARACTERS]
    separator = "\n\n"
    for picture in pictures:
        image = separator + _markdown(picture)
        if len(text) + len(image) > GALLERY_CHARACTERS:
            break
        text += image
        separator = " "
    return text


def _markdown(picture: Picture) -> str:
    alt = re.sub(r"[^\w ,.:;()%°+-]", " ", picture.alt)
    return f"![{alt}]({data_uri(picture.media_type, picture.data)})"


def _overlaid(histograms: Sequence[Mapping[str, Any]]) -> str:
    low, high = min(one["min"] for one in histograms), max(one["max"] for one in histograms)
    most = max(max(one["buckets"]) for one in histograms)
    colours = _BAND_COLOURS if len(histograms) > 1 else (_ONE_COLOUR,)
    shapes = "".join(
        f"<path fill='{colour}' fill-opacity='.5' d='{_steps(one, low, high, most)}'/>"
        for one, colour in zip(histograms, colours, strict=False)
    )
    y = _HEIGHT + 14
    # single quotes need no encoding in a data URI
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{y + 4}' font-size='12'"
        f" font-family='sans-serif' fill='#777'>{shapes}<path stroke='#999' d='M0,{_HEIGHT}h{_WIDTH}'/>"
        f"<text y='{y}'>{_number(low)}</text>"
        f"<text x='{_WIDTH}' y='{y}' text-anchor='end'>{_number(high)}</text></svg>"
    )


def _has_values(band: Mapping[str, Any]) -> bool:
    histogram = band.get("histogram")
    # a narrower one has no scale in floating point
    return histogram is not None and any(histogram["buckets"]) and histogram["max"] - histogram["min"] > _NARROWEST


def _steps(histogram: Mapping[str, Any], low: float, high: float, most: int) -> str:
    """The outline of the bars, in whole pixels."""
    counts, scale = histogram["buckets"], _WIDTH / (high - low)
    left = (histogram["min"] - low) * scale
    width = (histogram["max"] - histogram["min"]) * scale / len(counts)
    path, x, y = f"M{round(left)},{_HEIGHT}", round(left), 0
    for position, count in enumerate(counts, 1):
        height = round(_HEIGHT * math.sqrt(count / most)) or (1 if count else 0)
        right = round(left + width * position)
        if height != y:
            path += f"v{y - height}"
        path += f"h{right - x}"
        x, y = right, height
    return f"{path}V{_HEIGHT}z"


def _number(number: float) -> str:
    return f"{number:.6g}" if float(number).is_integer() else f"{number:.4g}"


def _printable(label: str) -> str:
    return "".join(character if character.isprintable() and character != "`" else "?" for character in label)
