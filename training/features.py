"""Vision features of a frozen tower: computed once for each image, and kept.

What is kept is what the trained part of a model begins with: image tokens as the language model
takes them where the projector is frozen too, else what the projector takes. Each image is computed
by itself, so that its features do not depend on which others are in a step, or which run kept them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast
from uuid import uuid4

from core.errors import ConfigError
from core.ids import sha256_text
from training.adapters import digest_of
from training.config import Augmentation, TrainingConfig
from training.data import ImageFolder, ImageRef
from training.preprocessing import describe_preprocessing
from training.processes import count_here, divide_again, make_whole

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from training.model import Assembly

DESCRIPTION = "features.json"
"""beside the features: what they were computed with"""
SAMPLED = 16
"""images by whose sizes the weight of all is estimated"""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a tower made of one image."""

    values: tuple[Tensor, ...]
    """(tokens, width) for the language model's input, and for each layer that takes more of them;
    or (tiles, tokens, width) for the projector"""
    sizes: Mapping[str, Tensor]
    """what the model takes of the image besides its pixels"""
    tokens: int
    """in the text"""

    @property
    def bytes(self) -> int:
        return sum(value.nbytes for value in self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One image of a step: its features, or what they are computed from."""

    ref: ImageRef
    tokens: int
    sizes: Mapping[str, Tensor]
    features: Features | None
    pixels: Tensor | None


Picture: TypeAlias = "Image.Image | Sight"


class Store(Protocol):
    """Where features are kept."""

    def find(self, ref: ImageRef) -> Features | None:
        """Those of an image."""

    def keep(self, ref: ImageRef, features: Features) -> None:
        """Keep those of an image."""

    def count(self, refs: Sequence[ImageRef]) -> int:
        """Of how many of these images there are features."""

    def check_room(self, size: int) -> None:
        """ConfigError where so many more bytes cannot be kept."""


class InMemory:
    """Features kept as long as the run lasts; each of its processes comes to have them all."""

    def __init__(self) -> None:
        self._kept: dict[str, Features] = {}

    def find(self, ref: ImageRef) -> Features | None:
        return self._kept.get(ref.sha256)

    def keep(self, ref: ImageRef, features: Features) -> None:
        self._kept[ref.sha256] = features

    def count(self, refs: Sequence[ImageRef]) -> int:
        return sum(ref.sha256 in self._kept for ref in refs)

    def check_room(self, size: int) -> None:
        size *= count_here()
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > there:
            raise ConfigError(
                f"features: {amount(size)} would not fit into the {amount(there)} of memory of "
                "this machine; name a features.folder, or write features=null"
            )


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Features in a folder, a file for each image; other runs find them again."""

    folder: Path
    """of this tower and preprocessing"""

    def find(self, ref: ImageRef) -> Features | None:
        from safetensors import safe_open

        if not self._path(ref).is_file():
            return None
        with safe_open(self._path(ref), framework="pt") as file:
            facts = file.metadata()
            if facts["sha256"] != ref.sha256:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        number = sum(name.isdigit() for name in tensors)
        return Features(
            tuple(tensors.pop(str(place)) for place in range(number)),
            tensors,
            int(facts["tokens"]),
        )

    def keep(self, ref: ImageRef, features: Features) -> None:
        from safetensors.torch import save_file

        path = self._path(ref)
        partial = path.with_suffix(f".{uuid4().hex}.partial")  # others may write the same
        tensors = {str(place): value for place, value in enumerate(features.values)}
        facts = {"sha256": ref.sha256, "tokens": str(features.tokens)}
        with self._writing():
            save_file({**tensors, **features.sizes}, partial, metadata=facts)
            partial.rename(path)

    def count(self, refs: Sequence[ImageRef]) -> int:
        there = {path.name for path in self.folder.glob("*.safetensors")}
        return sum(self._path(ref).name in there for ref in refs)

    def check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise ConfigError(
                f"features: {amount(size)} would not fit into the {amount(free)} that are free "
                f"below {self.folder.parent}; name another features.folder, or write features=null"
            )

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write down what the features are computed with."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{uuid4().hex}.partial"
            partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            partial.rename(self.folder / DESCRIPTION)

    def _path(self, ref: ImageRef) -> Path:
        return self.folder / f"{ref.image_id}.safetensors"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"features.folder: {self.folder}: cannot be written: {reason}"
            ) from None


