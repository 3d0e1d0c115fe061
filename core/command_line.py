"""What commands share: how they end, how they are told a recipe, and tables as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from core.errors import FakeScopeError
from core.recipe import find_recipe

INTERRUPTED = 130

Row = tuple[str, ...]
RecipeOption = Annotated[
    Path,
    typer.Option(
        "--recipe", callback=find_recipe, help="Recipe folder, or the name of one in recipes/."
    ),
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command: what the platform reports becomes one line and an exit code.

    0 done · 2 wrong input or configuration · 1 failed · 130 after Ctrl-C.
    """
    try:
        yield
    except FakeScopeError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was finished is kept\n")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def aligned(rows: Sequence[Row], *, words: int) -> Iterator[str]:
    """Columns under each other: the first `words` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
