"""Events of the storage account as hints: what messages mean, and that none of their ways to go wrong does harm.

What belongs here: the queue (Azurite's) and following hints.  What does not: what a look finds (``test_look``).
"""

import base64
import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from geo_assets.assets import blob_events
from geo_assets.assets.blob_events import build_blob_events
from geo_assets.build import build_definitions
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import source_looks
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import AccessDeniedError, LookTooLongError, SettingsError, StoreUnavailableError
from geo_assets.settings import Settings, get_settings
from geo_assets.sources import hints
from geo_assets.sources.hints import Heard, HintQueue, open_queue, prefixes_of, read_message, take_hints
from geo_assets.sources.look import look
from geo_assets.sources.register import EntryState, Register
from geo_assets.sources.source import Source

if TYPE_CHECKING:
    from tests.conftest import Azurite

CANARY = "canary-5f1d"
ACCOUNT = "/subscriptions/1/resourceGroups/g/providers/Microsoft.Storage/storageAccounts"


def event(
    name: str,
    kind: str = "BlobCreated",
    *,
    container: str = "raw",
    cloud: bool = False,
    account: str = "mine",
    **data: Any,
) -> dict[str, Any]:
    """An event as Event Grid sends it, in its own schema or as CloudEvents."""
    both = {
        "subject": f"/blobServices/default/containers/{container}/blobs/{name}",
        "id": str(uuid.uuid4()),
        "data": {"api": "PutBlob", "url": f"https://mine.blob.core.windows.net/{container}/x?sig={CANARY}", **data},
    }
    kind = f"Microsoft.Storage.{kind}"
    if cloud:
        return {
            **both,
            "specversion": "1.0",
            "type": kind,
            "source": f"{ACCOUNT}/{account}",
            "time": "2026-11-24T10:00:00Z",
        }
    return {**both, "eventType": kind, "topic": f"{ACCOUNT}/{account}", "eventTime": "2026-11-23T10:00:00Z"}


def text(of: Any, *, plain: bool = False) -> str:
    """A message with this content, as Event Grid writes it to a queue."""
    said = json.dumps(of)
    return said if plain else base64.b64encode(said.encode()).decode()


# --- what a message means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("cloud", [True, False])
def test_both_schemas_are_read_in_base64_and_plain(*, cloud: bool, plain: bool) -> None:
    (hint,) = read_message(text(event("a b/é%20+.tif", cloud=cloud), plain=plain))
    assert (hint.container, hint.name, hint.account) == ("raw", "a b/é%20+.tif", "mine")


def test_a_rename_hints_at_both_its_ends() -> None:
    moved = event("new/a.tif", "BlobRenamed", sourceUrl="https://mine.dfs.core.windows.net/raw/old/a%20b.tif")
    assert [(hint.container, hint.name) for hint in read_message(text(moved))] == [
        ("raw", "new/a.tif"),
        ("raw", "old/a b.tif"),
    ]
    assert len(read_message(text(event("new/a.tif", "BlobRenamed", sourceUrl="http://[")))) == 1


def test_a_list_of_events_is_read_and_other_kinds_hint_at_nothing() -> None:
    several = [event("a.tif"), event("b.tif", "BlobDeleted"), event("c.tif", "BlobTierChanged")]
    assert [hint.name for hint in read_message(text(several))] == ["a.tif", "b.tif"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        "{",
        "[" * 100_000,
        base64.b64encode(b"\xff\xfe\x00").decode(),
        text(7),
        text([event("a.tif"), None]),
        text({"subject": "x"}),
        text({"eventType": 5, "subject": "x"}),
        text({"eventType": "Microsoft.Storage.BlobCreated"}),
        text({"eventType": "Microsoft.Storage.BlobCreated", "subject": "/blobServices/default/containers/raw"}),
    ],
    ids=range(11),  # an event has an id of its own in each process
)
def test_a_malformed_message_is_refused_in_words(message: str) -> None:
    with pytest.raises(ValueError, match=r"it |its |event "):
        read_message(message)


