"""Text files in any encoding, read as UTF-8.

What belongs here: telling a file's encoding from its first bytes, and a stream that checks or converts it on the way.
What does not: what the text says (``csv_layers``, ``geojson_layers``).
"""

import codecs
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charset_normalizer

from geo_assets.errors import VectorRefusedError, VectorUnreadableError

__all__ = ["TextFile", "Utf8Stream", "guess", "look_at", "named"]

SAMPLE_BYTES = 4 * 1024 * 1024
"""How much of a file is looked at."""

_UTF8 = "utf-8"
_MARKS = ((codecs.BOM_UTF8, _UTF8), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_WESTERN = ("cp1252", "cp1250")
_GUESSED = ("gb18030", "big5", "cp932", "euc_kr", "euc_jp", "cp1251", "cp1253", "cp1254", *_WESTERN)
_TELLING_BYTES = 32 * 1024
_FEW = 0.08  # of the bytes of UTF-16 without a mark are zeros, all of them first or all second of a pair


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file of text, and how it is read."""

    path: Path
    encoding: str
    """As Python names it."""
    mark: int
    """Bytes of the byte order mark at its start."""
    sample: bytes
    """Its beginning, at most :data:`SAMPLE_BYTES` and perhaps cut within a character, as UTF-8 without the mark."""
    notes: tuple[str, ...]

    def open(self) -> "Utf8Stream":
        """Read it from its start."""
        return Utf8Stream(self)


class Utf8Stream(io.RawIOBase):
    """The bytes of a text file as UTF-8, without a byte order mark.

    Raises:
        VectorUnreadableError: in ``read``, where bytes are not of the file's encoding; names the byte and the line.
    """

    def __init__(self, file: TextFile) -> None:
        super().__init__()
        self._file = file
        self._raw = file.path.open("rb", buffering=0)
        self._raw.seek(file.mark)
        self._decoder = codecs.getincrementaldecoder(file.encoding)()
        self._at = file.mark
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes, all without a number; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(SAMPLE_BYTES), b""))
        while not self._left and not self._ended:
            self._left = self._next(max(size, 1))
        part, self._left = self._left[:size], self._left[size:]
        return part

    def close(self) -> None:
        """Give the file back."""
        self._raw.close()
        super().close()

    def _lines_before(self, at: int) -> int:
        lines = 0
        self._raw.seek(0)
        while at > 0 and (raw := self._raw.read(min(SAMPLE_BYTES, at))):
            at -= len(raw)
            lines += raw.count(b"\n")
        return lines

    def _next(self, size: int) -> bytes:
        raw = self._raw.read(size)
        self._ended = not raw
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            at = self._at - pending + error.start
            line = self._lines_before(at) + 1
            raise VectorUnreadableError(
                f"Byte {at:,} of {self._file.path.name} (line {line:,}) is not {self._file.encoding}: {error.reason}. "
                f"Give the 'encoding' the file has, or repair it"
            ) from error
        self._at += len(raw)
        if self._file.encoding == _UTF8:
            return raw
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise VectorUnreadableError(
                f"{self._file.path.name} has half a character before byte {self._at:,}, which is no text. "
                f"Give the 'encoding' the file has, or repair it"
            ) from error


def look_at(path: Path, *, encoding: str | None) -> TextFile:
    """Tell how a text file is read.

    Args:
        path: the file.
        encoding: what somebody says it is; ``None``: a byte order mark, UTF-8, UTF-16, or a guess, which is noted.

    Raises:
        VectorRefusedError: the file is empty (``EMPTY_FILE``), or there is no such encoding (``ENCODING``).
        VectorUnreadableError: its beginning is not of the encoding given.
    """
    with path.open("rb") as stream:
        head = stream.read(SAMPLE_BYTES)
    if not head:
        raise VectorRefusedError(f"{path.name} is empty", code="EMPTY_FILE")
    mark, marked = next(((len(mark), name) for mark, name in _MARKS if head.startswith(mark)), (0, None))
    notes: tuple[str, ...] = ()
    if encoding is not None:
        name = named(encoding)
        if name == "utf-16":
            name = marked if marked is not None and marked != _UTF8 else "utf-16-le"
        mark = mark if name == marked else 0
    elif marked is not None:
        name = marked
    else:
        name = guess(head)
        if name != _UTF8:
            notes = (f"The encoding was guessed to be {name}",)
    file = TextFile(path=path, encoding=name, mark=mark, sample=b"", notes=notes)
    with file.open() as text:
        sample = text.read(SAMPLE_BYTES)
    return TextFile(path=path, encoding=name, mark=mark, sample=sample, notes=notes)


def named(encoding: str) -> str:
    """The one name of an encoding that somebody gave.

    Raises:
        VectorRefusedError: ``ENCODING``: there is none of that name.
    """
    try:
        found = codecs.lookup(encoding)
    except (LookupError, ValueError):
        found = None
    if found is None or not getattr(found, "_is_text_encoding", True):  # such as zip, which makes much of little
        raise VectorRefusedError(
            f"There is no encoding {encoding!r}; give one that Python knows, such as utf-8, cp1252 or gbk",
            code="ENCODING",
        )
    name = found.name
    return _UTF8 if name == "utf-8-sig" else name


def guess(head: bytes) -> str:
    """Which encoding some bytes are likely to be of, as Python names it."""
    first, second = head[::2].count(0), head[1::2].count(0)
    if max(first, second) > _FEW * len(head) and not min(first, second):
        return "utf-16-le" if second else "utf-16-be"
    try:
        codecs.getincrementaldecoder(_UTF8)().decode(head)
    except UnicodeDecodeError:
        return _guess_legacy(head)
    return _UTF8


def _guess_legacy(head: bytes) -> str:
    """Tell a legacy encoding from the lines that have other bytes than ASCII."""
    lines = (line for line in head.splitlines() if not line.isascii())
    telling = b"\n".join(lines)[:_TELLING_BYTES]
    alone = len(re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x40-\x7e\x80-\xff])|"
                           rb"(?<=[a-zA-Z])[\x80-\xff](?=[a-z])", telling))  # fmt: skip
    western = alone > len(re.findall(rb"[\x80-\xff]", telling)) / 2
    found: Any = charset_normalizer.from_bytes(
        telling, cp_isolation=list(_WESTERN if western else _GUESSED), enable_fallback=False
    ).best()
    if found is None:
        return "cp1252"
    name: str = found.encoding
    if name == "euc_kr" and re.search("[\u4e00-\u9fff]", telling.decode(name, "replace")):
        name = "gb18030"  # Korean is seldom written with Chinese characters
    return "cp1252" if _same_text(telling, name) else codecs.lookup(name).name


def _same_text(telling: bytes, name: str) -> bool:
    """Whether an encoding reads it just as cp1252 does, which is then the likelier one."""
    return telling.decode(name, "replace") == telling.decode("cp1252", "replace")
