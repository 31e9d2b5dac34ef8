"""Charts without a library: bars as table rows, columns over time as SVG.

What belongs here: drawing numbers as HTML.  What does not: which numbers (``page``), and the map (``world``).
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate

__all__ = ["bars", "columns", "number", "size", "text"]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_WIDTH, _HEIGHT, _TOP = 560, 150, 12
_MOST_MONTHS, _MOST_YEARS = 48, 60
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def text(value: object) -> str:
    """Anything as text of an HTML document, in an element or in a quoted attribute."""
    return escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def number(value: int) -> str:
    """A whole number with narrow gaps between the thousands."""
    return f"{value:,}".replace(",", "\u202f")


def size(count: int) -> str:
    """Bytes in the unit that suits."""
    amount, unit = float(count), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - what would show as 1000
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.3g} {_UNITS[unit]}" if unit else f"{count} {_UNITS[0]}"


def bars(caption: str, counts: Mapping[str, int], *, most: int = 12) -> str:
    """A table of counts, each with a bar, largest first; what is beyond the most is one row."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown, rest = ranked[:most], ranked[most:]
    if rest:
        shown.append((f"{len(rest)} more", sum(count for _, count in rest)))
    largest = max((count for _, count in shown), default=0) or 1
    rows = "".join(
        f'<tr><th scope="row"><bdi>{text(label)}</bdi></th><td class="bar"><span style="width:'
        f'{max(100 * count / largest, 0.5 if count else 0):.1f}%"></span></td><td class="n">{number(count)}</td></tr>'
        for label, count in shown
    )
    if not rows:
        return f'<p class="none">{text(caption)}: none yet.</p>'
    return f'<table class="bars"><caption>{text(caption)}</caption><tbody>{rows}</tbody></table>'


def columns(caption: str, months: Mapping[str, int]) -> str:
    """Columns over time with the sum so far as a line; months, or years or decades where that would be too many.

    Args:
        caption: what is counted.
        months: ``YYYY-MM`` → how many.
    """
    if not months:
        return f'<p class="none">{text(caption)}: none yet.</p>'
    periods, unit = _periods(months)
    total = sum(periods.values())
    first, last = next(iter(periods)), list(periods)[-1]
    said = f"{caption}: {number(total)} from {first} to {last}, by {unit}"
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="n">{number(count)}</td>'
        f'<td class="n">{number(so_far)}</td></tr>'
        for (name, count), so_far in zip(periods.items(), accumulate(periods.values()), strict=True)
        if count
    )
    return (
        f'<figure class="chart"><figcaption>{text(caption)} <small>by {unit}; line: so far</small></figcaption>'
        f"{_svg(said, periods)}"
        f"<details><summary>As a table</summary><table><thead><tr><th scope='col'>{unit.capitalize()}</th>"
        f"<th scope='col' class='n'>New</th><th scope='col' class='n'>So far</th></tr></thead><tbody>{rows}</tbody>"
        "</table></details></figure>"
    )


def _periods(months: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Every period from the first to the last, empty ones as well."""
    at = {int(month[:4]) * 12 + int(month[5:7]) - 1: count for month, count in months.items()}
    low, high = min(at), max(at)
    if high - low < _MOST_MONTHS:
        return {f"{one // 12:04d}-{one % 12 + 1:02d}": at.get(one, 0) for one in range(low, high + 1)}, "month"
    years = 1 if (high - low) // 12 < _MOST_YEARS else 10
    while (high - low) // 12 // years > _MOST_YEARS:
        years *= 10
    counted: dict[int, int] = {}
    for one, count in at.items():
        period = one // 12 // years * years
        counted[period] = counted.get(period, 0) + count
    periods = range(min(counted), max(counted) + 1, years)
    names = {one: f"{one:04d}" if years == 1 else f"{one:04d}-{one + years - 1:04d}" for one in periods}
    return {names[one]: counted.get(one, 0) for one in periods}, {1: "year", 10: "decade"}.get(years, f"{years} years")


def _svg(said: str, periods: Mapping[str, int]) -> str:
    counts = list(periods.values())
    most, total = max(counts), sum(counts)
    step = _WIDTH / len(counts)
    gap = min(step * 0.2, 4)
    width = min(step - gap, 40.0)
    drawn = []
    for position, (name, count) in enumerate(periods.items()):
        height = max((_HEIGHT - _TOP) * count / most, 1.5) if count else 0
        drawn.append(
            f'<rect x="{position * step + (step - width) / 2:.1f}" y="{_HEIGHT - height:.1f}" width="{width:.1f}"'
            f' height="{height:.1f}" rx="1.5"><title>{text(name)}: {number(count)}</title></rect>'
            if count
            else ""
        )
    sums = list(accumulate(counts))
    line = " ".join(
        f"{(position + 0.5) * step:.1f},{_HEIGHT - (_HEIGHT - _TOP) * so_far / total:.1f}"
        for position, so_far in enumerate(sums)
    )
    labels = "".join(
        f'<text x="{(position + 0.5) * step:.1f}" y="{_HEIGHT + 18}" text-anchor="{anchor}">{text(name)}</text>'
        for position, name, anchor in _labels(list(periods))
    )
    curve = f'<polyline points="{line}"/>' if len(counts) > 1 else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 24}" role="img" aria-label="{text(said)}">'
        f'<path class="axis" d="M0,{_HEIGHT}h{_WIDTH}"/>{"".join(drawn)}{curve}{labels}'
        f'<text x="0" y="9" class="most">most: {number(most)}</text></svg>'
    )


def _labels(names: Sequence[str]) -> list[tuple[int, str, str]]:
    """A few names under the axis: position, name, how it is anchored."""
    last = len(names) - 1
    if last < 4:  # noqa: PLR2004 - all of them fit
        return [(position, name, "middle") for position, name in enumerate(names)]
    return [
        (position, names[position], anchor)
        for position, anchor in ((0, "start"), (last // 3, "middle"), (2 * last // 3, "middle"), (last, "end"))
    ]
