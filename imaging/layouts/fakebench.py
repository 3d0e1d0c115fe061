"""FakeBench: `FakeBench_images/{fake_images,real_images}` and `Evaluation/FakeClass.json`.

In its JSON an authenticity of 0 means fake. Its owners forbid training on it. `FakeClue.json` and
`FakeQA.json` beside it ask about the fakes; as published, their answers are blank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, FoundQuestion, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import ZERO_IS_FAKE, label_of, text_of
from imaging.layouts.rows import read_records
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LABELS_FILE: Final = "Evaluation/FakeClass.json"
MAKERS_FILE: Final = "Evaluation/FakeClue.json"
ASPECTS_FILE: Final = "Evaluation/FakeQA.json"
MODES: Final[Mapping[str, str]] = MappingProxyType(
    {"faultfinding_mode": "interpretation", "inference_mode": "reasoning"}
)
"""axis by the field of FakeClue.json that asks"""
CLUES: Final = "telltale_clues"
ASPECT: Final = re.compile(r"Q(\d+)")
DETECTION: Final = "detection"
ASPECTS: Final = "fine-grained"
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
    clues = _read_by_image(tree, f"{root}{MAKERS_FILE}")
    aspects = _read_by_image(tree, f"{root}{ASPECTS_FILE}")
    records = read_records(tree, files[0])
    closed = _closed_questions(records)
    seen: set[str] = set()
    for number, record in enumerate(records, start=1):
        found = _find(tree, root, record, clues, f"{files[0]}, entry {number}")
        if found.name in seen:  # more than one question may be asked about an image
            continue
        seen.add(found.name)
        name = str(record.get("image_id")) if isinstance(record, dict) else ""
        open_ended = _open_questions(clues.get(name, {}), aspects.get(name, {}))
        is_fake = found.label is Authenticity.FAKE
        questions = (*closed.get(name, ()), *(open_ended if is_fake else ()))
        yield replace(found, questions=questions)


def _label_files(tree: Tree) -> list[str]:
    return matches(tree, r"(?:.+/)?Evaluation/FakeClass\.json")


def _read_by_image(tree: Tree, file: str) -> Mapping[str, Mapping[str, Any]]:
    if tree.find(file).refusal is not None:
        return {}
    records = [record for record in read_records(tree, file) if isinstance(record, dict)]
    return {str(record.get("image_id")): record for record in records}


def _closed_questions(records: list[Any]) -> Mapping[str, list[FoundQuestion]]:
    asked: dict[str, list[FoundQuestion]] = {}
    numbers: Counter[str] = Counter()
    for record in records:
        text = _said(record, "question") if isinstance(record, dict) else None
        if text is None:
            continue
        name = str(record.get("image_id"))
        numbers[name] += 1
        key = "answer" if numbers[name] == 1 else f"answer {numbers[name]}"
        question = FoundQuestion(
            key=key, axis=DETECTION, text=text, reference=_said(record, "answer")
        )
        asked.setdefault(name, []).append(question)
    return asked


def _open_questions(
    clues: Mapping[str, Any], aspects: Mapping[str, Any]
) -> Iterator[FoundQuestion]:
    for mode, axis in MODES.items():
        if text := _said(clues, mode):
            yield FoundQuestion(key=mode, axis=axis, text=text, reference=_said(clues, CLUES))
    for field in aspects:
        slot = ASPECT.fullmatch(field)
        if slot and (text := _said(aspects, field)):
            key = f"A{slot[1]}"
            yield FoundQuestion(key=key, axis=ASPECTS, text=text, reference=_said(aspects, key))


def _said(record: Mapping[str, Any], field: str) -> str | None:
    """A text; None where it is blank."""
    value = record.get(field)
    return value.strip() or None if isinstance(value, str) else None


def _find(
    tree: Tree, root: str, record: Any, clues: Mapping[str, Mapping[str, Any]], place: str
) -> FoundFile:
    try:
        name = text_of(record, "image_id")
        label = label_of(record.get("authenticity"), ZERO_IS_FAKE)
    except DataError as error:
        return FoundFile(name=shown_name(place), content=b"", refusal=str(error))
    maker = clues.get(name, {}).get("generation_model")
    return found_from(
        find_inside(tree, f"{root}{FOLDERS[label]}/{name}"),
        label=label,
        generator=shown_name(str(maker or "")) or UNKNOWN_GENERATOR,
    )


LAYOUT: Final = Layout(
    name="fakebench",
    recognise=recognise_fakebench,
    read=read_fakebench,
    licence="CC-BY-NC-4.0, evaluation only",
    may_train=False,
)
