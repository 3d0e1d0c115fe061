"""Every odd file, taken in as a whole folder: each ends as it should, on both databases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from core.records import Authenticity, Source
from db.engine import Database
from db.images import ImportOutcome, count_images, images_by_id, imported_files
from generation.ingest import IngestSummary, ingest
from imaging.store import ImageStore
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
from tests.odd_files import NEAR_TWINS, SECRET_CAMERA, SECRET_PROMPT, Fate, draw_odd_files

ODD = Source(name="odd", licence="CC0-1.0")
FATES = {outcome: Fate(outcome.value) for outcome in ImportOutcome}

Fates = dict[str, tuple[Fate, str]]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fates]:
    """The folder, and what must become of what is in it."""
    folder = tmp_path_factory.mktemp("odd")
    return folder, draw_odd_files(folder)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def take_in(database: Database, store: ImageStore, folder: Path) -> IngestSummary:  # noqa: F811
    return ingest(database, store, folder, source=ODD, label=Authenticity.REAL)


def test_every_odd_file_ends_as_it_should_and_the_counts_add_up(
    database: Database,  # noqa: F811
    store: ImageStore,
    odd: tuple[Path, Fates],
) -> None:
    folder, fates = odd
    summary = take_in(database, store, folder)
    expected = Counter(fate for fate, _ in fates.values())
    assert summary.seen == len(fates)
    assert (summary.accepted, summary.changed) == (expected[Fate.ACCEPTED], expected[Fate.CHANGED])
    assert (summary.duplicates, summary.refused) == (
        expected[Fate.DUPLICATE],
        expected[Fate.REFUSED],
    )
    assert (summary.hidden, summary.known) == (expected[Fate.HIDDEN], 0)
    with database.read() as session:
        files = {file.name: file for file in imported_files(session, "odd")}
    for name, (fate, reason) in fates.items():
        if fate is Fate.HIDDEN:
            assert name not in files
        else:
            assert FATES[files[name].outcome] is fate, f"{name}: {files[name]}"
            assert reason in (files[name].reason or ""), name


def test_odd_files_are_known_the_next_time(
    database: Database,  # noqa: F811
    store: ImageStore,
    odd: tuple[Path, Fates],
) -> None:
    first = take_in(database, store, odd[0])
    again = take_in(database, store, odd[0])
    assert (again.accepted, again.changed, again.duplicates) == (0, 0, 0)
    assert (again.seen, again.hidden) == (first.seen, first.hidden)
    passing = [name for name, reason in again.refusals if name.endswith(".jpg") or "folder" in name]
    assert again.refused == len(passing) == 6  # links and pipes: looked at again, never read


def test_nothing_private_reaches_the_store(
    database: Database,  # noqa: F811
    store: ImageStore,
    odd: tuple[Path, Fates],
) -> None:
    take_in(database, store, odd[0])
    stored = [path.read_bytes() for path in store.folder.rglob("*") if path.is_file()]
    words = (SECRET_PROMPT, SECRET_CAMERA, "nobody asked for", "root:", "GPSLatitude", "<script")
    assert len(stored) > 50
    assert not [word for data in stored for word in words if word.encode() in data]


def test_versions_of_one_picture_share_a_cluster_and_no_others_do(
    database: Database,  # noqa: F811
    store: ImageStore,
    odd: tuple[Path, Fates],
) -> None:
    take_in(database, store, odd[0])
    with database.read() as session:
        files = {file.name: file for file in imported_files(session, "odd")}
        images = images_by_id(session, [f.image_id for f in files.values() if f.image_id])
    clusters = Counter(image.cluster for image in images.values())
    twins = {images[str(files[name].image_id)].cluster for name in NEAR_TWINS}
    assert len(twins) == 1
    assert {cluster for cluster, size in clusters.items() if size > 1} == twins


def test_images_without_a_label_get_one_later(
    database: Database,  # noqa: F811
    store: ImageStore,
    odd: tuple[Path, Fates],
) -> None:
    unlabelled = ingest(database, store, odd[0], source=ODD)
    labelled = take_in(database, store, odd[0])
    assert unlabelled.unlabelled == unlabelled.accepted + unlabelled.changed
    assert labelled.unlabelled == 0
    assert (labelled.accepted, labelled.changed) == (unlabelled.accepted, unlabelled.changed)
    with database.read() as session:
        counted = count_images(session)
    assert counted.by_label == {Authenticity.REAL: counted.total}
