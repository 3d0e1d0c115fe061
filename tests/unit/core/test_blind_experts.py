"""What blind experts agree on, counted by hand."""

from __future__ import annotations

import pytest

from core.blind_experts import BlindAgreement, BlindImage, blind_agreement
from core.records import Authenticity, BlindLabel, Confidence

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
CATEGORIES = ("texture", "edge", "shape")


def label(image_id: str, expert: str, verdict: Authenticity, *categories: str) -> BlindLabel:
    return BlindLabel(
        label_id=f"{image_id} {expert}",
        image_id=image_id,
        expert=expert,
        version=1,
        verdict=verdict,
        confidence=Confidence.HIGH,
        categories=categories,
    )


def image(image_id: str, **said: tuple[Authenticity | str, ...]) -> BlindImage:
    """An image that is fake, with each expert's verdict and categories."""
    labels = [
        label(image_id, expert, Authenticity(verdict), *categories)
        for expert, (verdict, *categories) in said.items()
    ]
    return BlindImage(image_id=image_id, truth=FAKE, labels=tuple(labels))


def agreement(*images: BlindImage, seconds: dict[str, float] | None = None) -> BlindAgreement:
    return blind_agreement(images, CATEGORIES, seconds or {})


def test_verdicts_by_hand() -> None:
    found = agreement(
        image("1", a=(FAKE,), b=(FAKE,)),
        image("2", a=(FAKE,), b=(REAL,)),
        image("3", a=(REAL,), b=(REAL,)),
        image("4", a=(REAL,)),
    )
    assert found.images == 3
    assert found.verdict.agreement == pytest.approx(2 / 3)
    # of 6 values 3 are fake: 1 - 5 * 2 / (2 * 3 * 3)
    assert found.verdict.value == pytest.approx(4 / 9)
    assert {name: expert.right for name, expert in found.by_expert.items()} == {
        "a": 2 / 4,
        "b": 1 / 3,
    }
    (pair,) = found.pairs
    assert pair.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))


def test_categories_count_where_the_verdict_is_right() -> None:
    found = agreement(
        image("1", a=(FAKE, "texture", "edge"), b=(FAKE, "texture")),
        image("2", a=(FAKE, "shape"), b=(REAL, "shape")),
        image("3", a=(FAKE,), b=(FAKE,)),
    )
    assert found.categories == pytest.approx((1 / 2 + 1) / 2)
    assert found.chosen.units == 6
    assert found.chosen.agreement == pytest.approx(5 / 6)
    assert found.by_category["texture"].agreement == 1
    assert found.by_category["edge"].agreement == 0.5
    assert found.by_category["shape"].value is None


def test_equal_answers_are_told_where_there_is_something_to_copy() -> None:
    found = agreement(
        image("1", a=(FAKE, "texture", "edge"), b=(FAKE, "edge", "texture")),
        image("2", a=(FAKE, "texture", "edge"), b=(FAKE, "edge")),
        image("3", a=(FAKE, "texture"), b=(FAKE, "texture")),
        seconds={"1 a": 20.0, "1 b": 20.04, "2 a": 20.0, "2 b": 21.0, "3 a": 1.0},
    )
    (pair,) = found.pairs
    assert (pair.same_answers, pair.of_answers) == (1, 2)
    assert (pair.same_times, pair.of_times) == (1, 2)


def test_accuracy_is_told_with_three_experts() -> None:
    two = agreement(*(image(str(n), a=(FAKE,), b=(FAKE,)) for n in range(9)))
    assert two.by_expert["a"].accuracy is None
    three = agreement(
        *(image(str(n), a=(FAKE,), b=(FAKE,), c=(REAL if n % 3 else FAKE,)) for n in range(9)),
        *(image(f"r{n}", a=(REAL,), b=(REAL,), c=(REAL,)) for n in range(9)),
    )
    assert three.by_expert["a"].accuracy == pytest.approx(1)
    assert three.by_expert["c"].accuracy == pytest.approx(12 / 18, abs=0.01)
