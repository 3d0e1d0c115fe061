"""Checkpoints: a folder appears complete under its name, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from instruct_builder.shards import sha256_of
from training.model import Assembly

CHECKPOINT_MANIFEST = "checkpoint.json"
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "pillow")


def save_checkpoint(
    assembly: Assembly, checkpoints: Path, *, step: int, facts: Mapping[str, Any]
) -> Path:
    """Write `step-NNNNNN` below `checkpoints`: weights as safetensors, tokenizer, preprocessing.

    Its `checkpoint.json` holds `facts`, the versions of the libraries whose numbers count, and the
    SHA-256 of every file. Raises ConfigError when the disk does not take it.
    """
    target = checkpoints / f"step-{step:06d}"
    partial = checkpoints / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        assembly.save(partial)
        _write_manifest(partial, step, facts, assembly)
        partial.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{target}: cannot be written: {reason}; free some space") from None
    return target


def _write_manifest(folder: Path, step: int, facts: Mapping[str, Any], assembly: Assembly) -> None:
    manifest = {
        "step": step,
        **facts,
        "image_processor": type(assembly.image_processor).__name__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / CHECKPOINT_MANIFEST).write_text(text, encoding="utf-8")
