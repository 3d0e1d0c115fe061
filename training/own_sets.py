"""A FakeInstruct set as a benchmark: the images of one split, and what it asks about them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from core.errors import ConfigError
from core.records import Authenticity, Split
from imaging.layouts import Collection, FoundFile, FoundQuestion
from instruct_builder.shards import IMAGES, MANIFEST, ShardSet
from training.data import ImageFolder, LabelledImage, open_shards, read_images

OWN_SET: Final = "fakeinstruct"
COLUMNS: Final = ("instruction_id", "image_id", "family", "messages")


def is_own_set(folder: Path) -> bool:
    """Whether a folder looks like a published set."""
    return (folder / MANIFEST).is_file() and (folder / IMAGES).is_file()


def open_own_set(folder: Path, images: Path | None, *, split: Split = Split.TEST) -> Collection:
    """A split of a set that verifies, read as any benchmark; `images` is its store.

    A question is a row with one question; dialogues are left out, because what their later turns
    ask depends on the earlier answers. Raises ConfigError.
    """
    if images is None:
        raise ConfigError(f"{folder} is a FakeInstruct set: name its image store with --images")
    shards, store = open_shards(folder), ImageFolder(images)
    shown = [image for image in read_images(shards) if image.split is split]
    store.check_presence([image.ref for image in shown])
    questions = _questions(shards, split)
    return Collection(
        layout=OWN_SET,
        reason=f"its {MANIFEST} names the shards of a FakeInstruct set; its {split} split is read",
        licence=shards.manifest.licence.statement,
        may_train=False,
        is_stream=False,
        files=lambda: (
            _found(image, store, tuple(questions.get(image.ref.image_id, ()))) for image in shown
        ),
    )


def _questions(shards: ShardSet, split: Split) -> dict[str, list[FoundQuestion]]:
    """By image, in the order of the set."""
    found: dict[str, list[FoundQuestion]] = defaultdict(list)
    for table in shards.rows(split=split, columns=COLUMNS):
        for row in table.to_pylist():
            if row["image_id"] is not None and len(row["messages"]) == 2:
                asked, answered = (turn["content"] for turn in row["messages"])
                found[row["image_id"]].append(
                    FoundQuestion(
                        key=row["instruction_id"],
                        axis=row["family"],
                        text=asked,
                        reference=answered,
                    )
                )
    return found


def _found(
    image: LabelledImage, store: ImageFolder, questions: tuple[FoundQuestion, ...]
) -> FoundFile:
    path = store.path_of(image.ref)
    facts = path.stat()
    return FoundFile(
        name=image.ref.path,
        content=str(path),
        size=facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        label=Authenticity.FAKE if image.is_fake else Authenticity.REAL,
        generator=image.generator if image.is_fake else None,
        group=image.group,
        questions=questions,
    )
