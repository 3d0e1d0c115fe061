"""Settings are read once, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.settings import Settings, load_settings

NAMES = tuple(name.upper() for name in Settings.model_fields)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_by_default_everything_lies_in_one_folder() -> None:
    settings = load_settings()
    assert settings.has_default_database
    assert settings.database_address == "sqlite:///data/fakescope.db"
    assert settings.image_store == Path("data/images")


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FAKESCOPE_HOME=elsewhere\n", encoding="utf-8")
    assert load_settings().fakescope_home == Path("elsewhere")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert load_settings().has_default_database


def test_a_wrong_address_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL.*http://host:port/v1"):
        load_settings()


def test_a_password_in_an_address_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:hush@host/v1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://app:hush@127.0.0.1/app")
    assert "hush" not in repr(load_settings())


def test_an_address_of_another_server_is_no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS_REDIS_URL", "http://user:hush@127.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"LIMITS_REDIS_URL.*redis://host:6379/0") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("broker", "own", "address"),
    [
        (None, None, None),
        ("amqp://127.0.0.1//", None, None),
        ("redis://127.0.0.1/0", None, "redis://127.0.0.1/0"),
        ("redis://127.0.0.1/0", "rediss://host/1", "rediss://host/1"),
    ],
)
def test_limits_are_counted_on_the_redis_named_first(
    broker: str | None, own: str | None, address: str | None
) -> None:
    settings = load_settings(celery_broker_url=broker, limits_redis_url=own)
    assert settings.limits_redis_address == address
