"""Checkpoints: a folder appears complete under its name, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from instruct_builder.shards import sha256_of
from training.calibrate import Calibration
from training.collate import encode_prompt
from training.config import Checkpoint
from training.model import CHECKPOINT_MANIFEST, Assembly, load_checkpoint
from training.preprocessing import describe_preprocessing
from training.report import write_atomically
from training.resume import sync, sync_folder
from training.score import Verdict

if TYPE_CHECKING:
    from torch import Tensor

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "pillow")


def save_checkpoint(
    assembly: Assembly,
    checkpoints: Path,
    *,
    step: int,
    facts: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `step-NNNNNN` below `checkpoints`: weights as safetensors, tokenizer, preprocessing.

    Its `checkpoint.json` holds `facts`, the versions of the libraries whose numbers count, and the
    SHA-256 of every file. `weights` are those of `gather_saved`, where several processes hold them.
    Raises ConfigError when the disk does not take it.
    """
    target = checkpoints / f"step-{step:06d}"
    partial = checkpoints / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        assembly.save(partial, weights)
        write_manifest(partial, step, facts, assembly)
        sync_folder(partial)
        shutil.rmtree(target, ignore_errors=True)  # of a step that a killed run had come to
        partial.rename(target)
        sync(checkpoints)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{target}: cannot be written: {reason}; free some space") from None
    return target


def drop_checkpoints(checkpoints: Path, *, keep: int, best: int) -> None:
    """Delete all but the last `keep` checkpoints and that of step `best`."""
    for folder in sorted(checkpoints.glob("step-*"))[:-keep]:
        if folder.name != f"step-{best:06d}":
            shutil.rmtree(folder)


def write_manifest(folder: Path, step: int, facts: Mapping[str, Any], assembly: Assembly) -> None:
    """`checkpoint.json`: `facts`, preprocessing, libraries, and the files that are there."""
    manifest = {
        "step": step,
        **facts,
        "image_processor": type(assembly.image_processor).__name__,
        "preprocessing": describe_preprocessing(assembly),
        "libraries": {name: version(name) for name in LIBRARIES},
        "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    }
    (folder / CHECKPOINT_MANIFEST).write_text(_text_of(manifest), encoding="utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpointed:
    """A checkpoint that is ready to score images as it did when its run was validated."""

    assembly: Assembly
    verdict: Verdict
    calibration: Calibration | None
    """None: the run had no validation images of both classes"""
    digest: str
    """SHA-256 of `checkpoint.json`, which names every file with its own"""
    simulated_generators: tuple[str, ...]
    """programs whose images it learnt as fakes"""


def open_checkpoint(folder: Path) -> Checkpointed:
    """Load a checkpoint saved by a run; ConfigError when it is none, or a file has changed."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ConfigError(f"{folder}: {name} is not the file that was saved; restore it")
    assembly = load_checkpoint(Checkpoint(kind="checkpoint", name=str(folder.resolve())))
    assembly.model.eval()
    scoring = manifest["scoring"]
    verdict = Verdict(
        prompt=encode_prompt(scoring["prompt"], assembly),
        text=scoring["prompt"],
        fake_ids=tuple(scoring["fake_tokens"]),
        real_ids=tuple(scoring["real_tokens"]),
        reduce=scoring["reduce"],
    )
    fitted = manifest.get("calibration")
    calibration = Calibration(**fitted) if fitted else None
    return Checkpointed(
        assembly,
        verdict,
        calibration,
        digest=sha256_of(folder / CHECKPOINT_MANIFEST),
        simulated_generators=tuple(manifest.get("simulated_generators", ())),
    )


def store_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a calibration into the manifest of the checkpoint that it was fitted for."""
    manifest = read_manifest(folder) | {"calibration": asdict(calibration)}
    write_atomically(folder / CHECKPOINT_MANIFEST, _text_of(manifest))


def read_manifest(folder: Path) -> dict[str, Any]:
    """`checkpoint.json`; a ConfigError when there is none."""
    path = folder / CHECKPOINT_MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(
            f"{folder} is no checkpoint of a run: {CHECKPOINT_MANIFEST} is missing or unreadable; "
            "name a folder such as RUN/checkpoints/step-000500"
        ) from None
    return dict(manifest)


def _text_of(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
