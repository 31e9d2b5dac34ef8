"""The structure of GeoJSON text: where its features begin and end, and what stands around them.

What belongs here: telling a FeatureCollection from lines, from a sequence and from what is no GeoJSON, and cutting
features out of text of any length in bounded memory, by the depth of brackets outside strings.  What does not: what
features say (``geojson_layers``); text between brackets is not checked here, but by whoever parses it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.text_files import TextFile, Utf8Stream

__all__ = ["Chunk", "GeoJsonText"]

_BLOCK = 4 * 1024 * 1024
_DEEPEST = 100
_MEMBER_BYTES = 1024 * 1024
_MEMBERS_NAMED = 10
_TAIL = 64 * 1024
_GEOMETRIES = {
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection",
}  # fmt: skip
_ESRI = {"geometryType", "esriGeometryType", "fieldAliases", "displayFieldName", "spatialReference"}
_TOPOLOGY = {"arcs", "objects"}

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPEN, _CLOSE = frozenset(b"{["), frozenset(b"}]")
_STEPS = np.zeros(256, np.int8)
_STEPS[list(_OPEN)] = 1
_STEPS[list(_CLOSE)] = -1
_TELLING = (_STEPS != 0) | (np.arange(256) == _QUOTE)
_SPACES = np.isin(np.arange(256), list(b" \t\r\n"))
_BETWEEN_LINES = np.isin(np.arange(256), list(b" \t\r\n\x1e"))
_SPACE_TEXT = re.compile(rb"[ \t\r\n]*")
_RECORD_SPACE = re.compile(rb"[ \t\r\n\x1e]*")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"')
_LITERAL = re.compile(rb"[-+.\w]+")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some whole features, with nothing but spaces between them."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    """Byte of the first brace of each feature."""
    ends: NDArray[np.int64]
    """Byte after the last brace of each."""
    first: int
    """Number of the first feature, from 0."""

    def __len__(self) -> int:
        """How many features."""
        return len(self.starts)

    def text(self, rows: "NDArray[np.int64] | None" = None) -> bytes:
        """The features, or some of them, one after the other."""
        if rows is None:
            return self.data.tobytes()
        return b"\n".join(self.feature(int(row)) for row in rows)

    def feature(self, row: int) -> bytes:
        """One feature."""
        return self.data[self.starts[row] : self.ends[row]].tobytes()


class _Scanner:
    """Text read from left to right, some of it at a time."""

    def __init__(self, stream: Utf8Stream, name: str) -> None:
        self._stream = stream
        self.name = name
        self.data = b""
        self.at = 0
        self._before = 0
        self.ended = False

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"byte {self._before + self.at:,} of {self.name}"

    def fill(self, size: int) -> None:
        """Have at least so many bytes ahead, if there are."""
        parts = [self.data[self.at :]]
        have = len(parts[0])
        self._before += self.at
        self.at = 0
        while have < size and not self.ended:
            part = self._stream.read(max(size - have, _BLOCK // 4))
            self.ended = not part
            parts.append(part)
            have += len(part)
        self.data = b"".join(parts)

    def skip(self, what: "re.Pattern[bytes]" = _SPACE_TEXT) -> None:
        """Go over spaces."""
        while True:
            found = what.match(self.data, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.data) or self.ended:
                return
            self.fill(_BLOCK)

    def peek(self) -> bytes:
        """The next byte that is no space; nothing at the end."""
        self.skip()
        return self.data[self.at : self.at + 1]

    def take(self, wanted: bytes) -> bool:
        """Go over a byte, if it is the next."""
        if self.peek() != wanted:
            return False
        self.at += 1
        return True

    def expect(self, wanted: bytes) -> None:
        """Go over a byte, which must be the next."""
        if not self.take(wanted):
            found = self.peek()
            what = f"{found.decode(errors='replace')!r}" if found else "the end"
            raise VectorUnreadableError(f"At {self.place} is {what} instead of {wanted.decode()!r}; it is no JSON")

    def word(self) -> Any:
        """Read a string, number or literal."""
        pattern = _STRING if self.peek() == b'"' else _LITERAL
        found = pattern.match(self.data, self.at)
        if (found is None or found.end() == len(self.data)) and not self.ended:  # it may go on
            self.fill(_MEMBER_BYTES)
            found = pattern.match(self.data, self.at)
        if found is None:
            raise VectorUnreadableError(f"At {self.place} is no JSON, or a text longer than 1 MB")
        self.at = found.end()
        return self.parsed(found.group())

    def parsed(self, text: bytes) -> Any:
        """What JSON text says."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise VectorUnreadableError(f"Before {self.place} is no JSON: {error}") from error

    def value(self) -> Any:
        """Read any value; an object or list longer than 1 MB is gone over, and gives ``None``."""
        if self.peek() not in (b"{", b"["):
            return self.word()
        kept = bytearray()
        for part in self.enclosed():
            if len(kept) <= _MEMBER_BYTES:
                kept += part
        return self.parsed(bytes(kept)) if len(kept) <= _MEMBER_BYTES else None

    def enclosed(self) -> Iterator[bytes]:
        """Go over an object or list, which must be the next, a part at a time."""
        depth, inside = 0, False
        while True:
            self.fill(_BLOCK)
            scanned = _scan(self.data, inside=inside)
            if not scanned.end:
                raise VectorUnreadableError(f"{self.name} is cut off or damaged: at {self.place} ends what has no end")
            depths = depth + scanned.depths
            self.watch(depths)
            done = np.flatnonzero(depths == 0)
            end = int(scanned.places[done[0]]) + 1 if len(done) else scanned.end
            part = self.data[:end]
            self.at = end
            yield part
            if len(done):
                return
            depth = int(depths[-1]) if len(depths) else depth
            inside = scanned.inside

    def watch(self, depths: NDArray[np.int32]) -> None:
        """Refuse what is nested so deep that reading it would need too deep a stack."""
        if len(depths) and int(depths.max()) > _DEEPEST:
            raise VectorUnreadableError(f"After {self.place} are more than {_DEEPEST} brackets within each other")


