"""Which parameters are trained: parts at rates of their own, layers by name, low-rank adapters.

Adapters follow LoRA (Hu et al., arXiv 2106.09685): a frozen linear layer W gets (alpha / rank) B A
beside it, B starting at zero. They sit in the model itself, under the names of the peft library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigError, PermanentError
from training.config import Checkpoint, Lora, Optimiser, Part, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from training.architectures import Architecture
    from training.model import Assembly

ADAPTERS, TRAINED, BASE = "adapter_model.safetensors", "trained.safetensors", "base.json"
SAMPLED: Final = 4096
"""entries of each weight of a base that its digest looks at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The checkpoint that adapters sit on; it is not copied into theirs."""

    name: str
    """a folder, or a name on the Hugging Face hub"""
    dtype: str
    quantised: bool
    digest: str
    """SHA-256 over entries of every weight that was loaded in floating point"""


def require_quantisation() -> None:
    """ConfigError where 4-bit weights (QLoRA, Dettmers et al., arXiv 2305.14314) cannot be had."""
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "lora.quantised: the package bitsandbytes is not installed; "
            "install it (`pip install bitsandbytes`) or write lora.quantised=false"
        )


def add_adapters(assembly: Assembly, lora: Lora, checkpoint: Checkpoint) -> Assembly:
    """The assembly with adapters in its model, which still answers as before.

    One that has adapters already, as it comes from a run, goes on with them. ConfigError when no
    layer has a name that `lora.layers` gives.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if assembly.base is not None:
        return assembly
    model = assembly.model
    base = Base(
        name=_resolved(checkpoint.name),
        dtype=checkpoint.dtype,
        quantised=lora.quantised,
        digest=_digest_of_base(model),
    )
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=find_layers(model, assembly.architecture, lora),
        base_model_name_or_path=base.name,
    )
    inject_adapter_in_model(settings, model, low_cpu_mem_usage=model.device.type == "meta")
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()
    return replace(assembly, base=base)


def _resolved(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def find_layers(model: Any, architecture: Architecture, lora: Lora) -> list[str]:
    """Full names of the linear layers that get adapters, so that no other can be hit."""
    import torch

    inside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and architecture.part_of(f"{name}.") in lora.parts
    ]
    chosen = [name for name in inside if name.rpartition(".")[2] in lora.layers]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in inside}))
        raise ConfigError(
            f"lora.layers: no linear layer of {' or '.join(lora.parts)} is called "
            f"{' or '.join(lora.layers)}; there are {known}"
        )
    return chosen


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return ".lora_" in name


def tune(assembly: Assembly, config: TrainingConfig) -> None:
    """Let gradients into what the settings train, and hold that in float32.

    ConfigError when nothing is left, or when the tower of a published checkpoint would be trained
    without the settings asking for it.
    """
    choose_trained(assembly, config.optimiser)
    _check_tower(assembly, config)
    _hold_in_float32(assembly.model, assembly.architecture, _trained_parts(assembly))


