"""From conversations and images to the tensors of one batch, with labels on answer tokens only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import DataError, PermanentError
from training.features import prepare
from training.model import Assembly

if TYPE_CHECKING:
    from torch import Tensor

    from training.features import Picture

IGNORED = -100
"""label of a token that is not learnt"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation; the image is still a single placeholder token."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """of the same length; IGNORED everywhere but on answer tokens"""
    is_target: tuple[bool, ...]
    """of the same length; True on the tokens of the closed answer, where there is one"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one batch: conversations padded on the right, or trees in one flat row."""

    inputs: dict[str, Any]
    """what the model's forward takes, (rows, tokens) and pixels"""
    labels: Tensor
    """(rows, tokens)"""
    is_target: Tensor
    """(rows, tokens)"""
    conversation: Tensor
    """(rows, tokens): number of the conversation that a token belongs to; -1 in a shared prefix"""
    siblings: Tensor
    """(conversations,): how many conversations there are about the same image"""
    plain_tokens: int
    """without padding, were each conversation to have its own copy of the image"""

    @property
    def answers(self) -> tuple[Tensor, Tensor]:
        """(answer tokens,) rows and columns of the tokens that are learnt.

        The first column is none of them: nothing stands before it.
        """
        row, column = (self.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        return row, column + 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of each row without padding; of conversations, not of trees."""
        mask: Tensor = self.inputs["attention_mask"]
        return mask.sum(dim=1)

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        mask = self.inputs["attention_mask"]
        return int(mask.sum()) if mask.ndim == 2 else self.labels.numel()


def encode_conversation(
    messages: Sequence[Mapping[str, str]],
    assembly: Assembly,
    *,
    max_tokens: int,
    target: str | None = None,
) -> Encoded:
    """Token ids and labels of one instruction; every assistant turn and its end token is learnt.

    `target` is the closed answer of the last turn: the first word there that spells it. A DataError
    says why a row cannot be used: no answer, a placeholder in its text, too long, or a token that
    belongs to both a question and its answer.
    """
    text, spans = _find_answers(messages, assembly)
    ids, offsets = assembly.tokenize(text)
    is_answer = [_is_in(offset, spans) for offset in offsets]
    labels = [token if kept else IGNORED for token, kept in zip(ids, is_answer, strict=True)]
    _check_row(ids, labels, assembly, max_tokens)
    place = _find_target(text, spans, target)
    is_target = [first < place[1] and last > place[0] for first, last in offsets]
    return Encoded(tuple(ids), tuple(labels), tuple(is_target))


def _find_answers(
    messages: Sequence[Mapping[str, str]], assembly: Assembly
) -> tuple[str, list[tuple[int, int]]]:
    """The whole conversation as text, and from where to where its answers go."""
    text = assembly.render(messages)
    end_token = assembly.tokenizer.eos_token
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _prefix_length(text, assembly.render(messages[:turn], ask=True))
        stop = _prefix_length(text, assembly.render(messages[: turn + 1]))
        closing = text.find(end_token, start, stop)
        spans.append((start, stop if closing < 0 else closing + len(end_token)))
    if spans and not text[: spans[-1][1]].endswith(end_token):
        text = text[: spans[-1][1]].rstrip() + end_token
        spans[-1] = (spans[-1][0], len(text))
    return text, spans


def _find_target(
    text: str, spans: Sequence[tuple[int, int]], target: str | None
) -> tuple[int, int]:
    """From where to where the closed answer goes; nowhere when there is none."""
    word = target and re.compile(rf"(?<!\w){re.escape(target)}(?!\w)", re.IGNORECASE)
    found = word and spans and word.search(text, *spans[-1])
    return found.span() if found else (0, 0)


def _prefix_length(text: str, prefix: str) -> int:
    if not text.startswith(prefix):
        raise DataError("the chat template changes earlier turns, so answers cannot be found")
    return len(prefix)


def _is_in(offset: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    start, stop = offset
    for first, last in spans:
        if start < first < stop:
            raise DataError("a token belongs to both a question and its answer")
        if first <= start < last:
            return True
    return False


def _check_row(
    ids: Sequence[int], labels: Sequence[int], assembly: Assembly, max_tokens: int
) -> None:
    if all(label == IGNORED for label in labels):
        raise DataError("it has no answer to learn")
    placeholders = list(ids).count(assembly.image_token_id)
    if placeholders != 1:
        raise DataError(f"its text has {placeholders} image placeholders instead of one")
    if len(ids) > max_tokens:
        raise DataError(f"{len(ids)} tokens, the most is {max_tokens} (data.max_tokens)")


def encode_prompt(text: str, assembly: Assembly) -> Encoded:
    """A prompt that the model is to go on with; nothing in it is learnt."""
    ids, _ = assembly.tokenize(text)
    return Encoded(tuple(ids), (IGNORED,) * len(ids), (False,) * len(ids))


def extend_prompt(prompt: Encoded, tokens: Sequence[int]) -> Encoded:
    """The prompt and what the model has written after it."""
    more = len(tokens)
    return Encoded(
        (*prompt.input_ids, *tokens),
        prompt.labels + (IGNORED,) * more,
        prompt.is_target + (False,) * more,
    )


def collate(
    rows: Sequence[Encoded],
    images: Sequence[Picture],
    assembly: Assembly,
    *,
    siblings: Sequence[int] | None = None,
) -> Batch:
    """One batch: each row with its image, whose placeholder becomes as many tokens as it needs.

    `siblings` says of each row how many are about the same image; by default it is the only one.
    """
    import torch

    pixels, counts = prepare(images, assembly)
    image_token = assembly.image_token_id
    expanded = [
        expand_image(row, count, image_token) for row, count in zip(rows, counts, strict=True)
    ]
    ids = pad([row.input_ids for row in expanded], assembly.pad_id)
    mask = pad([(1,) * len(row.input_ids) for row in expanded], 0)
    is_image = ids == image_token
    if is_image.sum(dim=1).tolist() != counts:
        raise PermanentError("image placeholders in the text do not match the images of the batch")
    inputs = {"input_ids": ids, "attention_mask": mask, **pixels}
    if "image_grid_thw" in pixels:  # without it Qwen models fall back to 1-D positions, silently
        inputs["mm_token_type_ids"] = is_image.to(torch.int32)
    return Batch(
        inputs,
        labels=pad([row.labels for row in expanded], IGNORED),
        is_target=pad([row.is_target for row in expanded], False),
        conversation=torch.arange(len(rows))[:, None].expand_as(ids),
        siblings=torch.tensor(siblings or [1] * len(rows)),
        plain_tokens=int(mask.sum()),
    )


def expand_image(row: Encoded, count: int, image_token: int) -> Encoded:
    """The row with `count` image tokens in the place of its placeholder."""
    place = row.input_ids.index(image_token)
    before, after = slice(None, place), slice(place + 1, None)
    return Encoded(
        row.input_ids[before] + (image_token,) * count + row.input_ids[after],
        row.labels[before] + (IGNORED,) * count + row.labels[after],
        row.is_target[before] + (False,) * count + row.is_target[after],
    )


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """(rows, longest), filled up on the right."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
