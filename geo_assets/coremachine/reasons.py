"""What a thousand failures have in common: reasons without what is particular to one of them.

What belongs here: :func:`group_of`, which everything that counts failures by reason uses.  What does not: counting
them (``ledger``), and wording reasons, which whoever fails does.

The patterns take a time that grows with the length of the text only, as texts come out of files of strangers; of a
long text, the beginning counts.
"""

import re
from functools import lru_cache

__all__ = ["NO_REASON", "group_of"]

NO_REASON = "no reason was given"
_READ = 1000
"""Characters of a reason that are looked at."""
_KEPT = 200
"""Longest group."""
_NAME, _NUMBER = "…", "N"

_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"<>]+", re.IGNORECASE)
_QUOTED = (
    # an apostrophe within a word opens and ends nothing
    re.compile(r"(?<!\w)b?'(?:[^'\\]|\\.|'(?=\w))*'(?!\w)"),
    re.compile(r'"(?:[^"\\]|\\.)*"'),
    re.compile(r"`[^`]*`"),
    re.compile(r"[“„«][^”“»]*[”“»]"),
)
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?)?(?:\s?(?:Z|UTC|[+-]\d\d:?\d\d)\b)?")
_PATH = re.compile(r"[^\s'\"(),;:=]*[^\s'\"(),;:=/]/[^\s'\"(),;=/][^\s'\"(),;=]*|(?<![\w/])/[^\s'\"(),;=]+")
_FILE = re.compile(r"(?<![\w.…-])[\w%+~@#-][\w%+~@#.-]*\.[A-Za-z][A-Za-z0-9]{1,7}\b(?![\w(])")
_CODE = r"(?<!\w)[A-Z][A-Z]*(?:_[A-Z0-9]+)+(?!\w)"
"""A code such as ``FILE_UNREADABLE`` or ``HTTP_404``: it stays as it is."""
_WORD = (
    r"(?<!\w)(?:JPEG[ -]?2000|HDF-?[45]|NetCDF-?[34]|DTED[012]|EPSG:\d{4,6}|ESRI:\d{4,6}|(?:OGC:)?CRS84"
    r"|WGS[ _]?(?:84|72)|NAD[ _]?(?:27|83)|ETRS[ _]?89|UTM zone \d\d?[NS]?|GRS[ _]?(?:67|80)"
    r"|u?int(?:8|16|32|64)|float(?:16|32|64)|complex(?:64|128)|UTF-(?:8|16|32)|Latin-?1|ISO[ -]8859-\d\d?)(?!\w)"
)
"""A word of the trade that has digits and names nothing of one file: it stays as it is."""
_SLASHED = frozenset({"Arc/Info", "ARC/INFO", "GDAL/OGR", "and/or"})
"""What is written like a path and is none."""
_HEX = r"(?<!\w)(?:0[xX][0-9A-Fa-f]+|(?=[\w-]*\d)[0-9a-fA-F]{6,}(?:-[0-9a-fA-F]{2,})*)(?!\w)"
_BYTES = r"(?<!\w)[0-9a-f]{2}(?: [0-9a-f]{2}){3,}(?!\w)"
_AMOUNT = r"[-+]?\d(?:[\d.,_]*\d)?(?:[eE][-+]?\d+)?%?"
_PIECE = re.compile(f"({_CODE}|{_WORD})|({_HEX}|{_BYTES})|{_AMOUNT}")
_REPEATED = re.compile(r"(…|\bN)(?:(?:,| and|, and| or|:|\.\.\.)? ?\1(?!\w))+")
_MORE = re.compile(r"…,? and N (?:more|others)")


@lru_cache(maxsize=4096)
def group_of(reason: str | None) -> str:
    """The reason without quoted names, paths, file names, URLs, moments, ids and numbers.

    What stands for a name is ``…``, for a number ``N``; error codes in capitals and words of the trade stay.  The
    group of a group is itself.  Only the first line counts, and of it the first 200 characters of what is left.

    Args:
        reason: of a job or task; none is a group of its own.
    """
    lines = (reason or "")[:_READ].strip().splitlines()
    text = " ".join(lines[0].split()) if lines else ""
    before = None
    while text != before:  # taking one thing out may join two others; each turn leaves fewer digits or a shorter text
        before, text = text, _stripped(text)
    return text or NO_REASON


def _stripped(text: str) -> str:
    text = _URL.sub(_NAME, text)
    text = _MOMENT.sub(_NUMBER, text)
    for pattern in _QUOTED:
        text = pattern.sub(_NAME, text)
    text = _FILE.sub(_NAME, _PATH.sub(_path, text))
    text = _PIECE.sub(_piece, text)
    text = _REPEATED.sub(r"\1", _MORE.sub(_NAME, text))
    return text if len(text) <= _KEPT else f"{text[: _KEPT - 1].rstrip()}{_NAME}"


def _path(found: re.Match[str]) -> str:
    return found[0] if found[0].rstrip(".") in _SLASHED else _NAME


def _piece(found: re.Match[str]) -> str:
    fixed, digits = found.groups()
    if fixed:
        return str(fixed)
    return _NAME if digits else _NUMBER
