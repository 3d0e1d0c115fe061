"""What turns an image into a model's input, written down, so that scoring does as training did.

Backends (Pillow, torchvision) and versions of them resample differently, by more than the traces
that a model looks for. Settings must be the same; libraries may be others as long as they turn a
drawn picture into the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import ConfigError
from training.adapters import digest_of

if TYPE_CHECKING:
    from PIL import Image

    from training.model import Assembly

LIBRARIES = ("pillow", "numpy", "torchvision", "transformers")
PROBE_SIZE: Final = (333, 211)
"""odd, and larger and smaller than a patch grid in turn: every resampling shows"""


def describe_preprocessing(assembly: Assembly) -> dict[str, Any]:
    """Backend, settings (sizes, resampling, normalisation), versions, and what a probe becomes."""
    processor = assembly.image_processor
    return {
        "backend": "pil" if type(processor).__name__.endswith("Pil") else "torchvision",
        "image_processor": type(processor).__name__,
        "settings": _plain({**processor.to_dict(), **assembly.architecture.processing}),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "probe": digest_of(assembly.process_images([draw_probe()]).items()),
    }


def check_preprocessing(assembly: Assembly, recorded: Mapping[str, Any], where: str) -> None:
    """ConfigError when `assembly` prepares images otherwise than `recorded` says."""
    found = describe_preprocessing(assembly)
    for before, now, name in _differences(recorded, found):
        raise ConfigError(
            f"{where}: its images were prepared with {name} {before}, here it is {now}; "
            "scores would not be comparable: restore that, or train again"
        )
    if found["probe"] != recorded["probe"]:
        raise ConfigError(
            f"{where}: this machine's libraries prepare images differently ({_list(found)}, it was "
            f"{_list(recorded)}); install those versions"
        )


def _differences(
    recorded: Mapping[str, Any], found: Mapping[str, Any]
) -> list[tuple[object, object, str]]:
    """Before, now and name of each setting that differs."""
    before = {"backend": recorded["backend"], **recorded["settings"]}
    now = {"backend": found["backend"], **found["settings"]}
    names = [*before, *(name for name in now if name not in before)]
    return [
        (before.get(name), now.get(name), name)
        for name in names
        if before.get(name) != now.get(name)
    ]


def draw_probe() -> Image.Image:
    """A picture with edges, slopes and noise, the same on every machine."""
    from PIL import Image

    width, height = PROBE_SIZE
    y, x = np.mgrid[:height, :width]
    noise = (x * 2_654_435_761 ^ y * 2_246_822_519) % 64
    channels = [(x + noise) % 256, (y * 2 + noise) % 256, ((x // 3 + y // 5) % 2) * 190 + noise]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON; what is not set is left out."""
    from PIL.Image import Resampling

    named = {key: settings[key] for key in sorted(settings) if settings[key] is not None}
    if "resample" in named:
        named["resample"] = Resampling(named["resample"]).name
    return dict(json.loads(json.dumps(named, default=dict)))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _list(description: Mapping[str, Any]) -> str:
    libraries = description["libraries"].items()
    return ", ".join(f"{name} {number}" for name, number in libraries if number is not None)
