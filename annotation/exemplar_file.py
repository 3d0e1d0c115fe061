"""Merged descriptions as exemplars of a recipe: `python -m annotation exemplars --write`.

They are written into the recipe folder instead of being read from the database: exemplars decide
drafts, so they are part of what names a campaign, and whoever has the folder can repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from core.errors import ConfigError
from core.recipe import EXEMPLARS_FILE, MERGED_FILE, Recipe
from core.records import Authenticity, ImageRecord, MergedDescription
from db.engine import Database
from db.images import sources
from imaging.store import ImageStore

HEAD: Final = f"""\
# Written by `python -m annotation exemplars --write`: what experts have merged in Label Studio.
# Read after {EXEMPLARS_FILE}, and written anew each time: put your own exemplars there, not here.
"""
PREFIX: Final = "merged-"
"""of the ids of these exemplars"""
PICTURES: Final = "exemplars"
"""folder of their pictures, in the recipe folder"""


def write_exemplars(
    database: Database,
    recipe: Recipe,
    found: Sequence[tuple[ImageRecord, MergedDescription]],
    *,
    store: ImageStore | None = None,
) -> Path:
    """Write the file, with pictures where an image store is given; returns its path.

    Pictures of exemplars that are none any more, because somebody took them back, are deleted.
    ConfigError, and nothing is written, when all exemplars of the recipe would have one label.
    """
    path = recipe.folder / MERGED_FILE
    others = {e.label for e in recipe.exemplars if not e.exemplar_id.startswith(PREFIX)}
    if missing := set(Authenticity) - others - {image.label for image, _ in found}:
        raise ConfigError(
            f"{path} is not written: demonstrations need one exemplar of either label at least, "
            f"and no {missing.pop()} one is finished"
        )
    with database.read() as session:
        licences = {name: source.licence for name, source in sources(session).items()}
    entries = []
    for image, said in found:
        entry = _entry(image, said)
        if store is not None:
            picture = Path(PICTURES) / f"{entry['id']}{Path(image.path).suffix}"
            _write(recipe.folder / picture, store.read(image.path))
            entry |= {"picture": picture.as_posix(), "licence": licences[image.source]}
        entries.append(entry)
    named = {entry.get("picture") for entry in entries}
    for picture in (recipe.folder / PICTURES).glob(f"{PREFIX}*"):
        if f"{PICTURES}/{picture.name}" not in named:
            picture.unlink()
    _write(path, (HEAD + _as_yaml({"exemplars": entries})).encode())
    return path


def _entry(image: ImageRecord, said: MergedDescription) -> dict[str, Any]:
    return {
        "id": f"{PREFIX}{image.label}-{image.image_id.removeprefix('img-')}",
        "label": str(image.label),
        "categories": list(said.categories),
        "description": said.merged,
    }


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay readable."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    is_plain = len(lines) > 1 and all(line.isprintable() for line in lines)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if is_plain else None)


_Dumper.add_representer(str, _represent_text)


def _as_yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))
