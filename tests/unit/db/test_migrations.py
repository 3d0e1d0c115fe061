"""Alembic's own commands, for whoever writes the next revision."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from core.settings import load_settings
from db import schema
from db.engine import connect, database_url


def test_a_new_revision_can_be_drafted_from_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a database that lacks a table of the models, and a copy of the revisions
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'own.db'}")
    engine, place = connect(database_url(load_settings()), create=True)
    schema.upgrade(engine, place)
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("DROP TABLE chain_corrections"))
    shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations")
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "migrations"))

    # when the next revision is drafted and applied as it is
    command.revision(config, "put it back", autogenerate=True, rev_id="0999")
    command.upgrade(config, "head")

    # then the table is there again, and the models ask for nothing more
    assert "chain_corrections" in inspect(engine).get_table_names()
    command.check(config)
    assert (tmp_path / "migrations/versions/0999_put_it_back.py").is_file()
    engine.dispose()
