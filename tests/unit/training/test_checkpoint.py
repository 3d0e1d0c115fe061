from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from instruct_builder.shards import sha256_of
from training.checkpoint import save_checkpoint
from training.model import Assembly


def test_a_checkpoint_lists_its_files_with_checksums(assembly: Assembly, tmp_path: Path) -> None:
    folder = save_checkpoint(assembly, tmp_path, step=12, facts={"title": "toy"})
    assert folder.name == "step-000012"
    manifest = json.loads((folder / "checkpoint.json").read_text())
    assert manifest["step"] == 12
    assert manifest["title"] == "toy"
    assert manifest["image_processor"] == "CLIPImageProcessorPil"
    assert "model.safetensors" in manifest["files"]
    found = {path.name for path in folder.iterdir()} - {"checkpoint.json"}
    assert found == set(manifest["files"])
    assert all(sha256_of(folder / name) == digest for name, digest in manifest["files"].items())
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


class TornDisk:
    """An assembly whose disk is full after the first file."""

    image_processor = None

    def save(self, folder: Path, _weights: object) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_checkpoint_under_its_name(tmp_path: Path) -> None:
    torn: Any = TornDisk()
    with pytest.raises(ConfigError, match="step-000001: cannot be written: No space left"):
        save_checkpoint(torn, tmp_path, step=1, facts={})
    assert not (tmp_path / "step-000001").exists()
