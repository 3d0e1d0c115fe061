"""FakeBench: `FakeBench_images/{fake_images,real_images}` and `Evaluation/FakeClass.json`.

In its JSON an authenticity of 0 means fake. Its owners forbid training on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import ZERO_IS_FAKE, label_of, text_of
from imaging.layouts.rows import read_records
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LABELS_FILE: Final = "Evaluation/FakeClass.json"
MAKERS_FILE: Final = "Evaluation/FakeClue.json"
FOLDERS: Final[Mapping[Authenticity, str]] = MappingProxyType(
    {
        Authenticity.FAKE: "FakeBench_images/fake_images",
        Authenticity.REAL: "FakeBench_images/real_images",
    }
)


def recognise_fakebench(tree: Tree) -> str | None:
    """Say where the labels are."""
    return say_held(_label_files(tree)[:1])


def read_fakebench(tree: Tree) -> Iterator[FoundFile]:
    """The images that the labels name; a fake's generator is the one that FakeClue.json names."""
    files = _label_files(tree)
    if not files:
        raise ConfigError(f"{tree.place}: there is no {LABELS_FILE} in it")
    root = files[0][: -len(LABELS_FILE)]
    makers = _read_makers(tree, root)
    seen: set[str] = set()
    for number, record in enumerate(read_records(tree, files[0]), start=1):
        found = _find(tree, root, record, makers, f"{files[0]}, entry {number}")
        if found.name not in seen:  # more than one question may be asked about an image
            yield found
        seen.add(found.name)


def _label_files(tree: Tree) -> list[str]:
    return matches(tree, r"(?:.+/)?Evaluation/FakeClass\.json")


def _read_makers(tree: Tree, root: str) -> Mapping[str, str]:
    if tree.find(f"{root}{MAKERS_FILE}").refusal is not None:
        return {}
    records = read_records(tree, f"{root}{MAKERS_FILE}")
    named = [record for record in records if isinstance(record, dict)]
    return {str(r.get("image_id")): str(r.get("generation_model") or "") for r in named}


def _find(tree: Tree, root: str, record: Any, makers: Mapping[str, str], place: str) -> FoundFile:
    try:
        name = text_of(record, "image_id")
        label = label_of(record.get("authenticity"), ZERO_IS_FAKE)
    except DataError as error:
        return FoundFile(name=shown_name(place), content=b"", refusal=str(error))
    return found_from(
        find_inside(tree, f"{root}{FOLDERS[label]}/{name}"),
        label=label,
        generator=shown_name(makers.get(name, "")) or UNKNOWN_GENERATOR,
    )


LAYOUT: Final = Layout(
    name="fakebench",
    recognise=recognise_fakebench,
    read=read_fakebench,
    licence="CC-BY-NC-4.0, evaluation only",
    may_train=False,
)
