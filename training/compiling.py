"""Compiled decoder layers: torch.compile fuses the work of a layer; attention over trees stays.

Trees differ from step to step in their number of branches and in all lengths, which would have
attention compiled again and again. It is therefore left out, and what is around it knows one
length alone, that of the flat row, which is dynamic: all layers of a kind share what is compiled.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError


def compile_layers(model: Any, *, backend: str | Callable[..., Any] = "inductor") -> None:
    """Have the decoder layers of `model` compiled when they first learn.

    In evaluation mode they run as before: its caches and batches have shapes of their own. Weights
    keep their names, and recomputed activations are recomputed by compiled code.
    """
    layers = model.model.language_model.layers
    kinds: set[Any] = set(map(type, layers))
    compiled = {  # unwrapped: transformers recomputes activations in a wrapper around `forward`
        kind: torch.compile(inspect.unwrap(kind.forward), dynamic=True, backend=backend)
        for kind in kinds
    }
    for layer in layers:
        layer.forward = _while_learning(layer, compiled[type(layer)])


def _while_learning(layer: Any, compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    eager, learn = layer.forward, partial(compiled, layer)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return eager(*args, **kwargs)
        if layer.gradient_checkpointing:
            return layer._gradient_checkpointing_func(partial(learn, **kwargs), *args)
        return learn(*args, **kwargs)

    return forward


def check_compiler(device: torch.device) -> None:
    """ConfigError where nothing can be compiled for a device; a line of code is tried."""
    try:
        torch.compile(_double, dynamic=True)(torch.ones(2, device=device))
    except RuntimeError as error:
        needed = "Triton" if device.type == "cuda" else "a C++ compiler"
        raise ConfigError(
            f"compile: nothing can be compiled for {device.type}: {_first_line(error)}; "
            f"install {needed}, or write compile=false"
        ) from None


def _double(numbers: Tensor) -> Tensor:
    return numbers + numbers


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def describe_compilation(model: Any) -> str:
    """One line about what is compiled."""
    kinds = Counter(type(layer).__name__ for layer in model.model.language_model.layers)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"compiled while they learn: {counted}; the first step takes longer for it"
