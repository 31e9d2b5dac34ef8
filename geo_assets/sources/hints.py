"""Hints from the storage account: events in an Azure Storage queue that say which blobs to look at before it is time.

What belongs here: reading the queue (:class:`HintQueue`), what a message means (:func:`read_message`), and following
the hints (:func:`take_hints`).  What does not: looking and queueing jobs (``look``, ``turn``), and which sources are
switched on (``geo_assets.assets.blob_events``).

A hint says where to look and nothing else: whether a blob is there, and in which version, the listing tells.  So an
event that comes twice, late, in the wrong order or never does no harm, and a message is deleted only when what it
hints at has been looked at.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import sqlalchemy as sa
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.queue import ExponentialRetry, QueueClient, QueueMessage

from geo_assets.containers.kinds import stem
from geo_assets.coremachine.ledger_tables import source_looks
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import AccessDeniedError, GeoAssetsError, LookTooLongError, SettingsError, StoreUnavailableError
from geo_assets.redaction import redact
from geo_assets.settings import Settings
from geo_assets.sources.look import look
from geo_assets.sources.source import Source
from geo_assets.sources.turn import turn
from geo_assets.stores import account_access

__all__ = ["Heard", "Hint", "HintQueue", "open_queue", "prefixes_of", "read_message", "take_hints"]

MOST_MESSAGES = 320
"""Messages received in one tick."""
MOST_LOOKS = 50
"""Places of one source that are looked at one by one; more become one look at all of it."""
MOST_DEQUEUES = 5
"""Times a message is received before it is given up."""
HIDDEN_SECONDS = 120
"""How long a received message stays hidden from the next tick; longer than a tick can be."""
_PAGE = 32  # what the service gives at once
_RECEIVE_SECONDS = 8.0
_TURN_SECONDS = 10.0
_DELETERS = 8
_ROLE = "Storage Queue Data Message Processor"

_EVENTS = frozenset({f"Microsoft.Storage.Blob{what}" for what in ("Created", "Deleted", "Renamed")})
_SUBJECT = re.compile(r"/blobServices/[^/]+/containers/([^/]+)/blobs/(.+)", re.DOTALL)
_ACCOUNT = re.compile(r"/storageAccounts/([a-z0-9]+)", re.IGNORECASE)
_GEODATABASE = re.compile(r"((?:[^/]*/)*?[^/]*\.gdb)/", re.IGNORECASE)


# --- what a message means ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Hint:
    """Something happened to this blob, or may have."""

    container: str
    name: str
    account: str | None = None
    """Storage account of the event; ``None`` where it does not say."""


def read_message(text: str) -> list[Hint]:
    """The hints of a message: Event Grid's own schema or CloudEvents, one event or a list, base64 or plain.

    Events of other kinds hint at nothing.

    Raises:
        ValueError: the message is no event; says why without repeating it.
    """
    events = _parsed(text)
    return [hint for event in (events if isinstance(events, list) else [events]) for hint in _hints_of(event)]


def _parsed(text: str) -> Any:
    text = text.strip()
    try:
        if not text.startswith(("{", "[")):
            text = base64.b64decode(text, validate=True).decode("utf-8-sig")
        return json.loads(text)
    except (binascii.Error, UnicodeDecodeError, ValueError, RecursionError):
        msg = "it is neither JSON nor JSON in base64"
        raise ValueError(msg) from None


def _hints_of(event: Any) -> list[Hint]:
    if not isinstance(event, dict):
        msg = f"an event must be a JSON object, not {type(event).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - one exception for whatever is wrong with a message
    kind = event.get("eventType", event.get("type"))
    subject = event.get("subject")
    if not isinstance(kind, str):
        msg = "it has neither an eventType (Event Grid) nor a type (CloudEvents)"
        raise ValueError(msg)  # noqa: TRY004
    if kind not in _EVENTS:
        return []
    found = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if found is None:
        msg = "its subject names no blob"
        raise ValueError(msg)
    owner = _ACCOUNT.search(str(event.get("topic", event.get("source", ""))))
    account = owner.group(1).lower() if owner else None
    hints = [Hint(container=found.group(1), name=found.group(2), account=account)]
    data = event.get("data")
    if kind.endswith("Renamed") and isinstance(data, dict):
        # the subject is where it went; where it was, something is gone
        hints += [
            Hint(container=container, name=name, account=account)
            for container, name in [_blob_of_url(data.get("sourceUrl"))]
            if name
        ]
    return hints


def _blob_of_url(url: Any) -> tuple[str, str]:
    try:
        path = urlsplit(url).path if isinstance(url, str) else ""
    except ValueError:
        return "", ""
    container, _, name = unquote(path).lstrip("/").partition("/")
    return container, name


def prefixes_of(source: Source, names: Iterable[str]) -> list[str]:
    """The places to look at for blobs of these names: stems of datasets, so that sidecars are seen with their file.

    A place within another is left out; none lies outside the source.
    """
    owners = [found.group(1) if (found := _GEODATABASE.match(name)) else name for name in sorted(set(names))]
    stems = pl.DataFrame({"name": owners}, schema={"name": pl.String}).select(stem())["name"].unique().sort().to_list()
    kept: list[str] = []
    for beginning in sorted(one if one.startswith(source.prefix) else source.prefix for one in stems):
        if not kept or not beginning.startswith(kept[-1]):
            kept.append(beginning)
    return kept


# --- the queue -----------------------------------------------------------------------------------------------------


class HintQueue:
    """The queue of events; made by :func:`open_queue`."""

    def __init__(self, client: QueueClient, *, account: str | None = None) -> None:
        self._client = client
        self.account = account
        """Storage account whose events count; ``None``: of any."""

    def receive(self, most: int = MOST_MESSAGES) -> list[QueueMessage]:
        """Messages that nobody else has, hidden from others for two minutes.

        Raises:
            GeoAssetsError: the queue is not there, may not be read, or cannot be reached.
        """
        ends = time.monotonic() + _RECEIVE_SECONDS
        messages: list[QueueMessage] = []
        try:
            pages = self._client.receive_messages(
                messages_per_page=_PAGE, max_messages=most, visibility_timeout=HIDDEN_SECONDS
            ).by_page()
            for page in pages:
                messages += page
                if time.monotonic() > ends:
                    break
        except AzureError as error:
            if not messages:  # what came before the failure is hidden now, so it is worth following
                raise self._explained(error) from None
        return messages

    def delete(self, messages: Sequence[QueueMessage], *, ends: float) -> int:
        """Delete messages until ``ends`` (of ``time.monotonic``); returns how many are left and will come again."""
        if not messages:
            return 0
        with ThreadPoolExecutor(_DELETERS, thread_name_prefix="hints") as pool:
            return sum(not gone for gone in pool.map(lambda one: self._delete(one, ends), messages))

    def _delete(self, message: QueueMessage, ends: float) -> bool:
        if time.monotonic() > ends:
            return False
        try:
            self._client.delete_message(message)
        except ResourceNotFoundError:  # somebody else received and deleted it meanwhile
            return True
        except AzureError:
            return False
        return True

    def _explained(self, error: AzureError) -> GeoAssetsError:
        queue = f"the queue '{self._client.queue_name}' (GEO_ASSETS_EVENTS_QUEUE)"
        status = error.status_code if isinstance(error, HttpResponseError) else None
        if isinstance(error, ResourceNotFoundError):
            return SettingsError(
                f"{queue} is not there: make it, or unset the setting; sources are looked at all the same"
            )
        if status in (401, 403):
            return AccessDeniedError(
                f"no permission to read {queue} ({status}): the identity needs the role {_ROLE}, a SAS the queue"
                " service with read and process"
            )
        said = redact(" ".join(str(error).partition("<?xml")[0].partition("RequestId:")[0].split()))[:300]
        return StoreUnavailableError(f"{queue} cannot be read now; sources are looked at all the same ({said})")


@lru_cache(maxsize=1)
def open_queue(settings: Settings) -> HintQueue:
    """The queue the settings name, opened once a process; nothing is requested yet.

    Raises:
        SettingsError: no queue is set, or the settings do not say where it is.
    """
    if settings.events_queue is None:
        raise SettingsError("no queue of blob events is set: GEO_ASSETS_EVENTS_QUEUE")
    endpoint = settings.events_queue_endpoint
    access = account_access(settings)
    if endpoint is None:
        endpoint = access.endpoint.replace(".blob.", ".queue.", 1)
        if endpoint == access.endpoint:
            raise SettingsError(
                f"the queue endpoint does not follow from the blob endpoint {access.endpoint}:"
                " set GEO_ASSETS_EVENTS_QUEUE_ENDPOINT"
            )
    try:
        client = QueueClient(
            endpoint,
            settings.events_queue,
            credential=access.sdk_credential,
            # the next tick is the retry
            retry_policy=ExponentialRetry(retry_total=0),
            connection_timeout=5,
            read_timeout=10,
        )
    except ValueError as error:
        raise SettingsError(redact(f"GEO_ASSETS_EVENTS_QUEUE cannot be used: {error}")) from None
    # behind an address of one's own the account's name is not known
    known = f"//{access.account}.blob." in access.endpoint
    return HintQueue(client, account=access.account.lower() if known else None)


# --- following hints -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Heard:
    """What came of one tick's messages."""

    received: int = 0
    irrelevant: int = 0
    """Of other containers, other accounts, or of no source that is switched on."""
    looks: int = 0
    given_up: int = 0
    """Deleted after five times without success."""
    again: int = 0
    """Not deleted, so that they come again."""
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.received:
            return "no events"
        counts = [f"{self.received} events", f"{self.looks} places looked at", f"{self.irrelevant} of no source"]
        counts += [f"{self.given_up} given up"] if self.given_up else []
        counts += [f"{self.again} come again"] if self.again else []
        return ", ".join(counts)


