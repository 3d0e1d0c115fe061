"""The use case: a shard set as other trainers read it, written whole or not at all.

An export is staged in a hidden folder beside its place and renamed. The same set and options give
the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.ids import sha256_bytes
from core.records import Split
from imaging.store import ImageStore
from instruct_builder import conversations
from instruct_builder.addresses import (
    is_elsewhere,
    is_foreign,
    read_bytes,
    shown,
    upload,
)
from instruct_builder.conversations import Row
from instruct_builder.export_card import render_export_card
from instruct_builder.export_files import (
    FakeClueFolder,
    JsonLines,
    JsonList,
    LlamaFactory,
    Subject,
    TrlParquet,
    WebDataset,
    Writer,
)
from instruct_builder.manifest import MANIFEST
from instruct_builder.shards import ShardSet, locked, sha256_of
from instruct_builder.topics import read_topics

VERSION: Final = 1
"""of what the formats look like: another one is written anew"""
EXPORT: Final = "export.json"
"""what an export says of itself; by it a folder is known as ours"""
CARD: Final = "README.md"
IMAGES_FOLDER: Final = "images"
COLUMNS: Final = (
    "instruction_id", "image_id", "image_path", "image_sha256", "family", "form", "aspect",
    "messages", "target", "label", "generator", "source", "split", "review_level",
)  # fmt: skip

Facts = dict[str, Any]


class Format(StrEnum):
    """For which trainer."""

    LLAVA = "llava"
    MPLUG_OWL2 = "mplug-owl2"
    SHAREGPT = "sharegpt"
    TRL = "trl"
    TRL_JSONL = "trl-jsonl"
    WEBDATASET = "webdataset"
    FAKECLUE = "fakeclue"

    @property
    def holds_images(self) -> bool:
        """The files of images lie inside those of the export."""
        return self in (Format.TRL, Format.WEBDATASET, Format.FAKECLUE)

    def open(self, folder: Path) -> Writer:
        """A writer of this format below a folder."""
        writers: dict[Format, Callable[[], Writer]] = {
            Format.LLAVA: lambda: JsonList(folder, conversations.llava),
            Format.MPLUG_OWL2: lambda: JsonList(folder, conversations.mplug_owl2),
            Format.SHAREGPT: lambda: LlamaFactory(folder, conversations.sharegpt),
            Format.TRL: lambda: TrlParquet(folder),
            Format.TRL_JSONL: lambda: JsonLines(folder, conversations.trl),
            Format.WEBDATASET: lambda: WebDataset(folder),
            Format.FAKECLUE: lambda: FakeClueFolder(folder),
        }
        return writers[self]()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export holds."""

    place: str
    format: Format
    rows: int
    images: int
    left_out: dict[str, int]
    """rows by reason"""
    unchanged: bool
    """it was there already, and nothing was written"""


def export(
    shards: ShardSet,
    out: Path,
    *,
    format: Format,
    store: ImageStore,
    with_images: bool = False,
) -> ExportSummary:
    """Write a shard set for another trainer into `out`, or do nothing when it is there already.

    Formats that hold no images name them by their path in the image store; `with_images` puts
    copies into a folder of the export. Rows that cannot be told, or whose image file is not there,
    are left out and counted. ConfigError when nothing is left, when `out` holds something else, or
    cannot be written.
    """
    stamp = _stamp(shards, format, with_images=with_images)
    if (present := _present(out, stamp)) is not None:
        return _summary(out, format, present, unchanged=True)
    _refuse_foreign(out)
    try:
        facts = _write(
            shards, out, stamp, _Export(shards, _staged(out), format, store, with_images)
        )
    except OSError as error:
        raise ConfigError(
            f"{out}: the export cannot be written ({error.strerror}); make room or grant the right "
            "to write there, or name another folder with --out"
        ) from None
    return _summary(out, format, facts, unchanged=False)


def export_to(
    shards: ShardSet,
    address: str,
    *,
    format: Format,
    store: ImageStore,
    with_images: bool = False,
) -> ExportSummary:
    """The same to any address that fsspec knows; what is elsewhere is uploaded when it is whole."""
    if not is_elsewhere(address):
        out = Path(address)
        return export(shards, out, format=format, store=store, with_images=with_images)
    present = read_bytes(address, EXPORT)
    if is_foreign(address, last=EXPORT):
        raise ConfigError(
            f"{shown(address)} is neither empty nor an export; name another with --out"
        )
    with tempfile.TemporaryDirectory(prefix="fakescope-export-") as name:
        out = Path(name) / "export"
        done = export(shards, out, format=format, store=store, with_images=with_images)
        is_same = present == (out / EXPORT).read_bytes()
        if not is_same:
            upload(out, address, last=EXPORT)
    return replace(done, place=shown(address), unchanged=is_same)


