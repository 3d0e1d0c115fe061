"""What `read` and `write` promise, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from core.errors import ConfigError
from core.records import Source
from db.engine import MAPPED_BYTES, Database
from db.images import count_images, save_images, save_source, source_names, sources
from tests.campaigns import store_images
from tests.unit.records import make_image

DEMO = Source(name="demo", licence="CC0-1.0")


class Unforeseen(Exception):
    pass


def test_what_a_write_did_is_kept(database: Database) -> None:
    with database.write() as session:
        save_source(session, DEMO)
    with database.read() as session:
        assert sources(session) == {"demo": DEMO}


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(Unforeseen), database.write() as session:
        save_source(session, DEMO)
        raise Unforeseen
    with database.read() as session:
        assert sources(session) == {}
    with database.write() as session:  # and the lock is free again
        save_source(session, DEMO)


def test_a_read_does_not_write(database: Database) -> None:
    with pytest.raises(ConfigError, match="read-only"), database.read() as session:
        save_source(session, DEMO)
        session.commit()
    with database.write() as session:
        assert sources(session) == {}
        save_source(session, DEMO)


def test_a_read_sees_one_state_of_the_data(database: Database) -> None:
    with database.read() as reading:
        assert count_images(reading).total == 0
        store_images(database, 3)
        assert source_names(reading) == []
    with database.read() as reading:
        assert count_images(reading).total == 3


def test_the_version_changes_with_every_commit(database: Database) -> None:
    before = database.version()
    with pytest.raises(Unforeseen), database.write() as session:
        save_source(session, DEMO)
        raise Unforeseen
    with database.read() as session:
        assert count_images(session).total == 0
    if database.dialect == "sqlite":  # a server of PostgreSQL counts the work of others too
        assert database.version() == before
    before = database.version()
    with database.write() as session:
        save_source(session, DEMO)
    assert database.version() != before


def test_an_image_of_an_unknown_source_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        save_images(session, [make_image()])
    with database.read() as session:
        assert count_images(session).total == 0


def test_reads_may_stand_inside_each_other(database: Database) -> None:
    store_images(database, 1)
    with database.read() as outer, database.read() as inner:
        assert count_images(outer) == count_images(inner)
        with database.write() as session:
            save_source(session, Source(name="other", licence="unknown"))


def test_sqlite_is_set_up_for_several_processes(database: Database) -> None:
    if database.dialect == "postgresql":
        with database.read() as session:
            assert session.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"
        return
    with database.write() as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found.pop("busy_timeout") >= 30_000
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}


def test_a_mapped_file_shows_what_others_write(database: Database) -> None:
    store_images(database, 1)
    database.map_file()
    with database.read() as session:
        assert count_images(session).total == 1
        if database.dialect == "sqlite":
            mapped = session.connection().exec_driver_sql("PRAGMA mmap_size").scalar_one()
            assert mapped == MAPPED_BYTES
    store_images(database, 3)
    with database.read() as session:
        assert count_images(session).total == 3
