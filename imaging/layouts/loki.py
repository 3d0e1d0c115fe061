"""LOKI, its image part: lists `data_json/**/image*.json` beside the pictures in `media_data/image`.

Each entry is one question about an image. `question_type` holds `fake_ask` or `real_ask`, which the
authors' own evaluation takes for what the image is, and ends in what it shows. Entries with
`problems` describe a fake as a whole and in boxes x, y, width, height, in pixels. Questions about
several images at a time have no verdict for one of them and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, FoundQuestion, FoundTrace, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import text_of
from imaging.layouts.rows import read_records
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LISTS: Final = r"(?:.+/)?data_json/(?:.+/)?image[^/]*\.json"
PICTURES: Final = "media_data/"
LABELS: Final[Mapping[str, Authenticity]] = {
    "fake_ask": Authenticity.FAKE,
    "real_ask": Authenticity.REAL,
}
CLOSED: Final = "_tf_"
"""in the type of a question that is answered by yes or no"""
DETECTION, EXPLANATION = "detection", "explanation"


@dataclass(slots=True)
class _Asked:
    """What all lists say of one image."""

    labels: set[Authenticity] = field(default_factory=set)
    questions: list[FoundQuestion] = field(default_factory=list)
    traces: list[FoundTrace] = field(default_factory=list)


def recognise_loki(tree: Tree) -> str | None:
    """Say which lists there are, where pictures stand beside them."""
    return say_held(matches(tree, LISTS)) if matches(tree, r"(?:.+/)?media_data/image") else None


def read_loki(tree: Tree) -> Iterator[FoundFile]:
    """Each image once, with all that is asked about it; entries of other modalities are passed."""
    lists = sorted(matches(tree, LISTS))
    if not lists:
        raise ConfigError(f"{tree.place}: there is no data_json/image*.json in it")
    images: dict[str, _Asked] = {}
    for name in lists:
        root = name.partition("data_json/")[0]
        for number, record in enumerate(read_records(tree, name), start=1):
            try:
                path = _path_of(record)
                if path is not None:
                    _take(record, images.setdefault(f"{root}{path}", _Asked()))
            except DataError as error:
                place = shown_name(f"{name}, entry {number}")
                yield FoundFile(name=place, content=b"", refusal=str(error))
    for path, asked in images.items():
        yield _find(tree, path, asked)


def _path_of(record: Any) -> str | None:
    """Of its image, from `media_data` on; None for other modalities and for several images."""
    if isinstance(record, dict):
        if record.get("modality", "image-text") != "image-text":
            return None
        paths = record.get("image_path")
        if isinstance(paths, list):
            if len(paths) != 1:
                return None
            record = {"image_path": paths[0]}
    path = text_of(record, "image_path").replace("\\", "/")
    before, found, after = path.partition(PICTURES)
    return f"{PICTURES}{after}" if found else before.removeprefix("./")


def _take(record: Mapping[str, Any], asked: _Asked) -> None:
    """Add what one entry says of its image."""
    kind = str(record.get("question_type") or "")
    asked.labels.update(label for word, label in LABELS.items() if word in kind)
    problems = record.get("problems")
    if isinstance(problems, dict):
        traces = list(_traces(problems))
        asked.labels.add(Authenticity.FAKE)
        asked.traces += [trace for trace in traces if trace not in asked.traces]
        reference = "\n".join(trace.explanation for trace in traces) or None
        asked.questions += _question(record, asked, EXPLANATION, reference, kind)
    elif CLOSED in kind:
        asked.questions += _question(record, asked, DETECTION, _said(record, "answer"), kind)


def _question(
    record: Mapping[str, Any], asked: _Asked, axis: str, reference: str | None, kind: str
) -> Iterator[FoundQuestion]:
    """One question; nothing where the entry has no text."""
    if text := _said(record, "question"):
        number = len(asked.questions) + 1
        yield FoundQuestion(
            key="answer" if number == 1 else f"answer {number}",
            axis=axis,
            text=text,
            reference=reference,
            topic=kind.rpartition("_")[2] or None,
        )


def _said(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value.strip() or None if isinstance(value, str) else None


def _traces(problems: Mapping[str, Any]) -> Iterator[FoundTrace]:
    """Those of the whole image, without an outline, and those in boxes."""
    for part in ("global", "regional"):
        found = problems.get(part)
        for problem in found if isinstance(found, list) else []:
            if isinstance(problem, dict):
                yield FoundTrace(
                    place="",
                    explanation=str(problem.get("desc") or ""),
                    outlines=tuple(_outline(problem.get("region"))),
                )


def _outline(box: Any) -> Iterator[tuple[tuple[float, float], ...]]:
    """The corners of a box, which covers x to x + width - 1; nothing for what is none."""
    if not isinstance(box, list) or len(box) != 4:
        return
    if all(isinstance(value, int | float) for value in box) and min(box[2:]) > 0:
        x, y, width, height = map(float, box)
        right, bottom = x + width - 1, y + height - 1
        yield ((x, y), (right, y), (right, bottom), (x, bottom))


def _find(tree: Tree, path: str, asked: _Asked) -> FoundFile:
    (label,) = asked.labels if len(asked.labels) == 1 else (None,)
    found = found_from(
        find_inside(tree, path),
        label=label,
        generator=UNKNOWN_GENERATOR,
        refusal="its entries call it both real and fake" if len(asked.labels) > 1 else None,
    )
    return replace(found, questions=tuple(asked.questions), traces=tuple(asked.traces))


LAYOUT: Final = Layout(name="loki", recognise=recognise_loki, read=read_loki)
