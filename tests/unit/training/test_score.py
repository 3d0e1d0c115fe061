from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import ConfigError
from tests.unit.training.families import build_family
from tests.unit.training.toys import draw_picture, make_config
from training.collate import Encoded, collate, extend_prompt
from training.config import Reduction
from training.model import Assembly
from training.score import (
    Verdict,
    Word,
    probability,
    resolve_verdict,
    score_images,
    score_words,
    soft_score,
)
from training.shared_prefill import BY_TOKEN, question_text, score_and_reply, score_reply

LOGITS = torch.tensor([1.0, 2.0, 0.5, -1.0], dtype=torch.float64)
LOGIT = st.floats(-20, 20)


def test_the_sum_is_the_published_formula() -> None:
    fake, real = math.exp(1.0 + 2.0), math.exp(0.5 - 1.0)
    log_odds = float(soft_score(LOGITS[[0, 1]], LOGITS[[2, 3]], reduce="sum"))
    assert probability(log_odds) == pytest.approx(fake / (fake + real), abs=1e-9)


def test_the_mean_halves_the_log_odds_of_two_words() -> None:
    log_odds = soft_score(LOGITS[[0, 1]], LOGITS[[2, 3]], reduce="mean")
    assert float(log_odds) == pytest.approx((3.0 - -0.5) / 2)


def test_logsumexp_adds_the_probabilities_of_the_words() -> None:
    log_odds = soft_score(LOGITS[[0, 1]], LOGITS[[2, 3]], reduce="logsumexp")
    fake, real = math.exp(1.0) + math.exp(2.0), math.exp(0.5) + math.exp(-1.0)
    assert probability(float(log_odds)) == pytest.approx(fake / (fake + real), abs=1e-9)


def test_a_single_word_is_the_first_of_each_set() -> None:
    log_odds = soft_score(LOGITS[[1, 0]], LOGITS[[3, 2]], reduce="single")
    assert float(log_odds) == 3.0


def make_verdict(fake: Sequence[Word], real: Sequence[Word], reduce: Reduction) -> Verdict:
    return Verdict(Encoded((0,), (0,), (False,)), "", tuple(fake), tuple(real), reduce)


@given(fake=LOGIT, real=LOGIT, other=LOGIT)
def test_words_outside_the_sets_and_the_zero_of_the_logits_do_not_matter(
    fake: float, real: float, other: float
) -> None:
    verdict = make_verdict([(0,)], [(1,)], "sum")
    plain = score_words(torch.tensor([[fake, real, 0.0]], dtype=torch.float64), verdict)
    moved = score_words(torch.tensor([[fake + 3, real + 3, other]], dtype=torch.float64), verdict)
    assert float(plain) == pytest.approx(float(moved), abs=1e-9)


@given(st.floats(-1e4, 1e4))
def test_probabilities_of_opposite_log_odds_add_up_to_one(log_odds: float) -> None:
    assert probability(log_odds) + probability(-log_odds) == pytest.approx(1)


def test_the_verdict_is_read_after_the_forced_prefix(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    assert verdict.text.endswith("ASSISTANT: The image is")
    assert [assembly.tokenizer.decode(word) for word in verdict.words] == [" fake", " real"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring__fake_words": ["s"], "scoring__answer_prefix": " The image i"}, "begin a token"),
        ({"scoring__fake_words": [""]}, "begin a token"),
        ({"scoring__fake_words": [" real"]}, "' real' begins ' real'"),
        ({"scoring__fake_words": [" really"]}, "' real' begins ' really'"),
        ({"scoring__fake_words": [" fake", " image"]}, "name as many of each"),
    ],
)
def test_word_sets_are_checked_against_the_tokenizer(
    assembly: Assembly, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_verdict(make_config(**changes).scoring, assembly)


WORDS = {
    "one token each": {},
    "several tokens": {
        "scoring__fake_words": [" counterfeit", " fake"],
        "scoring__real_words": [" authentic", " real"],
    },
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_scores_do_not_depend_on_the_batch(family: str, words: dict[str, object]) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    prefix = " The image is" if family == "llava" else "The image is"
    scoring = make_config(scoring__answer_prefix=prefix, **words).scoring
    verdict = resolve_verdict(scoring, assembly)
    images = [draw_picture(None, seed).resize((56 + 28 * (seed % 3), 84)) for seed in range(5)]
    together = score_images(images, verdict, assembly)
    alone = [score_images([image], verdict, assembly)[0] for image in images]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 6) for score in together}) == len(images)


