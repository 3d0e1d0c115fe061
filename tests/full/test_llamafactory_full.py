"""LLaMA-Factory's own reader, in an environment of its own, reads the export made for it.

It pins older versions of libraries that we share with it; torch and the like are ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from imaging.store import ImageStore
from instruct_builder.export import Format, export
from tests.unit.instruct_builder.exports import as_told, make_set, rows_of

pytestmark = pytest.mark.full

PACKAGES = (
    "llamafactory==0.9.5",
    "transformers==5.6.0",
    "tokenizers==0.22.2",
    "huggingface_hub==1.33.0",
    "datasets==4.0.0",
    "fsspec==2025.3.0",
    "dill==0.3.8",
    "multiprocess==0.70.16",
    "trl==0.24.0",
    "peft==0.18.1",
    "accelerate==1.11.0",
    "omegaconf==2.4.0",
    "httpx==0.28.1",
    "httpcore==1.0.9",
)
"""its pins, as far as its reader needs them"""
ABSENT = ("av", "torchaudio")
"""imported for videos and sounds, of which there are none"""

READER = """
import json, sys
from transformers import Seq2SeqTrainingArguments
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.mm_plugin import BasePlugin
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments, ModelArguments

folder, name = sys.argv[1:]
data = DataArguments(dataset=name, dataset_dir=folder, media_dir=folder + "/images")
model = ModelArguments(model_name_or_path="none")
training = Seq2SeqTrainingArguments(output_dir=folder + "/none", use_cpu=True)
plugin = BasePlugin(image_token=None, video_token=None, audio_token=None)
(attributes,) = get_dataset_list([name], folder)
for row in _load_single_dataset(attributes, model, data, training):
    turns = row["_prompt"] + row["_response"]
    plugin._validate_messages(turns, row["_images"] or [], [], [])
    told = [[turn[name] for turn in turns] for name in ("role", "content")]
    print("row", json.dumps([*told, row["_images"]]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees its packages first and ours after them."""
    folder = tmp_path_factory.mktemp("llamafactory") / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (library,) = folder.glob("lib/python3*/site-packages")
    (library / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    for name in ABSENT:
        (library / f"{name}.py").touch()
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", *PACKAGES]
    subprocess.run(install, check=True, timeout=600)
    return python


def read(python: Path, folder: Path, name: str) -> list[Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "cache")}
    done = subprocess.run(
        [str(python), "-c", READER, str(folder), name],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("row ")]
    return [json.loads(line.removeprefix("row ")) for line in lines]


def test_it_reads_every_row_with_its_image(python: Path, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    shards = make_set(tmp_path / "set", store)
    out = tmp_path / "out"
    export(shards, out, format=Format.SHAREGPT, store=store, with_images=True)
    for split in ("train", "test"):
        found = read(python, out, f"fakeinstruct_{split}")
        wanted = as_told(rows_of(shards), split).values()
        assert len(found) == len(wanted) > 0
        for (roles, texts, images), row in zip(found, wanted, strict=True):
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert texts[0].removeprefix("<image>") == row["texts"][0]
            assert texts[1:] == row["texts"][1:]
            assert images == [str(out / "images" / row["image"])]
