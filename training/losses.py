"""The loss of a batch: cross-entropy of its answer tokens, and what each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.errors import PermanentError
from training.attention import has_tree_attention
from training.collate import Batch
from training.config import Optimiser


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Cross-entropy of each answer token of a batch."""

    values: Tensor
    """(answer tokens,)"""
    conversation: Tensor
    """(answer tokens,): which conversation of the batch each belongs to"""


def token_losses(model: Any, batch: Batch) -> TokenLosses:
    """Cross-entropy of the answer tokens, each predicted from all that stands before it.

    Only the columns that hold an answer token in some row get logits. PermanentError when a
    conversation has none, or when the model would not see where trees end.
    """
    device = model.device
    if "forest" in batch.inputs and not has_tree_attention(model):
        raise PermanentError("the model does not attend along trees: use_tree_attention first")
    row, column = batch.answers
    conversation = batch.conversation[row, column]
    if len(torch.unique(conversation)) < len(batch.siblings):
        raise PermanentError("a row of the batch has no answer token to learn")
    columns, place = torch.unique(column - 1, return_inverse=True)
    inputs = {
        name: value.to(device) if hasattr(value, "to") else value
        for name, value in batch.inputs.items()
    }
    output = model(**inputs, use_cache=False, logits_to_keep=columns.to(device))
    if output.past_key_values is not None:  # a cache makes transformers ignore borders of samples
        raise PermanentError("the model keeps a key-value cache while training")
    logits = output.logits[row.to(device), place.to(device)]
    targets = batch.labels[row, column].to(device)
    return TokenLosses(
        functional.cross_entropy(logits.float(), targets, reduction="none"),
        conversation.to(device),
    )


def weigh(batch: Batch, settings: Optimiser) -> Tensor:
    """(answer tokens,) weights; the loss of a step is the mean of its token losses under them.

    `branch_weight` sqrt divides the weight of a conversation by the square root of the number of
    conversations about its image, as Molmo does (arXiv 2409.17146). `row_weight` equal divides it
    among the answer tokens of the conversation; tokens gives it to each of them.
    """
    conversation = batch.conversation[batch.answers]
    weights = 1 + (settings.target_weight - 1) * batch.is_target[batch.answers].float()
    if settings.row_weight == "equal":
        whole = torch.zeros(len(batch.siblings)).index_add(0, conversation, weights)
        weights = weights / whole[conversation]
    if settings.branch_weight == "sqrt":
        weights = weights * batch.siblings.rsqrt()[conversation]
    return weights


def join_losses(parts: Sequence[TokenLosses], conversations: Sequence[int]) -> TokenLosses:
    """Those of several batches as of one; `conversations` is how many there are in each.

    Nothing is learnt through the result.
    """
    before = accumulate(conversations, initial=0)
    return TokenLosses(
        torch.cat([part.values.detach() for part in parts]),
        torch.cat([part.conversation + first for part, first in zip(parts, before, strict=False)]),
    )