@dataclass(kw_only=True)
class _Message:
    received: QueueMessage
    wanted: set[tuple[str, str]] = field(default_factory=set)
    """Sources, and the name of a blob of theirs."""
    problem: str | None = None

    @property
    def is_last_try(self) -> bool:
        return (self.received.dequeue_count or 0) >= MOST_DEQUEUES


def take_hints(
    machine: CoreMachine,
    queue: HintQueue,
    sources: Sequence[Source],
    *,
    seconds: float = 25.0,
    look: Callable[..., object] = look,
    turn: Callable[..., object] = turn,
) -> Heard:
    """Receive messages, look at what they hint at, queue what came of it, then delete them.

    May die after any line: messages that are not deleted come again, and looking twice does no harm.

    Args:
        machine: ledger and stores.
        queue: where the messages are.
        sources: those that are switched on; hints for others are dropped.
        seconds: after which no further place is looked at; what hints at those comes again.
        look: how a place is looked at.
        turn: how what was seen is queued.

    Raises:
        GeoAssetsError: the queue cannot be read.
    """
    ends = time.monotonic() + seconds
    heard = Heard()
    messages = [_Message(received=one) for one in queue.receive()]
    heard.received = len(messages)
    names = _sorted_out(messages, sources, queue.account)
    heard.irrelevant = sum(not message.wanted and message.problem is None for message in messages)
    unseen: dict[str, tuple[str, ...]] = {}
    for source in sources:
        if source.name not in names:
            continue
        try:
            places = _follow(machine, source, names[source.name], heard, ends=ends, look=look, turn=turn)
        except Exception as error:  # noqa: BLE001 - one source must not keep the hints of the others
            unseen[source.name] = ("",)
            heard.notes.append(redact(f"{source.name}: {type(error).__name__}: {error}"))
            continue
        if places:
            unseen[source.name] = tuple(places)
            heard.notes.append(f"{source.name}: this tick is long enough; events of {len(places)} places come again")
    _clear(queue, messages, unseen, heard, ends=ends + _RECEIVE_SECONDS)
    return heard


