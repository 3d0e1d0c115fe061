"""Sources, images, and what became of each imported file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from sys import intern
from typing import Any

from sqlalchemy import RowMapping, Select, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from core.ids import content_id, image_id_of
from core.records import Authenticity, ImageRecord, Source
from db.columns import storable
from db.statements import batches, insert_into, insert_missing, stream
from db.tables import FileRow, ImageRow, SourceRow, table_of
from db.tombstones import is_withdrawn

IMAGE_COLUMNS = tuple(getattr(ImageRow, column.key) for column in table_of(ImageRow).columns)
CLUSTER_COLUMNS: tuple[Any, ...] = (ImageRow.image_id, ImageRow.phash, ImageRow.cluster)
FILE_COLUMNS = tuple(column for column in table_of(FileRow).columns if column.key != "file_id")
ROWS_HELD = 500


class ImportOutcome(StrEnum):
    """What became of one file of a collection."""

    ACCEPTED = "accepted"
    CHANGED = "changed"
    """accepted, and what is stored differs in more than cut-out metadata"""
    DUPLICATE = "duplicate"
    """the same image is there already"""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFile:
    """One file of a source as it was last seen, and what became of it."""

    source: str
    name: str
    """path inside the collection, as text"""
    outcome: ImportOutcome
    reason: str | None
    image_id: str | None
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCounts:
    """How many images there are."""

    total: int
    labelled: int
    by_source: dict[str, int]
    by_label: dict[Authenticity, int]


def save_source(session: Session, source: Source) -> None:
    """Store a source, or change its licence and terms."""
    statement = insert_into(session, table_of(SourceRow)).values(**asdict(source))
    terms = {name: statement.excluded[name] for name in ("licence", "may_train", "terms")}
    session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=terms))


def sources(session: Session) -> dict[str, Source]:
    """All sources by name, in the order of their names."""
    columns = table_of(SourceRow).columns
    rows = session.execute(select(*columns).order_by(SourceRow.name)).mappings()
    return {row["name"]: Source(**row) for row in rows}


def source_names(session: Session) -> list[str]:
    """The names of all sources that hold an image, in order."""
    return list(session.scalars(select(ImageRow.source).distinct().order_by(ImageRow.source)))


def save_images(session: Session, records: Sequence[ImageRecord]) -> int:
    """Store the images that are not there yet; returns how many. Known ids stay as they are."""
    return insert_missing(session, table_of(ImageRow), [_image_values(r) for r in records])


def label_images(session: Session, records: Sequence[ImageRecord]) -> None:
    """Give images that have no label yet the label of these records, and what goes with it."""
    if not records:
        return
    terms = ("label", "generator", "photo_group", "source")
    statement = (
        update(table_of(ImageRow))
        .where(ImageRow.image_id == bindparam("of_image"), ImageRow.label.is_(None))
        .values({name: bindparam(f"new_{name}") for name in terms})
    )
    rows = [(record.image_id, _image_values(record)) for record in records]
    session.connection().execute(
        statement,
        [{"of_image": i, **{f"new_{name}": row[name] for name in terms}} for i, row in rows],
    )


def images_by_id(session: Session, image_ids: Sequence[str]) -> dict[str, ImageRecord]:
    """The images of these ids; unknown ids are left out."""
    found: dict[str, ImageRecord] = {}
    for batch in batches(list(image_ids)):
        statement = select(*IMAGE_COLUMNS).where(ImageRow.image_id.in_(batch))
        for row in session.execute(statement).mappings():
            found[row["image_id"]] = image_of(row)
    return found


def images_by_hash(session: Session, hashes: Sequence[str]) -> dict[str, ImageRecord]:
    """The images of these SHA-256, of the stored file or of the one that was taken in.

    Unknown hashes are left out; of several images of one file the first is taken.
    """
    found: dict[str, ImageRecord] = {}
    for batch in batches(list(hashes)):
        ids = [image_id_of(digest) for digest in batch]
        statement = (
            select(*IMAGE_COLUMNS)
            .where(or_(ImageRow.image_id.in_(ids), ImageRow.original_sha256.in_(batch)))
            .order_by(ImageRow.image_id)
        )
        for row in session.execute(statement).mappings():
            image = image_of(row)
            found.setdefault(image.original_sha256, image)
            found[image.sha256] = image
    return found


def labelled_images(
    session: Session, *, sources: Sequence[str] | None = None, exclude_sources: Sequence[str] = ()
) -> Iterator[ImageRecord]:
    """The labelled images of `sources` (None: of all) but `exclude_sources`, by image id.

    Withdrawn ones are left out.
    """
    labelled = (ImageRow.label.is_not(None), ~is_withdrawn(ImageRow.image_id))
    statement = select(*IMAGE_COLUMNS).where(*labelled)
    statement = of_sources(statement, sources, exclude_sources)
    for rows in stream(session, statement, ImageRow.image_id):
        yield from map(image_of, rows)


def of_sources(
    statement: Select[Any], sources: Sequence[str] | None, exclude_sources: Sequence[str]
) -> Select[Any]:
    """The same statement for images of these sources alone."""
    source = ImageRow.source.concat("")  # or SQLite takes the index over sources, and sorts all
    if sources is not None:
        statement = statement.where(source.in_(sources))
    return statement.where(source.not_in(exclude_sources)) if exclude_sources else statement


def count_images(session: Session) -> ImageCounts:
    """Images by source and by label, without withdrawn ones."""
    by_source: Counter[str] = Counter()
    by_label: Counter[Authenticity] = Counter()
    rows = session.execute(
        select(ImageRow.source, ImageRow.label, func.count())
        .where(~is_withdrawn(ImageRow.image_id))
        .group_by(ImageRow.source, ImageRow.label)
        .order_by(ImageRow.source, ImageRow.label)
    )
    for source, label, count in rows:
        by_source[source] += count
        if label is not None:
            by_label[label] += count
    return ImageCounts(
        total=by_source.total(),
        labelled=by_label.total(),
        by_source=dict(by_source),
        by_label=dict(by_label),
    )


def rename_clusters(session: Session, names: Mapping[str, str]) -> None:
    """Give the images of each of these near-duplicate clusters the new name of the cluster."""
    if not names:
        return
    statement = (
        update(table_of(ImageRow))
        .where(ImageRow.cluster == bindparam("old_name"))
        .values(cluster=bindparam("new_name"))
    )
    changes = [{"old_name": old, "new_name": new} for old, new in sorted(names.items())]
    session.connection().execute(statement, changes)


def phashes(session: Session) -> Iterator[list[tuple[str, str, str]]]:
    """Image id, perceptual hash and cluster of every image, by image id, in portions."""
    for rows in stream(session, select(*CLUSTER_COLUMNS), ImageRow.image_id):
        yield [(row["image_id"], row["phash"], row["cluster"]) for row in rows]


def total_images(session: Session) -> int:
    """How many images there are, withdrawn ones too."""
    return session.execute(select(func.count()).select_from(ImageRow)).scalar_one()


def save_imported_files(session: Session, files: Sequence[ImportedFile]) -> None:
    """Store what became of these files; a file that was seen before is replaced."""
    if not files:
        return
    statement = insert_into(session, table_of(FileRow))
    seen = {name: statement.excluded[name] for name in ("outcome", "reason", "image_id")}
    state = {name: statement.excluded[name] for name in ("size", "mtime_ns")}
    rows = [{"file_id": _file_id(file.source, file.name), **asdict(file)} for file in files]
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=["file_id"], set_=seen | state), rows
    )


def find_imported(session: Session, source: str, names: Sequence[str]) -> dict[str, ImportedFile]:
    """The files of these names that are known of a source, by name."""
    found: dict[str, ImportedFile] = {}
    for batch in batches(names):
        asked = {_file_id(source, name): name for name in batch}
        statement = select(FileRow.file_id, *FILE_COLUMNS).where(FileRow.file_id.in_(asked))
        for row in session.execute(statement).mappings():
            found[asked[row["file_id"]]] = _file_of(row)
    return found


def imported_files(
    session: Session, source: str, outcome: ImportOutcome | None = None
) -> Iterator[ImportedFile]:
    """The known files of a source, all or those with one outcome, in the order of their names."""
    statement = select(*FILE_COLUMNS).where(FileRow.source == source).order_by(FileRow.name)
    if outcome is not None:
        statement = statement.where(FileRow.outcome == outcome)
    rows = session.execute(statement, execution_options={"yield_per": ROWS_HELD}).mappings()
    return (_file_of(row) for row in rows)


def total_files(session: Session, source: str) -> int:
    """How many files of a source are known."""
    statement = select(func.count()).select_from(FileRow).where(FileRow.source == source)
    return session.execute(statement).scalar_one()


def file_names(session: Session, image_ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """The name of the file that each of these images was taken from, by source and image id."""
    found: dict[tuple[str, str], str] = {}
    made = (ImportOutcome.ACCEPTED, ImportOutcome.CHANGED)
    for batch in batches(image_ids):
        statement = (
            select(FileRow.source, FileRow.image_id, func.max(FileRow.name))
            .where(FileRow.image_id.in_(batch), FileRow.outcome.in_(made))
            .group_by(FileRow.source, FileRow.image_id)
        )
        found |= {(source, str(i)): name for source, i, name in session.execute(statement)}
    return found


def copies_of(session: Session, image: ImageRecord) -> list[ImageRecord]:
    """The images that `python -m generation normalise` made of an image, by image id.

    Their files are named after it, and they are in its group.
    """
    named = FileRow.name.startswith(f"{image.image_id}-", autoescape=True)
    statement = (
        select(*IMAGE_COLUMNS)
        .join(FileRow, FileRow.image_id == ImageRow.image_id)
        .where(ImageRow.photo_group == image.group, ImageRow.image_id != image.image_id, named)
    )
    rows = session.execute(statement.distinct().order_by(ImageRow.image_id)).mappings()
    return [image_of(row) for row in rows]


def kin_of(session: Session, image: ImageRecord) -> list[ImageRecord]:
    """Other images in the near-duplicate cluster or in the group of an image, by image id.

    Withdrawn ones are left out.
    """
    related = (ImageRow.cluster == image.cluster) | (ImageRow.photo_group == image.group)
    statement = select(*IMAGE_COLUMNS).where(
        related, ImageRow.image_id != image.image_id, ~is_withdrawn(ImageRow.image_id)
    )
    rows = session.execute(statement.order_by(ImageRow.image_id)).mappings()
    return [image_of(row) for row in rows]


def image_of(row: RowMapping) -> ImageRecord:
    """The image in a row that holds `IMAGE_COLUMNS`; what many images share is there once."""
    return ImageRecord(
        image_id=row["image_id"],
        sha256=row["sha256"],
        original_sha256=row["original_sha256"],
        path=row["path"],
        width=row["width"],
        height=row["height"],
        format=intern(row["format"]),
        jpeg_quality=row["jpeg_quality"],
        phash=row["phash"],
        cluster=row["cluster"],
        group=intern(row["photo_group"]),
        label=row["label"],
        generator=_shared(row["generator"]),
        source=intern(row["source"]),
        size_bytes=row["size_bytes"],
        subsampling=_shared(row["subsampling"]),
    )


def _shared(text: str | None) -> str | None:
    return None if text is None else intern(text)


def _image_values(record: ImageRecord) -> dict[str, Any]:
    values = asdict(record)
    return {**values, "photo_group": values.pop("group")}


def _file_of(row: RowMapping) -> ImportedFile:
    values = {column.key: row[column.key] for column in FILE_COLUMNS}
    return ImportedFile(**{**values, "outcome": ImportOutcome(row["outcome"])})


def _file_id(source: str, name: str) -> str:
    return content_id("file", storable(source), storable(name))
