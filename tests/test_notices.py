"""Failed runs told to a webhook: what is posted, once a run, once a kind of failure, whatever dies or is down.

What belongs here: the posts (to a real HTTP server), the ledger's notices, the sensor on real failed runs.
"""

import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from geo_assets import notices, webhook
from geo_assets.assets.failure_webhook import build_failure_webhook
from geo_assets.build import build_definitions
from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.coremachine.ledger import Ledger, NewJob, Settlement
from geo_assets.coremachine.ledger_tables import notices as notices_table
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from geo_assets.errors import SettingsError, WebhookError
from geo_assets.notices import FailedRun, Told, owe, tell
from geo_assets.settings import Settings, get_settings
from geo_assets.webhook import Webhook
from tests.cli.conftest import Run, run

__all__ = ["run"]

CANARY = "T0CANARY/B0/x9y8z7"


# --- a real receiver -----------------------------------------------------------------------------------------------


class Receiver:
    """An HTTP server that keeps what is posted to it and answers as told: a status, a redirect, nothing, or never."""

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.paths.append(self.path)
                receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "hang up":
                    return
                if answer == "hang":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    receiver.released.wait(10)
                    return
                if isinstance(answer, str):
                    code, _, location = answer.partition(" ")
                    self.send_response(int(code))
                    self.send_header("Location", location)
                else:
                    self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{CANARY}"

    @property
    def hook(self) -> Webhook:
        return Webhook(SecretStr(self.url))


@contextmanager
def served(receiver: Receiver) -> Iterator[Receiver]:
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(webhook, "BACKOFF_SECONDS", 0.01)
    with served(Receiver()) as made:
        yield made


# --- one post ------------------------------------------------------------------------------------------------------


def test_what_passes_is_tried_three_times_and_then_given_back(receiver: Receiver) -> None:
    receiver.answers = [503, 429]
    receiver.hook.post({"text": "é"})
    assert receiver.bodies == [{"text": "é"}] * 3
    receiver.answers = [500, 502, 503, 200]
    with pytest.raises(WebhookError, match="answered 503") as failed:
        receiver.hook.post({})
    assert failed.value.is_down
    assert len(receiver.bodies) == 6


def test_a_refusal_is_not_tried_again(receiver: Receiver) -> None:
    receiver.answers = [404]
    with pytest.raises(WebhookError, match="answered 404") as failed:
        receiver.hook.post({})
    assert not failed.value.is_down
    assert len(receiver.bodies) == 1


def test_a_redirect_is_followed_on_the_same_server_and_as_a_post_only(receiver: Receiver) -> None:
    receiver.answers = ["308 /moved"]
    receiver.hook.post({"a": 1})
    assert receiver.paths[-1] == "/moved"
    with served(Receiver()) as other:
        for answer in (f"307 {other.url}", "302 /moved", "307 https://127.0.0.1/x", "303 /moved"):
            receiver.answers = [answer]
            with pytest.raises(WebhookError, match="redirects to another address") as failed:
                receiver.hook.post({})
            assert CANARY not in str(failed.value)
        assert other.bodies == []
    receiver.answers = ["307 /a"] * 9
    with pytest.raises(WebhookError, match="redirects"):
        receiver.hook.post({})


@pytest.mark.parametrize("answer", ["hang", "hang up"])
def test_what_may_have_arrived_is_not_posted_again_at_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(webhook, "TRY_SECONDS", 0.1)
    receiver.answers = [answer] * 3
    began = time.monotonic()
    said = r"gave no whole answer within 0\.1 s|ReadTimeout|RemoteProtocolError|ReadError"
    with pytest.raises(WebhookError, match=f"({said}).*may have arrived") as failed:
        receiver.hook.post({})
    assert failed.value.is_down
    assert time.monotonic() - began < 5
    assert len(receiver.bodies) == 1


def test_no_try_begins_that_might_not_end_with_the_tick(receiver: Receiver) -> None:
    receiver.answers = [503] * 3
    with pytest.raises(WebhookError, match="answered 503"):
        receiver.hook.post({}, ends=time.monotonic() + 1)
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("url", ["", "hooks.example.org/x9y8z7", "ftp://h/x9y8z7", "https:///x9y8z7", "http://[x9y8z7"])
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="GEO_ASSETS_FAILURE_WEBHOOK is no URL") as refused:
        Webhook(SecretStr(url))
    assert "x9y8z7" not in str(refused.value)


