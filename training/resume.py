"""What an interrupted run goes on from: one folder at a time, complete under its name or not there.

`step-NNNNNN` holds the weights that are being trained as safetensors, and as `state.pt` the state
of optimiser and random numbers. Where the data stood needs no more than the number of steps and the
settings: the plan of the visits follows from them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from instruct_builder.shards import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, STATE, FILES = "weights.safetensors", "state.pt", "files.json"


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """State of a run after a step."""

    weights: Mapping[str, Tensor]
    """parameters that are trained, by name"""
    state: Mapping[str, Any]
    """tensors, numbers, strings, and lists and dictionaries of them"""


def save_state(folder: Path, saved: Saved, *, step: int) -> Path:
    """Write `step-NNNNNN` below `folder`, then delete what it replaces.

    A crash leaves the old state or both. ConfigError when the disk does not take it.
    """
    import torch
    from safetensors.torch import save_file

    target = folder / f"step-{step:06d}"
    partial = folder / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(
            {name: each.contiguous() for name, each in saved.weights.items()}, partial / WEIGHTS
        )
        torch.save(dict(saved.state), partial / STATE)
        digests = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        (partial / FILES).write_text(json.dumps(digests), encoding="utf-8")
        sync_folder(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        sync(folder)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{target}: cannot be written: {reason}; free some space") from None
    for old in folder.iterdir():
        if old != target:
            shutil.rmtree(old)
    return target


def load_state(folder: Path) -> Saved | None:
    """The newest state below `folder`; None when there is none.

    ConfigError when a file is not the one that was saved. Nothing in the files is run.
    """
    import torch
    from safetensors.torch import load_file

    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    newest = found[-1]
    try:
        digests = json.loads((newest / FILES).read_bytes())
        changed = [name for name, digest in digests.items() if sha256_of(newest / name) != digest]
    except (OSError, ValueError):
        changed = [FILES]
    if changed:
        raise ConfigError(
            f"{newest}: {changed[0]} is not the file that was saved; delete {folder} to train "
            "from the start"
        )
    try:
        state = torch.load(newest / STATE, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ConfigError(f"{newest}: {STATE} cannot be read; delete {folder}") from None
    return Saved(load_file(newest / WEIGHTS), state)


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder and its files before anything refers to them."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
