"""A general instruction set beside the forensic one: read, drawn, and kept apart. For train only.

Its rows are in family `general` and say nothing of authenticity: they have no label, no chain and
no pattern. Images go into the image store like all others; one that is, or is nearly, an image of
val, test or a registered benchmark is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from core.errors import ConfigError
from core.ids import content_id, image_id_of, seed_of
from core.recipe import General
from core.records import BenchmarkImage, ImageRecord, Split
from imaging.crew import Crew, usable_cores
from imaging.decode import Limits
from imaging.files import find_entry
from imaging.intake import Intake, Job, Refusal, take_in
from imaging.overlaps import find_overlaps
from imaging.store import ImageStore
from instruct_builder.checks import NameFinder
from instruct_builder.llava_list import Talk, conversations_of
from instruct_builder.manifest import FormFact, GeneralFact, SourceFact
from instruct_builder.questions import VerdictQuestions
from instruct_builder.shards import ROW_SCHEMA, image_ends, sha256_of
from instruct_builder.templates import GENERAL

FAMILY: Final = GENERAL
"""also the name of its one form"""
SPARE: Final = 1.1
"""so many more rows are looked at first than are wanted"""
FEW: Final = 32
"""so many images are taken in without starting processes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What the rest of the set may not share with general instructions."""

    images: Collection[str]
    """ids of the images of the set"""
    kept_back: Sequence[BenchmarkImage]
    """images of val and test, and of benchmarks"""
    withdrawn: Callable[[Collection[str]], Collection[str]]
    """which of some SHA-256 are of withdrawn images"""
    names: NameFinder
    questions: VerdictQuestions


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralRows:
    """Rows in ROW_SCHEMA, image by image, and where they come from."""

    table: pa.Table
    images: tuple[ImageRecord, ...]
    """in the order of their rows"""
    left_out: Mapping[str, int]
    """conversations of those that were looked at, by reason"""

    def save(self, folder: Path) -> None:
        """Write to a new folder."""
        folder.mkdir()
        with pa.ipc.new_file(str(folder / "rows.arrow"), ROW_SCHEMA) as file:
            file.write_table(self.table)
        values = {"images": [asdict(i) for i in self.images], "left_out": dict(self.left_out)}
        (folder / "images.json").write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> GeneralRows:
        """Read what `save` wrote."""
        values = json.loads((folder / "images.json").read_bytes())
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        images = tuple(ImageRecord(**each) for each in values["images"])
        return cls(table=table, images=images, left_out=values["left_out"])


def fact_of(general: General) -> GeneralFact:
    """What is known before a row is read; ConfigError where the file cannot be."""
    try:
        digest = sha256_of(general.file)
    except OSError as error:
        raise ConfigError(f"build.general.file: {general.file}: {error.strerror}") from None
    if not general.images.is_dir():
        raise ConfigError(f"build.general.images: {general.images} is no folder")
    return GeneralFact(name=general.name, sha256=digest, share=general.share, order=general.order)


def source_of(general: General) -> SourceFact:
    """The set as a part that the licence depends on."""
    return SourceFact(name=general.name, licence=general.licence, terms=general.terms)


FORM: Final = FormFact(family=FAMILY, targets=(), states_verdict=False)


def read_general(
    general: General, train_rows: int, store: ImageStore, apart: Apart, *, seed: int
) -> GeneralRows:
    """Draw as many conversations as make up the share of the train split.

    Images are drawn by hash with all that is said about them, the last one with a part. Raises
    ConfigError when the file cannot be read, or has too few conversations that can be taken.
    """
    wanted = max(1, round(train_rows * general.share / (1 - general.share)))
    unread: Counter[str] = Counter()
    spoken = Counter(image for image, _ in conversations_of(general.file, unread))
    order = sorted(spoken, key=lambda image: (seed_of(FAMILY, seed, image), image))
    reach = np.cumsum([spoken[image] for image in order])
    looked_at = int(np.searchsorted(reach, SPARE * wanted)) + 1
    while True:
        names = order[:looked_at]
        found = _Reader(general, store, apart, seed).read(names)
        if found.table.num_rows >= wanted:
            return _first(found, wanted, unread)
        if looked_at >= len(order):
            most = found.table.num_rows / (found.table.num_rows + train_rows)
            raise ConfigError(
                f"build.general: a share of {general.share:g} of {train_rows:,} training "
                f"instructions needs {wanted:,} conversations; {general.file} has "
                f"{found.table.num_rows:,} that can be taken, enough for a share of {most:.3f}"
                f"{_in_words(Counter(found.left_out) + unread)}"
            )
        looked_at *= 2


def _in_words(left_out: Counter[str]) -> str:
    worst = "; ".join(f"{number:,} {reason}" for reason, number in left_out.most_common(3))
    return f" (left out: {worst})" if worst else ""


def _first(found: GeneralRows, wanted: int, unread: Counter[str]) -> GeneralRows:
    """The first rows, and the images that they are about."""
    table = found.table.slice(0, wanted).combine_chunks()
    ids = set(table["image_id"].to_pylist())
    return GeneralRows(
        table=table,
        images=tuple(image for image in found.images if image.image_id in ids),
        left_out=dict(sorted((Counter(found.left_out) + unread).items())),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what is said of some images; counts what it leaves out."""

    general: General
    store: ImageStore
    apart: Apart
    seed: int

    def read(self, names: Sequence[str]) -> GeneralRows:
        """Rows image by image, in this order."""
        left_out: Counter[str] = Counter()
        said = self._listen(names, left_out)
        images = self._images(said, left_out)
        rows = [
            _row(image, talk, self.general.name)
            for name, image in images.items()
            for talk in said[name]
        ]
        return GeneralRows(
            table=pa.Table.from_pylist(rows, schema=ROW_SCHEMA),
            images=tuple(images.values()),
            left_out=left_out,
        )

    def _listen(self, names: Sequence[str], left_out: Counter[str]) -> dict[str, list[Talk]]:
        """What may be said of each image, nothing twice."""
        said: dict[str, dict[Talk, None]] = {name: {} for name in names}
        for image, talk in conversations_of(self.general.file):
            if image not in said:
                continue
            if reason := self._objection(talk, said[image]):
                left_out[reason] += 1
            else:
                said[image][talk] = None
        return {name: [*talks] for name, talks in said.items() if talks}

    def _objection(self, talk: Talk, said: Collection[Talk]) -> str | None:
        if talk in said:
            return "said twice of one image"
        if any(self.apart.names.find(text, "", "") for text in talk):
            return "with a text that names a generator, source, teacher or file"
        if self.apart.questions.asked_at(talk[::2]):
            return "that ask whether the image is real or fake"
        return None

    def _images(
        self, said: Mapping[str, Sequence[Talk]], left_out: Counter[str]
    ) -> dict[str, ImageRecord]:
        """The images that may be taken, by name, each once; the others' conversations count."""
        records: dict[str, ImageRecord] = {}
        reasons: dict[str, str] = {}
        for name, outcome in zip(said, self._take_in(said), strict=True):
            if isinstance(outcome, Refusal):
                reasons[name] = f"whose image cannot be taken in: {outcome.reason}"
            else:
                records[name] = _record(outcome, self.general.name)
        reasons |= self._objections(records)
        for name, reason in reasons.items():
            left_out[reason] += len(said[name])
        return {name: image for name, image in records.items() if name not in reasons}

    def _take_in(self, names: Collection[str]) -> list[Intake | Refusal]:
        entries = [find_entry(self.general.images, name) for name in names]
        readable = [entry for entry in entries if entry.refusal is None]
        jobs = [Job(entry.path, entry.name) for entry in readable]
        if len(jobs) <= FEW:
            taken = iter([take_in(job, self.store, Limits()) for job in jobs])
        else:
            with Crew(self.store, Limits(), size=usable_cores()) as crew:
                taken = iter([*crew.take_in(jobs)])
        return [next(taken) if e.refusal is None else Refusal(e.refusal) for e in entries]

    def _objections(self, records: Mapping[str, ImageRecord]) -> dict[str, str]:
        """Why some of the images may not be taken."""
        hashes = {h for image in records.values() for h in (image.sha256, image.original_sha256)}
        withdrawn = self.apart.withdrawn(hashes)
        near = {found.image_id for found in find_overlaps(records.values(), self.apart.kept_back)}
        seen: set[str] = set()
        reasons: dict[str, str] = {}
        for name, image in records.items():
            if {image.sha256, image.original_sha256} & {*withdrawn}:
                reasons[name] = "whose image was withdrawn"
            elif image.image_id in near:
                reasons[name] = "whose image is, or is nearly, one of val, test or a benchmark"
            elif image.image_id in self.apart.images:
                reasons[name] = "whose image is in the set already"
            elif image.image_id in seen:
                reasons[name] = "whose image stands under another name too"
            seen.add(image.image_id)
        return reasons


