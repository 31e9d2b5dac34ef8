"""Small pictures for the Dagster UI, as text: bars of block characters in Markdown.

What belongs here: drawing from plain numbers what the UI shows at once.  What does not: thumbnails and maps, which
need geodata libraries.

The UI renders Markdown in a partition's metadata only up to 1,000 characters (read in its source and looked at in
Chromium); anything longer, such as an image with a data URI, hides behind a link.  Bars of text stay below that.
"""

from collections.abc import Mapping

_MOST_ROWS = 12
_LABEL = 20
_BAR = 20
SHOWN_AT_ONCE = 1000
"""Characters of Markdown that the UI shows without a click; a picture stays below."""


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


def _printable(label: str) -> str:
    return "".join(character if character.isprintable() and character != "`" else "?" for character in label)
