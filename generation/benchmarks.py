"""The use case: register a benchmark by a list of hashes, without holding any of its images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import ConfigError
from core.records import BenchmarkImage, Source
from db.benchmarks import hashes_of, save_benchmark_hashes
from db.engine import Database
from db.images import save_source
from db.images import sources as read_sources
from imaging.layouts.rows import READERS, Row, read_rows
from imaging.layouts.tree import FolderTree

COLUMNS: Final = {"sha256": 64, "phash": 16}
"""hexadecimal digits of each; a list has one of them or both"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterSummary:
    """What a list of hashes held."""

    benchmark: str
    images: int
    new: int
    with_phash: int

    def text(self) -> str:
        """The summary as lines to print."""
        lines = [
            f"{self.benchmark}: {self.images:,} images listed, {self.new:,} of them new; for "
            "evaluation only"
        ]
        if not self.with_phash:
            lines.append("no perceptual hash in the list: exact copies alone can be found")
        return "\n".join(lines)


def register_benchmark(
    database: Database, path: Path, *, name: str, licence: str
) -> RegisterSummary:
    """List the images of a benchmark from a CSV, JSON lines or Parquet file.

    Its columns are `sha256` (of the published file) and `phash` (64 bits, as ImageHash writes it),
    or one of them; others are left alone. Doing it again adds nothing. Raises ConfigError when the
    file holds no such list, or when `name` is a source to train on.
    """
    listed = list(_read(path, name))
    if not listed:
        raise ConfigError(f"{path}: no image is listed in it")
    with database.write() as session:
        before = read_sources(session).get(name)
        if before is not None and before.may_train:
            raise ConfigError(f"{name!r} is a source to train on; choose another name")
        if before is None:
            save_source(session, Source(name=name, licence=licence, may_train=False))
        new = save_benchmark_hashes(session, listed)
    return RegisterSummary(
        benchmark=name,
        images=len(listed),
        new=new,
        with_phash=sum(image.phash is not None for image in listed),
    )


def _read(path: Path, benchmark: str) -> Iterator[BenchmarkImage]:
    if path.suffix.lower().removeprefix(".") not in READERS:
        known = ", ".join(f".{suffix}" for suffix in sorted(READERS))
        raise ConfigError(f"{path}: a list of hashes is one of {known}")
    for number, row in read_rows(FolderTree(path.parent), path.name):
        hashes = {column: _hash(row, column, f"{path}, row {number}") for column in COLUMNS}
        if not any(hashes.values()):
            raise ConfigError(f"{path}, row {number}: neither a sha256 nor a phash")
        name = hashes["sha256"] or hashes["phash"] or ""
        yield BenchmarkImage(benchmark=benchmark, name=name, **hashes)


def _hash(row: Row, column: str, place: str) -> str | None:
    text = str(row.get(column) or "").strip().lower()
    digits = COLUMNS[column]
    if text and not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
        raise ConfigError(f"{place}: a {column} has {digits} hexadecimal digits, not {text[:80]!r}")
    return text or None


def hash_list(database: Database, source: str) -> Iterator[str]:
    """Lines of CSV with the hashes of the images of a source, for others to register.

    Raises ConfigError when there is no such source.
    """
    with database.read() as session:
        if source not in read_sources(session):
            raise ConfigError(f"there is no source {source!r}")
        yield ",".join(COLUMNS)
        for image in hashes_of(session, source):
            yield f"{image.sha256},{image.phash}"
