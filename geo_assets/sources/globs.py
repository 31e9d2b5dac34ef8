"""Globs of blob names: ``**/*.tif``.

What belongs here: what a glob means, as a regular expression that polars runs over a million names in a blink, and
whether two globs, or a glob and a prefix, can be told apart.  What does not: which globs a source has (``source``).

``*`` and ``?`` stand for any characters of one part of a name, ``[a-z]`` and ``[!a-z]`` for one character, and ``**``
alone between slashes for any number of folders, none as well.  A glob without a slash is about the last part of a name,
in whatever folder; one with a slash about the whole name.  Capitals and small letters are the same, as they are to
most who name files: ``*.tif`` takes ``A.TIF``.
"""

import re
from collections.abc import Iterable, Sequence

__all__ = ["are_disjoint", "can_begin_with", "glob_pattern", "globs_pattern", "take_all_below"]

_MOST_CHARACTERS = 500
_WILD = re.compile(r"[*?\[]")
_REFUSED = (
    (re.compile(r"[\x00-\x1f\x7f]"), "holds a control character, as no name does"),
    (re.compile(r"(?<!\[)[{}]"), "has braces: write a glob for each alternative, or [{] for the character itself"),
    (re.compile(r",\s*\*"), "has a comma before *: write a list of globs, or [,] for the character itself"),
    (
        re.compile(r"^/|//|/$"),
        "has a slash at an end, or two in a row, as no name has: for a folder write folder/**",
    ),
)


def globs_pattern(globs: Iterable[str]) -> str:
    """A regular expression, in the dialect that polars and Python share, for names that one of the globs takes.

    Raises:
        ValueError: one of them is not understood; says which and what to write.
    """
    return rf"(?is)^(?:{'|'.join(glob_pattern(glob) for glob in globs)})$"


def glob_pattern(glob: str) -> str:
    """The same for one glob, without anchors and flags.

    Raises:
        ValueError: it is not understood; says what to write.
    """
    if reason := _refused(glob):
        raise ValueError(f"the glob '{glob[:80]}' {reason}")
    parts = glob.split("/")
    if len(parts) == 1 and glob != "**":
        parts = ["**", glob]
    pieces: list[str] = []
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:[^/]+/)*")
        else:
            pieces.append(_part_pattern(glob, part) + ("" if last else "/"))
    return "".join(pieces)


def _refused(glob: str) -> str | None:
    if not glob.strip():
        return "is empty: leave it out"
    if len(glob) > _MOST_CHARACTERS:
        return f"has {len(glob)} characters, more than {_MOST_CHARACTERS}: shorten it"
    return next((reason for pattern, reason in _REFUSED if pattern.search(glob)), None)


def _part_pattern(glob: str, part: str) -> str:
    pieces: list[str] = []
    position = 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            if part.startswith("*", position):
                raise ValueError(f"the glob '{glob[:80]}' has ** within a part: it stands alone between slashes")
            pieces.append("[^/]*")
        elif character == "?":
            pieces.append("[^/]")
        elif character == "[":
            position, found = _set_pattern(glob, part, position)
            pieces.append(found)
        else:
            pieces.append(_escaped(character))
    return "".join(pieces)


def _set_pattern(glob: str, part: str, start: int) -> tuple[int, str]:
    """A set from behind its bracket: where it ends, and its pattern."""
    negated = part.startswith(("!", "^"), start)
    first = start + negated
    end = part.find("]", first + 1)  # a bracket that comes first is one of the characters
    if end < 0:
        raise ValueError(f"the glob '{glob[:80]}' has a [ that no ] closes: write [[] for the character itself")
    ranges: list[str] = []
    inside = part[first:end]
    position = 0
    while position < len(inside):
        low = high = inside[position]
        if inside[position + 1 : position + 2] == "-" and position + 2 < len(inside):
            high = inside[position + 2]
            position += 2
        position += 1
        if low > high:
            raise ValueError(f"the glob '{glob[:80]}' has the range {low}-{high}, which is empty: turn it round")
        ranges.append(_escaped(low) if low == high else f"{_escaped(low)}-{_escaped(high)}")
    return end + 1, f"[{'^/' if negated else ''}{''.join(ranges)}]"


def _escaped(character: str) -> str:
    # whatever is no letter or digit may be escaped in both dialects, and must be in sets of Rust's ("&&", "--", "~~")
    return f"\\{character}" if character.isascii() and not character.isalnum() and character != "_" else character


def can_begin_with(glob: str, prefix: str) -> bool:
    """Whether a name that a glob takes may start with this text, as far as the glob's fixed beginning tells."""
    if "/" not in glob:
        return True  # it is about the last part of a name
    if "**" not in glob and prefix.count("/") > glob.count("/"):
        return False
    head, start = _ends(glob.casefold())[0], prefix.casefold()
    return head.startswith(start) or (start.startswith(head) and _WILD.search(glob) is not None)


def take_all_below(globs: Iterable[str], folder: str) -> bool:
    """Whether it is plain that one of the globs takes every name below a folder, which is given with its slash."""
    # what takes the folder's own name by ** at its end takes whatever follows
    whole = [glob for glob in globs if glob == "**" or glob.endswith("/**")]
    return bool(whole) and re.search(globs_pattern(whole), folder) is not None


def are_disjoint(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether it is plain that no name is taken by a glob of both; they begin or end with different text."""
    return all(_begin_or_end_apart(one.casefold(), other.casefold()) for one in some for other in others)


def _begin_or_end_apart(one: str, other: str) -> bool:
    heads, tails = zip(*(_ends(glob) for glob in (one, other)), strict=True)
    return not (
        (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0]))
        and (tails[0].endswith(tails[1]) or tails[1].endswith(tails[0]))
    )


def _ends(glob: str) -> tuple[str, str]:
    """What the names a glob takes begin and end with."""
    wild = [found.start() for found in _WILD.finditer(glob)]
    if not wild:
        return (glob if "/" in glob else "", glob)
    # the closing bracket of a set may come late; what follows it is text
    tail = re.split(r"[*?\]]", glob)[-1]
    return (glob[: wild[0]] if "/" in glob else "", tail)
