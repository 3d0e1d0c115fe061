"""The real build from a database of chains, with all its checks; FOLDER, ROWS, OUT, CORES.

Seconds are those of planning, making and publishing; reading chains and checking are told apart.
"""

import json
import sys
from pathlib import Path

from core.recipe import DEFAULT_RECIPE, load_recipe
from core.records import ReviewLevel
from core.settings import load_settings
from db.engine import open_database
from imaging.store import ImageStore
from instruct_builder.build import build
from instruct_builder.making import Making
from instruct_builder.stopwatch import Spent


def main(folder: Path, rows: int, out: Path, cores: int) -> None:
    settings = load_settings(fakescope_home=folder / "home")
    summary = build(
        open_database(settings),
        load_recipe(DEFAULT_RECIPE),
        ImageStore(settings.image_store),
        out,
        min_review=ReviewLevel.DRAFT,
        rows=rows,
        making=Making(workers=cores),
    )
    spent = summary.spent
    building = sum((spent[part] for part in ("planning", "making", "publishing")), Spent())
    figures = {
        "seconds": building.seconds,
        "cpu_seconds": building.cpu_seconds,
        "rows": summary.manifest.rows,
        "parts": {part: each.seconds for part, each in spent.items()},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
