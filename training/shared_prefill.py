"""Many questions about one image: what their prompts share is computed once.

The image and all text before the first difference go through the model a single time; its cache is
then repeated, and only the rest of each prompt, and the answers, run side by side as a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, Literal

from core.errors import ConfigError
from training.collate import Encoded, collate, encode_prompt, expand_image, extend_prompt
from training.model import Assembly
from training.score import Verdict, score_images, score_words

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


Place = Literal["prefix", "verdict", "start"]
"""where a verdict is read: after the forced answer prefix · at the first word of a free reply that
is in one of the sets · where that reply begins, as it says none"""
REPLY: Final = 32
"""tokens of a reply in which its verdict is looked for"""
MARK: Final = "MARK"
BY_TOKEN: Final = ("input_ids", "attention_mask", "mm_token_type_ids")
"""inputs with one entry a token; the others are pixels"""


@dataclass(slots=True, eq=False)
class Branches:
    """Some prompts about one image after the model has read them, to be gone on with once."""

    logits: Tensor
    """(prompts, vocabulary), after the last token of each prompt"""
    _assembly: Assembly
    _cache: Any
    _mask: Tensor
    """(prompts, tokens in the cache)"""
    _next_positions: Tensor
    """(prompts,); of the token after each prompt"""

    @classmethod
    def read(cls, prompts: Sequence[Encoded], image: Image.Image, assembly: Assembly) -> Branches:
        """Run the shared part once, then the rest of all prompts as one batch."""
        import torch

        model, device = assembly.model, assembly.model.device
        first = collate(prompts[:1], [image], assembly).inputs
        ids = _expanded(prompts, first, assembly)
        shared = min(_shared_length(ids), min(map(len, ids)) - 1)
        prefix = {
            name: value[:, :shared] if name in BY_TOKEN else value for name, value in first.items()
        }
        with torch.no_grad():
            read = model(
                **{name: value.to(device) for name, value in prefix.items()},
                use_cache=True,
                logits_to_keep=1,
            )
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(ids))
            start = shared + _position_shift(model)
            lengths = torch.tensor([len(each) - shared for each in ids], device=device)
            longest = int(lengths.max())
            rest = torch.full((len(ids), longest), assembly.pad_id, device=device)
            for row, each in zip(rest, ids, strict=True):
                row[: len(each) - shared] = torch.tensor(each[shared:], device=device)
            steps = torch.arange(longest, device=device)
            mask = torch.ones((len(ids), shared + longest), dtype=torch.long, device=device)
            mask[:, shared:] = steps < lengths[:, None]
            places, column = torch.unique(lengths - 1, return_inverse=True)
            logits = model(
                input_ids=rest,
                attention_mask=mask,
                position_ids=_positions(start + steps.expand(len(ids), -1), model),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=places,
            ).logits
        rows = torch.arange(len(ids), device=device)
        return cls(logits[rows, column], assembly, cache, mask, start + lengths)

    def reply(self, *, max_tokens: int) -> list[str]:
        """The most probable answers, word by word (greedy), of at most `max_tokens` tokens each."""
        tokenizer = self._assembly.tokenizer
        written = self.write(max_tokens=max_tokens)
        return [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in written]

    def write(self, *, max_tokens: int) -> list[list[int]]:
        """The same as tokens, without those that end an answer."""
        import torch

        model = self._assembly.model
        ends = torch.tensor(sorted(_end_tokens(self._assembly)), device=self.logits.device)
        tokens: list[Tensor] = []
        ended = torch.zeros(len(self.logits), dtype=torch.bool, device=self.logits.device)
        with torch.no_grad():
            while len(tokens) < max_tokens:
                chosen = self.logits.argmax(dim=-1).masked_fill(ended, self._assembly.pad_id)
                tokens.append(chosen)
                ended |= torch.isin(chosen, ends)
                if bool(ended.all()):
                    break
                self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
                self.logits = model(
                    input_ids=chosen[:, None],
                    attention_mask=self._mask,
                    position_ids=_positions(self._next_positions[:, None], model),
                    past_key_values=self._cache,
                    use_cache=True,
                ).logits[:, -1]
                self._next_positions = self._next_positions + 1
        stops = set(ends.tolist())
        return [
            list(takewhile(lambda token: token not in stops, row))
            for row in torch.stack(tokens, 1).tolist()
        ]


def reply_to_all(
    questions: Sequence[str], image: Image.Image, assembly: Assembly, *, max_tokens: int
) -> list[str]:
    """Greedy answers to some questions about one image, at least one, each on its own."""
    prompts = [prompt_of(question, assembly) for question in questions]
    return Branches.read(prompts, image, assembly).reply(max_tokens=max_tokens)


def score_and_reply(
    verdict: Verdict,
    questions: Sequence[str],
    image: Image.Image,
    assembly: Assembly,
    *,
    max_tokens: int,
) -> tuple[float, list[str]]:
    """Log-odds of fake and the answers, from one pass over the image."""
    scored = verdict.prompts
    prompts = [*scored, *(prompt_of(question, assembly) for question in questions)]
    branches = Branches.read(prompts, image, assembly)
    log_odds = float(score_words(branches.logits[: len(scored)], verdict))
    return log_odds, branches.reply(max_tokens=max_tokens)[len(scored) :] if questions else []


def score_reply(
    verdict: Verdict, image: Image.Image, assembly: Assembly, *, max_tokens: int = REPLY
) -> tuple[float, Place]:
    """Log-odds of fake where a reply without a forced prefix first says one of the words.

    Where it says none among its first tokens, they are read where it begins.
    """
    asked = encode_prompt(question_text(verdict.text, assembly), assembly)
    (written,) = Branches.read([asked], image, assembly).write(max_tokens=max_tokens)
    places = [
        place
        for place in range(len(written))
        if any(tuple(written[place : place + len(word)]) == word for word in verdict.words)
    ]
    prompt = extend_prompt(asked, written[: places[0]] if places else ())
    (log_odds,) = score_images([image], replace(verdict, prompt=prompt), assembly)
    return log_odds, "verdict" if places else "start"


def question_text(text: str, assembly: Assembly) -> str:
    """The prompt of a verdict without the answer prefix, which no chat template knows."""
    answer_begins = assembly.render([{"role": "user", "content": MARK}], ask=True).split(MARK)[1]
    place = text.rfind(answer_begins)
    if place < 0:
        raise ConfigError("the chat template is not the one that the verdict's prompt was made by")
    return text[: place + len(answer_begins)]


def prompt_of(question: str, assembly: Assembly) -> Encoded:
    """One question as the model sees it, up to where its answer begins."""
    return encode_prompt(
        assembly.render([{"role": "user", "content": question}], ask=True), assembly
    )


def _expanded(
    prompts: Sequence[Encoded], first: dict[str, Tensor], assembly: Assembly
) -> list[tuple[int, ...]]:
    """Token ids of all prompts, with as many image tokens as this image takes."""
    image_token = assembly.image_token_id
    count = int((first["input_ids"] == image_token).sum())
    return [expand_image(prompt, count, image_token).input_ids for prompt in prompts]


def _shared_length(ids: Sequence[Sequence[int]]) -> int:
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*ids, strict=False)))


def _position_shift(model: Any) -> int:
    """By how much positions in the text run behind the number of tokens (Qwen's image grids)."""
    deltas = getattr(model.model, "rope_deltas", None)
    return 0 if deltas is None else int(deltas.reshape(-1)[0])


def _positions(places: Tensor, model: Any) -> Tensor:
    """(rows, tokens), or three times that where the model counts time, height and width apart."""
    is_three = getattr(model.model, "rope_deltas", None) is not None
    return places[None].expand(3, -1, -1) if is_three else places


def _end_tokens(assembly: Assembly) -> set[int]:
    named = assembly.model.generation_config.eos_token_id
    found = {named} if isinstance(named, int) else set(named or ())
    return found or {int(assembly.tokenizer.eos_token_id)}
