"""Tree batches: one image prefix, and instructions that branch off it and cannot see each other.

K questions about an image of P tokens cost P + K L tokens instead of K (P + L), and give the same
loss and gradients: a causal prefix holds nothing of what follows it. Where that is not true of a
model, batches are plain: each question with its own copy of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from core.errors import ConfigError, PermanentError
from training.attention import Forest
from training.collate import IGNORED, Batch, Encoded, collate, expand_image, pad
from training.config import DataSettings
from training.features import prepare
from training.model import Assembly

if TYPE_CHECKING:
    from torch import Tensor

    from training.features import Picture


@dataclass(frozen=True, slots=True)
class Tree:
    """An image and the conversations about it."""

    image: Picture
    rows: Sequence[Encoded]


def why_plain(model: Any) -> str | None:
    """Why tree batches do not apply to a model; None where they do."""
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"it has layers of {', '.join(sorted(kinds - {'full_attention'}))}"
    if getattr(text, "attention_dropout", 0.0):
        return "its attention has dropout"
    if not model._supports_attention_backend:
        return "its attention cannot be exchanged"
    return None


def uses_trees(model: Any, settings: DataSettings) -> bool:
    """Whether batches of this model are trees; a ConfigError when they must be and cannot."""
    reason = why_plain(model)
    if settings.layout == "tree" and reason is not None:
        raise ConfigError(f"data.layout: no tree batches with this model: {reason}; write auto")
    return settings.layout != "plain" and reason is None


def describe_layout(model: Any, settings: DataSettings) -> str:
    """One line about the batches of a run."""
    reason = "data.layout asks for them" if settings.layout == "plain" else why_plain(model)
    if uses_trees(model, settings):
        return f"tree batches: up to {settings.branches} instructions share the tokens of an image"
    return f"plain batches, each instruction with its own copy of the image: {reason}"


def collate_plain(trees: Sequence[Tree], assembly: Assembly) -> Batch:
    """The same conversations in the same order, each in a row of its own with its own image."""
    pairs = [(row, tree.image) for tree in trees for row in tree.rows]
    return collate(
        [row for row, _ in pairs],
        [image for _, image in pairs],
        assembly,
        siblings=[len(tree.rows) for tree in trees for _ in tree.rows],
    )


def collate_trees(trees: Sequence[Tree], assembly: Assembly) -> Batch:
    """Trees in one flat row: the prefix of each, then its branches, positions restarted for each.

    The prefix is what the rows of a tree have in common, at least up to the image and never an
    answer. PermanentError when rows of one tree differ before the end of the image.
    """
    pixels, counts = prepare([tree.image for tree in trees], assembly)
    cut = [_cut(tree, count, assembly) for tree, count in zip(trees, counts, strict=True)]
    flat = [piece for prefix, branches in cut for piece in (prefix, *branches)]
    forest = Forest.plant(
        [len(prefix.input_ids) for prefix, _ in cut],
        [[len(branch.input_ids) for branch in branches] for _, branches in cut],
    )
    ids = _in_a_row([piece.input_ids for piece in flat])
    if int((ids == assembly.image_token_id).sum()) != sum(counts):
        raise PermanentError("image placeholders in the text do not match the images of the batch")
    inputs = {
        "input_ids": ids,
        "position_ids": _positions(cut, pixels, assembly),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool),  # 4-D: no mask is made of it
        "forest": forest,
        **pixels,
    }
    return Batch(
        inputs,
        labels=_in_a_row([piece.labels for piece in flat]),
        is_target=_in_a_row([piece.is_target for piece in flat]),
        conversation=_number(cut),
        siblings=torch.tensor([len(branches) for _, branches in cut for _ in branches]),
        plain_tokens=sum(
            len(prefix.input_ids) + len(branch.input_ids)
            for prefix, branches in cut
            for branch in branches
        ),
    )


def _cut(tree: Tree, count: int, assembly: Assembly) -> tuple[Encoded, list[Encoded]]:
    """The prefix of a tree with its image tokens, and what is left of each row."""
    rows = [expand_image(row, count, assembly.image_token_id) for row in tree.rows]
    end_of_image = tree.rows[0].input_ids.index(assembly.image_token_id) + count
    end = shared_length(rows)
    if end < end_of_image:
        raise PermanentError("the conversations about one image differ before the image ends")
    return _part(rows[0], slice(end)), [_part(row, slice(end, None)) for row in rows]


def shared_length(rows: Sequence[Encoded]) -> int:
    """Tokens that all rows have in common at their start, answers left out."""
    return min(_shareable(rows[0], row) for row in rows)


def _shareable(first: Encoded, row: Encoded) -> int:
    """Tokens that `row` has in common with `first`; one before its answer always stays its own."""
    answer = next((i for i, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
    common = next(
        (i for i, (a, b) in enumerate(zip(first.input_ids, row.input_ids, strict=False)) if a != b),
        len(row.input_ids),
    )
    return min(common, answer - 1)


def _part(row: Encoded, part: slice) -> Encoded:
    return Encoded(row.input_ids[part], row.labels[part], row.is_target[part])


def _in_a_row(pieces: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([[value for piece in pieces for value in piece]])


def _number(cut: Sequence[tuple[Encoded, Sequence[Encoded]]]) -> Tensor:
    """Which conversation each token belongs to; -1 in a prefix."""
    numbers: list[int] = []
    conversation = 0
    for prefix, branches in cut:
        numbers += [-1] * len(prefix.input_ids)
        for branch in branches:
            numbers += [conversation] * len(branch.input_ids)
            conversation += 1
    return torch.tensor([numbers])


def _positions(
    cut: Sequence[tuple[Encoded, Sequence[Encoded]]], pixels: dict[str, Tensor], assembly: Assembly
) -> Tensor:
    """(1, tokens), or (3, 1, tokens) where image tokens have a place in their picture.

    Each branch goes on where its prefix ends, whatever other branches there are.
    """
    pieces = []
    in_prefixes = _prefix_positions([prefix for prefix, _ in cut], pixels, assembly)
    for (_, branches), in_prefix in zip(cut, in_prefixes, strict=True):
        pieces.append(in_prefix)
        after = int(in_prefix.max()) + 1
        for branch in branches:
            own = torch.arange(after, after + len(branch.input_ids))
            pieces.append(own.expand(*in_prefix.shape[:-1], -1))
    return torch.cat(pieces, dim=-1).unsqueeze(-2)


def _prefix_positions(
    prefixes: Sequence[Encoded], pixels: dict[str, Tensor], assembly: Assembly
) -> list[Tensor]:
    """(tokens,) of each prefix, or (3, tokens)."""
    lengths = [len(prefix.input_ids) for prefix in prefixes]
    find = getattr(assembly.model.model, "get_rope_index", None)
    if find is None:
        return [torch.arange(length) for length in lengths]
    ids = pad([prefix.input_ids for prefix in prefixes], assembly.pad_id)
    positions, _ = find(
        ids,
        mm_token_type_ids=(ids == assembly.image_token_id).int(),
        image_grid_thw=pixels["image_grid_thw"],
        attention_mask=pad([(1,) * length for length in lengths], 0),
    )
    return [positions[:, tree, :length] for tree, length in enumerate(lengths)]
