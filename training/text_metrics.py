"""How near a reply comes to the text that was expected. Pure, apart from the embedding model.

BLEU-1, BLEU-2 (Papineni et al. 2002, with brevity penalty, no smoothing), ROUGE-L (Lin 2004, F
measure) and the cosine of sentence embeddings. Each is the mean over single pairs, not of a corpus.
Published figures seldom say how theirs were made, so every report has `TextSettings.describe`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from core.errors import ConfigError
from training.verdicts import SENTENCE_END, read_verdict

Embed = Callable[[Sequence[str]], Any]
"""one row of unit length for each text"""
AUTOMATIC: Final = ("bleu_1", "bleu_2", "rouge_l", "similarity")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """What decides the figures besides the texts."""

    stemming: bool = False
    drop_verdict_sentence: bool = False
    """leave out a first sentence that states the verdict, in the reply and in what was expected"""
    embedding: str | None = None
    """a sentence-transformers model by name or path; None: no similarity"""

    def describe(self) -> str:
        """One sentence for a report."""
        libraries = f"nltk {version('nltk')}, rouge-score {version('rouge-score')}"
        return (
            f"{libraries}; tokens of rouge-score (lower case, letters and digits), "
            f"{'Porter stemming' if self.stemming else 'no stemming'}; verdict sentence "
            f"{'left out' if self.drop_verdict_sentence else 'kept'}; mean over single answers; "
            f"similarity: {self.embedding or 'none, no embedding was named'}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """Of one pair, or the mean of many; from 0 to 1."""

    bleu_1: float
    bleu_2: float
    rouge_l: float
    similarity: float | None


def score_texts(
    pairs: Sequence[tuple[str, str]], settings: TextSettings, embed: Embed | None = None
) -> list[TextScores]:
    """Scores of (reply, expected) pairs; a reply without words scores 0 everywhere."""
    if settings.drop_verdict_sentence:
        pairs = [(_without_verdict(reply), _without_verdict(text)) for reply, text in pairs]
    tokenizer = _tokenizer(settings)
    similarities = _similarities(pairs, embed) if embed else [None] * len(pairs)
    return [
        TextScores(
            bleu_1=_bleu(tokenizer.tokenize(reply), tokenizer.tokenize(text), 1),
            bleu_2=_bleu(tokenizer.tokenize(reply), tokenizer.tokenize(text), 2),
            rouge_l=_rouge_l(reply, text, tokenizer),
            similarity=similarity,
        )
        for (reply, text), similarity in zip(pairs, similarities, strict=True)
    ]


def mean_of(scores: Sequence[TextScores]) -> TextScores:
    """Plain mean; at least one pair."""
    number = len(scores)
    similarities = [each.similarity for each in scores if each.similarity is not None]
    return TextScores(
        bleu_1=sum(each.bleu_1 for each in scores) / number,
        bleu_2=sum(each.bleu_2 for each in scores) / number,
        rouge_l=sum(each.rouge_l for each in scores) / number,
        similarity=sum(similarities) / number if len(similarities) == number else None,
    )


def automatic_average(scores: TextScores) -> float | None:
    """FakeBench's average of its four automatic measures; None without a similarity."""
    if scores.similarity is None:
        return None
    return (scores.bleu_1 + scores.bleu_2 + scores.rouge_l + scores.similarity) / 4


def overall_average(automatic: float, judged: float) -> float:
    """FakeBench's overall figure; `judged` is the mean of three marks from 0 to 2."""
    return (automatic + judged / 2) / 2


def open_embedding(name: str) -> Embed:
    """A sentence-transformers model; ConfigError when it cannot be loaded, or is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError(
            "similarity needs the package sentence-transformers: install it, or leave "
            "--similarity out"
        ) from None
    try:
        model = SentenceTransformer(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--similarity {name}: cannot be loaded: {reason} (name a folder, or a model that this "
            "machine can fetch)"
        ) from None
    return lambda texts: model.encode(list(texts), normalize_embeddings=True)


def _without_verdict(text: str) -> str:
    first, *others = SENTENCE_END.split(text.strip(), maxsplit=1)
    return (others[0] if others else "") if read_verdict(first) else text


def _tokenizer(settings: TextSettings) -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(settings.stemming)


def _bleu(reply: Sequence[str], expected: Sequence[str], order: int) -> float:
    from nltk.translate.bleu_score import sentence_bleu

    if len(reply) < order:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing overlaps is what the score says
        score = sentence_bleu([expected], reply, weights=(1 / order,) * order)
    return float(score) if score > 1e-9 else 0.0


def _rouge_l(reply: str, expected: str, tokenizer: Any) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=tokenizer)
    return float(scorer.score(expected, reply)["rougeL"].fmeasure)


def _similarities(pairs: Sequence[tuple[str, str]], embed: Embed) -> list[float]:
    replies = embed([reply for reply, _ in pairs])
    expected = embed([text for _, text in pairs])
    return [
        float(one @ other) if pair[0].strip() else 0.0
        for pair, one, other in zip(pairs, replies, expected, strict=True)
    ]