def _write(shards: ShardSet, out: Path, stamp: Facts, work: _Export) -> Facts:
    """Stage an export, and put it in place."""
    with locked(work.folder):
        for path in work.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        done = work.write()
        card = render_export_card(shards.manifest, work.format, asdict(done))
        (work.folder / CARD).write_bytes(card)
        facts = stamp | asdict(done) | {"files": _list_files(work.folder)}
        (work.folder / EXPORT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        _put_in_place(work.folder, out)
    return facts


def _staged(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _stamp(shards: ShardSet, format: Format, *, with_images: bool) -> Facts:
    """What decides the bytes of an export."""
    return {
        "format": format.value,
        "version": VERSION,
        "with_images": with_images,
        "set": sha256_of(shards.folder / MANIFEST),
    }


def _present(out: Path, stamp: Facts) -> Facts | None:
    """What the export in `out` says of itself, if it is this one and whole."""
    try:
        facts: Facts = json.loads((out / EXPORT).read_bytes())
        same = all(facts[name] == value for name, value in stamp.items())
        whole = all((out / f["path"]).stat().st_size == f["bytes"] for f in facts["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if same and whole else None


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not (out / EXPORT).is_file() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"{out} is neither empty nor an export; name another folder with --out")


def _list_files(folder: Path) -> list[Facts]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in paths
    ]


def _put_in_place(staged: Path, out: Path) -> None:
    """A kill in between leaves no export under the name, never half of one."""
    replaced = out.with_name(f".{out.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        out.rename(replaced)
    staged.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)


def _summary(out: Path, format: Format, facts: Facts, *, unchanged: bool) -> ExportSummary:
    return ExportSummary(
        place=str(out),
        format=format,
        rows=facts["rows"],
        images=facts["images"],
        left_out=facts["left_out"],
        unchanged=unchanged,
    )


@dataclass(slots=True)
class _Counts:
    """What was written, and what was left out."""

    rows: int = 0
    images: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """rows by reason"""

    def leave_out(self, reason: str, rows: int) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + rows


@dataclass(slots=True)
class _Export:
    """One pass over a set."""

    shards: ShardSet
    folder: Path
    format: Format
    store: ImageStore
    copies: bool
    counts: _Counts = field(default_factory=_Counts)

    def write(self) -> _Counts:
        with self.format.open(self.folder) as writer:
            for subject in self._subjects():
                writer.write(subject)
                self.counts.rows += len(subject.rows)
                self.counts.images += subject.path is not None
        if not self.counts.rows:
            why = "; ".join(f"{number} {why}" for why, number in self.counts.left_out.items())
            raise ConfigError(
                f"{self.shards.folder}: no instruction can be exported: {why or 'none'}"
            )
        return self.counts

    def _subjects(self) -> Iterator[Subject]:
        """Image by image, split by split, in the order of the set."""
        facts = self._facts_of_images()
        for split in Split:
            tables = self.shards.rows(split=split, columns=COLUMNS)
            rows = (row for table in tables for row in table.to_pylist())
            for _, of_image in groupby(rows, key=_subject_of):
                if (subject := self._subject(split, list(of_image), facts)) is not None:
                    yield subject

    def _facts_of_images(self) -> dict[str, Facts]:
        topics = read_topics(self.shards.folder)
        images = self.shards.images(["image_id", "width", "height", "group"]).to_pylist()
        return {
            image["image_id"]: {**image, "topic": topics.get(image["image_id"])} for image in images
        }

    def _subject(self, split: Split, rows: list[Row], facts: dict[str, Facts]) -> Subject | None:
        """None where nothing of an image can be told."""
        told = [row for row in rows if self._can_tell(row)]
        if not told:
            return None
        path = told[0]["image_path"]
        try:
            data = self._image(told[0]) if path is not None else None
        except DataError as error:
            self.counts.leave_out(str(error), len(told))
            return None
        about = facts.get(told[0]["image_id"], {})
        return Subject(split=split, rows=told, path=path, data=data, facts=about)

    def _can_tell(self, row: Row) -> bool:
        try:
            conversations.check(row)
            if self.format is Format.FAKECLUE:
                conversations.check_fakeclue(row)
        except DataError as error:
            self.counts.leave_out(str(error), 1)
            return False
        return True

    def _image(self, row: Row) -> bytes | None:
        """The file of an image where the export is to hold it; copied where it lies beside."""
        if not (self.format.holds_images or self.copies):
            return None
        try:
            data = self.store.read(row["image_path"])
        except DataError:
            raise DataError(
                f"whose image file is not in the image store {self.store.folder}"
            ) from None
        if sha256_bytes(data) != row["image_sha256"]:
            raise DataError("whose image file has changed since the set was built")
        if self.copies and not self.format.holds_images:
            copy = self.folder / IMAGES_FOLDER / row["image_path"]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
        return data


def _subject_of(row: Row) -> str:
    """The image; a row without one is a subject of its own."""
    return str(row["image_id"] or row["instruction_id"])
