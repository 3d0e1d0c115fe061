"""Deployment settings: where things are. Read once from the environment or `.env`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError


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

    @field_validator("openai_base_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no web address; write http://host:port/v1")
        if value is not None and "@" in value.removeprefix("https://").partition("/")[0]:
            raise ValueError("the address holds a user or password; put the key in OPENAI_API_KEY")
        return value

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
