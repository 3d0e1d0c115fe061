"""Two-part attention over trees: a prefix sees itself, a branch sees its prefix and itself.

A forest is one flat row of tokens, the trees one after the other: the prefix of a tree, then its
branches. All linear layers of a model work on that row as on any other; only attention has to know
where the trees are. It runs in two parts: all prefixes as one batch, causal; then all branches as a
batch, each against the keys of its prefix and its own. The work grows with the number of branches,
not with its square as under a dense mask. Shared prefixes in training: Molmo (arXiv 2409.17146,
message trees) and Prefix Grouper (arXiv 2506.05433).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

TREE_ATTENTION: Final = "fakescope_tree"
"""name under which transformers knows it"""


@dataclass(frozen=True, slots=True)
class Branches:
    """Branches of similar length, padded on the right to the longest."""

    places: Tensor
    """(branches, tokens): place of each token in the flat row; padding points to place 0"""
    tree: Tensor
    """(branches,): whose prefix they see"""
    sees: Tensor
    """(branches, 1, tokens, prefix + tokens): what each token attends to"""


@dataclass(frozen=True, slots=True)
class Forest:
    """Where the tokens of some trees stand in a flat row."""

    prefixes: Tensor
    """(trees, tokens): place of each token in the flat row; padding points to place 0"""
    branches: tuple[Branches, ...]
    order: Tensor
    """(tokens of the row,): where each stands among the padded prefixes and branches"""

    @classmethod
    def plant(cls, prefixes: Sequence[int], branches: Sequence[Sequence[int]]) -> Forest:
        """Trees of so many tokens: one prefix and the branches of each, in the order of the row."""
        starts, place = [], 0
        for prefix, lengths in zip(prefixes, branches, strict=True):
            starts.append([place])
            place += prefix
            for length in lengths:
                starts[-1].append(place)
                place += length
        padded = _pad_places([own[0] for own in starts], prefixes)
        groups = defaultdict(list)
        for tree, lengths in enumerate(branches):
            for number, length in enumerate(lengths, start=1):
                groups[_bucket(length)].append((tree, starts[tree][number], length))
        grown = tuple(_grow(groups[size], prefixes) for size in sorted(groups))
        parts = [padded, *(own.places for own in grown)]
        return cls(padded.clamp(min=0), tuple(map(_clamped, grown)), _order_of(parts, place))

    def to(self, device: torch.device) -> Forest:
        """The same on another device."""
        branches = (
            Branches(own.places.to(device), own.tree.to(device), own.sees.to(device))
            for own in self.branches
        )
        return Forest(self.prefixes.to(device), tuple(branches), self.order.to(device))


def _bucket(length: int) -> int:
    """Branches whose lengths have the same power of two above them share a batch."""
    return (length - 1).bit_length()


def _pad_places(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """(rows, longest) places from each start on; -1 where a row is shorter."""
    columns = torch.arange(max(lengths))
    places = torch.tensor(starts)[:, None] + columns
    return places.masked_fill(columns >= torch.tensor(lengths)[:, None], -1)


def _grow(branches: Sequence[tuple[int, int, int]], prefixes: Sequence[int]) -> Branches:
    """From (tree, start, length) of each branch."""
    trees, starts, lengths = map(list, zip(*branches, strict=True))
    places, tree = _pad_places(starts, lengths), torch.tensor(trees)
    tokens = places.shape[1]
    in_prefix = torch.arange(max(prefixes)) < torch.tensor(prefixes)[tree][:, None]
    itself = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    sees = torch.cat(
        [
            in_prefix[:, None, None].expand(-1, 1, tokens, -1),
            itself.expand(len(trees), 1, -1, -1),
        ],
        dim=3,
    )
    return Branches(places, tree, sees)


def _clamped(branches: Branches) -> Branches:
    return Branches(branches.places.clamp(min=0), branches.tree, branches.sees)


def _order_of(parts: Sequence[Tensor], total: int) -> Tensor:
    padded = torch.cat([part.flatten() for part in parts])
    slots = (padded >= 0).nonzero().squeeze(1)
    return torch.empty(total, dtype=torch.long).index_copy(0, padded[slots], slots)


def use_tree_attention(model: Any, *, in_compiled: bool = False) -> None:
    """Let the language model of `model` take a `forest`; without one it attends as before.

    `in_compiled` layers it is not compiled itself. Only the choice of attention in the
    configuration changes, which is not saved with a checkpoint.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    attention: Any = tree_attention
    if in_compiled:
        attention = torch.compiler.disable(tree_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(TREE_ATTENTION, attention)
    AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
    model.config.get_text_config()._attn_implementation = TREE_ATTENTION


def has_tree_attention(model: Any) -> bool:
    """Whether the language model of `model` takes a `forest`; it would ignore one otherwise."""
    text = model.config.get_text_config()
    return bool(text._attn_implementation == TREE_ATTENTION)


def tree_attention(  # noqa: PLR0913, these are the arguments of transformers
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    forest: Forest | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: (1, heads, tokens, width) in, (1, tokens, heads, width)
    out; `attention_mask` is not looked at where there is a forest."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if forest is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others
        )
        return output, None
    groups = getattr(module, "num_key_value_groups", 1)
    heads = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    flat_query, flat_key, flat_value = (x[0].transpose(0, 1) for x in heads)
    return attend(flat_query, flat_key, flat_value, forest, scaling=scaling)[None], None


def attend(
    query: Tensor, key: Tensor, value: Tensor, forest: Forest, *, scaling: float | None
) -> Tensor:
    """Attention over a forest; all tensors are (tokens of the flat row, heads, width)."""
    prefix_query, prefix_key, prefix_value = (
        _gather(x, forest.prefixes) for x in (query, key, value)
    )
    parts = [
        scaled_dot_product_attention(
            prefix_query, prefix_key, prefix_value, is_causal=True, scale=scaling
        )
    ]
    for branches in forest.branches:
        own_query, own_key, own_value = (_gather(x, branches.places) for x in (query, key, value))
        parts.append(
            scaled_dot_product_attention(
                own_query,
                torch.cat([prefix_key.index_select(0, branches.tree), own_key], dim=2),
                torch.cat([prefix_value.index_select(0, branches.tree), own_value], dim=2),
                attn_mask=branches.sees,
                scale=scaling,
            )
        )
    padded = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return padded.index_select(0, forest.order)


def _gather(flat: Tensor, places: Tensor) -> Tensor:
    """(rows, heads, tokens, width) of the tokens at `places`."""
    rows, tokens = places.shape
    return (
        flat.index_select(0, places.flatten()).view(rows, tokens, *flat.shape[1:]).transpose(1, 2)
    )