@given(st.text() | st.binary().map(lambda raw: base64.b64encode(raw).decode()))
def test_no_message_breaks_the_reader(message: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_message(message), list)


def test_places_are_stems_so_that_sidecars_count_and_none_lies_outside_the_source() -> None:
    everything = Source(name="s", container="raw", workflow="w")
    assert prefixes_of(everything, ["r/roads.shp", "r/roads.dbf", "r/roads.shp.xml", "x.tif.aux.xml"]) == [
        "r/roads",
        "x",
    ]
    # the parts of a geodatabase are one dataset; a place within another is not looked at twice
    assert prefixes_of(everything, [f"g/city.gdb/a{n:08}.gdbtable" for n in range(40)]) == ["g/city"]
    assert prefixes_of(everything, ["a/b.tif", "a/b2.tif", "a/bc/d.tif", "a/c.tif"]) == ["a/b", "a/c"]
    inside = Source(name="s", container="raw", prefix="in/a.t", workflow="w")
    assert prefixes_of(inside, ["in/a.tif", "in/a.tab"]) == ["in/a.t"]


# --- following, on Azurite's queue ---------------------------------------------------------------------------------


class Followed:
    """What was looked at, instead of looking; ``breaks`` names sources whose container is away."""

    def __init__(self) -> None:
        self.looks: list[tuple[str, str]] = []
        self.turns: list[str] = []
        self.breaks: set[str] = set()
        self.look_seconds = self.needs = 0.0
        self.now = 0.0

    def look(self, machine: CoreMachine, source: Source, *, prefix: str = "", seconds: float | None = None) -> None:
        del machine
        assert seconds is None or seconds > 0
        if source.name in self.breaks:
            raise StoreUnavailableError(f"away (https://x/y?sig={CANARY})")
        if seconds is not None and seconds < self.needs:
            raise LookTooLongError("it takes longer")
        self.looks.append((source.name, prefix))
        self.now += self.look_seconds

    def turn(self, machine: CoreMachine, source: Source, *, seconds: float) -> None:
        del machine
        assert 0 < seconds <= 10
        self.turns.append(source.name)


@pytest.fixture
def client(azurite_queue: "Azurite") -> Iterator[QueueClient]:
    """A queue of this test's own."""
    credential = {"account_name": azurite_queue.account_name, "account_key": azurite_queue.account_key}
    with QueueClient(azurite_queue.endpoint, f"events-{uuid.uuid4().hex}", credential=credential) as opened:
        opened.create_queue()
        yield opened


class ShownAgain(HintQueue):
    """The same queue as hints are read from it, and a way not to wait until what was received is no longer hidden."""

    def __init__(self, client: QueueClient) -> None:
        super().__init__(client, account="mine")
        self.got: list[QueueMessage] = []

    def receive(self, most: int = hints.MOST_MESSAGES) -> list[QueueMessage]:
        self.got = super().receive(most)
        return self.got

    def show_again(self) -> None:
        for message in self.got:
            with contextlib.suppress(ResourceNotFoundError):
                self._client.update_message(message, visibility_timeout=0)


@pytest.fixture
def queue(client: QueueClient) -> ShownAgain:
    return ShownAgain(client)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[CoreMachine]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=20)
    yield CoreMachine(ledger=ledger, registry={}, settings=Settings(home=tmp_path), services={})
    ledger.close()


RAW = Source(name="raw", container="raw", workflow="w")
ROADS = Source(name="roads", container="raw", prefix="roads/", workflow="w")
SOURCES = [RAW, ROADS]


def hear(machine: CoreMachine, queue: HintQueue, followed: Followed, sources: list[Source] | None = None) -> Heard:
    return take_hints(machine, queue, SOURCES if sources is None else sources, look=followed.look, turn=followed.turn)


def left(client: QueueClient) -> int:
    """Messages in the queue, hidden ones included."""
    return int(client.get_queue_properties().approximate_message_count or 0)


