"""The token soft score: how strongly the model leans to `fake` where it has to say real or fake.

FakeScope (arXiv 2503.24267): p_fake = exp(S_fake) / (exp(S_fake) + exp(S_real)), S_j being the sum
of the logits of the words that stand for j, at the position where the answer word is produced. All
other words of the vocabulary are left out, so this equals sigmoid(S_fake - S_real); the difference
is the log-odds that everything here works with, as probabilities near 0 and 1 lose their order.

A word of several tokens is scored whole: the logit of its first one, and the log-probability of
each further one after those before it. Words of one and of several tokens then compare, as both
equal the log-probability of the word up to a number that all words of a position share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from training.collate import Encoded, collate, encode_prompt, extend_prompt
from training.config import Reduction, Scoring
from training.model import Assembly

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


LEAST = 1e-12


Word = tuple[int, ...]
"""the tokens of one word, in their order"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the verdict is read, and which words stand for it."""

    prompt: Encoded
    text: str
    """the prompt as the model sees it, image placeholder unexpanded, answer prefix included"""
    fake_ids: tuple[Word, ...]
    real_ids: tuple[Word, ...]
    reduce: Reduction

    def __post_init__(self) -> None:
        """Take words as JSON holds them: lists, or, in older checkpoints, one number each."""
        for name in ("fake_ids", "real_ids"):
            object.__setattr__(self, name, tuple(map(_as_word, getattr(self, name))))

    @property
    def words(self) -> tuple[Word, ...]:
        """Those for fake, then those for real."""
        return self.fake_ids + self.real_ids

    @property
    def stems(self) -> tuple[Word, ...]:
        """All that a word has before one of its tokens; nothing at all comes first."""
        stems = {word[:length] for word in self.words for length in range(len(word))}
        return tuple(sorted(stems, key=lambda stem: (len(stem), stem)))

    @property
    def prompts(self) -> list[Encoded]:
        """The prompt followed by each of the stems."""
        return [extend_prompt(self.prompt, stem) for stem in self.stems]


def _as_word(tokens: int | Sequence[int]) -> Word:
    return (tokens,) if isinstance(tokens, int) else tuple(tokens)


def score_words(logits: Tensor, verdict: Verdict) -> Tensor:
    """Log-odds of fake from logits of shape (..., stems, vocabulary), after each prompt of it."""
    import torch

    logits, places = logits.double(), {stem: place for place, stem in enumerate(verdict.stems)}

    def score(word: Word) -> Tensor:
        further = [
            logits[..., places[word[:length]], :].log_softmax(dim=-1)[..., word[length]]
            for length in range(1, len(word))
        ]
        return torch.stack([logits[..., places[()], word[0]], *further]).sum(dim=0)

    fake, real = (
        torch.stack([score(word) for word in words], dim=-1)
        for words in (verdict.fake_ids, verdict.real_ids)
    )
    return soft_score(fake, real, reduce=verdict.reduce)


def soft_score(fake: Tensor, real: Tensor, *, reduce: Reduction) -> Tensor:
    """Log-odds of fake from the scores of the words for fake and for real, each (..., words)."""
    if reduce == "sum":
        return fake.sum(dim=-1) - real.sum(dim=-1)
    if reduce == "mean":
        return fake.mean(dim=-1) - real.mean(dim=-1)
    if reduce == "single":
        return fake[..., 0] - real[..., 0]
    return fake.logsumexp(dim=-1) - real.logsumexp(dim=-1)


def probability(log_odds: float) -> float:
    """The logistic function, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def log_odds_of(p_fake: float) -> float:
    """The inverse, finite also for 0 and 1."""
    return math.log(max(p_fake, LEAST)) - math.log(max(1 - p_fake, LEAST))


def resolve_verdict(scoring: Scoring, assembly: Assembly) -> Verdict:
    """Check the word sets against the tokenizer: each word goes on after the prefix, none begins
    another, as many for fake as for real (sums over sets of unequal size are biased)."""
    question = {"role": "user", "content": scoring.question}
    text = assembly.render([question], ask=True) + scoring.answer_prefix
    fake = tuple(_find_word(word, text, assembly) for word in scoring.fake_words)
    real = tuple(_find_word(word, text, assembly) for word in scoring.real_words)
    for one, other in permutations((*fake, *real), 2):
        if other[: len(one)] == one:
            raise ConfigError(
                f"scoring: {_spell(one, assembly)} begins {_spell(other, assembly)}, so that they "
                "cannot be told apart; name each word once, and none that begins another"
            )
    if len(fake) != len(real):
        raise ConfigError(
            f"scoring: {len(fake)} fake_words and {len(real)} real_words; name as many of each"
        )
    return Verdict(encode_prompt(text, assembly), text, fake, real, scoring.reduce)


def scoring_facts(scoring: Scoring, verdict: Verdict) -> dict[str, Any]:
    """How the soft score is read, for checkpoint and report."""
    return {
        "prompt": verdict.text,
        "fake_words": list(scoring.fake_words),
        "real_words": list(scoring.real_words),
        "fake_tokens": list(verdict.fake_ids),
        "real_tokens": list(verdict.real_ids),
        "reduce": verdict.reduce,
        "threshold": scoring.threshold,
    }


def _find_word(word: str, prompt: str, assembly: Assembly) -> Word:
    before, _ = assembly.tokenize(prompt)
    after, _ = assembly.tokenize(prompt + word)
    if after[: len(before)] != before or len(after) == len(before):
        shown = assembly.tokenizer.convert_ids_to_tokens(after[-3:])
        raise ConfigError(
            f"scoring: {word!r} does not begin a token after {prompt[-24:]!r} (the text then ends "
            f"with the tokens {shown}); change the word, its leading space or answer_prefix"
        )
    return tuple(after[len(before) :])


def _spell(word: Word, assembly: Assembly) -> str:
    return repr(assembly.tokenizer.decode(word))


def score_images(
    images: Sequence[Image.Image], verdict: Verdict, assembly: Assembly
) -> list[float]:
    """Log-odds of fake for each image; all images in one batch, a row for each stem."""
    import torch

    prompts = verdict.prompts
    repeated = [image for image in images for _ in prompts]
    batch = collate(prompts * len(images), repeated, assembly)
    device = assembly.model.device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    last = (batch.lengths - 1).to(device)
    places, column = torch.unique(last, return_inverse=True)
    with torch.no_grad():
        logits = assembly.model(**inputs, use_cache=False, logits_to_keep=places).logits
    at_verdict = logits[torch.arange(len(repeated), device=device), column]
    log_odds = score_words(at_verdict.unflatten(0, (len(images), len(prompts))), verdict)
    return [float(value) for value in log_odds]
