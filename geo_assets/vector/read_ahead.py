"""Reading a batch while the one before is prepared: GDAL, Arrow and GEOS leave Python's lock alone while they work.

What belongs here: :class:`ReadAhead`.  What does not: what is read, and what is done with it.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

__all__ = ["ReadAhead"]

_POLL_SECONDS = 0.1


class ReadAhead[T]:
    """The items of an iterator, which a thread takes one ahead of whoever iterates here; a context manager.

    What the iterator raises is raised here.  Left early, the thread ends before the ``with`` does, so that a file can
    be closed after it.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._waiting: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the items are taken
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._waiting.put(item, timeout=_POLL_SECONDS)
                return True
        return False
