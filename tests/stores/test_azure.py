"""What only Azure can do or suffer: names obstore cannot parse, sign-in, outages, error answers.

What belongs here: the Azure store's own faults, on Azurite and on faked answers.  What does not: the contract all
stores share.
"""

import base64
import hashlib
import http.client
import http.server
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from pydantic import SecretStr

from geo_assets.errors import (
    AccessDeniedError,
    BlobNotFoundError,
    ChecksumMismatchError,
    ContainerNotFoundError,
    GeoAssetsError,
    PreconditionFailedError,
    SettingsError,
    StoreUnavailableError,
    ThrottledError,
    UnsupportedNameError,
)
from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store
from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.azure_errors import Answer, translated

if TYPE_CHECKING:
    from tests.conftest import Azurite

WRONG_KEY = base64.b64encode(b"k" * 64).decode()


@pytest.fixture
def store(azurite: "Azurite") -> AzureBlobStore:
    return AzureBlobStore(AzureAccess.of_connection_string(azurite.connection_string), max_retries=0)


@pytest.fixture
def service(azurite: "Azurite") -> BlobServiceClient:
    return BlobServiceClient.from_connection_string(azurite.connection_string)


@pytest.fixture
def container(store: AzureBlobStore) -> str:
    name = f"t{uuid.uuid4().hex}"
    store.create_container(name)
    return name


def rows(store: AzureBlobStore, container: str, prefix: str = "") -> list[dict[str, Any]]:
    return [row for batch in store.list_blobs(container, prefix) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("real", "shown"),
    [("new\nline", r"new\nline"), ("tab\t", r"tab\t"), ("a//b", "a//b"), ("\x7f", r"\u007f")],
    ids=ascii,
)
def test_a_name_obstore_cannot_parse_is_a_row(
    store: AzureBlobStore, service: BlobServiceClient, container: str, real: str, shown: str
) -> None:
    for name in ("0 before", real, "~after"):
        service.get_blob_client(container, name).upload_blob(b"12345")
    found = {row["name"]: row for row in rows(store, container)}
    assert set(found) == {"0 before", shown, "~after"}
    assert found[shown]["problem"].startswith(f"unsupported name: '{shown}'")
    assert found[shown]["size"] == 5
    good = found["0 before"]
    assert good["problem"] is None
    assert good["etag"] == store.head(container, "0 before").etag


@pytest.mark.parametrize("real", ["dir/", "/dir"])
def test_a_slash_that_obstore_drops_is_noticed_beside_the_plain_name(
    store: AzureBlobStore, service: BlobServiceClient, container: str, real: str
) -> None:
    for name in ("dir", "dir-b", real, "dir/a"):
        service.get_blob_client(container, name).upload_blob(b"x")
    found = {row["name"]: row["problem"] for row in rows(store, container)}
    assert set(found) == {"dir", "dir-b", real, "dir/a"}
    assert [name for name, problem in found.items() if problem] == [real]


@pytest.mark.parametrize("real", ["marker/", "/marker"])
def test_a_slash_that_nothing_shows_is_explained_when_opened(
    store: AzureBlobStore, service: BlobServiceClient, container: str, real: str
) -> None:
    service.get_blob_client(container, real).upload_blob(b"x")
    assert [row["name"] for row in rows(store, container)] == ["marker"]
    with pytest.raises(UnsupportedNameError, match=f"unsupported name: '{real}'"):
        store.head(container, "marker")


def test_tags_are_listed_where_there_are_any(store: AzureBlobStore, service: BlobServiceClient, container: str) -> None:
    service.get_blob_client(container, "a").upload_blob(b"x", tags={"owner": "me", "n": "1"})
    service.get_blob_client(container, "b").upload_blob(b"x")
    found = [row for batch in store.list_blobs(container, detail="full") for row in batch.to_pylist()]
    assert [(row["name"], row["tags"]) for row in found] == [("a", '{"n": "1", "owner": "me"}'), ("b", None)]


