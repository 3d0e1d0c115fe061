"""What differs between the architectures that can be trained: names of parts, and image tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from training.config import Part

Pixels = Mapping[str, Any]
"""output of an image processor for a batch of images, as tensors"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to handle one type of model of the transformers library."""

    prefixes: Mapping[str, Part]
    """part by prefix of the parameter's name; the longest prefix that fits decides"""
    count_image_tokens: Callable[[Pixels, Any], list[int]]
    """tokens that each image takes in the text, from the processed images and the configuration"""

    def part_of(self, parameter: str) -> Part:
        """The part that a parameter belongs to."""
        fitting = [prefix for prefix in self.prefixes if parameter.startswith(prefix)]
        return self.prefixes[max(fitting, key=len)]


def _count_llava_tokens(pixels: Pixels, config: Any) -> list[int]:
    number, _, height, width = pixels["pixel_values"].shape
    patch = config.vision_config.patch_size
    first = config.vision_feature_select_strategy != "default"
    return [(height // patch) * (width // patch) + first] * number


def _count_qwen_tokens(pixels: Pixels, config: Any) -> list[int]:
    merged = config.vision_config.spatial_merge_size**2
    return [int(size) // merged for size in pixels["image_grid_thw"].prod(-1)]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llava": Architecture(
            prefixes={
                "": "language",
                "model.vision_tower.": "tower",
                "model.multi_modal_projector.": "projector",
            },
            count_image_tokens=_count_llava_tokens,
        ),
        "qwen2_5_vl": Architecture(
            prefixes={
                "": "language",
                "model.visual.": "tower",
                "model.visual.merger.": "projector",
            },
            count_image_tokens=_count_qwen_tokens,
        ),
    }
)
"""by `model_type` of a checkpoint's config.json"""
