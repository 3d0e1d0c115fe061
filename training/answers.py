"""Questions of a benchmark and what was answered: asked of a model, or read from a result file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.records import Authenticity
from imaging.layouts import FoundFile

ANSWERS: Final = "answers.jsonl"
IMAGE_FIELDS: Final = ("image", "image_id")
"""what an entry of a result file names its image by"""
DETECTION: Final = "detection"
"""axis of the questions that ask for a verdict alone"""
TAKES_RESULT_FILES: Final = "fakebench"
"""the layout of the benchmark whose authors score these files, as they keep its answers back"""
RESULT_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "FakeClass.json": (DETECTION,),
    "FakeClue.json": ("interpretation", "reasoning"),
    "FakeQA.json": ("fine-grained",),
}
"""axes by the name of the file"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about one image."""

    image: str
    """name of the file, relative to the collection"""
    label: Authenticity | None
    generator: str | None
    key: str
    """tells it from the others about the same image"""
    axis: str
    text: str
    reference: str | None
    topic: str | None

    @property
    def is_open_ended(self) -> bool:
        """Whether its answer is a text to be compared, and not a verdict alone."""
        return self.axis != DETECTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question with its answer; None: nobody answered it."""

    question: Question
    reply: str | None


@dataclass(frozen=True, slots=True)
class Replies:
    """Answers by the image and the key that their file names."""

    texts: Mapping[tuple[str, str], str]
    unmatched: int = 0
    """answers about images that the collection does not hold, or holds more than once"""

    def to(self, questions: Iterable[Question]) -> list[Answered]:
        """Every question, answered or not."""
        return [
            Answered(question=each, reply=self.texts.get((each.image, each.key)))
            for each in questions
        ]


def questions_of(files: Iterable[FoundFile]) -> Iterator[Question]:
    """All questions about the files that can be read, in their order."""
    for found in files:
        for asked in found.questions if found.refusal is None else ():
            yield Question(
                image=found.name,
                label=found.label,
                generator=found.generator,
                key=asked.key,
                axis=asked.axis,
                text=asked.text,
                reference=asked.reference,
                topic=asked.topic,
            )


def read_replies(paths: Sequence[Path], questions: Sequence[Question]) -> Replies:
    """Answers from result files: FakeBench's own three, or JSON lists and lines like them.

    Each entry names its image (`image_id`, or a path as the collection has it); every other field
    that is the key of a question is its answer. ConfigError for a file that cannot be read, or
    when no answer fits.
    """
    names = _names_by_ending({question.image for question in questions})
    keys = {question.key for question in questions}
    texts: dict[tuple[str, str], str] = {}
    unmatched = 0
    for entry in (entry for path in paths for entry in _entries(path)):
        said = {
            key: value for key, value in entry.items() if key in keys and isinstance(value, str)
        }
        named = next((str(entry[field]) for field in IMAGE_FIELDS if field in entry), "")
        image = names.get(named.strip("/"))
        if image is None:
            unmatched += len(said)
            continue
        texts |= {(image, key): value for key, value in said.items()}
    if not texts:
        shown = ", ".join(str(path) for path in paths)
        raise ConfigError(f"{shown}: holds no answer to a question of this benchmark")
    return Replies(texts, unmatched)


def _names_by_ending(images: Iterable[str]) -> dict[str, str]:
    """The image that each ending of a path belongs to, where it belongs to one alone."""
    found: dict[str, str | None] = {}
    for image in images:
        parts = image.split("/")
        for place in range(len(parts)):
            ending = "/".join(parts[place:])
            found[ending] = None if ending in found else image
    return {ending: image for ending, image in found.items() if image is not None}


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            values = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, list):
        raise ConfigError(f"{path}: not a JSON list")
    return (value for value in values if isinstance(value, dict))


def as_row(answered: Answered, *, model: str, digest: str) -> dict[str, Any]:
    """A line of `answers.jsonl`; another evaluation can read it as a result file."""
    question = answered.question
    return {
        "image": question.image,
        question.key: answered.reply,
        "key": question.key,
        "axis": question.axis,
        "question": question.text,
        "model": model,
        "digest": digest,
    }


def write_result_files(folder: Path, answered: Sequence[Answered]) -> list[Path]:
    """FakeBench's three result files, as its authors take them; the paths written."""
    from training.report import write_atomically

    written = []
    for name, axes in RESULT_FILES.items():
        entries: dict[str, dict[str, str]] = {}
        for each in answered:
            if each.question.axis in axes and each.reply is not None:
                image_id = each.question.image.rpartition("/")[2]
                entry = entries.setdefault(image_id, {"image_id": image_id})
                entry[each.question.key] = each.reply
        if entries:
            text = json.dumps(list(entries.values()), indent=2, ensure_ascii=False) + "\n"
            write_atomically(folder / name, text)
            written.append(folder / name)
    return written
