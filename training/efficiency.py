"""How much of a device a step used: floating point operations, their share of the peak, memory."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any, Final

import torch

from training.architectures import Architecture

PEAK_TERAFLOPS: Final = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""dense bfloat16 by a part of the device's name, from the vendor's data sheets"""


@dataclass(frozen=True, slots=True)
class Work:
    """Parameters by which the work of a step is reckoned.

    A token costs two operations per parameter in the forward pass and two per parameter for the
    gradient that passes through, and two per trained parameter for its own gradient (Kaplan et al.,
    arXiv 2001.08361, section 2.1; attention between tokens is left out).
    """

    language: int
    language_trained: int
    tower: int
    tower_trained: int
    merged: int
    """patches that make one image token"""

    @classmethod
    def of(cls, model: Any, architecture: Architecture) -> Work:
        """Projector and language model together, and the tower; frozen 4-bit weights are packed,
        so that QLoRA's work is reckoned too small."""
        counts = {"language": 0, "language_trained": 0, "tower": 0, "tower_trained": 0}
        for name, parameter in model.named_parameters():
            part = "tower" if architecture.part_of(name) == "tower" else "language"
            counts[part] += parameter.numel()
            if parameter.requires_grad:
                counts[f"{part}_trained"] += parameter.numel()
        side = getattr(model.config.vision_config, "spatial_merge_size", 1)
        return cls(**counts, merged=side * side)

    def operations(self, tokens: int, seen: int) -> float:
        """Floating point operations of a training step; the tower makes `seen` of its tokens."""
        return float(
            tokens * (4 * self.language + 2 * self.language_trained)
            + seen * self.merged * self._tower()
        )

    def _tower(self) -> int:
        """A frozen tower needs no backward pass."""
        if not self.tower_trained:
            return 2 * self.tower
        return 4 * self.tower + 2 * self.tower_trained


def peak_operations(device: torch.device, teraflops: float | None) -> float | None:
    """Operations a second that the device can do at most; None where nobody said."""
    if teraflops is not None:
        return teraflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for key, peak in PEAK_TERAFLOPS.items() if key in name), None)


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: allocated on a CUDA device, else held by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
