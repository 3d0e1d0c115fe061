"""What differs between the architectures that can be trained: names of parts, and image tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """tokens that each image takes in the text, from the processed images and the model"""
    pixel_names: tuple[str, ...]
    """which outputs of the image processor the model takes"""
    processing: Mapping[str, Any] = field(default_factory=dict)
    """options of the image processor that the model's own processor sets"""
    processor: Callable[[Any], dict[str, Any]] = lambda _: {}
    """what the processor of the library is told besides, from the model's configuration"""
    projector: str | None = None
    """module whose output goes into the language model as it is; None: there is more to it"""
    takes_one_tensor: bool = False
    """whether the model takes the features of all images in one tensor, else in a list"""
    marks: tuple[str, str] = ("", "")
    """texts before and after the placeholder that a chat template leaves to the processor"""

    def part_of(self, parameter: str) -> Part:
        """The part that a parameter belongs to."""
        fitting = [prefix for prefix in self.prefixes if parameter.startswith(prefix)]
        return self.prefixes[max(fitting, key=len)]


def _count_llava_tokens(pixels: Pixels, model: Any) -> list[int]:
    number, _, height, width = pixels["pixel_values"].shape
    patch = model.config.vision_config.patch_size
    first = model.config.vision_feature_select_strategy != "default"
    return [(height // patch) * (width // patch) + first] * number


def _count_qwen_tokens(pixels: Pixels, model: Any) -> list[int]:
    merged = model.config.vision_config.spatial_merge_size**2
    return [int(size) // merged for size in pixels["image_grid_thw"].prod(-1)]


def _count_internvl_tokens(pixels: Pixels, model: Any) -> list[int]:
    vision = model.config.vision_config
    side = int(vision.image_size[0] // vision.patch_size[0] * model.config.downsample_ratio)
    return [int(tiles) * side**2 for tiles in pixels["num_patches"]]


def _count_onevision_tokens(pixels: Pixels, model: Any) -> list[int]:
    """By packing features of one channel as the model packs its own."""
    import torch
    from transformers.models.llava_onevision.modeling_llava_onevision import (
        image_size_to_num_patches,
    )

    config = model.config
    vision = config.vision_config
    tiles = [
        image_size_to_num_patches(size, config.image_grid_pinpoints, vision.image_size)
        for size in pixels["image_sizes"]
    ]
    in_tile = (vision.image_size // vision.patch_size) ** 2
    _, lengths = model.model.pack_image_features(
        [torch.zeros(number, in_tile, 1) for number in tiles],
        pixels["image_sizes"],
        image_newline=torch.zeros(1),
        vision_aspect_ratio=config.vision_aspect_ratio,
    )
    return [int(length) for length in lengths]


def _llava_processor(config: Any) -> dict[str, Any]:
    return {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1,
    }


def _onevision_processor(config: Any) -> dict[str, Any]:
    return {
        "num_image_tokens": (config.vision_config.image_size // config.vision_config.patch_size)
        ** 2,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "vision_aspect_ratio": config.vision_aspect_ratio,
    }


def _internvl_processor(config: Any) -> dict[str, Any]:
    return {"image_seq_length": config.image_seq_length}


LLAVA_PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "": "language",
        "model.vision_tower.": "tower",
        "model.multi_modal_projector.": "projector",
        "model.image_newline": "projector",
    }
)
QWEN_PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "": "language",
        "model.visual.": "tower",
        "model.visual.merger.": "projector",
        "model.visual.deepstack_merger_list.": "projector",
    }
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llava": Architecture(
            prefixes=LLAVA_PARTS,
            count_image_tokens=_count_llava_tokens,
            processor=_llava_processor,
            pixel_names=("pixel_values",),
            projector="multi_modal_projector",
        ),
        "qwen2_5_vl": Architecture(
            prefixes=QWEN_PARTS,
            count_image_tokens=_count_qwen_tokens,
            pixel_names=("pixel_values", "image_grid_thw"),
        ),
        "llava_onevision": Architecture(
            prefixes=LLAVA_PARTS,
            count_image_tokens=_count_onevision_tokens,
            processor=_onevision_processor,
            pixel_names=("pixel_values", "image_sizes"),
        ),
        "qwen3_vl": Architecture(
            prefixes=QWEN_PARTS,
            count_image_tokens=_count_qwen_tokens,
            pixel_names=("pixel_values", "image_grid_thw"),
        ),
        "internvl": Architecture(
            prefixes=LLAVA_PARTS,
            count_image_tokens=_count_internvl_tokens,
            processor=_internvl_processor,
            pixel_names=("pixel_values",),
            projector="multi_modal_projector",
            takes_one_tensor=True,
            processing=MappingProxyType({"crop_to_patches": True}),
            marks=("<img>", "</img>"),
        ),
    }
)
"""by `model_type` of a checkpoint's config.json"""
