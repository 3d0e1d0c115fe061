"""Models to train: a tiny LLaVA built from nothing, or a checkpoint by name or path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from training.adapters import Base, load_adapters, read_base, require_quantisation, save_weights
from training.architectures import ARCHITECTURES, Architecture
from training.config import Checkpoint, Language, TinyLlava, Vision
from training.preprocessing import check_preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image
    from torch import Tensor

IMAGE_TOKEN = "<image>"  # noqa: S105
START, END, PAD = "<s>", "</s>", "<pad>"
TINY_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}:"
    "{% for part in message['content'] %}"
    "{{ ' <image>' if part['type'] == 'image' else ' ' + part['text'] }}"
    "{% endfor %}{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{{ 'ASSISTANT:' if add_generation_prompt else '' }}"
)
"""the prompt ends without a space: byte-level BPE ties a space to the word after it"""
CHECKPOINT_MANIFEST = "checkpoint.json"
"""what a run writes beside the files of its checkpoint"""
NO_FOREIGN_CODE = MappingProxyType({"trust_remote_code": False})
"""said outright, because transformers would otherwise ask on the terminal"""


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """A model together with all that turns images and conversations into its inputs."""

    model: Any
    """a transformers model for images and text"""
    tokenizer: Any
    image_processor: Any
    chat_template: str
    """Jinja; rendered in the sandbox of transformers"""
    architecture: Architecture
    base: Base | None = None
    """what the adapters of the model sit on; None: it has none"""

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def render(self, messages: Sequence[Mapping[str, str]], *, ask: bool = False) -> str:
        """The conversation as text; the image stands before the first user turn.

        `ask` adds what comes before an answer of the model.
        """
        text = self.tokenizer.apply_chat_template(
            _with_image(messages),
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=ask,
        )
        image = str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))
        return str(text).replace(image, image.join(self.architecture.marks), 1)

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the characters that each stands for."""
        start = self.tokenizer.bos_token
        encoded = self.tokenizer(
            text,
            add_special_tokens=not (start and text.startswith(start)),
            return_offsets_mapping=True,
        )
        return encoded["input_ids"], encoded["offset_mapping"]

    def process_images(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Pixels as the model's own preprocessing makes them."""
        options = self.architecture.processing
        return dict(self.image_processor(images=list(images), return_tensors="pt", **options))

    def count_image_tokens(self, pixels: Mapping[str, Tensor]) -> list[int]:
        """Tokens that each image takes in the text."""
        return self.architecture.count_image_tokens(pixels, self.model)

    def prepare_images(self, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[int]]:
        """What the model takes of the images, and the tokens that each takes in the text."""
        pixels = self.process_images(images)
        taken = {name: pixels[name] for name in self.architecture.pixel_names}
        return taken, self.count_image_tokens(pixels)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write what `load_checkpoint` reads; `weights` where several processes hold them."""
        save_weights(self, folder, weights)
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def _with_image(messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [
        {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]
    first_user = next(turn for turn in turns if turn["role"] == "user")
    first_user["content"].insert(0, {"type": "image"})
    return turns


def build_tiny(
    settings: TinyLlava,
    *,
    conversations: Iterable[Sequence[Mapping[str, str]]],
    images: Sequence[Image.Image],
    seed: int,
) -> Assembly:
    """A small LLaVA: CLIP tower, two-layer projector, Llama, and a tokenizer of its own.

    `conversations` and `images` are training data: the tokenizer learns from the former, the first
    layer of the tower is fitted to the latter when the settings ask for whitening.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(conversations, settings.language)
    assembly = Assembly(
        model=_untrained_llava(settings, tokenizer),
        tokenizer=tokenizer,
        image_processor=crop_processor(settings.vision),
        chat_template=TINY_TEMPLATE,
        architecture=ARCHITECTURES["llava"],
    )
    if settings.vision.patch_init == "whitened":
        pixels = assembly.process_images(images)["pixel_values"]
        whiten_patches(assembly.model, pixels, floor=settings.vision.whitening_floor)
    return assembly


def train_tokenizer(
    conversations: Iterable[Sequence[Mapping[str, str]]], settings: Language
) -> Any:
    """A byte-level BPE tokenizer: every text has tokens, whatever it was trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, START, END, IMAGE_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(conversations), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[IMAGE_TOKEN],
    )


def _texts(conversations: Iterable[Sequence[Mapping[str, str]]]) -> Iterator[str]:
    """Turns as the template writes them, special tokens left out."""
    for messages in conversations:
        for message in messages:
            yield f"{message['role'].upper()}: {message['content']}"


def _untrained_llava(settings: TinyLlava, tokenizer: Any) -> Any:
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration(
        tiny_config(
            settings,
            vocabulary=len(tokenizer),
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_config(
    settings: TinyLlava, *, vocabulary: int, image_token_index: int = 3, **tokens: int
) -> Any:
    """The configuration that transformers builds a small LLaVA from."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision, language = settings.vision, settings.language
    tower = CLIPVisionConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=4 * vision.hidden_size,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        projection_dim=vision.hidden_size,
    )
    llama = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=language.hidden_size,
        intermediate_size=4 * language.hidden_size,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.heads,
        max_position_embeddings=language.max_tokens,
        initializer_range=language.init_std,
        **tokens,
    )
    return LlavaConfig(
        vision_config=tower,
        text_config=llama,
        image_token_index=image_token_index,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
    )