@pytest.mark.parametrize("status", [400, 403, 409])
def test_an_account_without_tags_is_listed_without_them(
    store: AzureBlobStore, container: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(container, "a", b"x", metadata={"tier": "gold"})
    pages = store._pages

    def refusing(container: str, prefix: str, *, include: list[str]) -> Iterator[list[Any]]:
        if "tags" in include:
            error = HttpResponseError("refused")
            error.status_code = status
            raise error
        yield from pages(container, prefix, include=include)

    monkeypatch.setattr(store, "_pages", refusing)
    (batch,) = store.list_blobs(container, detail="full")
    assert [(row["name"], row["metadata"]) for row in batch.to_pylist()] == [("a", '{"tier": "gold"}')]


def test_what_was_given_before_the_fallback_is_not_given_again(
    store: AzureBlobStore, service: BlobServiceClient, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_assets.stores.azure._PAGE", 2)
    names = [f"{number:02d}" for number in range(9)]
    for name in (*names, "05\nbad"):
        service.get_blob_client(container, name).upload_blob(b"")
    # Azurite sends one page of up to 5,000; small chunks of it come out before the bad name is met, or none do
    found = [row["name"] for row in rows(store, container)]
    assert sorted(found) == sorted([*names, r"05\nbad"])
    listing = store._list_with_sdk(container, "", given=[_hashes(names[:4])])
    rest = [row["name"] for batch in listing for row in batch.to_pylist()]
    assert sorted(rest) == sorted([*names[4:], r"05\nbad"])


def _hashes(names: list[str]) -> Any:
    import polars as pl  # noqa: PLC0415

    return pl.Series(names).hash().to_numpy()


def test_content_type_and_metadata_come_with_the_head(store: AzureBlobStore, container: str) -> None:
    store.put(container, "a.tif", b"x", content_type="image/tiff", metadata={"tier": "bronze"})
    store.put_stream(container, "b.tif", [b"x"], content_type="image/tiff", metadata={"tier": "silver"})
    for name, tier in (("a.tif", "bronze"), ("b.tif", "silver")):
        found = store.head(container, name)
        assert (found.content_type, dict(found.metadata)) == ("image/tiff", {"tier": tier})


def test_a_large_put_goes_in_blocks(store: AzureBlobStore, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.stores.azure._MOST_IN_ONE_PUT", 100)
    monkeypatch.setattr("geo_assets.stores.azure._BLOCK", 64)
    data = bytes(range(250))
    etag = store.put(container, "b", data)
    assert store.read(container, "b") == data
    with pytest.raises(PreconditionFailedError):
        store.put(container, "b", data, mode="create")
    assert store.head(container, "b").etag == etag


# --- sign-in -------------------------------------------------------------------------------------------------


def sas(azurite: "Azurite", *, permissions: str = "rlwdc", hours: float = 1) -> str:
    return generate_account_sas(
        azurite.account_name,
        azurite.account_key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions.from_string(permissions),  # type: ignore[no-untyped-call]
        datetime.now(UTC) + timedelta(hours=hours),
    )


@pytest.mark.parametrize("way", ["key", "sas", "sas with ?", "connection string", "sas connection string", "sdk key"])
def test_each_way_to_sign_in_works(azurite: "Azurite", container: str, way: str) -> None:
    base: dict[str, Any] = {"blob_store": "azure", "azure_endpoint": azurite.endpoint}
    settings = {
        "key": {**base, "azure_account": azurite.account_name, "azure_account_key": SecretStr(azurite.account_key)},
        "sas": {**base, "azure_sas_token": SecretStr(sas(azurite))},
        "sas with ?": {**base, "azure_sas_token": SecretStr("?" + sas(azurite))},
        "connection string": {**base, "azure_connection_string": SecretStr(azurite.connection_string)},
        "sas connection string": {
            **base,
            "azure_connection_string": SecretStr(
                f"BlobEndpoint={azurite.endpoint};SharedAccessSignature={sas(azurite)}"
            ),
        },
    }
    if way == "sdk key":
        access = AzureAccess.of_credential(
            azurite.endpoint,
            AzureNamedKeyCredential(azurite.account_name, azurite.account_key),
        )
        store: Any = AzureBlobStore(access)
    else:
        store = open_blob_store(Settings.model_validate(settings[way]))
    store.put_stream(container, "a b.tif", [b"data"])
    assert [row["name"] for row in rows(store, container)] == ["a b.tif"]
    assert store.read(container, "a b.tif") == b"data"
    assert store.uri(container, "a b.tif") == f"{azurite.endpoint}/{container}/a%20b.tif"


class Credential:
    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == ("https://storage.azure.com/.default",)
        return AccessToken("canary-token", int(datetime.now(UTC).timestamp()) + 3600)


def test_a_token_credential_signs_obstores_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404, "ContainerNotFound") as (endpoint, requests):
        # the SDK's half refuses tokens over http, as it should; a server with a certificate is too much for a test
        monkeypatch.setattr("geo_assets.stores.azure.BlobServiceClient", lambda *_, **__: None)
        access = AzureAccess(endpoint=endpoint, account="acc", token_credential=Credential())
        with pytest.raises(ContainerNotFoundError):
            rows(AzureBlobStore(access), "c")
    assert requests[0]["authorization"] == "Bearer canary-token"


def test_a_token_is_used_where_no_secret_is_set_and_over_https_only() -> None:
    given = {"blob_store": "azure", "azure_account": "acc"}
    credential = Credential()
    store: Any = open_blob_store(Settings.model_validate(given), credential=credential)
    assert store._access.token_credential is credential
    store = open_blob_store(Settings.model_validate({**given, "azure_account_key": "a2V5"}), credential=credential)
    assert (store._access.token_credential, store._access.key) == (None, "a2V5")
    store = open_blob_store(Settings.model_validate(given))
    assert type(store._access.token_credential).__name__ == "DefaultAzureCredential"
    with pytest.raises(SettingsError, match="https only"):
        open_blob_store(Settings.model_validate({**given, "azure_endpoint": "http://x/acc"}), credential=credential)


def test_a_key_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError, match="not base64") as caught:
        AzureAccess.of_account("acc", key="?sv=1&sig=canary")
    assert "canary" not in str(caught.value)


def test_a_wrong_key_is_no_permission(azurite: "Azurite", container: str) -> None:
    access = AzureAccess.of_account(azurite.account_name, endpoint=azurite.endpoint, key=WRONG_KEY)
    store = AzureBlobStore(access, max_retries=0)
    for attempt in (
        lambda: rows(store, container),
        lambda: rows(store, container, "text"),
        lambda: store.head(container, "a"),
        lambda: store.read(container, "a"),
        lambda: store.read_range(container, "a", 0, 1),
        lambda: store.put(container, "a", b""),
        lambda: store.put_stream(container, "a", [b"x"]),
        lambda: store.delete(container, "a"),
        lambda: store.container_exists(container),
        lambda: store.create_container("another"),
        store.list_containers,
    ):
        with pytest.raises(AccessDeniedError, match="no permission") as caught:
            attempt()
        assert WRONG_KEY not in str(caught.value)


@pytest.mark.parametrize(("permissions", "hours"), [("rl", 1), ("rlwdc", -1)])
def test_a_sas_that_may_not_is_named_without_its_signature(
    azurite: "Azurite", container: str, permissions: str, hours: float
) -> None:
    token = sas(azurite, permissions=permissions, hours=hours)
    store = AzureBlobStore(AzureAccess.of_account(None, endpoint=azurite.endpoint, sas_token=token), max_retries=0)
    signature = token.partition("sig=")[2].partition("&")[0]
    for attempt in (lambda: store.put(container, "a", b"x"), lambda: store.put_stream(container, "a", [b"x"])):
        with pytest.raises(AccessDeniedError, match="SAS") as caught:
            attempt()  # type: ignore[no-untyped-call]
        assert signature not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_secrets_are_not_in_any_representation(azurite: "Azurite") -> None:
    access = AzureAccess.of_connection_string(azurite.connection_string)
    store = AzureBlobStore(access)
    for text in (repr(access), repr(store), str(store), store.description, store.uri("c", "a")):
        assert azurite.account_key not in text


@pytest.mark.parametrize(
    ("text", "endpoint", "account", "signed"),
    [
        ("AccountName=acc;AccountKey=a2V5", "https://acc.blob.core.windows.net", "acc", "key"),
        (
            "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2U=;EndpointSuffix=x.y",
            "http://a.blob.x.y",
            "a",
            "key",
        ),
        (
            "BlobEndpoint=https://acc.blob.x.y/;SharedAccessSignature=?sv=1&sig=x",
            "https://acc.blob.x.y",
            "acc",
            "sas_token",
        ),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1", "key"),
    ],
)
def test_connection_strings_are_read(text: str, endpoint: str, account: str, signed: str) -> None:
    access = AzureAccess.of_connection_string(text)
    assert (access.endpoint, access.account) == (endpoint, account)
    assert getattr(access, signed)
    assert not (access.sas_token or "").startswith("?")


@pytest.mark.parametrize("text", ["", "nonsense", "AccountKey=secretsecret", "AccountName=a;secretsecret"])
def test_a_malformed_connection_string_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SettingsError, match="connection string") as caught:
        AzureAccess.of_connection_string(text)
    assert "secret" not in str(caught.value)


