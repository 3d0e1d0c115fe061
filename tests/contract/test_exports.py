"""Every export is read by the library that it is made for, and says there what the set says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.ids import sha256_bytes
from imaging.store import ImageStore
from instruct_builder.export import Format, export
from instruct_builder.shards import ShardSet
from tests.unit.instruct_builder.exports import make_set, rows_of

Rows = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    make_set(folder / "set", ImageStore(folder / "images"))
    return folder


@pytest.fixture(scope="module")
def rows(place: Path) -> Rows:
    return rows_of(ShardSet.open(place / "set"))


def write(place: Path, format: Format, **options: Any) -> Path:
    out = place / format.value
    store = ImageStore(place / "images")
    export(ShardSet.open(place / "set"), out, format=format, store=store, **options)
    return out


def load(kind: str, files: dict[str, str], cache: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="needs the extra `dev`")
    return datasets.load_dataset(kind, data_files=files, cache_dir=str(cache))


def of_split(rows: Rows, split: str) -> Rows:
    return {name: row for name, row in rows.items() if row["split"] == split}


def pixels(path: Path) -> list[Any]:
    return list(Image.open(path).convert("RGB").get_flattened_data())


def test_datasets_decodes_the_images_of_trls_parquet(
    place: Path, rows: Rows, tmp_path: Path
) -> None:
    out = write(place, Format.TRL)
    files = {split: str(out / f"{split}.parquet") for split in ("train", "test")}
    loaded = load("parquet", files, tmp_path)
    for split in files:
        wanted = of_split(rows, split)
        assert loaded[split]["id"] == list(wanted)
        for record in loaded[split]:
            row = wanted[record["id"]]
            assert record["messages"] == row["messages"]
            (image,) = record["images"]
            stored = place / "images" / row["image_path"]
            assert list(image.convert("RGB").get_flattened_data()) == pixels(stored)


def test_datasets_finds_the_images_of_trls_json_lines(
    place: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra `dev`")
    out = write(place, Format.TRL_JSONL, with_images=True)
    loaded = load("json", {"train": str(out / "train.jsonl")}, tmp_path)["train"]
    monkeypatch.chdir(out / "images")
    decoded = loaded.cast_column("images", datasets.List(datasets.Image()))
    wanted = of_split(rows, "train")
    assert decoded["id"] == list(wanted)
    for record in decoded:
        row = wanted[record["id"]]
        assert record["messages"] == row["messages"]
        assert [image.size for image in record["images"]] == [(24, 16)]


def test_trl_collates_rows_with_one_image_before_the_first_question(
    place: Path, rows: Rows, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="needs the extra `dev`")
    from transformers import LlavaProcessor
    from trl.data_utils import prepare_multimodal_messages
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from tests.unit.training.families import build_family

    out = write(place, Format.TRL)
    loaded = load("parquet", {"train": str(out / "train.parquet")}, tmp_path)["train"]
    for record in loaded:
        messages = prepare_multimodal_messages(record["messages"], images=record["images"])
        kinds = [[part["type"] for part in message["content"]] for message in messages]
        assert kinds == [["image", "text"], *[["text"]] * (len(kinds) - 1)]
    family = build_family("llava")
    processor = LlavaProcessor(
        image_processor=family.image_processor,
        tokenizer=family.tokenizer,
        chat_template=family.chat_template,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    dialogue = next(n for n, record in enumerate(loaded) if len(record["messages"]) > 2)
    batch = DataCollatorForVisionLanguageModeling(processor)([loaded[dialogue], loaded[0]])
    assert batch["pixel_values"].shape[0] == 2
    tokens = (batch["input_ids"] == family.image_token_id).sum(dim=1).tolist()
    assert tokens == [16, 16], "56 pixels in patches of 14"


def test_webdataset_reads_samples_with_decoded_images(place: Path, rows: Rows) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs the extra `dev`")
    out = write(place, Format.WEBDATASET)
    seen: list[str] = []
    for split in ("train", "test"):
        address = str(out / f"{split}-000000.tar")
        for sample in webdataset.WebDataset(address, shardshuffle=False).decode("pil"):
            image = sample.get("jpg") or sample.get("png")
            assert image.size == (24, 16)
            assert sample["json"]["image_id"] == sample["__key__"]
            for instruction in sample["json"]["instructions"]:
                row = rows[instruction["instruction_id"]]
                assert (instruction["messages"], split) == (row["messages"], row["split"])
                seen.append(row["instruction_id"])
    assert seen == list(rows)


def test_webdataset_gives_the_bytes_of_the_files(place: Path, rows: Rows) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs the extra `dev`")
    out = write(place, Format.WEBDATASET)
    hashes = {row["image_id"]: row["image_sha256"] for row in rows.values()}
    for sample in webdataset.WebDataset(str(out / "train-000000.tar"), shardshuffle=False):
        data = sample.get("jpg") or sample["png"]
        assert sha256_bytes(data) == hashes[sample["__key__"]]
        assert Image.open(io.BytesIO(data)).size == (24, 16)


def test_datasets_reads_llavas_json_as_records(place: Path, rows: Rows, tmp_path: Path) -> None:
    out = write(place, Format.LLAVA)
    loaded = load("json", {"train": str(out / "train.json")}, tmp_path)["train"]
    wanted = of_split(rows, "train")
    assert loaded["id"] == list(wanted)
    assert loaded["image"] == [row["image_path"] for row in wanted.values()]
    turns = [len(talk) for talk in loaded["conversations"]]
    assert turns == [len(row["messages"]) for row in wanted.values()]