def crop_processor(vision: Vision) -> Any:
    """Crops instead of resizing: resampling would wash out the traces."""
    from transformers import CLIPImageProcessorPil

    side = {"height": vision.image_size, "width": vision.image_size}
    return CLIPImageProcessorPil(
        do_resize=False,
        crop_size=side,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.27, 0.27, 0.27],
    )


def whiten_patches(model: Any, pixels: Tensor, *, floor: float) -> None:
    """Start the tower's first layer from random filters over whitened patches of `pixels`.

    The energy of photographs lies in low frequencies, that of generator traces in high ones, which
    a layer started from plain noise hardly sees. Whitening gives every frequency the same gain, as
    in the patch-whitening initialisation of fast image classifiers (K. Jordan, arXiv 2404.00498).
    `pixels` is (images, 3, height, width); `floor` is added to each eigenvalue of the patches'
    covariance, as a fraction of their mean.
    """
    import torch

    weight = model.model.vision_tower.embeddings.patch_embedding.weight
    side = weight.shape[-1]
    with torch.no_grad():
        patches = torch.nn.functional.unfold(pixels, side, stride=side)
        patches = patches.transpose(1, 2).reshape(-1, weight[0].numel()).double()
        centred = patches - patches.mean(dim=0)
        energy, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        gain = (energy.clamp(min=0) + floor * energy.mean()).rsqrt()
        whitening = axes @ torch.diag(gain) @ axes.T
        filters = torch.randn(len(weight), len(whitening), dtype=torch.float64) @ whitening
        filters /= (centred @ filters.T).std()
        weight.copy_(filters.reshape(weight.shape))


def load_checkpoint(settings: Checkpoint, *, quantised: bool = False) -> Assembly:
    """A published checkpoint by name, or one from a folder; no code of the checkpoint is run.

    One that holds adapters is put on its base. `quantised` has the linear layers of the language
    model in 4 bits.
    """
    from transformers import AutoConfig, AutoImageProcessor

    name = settings.name
    _check_folder(name)
    base = read_base(Path(name))
    with explain_failure(name):
        config = AutoConfig.from_pretrained(name, **NO_FOREIGN_CODE)
        architecture = find_architecture(name, config.model_type)
        image_processor = AutoImageProcessor.from_pretrained(name, backend="pil", **NO_FOREIGN_CODE)
        tokenizer, template = find_tokenizer(name)
    if base is None:
        model = _load_weights(name, settings.dtype, architecture, quantised=quantised)
    else:
        model = _load_weights(base.name, base.dtype, architecture, quantised=base.quantised)
    if settings.activation_checkpointing:
        model.model.language_model.activation_checkpointing_enable()
    assembly = Assembly(model, tokenizer, image_processor, template, architecture)
    _check_preparation(assembly, Path(name))
    return assembly if base is None else load_adapters(assembly, base, Path(name))


def _check_preparation(assembly: Assembly, folder: Path) -> None:
    path = folder / CHECKPOINT_MANIFEST
    manifest = json.loads(path.read_bytes()) if path.is_file() else {}
    if "preprocessing" in manifest:
        check_preprocessing(assembly, manifest["preprocessing"], str(folder))


def _load_weights(name: str, dtype: str, architecture: Architecture, *, quantised: bool) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    options: dict[str, Any] = {}
    if quantised:
        options = {"quantization_config": _four_bits(architecture, dtype), "device_map": "auto"}
    with explain_failure(name):
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=getattr(torch, dtype), **options, **NO_FOREIGN_CODE
        )
    if quantised:
        _keep_gradients(model)
    return model


def _four_bits(architecture: Architecture, dtype: str) -> Any:
    """NF4 with quantised constants (arXiv 2305.14314), in the language model alone.

    Layers calculate in the type of the other weights, so that trees are held to its tolerance.
    """
    import torch
    from transformers import BitsAndBytesConfig

    require_quantisation()
    others = [prefix.rstrip(".") for prefix in architecture.prefixes if prefix]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=["lm_head", *others],
    )


def _keep_gradients(model: Any) -> None:
    """Some processors let bitsandbytes pack weights for inference: no gradient passes them then."""
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _check_folder(name: str) -> None:
    """A name that can only be a folder must be one; the hub need not be asked."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not (Path(name) / "config.json").is_file():
        raise ConfigError(f"model.name: {name} is no checkpoint folder, it has no config.json")


@contextmanager
def explain_failure(name: str) -> Iterator[None]:
    """Have what transformers says of a checkpoint become a ConfigError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model.name: {name} cannot be loaded: {reason} "
            "(name a folder with a downloaded checkpoint, or a name that this machine can fetch)"
        ) from None


def find_architecture(name: str, model_type: str) -> Architecture:
    """How to handle a checkpoint; a ConfigError for a type that is not supported."""
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(
            f"model.name: {name} is of type {model_type!r}; supported: {known}"
        ) from None


def find_tokenizer(name: str) -> tuple[Any, str]:
    """The tokenizer of a checkpoint, and the chat template of its processor, else of it itself."""
    from transformers import AutoTokenizer, ProcessorMixin

    tokenizer = AutoTokenizer.from_pretrained(name, **NO_FOREIGN_CODE)
    settings, _ = ProcessorMixin.get_processor_dict(name)
    template = settings.get("chat_template") or tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if not template:
        raise ConfigError(f"model.name: {name} has no chat template")
    return tokenizer, str(template)