def _record(taken: Intake, source: str) -> ImageRecord:
    image_id = image_id_of(taken.sha256)
    return ImageRecord(
        image_id=image_id,
        sha256=taken.sha256,
        original_sha256=taken.original_sha256,
        path=taken.path,
        width=taken.width,
        height=taken.height,
        format=taken.format,
        jpeg_quality=taken.jpeg_quality,
        phash=taken.phash,
        cluster=image_id,
        group=image_id,
        label=None,
        generator=None,
        source=source,
        size_bytes=taken.size_bytes,
        subsampling=taken.subsampling,
    )


def _row(image: ImageRecord, talk: Talk, source: str) -> dict[str, Any]:
    """What a row does not say is null."""
    roles = ("user", "assistant")
    return {
        "instruction_id": content_id("ins", FAMILY, image.image_id, *talk),
        "image_id": image.image_id,
        "image_path": image.path,
        "image_sha256": image.sha256,
        "family": FAMILY,
        "form": FAMILY,
        "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(talk)],
        "source": source,
        "split": Split.TRAIN.value,
    }


# Among the other rows


def spread(table: pa.Table, general: pa.Table) -> pa.Table:
    """Both, the images of one evenly among those of the other; rows of one image stay together."""
    if not (table.num_rows and general.num_rows):
        return pa.concat_tables([table, general])
    starts, lengths, places = [], [], []
    for part, before in ((table, 0), (general, table.num_rows)):
        ends = np.array(image_ends(part))
        first = np.concatenate([[0], ends[:-1]])
        starts.append(first + before)
        lengths.append(ends - first)
        places.append((np.arange(len(ends)) + 0.5) / len(ends))
    order = np.argsort(np.concatenate(places), kind="stable")
    start, length = np.concatenate(starts)[order], np.concatenate(lengths)[order]
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    rows = np.repeat(start, length) + offset
    return pa.concat_tables([table, general]).take(pa.array(rows))


class GeneralCheck:
    """Looks at the general rows themselves."""

    name = FAMILY
    says = "general instructions are for training only, and have neither label nor closed answer"

    def __init__(self, rows: GeneralRows, train_rows: int) -> None:
        """`train_rows`: instructions to train on besides them."""
        self._rows, self._train_rows = rows, train_rows

    def figures(self) -> dict[str, int | float | str]:
        """Rows, images, the share of the train split, and what was left out."""
        rows = self._rows.table.num_rows
        return {
            "rows": rows,
            "images": len(self._rows.images),
            "share": round(rows / (rows + self._train_rows), 4),
            "wrong": len(self.failures()),
            "threshold": 0,
            **{f"left out: {reason}": number for reason, number in self._rows.left_out.items()},
        }

    def failures(self) -> list[str]:
        """Rows that are not as they should be."""
        names = ("instruction_id", "split", "label", "target")
        return [
            f"instruction {row['instruction_id']}"
            for row in self._rows.table.select(names).to_pylist()
            if (row["split"], row["label"], row["target"]) != (Split.TRAIN, None, None)
        ]
