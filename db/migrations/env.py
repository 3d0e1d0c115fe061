"""Alembic runs this file; `db.schema` hands it a connection inside a transaction.

Alembic's own command line has none to hand over and works on the configured database.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from core.settings import load_settings
from db.engine import connect, database_url
from db.tables import Row


def run_migrations(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Row.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run_migrations(given)
else:
    engine, _ = connect(database_url(load_settings()))
    with engine.execution_options(writes=True).begin() as opened:
        run_migrations(opened)
