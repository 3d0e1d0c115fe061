"""Sources, images and imported files, on both databases."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.records import Authenticity, Source
from db.engine import Database
from db.images import (
    ImportedFile,
    ImportOutcome,
    count_images,
    file_names,
    find_imported,
    images_by_hash,
    images_by_id,
    imported_files,
    labelled_images,
    phashes,
    rename_clusters,
    save_images,
    save_imported_files,
    save_source,
    source_names,
    sources,
    total_files,
)
from tests.campaigns import store_images
from tests.unit.records import make_image


def make_file(name: str, **changes: object) -> ImportedFile:
    values = {
        "source": "demo",
        "name": name,
        "outcome": ImportOutcome.ACCEPTED,
        "reason": None,
        "image_id": None,
        "size": 5_000_000_000,
        "mtime_ns": 1_790_000_000_123_456_789,
    }
    return ImportedFile(**{**values, **changes})  # type: ignore[arg-type]


def test_a_source_is_read_back_and_its_terms_can_change(database: Database) -> None:
    with database.write() as session:
        save_source(session, Source(name="wild", licence="unknown"))
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        changed = Source(name="wild", licence="CC-BY-4.0", may_train=False, terms="ask first")
        save_source(session, changed)
    with database.read() as session:
        found = sources(session)
    assert list(found) == ["demo", "wild"]
    assert found["wild"] == changed
    assert found["demo"].terms == ""


def test_a_source_without_images_is_not_named(database: Database) -> None:
    store_images(database, 2)
    with database.write() as session:
        save_source(session, Source(name="empty", licence="unknown"))
        assert source_names(session) == ["demo"]


def test_an_image_is_read_back_as_it_was_saved(database: Database) -> None:
    images = [
        make_image("one", jpeg_quality=None, label=None, generator=None),
        make_image("two", label=Authenticity.REAL, generator=None),
    ]
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        assert save_images(session, images) == 2
    with database.read() as session:
        found = images_by_id(session, [*(image.image_id for image in images), "img-none"])
    assert found == {image.image_id: image for image in images}


def test_an_image_is_found_by_the_file_that_was_taken_in_and_by_the_one_that_is_kept(
    database: Database,
) -> None:
    original = "f" * 64
    image, other = make_image("one", original_sha256=original), make_image("two")
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        save_images(session, [image, other])
    with database.read() as session:
        assert images_by_hash(session, [original])[original] == image
        assert images_by_hash(session, [other.sha256])[other.sha256] == other
        assert images_by_hash(session, ["0" * 64]) == {}


def test_known_images_stay_as_they_are(database: Database) -> None:
    (image,) = store_images(database, 1)
    changed = make_image("demo 0", label=Authenticity.REAL)
    with database.write() as session:
        assert save_images(session, [changed, make_image("new")]) == 1
        assert images_by_id(session, [image.image_id]) == {image.image_id: image}


def test_no_images_are_no_trouble(database: Database) -> None:
    with database.write() as session:
        assert save_images(session, []) == 0
        assert images_by_id(session, []) == {}
        assert list(labelled_images(session)) == []
        rename_clusters(session, {})
        save_imported_files(session, [])
        assert count_images(session).total == 0


def test_labelled_images_come_in_order_and_in_more_than_one_batch(database: Database) -> None:
    images = store_images(database, 1203)
    store_images(database, 3, source="other", label=None)
    with database.read() as session:
        assert list(labelled_images(session)) == images


def test_sources_are_chosen_or_left_out(database: Database) -> None:
    demo, own = store_images(database, 3), store_images(database, 2, source="own")
    with database.read() as session:
        assert list(labelled_images(session, sources=["own"])) == own
        assert list(labelled_images(session, exclude_sources=["own"])) == demo
        assert list(labelled_images(session, sources=[])) == []


def test_images_may_be_stored_while_others_are_read(database: Database) -> None:
    images = store_images(database, 1001)
    with database.write() as session:
        seen = []
        for image in labelled_images(session):
            seen.append(image)
            rename_clusters(session, {image.cluster: "same"})
    assert seen == images


def test_images_are_counted_by_source_and_label(database: Database) -> None:
    store_images(database, 5)
    store_images(database, 2, source="own", label=None)
    with database.read() as session:
        counts = count_images(session)
    assert (counts.total, counts.labelled) == (7, 5)
    assert counts.by_source == {"demo": 5, "own": 2}
    assert counts.by_label == {Authenticity.FAKE: 3, Authenticity.REAL: 2}


def test_a_cluster_is_renamed_for_all_its_images_alone(database: Database) -> None:
    first, second, third = store_images(database, 3)
    with database.write() as session:
        rename_clusters(session, {first.cluster: "pair", third.cluster: "pair"})
        rename_clusters(session, {"pair": "all", "no such cluster": "none"})
        (found,) = phashes(session)
    assert found == [
        (first.image_id, first.phash, "all"),
        (second.image_id, second.phash, second.cluster),
        (third.image_id, third.phash, "all"),
    ]


def test_an_imported_file_is_replaced_when_it_is_seen_again(database: Database) -> None:
    (image,) = store_images(database, 1)
    broken = make_file("b.jpg", outcome=ImportOutcome.REFUSED, reason="truncated")
    mended = make_file("b.jpg", image_id=image.image_id, size=7)
    with database.write() as session:
        save_imported_files(session, [make_file("c.jpg"), broken])
        assert list(imported_files(session, "demo", ImportOutcome.REFUSED)) == [broken]
        save_imported_files(session, [mended])
        assert list(imported_files(session, "demo")) == [mended, make_file("c.jpg")]
        assert list(imported_files(session, "demo", ImportOutcome.REFUSED)) == []
        assert list(imported_files(session, "other")) == []
        assert find_imported(session, "demo", ["b.jpg", "none"]) == {"b.jpg": mended}
        assert find_imported(session, "other", ["b.jpg"]) == {}
        assert (total_files(session, "demo"), total_files(session, "other")) == (2, 0)
        assert file_names(session, [image.image_id]) == {("demo", image.image_id): "b.jpg"}


@pytest.mark.parametrize("name", ["x" * 4000, "ü/ß.png", "a\nb.jpg", "'; DROP TABLE images; --"])
def test_odd_file_names_are_kept(database: Database, name: str) -> None:
    store_images(database, 1)
    with database.write() as session:
        save_imported_files(session, [make_file(name), make_file(name.upper())])
        assert {f.name for f in imported_files(session, "demo")} == {name, name.upper()}
        assert set(find_imported(session, "demo", [name])) == {name}


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(st.characters(codec=None), min_size=1, max_size=40))
def test_any_text_can_be_stored_and_found_again(database: Database, name: str) -> None:
    with database.write() as session:
        save_source(session, Source(name=name, licence=name))
        save_imported_files(session, [make_file(name, source=name)])
        save_imported_files(session, [make_file(name, source=name)])
        assert set(find_imported(session, name, [name])) == {name}
        assert total_files(session, name) == 1


def test_names_sort_by_code_point_on_both(database: Database) -> None:
    names = ["Zebra", "a-b", "a b", "ab", "a_b", "é", "b"]
    with database.write() as session:
        for name in names:
            save_source(session, Source(name=name, licence="unknown"))
        assert list(sources(session)) == sorted(names)
