"""What a source remembers: every statement on ``source_entries`` and ``source_looks``.

What belongs here: the whole of it, :class:`Register`, which is made of four parts (``register_looks``,
``register_turns``, ``register_gone``, ``register_edits``).  What does not: what is compared with it (``look``), which
entries become jobs (``turn``), and what is said of those that are gone (``removal``).

An entry is a blob or a dataset.  It is ``waiting`` from when a version of it was first seen until this version has
become a job (``queued``) or cannot become one (``refused``), and ``gone`` when a look no longer found it.  Each change
of an entry takes the next number of its source's ``sequence``.  That number is a fence as well: a look that another
one overtook writes nothing.
"""

from geo_assets.sources.register_edits import Edits
from geo_assets.sources.register_gone import Gone
from geo_assets.sources.register_looks import FRAME, Looks, forget, remembered
from geo_assets.sources.register_rows import (
    AGAIN,
    BATCH,
    ELSEWHERE,
    FOLDER,
    OUTDATED,
    PARTS,
    PROBLEM,
    SETTLED,
    TAKEN_BACK,
    TOLD,
    WHAT,
    Entry,
    EntryState,
    LastLook,
    Mark,
    Presence,
    Seen,
)
from geo_assets.sources.register_turns import Turns

__all__ = [
    "AGAIN",
    "BATCH",
    "ELSEWHERE",
    "FOLDER",
    "FRAME",
    "OUTDATED",
    "PARTS",
    "PROBLEM",
    "SETTLED",
    "TAKEN_BACK",
    "TOLD",
    "WHAT",
    "Entry",
    "EntryState",
    "LastLook",
    "Mark",
    "Presence",
    "Register",
    "Seen",
    "forget",
    "remembered",
]


class Register(Looks, Turns, Gone, Edits):
    """The rows of one source. Every method is a transaction, but for those that are given a connection."""
