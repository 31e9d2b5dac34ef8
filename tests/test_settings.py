"""The settings: defaults, environment, paths, messages, and that no secret is shown."""

from pathlib import Path

import pytest

from geo_assets.coremachine.ledger import Ledger
from geo_assets.errors import SettingsError
from geo_assets.settings import Settings, get_settings

PREFIX = "GEO_ASSETS_"


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"


def test_the_defaults_are_the_originals_where_it_had_some() -> None:
    settings = Settings()
    assert (settings.task_max_retries, settings.task_retry_base_delay, settings.task_retry_max_delay) == (3, 5.0, 300.0)
    assert settings.listing_max_age == 0.0
    assert settings.executor == "in_process"


def test_all_embedded_state_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a home with 100% #names"
    monkeypatch.setenv(PREFIX + "HOME", str(home))
    settings = Settings()
    assert settings.home_path == home
    assert settings.blob_root_path == home / "containers"
    assert settings.listings_path == home / "listings"
    assert settings.ledger_sqlalchemy_url == f"sqlite:///{home / 'ledger.db'}"
    Ledger(settings.ledger_sqlalchemy_url).close()
    assert (home / "ledger.db").exists()


def test_the_blob_root_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PREFIX + "BLOB_ROOT", str(tmp_path / "data"))
    assert Settings().blob_root_path == tmp_path / "data"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_bare_postgresql_url_gets_the_driver_that_dagster_needs(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "LEDGER_URL", f"{scheme}://me:canary@db/x")
    assert Settings().ledger_sqlalchemy_url == "postgresql+psycopg2://me:canary@db/x"


@pytest.mark.parametrize("url", ["postgresql+psycopg2://me@db/x", "sqlite:////tmp/x.db"])
def test_a_url_that_names_its_driver_is_left_as_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "LEDGER_URL", url)
    assert Settings().ledger_sqlalchemy_url == url


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEDGER_URL", "AZURE_ACCOUNT_KEY", "WAVE_SIZE", "LEGACY_JOBS"):
        monkeypatch.setenv(PREFIX + name, "")
    settings = Settings()
    assert (settings.ledger_url, settings.azure_account_key, settings.legacy_jobs) == (None, None, None)
    assert settings.wave_size == Settings.model_fields["wave_size"].default


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WAVE_SIZE", "many", "integer"),
        ("WAVE_SIZE", "0", "greater than or equal to 1"),
        ("WAVE_SIZE", "5001", "less than or equal to 5000"),
        ("EXECUTOR", "dask", "'in_process'"),
        ("TASK_MAX_RETRIES", "11", "less than or equal to 10"),
        ("HEARTBEAT_SECONDS", "0", "greater than 0"),
        ("KEEP_RUN_DAYS", "1000000", "less than or equal to 36500"),
        ("KEEP_TASK_DAYS", "nan", "less than or equal to 36500"),
        ("KEEP_LISTING_DAYS", "inf", "less than or equal to 36500"),
        ("FAILURE_WEBHOOK_HOURS", "1e9", "less than or equal to 8760"),
    ],
)
def test_a_malformed_setting_is_named_with_what_it_takes(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        get_settings()
    assert PREFIX + name in str(caught.value)
    assert said in str(caught.value)


def test_secrets_are_neither_shown_nor_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "LEDGER_URL", "postgresql://me:canary@db/x")
    for name in ("AZURE_ACCOUNT_KEY", "AZURE_SAS_TOKEN", "AZURE_CONNECTION_STRING"):
        monkeypatch.setenv(PREFIX + name, "canary")
    settings = Settings()
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)
    assert "canary" not in settings.model_dump_json()
    monkeypatch.setenv(PREFIX + "WAVE_SIZE", "password=canary")
    with pytest.raises(SettingsError) as caught:
        get_settings()
    assert "canary" not in str(caught.value)


def test_settings_are_read_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_settings()
    monkeypatch.setenv(PREFIX + "WAVE_SIZE", "7")
    assert get_settings() is first
