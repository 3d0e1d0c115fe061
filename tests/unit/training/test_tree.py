from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.errors import ConfigError, PermanentError
from tests.unit.training.families import FAMILIES, build_family
from tests.unit.training.toys import answer_loss, draw_picture, make_config
from training import attention
from training.attention import Forest, attend, use_tree_attention
from training.collate import IGNORED, Batch, encode_conversation
from training.config import Optimiser
from training.losses import token_losses
from training.model import Assembly
from training.parity import check_parity
from training.tree import (
    Tree,
    collate_plain,
    collate_trees,
    describe_layout,
    uses_trees,
    why_plain,
)

TALKS = (
    (
        ("Is this image real or fake?", "The image is fake."),
        ("What do you see?", "Every second column is brighter. " * 3),
        ("Is it fake?", "It is.", "Why?", "Every second column is brighter."),
    ),
    (("So is it real or fake?", "It is fake."),),
    (("Is this image real?", "It is."), ("Is this image fake?", "The image is real.")),
)
SIZES = ((56, 56), (112, 56), (84, 112))
SHAPES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 20), min_size=1, max_size=5)),
    min_size=1,
    max_size=4,
)


def encode_all(assembly: Assembly, *, talks: Sequence[Any] = TALKS) -> list[Tree]:
    return [
        Tree(
            draw_picture(None, seed).resize(size),
            [
                encode_conversation(_messages(texts), assembly, max_tokens=500, target="fake")
                for texts in own
            ],
        )
        for seed, (own, size) in enumerate(zip(talks, SIZES, strict=False))
    ]


def _messages(texts: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[turn % 2], "content": text}
        for turn, text in enumerate(texts)
    ]


def plant_assembly(family: str) -> Assembly:
    assembly = build_family(family)
    use_tree_attention(assembly.model)
    return assembly


def dense_mask(prefixes: Sequence[int], branches: Sequence[Sequence[int]]) -> Tensor:
    """Who may see whom in the flat row, token by token: the reference, slow and quadratic."""
    owners = [
        (tree, branch)
        for tree, (prefix, lengths) in enumerate(zip(prefixes, branches, strict=True))
        for branch, length in enumerate((prefix, *lengths))
        for _ in range(length)
    ]
    return torch.tensor(
        [
            [
                column <= row and owners[column] in (owners[row], (owners[row][0], 0))
                for column in range(len(owners))
            ]
            for row in range(len(owners))
        ]
    )


@settings(max_examples=40, deadline=None)
@given(shapes=SHAPES)
def test_two_part_attention_equals_the_dense_mask(
    shapes: list[tuple[int, list[int]]],
) -> None:
    prefixes, branches = [prefix for prefix, _ in shapes], [lengths for _, lengths in shapes]
    tokens = sum(prefixes) + sum(map(sum, branches))
    torch.manual_seed(0)
    query, key, value = torch.randn(3, tokens, 2, 8).double().requires_grad_()
    forest = Forest.plant(prefixes, branches)
    fast = attend(query, key, value, forest, scaling=0.3)
    slow = scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (query, key, value)),
        attn_mask=dense_mask(prefixes, branches),
        scale=0.3,
    ).transpose(0, 1)
    torch.testing.assert_close(fast, slow)


def test_work_grows_with_the_branches_and_not_with_their_square() -> None:
    def seen(count: int) -> int:
        forest = Forest.plant([50], [[10] * count])
        return sum(branches.sees.numel() for branches in forest.branches)

    assert seen(40) == 10 * seen(4)


def test_long_and_short_branches_do_not_pad_each_other() -> None:
    forest = Forest.plant([5, 7], [[3, 100], [4, 120, 2]])
    assert [branches.places.shape for branches in forest.branches] == [(1, 2), (2, 4), (2, 120)]


