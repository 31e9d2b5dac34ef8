"""Reading one ahead: order, errors, and a thread that ends.

What belongs here: ``ReadAhead``.  What does not: what is read (the readers).
"""

import threading
from collections.abc import Iterator

import pytest

from geo_assets.vector.read_ahead import ReadAhead


def test_items_come_in_order() -> None:
    with ReadAhead(iter(range(100))) as items:
        assert list(items) == list(range(100))


def test_nothing_is_read_far_ahead() -> None:
    taken: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ReadAhead(count()) as items:
        assert next(iter(items)) == 0
    assert len(taken) <= 4


def test_an_error_is_raised_after_what_came_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("cut off")

    seen: list[int] = []
    with pytest.raises(ValueError, match="cut off"), ReadAhead(broken()) as items:
        seen.extend(items)
    assert seen == [1]


def test_the_thread_has_ended_when_it_is_left_early() -> None:
    before = threading.active_count()
    with ReadAhead(iter(range(1000))) as items:
        assert next(iter(items)) == 0
    assert threading.active_count() == before