def _sorted_out(messages: Sequence[_Message], sources: Sequence[Source], account: str | None) -> dict[str, set[str]]:
    """Names of blobs by source; notes on each message whose they are, or what is wrong with it."""
    names: dict[str, set[str]] = {}
    for message in messages:
        try:
            hints = read_message(str(message.received.content))
        except ValueError as error:
            message.problem = str(error)
            continue
        for hint in hints:
            if account is not None and hint.account not in (None, account):
                continue
            for source in sources:
                if hint.container == source.container and hint.name.startswith(source.prefix):
                    names.setdefault(source.name, set()).add(hint.name)
                    message.wanted.add((source.name, hint.name))
    return names


def _follow(
    machine: CoreMachine,
    source: Source,
    names: set[str],
    heard: Heard,
    *,
    ends: float,
    look: Callable[..., object],
    turn: Callable[..., object],
) -> list[str]:
    """Look at places until it is time to end, and turn; returns those there was no time for."""
    prefixes = prefixes_of(source, names)
    if len(prefixes) > MOST_LOOKS:
        if _is_looked_at_by_runs(machine, source):
            heard.notes.append(f"{source.name}: {len(prefixes)} hints are too many to follow; its next run finds them")
            return []
        prefixes = [source.prefix]
    done = 0
    for prefix in prefixes:
        left = ends - time.monotonic()
        if left <= 0:
            break
        try:
            look(machine, source, prefix="" if prefix == source.prefix else prefix, seconds=left)
        except LookTooLongError:  # for what was left here; what it says of the source is for its own ticks to find
            break
        done += 1
    heard.looks += done
    if done:
        turn(machine, source, seconds=min(max(ends - time.monotonic(), 1.0), _TURN_SECONDS))
    return prefixes[done:]


def _is_looked_at_by_runs(machine: CoreMachine, source: Source) -> bool:
    by_run = sa.select(source_looks.c.by_run).where(source_looks.c.source == source.name)
    return bool(machine.ledger.read(lambda c: c.execute(by_run).scalar()))


def _clear(
    queue: HintQueue,
    messages: Sequence[_Message],
    unseen: Mapping[str, tuple[str, ...]],
    heard: Heard,
    *,
    ends: float,
) -> None:
    """Delete what is done and what was tried often enough; ``unseen`` are places by source."""

    def is_undone(message: _Message) -> bool:
        hidden = (name.startswith(unseen.get(source, ())) for source, name in message.wanted)
        return message.problem is not None or any(hidden)

    undone = [message for message in messages if is_undone(message)]
    given_up = [message for message in undone if message.is_last_try]
    heard.given_up = len(given_up)
    for problem in sorted({message.problem for message in given_up if message.problem}):
        count = sum(message.problem == problem for message in given_up)
        heard.notes.append(f"{count} messages were deleted after {MOST_DEQUEUES} tries: {problem}")
    if outages := sum(message.problem is None for message in given_up):
        heard.notes.append(
            f"{outages} events were given up after {MOST_DEQUEUES} tries; the next look finds what they meant"
        )
    again = {id(message) for message in undone} - {id(message) for message in given_up}
    done = [message.received for message in messages if id(message) not in again]
    heard.again = len(again) + queue.delete(done, ends=ends)
