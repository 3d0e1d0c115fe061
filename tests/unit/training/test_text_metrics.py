from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.records import Authenticity
from training.answer_figures import Marks
from training.published import read_published
from training.text_metrics import (
    TextScores,
    TextSettings,
    automatic_average,
    mean_of,
    open_embedding,
    overall_average,
    score_texts,
)
from training.verdicts import read_verdict, read_yes_or_no

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
PRINTED_OTHERWISE = {
    ("interpretation", "Qwen-VL", "automatic"),
    ("reasoning", "Q-Instruct", "overall"),
    ("detection", "LLaVA-v1.5", "mean of the generators"),
    ("detection", "Qwen-VL", "mean of both kinds of question"),
}
"""averages of the published tables that do not fit their own cells"""
GENERATORS = (
    "proGAN", "styleGAN", "CogView2", "FuseDream", "VQDM", "Glide", "Stable Diffusion", "DALL-E 2",
    "DALL-E 3", "Midjourney",
)  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("This is a fake image. The texture is real.", FAKE),
        ("**Fake**", FAKE),
        ("The scene looks unrealistic.", None),
        ("A real-looking face. Really sharp.", None),
        ("It is not a real photograph.", FAKE),
        ("It isn't fake.", REAL),
        ("No, it is fake.", FAKE),
        ("Is it fake or real? Hard to say.", None),
        ("Look at the hands. They are fake.", FAKE),
        ("One. Two. Fake.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_by_word_and_never_guessed(
    reply: str, verdict: Authenticity | None
) -> None:
    assert read_verdict(reply) is verdict


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes, it is.", True),
        ("no", False),
        ("Nothing here is odd.", None),
        ("Yes and no.", None),
        ("The image was not made by a camera.", None),
    ],
)
def test_yes_and_no_are_read_by_word(reply: str, said: bool | None) -> None:
    assert read_yes_or_no(reply) is said


def test_scores_equal_those_counted_by_hand() -> None:
    """the cat sat | the cat ran away: 2 of 3 words, 1 of 2 pairs, brevity exp(1 - 4/3)."""
    (score,) = score_texts([("The cat sat", "the cat ran away")], TextSettings())
    brevity = math.exp(1 - 4 / 3)
    assert score.bleu_1 == pytest.approx(brevity * 2 / 3)
    assert score.bleu_2 == pytest.approx(brevity * math.sqrt(2 / 3 * 1 / 2))
    assert score.rouge_l == pytest.approx(2 * (2 / 3 * 2 / 4) / (2 / 3 + 2 / 4))
    assert score.similarity is None
    assert automatic_average(score) is None


def test_stemming_and_the_verdict_sentence_are_settings_that_are_named() -> None:
    pair = ("This is a fake image. Blurred edges", "This is a fake image. Blurring edge")
    kept, stemmed, dropped = (
        score_texts([pair], settings)[0].rouge_l
        for settings in (
            TextSettings(),
            TextSettings(stemming=True),
            TextSettings(drop_verdict_sentence=True),
        )
    )
    assert (stemmed, dropped) == (1.0, 0.0)
    assert kept == pytest.approx(5 / 7)
    said = TextSettings(stemming=True, embedding="some-model").describe()
    assert "Porter stemming; verdict sentence kept" in said
    assert said.endswith("similarity: some-model")


@given(st.text(), st.text())
def test_scores_lie_between_0_and_1(reply: str, expected: str) -> None:
    (score,) = score_texts([(reply, expected)], TextSettings())
    assert 0 <= score.bleu_2 <= score.bleu_1 + 1e-9 <= 1 + 2e-9
    assert 0 <= score.rouge_l <= 1


def test_the_aggregation_reproduces_the_printed_averages() -> None:
    published = read_published("fakebench")
    assert published is not None
    checked = 0
    for table in published.tables:
        averages = _accuracies if table.axis == "detection" else _texts
        for name, *figures in table.rows:
            row = dict(zip(table.columns, figures, strict=True))
            if str(name).startswith("humans"):  # extremes, and few images of each generator
                continue
            for what, value, printed in averages(row):
                if (table.axis, name, what) not in PRINTED_OTHERWISE:
                    tolerance = 0.051 if table.axis == "detection" else 0.0011
                    assert value == pytest.approx(printed, abs=tolerance), (name, what)
                    checked += 1
    assert checked == 3 * 42 + 3 * 15 + 2 * 6 - len(PRINTED_OTHERWISE)


Average = tuple[str, float | None, float]


def _texts(row: dict[str, Any]) -> Iterator[Average]:
    scores = TextScores(
        bleu_1=row["BLEU-1"],
        bleu_2=row["BLEU-2"],
        rouge_l=row["ROUGE-L"],
        similarity=row["similarity"],
    )
    marks = Marks(**{name: row[name] for name in ("completeness", "preciseness", "relevance")})
    yield "automatic", automatic_average(mean_of([scores, scores])), row["automatic"]
    yield "judged", marks.average, row["judged"]
    yield "overall", overall_average(row["automatic"], row["judged"]), row["overall"]


def _accuracies(row: dict[str, Any]) -> Iterator[Average]:
    yield "mean of both labels", (row["fake"] + row["real"]) / 2, row["overall"]
    yield "mean of the generators", fmean(row[name] for name in GENERATORS), row["fake"]
    if "what" in row:
        both = (row["what"] + row["yes-no"]) / 2
        yield "mean of both kinds of question", both, row["overall"]


def test_similarity_takes_any_model_by_path(tmp_path: Path) -> None:
    folder = _save_embedding(tmp_path / "tiny")
    embed = open_embedding(str(folder))
    same, other, silent = score_texts(
        [("blurred edge", "blurred edge"), ("blurred edge", "six fingers"), ("", "edge")],
        TextSettings(embedding=str(folder)),
        embed,
    )
    assert same.similarity == pytest.approx(1.0, abs=1e-5)
    assert other.similarity is not None
    assert other.similarity < 0.99
    assert silent.similarity == 0.0
    assert automatic_average(same) == pytest.approx(1.0, abs=1e-5)


def _save_embedding(folder: Path) -> Path:
    """A sentence-transformers model with random weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "blurred", "edge", "six", "fingers"]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = folder / "plain"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(plain)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=len(words), num_attention_heads=2, **sizes)
    BertModel(config).save_pretrained(plain)
    body = Transformer(str(plain))
    SentenceTransformer(modules=[body, Pooling(8)], device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def test_an_embedding_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_embedding(str(tmp_path / "nowhere"))
