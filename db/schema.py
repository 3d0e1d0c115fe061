"""The revision of a database: read it, check it, move it."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from core.errors import ConfigError

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE = "`python -m db upgrade`"
POSTGRESQL_LOCK = 7301442605
"""any number that no other program locks in the same database"""


def known_revisions() -> list[str]:
    """The revisions of this version of FakeScope, oldest first, from the names of their files."""
    files = sorted((MIGRATIONS / "versions").glob("[0-9]*.py"))
    return [file.stem.partition("_")[0] for file in files]


def revision_of(engine: Engine) -> str | None:
    """The revision that a database is at; None for an empty one."""
    with engine.connect() as connection:
        return _revision(connection)


def bring_up_to_date(engine: Engine, place: str) -> None:
    """Migrate a database to this version, unless it is there already; one process at a time."""
    with _file_lock(engine):
        if revision_of(engine) != known_revisions()[-1]:
            _migrate(engine, place, "head", step="upgrade")


def require_current(engine: Engine, place: str) -> None:
    """Raise a ConfigError with the remedy unless the database is at this version's revision."""
    found, wanted = revision_of(engine), known_revisions()[-1]
    _refuse_unknown(found, place)
    if found is None:
        raise ConfigError(f"{place} holds no tables yet: run {UPGRADE}")
    if found != wanted:
        raise ConfigError(f"{place} is at revision {found}, not {wanted}: run {UPGRADE}")


def upgrade(engine: Engine, place: str, revision: str = "head") -> None:
    """Apply the missing revisions in one transaction; two processes at once do it once."""
    with _file_lock(engine):
        _migrate(engine, place, revision, step="upgrade")


def downgrade(engine: Engine, place: str, revision: str) -> None:
    """Go back to `revision` (`base`: before the first, `-1`: one back) in one transaction."""
    with _file_lock(engine):
        _migrate(engine, place, revision, step="downgrade")


def _migrate(engine: Engine, place: str, revision: str, *, step: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _locked_transaction(engine) as connection:
        _refuse_unknown(_revision(connection), place)
        config.attributes["connection"] = connection
        try:
            getattr(command, step)(config, revision)
        except CommandError as error:
            raise ConfigError(f"{place}: {step} to {revision!r}: {error}") from None


@contextmanager
def _locked_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction over all steps: a migration that is killed half-way leaves no trace."""
    with engine.execution_options(writes=True).connect() as connection:
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(connection)
        try:
            with connection.begin():
                if engine.dialect.name == "postgresql":
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRESQL_LOCK}
                    )
                yield connection
        finally:
            connection.detach()


def _prepare_sqlite(connection: Connection) -> None:
    """What SQLite does outside transactions only: the file keeps WAL, this connection the rest."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA journal_mode = WAL")
    driver.execute("PRAGMA foreign_keys = OFF")  # a table that is rebuilt is dropped first


@contextmanager
def _file_lock(engine: Engine) -> Iterator[None]:
    """Beside an SQLite file: one process at a time creates or migrates it."""
    if engine.dialect.name != "sqlite":
        yield
        return
    path = Path(f"{engine.url.database}.lock")
    try:
        lock = path.open("w")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {str(error.strerror).lower()}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _refuse_unknown(revision: str | None, place: str) -> None:
    if revision is not None and revision not in known_revisions():
        raise ConfigError(
            f"{place} is at revision {revision}, which a newer FakeScope made: use that version"
        )