def test_an_endpoint_may_carry_its_sas_and_never_shows_it() -> None:
    access = AzureAccess.of_account(None, endpoint="https://acc.blob.core.windows.net/?sv=1&sig=canary")
    assert (access.endpoint, access.sas_token) == ("https://acc.blob.core.windows.net", "sv=1&sig=canary")


@pytest.mark.parametrize(("account", "endpoint"), [(None, None), (None, "nonsense"), ("a", "ftp://x")])
def test_an_account_must_be_named(account: str | None, endpoint: str | None) -> None:
    with pytest.raises(SettingsError, match="Azure blob"):
        AzureAccess.of_account(account, endpoint=endpoint)


def test_credentials_of_the_sdk_are_understood() -> None:
    url = "https://acc.blob.core.windows.net"
    assert AzureAccess.of_credential(url, AzureSasCredential("sv=1&sig=x")).sas_token == "sv=1&sig=x"
    assert AzureAccess.of_credential(url, "?sv=1&sig=x").sas_token == "sv=1&sig=x"
    assert AzureAccess.of_credential(url, "a2V5").key == "a2V5"
    assert AzureAccess.of_credential(url, None).sdk_credential is None
    token = SimpleNamespace(get_token=lambda *_: None)
    assert AzureAccess.of_credential(url, token).token_credential is token
    with pytest.raises(SettingsError, match="cannot sign in with a int"):
        AzureAccess.of_credential(url, 5)