class Tower:
    """The frozen part of a model, as the loop asks it for features."""

    def __init__(self, assembly: Assembly, config: TrainingConfig) -> None:
        """ConfigError when something of it is trained, or images change from visit to visit."""
        self._assembly = assembly
        self._autocast = config.autocast == "bfloat16"
        trained = _trained_parts(assembly)
        if "tower" in trained:
            raise ConfigError(
                "features: the vision tower is trained, so its features change with every step; "
                "write optimiser.part_rates.tower=0, or features=null"
            )
        if config.data.augment != Augmentation():
            raise ConfigError(
                "features: data.augment changes the images from visit to visit; leave it out, or "
                "write features=null"
            )
        self._projector = self._find_projector() if "projector" in trained else None

    def _find_projector(self) -> Any:
        name = self._assembly.architecture.projector
        if name is None:
            kind = self._assembly.model.config.model_type
            raise ConfigError(
                f"features: with a {kind} model they are kept behind the projector, which is "
                "trained; write optimiser.part_rates.projector=0, or features=null"
            )
        return getattr(self._assembly.model.model, name)

    def describe(self) -> dict[str, Any]:
        """All that the features of an image depend on besides the image."""
        preprocessing = describe_preprocessing(self._assembly)
        parts = {"tower"} if self._projector is not None else {"tower", "projector"}
        part_of = self._assembly.architecture.part_of
        weights = self._assembly.model.named_parameters()
        return {
            "preprocessing": {key: preprocessing[key] for key in ("backend", "settings", "probe")},
            "parts": sorted(parts),
            "weights": digest_of((n, value) for n, value in weights if part_of(n) in parts),
            "autocast": self._autocast,
        }

    def bytes_of_token(self) -> int:
        """What is kept of each image token weighs, by the shape of a model, weights or none."""
        model = self._assembly.model
        if self._projector is not None:
            first = next(each for each in self._projector.parameters() if each.ndim == 2)
            return int(first.shape[1] * model.dtype.itemsize)
        layers = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))
        width = 2 if self._autocast else model.dtype.itemsize
        return int(layers * model.config.get_text_config().hidden_size * width)

    def look(self, sight: Sight) -> Features:
        """The features of an image, computed."""
        import torch

        model = self._assembly.model
        was_training = model.training
        model.eval()
        assert sight.pixels is not None
        taken = {"pixel_values": sight.pixels, **sight.sizes}
        inputs = {name: value.to(model.device) for name, value in taken.items()}
        with (
            torch.no_grad(),
            torch.autocast(
                model.device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False
            ),
        ):
            values = self._values(inputs)
        model.train(was_training)
        return Features(tuple(v.cpu() for v in values), sight.sizes, sight.tokens)

    def _values(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        import torch

        find = self._assembly.model.model.get_image_features
        if self._projector is None:
            output = find(**inputs, return_dict=True)
            layers = getattr(output, "deepstack_features", None) or []
            return [torch.cat(list(each)) for each in (output.pooler_output, *layers)]
        seen: list[Tensor] = []
        hook = self._projector.register_forward_pre_hook(
            lambda _, taken: seen.append(taken[0]), prepend=True
        )  # before a projector that is trained in float32 has them take twice the room
        find(**inputs, return_dict=True)
        hook.remove()
        return seen

    def outputs(self, features: Sequence[Features]) -> Any:
        """What the model takes in the place of pixels."""
        import torch

        device = self._assembly.model.device
        first, *layers = (
            [value.to(device) for value in values]
            for values in zip(*(each.values for each in features), strict=True)
        )
        pooled: Any = first
        if self._projector is not None:
            pooled = list(self._projector(torch.cat(first)))
        if self._assembly.architecture.takes_one_tensor:
            pooled = torch.cat(pooled)
        return SimpleNamespace(pooler_output=pooled, deepstack_features=layers)


class FeatureCache:
    """Vision features on their way from a store to the steps of a run.

    Of several processes each computes those of its images, and keeps them.
    """

    def __init__(self, assembly: Assembly, config: TrainingConfig, images: ImageFolder) -> None:
        """ConfigError where features cannot be kept with these settings."""
        assert config.features is not None
        self._assembly, self._images = assembly, images
        self._tower = Tower(assembly, config)
        self._store: Store = InMemory()
        if config.features.folder is not None:
            description = self._tower.describe()
            key = sha256_text(json.dumps(description, sort_keys=True))[:20]
            on_disk = OnDisk(Path(config.features.folder) / key)
            on_disk.describe(description)
            self._store = on_disk

    def plan(self, refs: Sequence[ImageRef]) -> str:
        """One line about what the features of some images will weigh; every process has to ask.

        ConfigError when there is no room for them.
        """
        step = -(-len(refs) // SAMPLED)
        sights = [self.read(ref) for ref in refs[::step]]
        make_whole(self._assembly.model)
        features = sights[0].features or self._tower.look(sights[0])
        divide_again(self._assembly.model)
        in_token = features.bytes / features.tokens
        each = in_token * sum(sight.tokens for sight in sights) / len(sights)
        kept = self._store.count(refs)
        self._store.check_room(round(each * (len(refs) - kept)))
        where = f"in {self._store.folder}" if isinstance(self._store, OnDisk) else "in memory"
        return (
            f"vision features of {len(refs)} images: about {amount(each)} each, "
            f"{amount(each * len(refs))} {where}, {kept} of them kept before"
        )

    def read(self, ref: ImageRef) -> Sight:
        """The kept features of an image, or its pixels."""
        features = self._store.find(ref)
        if features is not None:
            return Sight(ref, features.tokens, features.sizes, features, None)
        taken, (tokens,) = self._assembly.prepare_images([self._images.read(ref)])
        pixels = taken.pop("pixel_values")
        return Sight(ref, tokens, taken, None, pixels)

    def complete(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs with features in the place of sights; those that are new are kept.

        The model has to learn from them next; every process has to ask.
        """
        make_whole(self._assembly.model)
        sights: Sequence[Sight] = inputs["sights"]
        found: dict[str, Features] = {}
        for sight in sights:
            if sight.ref.sha256 not in found:
                found[sight.ref.sha256] = sight.features or self._compute(sight)
        outputs = self._tower.outputs([found[sight.ref.sha256] for sight in sights])
        others = {name: value for name, value in inputs.items() if name != "sights"}
        return {**others, "mm_encoder_outputs": {"image": outputs}}

    def _compute(self, sight: Sight) -> Features:
        features = self._store.find(sight.ref)  # since it was read, the step before may have come
        if features is None:
            features = self._tower.look(sight)
            self._store.keep(sight.ref, features)
        return features


def prepare(pictures: Sequence[Picture], assembly: Assembly) -> tuple[dict[str, Any], list[int]]:
    """What the model takes of some images, or sights of all; and the tokens that each takes."""
    sights = [picture for picture in pictures if isinstance(picture, Sight)]
    if not sights:
        return assembly.prepare_images(cast("Sequence[Image.Image]", pictures))
    return _combine(sights), [sight.tokens for sight in sights]


def _combine(sights: Sequence[Sight]) -> dict[str, Any]:
    import torch

    names = sights[0].sizes
    sizes = {name: torch.cat([sight.sizes[name] for sight in sights]) for name in names}
    return {**sizes, "sights": tuple(sights)}


def count_hits(inputs: Mapping[str, Any]) -> int:
    """Images of a batch whose features were kept before it was read."""
    sights: Sequence[Sight] = inputs.get("sights", ())
    return len({sight.ref.sha256 for sight in sights if sight.features is not None})


def count_seen(inputs: Mapping[str, Any], image_token: int) -> int:
    """Image tokens of a batch that its tower has to make."""
    if "sights" not in inputs:
        return int((inputs["input_ids"] == image_token).sum())
    new = {s.ref.sha256: s.tokens for s in inputs["sights"] if s.features is None}
    return sum(new.values())


def forget(folder: Path, image_ids: Collection[str]) -> int:
    """Delete all features of withdrawn images; how many there were."""
    found = [path for name in image_ids for path in folder.glob(f"*/{name}.safetensors")]
    for path in found:
        path.unlink()
    return len(found)


def _trained_parts(assembly: Assembly) -> set[str]:
    return {
        assembly.architecture.part_of(name)
        for name, parameter in assembly.model.named_parameters()
        if parameter.requires_grad
    }


def amount(size: float) -> str:
    """Bytes as they are told."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
