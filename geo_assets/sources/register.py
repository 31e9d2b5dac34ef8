"""What a source remembers: every statement on ``source_entries`` and ``source_looks``.

What belongs here: the whole of it, :class:`Register`, which is made of three parts (``register_looks``,
``register_turns``, ``register_gone``).  What does not: what is compared with it (``look``), which entries become jobs
(``turn``), and what is said of those that are gone (``removal``).

An entry is a blob or a dataset.  It is ``waiting`` from when a version of it was first seen until this version has
become a job (``queued``) or cannot become one (``refused``), and ``gone`` when a look no longer found it.  Each change
of an entry takes the next number of its source's ``sequence``.  That number is a fence as well: a look that another
one overtook writes nothing.
"""

from geo_assets.sources.register_gone import Gone
from geo_assets.sources.register_looks import FRAME, Looks, forget, remembered
from geo_assets.sources.register_rows import (
    BATCH,
    FOLDER,
    PARTS,
    PROBLEM,
    TAKEN_BACK,
    TOLD,
    Entry,
    EntryState,
    LastLook,
    Mark,
    Presence,
    Seen,
)
from geo_assets.sources.register_turns import Turns

__all__ = [
    "BATCH",
    "FOLDER",
    "FRAME",
    "PARTS",
    "PROBLEM",
    "TAKEN_BACK",
    "TOLD",
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


class Register(Looks, Turns, Gone):
    """The rows of one source. Every method is a transaction, but for those that are given a connection."""