# --- outages and answers ---------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, code: str | None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server on loopback that gives every request the same answer; yields its endpoint and the headers it got."""
    requests: list[dict[str, str]] = []
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'.encode() if code else b""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            requests.append({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            sent = b"" if self.command == "HEAD" else body
            if code:
                self.send_header("x-ms-error-code", code)
                self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer  # noqa: N815 - names the server looks for

        def log_message(self, *_: Any) -> None:
            pass

    with _serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/acc", requests


@contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on loopback; yields the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (503, "ServerBusy", ThrottledError),
        (429, None, ThrottledError),
        (500, "InternalError", StoreUnavailableError),
        (500, "OperationTimedOut", StoreUnavailableError),
        (403, "AuthorizationPermissionMismatch", AccessDeniedError),
        (401, "NoAuthenticationInformation", AccessDeniedError),
        (409, "BlobArchived", GeoAssetsError),
        (409, "ContainerBeingDeleted", StoreUnavailableError),
        (400, "InvalidHeaderValue", GeoAssetsError),
    ],
)
def test_each_answer_has_its_error(status: int, code: str | None, expected: type[GeoAssetsError]) -> None:
    with answering(status, code) as (endpoint, _):
        store = AzureBlobStore(
            AzureAccess.of_account("acc", endpoint=endpoint, sas_token="sv=1&sig=canary%2Bsecret"), max_retries=0
        )
        for attempt in (
            lambda: rows(store, "c"),
            lambda: store.read("c", "a"),
            lambda: store.put("c", "a", b"x"),
            lambda: store.put_stream("c", "a", [b"x"]),
        ):
            with pytest.raises(expected) as caught:
                attempt()
            assert type(caught.value) is expected
            assert "canary" not in str(caught.value)


