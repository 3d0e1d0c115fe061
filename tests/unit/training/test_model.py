from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import ConfigError
from tests.unit.training.families import FAMILIES, build_family, save_family
from tests.unit.training.toys import draw_picture, make_config
from training.checkpoint import save_checkpoint
from training.collate import collate
from training.config import Checkpoint, Language
from training.inputs import Inputs
from training.model import Assembly, load_checkpoint, train_tokenizer, whiten_patches
from training.run import prepare_model
from training.score import resolve_verdict, score_images

TALK = [
    {"role": "user", "content": "Is this image real or fake?"},
    {"role": "assistant", "content": "The image is fake."},
]


def find(name: str) -> Checkpoint:
    return Checkpoint(kind="checkpoint", name=name)


def test_the_tiny_model_is_a_stock_llava_with_its_own_tokenizer(assembly: Assembly) -> None:
    assert assembly.model.config.model_type == "llava"
    assert assembly.render(TALK[:1], ask=True) == (
        "<s>USER: <image> Is this image real or fake?\nASSISTANT:"
    )
    assert assembly.render(TALK).endswith("ASSISTANT: The image is fake.</s>")
    parts = {assembly.architecture.part_of(n) for n, _ in assembly.model.named_parameters()}
    assert parts == {"tower", "projector", "language"}


def test_a_seed_decides_the_tiny_model(inputs: Inputs) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        return list(prepare_model(make_config(seed=seed), inputs)[0].model.parameters())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_text_has_tokens_and_comes_back() -> None:
    settings = Language(vocabulary=300, hidden_size=8, layers=1, heads=1)
    tokenizer = train_tokenizer([TALK], settings)
    text = "Straße ✓ 例 \x00 never seen"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_images_are_cropped_and_never_resampled(assembly: Assembly) -> None:
    small = draw_picture(None, 1)
    large = Image.new("RGB", (48, 48))
    large.paste(small, (8, 8))
    pixels = assembly.process_images([small, large])["pixel_values"]
    assert pixels.shape == (2, 3, 32, 32)
    assert torch.equal(pixels[0], pixels[1])


def test_whitening_gives_fine_and_coarse_structure_the_same_gain(assembly: Assembly) -> None:
    torch.manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.randn(200, 3, 8, 8), scale_factor=4)
    pixels = coarse + 0.01 * torch.randn(200, 3, 32, 32)
    embed = assembly.model.model.vision_tower.embeddings.patch_embedding
    checks = 0.01 * (1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2.0))

    def response_to_checks() -> float:
        change = embed(pixels + checks) - embed(pixels)
        return (change.std() / embed(pixels).std()).item()

    before = response_to_checks()
    whiten_patches(assembly.model, pixels, floor=0.001)
    assert embed(pixels).std().item() == pytest.approx(1, rel=0.1)
    assert response_to_checks() > 5 * before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_folder_loads_and_saves_without_a_change(family: str, tmp_path: Path) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    prefix = " The image is" if family == "llava" else "The image is"
    scoring = make_config(scoring__answer_prefix=prefix).scoring
    images = [draw_picture(None, seed).resize((70, 60)) for seed in range(2)]
    before = score_images(images, resolve_verdict(scoring, assembly), assembly)
    saved = save_checkpoint(assembly, tmp_path, step=3, facts={})
    again = load_checkpoint(find(str(saved)))
    again.model.eval()
    assert score_images(images, resolve_verdict(scoring, again), again) == before
    assert again.chat_template == assembly.chat_template


def test_a_tiny_model_loads_through_the_path_of_published_checkpoints(
    assembly: Assembly, tmp_path: Path
) -> None:
    scoring = make_config().scoring
    images = [draw_picture(None, seed) for seed in range(2)]
    assembly.model.eval()
    before = score_images(images, resolve_verdict(scoring, assembly), assembly)
    loaded = load_checkpoint(find(str(save_checkpoint(assembly, tmp_path, step=1, facts={}))))
    loaded.model.eval()
    assert score_images(images, resolve_verdict(scoring, loaded), loaded) == before


def test_image_processors_need_no_torchvision() -> None:
    for family, name in (
        ("llava", "CLIPImageProcessorPil"),
        ("qwen2_5_vl", "Qwen2VLImageProcessorPil"),
        ("llava_onevision", "LlavaOnevisionImageProcessorPil"),
        ("internvl", "GotOcr2ImageProcessorPil"),
    ):
        assert type(build_family(family).image_processor).__name__ == name


def test_qwen_gets_its_image_positions() -> None:
    """Without `mm_token_type_ids` Qwen falls back to 1-D positions without a word."""
    assembly = build_family("qwen2_5_vl")
    assembly.model.eval()
    verdict = resolve_verdict(make_config(scoring__answer_prefix="The image is").scoring, assembly)
    batch = collate([verdict.prompt], [draw_picture(None, 1).resize((112, 56))], assembly)
    with torch.no_grad():
        right = assembly.model(**batch.inputs).logits
        del batch.inputs["mm_token_type_ids"]
        wrong = assembly.model(**batch.inputs).logits
    assert not torch.allclose(right, wrong, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", r"\./nowhere is no checkpoint folder"),
        ("/nowhere/at/all", "is no checkpoint folder"),
        ("nobody/no-such-model", "nobody/no-such-model cannot be loaded: .*name a folder"),
    ],
)
def test_a_name_that_cannot_be_fetched_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_checkpoint(find(name))
    assert "\n" not in str(caught.value)


def test_an_unsupported_type_names_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="of type 'bert'; supported: llava, qwen2_5_vl"):
        load_checkpoint(find(str(tmp_path)))


def test_a_checkpoint_without_chat_template_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(save_family("llava"), tmp_path / "copy"))
    (folder / "chat_template.json").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        load_checkpoint(find(str(folder)))


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    """A checkpoint that brings its own modelling code is refused, never imported."""
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}'
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_checkpoint(find(str(tmp_path)))
    assert not (tmp_path / "ran").exists()
