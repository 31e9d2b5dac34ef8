"""Names of things: job ids, task ids, partition keys and mapping keys.

What belongs here: pure functions from one name to another.  Job-id formulas of single workflows are in their
``generate_job_id``.

Dagster checks nothing about dynamic partition keys (an empty key, a newline and ``...`` are all accepted and
break later: ``...`` is its range separator, ``|`` its dimension separator, ``,`` separates keys in lists), so our
own codec does.  A key is the plain name with each troublesome character percent-encoded: reversible, readable,
and equal to the name for ordinary names.
"""

import hashlib
import re
import unicodedata
from typing import NewType

from geo_assets.errors import ParameterError

PartitionKey = NewType("PartitionKey", str)

JOB_ID_LENGTH = 64
MAX_PARTITION_KEY = 2048
"""Longest key in UTF-8 bytes: an index row of PostgreSQL ends at 2,704. A blob name has at most 1,024 characters."""

# '%' so that decoding is unambiguous; the rest because Dagster's lists, dimensions, ranges and key filters use them
_ENCODED = frozenset('%,|[]"\\*')
_ORDINARY = re.compile(r"[A-Za-z0-9_/-]+(?:\.[A-Za-z0-9_/-]+)*")
"""Names that are their own key; most are, and this check is many times faster than the loop."""
_PERCENT = re.compile(r"%([0-9A-F]{2})")


def check_job_id(job_id: str) -> str:
    """Return the job id in lower case.

    Raises:
        ParameterError: it is not 64 hexadecimal digits (the original's two messages).
    """
    if len(job_id) != JOB_ID_LENGTH:
        msg = f"job_id must be 64 characters (SHA256 hash), got {len(job_id)}"
        raise ParameterError(msg)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", job_id):
        msg = "job_id must be a valid hexadecimal hash"
        raise ParameterError(msg)
    return job_id.lower()


def task_id(job_id: str, stage: int, unit: str) -> str:
    """The original's task id: first 16 hex digits of SHA-256 over ``{job_id}|s{stage}|{unit}``."""
    return hashlib.sha256(f"{job_id}|s{stage}|{unit}".encode()).hexdigest()[:16]


def predecessor_task_id(job_id: str, stage: int, unit: str) -> str | None:
    """Task id of the same unit in the stage before; ``None`` at stage 1."""
    return task_id(job_id, stage - 1, unit) if stage > 1 else None


def encode_partition_key(name: str) -> PartitionKey:
    """Turn any name (container, ``container/blob``, ``schema.table``) into a partition key Dagster can carry.

    Two different names never share a key; :func:`decode_partition_key` gives the name back.

    Raises:
        ParameterError: the name is empty, too long, or not valid text.
    """
    if not name:
        msg = "a partition key cannot be empty; name the container, blob or table"
        raise ParameterError(msg)
    if len(name) <= MAX_PARTITION_KEY and _ORDINARY.fullmatch(name):
        return PartitionKey(name)
    parts: list[str] = []
    plain_before = ""  # the character before, if it stands in the key as it is
    last = len(name) - 1
    for position, character in enumerate(name):
        # a blank at the edge does not survive a text field
        edge_space = character.isspace() and position in (0, last)
        if character in _ENCODED or edge_space or _is_unsafe(character) or _joins(plain_before, character):
            parts.append(_percent_encode(character, name))
            plain_before = ""
        else:
            parts.append(character)
            plain_before = character
    key = "".join(parts)
    size = len(key.encode())
    if size > MAX_PARTITION_KEY:
        msg = f"a partition key of {size} bytes is too long (at most {MAX_PARTITION_KEY}): {key[:80]}…"
        raise ParameterError(msg)
    return PartitionKey(key)


def decode_partition_key(key: str) -> str:
    """Give back the name :func:`encode_partition_key` made ``key`` from.

    Raises:
        ParameterError: ``key`` is not one the codec makes (typed by hand in the Dagster UI, for instance).
    """
    pieces: list[bytes] = []
    end = 0
    for match in _PERCENT.finditer(key):
        pieces.append(_text_bytes(key[end : match.start()]))
        pieces.append(bytes([int(match.group(1), 16)]))
        end = match.end()
    pieces.append(_text_bytes(key[end:]))
    try:
        name = b"".join(pieces).decode()
    except UnicodeDecodeError:
        name = ""
    if not name or encode_partition_key(name) != key:
        msg = (
            f"'{ascii(key)[1:-1]}' is not a valid partition key: characters such as , | [ ] % and control"
            " characters are percent-encoded (submit the job by its parameters to get the right key)"
        )
        raise ParameterError(msg)
    return name


def partition_keys_of(text: str) -> tuple[str, ...]:
    """The keys that somebody may mean by a text: that of the name it is, and the text if it is a key itself.

    Raises:
        ParameterError: it is neither.
    """
    key = encode_partition_key(text)
    try:
        decode_partition_key(text)
    except ParameterError:
        return (key,)
    return tuple(dict.fromkeys((key, text)))


def key_prefix(beginning: str) -> str:
    """The beginning of the keys of all names that begin so.

    Raises:
        ParameterError: no name begins so.
    """
    return encode_partition_key(f"{beginning}x")[:-1]  # what ends the beginning does not end the name


def mapping_key(prefix: str, number: int) -> str:
    """Key of a dynamic output: letters, digits and underscores only, in order when sorted."""
    return f"{prefix}_{number:06d}"


def _percent_encode(character: str, name: str) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in character.encode())
    except UnicodeEncodeError:
        msg = f"a partition key cannot hold {name[:80]!a}: it is not valid text (a lone surrogate)"
        raise ParameterError(msg) from None


def _is_unsafe(character: str) -> bool:
    # Cc, Cf, Cs, Zl, Zp: control, format (right-to-left marks), surrogates, line and paragraph separators
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or (
        # what NFC would change is encoded, so that unicode twins keep two different, stable keys
        not character.isascii()
        and (unicodedata.combining(character) != 0 or not unicodedata.is_normalized("NFC", character))
    )


def _joins(before: str, character: str) -> bool:
    """Whether a character may not follow another: '..' would grow into the range separator, and NFC merges some."""
    if character.isascii() or not before:
        return character == "." == before
    # Hangul vowels and some Indic ones merge with the letter before them without being combining marks
    return not unicodedata.is_normalized("NFC", before + character)


def _text_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return b"\xff"
