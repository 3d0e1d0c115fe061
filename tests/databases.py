"""Real databases for tests: an SQLite file, and a throw-away database on a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from core.settings import Settings, load_settings
from db import schema
from db.engine import Database, connect, database_url, open_database
from db.tables import Row
from tests.brokers import free_port, skip_or_fail

LOCAL = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows; copied for each test."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    create_tables(load_settings(database_url=f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The address of an empty database that exists for this test session alone."""
    with postgresql_server() as server, new_database(server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgresql_tables(postgresql_url: str) -> str:
    """The address of a PostgreSQL database with all tables; tests empty them."""
    create_tables(load_settings(database_url=postgresql_url))
    return postgresql_url


@pytest.fixture(params=DIALECTS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that name a database with all tables and no rows, of each kind in turn."""
    if request.param == "sqlite":
        path = tmp_path / "test.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return load_settings(database_url=f"sqlite:///{path}")
    settings = load_settings(database_url=request.getfixturevalue("postgresql_tables"))
    empty_tables(settings)
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """An open database without rows, of each kind in turn."""
    opened = open_database(settings)
    yield opened
    opened.dispose()


@pytest.fixture(params=DIALECTS)
def bare_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings that name a database without tables, of each kind in turn."""
    if request.param == "sqlite":
        yield load_settings(database_url=f"sqlite:///{tmp_path / 'bare.db'}")
        return
    with new_database(make_url(request.getfixturevalue("postgresql_url"))) as url:
        yield load_settings(database_url=url.render_as_string(hide_password=False))


@contextmanager
def postgresql_server() -> Iterator[URL]:
    """A PostgreSQL server: the one in the environment, a local one, or one started for the test."""
    address = os.environ.get("TEST_DATABASE_URL", LOCAL)
    if "TEST_DATABASE_URL" in os.environ or is_answering(address):
        yield make_url(address).set(drivername="postgresql+psycopg")
        return
    binaries = find_binaries()
    if binaries is None:
        skip_or_fail("a PostgreSQL server", "apt-get install postgresql")
    else:
        with (
            TemporaryDirectory(prefix="postgresql-") as name,
            started_server(binaries, Path(name)) as url,
        ):
            yield url


@contextmanager
def started_server(binaries: Path, folder: Path) -> Iterator[URL]:
    """A server of our own in `folder`; as root it runs as user postgres, for it refuses root."""
    port, data = free_port(), folder / "data"
    as_user: list[str | Path] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    make: list[str | Path] = [
        "-D",
        data,
        "-A",
        "trust",
        "-U",
        "postgres",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([*as_user, binaries / "initdb", *make], check=True, stdout=subprocess.DEVNULL)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    fast = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    control: list[str | Path] = [*as_user, binaries / "pg_ctl", "-D", data, "-w"]
    start: list[str | Path] = ["-o", f"{options} {fast}", "-l", folder / "log", "start"]
    subprocess.run([*control, *start], check=True, stdout=subprocess.DEVNULL)
    try:
        yield URL.create("postgresql+psycopg", "postgres", None, "127.0.0.1", port, "postgres")
    finally:
        stop = ["-m", "immediate", "stop"]
        subprocess.run([*control, *stop], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def new_database(server: URL) -> Iterator[URL]:
    """Create an empty database on a server, and drop it in the end."""
    name = f"fakescope_test_{uuid4().hex[:12]}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


def create_tables(settings: Settings) -> None:
    """What `python -m db upgrade` does."""
    engine, place = connect(database_url(settings), create=True)
    schema.upgrade(engine, place)
    engine.dispose()


def empty_tables(settings: Settings) -> None:
    """Delete all rows of a PostgreSQL database."""
    engine, _ = connect(database_url(settings))
    with engine.begin() as connection:
        for table in reversed(Row.metadata.sorted_tables):
            connection.execute(table.delete())  # with few rows faster than TRUNCATE
    engine.dispose()


def is_answering(address: str) -> bool:
    engine = create_engine(address, connect_args={"connect_timeout": 2})
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None
