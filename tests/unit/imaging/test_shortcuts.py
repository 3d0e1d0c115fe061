"""Shortcuts: found when planted, not found where there are none, measured without leaks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.records import Authenticity, ImageRecord
from core.split import connect
from imaging import shortcuts
from imaging.shortcuts import (
    FOLDS,
    LEAST_IMAGES,
    MOST_ROWS,
    NO_SUBSAMPLING,
    LabelRow,
    MetadataScore,
    TooFew,
    groups_of_both_labels,
    label_tables,
    measure_metadata,
    mixed_clusters,
)
from tests.unit.records import make_image

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
PNG: dict[str, Any] = {"format": "PNG", "jpeg_quality": None, "subsampling": None}
SIZES = ((640, 480), (480, 640), (512, 512), (300, 200))


def collection(number: int = 200, *, seed: int = 1) -> list[ImageRecord]:
    """Photographs and fakes in turn, whose sizes and qualities follow no label."""
    chance = random.Random(seed)
    images = []
    for place in range(number):
        width, height = chance.choice(SIZES)
        images.append(
            make_image(
                f"image {seed} {place}",
                label=(REAL, FAKE)[place % 2],
                width=width,
                height=height,
                jpeg_quality=chance.randint(70, 98),
            )
        )
    return images


def score_of(images: Sequence[ImageRecord], *, with_bytes: bool = False) -> MetadataScore:
    score = measure_metadata(images, with_bytes=with_bytes)
    assert isinstance(score, MetadataScore), score
    return score


def fakes_changed(images: Sequence[ImageRecord], **changes: object) -> list[ImageRecord]:
    return [
        replace(image, **changes) if image.label is FAKE else image  # type: ignore[arg-type]
        for image in images
    ]


# The classifier


def test_without_a_shortcut_the_auc_is_near_one_half() -> None:
    scores = [score_of(collection(seed=seed)) for seed in range(6)]
    assert abs(np.mean([score.auc for score in scores]) - 0.5) < 0.06
    assert all(score.low < 0.6 for score in scores)


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"format": "PNG", "jpeg_quality": None}, "format"),
        ({"jpeg_quality": 99}, "JPEG quality"),
        ({"subsampling": "4:4:4"}, "chroma subsampling"),
        ({"width": 640, "height": 320}, "aspect"),
    ],
)
def test_a_planted_shortcut_is_found_and_named(changes: dict[str, object], telling: str) -> None:
    score = score_of(fakes_changed(collection(), **changes))
    assert score.auc > 0.95
    assert score.low > 0.6
    assert score.telling == telling
    assert telling in score.warning(0.6)
    assert f"{score.low:.2f}" in score.warning(0.6)


def test_a_shortcut_in_some_of_the_images_is_found_too() -> None:
    images = collection(400)
    half = [replace(i, width=1024, height=1024) if i.label is FAKE else i for i in images[:200]]
    score = score_of(half + images[200:])
    assert 0.6 < score.low < score.auc < score.high < 0.9


def test_bytes_per_pixel_are_used_only_where_asked_for() -> None:
    images = [
        replace(i, size_bytes=i.width * i.height // (4 if i.label is FAKE else 2))
        for i in collection()
    ]
    assert "bytes per pixel" not in score_of(images).alone
    assert score_of(images, with_bytes=True).telling == "bytes per pixel"


def test_sizes_of_files_that_are_not_known_are_no_trouble() -> None:
    unknown = [replace(image, size_bytes=None) for image in collection()]
    assert score_of(unknown, with_bytes=True).low < 0.6


def test_a_property_of_a_group_does_not_pass_for_one_of_the_label() -> None:
    """Each group has its own size and one label: images of a group in training would tell it."""
    chance = random.Random(3)
    images = []
    for group in range(60):
        width, label = chance.randint(200, 2000), (REAL, FAKE)[group % 2]
        images += [
            make_image(f"{group} {n}", group=f"group {group}", width=width, label=label)
            for n in range(6)
        ]
    score = score_of(images)
    assert score.components == 60
    assert score.low < 0.5


def test_images_of_one_group_count_less_than_independent_ones() -> None:
    images = collection(80)
    copies = [
        make_image(
            f"{image.image_id} {n}", label=image.label, group=image.group, width=image.width,
            height=image.height, jpeg_quality=image.jpeg_quality,
        )
        for image in images
        for n in range(8)
    ]  # fmt: skip
    alone, copied = score_of(images), score_of(copies)
    assert copied.high - copied.low > 0.8 * (alone.high - alone.low)


def test_the_figures_do_not_depend_on_the_order_of_the_images() -> None:
    images = fakes_changed(collection(), jpeg_quality=90)
    shuffled = random.Random(2).sample(images, len(images))
    assert measure_metadata(images) == measure_metadata(shuffled)


def test_of_very_many_images_whole_components_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MOST_IMAGES", 100)
    images = [replace(image, group=f"group {n // 4}") for n, image in enumerate(collection(400))]
    score = score_of(images)
    assert score.real + score.fake == 100
    assert score.components == 25


def test_a_rare_label_is_not_lost_when_images_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MOST_IMAGES", 100)
    images = collection(800)
    fakes = [image for image in images if image.label is FAKE][:30]
    score = score_of([image for image in images if image.label is REAL] + fakes)
    assert (score.real, score.fake) == (50, 30)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "0 real images"),
        (collection(LEAST_IMAGES), "10 real images, at least 20"),
        ([i for i in collection() if i.label is REAL], "0 fake images"),
        ([replace(i, group="one") for i in collection()], "from 1 independent groups"),
    ],
)
def test_too_few_images_give_a_reason_and_no_figure(images: list[ImageRecord], reason: str) -> None:
    found = measure_metadata(images)
    assert isinstance(found, TooFew)
    assert reason in found.reason


def test_unlabelled_images_are_left_out() -> None:
    images = collection()
    unlabelled = [make_image(f"unlabelled {n}", label=None, width=n + 1) for n in range(50)]
    assert measure_metadata(images + unlabelled) == measure_metadata(images)


# Folds, AUC, interval


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1))
def test_no_component_is_in_two_folds_and_no_image_in_none(
    drawn: list[tuple[int, int, bool]],
) -> None:
    component_of = connect((f"group {g}", f"cluster {c}") for g, c, _ in drawn)
    names = [component_of[f"group {g}"] for g, _, _ in drawn]
    fold_of = shortcuts._assign_folds(names, np.array([fake for *_, fake in drawn]))
    assert set(fold_of) == set(names)
    assert set(fold_of.values()) <= set(range(FOLDS))


def test_single_images_are_spread_evenly_over_the_folds_with_their_labels() -> None:
    is_fake = np.array([n % 4 == 0 for n in range(200)])
    fold_of = shortcuts._assign_folds([f"{n}" for n in range(200)], is_fake)
    fakes = Counter(fold_of[f"{n}"] for n in range(200) if is_fake[n])
    assert [fakes[fold] for fold in range(FOLDS)] == [10] * FOLDS


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2).filter(
        lambda drawn: len({fake for _, fake in drawn}) == 2
    )
)
def test_the_auc_is_the_share_of_pairs_in_the_right_order(drawn: list[tuple[int, bool]]) -> None:
    fakes = [score for score, fake in drawn if fake]
    reals = [score for score, fake in drawn if not fake]
    wins = sum((f > r) + (f == r) / 2 for f in fakes for r in reals) / len(fakes) / len(reals)
    scores, is_fake = (np.array(column) for column in zip(*drawn, strict=True))
    assert shortcuts._auc(scores.astype(float), is_fake) == pytest.approx(wins, abs=5e-5)


def test_the_interval_holds_the_true_auc_about_as_often_as_it_says() -> None:
    """Scores of fakes are drawn one standard deviation higher: the true AUC is Phi(1/sqrt(2))."""
    chance, held = np.random.default_rng(1), 0
    is_fake = np.arange(80) % 2 == 0
    for _ in range(300):
        scores = chance.normal(size=80) + is_fake
        sample = shortcuts._Sample(
            is_fake=is_fake, component=np.arange(80), fold=np.arange(80) % FOLDS, features={}
        )
        _, low, high = shortcuts._auc_with_interval(scores, sample)
        held += low <= 0.7602 <= high
    assert 0.91 <= held / 300 <= 0.99


def test_a_perfect_separation_of_few_images_is_not_certain() -> None:
    is_fake = np.arange(40) < 20
    sample = shortcuts._Sample(
        is_fake=is_fake, component=np.arange(40), fold=np.arange(40) % FOLDS, features={}
    )
    auc, low, high = shortcuts._auc_with_interval(is_fake.astype(float), sample)
    assert auc == high == 1
    assert 0.8 < low < 0.95


# Tables


def test_the_tables_count_labels_by_value() -> None:
    images = [
        make_image("a", label=REAL, format="JPEG", jpeg_quality=95, width=640, height=480),
        make_image("b", label=FAKE, width=512, height=512, **PNG),
        make_image("c", label=FAKE, width=512, height=512, **PNG),
        make_image("d", label=None, format="WEBP"),
    ]
    tables = {table.title: table.rows for table in label_tables(images)}
    assert tables["Format"] == (
        LabelRow(value="PNG", real=0, fake=2),
        LabelRow(value="JPEG", real=1, fake=0),
    )
    assert tables["JPEG quality"][0] == LabelRow(value="91 to 95", real=1, fake=0)
    assert tables["JPEG quality"][1].value == "no JPEG"
    assert tables["Chroma subsampling"] == (
        LabelRow(value=NO_SUBSAMPLING, real=0, fake=2),
        LabelRow(value="4:2:0", real=1, fake=0),
    )
    assert tables["Size in pixels"][0] == LabelRow(value="512 x 512", real=0, fake=2)
    assert tables["Aspect, width to height"][1].value == "1.33"


def test_rare_values_share_one_row_and_nothing_is_lost() -> None:
    images = [make_image(f"{n}", width=100 + n) for n in range(40)]
    rows = next(t.rows for t in label_tables(images) if t.title == "Size in pixels")
    assert len(rows) == MOST_ROWS + 1
    assert rows[-1].value == f"{40 - MOST_ROWS} other values"
    assert sum(row.fake for row in rows) == 40


# Near-duplicates and groups


def test_clusters_with_both_labels_or_several_groups_are_named() -> None:
    images = [
        make_image("a", cluster="both", group="one", label=REAL),
        make_image("b", cluster="both", group="one", label=FAKE),
        make_image("c", cluster="groups", group="two"),
        make_image("d", cluster="groups", group="three"),
        make_image("e", cluster="fine", group="four"),
        make_image("f", cluster="fine", group="four"),
        make_image("g", cluster="fine", group="five", label=None),
    ]
    both, groups = mixed_clusters(images)
    assert (both.cluster, both.labels, both.groups) == ("both", ("fake", "real"), ("one",))
    assert (groups.cluster, groups.labels) == ("groups", ("fake",))
    assert groups.groups == ("three", "two")
    assert groups_of_both_labels(images) == 1