def test_hints_are_merged_looked_at_turned_once_a_source_and_deleted(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain
) -> None:
    for name in ("roads/a.shp", "roads/a.dbf", "b.tif", "b.tif"):
        client.send_message(text(event(name)))
    followed = Followed()
    heard = hear(machine, queue, followed)
    assert followed.looks == [("raw", "b"), ("raw", "roads/a"), ("roads", "roads/a")]
    assert followed.turns == ["raw", "roads"]
    assert (heard.received, heard.looks, heard.irrelevant, heard.again) == (4, 3, 0, 0)
    assert left(client) == 0
    assert hear(machine, queue, followed).summary == "no events"


def test_delete_before_create_twice_and_a_day_late_is_one_look(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain
) -> None:
    for kind in ("BlobDeleted", "BlobCreated", "BlobCreated"):
        client.send_message(text(event("b.tif", kind)))
    followed = Followed()
    hear(machine, queue, followed)
    assert followed.looks == [("raw", "b")]
    assert followed.turns == ["raw"]


def test_events_of_others_are_dropped(machine: CoreMachine, client: QueueClient, queue: ShownAgain) -> None:
    client.send_message(text(event("b.tif", container="theirs")))
    client.send_message(text(event("b.tif", account="theirs")))
    client.send_message(text(event("b.tif", "BlobTierChanged")))
    followed = Followed()
    # a source that is switched off is not among those given
    heard = hear(machine, queue, followed, [ROADS])
    assert (followed.looks, followed.turns, heard.irrelevant, left(client)) == ([], [], 3, 0)


def test_very_many_hints_are_one_look_or_none_where_runs_look(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain
) -> None:
    many = [event(f"roads/{number:03}.tif") for number in range(hints.MOST_LOOKS + 1)]
    client.send_message(text(many[:26]))
    client.send_message(text(many[26:]))
    followed = Followed()
    looked = {"source": "raw", "sequence": 1, "by_run": True}
    machine.ledger.write(lambda c: c.execute(source_looks.insert(), looked))
    heard = hear(machine, queue, followed)
    assert followed.looks == [("roads", "")]
    assert followed.turns == ["roads"]
    assert heard.notes == [f"raw: {hints.MOST_LOOKS + 1} hints are too many to follow; its next run finds them"]
    assert left(client) == 0


def test_more_than_a_page_is_received_at_once(machine: CoreMachine, client: QueueClient, queue: ShownAgain) -> None:
    for number in range(40):
        client.send_message(text(event(f"{number}/b.tif")))
    assert hear(machine, queue, Followed()).received == 40
    assert left(client) == 0


def test_a_container_that_is_away_keeps_its_hints_and_nobody_elses(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain
) -> None:
    client.send_message(text(event("b.tif")))  # of one source
    client.send_message(text(event("roads/a.tif")))  # of both
    client.send_message(text(event("b.tif", container="theirs")))
    followed = Followed()
    followed.breaks = {"roads"}
    heard = hear(machine, queue, followed)
    assert followed.turns == ["raw"]
    assert (heard.again, left(client)) == (1, 1)
    assert "roads: StoreUnavailableError: away" in heard.notes[0]
    assert CANARY not in "".join(heard.notes)
    followed.breaks = set()
    queue.show_again()
    hear(machine, queue, followed)
    assert ("roads", "roads/a") in followed.looks
    assert left(client) == 0


def test_a_daemon_that_dies_while_it_looks_finds_the_messages_again(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain
) -> None:
    client.send_message(text(event("b.tif")))
    died = Followed()

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        take_hints(machine, queue, SOURCES, look=died.look, turn=die)
    assert (died.looks, left(client)) == ([("raw", "b")], 1)
    queue.show_again()
    followed = Followed()
    hear(machine, queue, followed)
    assert (followed.looks, followed.turns, left(client)) == ([("raw", "b")], ["raw"], 0)


