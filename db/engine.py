"""Open the configured database, and hand out short transactions on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    PoolProxiedConnection,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from core.errors import ConfigError, TransientError
from core.settings import Settings
from db import schema
from db.failures import explain, explained, first_line
from db.group_commit import Change, GroupCommit, Item, Result

BUSY_SECONDS = 60
"""how long a writer waits for the writers of other processes before it gives up"""
CONNECT_SECONDS = 10
MAPPED_BYTES = 2**30
"""of an SQLite file at most"""
DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class Database:
    """One open database, shared by the threads of the process that opened it.

    A process that was forked off opens its own: connections do not survive a fork.
    """

    def __init__(self, engine: Engine, place: str) -> None:
        self.place = place
        """the address without user and password"""
        self._engine = engine
        self._readers = engine.execution_options(**READING[engine.dialect.name])
        self._writers = engine.execution_options(writes=True)
        self._turn = threading.Lock()
        self._watch = threading.Lock()
        self._watcher: PoolProxiedConnection | None = None
        self._group = GroupCommit(self.write)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view of the data until the block ends; writing in it is an error."""
        with explained(self.place), Session(self._readers, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, rolled back when the block raises. Never inside another `write`."""
        with (
            explained(self.place),
            self._one_writer() if self.dialect == "sqlite" else nullcontext(),
            Session(self._writers, autoflush=False) as session,
            session.begin(),
        ):
            session.connection()  # takes SQLite's write lock before anything is read
            yield session

    def version(self) -> str:
        """Another word after each commit, whoever made it: where it is the same, so is the data."""
        if self.dialect == "postgresql":
            with self.read() as session:
                return str(session.execute(text("SELECT pg_current_snapshot()")).scalar_one())
        with explained(self.place), self._watch:
            if self._watcher is None:  # SQLite counts what others commit, per connection
                self._watcher = self._engine.raw_connection()
            cursor = self._watcher.cursor()
            cursor.execute("PRAGMA data_version")
            found: Any = cursor.fetchone()
            return f"{id(self._watcher)} {found[0]}"

    def write_together(self, change: Change[Item, Result], item: Item, *, rank: int = 0) -> Result:
        """One change in a transaction shared with other threads; see `db.group_commit`."""
        return self._group.apply(change, item, rank=rank)

    def map_file(self) -> None:
        """Let whoever reads all day read an SQLite file in place: large counts take half the time.

        The mapped part counts as memory of the process, which shares it with the system's cache.
        """
        if self.dialect == "sqlite":
            event.listen(self._engine, "connect", _map_sqlite)
            self.dispose()

    def dispose(self) -> None:
        """Close all connections."""
        with self._watch:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        self._engine.dispose()

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        """Threads queue here: fairer, and cheaper, than polling for SQLite's lock."""
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise TransientError(f"{self.place}: another thread kept it locked; try again")
        try:
            yield
        finally:
            self._turn.release()


READING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def open_database(settings: Settings, *, migrate: bool = True) -> Database:
    """Connect and check the schema; only the default SQLite file is created and migrated here.

    Workers pass `migrate=False`: they never change a schema, not even that one. Whatever is wrong
    (address, folder, server, revision) is a ConfigError that says what to change.
    """
    url = database_url(settings)
    migrates = migrate and settings.has_default_database
    if migrates:
        make_home(settings.fakescope_home)
    engine, place = connect(url, create=migrates)
    with explained(place):
        if migrates:
            schema.bring_up_to_date(engine, place)
        else:
            schema.require_current(engine, place)
    return Database(engine, place)


def make_home(folder: Path) -> None:
    """Create the home folder where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"folder {folder} cannot be created ({str(error.strerror).lower()}): "
            "name a folder that can be written in FAKESCOPE_HOME"
        ) from None


def database_url(settings: Settings) -> URL:
    """The configured address with the driver that we use."""
    if settings.database_url is None:
        return URL.create("sqlite", database=str(settings.fakescope_home / "fakescope.db"))
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        raise ConfigError(
            "DATABASE_URL is no database address; it looks like "
            "postgresql://user:password@host/name or sqlite:///folder/file.db"
        ) from None
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigError(
            f"DATABASE_URL: {url.drivername} is not supported; use sqlite:/// or postgresql://"
        )
    return url.set(drivername=driver)


def connect(url: URL, *, create: bool = False) -> tuple[Engine, str]:
    """An engine that was seen to answer, and its address without user and password.

    A SQLite file that does not exist is an error unless `create`.
    """
    place = describe(url)
    if url.drivername == "sqlite":
        engine = _sqlite_engine(url, place, create=create)
    else:
        engine = _postgresql_engine(url)
    _check_answer(engine, place)
    return engine, place


def describe(url: URL) -> str:
    """The address of a database as it may be shown: no user, no password, no options."""
    if url.drivername == "sqlite":
        return f"database {url.database}"
    host = f"{url.host or 'the local socket'}:{url.port or 5432}"
    return f"database {url.database or url.username} on {host}"


def _sqlite_engine(url: URL, place: str, *, create: bool) -> Engine:
    if not url.database or url.database.startswith((":memory:", "file:")):
        raise ConfigError("DATABASE_URL: name an SQLite file, as in sqlite:///folder/file.db")
    wrong = _what_is_wrong_with(Path(url.database), create=create)
    if wrong:
        raise ConfigError(f"{place}: {wrong}")
    arguments = {"timeout": BUSY_SECONDS}
    engine = create_engine(url, connect_args=arguments, pool_size=8, max_overflow=-1)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _what_is_wrong_with(path: Path, *, create: bool) -> str | None:
    """Why an SQLite file cannot be used, and the remedy; None when it can. Creates nothing."""
    if path.is_dir():
        return "that is a folder: name a file in it"
    if not create and not path.exists():
        return "there is no such file: `python -m db upgrade` creates it"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}: create it"
    for needed in (path.parent, path):
        if needed.exists() and not os.access(needed, os.W_OK, effective_ids=True):
            another = "or name another place in FAKESCOPE_HOME or DATABASE_URL"
            return f"{needed} is read-only: make it writable, {another}"
    return None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Settings that SQLite keeps per connection; the driver leaves BEGIN to `_begin_sqlite`."""
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _map_sqlite(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a reader that turns into a writer fails instead of waiting."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql_engine(url: URL) -> Engine:
    arguments = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "fakescope",
        # compiling takes longer than it saves on any query of ours, and pages of an index are in
        # memory or on a solid-state disk, where reading one by one costs no more
        "options": "-c jit=off -c random_page_cost=1.1",
    }
    missing = {name: value for name, value in arguments.items() if name not in url.query}
    return create_engine(url, connect_args=missing, pool_size=8, max_overflow=8, pool_pre_ping=True)


def _check_answer(engine: Engine, place: str) -> None:
    try:
        with engine.connect():
            return
    except DBAPIError as error:
        known = explain(error, place)
        if isinstance(known, ConfigError):
            raise known from None
        cause = first_line(error.orig or error)
    raise ConfigError(f"{place} cannot be reached ({cause}): check DATABASE_URL and the server")
