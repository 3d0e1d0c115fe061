"""Benchmarks: the images of sources that are for evaluation only, held here or listed by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.ids import content_id
from core.records import BenchmarkImage, ImageRecord
from db.images import ImportOutcome, labelled_images
from db.statements import insert_missing, stream
from db.tables import BenchmarkHashRow, FileRow, ImageRow, SourceRow, table_of

REPEATED = (ImportOutcome.DUPLICATE, ImportOutcome.REFUSED)
"""outcomes of a file whose image was there before; it is named in the row"""
_HELD: tuple[InstrumentedAttribute[Any], ...] = (
    ImageRow.image_id,
    ImageRow.source,
    ImageRow.original_sha256,
    ImageRow.phash,
)
_ELSEWHERE: tuple[InstrumentedAttribute[Any], ...] = (
    FileRow.file_id,
    FileRow.source,
    ImageRow.image_id,
    ImageRow.original_sha256,
    ImageRow.phash,
)
_LISTED = tuple(table_of(BenchmarkHashRow).columns)


def save_benchmark_hashes(session: Session, listed: Sequence[BenchmarkImage]) -> int:
    """List images of benchmarks, whose sources must be there; returns how many are new."""
    rows = [
        {
            "hash_id": content_id("hash", image.benchmark, image.sha256, image.phash),
            "source": image.benchmark,
            "sha256": image.sha256,
            "phash": image.phash,
        }
        for image in listed
    ]
    return insert_missing(session, table_of(BenchmarkHashRow), rows)


def benchmark_images(session: Session) -> Iterator[BenchmarkImage]:
    """Every image of every benchmark. One that two benchmarks hold comes once for each.

    A file of a benchmark whose image was there before, from whatever source, is one of them.
    """
    yield from _held(session)
    yield from _held_elsewhere(session)
    yield from _listed(session)


def hashes_of(session: Session, source: str) -> Iterator[BenchmarkImage]:
    """The images that a source holds, by image id, as those of a benchmark."""
    yield from _images(session, select(*_HELD).where(ImageRow.source == source))


def _held(session: Session) -> Iterator[BenchmarkImage]:
    benchmarks = select(*_HELD).join(SourceRow, SourceRow.name == ImageRow.source)
    yield from _images(session, benchmarks.where(SourceRow.may_train.is_(False)))


def _images(session: Session, statement: Select[Any]) -> Iterator[BenchmarkImage]:
    for rows in stream(session, statement, ImageRow.image_id):
        yield from map(_image_of, rows)


def _held_elsewhere(session: Session) -> Iterator[BenchmarkImage]:
    """Files that were duplicates of an image of another source, or contradicted its label."""
    statement = (
        select(*_ELSEWHERE)
        .join(SourceRow, SourceRow.name == FileRow.source)
        .join(ImageRow, ImageRow.image_id == FileRow.image_id)
        .where(SourceRow.may_train.is_(False), ImageRow.source != FileRow.source)
    )
    for rows in stream(session, statement, FileRow.file_id):
        yield from map(_image_of, rows)


def _listed(session: Session) -> Iterator[BenchmarkImage]:
    for rows in stream(session, select(*_LISTED), BenchmarkHashRow.hash_id):
        for row in rows:
            yield BenchmarkImage(
                benchmark=row["source"],
                name=row["sha256"] or row["phash"],
                sha256=row["sha256"],
                phash=row["phash"],
            )


def _image_of(row: RowMapping) -> BenchmarkImage:
    return BenchmarkImage(
        benchmark=row["source"],
        name=row["image_id"],
        sha256=row["original_sha256"],
        phash=row["phash"],
    )


def relatives(session: Session, images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Labelled images that share a group with some of these and are none of them."""
    own = {image.image_id for image in images}
    groups = {image.group for image in images}
    return [
        image
        for image in labelled_images(session)
        if image.group in groups and image.image_id not in own
    ]


def shared_files(session: Session, sources: Sequence[str]) -> dict[tuple[str, str], int]:
    """Files of these sources that are images of some source already: by both sources, how many.

    Within one source: the same picture under two names.
    """
    rows = session.execute(
        select(FileRow.source, ImageRow.source, func.count())
        .join(ImageRow, ImageRow.image_id == FileRow.image_id)
        .where(FileRow.source.in_(sources), FileRow.outcome.in_(REPEATED))
        .group_by(FileRow.source, ImageRow.source)
        .order_by(FileRow.source, ImageRow.source)
    )
    return {(source, held_by): count for source, held_by, count in rows}