def test_poison_is_deleted_after_five_tries_and_said(
    machine: CoreMachine, client: QueueClient, queue: ShownAgain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "MOST_DEQUEUES", 2)  # five, without three seconds of waiting
    client.send_message(f"{CANARY}: no event")
    client.send_message(text(event("roads/a.tif")))
    followed = Followed()
    followed.breaks = {"raw", "roads"}
    first = hear(machine, queue, followed)
    assert (first.again, first.given_up, left(client)) == (2, 0, 2)
    queue.show_again()
    second = hear(machine, queue, followed)
    assert (second.again, second.given_up, left(client)) == (0, 2, 0)
    assert "1 messages were deleted after 2 tries: it is neither JSON nor JSON in base64" in second.notes
    assert "1 events were given up after 2 tries; the next look finds what they meant" in second.notes
    assert CANARY not in "".join(second.notes)


@pytest.mark.parametrize(("long", "needs"), [(13.0, 0.0), (11.0, 5.0)])
def test_a_tick_that_is_long_enough_leaves_the_rest_for_the_next(
    machine: CoreMachine,
    client: QueueClient,
    queue: ShownAgain,
    monkeypatch: pytest.MonkeyPatch,
    long: float,
    needs: float,
) -> None:
    for name in ("a.tif", "b.tif", "c.tif", "roads/a.tif"):
        client.send_message(text(event(name)))
    followed = Followed()
    followed.look_seconds, followed.needs = long, needs
    monkeypatch.setattr(hints, "time", SimpleNamespace(monotonic=lambda: followed.now))
    heard = hear(machine, queue, followed)
    assert (followed.looks, followed.turns) == ([("raw", "a"), ("raw", "b")], ["raw"]), "25 seconds are over"
    assert (heard.looks, heard.again, left(client)) == (2, 2, 2)
    assert heard.notes[0] == "raw: this tick is long enough; events of 2 places come again"
    queue.show_again()
    hear(machine, queue, followed)
    assert followed.looks[2:] == [("raw", "c"), ("raw", "roads/a")], "the next goes on where this one ended"


# --- opening the queue ---------------------------------------------------------------------------------------------


def settings_of(azurite_queue: "Azurite", name: str, **changed: Any) -> Settings:
    chosen: dict[str, Any] = {
        "azure_account": azurite_queue.account_name,
        "azure_account_key": SecretStr(azurite_queue.account_key),
        "events_queue": name,
        "events_queue_endpoint": azurite_queue.endpoint,
        **changed,
    }
    return Settings(**chosen)


def test_a_queue_that_is_not_there_or_may_not_be_read_says_what_to_do(azurite_queue: "Azurite") -> None:
    with pytest.raises(SettingsError, match=r"the queue 'nowhere' .* is not there: make it"):
        open_queue(settings_of(azurite_queue, "nowhere")).receive()
    wrong = base64.b64encode(b"wrong" * 8).decode()
    with pytest.raises(AccessDeniedError, match="Storage Queue Data Message Processor") as denied:
        open_queue(settings_of(azurite_queue, "nowhere", azure_account_key=SecretStr(wrong))).receive()
    assert wrong not in str(denied.value)
    with pytest.raises(StoreUnavailableError, match="sources are looked at all the same"):
        open_queue(settings_of(azurite_queue, "q", events_queue_endpoint="http://127.0.0.1:1/mine")).receive()


def test_the_queue_endpoint_follows_from_the_clouds_and_from_no_other(azurite_queue: "Azurite") -> None:
    cloud = open_queue(settings_of(azurite_queue, "q", events_queue_endpoint=None))
    assert cloud.account == azurite_queue.account_name
    with pytest.raises(SettingsError, match="GEO_ASSETS_EVENTS_QUEUE_ENDPOINT"):
        open_queue(
            settings_of(azurite_queue, "q", events_queue_endpoint=None, azure_endpoint="https://own.example.org")
        )
    with pytest.raises(SettingsError, match="no queue of blob events is set"):
        open_queue(Settings())


# --- the sensor ----------------------------------------------------------------------------------------------------


def test_there_is_no_sensor_without_a_queue() -> None:
    assert not build_blob_events(Settings(), {}, SOURCES).sensors


