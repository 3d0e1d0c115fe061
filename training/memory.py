"""How much memory a training step takes, reckoned from the size of the model and of the step.

Per process, in bytes; FSDP2 divides what is marked / N among N processes:

    weights       4 or 2 a parameter, 0.516 in 4 bits                                        / N
    gradients     4 a trained parameter                                                      / N
    optimiser     8 a trained parameter: two moments in float32                              / N
    gathered      of several processes, what FSDP2 holds whole: all outside the decoder layers and
                  two of these, and as much again for the gradients of what is trained
    working       the larger of activations and 4 a trained parameter (/ N), which the update of
                  all weights at once takes on a GPU

and activations, with w bytes a number (2 in bfloat16, else 4), for one process's part of a step: T
tokens (of plain rows with their padding), hidden width h, inner width i, heads of width A in all:

    decoder layer   T (16 h + w (2 h + 4 i)) + w A (3 T + 2 K)   K: keys, copied for each branch
    tower layer     T (8 h + w (7 h + 2 i))        of its own; all are kept where it is trained
    logits          V (w R + (8 + w) S)            S: answer tokens, V: vocabulary; R: S, or in
                                                   plain batches rows times the longest of them
    casts           2 a trained weight of a float32 model under autocast

Recomputed layers (`activation_checkpointing`) keep their input, T h numbers, and one layer at a
time is whole. These are the tensors that autograd keeps of a Llama layer (two norms in float32,
SwiGLU) and of a ViT layer, in the way of Korthikanti et al., arXiv 2205.05198. Not reckoned: what
the libraries themselves take, and fragmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from training.adapters import is_adapter
from training.config import Part, TrainingConfig

if TYPE_CHECKING:
    from training.model import Assembly

PACKED: Final = 0.516
"""bytes of a weight in 4 bits with quantised constants, one per 64 weights and one per 256 of them
(arXiv 2305.14314, section 3)"""
PARTS: Final[tuple[Part, ...]] = ("tower", "projector", "language")


@dataclass(frozen=True, slots=True)
class TreeSize:
    """Tokens of an image and of the instructions about it."""

    image: int
    prefix: int
    """that the instructions share, those of the image among them"""
    branches: tuple[int, ...]
    answers: int
    """tokens that are learnt"""

    @property
    def tokens(self) -> int:
        """Of the tree."""
        return self.prefix + sum(self.branches)

    @property
    def plain_tokens(self) -> int:
        """With the prefix before each instruction."""
        return self.prefix * len(self.branches) + sum(self.branches)


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters of a model part."""

    parameters: int = 0
    """those of adapters left out"""
    adapters: int = 0
    trained: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.parameters + other.parameters,
            self.adapters + other.adapters,
            self.trained + other.trained,
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process."""

    processes: int
    weights: int
    gradients: int
    optimiser: int
    gathered: int
    activations: int
    working: int
    """activations, or what the update of the weights takes, whichever is more"""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.gathered + self.working


def count_parameters(assembly: Assembly) -> dict[Part, Counts]:
    """Parameters by part, tied ones once."""
    counts = dict.fromkeys(PARTS, Counts())
    for name, parameter in assembly.model.named_parameters():
        number = parameter.numel()
        counts[assembly.architecture.part_of(name)] += Counts(
            parameters=0 if is_adapter(name) else number,
            adapters=number if is_adapter(name) else 0,
            trained=number if parameter.requires_grad else 0,
        )
    return counts


def estimate_memory(
    assembly: Assembly,
    config: TrainingConfig,
    step: Sequence[TreeSize],
    *,
    are_trees: bool,
    processes: int,
) -> Memory:
    """What one of `processes` processes holds at most while it learns from its share of `step`.

    `assembly` may be on the meta device; `requires_grad` says what is trained.
    """
    model = assembly.model
    trained = sum(each.trained for each in count_parameters(assembly).values())
    share = step[: math.ceil(len(step) / processes)][: config.data.images_at_once]
    activations = _activations(assembly, config, share, are_trees=are_trees)
    return Memory(
        processes=processes,
        weights=_weights(assembly, config) // processes,
        gradients=4 * trained // processes,
        optimiser=8 * trained // processes,
        gathered=_gathered(model) if processes > 1 else 0,
        activations=activations,
        working=max(activations, 4 * trained // processes),
    )


def _weights(assembly: Assembly, config: TrainingConfig) -> int:
    packs = config.lora is not None and config.lora.quantised
    sizes = (
        parameter.numel()
        * (PACKED if packs and _is_packed(assembly, name) else parameter.element_size())
        for name, parameter in assembly.model.named_parameters()
    )
    return int(sum(sizes))


def _is_packed(assembly: Assembly, name: str) -> bool:
    """Whether QLoRA holds a parameter in 4 bits: linear layers of the decoder."""
    inside = ".layers." in name and name.endswith("_proj.base_layer.weight")
    return inside and assembly.architecture.part_of(name) == "language"


def _gathered(model: Any) -> int:
    layers = list(model.model.language_model.layers)
    inside = {id(each) for layer in layers for each in layer.parameters()}
    outside = [each for each in model.parameters() if id(each) not in inside]
    whole = [*outside, *(each for layer in layers[:2] for each in layer.parameters())]
    sizes = (each.numel() * each.element_size() * (1 + each.requires_grad) for each in whole)
    return int(sum(sizes))


def _activations(
    assembly: Assembly, config: TrainingConfig, share: Sequence[TreeSize], *, are_trees: bool
) -> int:
    model = assembly.model
    width = 2 if config.autocast == "bfloat16" else _itemsize(model)
    return round(
        _decoder(model, config, share, are_trees=are_trees, width=width)
        + _tower(assembly, config, share, are_trees=are_trees, width=width)
        + _logits(model, share, are_trees=are_trees, width=width)
        + _casts(model, config)
    )


def _itemsize(model: Any) -> int:
    """Bytes of a weight of the decoder's own."""
    layer = model.model.language_model.layers[0]
    return int(min(parameter.element_size() for parameter in layer.parameters()))