def _certificate(folder: Path) -> Path:
    """A certificate that nobody signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now).not_valid_after(now + timedelta(hours=1)).sign(key, hashes.SHA256())
    path = folder / "server.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_the_address_is_in_no_error_and_no_log(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    hooks = [receiver.url, f"http://user:T0CANARY@127.0.0.1:1/{CANARY}?q={CANARY}", f"http://127.0.0.1:1/{CANARY}"]
    with served(Receiver()) as secure:
        secure.server.socket = context.wrap_socket(secure.server.socket, server_side=True)
        for url in (*hooks, secure.url.replace("http:", "https:")):
            receiver.answers = [410]
            with pytest.raises(WebhookError) as failed:
                Webhook(SecretStr(url)).post({})
            said.append(str(failed.value))
            assert failed.value.__cause__ is None
        assert secure.bodies == []
    assert "CERTIFICATE_VERIFY_FAILED" in said[-1]
    assert "ConnectError" in said[1]
    receiver.answers = []
    receiver.hook.post({})  # httpx tells its log of answers that came
    assert "canary" not in (caplog.text + "".join(said)).lower()


# --- what is told, and how often -----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger, on SQLite and on PostgreSQL."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if sqlite else request.getfixturevalue("postgres_url")
    with closing(Ledger(url, patience_seconds=20)) as opened:
        yield opened


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=20)) as opened:
        yield opened


def fail(ledger: Ledger, run_id: str, reasons: Sequence[str], *, good: int = 1) -> None:
    """A run that ended with one failed job a reason."""
    new = [
        NewJob(
            job_type="read",
            job_id=f"{run_id}-{number}",
            asset="tile",
            partition_key=f"c/{run_id}-{number}",
            parameters={},
            total_stages=1,
        )
        for number in range(len(reasons) + good)
    ]
    claimed, _ = ledger.claim_now(new, run_id)
    failed = [
        Settlement(attempt_id=one.attempt_id, status=JobStatus.FAILED, outcome=OutcomeKind.FAILED, reason=reason)
        for one, reason in zip(claimed, reasons, strict=False)
    ]
    done = [
        Settlement(attempt_id=one.attempt_id, status=JobStatus.COMPLETED, outcome=OutcomeKind.CREATED)
        for one in claimed[len(reasons) :]
    ]
    ledger.settle(run_id, [*failed, *done])


def find(run_id: str) -> FailedRun:
    return FailedRun(run_id=run_id, job_name="read", error="1 of 2 failed")


def told(ledger: Ledger, receiver: Receiver, settings: Settings | None = None, **others: Any) -> Told:
    options: dict[str, Any] = {"find": find, "post": receiver.hook.post, **others}
    return tell(ledger, settings or Settings(), **options)


def later(ledger: Ledger, hours: float = 1) -> None:
    """Let time pass, for the notices."""
    moved = {
        column: notices_table.c[column].op("-")(sa.literal(timedelta(hours=hours)))
        for column in ("first_at", "last_at", "sent_at")
    }
    if ledger.engine.dialect.name == "postgresql":
        ledger.write(lambda c: c.execute(notices_table.update().values(**moved)))
        return
    rows = ledger.read(lambda c: c.execute(notices_table.select()).all())
    for row in rows:
        earlier = {
            name: value and value - timedelta(hours=hours)
            for name, value in (("first_at", row.first_at), ("last_at", row.last_at), ("sent_at", row.sent_at))
        }
        change = notices_table.update().where(notices_table.c.fingerprint == row.fingerprint).values(**earlier)
        ledger.write(lambda c, s=change: c.execute(s))  # type: ignore[misc]


def test_a_post_groups_failures_by_reason_and_says_how_to_go_on(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    cut = [f"FILE_CUT: 'a/{number}.tif' ends at {number}" for number in range(7)]
    odd = [
        f"{word} is odd"
        for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    ]
    fail(sqlite_ledger, "run-1", [*odd, *cut, "no header"])
    owe(sqlite_ledger, ["run-1"])
    run = FailedRun(
        run_id="run-1",
        job_name="__ASSET_JOB",
        wave_id="w1",
        started_at=datetime(2026, 11, 24, 10, tzinfo=UTC),
        ended_at=None,
        error="19 of 20 failed",
    )
    told(sqlite_ledger, receiver, Settings(ui_url="https://ui.example.org/"), find=lambda _: run)
    (body,) = receiver.bodies
    assert body["failures"][0] == {
        "reason": "FILE_CUT: … ends at N",
        "example": "FILE_CUT: 'a/0.tif' ends at 0",
        "count": 7,
        "partition_keys": [f"c/run-1-{number}" for number in range(11, 16)],
    }
    assert len(body["failures"]) == 10
    assert (body["job"], body["wave"], body["failed"], body["reasons"]) == ("read", "w1", 19, 13)
    assert body["outcomes"] == {"created": 1, "failed": 19}
    assert (body["started_at"], body["ended_at"]) == ("2026-11-24T10:00:00+00:00", None)
    assert body["url"] == "https://ui.example.org/runs/run-1"
    assert body["retry"] == "geo-assets retry --failed --run run-1"
    lines = body["text"].splitlines()
    assert lines[0] == "`read`: 19 of 20 failed (run `run-1`)"
    assert lines[1].startswith("- 7: `FILE_CUT: … ends at N` (`c/run-1-11`, ")
    assert lines[1].endswith("`c/run-1-15` and 2 more)")
    assert "- and 3 other reasons" in lines
    assert lines[-2:] == [body["url"], "to run them again: `geo-assets retry --failed --run run-1`"]


def test_strangers_text_calls_no_channel_and_shows_no_secret(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    fail(sqlite_ledger, "run-1", ["no `<!channel>` @here AccountKey=hunter2hunter2=="])
    owe(sqlite_ledger, ["run-1"])
    told(sqlite_ledger, receiver)
    (body,) = receiver.bodies
    assert "hunter2" not in json.dumps(body)
    assert "<" not in body["text"]
    outside = "".join(body["text"].split("`")[::2])
    assert "@here" not in outside
    assert "!channel" not in outside


def test_the_same_failure_is_told_once_and_the_next_post_counts_the_others(ledger: Ledger, receiver: Receiver) -> None:
    for number in range(3):
        fail(ledger, f"run-{number}", [f"'{number}.tif' is cut off"])
    fail(ledger, "run-other", ["'9.tif' is cut off", "something else"])
    owe(ledger, ["run-0", "run-1", "run-2", "run-other"])
    first = told(ledger, receiver)
    assert (first.posted, first.suppressed) == (2, 2)
    later(ledger, 7)
    fail(ledger, "run-9", ["'77.tif' is cut off"])
    owe(ledger, ["run-9"])
    assert told(ledger, receiver).posted == 1
    assert [body["run_id"] for body in receiver.bodies] == ["run-0", "run-other", "run-9"]
    assert [body["suppressed"] for body in receiver.bodies] == [0, 0, 2]
    assert "2 more runs failed alike since" in receiver.bodies[-1]["text"]
    later(ledger, 7)
    fail(ledger, "run-10", ["'78.tif' is cut off"])
    owe(ledger, ["run-10"])
    told(ledger, receiver)
    assert receiver.bodies[-1]["suppressed"] == 0


def test_with_no_hours_every_run_is_told(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    fail(sqlite_ledger, "run-1", ["x"])
    fail(sqlite_ledger, "run-2", ["x"])
    owe(sqlite_ledger, ["run-1", "run-2"])
    assert told(sqlite_ledger, receiver, Settings(failure_webhook_hours=0)).posted == 2


def test_a_run_is_told_once_however_often_it_is_found(ledger: Ledger, receiver: Receiver) -> None:
    fail(ledger, "run-1", ["x"])
    for _ in range(3):
        owe(ledger, ["run-1", "run-1"])
        told(ledger, receiver, Settings(failure_webhook_hours=0))
        later(ledger)
    assert len(receiver.bodies) == 1


def test_a_webhook_that_is_down_for_an_hour_loses_nothing(ledger: Ledger, receiver: Receiver) -> None:
    for number in range(4):
        fail(ledger, f"run-{number}", [f"reason {chr(97 + number)}"])
    owe(ledger, [f"run-{number}" for number in range(4)])
    receiver.answers = [500] * 6
    down = told(ledger, receiver)
    # one run is tried, three times; the others wait for the next tick
    assert (down.posted, len(receiver.bodies)) == (0, 3)
    assert down.notes == ["run run-0 is not told yet: the failure webhook answered 500"]
    told(ledger, receiver)
    assert {body["run_id"] for body in receiver.bodies} == {"run-0", "run-1"}
    assert notices.counts(ledger) == (4, 0)
    later(ledger)
    receiver.bodies.clear()
    assert told(ledger, receiver).posted == 4
    assert {body["run_id"] for body in receiver.bodies} == {f"run-{number}" for number in range(4)}
    assert notices.counts(ledger) == (0, 4)


def test_a_run_that_cannot_be_told_is_tried_ever_less_often(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    def slow(_: Any, **__: Any) -> None:
        raise WebhookError("no answer", is_down=True)

    fail(sqlite_ledger, "run-1", ["x"])
    owe(sqlite_ledger, ["run-1"])
    tried: list[int] = []
    for minute in range(0, 480, 10):
        if told(sqlite_ledger, receiver, post=slow).notes:
            tried.append(minute)
        later(sqlite_ledger, 1 / 6)
    waits = [after - before for before, after in pairwise(tried)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (10, 60), "a quarter of the time it has been tried for, up to an hour"
    assert len(tried) < 17
    later(sqlite_ledger)
    assert told(sqlite_ledger, receiver).posted == 1


def test_one_post_that_is_refused_does_not_hold_up_the_others(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    for number in range(2):
        fail(sqlite_ledger, f"run-{number}", [f"reason {chr(97 + number)}"])
    owe(sqlite_ledger, ["run-0", "run-1"])
    receiver.answers = [413]
    assert told(sqlite_ledger, receiver).posted == 1
    assert notices.counts(sqlite_ledger) == (1, 1)


@pytest.mark.parametrize("posted", [False, True])
def test_a_daemon_that_dies_before_it_marks_tells_again_later(
    sqlite_ledger: Ledger, receiver: Receiver, *, posted: bool
) -> None:
    fail(sqlite_ledger, "run-1", ["x"])
    owe(sqlite_ledger, ["run-1"])

    def die(body: dict[str, Any], **limits: Any) -> None:
        if posted:
            receiver.hook.post(body, **limits)
        raise SystemExit

    with pytest.raises(SystemExit):
        told(sqlite_ledger, receiver, post=die)
    # a second daemon leaves it to the first for a minute, in case that one lives
    assert told(sqlite_ledger, receiver).posted == 0
    later(sqlite_ledger)
    assert told(sqlite_ledger, receiver).posted == 1
    assert len(receiver.bodies) == 1 + posted


def test_two_daemons_at_once_tell_a_run_once(ledger: Ledger, receiver: Receiver) -> None:
    for number in range(6):
        fail(ledger, f"run-{number}", [f"reason {chr(97 + number)}"])
    owe(ledger, [f"run-{number}" for number in range(6)])
    threads = [threading.Thread(target=told, args=(ledger, receiver)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(body["run_id"] for body in receiver.bodies) == [f"run-{number}" for number in range(6)]


def test_a_run_deleted_meanwhile_is_let_go(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    owe(sqlite_ledger, ["run-1"])
    assert told(sqlite_ledger, receiver, find=lambda _: None).gone == 1
    assert notices.counts(sqlite_ledger) == (0, 0)


def test_what_was_told_long_ago_is_forgotten_and_what_is_owed_is_not(ledger: Ledger, receiver: Receiver) -> None:
    fail(ledger, "run-0", ["x"])
    owe(ledger, ["run-0"])
    told(ledger, receiver)
    owe(ledger, ["run-1"])
    later(ledger, 24 * 91)
    fail(ledger, "run-2", ["y"])
    owe(ledger, ["run-2"])
    told(ledger, receiver, find=lambda run_id: find(run_id) if run_id == "run-2" else None)
    known = ledger.read(lambda c: set(c.execute(sa.select(notices_table.c.fingerprint)).scalars()))
    assert "run-0" not in known
    assert {"run-1", "run-2"} <= known


def test_a_long_tick_stops(sqlite_ledger: Ledger, receiver: Receiver) -> None:
    owe(sqlite_ledger, ["run-1"])
    assert told(sqlite_ledger, receiver, seconds=0) == Told()
    assert notices.counts(sqlite_ledger) == (1, 0)


# --- the sensor, on real failed runs -------------------------------------------------------------------------------


@dg.op
def _break() -> None:
    msg = "the disk is full: password=hunter2"
    raise ValueError(msg)


@dg.job
def broken() -> None:
    """A job without any of ours, that crashes."""
    _break()


def test_failed_runs_are_posted_and_good_or_older_ones_are_not(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEO_ASSETS_FAILURE_WEBHOOK", receiver.url)
    monkeypatch.setenv("GEO_ASSETS_TASK_MAX_RETRIES", "0")
    get_settings.cache_clear()
    defs = build_definitions()
    assert CANARY not in repr(get_settings())
    sensor = defs.get_repository_def().get_sensor_def("failed_runs")
    resource = (defs.resources or {})[MACHINE]
    machine: CoreMachine = resource.machine()
    cursor: list[str | None] = [None]
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> str:
            with dg.build_sensor_context(instance=instance, cursor=cursor[0], resources={MACHINE: resource}) as context:
                answer = sensor.evaluate_tick(context)
            cursor[0] = answer.cursor
            return str(answer.skip_message)

        broken.execute_in_process(instance=instance, raise_on_error=False)
        assert tick() == "0 posted, 0 alike and not posted again"
        submit_many(machine, "hello_world", [{"n": 1, "failure_rate": 1, "message": "no"}, {"n": 1}])
        (asked,) = dispatch.tick(machine, instance).runs
        job = defs.resolve_job_def(asked.job_name)
        wave = job.execute_in_process(instance=instance, tags=dict(asked.tags), raise_on_error=False)
        crash = broken.execute_in_process(instance=instance, raise_on_error=False)
        assert tick() == "2 posted, 0 alike and not posted again"
        by_run = {body["run_id"]: body for body in receiver.bodies}
        assert set(by_run) == {wave.run_id, crash.run_id}
        said = by_run[wave.run_id]
        assert (said["job"], said["wave"], said["failed"]) == ("hello_world", asked.run_key, 1)
        assert sum(said["outcomes"].values()) == 2
        assert said["started_at"] <= said["ended_at"]
        assert said["error"].startswith("1 of 2 failed")
        died = by_run[crash.run_id]
        assert died["error"] == "ValueError: the disk is full: password=***"
        assert died["text"].splitlines()[1] == "`ValueError: the disk is full: password=***`"
        assert (died["job"], died["failures"], died["retry"]) == ("broken", [], None)
        # the same again is counted, and looking back finds nothing twice
        broken.execute_in_process(instance=instance, raise_on_error=False)
        receiver.bodies.clear()
        assert tick() == "0 posted, 1 alike and not posted again"
        assert tick() == "0 posted, 0 alike and not posted again"
        assert receiver.bodies == []
        # one that died before its first step, as run monitoring finds it
        dead = instance.create_run_for_job(broken)
        instance.report_run_failed(dead, "the run worker is gone")
        assert tick() == "1 posted, 0 alike and not posted again"
        assert (receiver.bodies[0]["run_id"], receiver.bodies[0]["error"]) == (dead.run_id, "the run worker is gone")
        # a cursor that cannot be read: what is known stays told, and only the run from before the first tick is new
        cursor[0] = "{"
        assert tick() == "0 posted, 1 alike and not posted again"
    machine.ledger.close()


def test_there_is_no_sensor_without_a_webhook_and_none_loads_with_a_bad_one() -> None:
    assert not build_failure_webhook(Settings()).sensors
    with pytest.raises(SettingsError):
        build_failure_webhook(Settings(failure_webhook=SecretStr("nowhere")))


# --- trying it -----------------------------------------------------------------------------------------------------


def test_the_command_line_tries_the_webhook(receiver: Receiver, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GEO_ASSETS_FAILURE_WEBHOOK" in run("notify").stderr
    monkeypatch.setenv("GEO_ASSETS_FAILURE_WEBHOOK", receiver.url)
    get_settings.cache_clear()
    assert run("notify", "--json").json == {"posted": False, "owed": 0, "kindsTold": 0}
    assert receiver.bodies == []
    assert run("notify", "--test").status == 0
    assert receiver.bodies[0]["event"] == "test"
    assert receiver.bodies[0]["text"].startswith("This is a test, nothing failed")
    receiver.answers = [404]
    refused = run("notify", "--test")
    assert refused.status == 4
    assert "answered 404" in refused.stderr
    assert CANARY not in refused.stderr + refused.stdout
