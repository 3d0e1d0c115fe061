"""The files of an export: one writer for each format, fed image by image and split by split."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from instruct_builder import conversations
from instruct_builder.conversations import Record, Row

IMAGES_PER_TAR: Final = 1000
GROUP_BYTES: Final = 2**26
"""of images in one row group, counted for each row anew: so much they take in memory"""
GROUP_ROWS: Final = 8_192

LISTS_FOLDER: Final = "data_json"
UNSORTED: Final = "unsorted"
"""folder of images of which nobody said what they show"""
DATASET_INFO: Final = "dataset_info.json"
OF_IMAGE: Final = ("image_id", "label", "generator", "source", "split")

TRL_SCHEMA: Final = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("id", pa.string()),
    ],
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "messages": {
                            "feature": {
                                "role": {"dtype": "string", "_type": "Value"},
                                "content": {"dtype": "string", "_type": "Value"},
                            },
                            "_type": "List",
                        },
                        "images": {"feature": {"_type": "Image"}, "_type": "List"},
                        "id": {"dtype": "string", "_type": "Value"},
                    }
                }
            }
        )
    },
)
"""with what the library `datasets` needs to see images in the bytes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One image with its rows, in their order; without an image, one row."""

    split: str
    rows: Sequence[Row]
    path: str | None
    """of the image, relative to the image store"""
    data: bytes | None
    """of its file, where the format holds it"""
    facts: Mapping[str, Any]
    """of the image: topic, width, height and group; empty without an image"""

    @property
    def name(self) -> str | None:
        """Of the file alone."""
        return None if self.path is None else PurePosixPath(self.path).name


class Writer(Protocol):
    """Writes the files of one format below a folder; what it holds is written when it is left."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None: ...

    def write(self, subject: Subject) -> None:
        """Append the rows of one image; all of a split come before the next split."""


class _BySplit(ExitStack):
    """A writer whose open files are closed when the rows of another split come."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._split = ""

    def begins(self, split: str) -> bool:
        """Whether these are the first rows of a split; then the files of the last are closed."""
        is_new = split != self._split
        if is_new:
            self.close()
            self._split = split
        return is_new

    def open_text(self, name: str) -> IO[str]:
        """A text file that is closed with the split."""
        return self.enter_context((self.folder / name).open("w", encoding="utf-8", newline="\n"))


class JsonList(_BySplit):
    """One JSON array for each split, a record on a line."""

    def __init__(self, folder: Path, record: Callable[[Row], Record]) -> None:
        super().__init__(folder)
        self._record = record
        self._file: IO[str]

    def write(self, subject: Subject) -> None:
        before = ",\n"
        if self.begins(subject.split):
            self._file = self.open_text(f"{subject.split}.json")
            self.callback(self._file.write, "\n]\n")
            before = "[\n"
        for row in subject.rows:
            self._file.write(before + to_json(self._record(row)))
            before = ",\n"


class JsonLines(_BySplit):
    """One file of JSON lines for each split."""

    def __init__(self, folder: Path, record: Callable[[Row], Record]) -> None:
        super().__init__(folder)
        self._record = record
        self._file: IO[str]

    def write(self, subject: Subject) -> None:
        if self.begins(subject.split):
            self._file = self.open_text(f"{subject.split}.jsonl")
        self._file.writelines(to_json(self._record(row)) + "\n" for row in subject.rows)


class FakeClueFolder(_BySplit):
    """FakeVLM's layout: a list for each split, and the images in folders by topic and label."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file: IO[str]

    def write(self, subject: Subject) -> None:
        before = ",\n"
        if self.begins(subject.split):
            (self.folder / LISTS_FOLDER).mkdir(exist_ok=True)
            self._file = self.open_text(f"{LISTS_FOLDER}/{subject.split}.json")
            self.callback(self._file.write, "\n]\n")
            before = "[\n"
        image = self._put(subject)
        for row in subject.rows:
            record = conversations.fakeclue(row, image, subject.facts)
            self._file.write(before + to_json(record))
            before = ",\n"

    def _put(self, subject: Subject) -> str:
        """Lay the file of an image down; returns its place in the folder of its split."""
        topic = subject.facts["topic"] or UNSORTED
        image = f"{folder_name(topic)}/{subject.rows[0]['label']}/{subject.name}"
        path = self.folder / subject.split / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(subject.data or b"")
        return image


def folder_name(topic: str) -> str:
    """A topic as the name of a folder: of what collections say, nothing else is let through."""
    return re.sub(r"[^a-z0-9]+", "-", topic.lower()).strip("-") or UNSORTED


class LlamaFactory(JsonLines):
    """JSON lines, and the `dataset_info.json` by which LLaMA-Factory finds them."""

    def begins(self, split: str) -> bool:
        is_new = super().begins(split)
        if is_new:
            names = sorted({path.stem for path in self.folder.glob("*.jsonl")} | {split})
            info = {f"fakeinstruct_{name}": _dataset_info(name) for name in names}
            text = json.dumps(info, indent=2) + "\n"
            (self.folder / DATASET_INFO).write_text(text, encoding="utf-8")
        return is_new


def _dataset_info(split: str) -> Record:
    return {
        "file_name": f"{split}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
        },
    }


class TrlParquet(_BySplit):
    """One Parquet file for each split; a row group holds the bytes of an image once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._waiting: list[Record] = []
        self._num_bytes = 0
        self._writer: pq.ParquetWriter

    def write(self, subject: Subject) -> None:
        if self.begins(subject.split):
            self._writer = self.enter_context(
                pq.ParquetWriter(
                    self.folder / f"{subject.split}.parquet",
                    TRL_SCHEMA,
                    compression="zstd",
                    use_dictionary=["images.list.element.bytes", "images.list.element.path"],
                    dictionary_pagesize_limit=2 * GROUP_BYTES,
                )
            )
            self.callback(self._flush)
        images = [] if subject.data is None else [{"bytes": subject.data, "path": subject.name}]
        self._waiting += [conversations.trl(row) | {"images": images} for row in subject.rows]
        self._num_bytes += len(subject.data or b"") * len(subject.rows)
        if self._num_bytes >= GROUP_BYTES or len(self._waiting) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_pylist(self._waiting, schema=TRL_SCHEMA)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._num_bytes = [], 0


class WebDataset(_BySplit):
    """Tar files with one sample for each image: its file, and its instructions as JSON."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._samples = 0
        self._tar: tarfile.TarFile

    def write(self, subject: Subject) -> None:
        if self.begins(subject.split):
            self._samples = 0
        if self._samples % IMAGES_PER_TAR == 0:
            self.close()
            path = self.folder / f"{subject.split}-{self._samples // IMAGES_PER_TAR:06d}.tar"
            tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - in the stack
            self._tar = self.enter_context(tar)
        self._samples += 1
        first = subject.rows[0]
        key = first["image_id"] or first["instruction_id"]
        if subject.data is not None:
            self._add(f"{key}{PurePosixPath(subject.name or '').suffix}", subject.data)
        sample = {name: first[name] for name in OF_IMAGE}
        sample["instructions"] = [conversations.webdataset(row) for row in subject.rows]
        self._add(f"{key}.json", to_json(sample).encode())

    def _add(self, name: str, data: bytes) -> None:
        """A member without time or owner: the same sample gives the same bytes."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


def to_json(record: Record) -> str:
    """On one line, as people read it."""
    return json.dumps(record, ensure_ascii=False)