def test_scores_do_not_depend_on_the_side_that_is_padded() -> None:
    """Images of several sizes, of which Qwen makes rows of several lengths."""
    assembly = build_family("qwen2_5_vl")
    assembly.model.eval()
    scoring = make_config(scoring__answer_prefix="The image is").scoring
    verdict = resolve_verdict(scoring, assembly)
    images = [draw_picture(None, seed).resize((56 + 28 * seed, 84)) for seed in range(3)]
    turned = padded_left([verdict.prompt] * len(images), images, assembly)
    with torch.no_grad():
        logits = assembly.model(**turned).logits[:, -1]
    found = score_words(logits[:, None], verdict).tolist()
    assert score_images(images, verdict, assembly) == pytest.approx(found, abs=1e-4)


def test_words_of_several_tokens_do_not_depend_on_the_side_that_is_padded() -> None:
    assembly = build_family("qwen2_5_vl")
    assembly.model.eval()
    scoring = make_config(scoring__answer_prefix="The image is", **WORDS["several tokens"]).scoring
    verdict = resolve_verdict(scoring, assembly)
    assert max(map(len, verdict.words)) > 1
    images = [draw_picture(None, seed).resize((56 + 28 * seed, 84)) for seed in range(3)]

    def log_probabilities(word: Word) -> torch.Tensor:
        """Of one word after each image, all rows padded on the left."""
        rows = [extend_prompt(verdict.prompt, word)] * len(images)
        with torch.no_grad():
            logits = assembly.model(**padded_left(rows, images, assembly)).logits
        chances = logits.double().log_softmax(dim=-1)[:, -len(word) - 1 : -1]
        return chances[:, range(len(word)), list(word)].sum(dim=1)

    fake, real = (
        torch.stack([log_probabilities(word) for word in words]).sum(dim=0)
        for words in (verdict.fake_ids, verdict.real_ids)
    )
    found = score_images(images, verdict, assembly)
    assert found == pytest.approx((fake - real).tolist(), abs=1e-4)


def padded_left(
    rows: Sequence[Encoded], images: Sequence[Image.Image], assembly: Assembly
) -> dict[str, torch.Tensor]:
    """A batch of rows of several lengths, with what fills them up put before them."""
    batch = collate(rows, images, assembly)
    lengths = batch.lengths.tolist()
    assert len(set(lengths)) == len(images)
    turned = {
        name: torch.stack([row.roll(-n) for row, n in zip(value, lengths, strict=True)])
        if name in BY_TOKEN
        else value
        for name, value in batch.inputs.items()
    }
    assert bool((turned["attention_mask"][:, -1] == 1).all())
    return turned