def _gradients(assembly: Assembly, batches: Sequence[Batch]) -> tuple[Tensor, list[Tensor]]:
    assembly.model.zero_grad()
    losses = [token_losses(assembly.model, batch).values for batch in batches]
    torch.cat(losses).sum().backward()
    found = [p.grad.clone() for p in assembly.model.parameters() if p.grad is not None]
    return torch.cat(losses).detach(), found


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_equal_separate_forward_passes(family: str) -> None:
    assembly = plant_assembly(family)
    trees = encode_all(assembly)
    apart = [collate_plain([Tree(t.image, [row])], assembly) for t in trees for row in t.rows]
    losses, gradients = _gradients(assembly, [collate_trees(trees, assembly)])
    expected, expected_gradients = _gradients(assembly, apart)
    torch.testing.assert_close(losses, expected, atol=2e-5, rtol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6 * largest, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_conversations_equal_unpacked_ones(family: str) -> None:
    """Trees with one branch each are packing: many conversations in one row without padding."""
    assembly = plant_assembly(family)
    single = [Tree(t.image, [row]) for t in encode_all(assembly) for row in t.rows]
    packed = token_losses(assembly.model, collate_trees(single, assembly)).values
    unpacked = token_losses(assembly.model, collate_plain(single, assembly)).values
    torch.testing.assert_close(packed, unpacked, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("weight", ["sqrt", "plain"])
@pytest.mark.parametrize("rows", ["equal", "tokens"])
def test_the_layout_does_not_change_the_loss(weight: str, rows: str) -> None:
    assembly = plant_assembly("llava")
    trees = encode_all(assembly)
    optimiser = Optimiser.model_validate(
        {
            "steps": 1, "learning_rate": 1, "branch_weight": weight, "row_weight": rows,
            "target_weight": 3,
        }
    )  # fmt: skip
    one, other = (
        answer_loss(assembly.model, collate(trees, assembly), optimiser).item()
        for collate in (collate_trees, collate_plain)
    )
    assert one == pytest.approx(other, abs=2e-5)


def test_branches_of_an_image_with_many_count_less() -> None:
    assembly = plant_assembly("llava")
    batch = collate_trees(encode_all(assembly), assembly)
    with torch.no_grad():
        losses = token_losses(assembly.model, batch)
    means = torch.stack([losses.values[losses.conversation == n].mean() for n in range(6)])
    weights = torch.tensor([3, 3, 3, 1, 2, 2]) ** -0.5
    sqrt = Optimiser(steps=1, learning_rate=1, row_weight="equal")
    plain = sqrt.model_copy(update={"branch_weight": "plain"})
    assert answer_loss(assembly.model, batch, sqrt).item() == pytest.approx(
        float((means * weights).sum() / weights.sum()), abs=1e-5
    )
    assert answer_loss(assembly.model, batch, plain).item() == pytest.approx(
        float(means.mean()), abs=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_does_not_depend_on_its_siblings(family: str) -> None:
    assembly = plant_assembly(family)
    tree = encode_all(assembly)[0]
    longer = Tree(tree.image, [tree.rows[0], tree.rows[1], tree.rows[1]])

    def first(tree: Tree) -> Tensor:
        losses = token_losses(assembly.model, collate_trees([tree], assembly))
        return losses.values[losses.conversation == 0]

    torch.testing.assert_close(first(tree), first(longer), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_trees_are_those_of_their_rows(family: str) -> None:
    assembly = build_family(family)
    trees = encode_all(assembly)
    batch = collate_trees(trees, assembly)
    learnt = [label for label in batch.labels[0].tolist() if label != IGNORED]
    rows = [row for tree in trees for row in tree.rows]
    assert learnt == [label for row in rows for label in row.labels if label != IGNORED]
    first = (batch.labels[0] != IGNORED) & (batch.conversation[0] < 0)
    assert not first.any()
    plain = collate_plain(trees, assembly)
    assert batch.plain_tokens == plain.plain_tokens == plain.tokens
    assert batch.tokens < plain.tokens


def test_without_a_forest_the_model_attends_as_before() -> None:
    assembly = build_family("qwen2_5_vl")
    batch = collate_plain(encode_all(assembly), assembly)
    before = assembly.model(**batch.inputs).logits
    use_tree_attention(assembly.model)
    assert torch.equal(assembly.model(**batch.inputs).logits, before)
    assert attention.TREE_ATTENTION not in assembly.model.config.to_json_string()


def test_trees_are_refused_by_a_model_that_would_not_see_them() -> None:
    assembly = build_family("llava")
    batch = collate_trees(encode_all(assembly), assembly)
    with pytest.raises(PermanentError, match="does not attend along trees"):
        token_losses(assembly.model, batch)


def test_the_self_test_passes_and_leaves_no_gradient() -> None:
    assembly = plant_assembly("llava")
    check_parity(assembly, encode_all(assembly))
    assert all(parameter.grad is None for parameter in assembly.model.parameters())


def test_the_self_test_refuses_branches_that_see_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assembly = plant_assembly("llava")

    def leaky(query: Tensor, key: Tensor, value: Tensor, _: Forest, *, scaling: float) -> Tensor:
        heads = (x.transpose(0, 1) for x in (query, key, value))
        return scaled_dot_product_attention(*heads, is_causal=True, scale=scaling).transpose(0, 1)

    monkeypatch.setattr(attention, "attend", leaky)
    with pytest.raises(PermanentError, match=r"of this llava model differ .* data\.layout=plain"):
        check_parity(assembly, encode_all(assembly))


def test_conversations_that_differ_before_the_image_are_no_tree() -> None:
    assembly = build_family("qwen2_5_vl")
    tree = encode_all(assembly)[0]
    system = [{"role": "system", "content": "Be brief."}]
    other = encode_conversation(
        [*system, *_messages(("Is this image real?", "It is."))], assembly, max_tokens=500
    )
    with pytest.raises(PermanentError, match="differ before the image ends"):
        collate_trees([Tree(Image.new("RGB", (56, 56)), [tree.rows[0], other])], assembly)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "layers of linear_attention"),
        ({"attention_dropout": 0.1}, "attention has dropout"),
    ],
)
def test_models_without_trees_get_plain_batches(change: dict[str, Any], reason: str) -> None:
    model = build_family("qwen2_5_vl").model
    data = make_config().data
    assert why_plain(model) is None
    assert describe_layout(model, data).startswith("tree batches: up to 2 instructions")
    for name, value in change.items():
        setattr(model.config.get_text_config(), name, value)
    assert reason in describe_layout(model, data)
    assert not uses_trees(model, data)
    with pytest.raises(ConfigError, match=rf"data\.layout: .*{reason}.*write auto"):
        uses_trees(model, data.model_copy(update={"layout": "tree"}))
