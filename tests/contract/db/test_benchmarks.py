"""What is read of benchmarks, on both databases."""

from __future__ import annotations

from dataclasses import replace

from core.records import Authenticity, BenchmarkImage, ImageRecord, Source
from db.benchmarks import (
    benchmark_images,
    hashes_of,
    relatives,
    save_benchmark_hashes,
    shared_files,
)
from db.engine import Database
from db.images import (
    ImportedFile,
    ImportOutcome,
    save_images,
    save_imported_files,
    save_source,
)
from tests.campaigns import store_images
from tests.unit.records import make_image

SHA256, PHASH = "ab" * 32, "cd" * 8


def listed(benchmark: str = "listed", **changes: str | None) -> BenchmarkImage:
    values = {"name": SHA256, "sha256": SHA256, "phash": PHASH}
    return BenchmarkImage(benchmark=benchmark, **{**values, **changes})  # type: ignore[arg-type]


def held(image: ImageRecord, *, benchmark: str | None = None) -> BenchmarkImage:
    return BenchmarkImage(
        benchmark=benchmark or image.source,
        name=image.image_id,
        sha256=image.original_sha256,
        phash=image.phash,
    )


def add_source(database: Database, name: str, *, may_train: bool) -> None:
    with database.write() as session:
        save_source(session, Source(name=name, licence="unknown", may_train=may_train))


def add_file(
    database: Database, source: str, name: str, image: ImageRecord, outcome: ImportOutcome
) -> None:
    file = ImportedFile(
        source=source,
        name=name,
        outcome=outcome,
        reason=None,
        image_id=image.image_id,
        size=1,
        mtime_ns=1,
    )
    with database.write() as session:
        save_imported_files(session, [file])


def read(database: Database) -> list[BenchmarkImage]:
    with database.read() as session:
        return list(benchmark_images(session))


def test_images_of_training_sources_are_none_of_a_benchmark(database: Database) -> None:
    store_images(database, 3)
    assert read(database) == []


def test_images_of_an_evaluation_source_are_all_there(database: Database) -> None:
    store_images(database, 2)
    images = store_images(database, 1203, source="bench")
    add_source(database, "bench", may_train=False)
    assert read(database) == [held(image) for image in images]


def test_an_image_that_another_source_held_first_is_of_the_benchmark_too(
    database: Database,
) -> None:
    (image,) = store_images(database, 1)
    for name, outcome in (
        ("copy", ImportOutcome.DUPLICATE),
        ("with the other label", ImportOutcome.REFUSED),
    ):
        add_source(database, name, may_train=False)
        add_file(database, name, "a.jpg", image, outcome)
    found = sorted(read(database), key=lambda each: each.benchmark)
    assert found == [
        held(image, benchmark="copy"),
        held(image, benchmark="with the other label"),
    ]


def test_a_list_of_hashes_is_stored_once(database: Database) -> None:
    add_source(database, "listed", may_train=False)
    lines = [
        listed(),
        listed(phash=None),
        listed(sha256=None, name=PHASH),
    ]
    for new in (3, 0):
        with database.write() as session:
            assert save_benchmark_hashes(session, lines) == new
    assert sorted(read(database), key=str) == sorted(lines, key=str)


def test_two_benchmarks_may_list_the_same_image(database: Database) -> None:
    for name in ("one", "two"):
        add_source(database, name, may_train=False)
        with database.write() as session:
            assert save_benchmark_hashes(session, [listed(name)]) == 1
    assert {image.benchmark for image in read(database)} == {"one", "two"}


def test_hashes_are_those_of_one_source(database: Database) -> None:
    store_images(database, 2)
    images = store_images(database, 2, source="own")
    with database.read() as session:
        assert list(hashes_of(session, "own")) == [held(image) for image in images]
        assert list(hashes_of(session, "none")) == []


def test_relatives_share_a_group_in_whatever_source(database: Database) -> None:
    own = make_image("own", group="photograph")
    crop = make_image("crop", group="photograph", source="crops")
    others = [
        make_image("other", group="another", source="crops"),
        make_image("unlabelled", group="photograph", label=None),
    ]
    for name in ("demo", "crops"):
        add_source(database, name, may_train=True)
    with database.write() as session:
        save_images(session, [own, crop, *others])
        assert relatives(session, [crop]) == [own]
        assert relatives(session, [own, crop]) == []
        assert relatives(session, []) == []


def test_shared_files_are_counted_by_who_holds_the_image(database: Database) -> None:
    first, second = store_images(database, 2)
    add_source(database, "copies", may_train=True)
    files = (
        ("demo", "first.jpg", first, ImportOutcome.ACCEPTED),
        ("demo", "first again.jpg", first, ImportOutcome.DUPLICATE),
        ("copies", "first.jpg", first, ImportOutcome.DUPLICATE),
        ("copies", "second.jpg", second, ImportOutcome.REFUSED),
    )
    for source, name, image, outcome in files:
        add_file(database, source, name, image, outcome)
    with database.read() as session:
        assert shared_files(session, ["copies", "demo"]) == {
            ("copies", "demo"): 2,
            ("demo", "demo"): 1,
        }
        assert shared_files(session, ["demo"]) == {("demo", "demo"): 1}


def test_a_label_does_not_matter_to_a_benchmark(database: Database) -> None:
    image = replace(make_image("unlabelled"), label=None, source="bench")
    photograph = make_image("photograph", label=Authenticity.REAL, source="bench")
    add_source(database, "bench", may_train=False)
    with database.write() as session:
        save_images(session, [image, photograph])
    assert {found.name for found in read(database)} == {image.image_id, photograph.image_id}