@pytest.fixture
def watched(
    azurite_queue: "Azurite", client: QueueClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dg.Definitions, CoreMachine, Path]]:
    """A code location with two sources and the queue, and the folder that is their container."""
    folder = tmp_path / "containers" / "raw"
    folder.mkdir(parents=True)
    environment = {
        "BLOB_ROOT": str(folder.parent),
        "AZURE_ACCOUNT": azurite_queue.account_name,
        "AZURE_ACCOUNT_KEY": azurite_queue.account_key,
        "EVENTS_QUEUE": client.queue_name,
        "EVENTS_QUEUE_ENDPOINT": azurite_queue.endpoint,
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"GEO_ASSETS_{name}", value)
    get_settings.cache_clear()
    sources = [
        Source(name="rasters", container="raw", match=("*.tif",), workflow="process_raster"),
        Source(name="off", container="raw", match=("*.tif",), workflow="validate_raster_job", paused=True),
    ]
    defs = build_definitions(sources=sources)
    machine: CoreMachine = (defs.resources or {})[MACHINE].machine()
    for source in sources:  # what is there when a source is first looked at is its own sensor's to find
        look(machine, source)
    yield defs, machine, folder
    machine.ledger.close()


def ticked(defs: dg.Definitions, instance: dg.DagsterInstance) -> str:
    """What the sensor says of one tick."""
    sensor = defs.get_repository_def().get_sensor_def("blob_events")
    with dg.build_sensor_context(instance=instance, resources=dict(defs.resources or {})) as context:
        return str(sensor.evaluate_tick(context).skip_message)


def queued(machine: CoreMachine) -> list[tuple[str, str]]:
    return sorted((job.job_type, job.partition_key) for job in machine.ledger.jobs(limit=None))


def test_an_event_becomes_a_job_of_the_sources_that_are_switched_on(
    watched: tuple[dg.Definitions, CoreMachine, Path], client: QueueClient
) -> None:
    defs, machine, folder = watched
    mine = partial(event, account=str(client.account_name))
    (folder / "new.tif").write_bytes(b"II*\0")
    (folder / "silent.tif").write_bytes(b"II*\0")
    client.send_message(text(mine("new.tif")))
    client.send_message(text(mine("never.tif")))  # deleted since, or not there yet
    with dg.DagsterInstance.get() as instance:  # an ephemeral one does not know which sensors are on
        assert ticked(defs, instance) == "2 events, 2 places looked at, 0 of no source"
        # the blob without an event is left to the listing, and the source that is paused to its sensor
        assert queued(machine) == [("process_raster", "raw/new.tif")]
        client.send_message(text(mine("new.tif")))
        ticked(defs, instance)
        assert queued(machine) == [("process_raster", "raw/new.tif")]
        switch(defs, instance, "source_rasters", InstigatorStatus.STOPPED)
        switch(defs, instance, "source_off", InstigatorStatus.RUNNING)
        client.send_message(text(mine("new.tif")))
        ticked(defs, instance)
        assert queued(machine) == [("process_raster", "raw/new.tif"), ("validate_raster_job", "raw/new.tif")]
        (folder / "new.tif").unlink()
        client.send_message(text(mine("new.tif", "BlobDeleted")))
        ticked(defs, instance)
        assert Register(machine.ledger, "off").counts()[EntryState.GONE] == 1
        assert left(client) == 0
    # what no event told of, the listing finds
    rasters = Source(name="rasters", container="raw", match=("*.tif",), workflow="process_raster")
    assert look(machine, rasters).new == 1


def test_where_dagster_cannot_be_asked_sources_count_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_events, "STATES_AVAILABLE", False)
    on = Source(name="on", container="raw", workflow="process_raster")
    off = Source(name="off", container="raw", workflow="process_raster", paused=True)
    with dg.build_sensor_context() as context:
        assert blob_events._switched_on(context, [on, off]) == [on]


def switch(defs: dg.Definitions, instance: dg.DagsterInstance, name: str, status: InstigatorStatus) -> None:
    """Switch a sensor on or off, as the UI does."""
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="geo_assets.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name="geo_assets")
    origin = RemoteRepositoryOrigin(location, defs.get_repository_def().name).get_instigator_origin(name)
    instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status))
