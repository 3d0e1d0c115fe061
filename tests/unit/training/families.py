"""Tiny checkpoints of the supported families, in the layout of their published checkpoints."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
)

from training.config import Checkpoint
from training.model import Assembly, load_checkpoint

CORPUS = [
    "USER: ASSISTANT: Is this image real or fake? The image is fake. The image is real.",
    "What do you see? Every second column is brighter. So is it real or fake? It is fake.",
    "system You are a helpful assistant. user assistant",
]
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""as LLaVA-1.5 writes a conversation: a space before each answer, no end token after it"""
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""as Qwen2.5-VL writes a conversation"""
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}
"""a small language model; two heads share their keys"""


@cache
def save_family(family: str) -> Path:
    """A folder with an untrained checkpoint; the same for every caller."""
    folder = Path(tempfile.mkdtemp(prefix=f"{family}-"))
    torch.manual_seed(0)
    SAVERS[family](folder)
    return folder


def build_family(family: str) -> Assembly:
    """A fresh model, loaded through the path that a published checkpoint takes."""
    return load_checkpoint(Checkpoint(kind="checkpoint", name=str(save_family(family))))


def _save_llava(folder: Path) -> None:
    """With the chat template in `chat_template.json`, where older repositories keep it."""
    tokenizer = _tokenizer(["<pad>", "<s>", "</s>", "<image>"], end="</s>", start="<s>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    ).save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA_TEMPLATE}))


def _save_qwen(folder: Path) -> None:
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks], end="<|im_end|>", start=None
    )
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.chat_template = QWEN_TEMPLATE
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}
    ).save_pretrained(folder)


def _save_onevision(folder: Path) -> None:
    """Tiles of 28 px: an image becomes one small view and as many tiles as fit it."""
    tokenizer = _chat_tokenizer(["<image>", "<video>"])
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=7,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    _save_chat(tokenizer, "<image>\n", folder)
    LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    ).save_pretrained(folder)


def _save_qwen3(folder: Path) -> None:
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _chat_tokenizer(marks)
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            **TEXT,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    _save_chat(tokenizer, "<|vision_start|><|image_pad|><|vision_end|>", folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}
    ).save_pretrained(folder)


def _save_internvl(folder: Path) -> None:
    """Its chat template leaves the marks around the image to the processor."""
    tokenizer = _chat_tokenizer(["<img>", "</img>", "<IMG_CONTEXT>"])
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [28, 28],
            "patch_size": [7, 7],
        },
        text_config=Qwen2Config(vocab_size=len(tokenizer), **TEXT).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    _save_chat(tokenizer, "<IMG_CONTEXT>\n", folder)
    GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, min_patches=1, max_patches=4
    ).save_pretrained(folder)


SAVERS = {
    "llava": _save_llava,
    "qwen2_5_vl": _save_qwen,
    "llava_onevision": _save_onevision,
    "qwen3_vl": _save_qwen3,
    "internvl": _save_internvl,
}
FAMILIES = tuple(SAVERS)


def _chat_tokenizer(marks: list[str]) -> Any:
    return _tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks], end="<|im_end|>", start=None
    )


def _save_chat(tokenizer: Any, image: str, folder: Path) -> None:
    """With Qwen's chat template, in which `image` stands for an image."""
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    tokenizer.chat_template = QWEN_TEMPLATE.replace(mark, image)
    tokenizer.save_pretrained(folder)


def _tokenizer(special: list[str], *, end: str, start: str | None) -> Any:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=start,
        eos_token=end,
        pad_token=special[0],
        additional_special_tokens=special,
    )
