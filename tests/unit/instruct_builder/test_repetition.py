"""Near-duplicates about one image, and images that are answered alike, are counted."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from core.errors import PermanentError
from instruct_builder.checks import Figures
from instruct_builder.repetition import NearDuplicates, find_near
from tests.unit.instruct_builder.samples import Row, facts_of, sampled

DRAW = random.Random(5)
WORDS = [f"word{n}" for n in range(500)]


def sentence(length: int = 60) -> str:
    return " ".join(DRAW.choice(WORDS) for _ in range(length)) + "."


def rows_of(image: str, answers: Sequence[str]) -> list[Row]:
    return [Row(image_id=image, turns=("What?", text)) for n, text in enumerate(answers)]


def run(rows: Sequence[Row], *, most_rows: float = 1.0, most_images: float = 1.0) -> Figures:
    return facts_of(NearDuplicates(most_rows=most_rows, most_images=most_images), sampled(rows))


def test_texts_that_differ_in_a_word_are_near_and_others_are_not() -> None:
    text = sentence()
    texts = [text, f"{text} Another one.", sentence(), sentence()]
    assert find_near(pa.array(texts)).tolist() == [True, True, False, False]
    half = " ".join([*text.split()[:30], *sentence().split()[30:]])
    assert not find_near(pa.array([text, half])).any()


def test_texts_apart_are_not_compared() -> None:
    text = sentence()
    near = find_near(pa.array([text, text, text]), apart=np.array([0, 1, 1]))
    assert near.tolist() == [False, True, True]


def test_how_short_a_text_may_be() -> None:
    near = find_near(pa.array(["Yes.", "Yes.", "No.", "", "Is it? No."]))
    assert near.tolist() == [True, True, False, False, False]


def test_rows_that_repeat_another_about_their_image_are_a_share() -> None:
    rows = []
    for image in range(100):
        texts = [sentence(), sentence(), sentence()]
        last = f"{texts[0]} So." if image < 10 else sentence()
        rows += rows_of(f"img-{image}", [*texts, last])
    figures = run(rows)
    assert figures["rows"] == 400
    assert figures["near_rows"] == 20
    assert figures["share_of_rows"] == 0.05
    with pytest.raises(PermanentError, match=r"0\.050 of the rows.*threshold 0\.04.*fewer rows"):
        run(rows, most_rows=0.04)


def test_images_whose_longest_answers_are_nearly_the_same_are_a_share() -> None:
    same = sentence()
    rows = [
        row
        for image in range(300)
        for row in rows_of(f"img-{image}", ["Yes.", same if image < 60 else sentence()])
    ]
    assert run(rows)["alike_images"] == 60
    assert run(rows)["near_rows"] == 0
    with pytest.raises(PermanentError, match=r"0\.200 of the images.*the teacher says the same"):
        run(rows, most_images=0.1)


def test_of_few_rows_a_share_says_nothing() -> None:
    figures = run(rows_of("img-1", ["Yes."] * 50), most_rows=0.0, most_images=0.0)
    assert figures["too_few"] == "50 rows, 1 images"


def test_several_tables_give_what_one_gives() -> None:
    rows = [row for n in range(120) for row in rows_of(f"img-{n}", [sentence(), sentence()])]
    whole = NearDuplicates(most_rows=1, most_images=1)
    parts = NearDuplicates(most_rows=1, most_images=1)
    whole.see_rows(sampled(rows))
    for start in range(0, len(rows), 40):
        parts.see_rows(sampled(rows[start : start + 40]))
    assert whole.figures() == parts.figures()
