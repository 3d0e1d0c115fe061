from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import ConfigError
from tests.unit.training.families import build_family
from tests.unit.training.toys import draw_picture, make_config
from training.model import Assembly
from training.score import probability, resolve_verdict, score_images, soft_score

LOGITS = torch.tensor([1.0, 2.0, 0.5, -1.0])
LOGIT = st.floats(-20, 20)


def test_the_sum_is_the_published_formula() -> None:
    fake, real = math.exp(1.0 + 2.0), math.exp(0.5 - 1.0)
    log_odds = float(soft_score(LOGITS, fake_ids=[0, 1], real_ids=[2, 3], reduce="sum"))
    assert probability(log_odds) == pytest.approx(fake / (fake + real), abs=1e-9)


def test_the_mean_halves_the_log_odds_of_two_words() -> None:
    log_odds = soft_score(LOGITS, fake_ids=[0, 1], real_ids=[2, 3], reduce="mean")
    assert float(log_odds) == pytest.approx((3.0 - -0.5) / 2)


def test_logsumexp_adds_the_probabilities_of_the_words() -> None:
    log_odds = soft_score(LOGITS, fake_ids=[0, 1], real_ids=[2, 3], reduce="logsumexp")
    fake, real = math.exp(1.0) + math.exp(2.0), math.exp(0.5) + math.exp(-1.0)
    assert probability(float(log_odds)) == pytest.approx(fake / (fake + real), abs=1e-9)


@given(fake=LOGIT, real=LOGIT, other=LOGIT)
def test_words_outside_the_sets_and_the_zero_of_the_logits_do_not_matter(
    fake: float, real: float, other: float
) -> None:
    plain = soft_score(
        torch.tensor([fake, real, 0.0], dtype=torch.float64),
        fake_ids=[0], real_ids=[1], reduce="sum",
    )  # fmt: skip
    moved = soft_score(
        torch.tensor([fake + 3, real + 3, other], dtype=torch.float64),
        fake_ids=[0], real_ids=[1], reduce="sum",
    )  # fmt: skip
    assert float(plain) == pytest.approx(float(moved), abs=1e-9)


@given(st.floats(-1e4, 1e4))
def test_probabilities_of_opposite_log_odds_add_up_to_one(log_odds: float) -> None:
    assert probability(log_odds) + probability(-log_odds) == pytest.approx(1)


def test_the_verdict_is_read_after_the_forced_prefix(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    assert verdict.text.endswith("ASSISTANT: The image is")
    assert assembly.tokenizer.decode(verdict.fake_ids) == " fake"
    assert assembly.tokenizer.decode(verdict.real_ids) == " real"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring__fake_words": [" counterfeit"]}, "no single token"),
        ({"scoring__fake_words": ["s"], "scoring__answer_prefix": " The image i"}, "no single"),
        ({"scoring__fake_words": [" real"]}, "same token"),
        ({"scoring__fake_words": [" fake", " image"]}, "name as many of each"),
    ],
)
def test_word_sets_are_checked_against_the_tokenizer(
    assembly: Assembly, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_verdict(make_config(**changes).scoring, assembly)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_scores_do_not_depend_on_the_batch(family: str) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    prefix = " The image is" if family == "llava" else "The image is"
    verdict = resolve_verdict(make_config(scoring__answer_prefix=prefix).scoring, assembly)
    images = [draw_picture(None, seed).resize((56 + 28 * (seed % 3), 84)) for seed in range(5)]
    together = score_images(images, verdict, assembly)
    alone = [score_images([image], verdict, assembly)[0] for image in images]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 6) for score in together}) == len(images)


def test_scores_equal_those_of_the_plain_forward_pass(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    image = draw_picture(None, 3)
    ids = torch.tensor([verdict.prompt.input_ids])
    place = int((ids[0] == assembly.image_token_id).nonzero())
    patches = torch.full((1, 16), assembly.image_token_id)
    ids = torch.cat([ids[:, :place], patches, ids[:, place + 1 :]], dim=1)
    with torch.no_grad():
        logits = assembly.model(input_ids=ids, **assembly.process_images([image])).logits[0, -1]
    expected = float(logits[verdict.fake_ids[0]] - logits[verdict.real_ids[0]])
    assert score_images([image], verdict, assembly) == [pytest.approx(expected, abs=1e-5)]


def test_equal_images_score_equally(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    first, second = score_images([grey, grey.copy()], verdict, assembly)
    assert first == pytest.approx(second, abs=1e-6)
