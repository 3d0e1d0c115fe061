"""Deployment settings: where things are. Read once from the environment or `.env`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError

REDIS_SCHEMES = ("redis://", "rediss://")


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    fakescope_home: Path = Field(
        Path("data"), description="folder of the image store, the default database and all results"
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy address; default: a SQLite file in the home folder"
    )
    celery_broker_url: SecretStr | None = Field(
        None, description="Redis or RabbitMQ address; default: an in-process worker, no server"
    )
    openai_base_url: str | None = Field(
        None, description="an OpenAI-compatible teacher; default: the rehearsal teacher"
    )
    openai_api_key: SecretStr | None = Field(
        None, description="key of that teacher; never sent to the rehearsal teacher"
    )
    openai_model: str | None = Field(None, description="model name that the teacher knows")
    openai_requests_per_minute: int | None = Field(
        None, ge=1, description="what that teacher allows; default: the limits of the recipe's arm"
    )
    openai_tokens_per_minute: int | None = Field(
        None, ge=1, description="likewise, each call counted at its worst case"
    )
    limits_redis_url: SecretStr | None = Field(
        None,
        description="where workers count requests and tokens together; "
        "default: the broker when it is Redis, else the database",
    )
    usd_per_day: float | None = Field(
        None, ge=0, description="most that all campaigns together may spend in a day of UTC"
    )
    label_studio_url: str | None = Field(
        None, description="the team's Label Studio; default: the one that `make annotate` runs here"
    )
    label_studio_api_key: SecretStr | None = Field(
        None, description="an access token of that server"
    )

    @field_validator("label_studio_url")
    @classmethod
    def _is_server_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no web address; write http://host:port")
        if "@" in value:
            raise ValueError("the address holds a user or password; use LABEL_STUDIO_API_KEY")
        return value.rstrip("/")

    @field_validator("openai_base_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no web address; write http://host:port/v1")
        if value is not None and "@" in value.removeprefix("https://").partition("/")[0]:
            raise ValueError("the address holds a user or password; put the key in OPENAI_API_KEY")
        return value

    @field_validator("limits_redis_url")
    @classmethod
    def _is_redis_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError("this is no Redis address; write redis://host:6379/0")
        return value

    @property
    def limits_redis_address(self) -> str | None:
        """The Redis that counts requests and tokens; may hold a password, so never log it."""
        for url in (self.limits_redis_url, self.celery_broker_url):
            if url is not None and url.get_secret_value().startswith(REDIS_SCHEMES):
                return url.get_secret_value()
        return None

    @property
    def has_default_database(self) -> bool:
        return self.database_url is None

    @property
    def database_address(self) -> str:
        """The SQLAlchemy address in use; may hold a password, so never log it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.fakescope_home / 'fakescope.db'}"

    @property
    def image_store(self) -> Path:
        return self.fakescope_home / "images"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; every problem is reported at once."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(f"environment: {problems}; see .env.example") from None
