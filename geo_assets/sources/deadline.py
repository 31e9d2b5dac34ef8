"""Waiting for a store no longer than there is time, though it never answers.

What belongs here: asking in threads that are left behind when the time is over.  What does not: what is asked.

A thread that is left ends when its request does; it hands over nothing any more, and keeps no process alive.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

__all__ = ["answers_until", "items_until"]

_PAUSE = 0.2
_END = object()


def items_until[T](items: Iterable[T], ends: float) -> Iterator[T]:
    """Iterate over what another thread reads.

    Args:
        items: what is read, and only there.
        ends: until when, by ``time.monotonic``.

    Raises:
        TimeoutError: the time is over, and ``items`` are not.
    """
    handed: queue.Queue[Callable[[], T]] = queue.Queue(maxsize=2)
    left = threading.Event()
    reader = threading.Thread(target=_read, args=(items, handed, left), daemon=True)
    reader.start()
    try:
        while (item := _next(handed, ends)()) is not _END:
            yield item
    finally:
        left.set()


def _read[T](items: Iterable[T], handed: queue.Queue[Callable[[], object]], left: threading.Event) -> None:
    try:
        for item in items:
            _hand(lambda item=item: item, handed, left)  # type: ignore[misc]
            if left.is_set():
                return
        _hand(lambda: _END, handed, left)
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
        _hand(_raising(error), handed, left)


def _hand[T](one: T, handed: queue.Queue[T], left: threading.Event) -> None:
    while not left.is_set():
        try:
            handed.put(one, timeout=_PAUSE)
        except queue.Full:
            continue
        return


def answers_until[K, V](ask: Callable[[K], V], keys: Sequence[K], ends: float, *, at_once: int) -> dict[K, V]:
    """Ask about several things, some at once; those are left out that were not answered in time.

    Raises:
        Exception: the first that ``ask`` raised.
    """
    waiting = iter(keys)
    answered: queue.SimpleQueue[Callable[[], tuple[K, V]]] = queue.SimpleQueue()

    def work() -> None:
        try:
            # the next of a list's iterator is one step, whoever else takes one
            for key in waiting:
                if time.monotonic() > ends:
                    return
                answer = key, ask(key)
                answered.put(lambda answer=answer: answer)  # type: ignore[misc]
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            answered.put(_raising(error))

    for _ in range(min(at_once, len(keys))):
        threading.Thread(target=work, daemon=True).start()
    found: dict[K, V] = {}
    while len(found) < len(keys):
        try:
            key, value = _next(answered, ends)()
        except TimeoutError:
            break
        found[key] = value
    return found


def _raising(error: BaseException) -> Callable[[], Any]:
    def again() -> Any:
        raise error

    return again


def _next[T](handed: queue.Queue[T] | queue.SimpleQueue[T], ends: float) -> T:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    try:
        return handed.get(timeout=left)
    except queue.Empty:
        raise TimeoutError from None
