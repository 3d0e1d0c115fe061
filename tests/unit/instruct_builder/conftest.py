"""A home folder of the test's own, with its image store and its database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import load_settings
from db.engine import Database, open_database
from imaging.store import ImageStore


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path / "home"))
    for name in ("DATABASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> ImageStore:
    return ImageStore(home / "images")


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    opened = open_database(load_settings(fakescope_home=home))
    yield opened
    opened.dispose()
