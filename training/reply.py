"""Free answers of a model about one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.collate import collate, encode_prompt
from training.model import Assembly

if TYPE_CHECKING:
    from PIL import Image


def reply_to(question: str, image: Image.Image, assembly: Assembly, *, max_tokens: int) -> str:
    """The most probable answer, word by word (greedy), of at most `max_tokens` tokens."""
    import torch

    text = assembly.render([{"role": "user", "content": question}], ask=True)
    batch = collate([encode_prompt(text, assembly)], [image], assembly)
    inputs = {name: value.to(assembly.model.device) for name, value in batch.inputs.items()}
    with torch.no_grad():
        ids = assembly.model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=assembly.pad_id
        )
    answer = ids[0, inputs["input_ids"].shape[1] :]
    return str(assembly.tokenizer.decode(answer, skip_special_tokens=True)).strip()