def test_scores_equal_those_of_the_plain_forward_pass(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    image = draw_picture(None, 3)
    ids = torch.tensor([verdict.prompt.input_ids])
    place = int((ids[0] == assembly.image_token_id).nonzero())
    patches = torch.full((1, 16), assembly.image_token_id)
    ids = torch.cat([ids[:, :place], patches, ids[:, place + 1 :]], dim=1)
    with torch.no_grad():
        logits = assembly.model(input_ids=ids, **assembly.process_images([image])).logits[0, -1]
    expected = float(logits[verdict.fake_ids[0][0]] - logits[verdict.real_ids[0][0]])
    assert score_images([image], verdict, assembly) == [pytest.approx(expected, abs=1e-5)]


def test_equal_images_score_equally(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    first, second = score_images([grey, grey.copy()], verdict, assembly)
    assert first == pytest.approx(second, abs=1e-6)


PLANTED = (0.3, -1.2, 2.0, 0.7, -0.4)
"""logits of the last five tokens of the vocabulary; all others are far below"""


def plant(assembly: Assembly) -> tuple[int, ...]:
    """Make the model's logits the planted ones whatever it sees; returns the five tokens."""
    head = assembly.model.lm_head
    planted = torch.nn.Linear(head.in_features, head.out_features)
    torch.nn.init.zeros_(planted.weight)
    torch.nn.init.constant_(planted.bias, -100.0)
    tokens = range(head.out_features - len(PLANTED), head.out_features)
    with torch.no_grad():
        planted.bias[list(tokens)] = torch.tensor(PLANTED)
    assembly.model.lm_head = planted
    return tuple(tokens)


def chance(place: int) -> float:
    """Natural logarithm of the planted probability of one of the five tokens."""
    return PLANTED[place] - math.log(sum(math.exp(logit) for logit in PLANTED))


BY_HAND: dict[Reduction, float] = {
    "sum": (0.3 - 1.2) - (2.0 + 0.7),
    "mean": (0.3 - 1.2) / 2 - (2.0 + 0.7) / 2,
    "single": 0.3 - 2.0,
    "logsumexp": math.log(math.exp(0.3) + math.exp(-1.2)) - math.log(math.exp(2.0) + math.exp(0.7)),
}


@pytest.mark.parametrize("reduce", BY_HAND)
def test_a_planted_model_gets_the_scores_that_a_person_computes(
    assembly: Assembly, reduce: Reduction
) -> None:
    a, b, c, d, e = plant(assembly)
    verdict = resolve_verdict(make_config().scoring, assembly)
    image = draw_picture(None, 3)

    def score(fake: Sequence[Word], real: Sequence[Word]) -> float:
        planted = replace(verdict, fake_ids=tuple(fake), real_ids=tuple(real), reduce=reduce)
        (alone,) = score_images([image], planted, assembly)
        together, _ = score_and_reply(planted, [], image, assembly, max_tokens=1)
        assert together == pytest.approx(alone, abs=1e-5)
        return alone

    assert score([(a,), (b,)], [(c,), (d,)]) == pytest.approx(BY_HAND[reduce], abs=1e-5)
    whole = PLANTED[0] + chance(4) + chance(3)
    assert score([(a, e, d)], [(c,)]) == pytest.approx(whole - PLANTED[2], abs=1e-5)
    both = {
        "sum": whole + PLANTED[1] - PLANTED[2] - PLANTED[3] - chance(0),
        "mean": (whole + PLANTED[1] - PLANTED[2] - PLANTED[3] - chance(0)) / 2,
        "single": whole - PLANTED[2],
        "logsumexp": math.log(math.exp(whole) + math.exp(PLANTED[1]))
        - math.log(math.exp(PLANTED[2]) + math.exp(PLANTED[3] + chance(0))),
    }
    assert score([(a, e, d), (b,)], [(c,), (d, a)]) == pytest.approx(both[reduce], abs=1e-5)


def test_a_word_of_several_tokens_is_as_probable_as_the_chain_of_its_tokens(
    assembly: Assembly,
) -> None:
    verdict = resolve_verdict(make_config(**WORDS["several tokens"]).scoring, assembly)
    assert max(map(len, verdict.words)) > 1
    image = draw_picture(None, 3)

    def log_probability(word: Word) -> float:
        """From one plain pass over the whole text."""
        row = extend_prompt(verdict.prompt, word)
        with torch.no_grad():
            logits = assembly.model(**collate([row], [image], assembly).inputs).logits[0]
        chances = logits.double().log_softmax(dim=-1)[-len(word) - 1 : -1]
        return float(chances[range(len(word)), list(word)].sum())

    by_hand = sum(map(log_probability, verdict.fake_ids)) - sum(
        map(log_probability, verdict.real_ids)
    )
    assert score_images([image], verdict, assembly) == [pytest.approx(by_hand, abs=1e-4)]


def test_a_free_reply_is_scored_where_it_first_says_a_verdict(assembly: Assembly) -> None:
    verdict = resolve_verdict(make_config().scoring, assembly)
    assert question_text(verdict.text, assembly).endswith("ASSISTANT:")
    a, b, c, d, _ = plant(assembly)
    image = draw_picture(None, 3)
    said = replace(verdict, fake_ids=((a,),), real_ids=((c,),))
    assert score_reply(said, image, assembly) == (pytest.approx(0.3 - 2.0, abs=1e-5), "verdict")
    unsaid = replace(verdict, fake_ids=((a,),), real_ids=((d,),))
    assert score_reply(unsaid, image, assembly) == (pytest.approx(0.3 - 0.7, abs=1e-5), "start")
    begun = replace(verdict, fake_ids=((c, c, b),), real_ids=((d,),))
    assert score_reply(begun, image, assembly)[1] == "start"