@contextmanager
def damaging(endpoint: str, sent: bytes, damaged: bytes) -> Iterator[str]:
    """A relay to a service that replaces text in the bodies of requests; yields its endpoint."""
    service = urlsplit(endpoint)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).replace(sent, damaged)
            connection = http.client.HTTPConnection(service.netloc, timeout=30)
            with closing(connection):
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "keep-alive"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = relay  # noqa: N815 - names the server looks for

        def log_message(self, *_: Any) -> None:
            pass

    with _serving(Handler) as port:
        yield f"http://127.0.0.1:{port}{service.path}"


@pytest.mark.parametrize("digest", [None, hashlib.sha256(b"pixels").hexdigest()], ids=["plain", "digest"])
def test_a_block_damaged_on_its_way_is_refused(
    azurite: "Azurite", store: AzureBlobStore, container: str, digest: str | None
) -> None:
    with damaging(azurite.endpoint, b"pixels", b"pixelz") as endpoint:
        access = AzureAccess.of_account(azurite.account_name, endpoint=endpoint, key=azurite.account_key)
        relayed = AzureBlobStore(access, max_retries=0)
        relayed.put_stream(container, "whole", [b"text"])
        with pytest.raises(ChecksumMismatchError, match="changed on its way"):
            relayed.put_stream(container, "damaged", [b"pixels"], sha256=digest)
    assert [row["name"] for row in rows(store, container)] == ["whole"]


def test_an_unreachable_service_is_transient() -> None:
    access = AzureAccess.of_account("acc", endpoint="http://127.0.0.1:1/acc", key="a2V5")
    store = AzureBlobStore(access, max_retries=0)
    for attempt in (
        lambda: rows(store, "c"),
        lambda: store.head("c", "a"),
        lambda: store.read_range("c", "a", 0, 1),
        store.list_containers,
        lambda: store.put_stream("c", "a", [b"x"]),
    ):
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            attempt()


def test_where_we_may_not_ask_a_missing_blob_is_a_missing_blob(
    store: AzureBlobStore, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> bool:
        raise AccessDeniedError("a SAS of one container may not see its properties")

    monkeypatch.setattr(store, "container_exists", refuse)
    with pytest.raises(BlobNotFoundError):
        store.head(container, "gone")


def test_an_answer_hides_secrets_and_debug_output() -> None:
    error = RuntimeError(
        "Generic error: GET https://a.blob/c?sig=abc%2Bdef&x=1 - Server returned non-2xx status code: 503 Busy:"
        " <?xml version='1.0'?><Error><Code>ServerBusy</Code></Error>\nDebug source: headers"
    )
    answer = Answer.of(error)
    assert (answer.status, answer.code) == (503, "ServerBusy")
    assert "abc" not in answer.text
    assert "Debug" not in answer.text
    assert isinstance(translated(answer, "blob"), ThrottledError)
