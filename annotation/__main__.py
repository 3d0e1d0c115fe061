"""`python -m annotation`: from drafts and corrections to FakeChain."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from annotation.chains import chain_drafts
from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE, configured_recipe
from core.settings import load_settings
from db.engine import open_database

app = typer.Typer(
    help="From drafts and corrections to FakeChain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def annotation() -> None:
    """From drafts and corrections to FakeChain."""


@app.command()
@one_line_errors()
def chain(
    recipe: Annotated[Path, typer.Option("--recipe", help="Recipe folder.")] = DEFAULT_RECIPE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the reasoning chain of every draft; unchanged chains stay as they are."""
    settings = load_settings()
    summary = chain_drafts(open_database(settings), configured_recipe(recipe, settings))
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    levels = ", ".join(f"{count} {level}" for level, count in sorted(summary.by_level.items()))
    typer.echo(
        f"{summary.drafts} chains ({levels or 'none'}), {summary.new_chains} of them new; "
        f"{summary.contradictions} findings against the known label left out"
    )


if __name__ == "__main__":
    app()