@dataclass(frozen=True, kw_only=True)
class _Scanned:
    """Brackets outside strings."""

    places: NDArray[np.int64]
    depths: NDArray[np.int32]
    """How many are open after each."""
    inside: bool
    """Whether the text ends within a string."""
    end: int
    """How much of the text was looked at: a backslash at its end belongs to what follows."""


def _scan(data: bytes, *, inside: bool = False) -> _Scanned:
    array = np.frombuffer(data, np.uint8)
    end = len(array)
    while end and array[end - 1] == _BACKSLASH:
        end -= 1
    array = array[:end]
    places = np.flatnonzero(_TELLING[array])
    letters = array[places]
    quotes = letters == _QUOTE
    if b"\\" in data:
        quotes &= ~_escaped(np.flatnonzero(array == _BACKSLASH), places)
    within = (np.cumsum(quotes, dtype=np.int32) + inside) & 1
    outside = (within == 0) & (letters != _QUOTE)
    brackets = places[outside]
    depths = np.cumsum(_STEPS[letters[outside]], dtype=np.int32)
    return _Scanned(places=brackets, depths=depths, inside=bool(within[-1]) if len(within) else inside, end=end)


def _escaped(slashes: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an odd number of backslashes stands before each place."""
    if not len(slashes):
        return np.zeros(len(places), bool)
    begins = np.concatenate([[True], np.diff(slashes) != 1])
    run_starts = slashes[begins][np.cumsum(begins) - 1]
    before = np.searchsorted(slashes, places) - 1
    at = np.maximum(before, 0)
    adjacent = (before >= 0) & (slashes[at] == places - 1)
    return np.asarray(adjacent & ((slashes[at] - run_starts[at]) % 2 == 0), dtype=bool)


# --- the document ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class GeoJsonText:
    """A GeoJSON file, read once for what it is and again for its features."""

    text: TextFile
    max_feature_bytes: int
    collection: bool = field(init=False)
    """Whether it is a FeatureCollection, not features one after the other."""
    bare: bool = field(init=False, default=False)
    """Whether it is a geometry without a feature."""
    members: dict[str, Any] = field(init=False)
    """Members of the collection other than its features, as far as they have been read."""

    def __post_init__(self) -> None:
        self.members = {}
        with self.text.open() as stream:
            self._begin(_Scanner(stream, self.text.path.name))
        if self.collection and "crs" not in self.members and self._names_crs_late():
            for _ in self.chunks():
                pass

    @property
    def notes(self) -> tuple[str, ...]:
        """Members that nobody reads."""
        foreign = [name for name in self.members if name not in ("type", "crs", "name", "bbox", "features")]
        if not foreign:
            return ()
        shown = ", ".join(repr(name[:63]) for name in foreign[:_MEMBERS_NAMED])
        return (
            f"Members of the collection that are not read: {shown}{', …' if len(foreign) > _MEMBERS_NAMED else ''}",
        )

    def chunks(self) -> Iterator[Chunk]:
        """Stream the features, about 4 MB of text at a time.

        Raises:
            VectorUnreadableError: the text is cut off, has something else among or after its features, or one that
                is too large.
        """
        with self.text.open() as stream:
            scanner = _Scanner(stream, self.text.path.name)
            if self.collection:
                self._begin(scanner)
                yield from self._features(scanner)
                self._finish(scanner)
            else:
                yield from self._features(scanner)

    # --- what it is

    def _begin(self, scanner: _Scanner) -> None:
        """Read up to the first feature of a collection; or see that it is none."""
        scanner.skip(_RECORD_SPACE)
        if scanner.peek() != b"{":
            what = {b"[": "a JSON array", b"": "nothing but spaces"}.get(scanner.peek(), "no JSON")
            raise self._refused(what)
        scanner.expect(b"{")
        first = True
        while not scanner.take(b"}"):
            if not first:
                scanner.expect(b",")
            first = False
            if self._member(scanner):
                return
        raise self._refused("a JSON object")

    def _member(self, scanner: _Scanner) -> bool:
        """Read a member of the first object; says whether that tells what the file is."""
        if scanner.peek() != b'"':
            scanner.expect(b'"')
        key = scanner.word()
        scanner.expect(b":")
        if key in _ESRI:
            raise self._refused("ESRI JSON", "convert it with 'ogr2ogr -f GeoJSON'")
        if key in _TOPOLOGY:
            raise self._refused("TopoJSON", "convert it with 'topo2geo' or mapshaper")
        if key == "features" and scanner.peek() == b"[":
            scanner.at += 1
            self.collection = True
            return True
        if key in ("geometry", "properties", "coordinates", "geometries"):
            self.collection, self.bare = False, key in ("coordinates", "geometries")
            return True
        value = scanner.value()
        if key != "type":
            self.members[key] = value
            return False
        return self._type(value)

    def _type(self, value: Any) -> bool:
        if value == "FeatureCollection":
            self.members["type"] = value
            return False
        if value == "Topology":
            raise self._refused("TopoJSON", "convert it with 'topo2geo' or mapshaper")
        if value != "Feature" and value not in _GEOMETRIES:
            raise self._refused(f"JSON of type {str(value)[:40]!r}")
        self.collection, self.bare = False, value in _GEOMETRIES
        return True

    def _refused(self, what: str, do: str = "give a FeatureCollection, or a feature a line") -> VectorRefusedError:
        return VectorRefusedError(f"{self.text.path.name} is {what}, not GeoJSON; {do}", code="NOT_GEOJSON")

    def _names_crs_late(self) -> bool:
        with self.text.path.open("rb") as stream:
            stream.seek(max(self.text.path.stat().st_size - _TAIL, 0))
            return '"crs"'.encode(self.text.encoding) in stream.read()

    def _finish(self, scanner: _Scanner) -> None:
        """Read what comes after the features of a collection."""
        while scanner.take(b","):
            if scanner.peek() != b'"':
                scanner.expect(b'"')
            key = scanner.word()
            scanner.expect(b":")
            if key == "features":
                raise VectorUnreadableError(f"At {scanner.place} are features a second time; it is no GeoJSON")
            self.members[key] = scanner.value()
        scanner.expect(b"}")
        if scanner.peek():
            raise VectorUnreadableError(f"At {scanner.place} is more, after the end of the collection; remove it")
        if self.members.get("type") != "FeatureCollection":
            raise self._refused("a JSON object with features and no type FeatureCollection")

    # --- its features

    def _features(self, scanner: _Scanner) -> Iterator[Chunk]:
        count = 0
        while True:
            scanner.fill(_BLOCK)
            if self._ends(scanner):
                return
            chunk = self._cut(scanner, count) or self._large(scanner, count)
            count += len(chunk)
            yield chunk

    def _ends(self, scanner: _Scanner) -> bool:
        if not self.collection:
            scanner.skip(_RECORD_SPACE)
            return not scanner.peek()
        return scanner.take(b"]")

    def _large(self, scanner: _Scanner, count: int) -> Chunk:
        """Cut out one feature that is longer than a block."""
        if self.collection and count:
            scanner.expect(b",")
        if scanner.peek() != b"{":
            self._must_end(scanner, scanner.at, count)
        data = bytearray()
        for part in scanner.enclosed():
            data += part
            if len(data) > self.max_feature_bytes:
                raise VectorUnreadableError(
                    f"Feature {count + 1:,} of {scanner.name} is larger than {self.max_feature_bytes >> 20} MB; split "
                    f"it, or raise the limit"
                )
        one = np.zeros(1, np.int64)
        return Chunk(data=np.frombuffer(data, np.uint8), starts=one, ends=one + len(data), first=count)

    def _cut(self, scanner: _Scanner, count: int) -> Chunk | None:
        """Cut out the features of which there is all; ``None``: there is not all of one."""
        begin = scanner.at
        text = scanner.data[begin:] if begin else scanner.data
        scanned = _scan(text)
        depths, places = scanned.depths, scanned.places
        below = np.flatnonzero(depths < 0)
        if len(below):
            depths, places = depths[: below[0]], places[: below[0]]
        scanner.watch(depths)
        ends = places[depths == 0] + 1
        before = np.concatenate([[0], depths[:-1]]) if len(depths) else depths
        starts = places[(depths == 1) & (before == 0)][: len(ends)]
        data = np.frombuffer(bytearray(text), np.uint8)
        kept = self._well_apart(data, starts, ends, first=count == 0)
        if kept < len(ends) or (len(below) and not kept):
            self._must_end(scanner, begin + (int(ends[kept - 1]) if kept else 0), count + kept)
        if not kept:
            return None
        used = int(ends[kept - 1])
        scanner.at += used
        if used > self.max_feature_bytes and int((ends[:kept] - starts[:kept]).max()) > self.max_feature_bytes:
            raise VectorUnreadableError(
                f"A feature after number {count:,} of {scanner.name} is larger than {self.max_feature_bytes >> 20} MB"
            )
        return Chunk(data=data[:used], starts=starts[:kept], ends=ends[:kept], first=count)

    def _well_apart(
        self, array: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], *, first: bool
    ) -> int:
        """Blank what separates features, and say how many of them are rightly separated."""
        if not len(starts):
            return 0
        begins = np.concatenate([[0], ends[:-1]])
        sizes = starts - begins
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        where = np.repeat(begins - bounds[:-1], sizes) + np.arange(bounds[-1])
        letters = array[where]
        commas = letters == _COMMA
        known = (_SPACES[letters] | commas) if self.collection else _BETWEEN_LINES[letters]
        sums = np.concatenate([[0], np.cumsum(commas)])[bounds]
        strange = np.concatenate([[0], np.cumsum(~known)])[bounds]
        wanted = np.full(len(starts), int(self.collection))
        if first:
            wanted[0] = 0
        good = (np.diff(sums) == wanted) & (np.diff(strange) == 0) & (array[starts] == ord("{"))
        array[where] = ord(" ")
        return len(good) if good.all() else int(np.argmin(good))

    def _must_end(self, scanner: _Scanner, at: int, number: int) -> None:
        """See that the features end where something else follows."""
        found = _SPACE_TEXT.match(scanner.data, at)
        after = found.end() if found else at
        if self.collection and number and scanner.data[after : after + 1] == b"]":
            return
        scanner.at = after
        raise VectorUnreadableError(f"At {scanner.place}, after feature {number:,}, is something that is no feature")
