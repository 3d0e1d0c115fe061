"""The token soft score: how strongly the model leans to `fake` where it has to say real or fake.

FakeScope (arXiv 2503.24267): p_fake = exp(S_fake) / (exp(S_fake) + exp(S_real)), S_j being the sum
of the logits of the words that stand for j, at the position where the answer word is produced. All
other words of the vocabulary are left out, so this equals sigmoid(S_fake - S_real); the difference
is the log-odds that everything here works with, as probabilities near 0 and 1 lose their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import ConfigError
from training.collate import Encoded, collate, encode_prompt
from training.config import Reduction, Scoring
from training.model import Assembly

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the verdict is read, and which tokens stand for it."""

    prompt: Encoded
    text: str
    """the prompt as the model sees it, image placeholder unexpanded, answer prefix included"""
    fake_ids: tuple[int, ...]
    real_ids: tuple[int, ...]
    reduce: Reduction


def soft_score(
    logits: Tensor, *, fake_ids: Sequence[int], real_ids: Sequence[int], reduce: Reduction
) -> Tensor:
    """Log-odds of fake from logits of shape (..., vocabulary)."""
    fake, real = logits[..., list(fake_ids)].double(), logits[..., list(real_ids)].double()
    if reduce == "sum":
        return fake.sum(dim=-1) - real.sum(dim=-1)
    if reduce == "mean":
        return fake.mean(dim=-1) - real.mean(dim=-1)
    return fake.logsumexp(dim=-1) - real.logsumexp(dim=-1)


def probability(log_odds: float) -> float:
    """The logistic function, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def resolve_verdict(scoring: Scoring, assembly: Assembly) -> Verdict:
    """Check the word sets against the tokenizer: single tokens after the prefix, distinct, as many
    for fake as for real (sums over sets of unequal size are biased)."""
    question = {"role": "user", "content": scoring.question}
    text = assembly.render([question], ask=True) + scoring.answer_prefix
    fake = tuple(_find_token(word, text, assembly) for word in scoring.fake_words)
    real = tuple(_find_token(word, text, assembly) for word in scoring.real_words)
    if len({*fake, *real}) != len(fake) + len(real):
        raise ConfigError("scoring: two words are the same token; name each word once")
    if len(fake) != len(real):
        raise ConfigError(
            f"scoring: {len(fake)} fake_words and {len(real)} real_words; name as many of each"
        )
    return Verdict(encode_prompt(text, assembly), text, fake, real, scoring.reduce)


def _find_token(word: str, prompt: str, assembly: Assembly) -> int:
    before, _ = assembly.tokenize(prompt)
    after, _ = assembly.tokenize(prompt + word)
    if after[: len(before)] != before or len(after) != len(before) + 1:
        shown = assembly.tokenizer.convert_ids_to_tokens(after[-3:])
        raise ConfigError(
            f"scoring: {word!r} is no single token after {prompt[-24:]!r} (the text then ends with "
            f"the tokens {shown}); change the word, its leading space or answer_prefix"
        )
    return after[-1]


def score_images(
    images: Sequence[Image.Image], verdict: Verdict, assembly: Assembly
) -> list[float]:
    """Log-odds of fake for each image; all images in one batch."""
    import torch

    batch = collate([verdict.prompt] * len(images), images, assembly)
    device = assembly.model.device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    last = (batch.lengths - 1).to(device)
    places, column = torch.unique(last, return_inverse=True)
    with torch.no_grad():
        logits = assembly.model(**inputs, use_cache=False, logits_to_keep=places).logits
    at_verdict = logits[torch.arange(len(images), device=device), column]
    log_odds = soft_score(
        at_verdict, fake_ids=verdict.fake_ids, real_ids=verdict.real_ids, reduce=verdict.reduce
    )
    return [float(value) for value in log_odds]
