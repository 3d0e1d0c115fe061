"""The normalised source: what it is made of, what it keeps, what stays as it was."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError
from core.ids import seed_of
from core.recipe import Normalise
from core.records import Authenticity, ImageRecord, Source
from core.settings import load_settings
from db.engine import Database, open_database
from db.images import copies_of, labelled_images, sources
from db.tombstones import withdraw
from db.topics import topics_among
from generation.ingest import EncodedImage, ingest_encoded
from generation.normalise import NormaliseSummary, normalise
from imaging.decode import open_image
from imaging.store import ImageStore
from tests.unit.records import make_tombstone

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
EACH = 4


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "home" / "images")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    opened = open_database(load_settings(fakescope_home=tmp_path / "home"))
    yield opened
    opened.dispose()


def draw(seed: int, width: int, height: int, kind: str) -> bytes:
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def take_in(
    database: Database,
    store: ImageStore,
    label: Authenticity | None,
    *,
    source: str = "own",
    seed: int = 0,
    number: int = EACH,
    may_train: bool = True,
) -> None:
    """Photographs are JPEG of 200 x 120, fakes PNG of 160 x 160; each is in a group of its own."""
    width, height, kind = (160, 160, "PNG") if label is FAKE else (200, 120, "JPEG")
    items = [
        EncodedImage(
            name=f"{label} {seed} {n}",
            data=draw(seed_of(label, seed, n), width, height, kind),
            label=label,
            generator="some-generator" if label is FAKE else None,
            group=f"{source}/{label} {seed} {n}",
            topic=f"topic {n}" if n else None,
        )
        for n in range(number)
    ]
    origin = Source(name=source, licence=f"licence of {source}", may_train=may_train)
    assert ingest_encoded(database, store, items, source=origin).accepted == number


def run(
    database: Database,
    store: ImageStore,
    *names: str,
    into: str | None = None,
    settings: Normalise | None = None,
) -> NormaliseSummary:
    return normalise(database, store, settings or Normalise(), sources=names or ("own",), into=into)


def images_of(database: Database, source: str) -> list[ImageRecord]:
    with database.read() as session:
        return list(labelled_images(session, sources=[source]))


def topics_by_group(
    database: Database, images: list[ImageRecord]
) -> dict[str | None, Mapping[str, str]]:
    with database.read() as session:
        said = topics_among(session, [image.image_id for image in images])
    return {image.group: said[image.image_id] for image in images if image.image_id in said}


def test_both_labels_come_out_alike_and_the_source_stays_as_it_was(
    database: Database, store: ImageStore
) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    before = images_of(database, "own")
    made = run(database, store)
    after = images_of(database, "own-normalised")
    assert images_of(database, "own") == before
    assert made.ingested.accepted == len(after) == 2 * EACH
    assert {(i.format, i.subsampling, i.width, i.height) for i in after} == {
        ("JPEG", "4:2:0", 160, 112)
    }
    assert all(85 <= (image.jpeg_quality or 0) <= 96 for image in after)
    assert {i.label for i in after} == {REAL, FAKE}
    assert {i.generator for i in after} == {None, "some-generator"}
    assert {i.group for i in after} == {i.group for i in before}
    for image in after:
        assert open_image(store.read(image.path)).rgb.size == (160, 112)
    assert topics_by_group(database, after) == topics_by_group(database, before)
    assert len(topics_by_group(database, after)) == 2 * (EACH - 1)


def test_doing_it_again_adds_nothing(database: Database, store: ImageStore) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    run(database, store)
    before = images_of(database, "own-normalised")
    assert run(database, store).ingested.known == 2 * EACH
    assert images_of(database, "own-normalised") == before


def test_what_was_made_of_a_withdrawn_image_stands_in_nobodys_way(
    database: Database, store: ImageStore
) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    run(database, store)
    parent = images_of(database, "own")[0]
    with database.read() as session:
        (copy,) = copies_of(session, parent)
    for image in (parent, copy):
        withdraw(database, make_tombstone(image))
    assert run(database, store).ingested.known == 2 * EACH - 1
    assert copy not in images_of(database, "own-normalised")


def test_two_sources_become_one_under_the_terms_of_both(
    database: Database, store: ImageStore
) -> None:
    take_in(database, store, REAL, source="photographs")
    take_in(database, store, FAKE, source="fakes", may_train=False)
    made = run(database, store, "photographs", "fakes")
    assert made.into == "photographs+fakes-normalised"
    with database.read() as session:
        terms = sources(session)[made.into]
    assert terms.licence == "licence of fakes; licence of photographs"
    assert not terms.may_train


def test_small_images_are_left_out_and_counted(database: Database, store: ImageStore) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    with pytest.raises(ConfigError, match="no real image of 150 pixels"):
        run(database, store, settings=Normalise(least_side=150))
    made = run(database, store, settings=Normalise(least_side=120))
    assert made.too_small == {REAL: 0, FAKE: 0}
    assert made.kept[FAKE] == pytest.approx(160 * 112 / 160**2)
    assert made.kept[REAL] == pytest.approx(160 * 112 / (200 * 120))


def test_other_images_or_settings_need_another_name(database: Database, store: ImageStore) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    run(database, store)
    other = Normalise(jpeg_quality=(60, 60))
    with pytest.raises(ConfigError, match="--into"):
        run(database, store, settings=other)
    made = run(database, store, into="own-60", settings=other)
    assert {image.jpeg_quality for image in images_of(database, made.into)} == {60}


def test_crops_that_another_source_holds_already_are_said_to_be_there(
    database: Database, store: ImageStore
) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    assert "`--source own-normalised`" in run(database, store).text()
    assert "own-again holds none" in run(database, store, into="own-again").text()


def test_an_image_whose_file_is_gone_is_left_out_with_the_reason(
    database: Database, store: ImageStore
) -> None:
    take_in(database, store, REAL)
    take_in(database, store, FAKE)
    lost = images_of(database, "own")[0]
    store.path(lost.path).unlink()
    made = run(database, store)
    ((image_id, reason),) = made.unreadable
    assert (image_id, made.ingested.accepted) == (lost.image_id, 2 * EACH - 1)
    assert "ingest its collection again" in reason
    assert f"left out {lost.image_id}" in made.text()


@pytest.mark.parametrize(
    ("names", "into", "message"),
    [
        (("nowhere",), None, "no source 'nowhere'"),
        (("own",), "own", "into itself"),
        (("own",), None, "no fake image"),
    ],
)
def test_what_cannot_be_normalised_is_explained(
    database: Database, store: ImageStore, names: tuple[str, ...], into: str | None, message: str
) -> None:
    take_in(database, store, REAL)
    take_in(database, store, None, seed=1)
    with pytest.raises(ConfigError, match=message):
        run(database, store, *names, into=into)
