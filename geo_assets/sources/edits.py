"""What an edit of a source means for what it has seen already.

What belongs here: :func:`made_by`, by which jobs that one form of a source makes are told from those of another, and
what is said of them.  What does not: finding the entries it concerns (``comparison``, ``register_edits``).

Another workflow, or another container, makes other things, so everything that matches is queued for it.  A job about
the whole container is queued once whatever of its source was edited.  Other parameters of jobs about single blobs
queue nothing by themselves: a word too many in a YAML file shall not publish a hundred thousand items anew.
"""

import hashlib
import json

from geo_assets.coremachine.binding import Registry
from geo_assets.sources.register import WHAT
from geo_assets.sources.rules import grain_of
from geo_assets.sources.source import Source

__all__ = ["keep_text", "made_by"]

_WHAT = frozenset({"container", "workflow"})
_HOW = frozenset({"parameters", "extract"})
_OF_WHOLE = _HOW | {"prefix", "match", "exclude"}


def made_by(source: Source, registry: Registry) -> str:
    """What tells the jobs of this form of a source from those of another: :data:`WHAT` digits of what, and of how.

    Jobs that differ in the first digits make other things, those that differ in the others make them otherwise.
    """
    binding = registry.get(source.workflow)
    whole = binding is not None and grain_of(binding) == "container"
    return _digits(source, _WHAT | _OF_WHOLE if whole else _WHAT) + _digits(source, _HOW)


def keep_text(source: Source, outdated: int) -> str:
    """A sentence on entries that keep what other parameters made; empty where there are none."""
    if not outdated:
        return ""
    entries = "1 entry keeps" if outdated == 1 else f"{outdated:,} entries keep"
    return (
        f"{entries} what other parameters made: 'geo-assets sources again {source.name} --outdated' makes"
        f" {'it' if outdated == 1 else 'them'} anew"
    )


def _digits(source: Source, keys: frozenset[str]) -> str:
    text = json.dumps(source.model_dump(mode="json", include=set(keys)), sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:WHAT]