def _decoder(
    model: Any, config: TrainingConfig, share: Sequence[TreeSize], *, are_trees: bool, width: int
) -> int:
    text = model.config.get_text_config()
    hidden, inner = text.hidden_size, text.intermediate_size
    heads = text.num_attention_heads
    across = heads * (getattr(text, "head_dim", None) or hidden // heads)
    tokens = sum(tree.tokens for tree in share) if are_trees else _padded(share)
    keys = sum(tree.prefix + tree.plain_tokens for tree in share) if are_trees else tokens
    layer = tokens * (16 * hidden + width * (2 * hidden + 4 * inner))
    layer += width * across * (3 * tokens + 2 * keys)
    return _stacked(layer, tokens * hidden * _itemsize(model), text.num_hidden_layers, config)


def _padded(share: Sequence[TreeSize]) -> int:
    """Tokens of plain rows, each as long as the longest."""
    longest = max(tree.prefix + max(tree.branches) for tree in share)
    return longest * sum(len(tree.branches) for tree in share)


def _logits(model: Any, share: Sequence[TreeSize], *, are_trees: bool, width: int) -> int:
    answers = kept = sum(tree.answers for tree in share)
    if not are_trees:
        longest = max(max(tree.branches) for tree in share)
        kept = longest * sum(len(tree.branches) for tree in share)
    vocabulary: int = model.config.get_text_config().vocab_size
    return vocabulary * (kept * width + answers * (8 + width))


def _tower(
    assembly: Assembly,
    config: TrainingConfig,
    share: Sequence[TreeSize],
    *,
    are_trees: bool,
    width: int,
) -> int:
    vision = assembly.model.config.vision_config
    hidden, inner = vision.hidden_size, getattr(vision, "intermediate_size", vision.hidden_size * 4)
    merged = getattr(vision, "spatial_merge_size", 1) ** 2
    copies = [1 if are_trees else len(tree.branches) for tree in share]
    patches = merged * sum(tree.image * n for tree, n in zip(share, copies, strict=True))
    layer: int = patches * (8 * hidden + width * (7 * hidden + 2 * inner))
    if not count_parameters(assembly)["tower"].trained:
        return layer
    layers = getattr(vision, "num_hidden_layers", None) or vision.depth
    return _stacked(layer, patches * hidden * width, layers, config)


def _stacked(layer: int, entrance: int, layers: int, config: TrainingConfig) -> int:
    """Bytes of a stack: all of each layer, or the inputs of all and all of one."""
    if getattr(config.model, "activation_checkpointing", False):
        return layers * entrance + layer
    return layers * layer


def _casts(model: Any, config: TrainingConfig) -> int:
    if config.autocast == "none":
        return 0
    return sum(
        2 * parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.element_size() == 4 and not is_adapter(name)
    )
