from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import DataError
from tests.unit.training.families import FAMILIES, build_family
from training.collate import IGNORED, Encoded, collate, encode_conversation, encode_prompt
from training.model import END, START, Assembly

TALK = [
    {"role": "user", "content": "What do you see?"},
    {"role": "assistant", "content": "Every second column is brighter."},
    {"role": "user", "content": "So is it real or fake?"},
    {"role": "assistant", "content": "It is fake."},
]
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: not any(mark in text for mark in ("<image>", "<s>", "</s>", "<pad>"))
)


def label_slowly(messages: Sequence[dict[str, str]], assembly: Assembly) -> Encoded:
    """The tiny template written out by hand, each piece tokenised on its own."""
    ids: list[int] = []
    labels: list[int] = []

    def add(text: str, *, is_answer: bool) -> None:
        pieces = assembly.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.extend(pieces)
        labels.extend(pieces if is_answer else [IGNORED] * len(pieces))

    add(START, is_answer=False)
    for turn, message in enumerate(messages):
        image = " <image>" if turn == 0 else ""
        if message["role"] == "user":
            add(f"USER:{image} {message['content']}\n", is_answer=False)
        else:
            add("ASSISTANT:", is_answer=False)
            add(f" {message['content']}{END}", is_answer=True)
    return Encoded(tuple(ids), tuple(labels), (False,) * len(ids))


def test_labels_of_a_talk_equal_the_slow_reference(assembly: Assembly) -> None:
    assert encode_conversation(TALK, assembly, max_tokens=500) == label_slowly(TALK, assembly)


@settings(max_examples=60, deadline=None)
@given(question=TEXT, answer=TEXT)
def test_whatever_the_text_the_answer_and_its_end_alone_are_learnt(
    plain_assembly: Assembly, question: str, answer: str
) -> None:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    encoded = encode_conversation(messages, plain_assembly, max_tokens=500)
    learnt = [label for label in encoded.labels if label != IGNORED]
    assert plain_assembly.tokenizer.decode(learnt) == f" {answer}{END}"
    assert [i for i, x in zip(encoded.input_ids, encoded.labels, strict=True) if x != IGNORED] == (
        learnt
    )


IMAGES = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "llava_onevision": "<image>\n",
    "internvl": "<img><IMG_CONTEXT></img>\n",
}
"""what stands for an image in the text that each family was trained on"""


@pytest.mark.parametrize("family", IMAGES)
def test_labels_of_each_family_equal_a_slow_reference(family: str) -> None:
    """The chat template written out by hand, each piece tokenised on its own."""
    assembly = build_family(family)
    ids: list[int] = []
    labels: list[int] = []

    def add(text: str, *, is_answer: bool = False) -> None:
        pieces = assembly.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.extend(pieces)
        labels.extend(pieces if is_answer else [IGNORED] * len(pieces))

    add("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    for turn, message in enumerate(TALK):
        image = IMAGES[family] if turn == 0 else ""
        add(f"<|im_start|>{message['role']}\n{image}")
        add(f"{message['content']}<|im_end|>", is_answer=message["role"] == "assistant")
        if turn < len(TALK) - 1:  # the last answer ends the row
            add("\n")
    encoded = encode_conversation(TALK, assembly, max_tokens=500)
    length = len(ids)
    assert encoded.input_ids[:length] == tuple(ids)
    assert encoded.labels[:length] == tuple(labels)
    assert set(encoded.labels[length:]) <= {IGNORED}


@pytest.mark.parametrize("family", FAMILIES)
def test_placeholders_are_as_many_as_the_features_of_each_image(family: str) -> None:
    assembly = build_family(family)
    row = encode_conversation(TALK, assembly, max_tokens=500)
    images = [Image.new("RGB", size) for size in ((56, 56), (112, 56), (56, 140))]
    batch = collate([row] * 3, images, assembly)
    is_image = batch.inputs["input_ids"] == assembly.image_token_id
    for number, image in enumerate(images):
        alone = collate([row], [image], assembly).inputs
        pixels = {name: alone[name] for name in assembly.architecture.pixel_names}
        features = assembly.model.model.get_image_features(**pixels).pooler_output
        taken = sum(len(part) for part in features) if isinstance(features, (list, tuple)) else (
            features.shape[:-1].numel()
        )  # fmt: skip
        assert int(is_image[number].sum()) == taken
    assert assembly.model(**batch.inputs, use_cache=False).logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_published_templates_give_answer_labels_too(family: str) -> None:
    assembly = build_family(family)
    encoded = encode_conversation(TALK, assembly, max_tokens=500)
    learnt = assembly.tokenizer.decode([label for label in encoded.labels if label != IGNORED])
    assert "Every second column is brighter." in learnt
    assert learnt.rstrip().endswith(f"It is fake.{assembly.tokenizer.eos_token}")
    assert "real or fake" not in learnt


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (TALK[:1], "no answer to learn"),
        ([{"role": "user", "content": "an <image> here"}, TALK[1]], "2 image placeholders"),
        ([TALK[0], {"role": "assistant", "content": "long " * 500}], "the most is 500"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(
    assembly: Assembly, messages: list[dict[str, str]], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        encode_conversation(messages, assembly, max_tokens=500)


def test_a_batch_is_padded_on_the_right_and_its_placeholders_grow(assembly: Assembly) -> None:
    long = encode_conversation(TALK, assembly, max_tokens=500)
    short = encode_prompt(assembly.render(TALK[:1], ask=True), assembly)
    batch = collate([short, long], [Image.new("RGB", (32, 32))] * 2, assembly)
    patches = (32 // 8) ** 2
    assert batch.lengths.tolist() == [
        len(short.input_ids) + patches - 1,
        len(long.input_ids) + patches - 1,
    ]
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    assert ((ids == assembly.image_token_id).sum(dim=1) == patches).all()
    assert (ids[~mask] == assembly.pad_id).all()
    assert (batch.labels[0] == IGNORED).all()
    assert torch.equal(
        batch.labels[1][batch.labels[1] != IGNORED],
        torch.tensor([label for label in long.labels if label != IGNORED]),
    )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_batches_say_which_tokens_are_image_tokens(family: str) -> None:
    assembly = build_family(family)
    row = encode_conversation(TALK, assembly, max_tokens=500)
    images = [Image.new("RGB", (56, 56)), Image.new("RGB", (112, 56))]
    batch = collate([row, row], images, assembly)
    is_image = batch.inputs["input_ids"] == assembly.image_token_id
    assert is_image.sum(dim=1).tolist() == [4, 8]
    assert torch.equal(batch.inputs["mm_token_type_ids"].bool(), is_image)