def choose_trained(assembly: Assembly, settings: Optimiser) -> None:
    """Set `requires_grad` of every parameter; in a part with adapters, only these are trained."""
    model, part_of = assembly.model, assembly.architecture.part_of
    names = [name for name, _ in model.named_parameters()]
    for pattern in settings.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"optimiser.freeze: no parameter is called {pattern}; one of them is {names[0]}"
            )
    adapted = {part_of(name) for name in names if is_adapter(name)}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        named = any(fnmatchcase(name, pattern) for pattern in settings.freeze)
        frozen = settings.rate_of(part) == 0 or named
        parameter.requires_grad_(not frozen and (part not in adapted or is_adapter(name)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "optimiser.part_rates and optimiser.freeze freeze every part; nothing is left to train"
        )


def _check_tower(assembly: Assembly, config: TrainingConfig) -> None:
    settings, lora = config.optimiser, config.lora
    asked = "tower" in settings.part_rates or (lora is not None and "tower" in lora.parts)
    if asked or settings.steps == 0 or config.model.kind != "checkpoint":
        return
    part_of = assembly.architecture.part_of
    for name, parameter in assembly.model.named_parameters():
        if parameter.requires_grad and part_of(name) == "tower":
            raise ConfigError(
                f"the vision tower would be trained ({name}), and the settings do not ask for it; "
                "write optimiser.part_rates.tower=0 to freeze it, or the rate that it is to have"
            )


def _trained_parts(assembly: Assembly) -> set[Part]:
    return {
        assembly.architecture.part_of(name)
        for name, parameter in assembly.model.named_parameters()
        if parameter.requires_grad and not is_adapter(name)
    }


def _hold_in_float32(model: Any, architecture: Architecture, parts: set[Part]) -> None:
    """Small steps are lost in bfloat16: weights that are trained themselves get all their bits."""
    import torch

    for name, parameter in model.named_parameters():
        if architecture.part_of(name) in parts and parameter.is_floating_point():
            parameter.data = parameter.data.float()
    if "projector" in parts and model.dtype != torch.float32:
        for module in _projectors(model, architecture):
            _speak(module, model.dtype)


def _projectors(model: Any, architecture: Architecture) -> Iterator[Any]:
    import torch

    for name, module in model.named_modules():
        prefix = f"{name}."
        if prefix in architecture.prefixes and architecture.part_of(prefix) == "projector":
            yield from module if isinstance(module, torch.nn.ModuleList) else [module]


def _speak(module: Any, dtype: Any) -> None:
    """Have a module in float32 take and give features of another type, as its neighbours do."""
    import torch

    def to_float32(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.to(torch.float32) for value in inputs)

    module.register_forward_pre_hook(to_float32)
    module.register_forward_hook(lambda _, __, output: output.to(dtype))


def gather(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and whole value of each trained parameter, on the CPU, whatever shards hold it.

    Every process of a run has to go through all of them.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, _whole(parameter)


def _whole(value: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    value = value.detach()
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu().contiguous()


def gather_saved(assembly: Assembly) -> dict[str, Tensor]:
    """What a checkpoint holds of the weights; every process of a run has to ask for it."""
    if assembly.base is None:
        return {name: _whole(value) for name, value in assembly.model.state_dict().items()}
    return dict(gather(assembly.model))


def save_weights(
    assembly: Assembly, folder: Path, weights: Mapping[str, Tensor] | None = None
) -> None:
    """The whole model; or its adapters, what else was trained, and the name of the base.

    `weights` come from `gather_saved` where several processes hold them. What was written is read
    back: PermanentError when it is not what the model holds.
    """
    if assembly.base is None:
        assembly.model.save_pretrained(folder, state_dict=weights)
        return
    trained = dict(gather(assembly.model) if weights is None else weights)
    adapters = {_peft_name(name): value for name, value in trained.items() if is_adapter(name)}
    others = {name: value for name, value in trained.items() if not is_adapter(name)}
    _write_and_compare(folder / ADAPTERS, adapters)
    if others:
        _write_and_compare(folder / TRAINED, others)
    assembly.model.peft_config["default"].save_pretrained(str(folder))
    assembly.model.config.save_pretrained(folder)
    assembly.model.generation_config.save_pretrained(folder)
    (folder / BASE).write_text(json.dumps(asdict(assembly.base), indent=2) + "\n", encoding="utf-8")


def _peft_name(name: str) -> str:
    return f"base_model.model.{name.replace('.default.', '.')}"


def _write_and_compare(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import load_file, save_file

    save_file(dict(tensors), path, metadata={"format": "pt"})
    if digest_of(load_file(path).items()) != digest_of(tensors.items()):
        raise PermanentError(f"{path.name}: what was written is not what the model holds")


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest_of_base(model: Any) -> str:
    return digest_of(
        (name, _sample(parameter))
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not parameter.is_meta
    )


def _sample(value: Tensor) -> Tensor:
    flat = value.detach().flatten()
    return flat[:: -(-flat.numel() // SAMPLED)].float()


def read_base(folder: Path) -> Base | None:
    """What the adapters of a checkpoint sit on; None where it holds whole weights."""
    path = folder / BASE
    return Base(**json.loads(path.read_bytes())) if path.is_file() else None


def load_adapters(assembly: Assembly, base: Base, folder: Path) -> Assembly:
    """Put the adapters of a checkpoint into its base, which `assembly` holds.

    ConfigError when the base has other weights than those that the adapters were trained on.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from safetensors.torch import load_file

    model = assembly.model
    if _digest_of_base(model) != base.digest:
        raise ConfigError(
            f"{folder}: its adapters were trained on other weights than those of {base.name}; "
            "restore that checkpoint"
        )
    inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model)
    weights = load_file(folder / ADAPTERS)
    others = load_file(folder / TRAINED) if (folder / TRAINED).is_file() else {}
    part_of = assembly.architecture.part_of
    _hold_in_float32(model, assembly.architecture, {part_of(name) for name in others})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.data = weights.pop(_peft_name(name)).to(parameter.device)
            elif name in others:
                parameter.copy_(others.pop(name))
    if weights or others:
        raise ConfigError(
            f"{folder}: {next(iter({**weights, **others}))} fits no layer of its base"
        )
    return replace(assembly, base=base)


def merge_adapters(assembly: Assembly) -> Assembly:
    """The assembly with its adapters added to the weights beside them, and none left."""
    from peft.tuners.lora import LoraLayer

    model = assembly.model
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return replace(assembly, base=None)
