"""Opening the configured database: the default file, and everything that can be wrong."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from core.errors import ConfigError, TransientError
from core.records import Source
from core.settings import Settings, load_settings
from db import engine as engine_module
from db.engine import Database, database_url, describe, open_database
from db.images import count_images, save_source
from db.schema import known_revisions
from tests.brokers import free_port

MIGRATIONS = Path(engine_module.__file__).with_name("migrations") / "versions"


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return load_settings(fakescope_home=tmp_path / "home")


def named(address: str) -> Settings:
    return load_settings(database_url=address)


def test_the_default_file_is_created_with_its_tables(home: Settings) -> None:
    for _ in range(2):
        database = open_database(home)
        with database.read() as session:
            assert count_images(session).total == 0
            revision = session.execute(text("SELECT version_num FROM alembic_version")).scalar()
        assert revision == known_revisions()[-1]
        assert database.dialect == "sqlite"
        database.dispose()
    assert (home.fakescope_home / "fakescope.db").is_file()


def test_a_worker_never_creates_nor_migrates_even_the_default_file(home: Settings) -> None:
    with pytest.raises(ConfigError, match="python -m db upgrade"):
        open_database(home, migrate=False)
    open_database(home).dispose()
    open_database(home, migrate=False).dispose()


def test_a_home_with_odd_characters_is_fine(tmp_path: Path) -> None:
    folder = tmp_path / "50% of ?why#not & so@on ü"
    open_database(load_settings(fakescope_home=folder)).dispose()
    assert (folder / "fakescope.db").is_file()


def open_in_a_process(home: Settings) -> str:
    database = open_database(home)
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
    database.dispose()
    return database.place


def test_processes_that_start_at_once_create_the_default_file_together(home: Settings) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        places = {job.result() for job in [pool.submit(open_in_a_process, home) for _ in range(3)]}
    assert len(places) == 1


def test_another_file_is_never_created_or_migrated(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with pytest.raises(ConfigError, match=r"own\.db.*python -m db upgrade"):
        open_database(named(f"sqlite:///{path}"))
    assert not path.exists()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (words TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"own\.db holds no tables yet.*python -m db upgrade"):
        open_database(named(f"sqlite:///{path}"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mysql://root:hush@localhost/db", "mysql is not supported"),
        ("postgresql+psycopg2://a:hush@localhost/db", "psycopg2 is not supported"),
        ("nonsense hush", "no database address"),
        ("postgresql://app:hush@host:port/db", "no database address"),
        ("sqlite://", "name an SQLite file"),
        ("sqlite:///:memory:", "name an SQLite file"),
        ("sqlite:///file:x?mode=memory&uri=true", "name an SQLite file"),
    ],
)
def test_a_wrong_address_is_one_line_without_the_password(address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        open_database(named(address))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_server_that_does_not_answer_is_named_without_the_password(scheme: str) -> None:
    port = free_port()
    with pytest.raises(ConfigError, match=f"database app on 127.0.0.1:{port}") as caught:
        open_database(named(f"{scheme}://me:hush@127.0.0.1:{port}/app?sslpassword=hush"))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_the_address_of_a_socket_can_be_shown() -> None:
    url = database_url(named("postgresql:///app"))
    assert describe(url) == "database app on the local socket:5432"


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="that is a folder"):
        open_database(named(f"sqlite:///{tmp_path}"))


def test_a_file_in_the_place_of_the_home_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"data cannot be created .*FAKESCOPE_HOME"):
        open_database(load_settings(fakescope_home=tmp_path / "home" / "data"))


def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    path.write_text("the notes of somebody who is not a database " * 100)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"own\.db: it is no SQLite database"):
        open_database(named(f"sqlite:///{path}"))
    assert path.read_bytes() == before


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, while this process may not write where nobody may: root gives up its rights."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        try:
            if is_root:
                os.seteuid(65534)
            if not os.access(MIGRATIONS, os.R_OK | os.X_OK, effective_ids=True):
                pytest.skip(f"only root may enter {MIGRATIONS}")
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o777)


def test_a_read_only_home_is_named(unprivileged: Path) -> None:
    home = unprivileged / "home"
    home.mkdir(mode=0o555)
    with pytest.raises(ConfigError, match=f"{home} is read-only: make it writable"):
        open_database(load_settings(fakescope_home=home))


def test_a_home_that_cannot_be_made_is_named(unprivileged: Path) -> None:
    unprivileged.joinpath("locked").mkdir(mode=0o555)
    home = unprivileged / "locked" / "home"
    with pytest.raises(ConfigError, match=rf"{home} cannot be created \(permission denied\)"):
        open_database(load_settings(fakescope_home=home))


def test_a_read_only_file_is_named(unprivileged: Path) -> None:
    settings = load_settings(fakescope_home=unprivileged / "home")
    open_database(settings).dispose()
    path = settings.fakescope_home / "fakescope.db"
    path.chmod(0o444)
    with pytest.raises(ConfigError, match=r"fakescope\.db is read-only: make it writable"):
        open_database(settings)


def fill(database: Database, rows: int) -> None:
    with database.write() as session:
        for number in range(rows):
            save_source(session, Source(name=f"source {number}", licence="x" * 1000))


def test_a_full_disk_is_named_and_what_was_stored_is_kept(home: Settings) -> None:
    database = open_database(home)
    fill(database, 2)
    with (
        pytest.raises(ConfigError, match=r"fakescope\.db: the disk is full"),
        database.write() as session,
    ):
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
        for number in range(1000):
            save_source(session, Source(name=f"more {number}", licence="x" * 1000))
    with database.read() as session:
        names = session.execute(text("SELECT name FROM sources ORDER BY name")).scalars().all()
    assert names == ["source 0", "source 1"]


def test_a_database_that_others_keep_locked_is_worth_another_try(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(home).dispose()
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.1)
    database = open_database(home)
    other = sqlite3.connect(home.fakescope_home / "fakescope.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="kept it locked"), database.write():
        pytest.fail("the lock is taken")
    with database.read() as session:
        assert count_images(session).total == 0
    other.execute("ROLLBACK")
    other.close()
    fill(database, 1)


def test_a_thread_that_keeps_the_lock_does_not_stop_the_others_for_ever(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(home)
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.1)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write():
            inside.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert inside.wait(30)
        with pytest.raises(TransientError, match="another thread"), database.write():
            pytest.fail("the lock is taken")
    finally:
        done.set()
        holder.join()
    fill(database, 1)
