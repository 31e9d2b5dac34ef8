"""Long lists, some at a time: what a statement or a transaction takes at once.

What belongs here: cutting lists.  What does not: how long a transaction may be, which those decide who write it.
"""

from collections.abc import Iterator, Sequence

__all__ = ["IN_LIMIT", "chunks"]

IN_LIMIT = 1000
"""Values in one statement: databases take tens of thousands at most, and plan few faster."""


def chunks[T](items: Sequence[T], size: int = IN_LIMIT) -> Iterator[Sequence[T]]:
    """The items in order, ``size`` at a time, the last ones maybe fewer."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
