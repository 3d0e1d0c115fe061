"""Migrations on both databases: the revisions end where the models are, and lead back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from core.errors import ConfigError
from core.settings import Settings
from db import schema
from db.engine import connect, database_url, open_database
from db.tables import Row


@contextmanager
def connected(settings: Settings) -> Iterator[tuple[Engine, str]]:
    engine, place = connect(database_url(settings), create=True)
    yield engine, place
    engine.dispose()


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Row.metadata))


def condition_of(index: Mapping[str, Any]) -> str:
    options = index.get("dialect_options", {})
    return " ".join(str(value) for name, value in options.items() if name.endswith("_where"))


def indexes_of(engine: Engine) -> dict[str, set[tuple[object, ...]]]:
    """Names, columns, uniqueness and conditions of all indexes and constraints."""
    inspector = inspect(engine)
    return {
        table: {
            (i["name"], tuple(i["column_names"]), i["unique"], condition_of(i))
            for i in inspector.get_indexes(table)
        }
        | {
            (c["name"], tuple(c["constrained_columns"]), c["referred_table"], str(c["options"]))
            for c in inspector.get_foreign_keys(table)
        }
        | {(c["name"], tuple(c["column_names"])) for c in inspector.get_unique_constraints(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_all_revisions_together_make_the_tables_of_the_models(bare_settings: Settings) -> None:
    with connected(bare_settings) as (engine, place):
        schema.upgrade(engine, place)
        assert differences(engine) == []
        migrated = indexes_of(engine)
        schema.downgrade(engine, place, "base")
        with engine.execution_options(writes=True).begin() as connection:
            Row.metadata.create_all(connection)
        assert indexes_of(engine) == migrated


def test_the_way_down_leaves_nothing_and_the_way_up_works_again(bare_settings: Settings) -> None:
    with connected(bare_settings) as (engine, place):
        schema.upgrade(engine, place)
        schema.downgrade(engine, place, "base")
        assert inspect(engine).get_table_names() == ["alembic_version"]
        assert schema.revision_of(engine) is None
        schema.upgrade(engine, place)
        assert schema.revision_of(engine) == schema.known_revisions()[-1]
    open_database(bare_settings).dispose()


def test_upgrading_twice_is_harmless(bare_settings: Settings) -> None:
    with connected(bare_settings) as (engine, place):
        schema.upgrade(engine, place)
        schema.upgrade(engine, place)
        assert schema.revision_of(engine) == schema.known_revisions()[-1]


def test_a_database_without_tables_is_not_touched_but_the_remedy_named(
    bare_settings: Settings,
) -> None:
    with connected(bare_settings) as (engine, place):
        with pytest.raises(ConfigError, match="python -m db upgrade"):
            schema.require_current(engine, place)
        assert inspect(engine).get_table_names() == []


def set_revision(engine: Engine, revision: str) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})


def test_a_database_of_a_newer_version_is_refused(bare_settings: Settings) -> None:
    with connected(bare_settings) as (engine, place):
        schema.upgrade(engine, place)
        set_revision(engine, "9999")
        for step in (schema.require_current, schema.bring_up_to_date):
            with pytest.raises(ConfigError, match="9999, which a newer FakeScope made"):
                step(engine, place)


def test_an_unknown_revision_is_named(bare_settings: Settings) -> None:
    with connected(bare_settings) as (engine, place):
        schema.upgrade(engine, place)
        with pytest.raises(ConfigError, match="downgrade to 'nowhere'"):
            schema.downgrade(engine, place, "nowhere")
        assert schema.revision_of(engine) == schema.known_revisions()[-1]


def test_a_migration_that_fails_leaves_no_trace(
    bare_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("killed half-way")

    with connected(bare_settings) as (engine, place):
        with monkeypatch.context() as patch:
            patch.setattr(MigrationContext, "_ensure_version_table", fail)
            with pytest.raises(RuntimeError):
                schema.upgrade(engine, place)
        assert inspect(engine).get_table_names() == []
        schema.upgrade(engine, place)


def upgrade_in_a_process(settings: Settings) -> str | None:
    with connected(settings) as (engine, place):
        schema.upgrade(engine, place)
        return schema.revision_of(engine)


def test_processes_that_upgrade_at_once_do_it_once(bare_settings: Settings) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        jobs = [pool.submit(upgrade_in_a_process, bare_settings) for _ in range(3)]
        assert {job.result() for job in jobs} == {schema.known_revisions()[-1]}


def test_the_file_names_tell_the_revisions_in_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    ordered = [revision.revision for revision in script.walk_revisions()][::-1]
    assert ordered == schema.known_revisions()
