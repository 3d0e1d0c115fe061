"""A home folder of the test's own, with its image store and its database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import load_settings
from db.engine import Database, open_database
from imaging.store import ImageStore
from tests.databases import sqlite_template  # noqa: F401


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path / "home"))
    for name in ("DATABASE_URL", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> ImageStore:
    return ImageStore(home / "images")


@pytest.fixture
def database(home: Path, sqlite_template: Path) -> Iterator[Database]:  # noqa: F811
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(sqlite_template, home / "fakescope.db")
    opened = open_database(load_settings(fakescope_home=home))
    yield opened
    opened.dispose()
