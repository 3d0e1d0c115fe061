"""The benchmark of what tree batches and plain batches learn, at toy size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.layouts import LAYOUTS, Learnt, difference, learn
from tests.unit.training.toys import make_config, make_set


def _learnt(layout: str, seed: int, nll: float) -> Learnt:
    return Learnt(
        layout=layout, seed=seed, images=1, rows=1, steps=1, tokens=1, loss=0.0, answer_nll=nll,
        verdict_nll=0.0, seconds=1.0,
    )  # fmt: skip


def test_both_layouts_learn_the_same_from_a_fraction_of_the_images(tmp_path: Path) -> None:
    toy = make_set(tmp_path, per_group=4)
    trees, plain = (
        learn(
            make_config(
                data__layout=layout,
                data__images_share=0.5,
                optimiser__steps=0,
                optimiser__epochs=2,
            ),
            toy.shards,
            toy.images,
        )
        for layout in LAYOUTS
    )
    assert (trees.images, trees.rows) == (plain.images, plain.rows) == (12, 96)
    assert trees.tokens < plain.tokens
    assert trees.answer_nll == pytest.approx(plain.answer_nll, abs=1e-3)
    assert trees.verdict_nll == pytest.approx(plain.verdict_nll, abs=1e-3)


def test_layouts_are_compared_seed_by_seed() -> None:
    found = [
        _learnt(layout, seed, nll)
        for seed, pair in enumerate([(3.02, 3.0), (4.01, 4.0), (5.0, 5.0)], start=1)
        for layout, nll in zip(LAYOUTS, pair, strict=True)
    ]
    text = difference(found, "answer NLL", lambda run: run.answer_nll)
    assert "trees less plain: +1.0e-02 +- 2.5e-02 over 3 seeds, largest +2.0e-02" in text
    assert text.endswith("standard deviation between seeds 1.0000")
    assert difference(found[:2], "answer NLL", lambda run: run.answer_nll).endswith("(one seed)")
