"""`python -m db`: create or migrate the configured database, take a revision back, or check it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from sqlalchemy import Engine, func, select

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.settings import load_settings
from db import schema
from db.engine import connect, database_url, make_home
from db.failures import explained
from db.tables import ImageRow, ReplyRow

app = typer.Typer(
    help="The tables of the configured database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
@one_line_errors()
def upgrade() -> None:
    """Create the tables, or bring them to this version's revision."""
    engine, place = _open(create=True)
    with explained(place):
        schema.upgrade(engine, place)
        typer.echo(f"{place} is at revision {schema.revision_of(engine)}")


@app.command()
@one_line_errors()
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, or base for no tables.")] = "-1",
    yes: Annotated[bool, typer.Option("--yes", help="Though it deletes what is stored.")] = False,
) -> None:
    """Go back to an earlier revision: what only the later one can hold is deleted."""
    engine, place = _open()
    with explained(place):
        if not yes:
            _refuse_to_delete(engine, place)
        schema.downgrade(engine, place, revision)
        typer.echo(f"{place} is at revision {schema.revision_of(engine) or 'base: no tables'}")


@app.command()
@one_line_errors()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the tables are at this version's revision; exit code 2 if they are not."""
    engine, place = _open()
    with explained(place):
        schema.require_current(engine, place)
    revision = schema.known_revisions()[-1]
    if as_json:
        typer.echo(json.dumps({"database": place, "revision": revision}))
        return
    typer.echo(f"{place} is at revision {revision}, as this version needs it")


def _open(*, create: bool = False) -> tuple[Engine, str]:
    settings = load_settings()
    if create and settings.has_default_database:
        make_home(settings.fakescope_home)
    return connect(database_url(settings), create=create)


def _refuse_to_delete(engine: Engine, place: str) -> None:
    if schema.revision_of(engine) is None:
        return
    with engine.connect() as connection:
        images, replies = (
            connection.execute(select(func.count()).select_from(row)).scalar_one()
            for row in (ImageRow, ReplyRow)
        )
    if images or replies:
        raise ConfigError(
            f"{place} holds {images} images and {replies} paid replies, which a downgrade may "
            "delete: make a copy, then give --yes"
        )


if __name__ == "__main__":
    app()
