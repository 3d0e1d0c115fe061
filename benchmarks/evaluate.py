"""How fast many questions about one image are answered: one shared prefill, or none.

python -m benchmarks.evaluate --images 8 --layers 4 --image-side 336

Three ways to score the same questions about the same images with the same untrained LLaVA: the
image once for all questions; the image anew for each question; and plain `generate` of
transformers for each question, one token long. The first two must give the same scores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from core.recipe import DEFAULT_RECIPE
from training.collate import collate
from training.config import Language, TinyLlava, Vision
from training.model import Assembly, build_tiny
from training.predict import prepare_questions
from training.reply import reply_to
from training.shared_prefill import Branches, prompt_of

TOLERANCE = 1e-3
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    images: Annotated[int, typer.Option(help="Images.")] = 4,
    image_side: Annotated[int, typer.Option(help="Pixels a side; patches have 14.")] = 336,
    layers: Annotated[int, typer.Option(help="Of the tower and of the language model.")] = 4,
    width: Annotated[int, typer.Option(help="Of both.")] = 256,
    questions: Annotated[int, typer.Option(help="About each image.")] = 14,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
) -> None:
    """Print images and questions per second of each way, as JSON."""
    import torch

    torch.set_num_threads(threads)
    asked = prepare_questions(DEFAULT_RECIPE, explain=False, aspects=True, advise=False)[:questions]
    pictures = _draw(images, image_side)
    assembly = _build(image_side, layers, width, asked, pictures)
    ways: dict[str, Callable[[Image.Image], object]] = {
        "shared prefill": lambda picture: _shared(asked, picture, assembly),
        "one forward per question": lambda picture: _apart(asked, picture, assembly),
        "generate per question": lambda picture: [
            reply_to(question, picture, assembly, max_tokens=1) for question in asked
        ],
    }
    gap = np.abs(_shared(asked, pictures[0], assembly) - _apart(asked, pictures[0], assembly)).max()
    if gap > TOLERANCE:
        raise SystemExit(f"the ways differ by {gap:g}: nothing to compare")
    seconds = {name: _time(way, pictures) for name, way in ways.items()}
    tokens = len(prompt_of(asked[0], assembly).input_ids)
    for name, taken in seconds.items():
        found = {
            "way": name,
            "images": images,
            "questions_per_image": len(asked),
            "image_tokens": (image_side // 14) ** 2,
            "prompt_tokens": tokens,
            "seconds": round(taken, 3),
            "images_per_s": round(images / taken, 3),
            "questions_per_s": round(images * len(asked) / taken, 2),
            "times_as_long_as_shared": round(taken / seconds["shared prefill"], 2),
        }
        print(json.dumps(found))


def _draw(number: int, side: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        for _ in range(number)
    ]


def _build(
    side: int, layers: int, width: int, asked: Sequence[str], pictures: Sequence[Image.Image]
) -> Assembly:
    vision = Vision(
        image_size=side, patch_size=14, hidden_size=width, layers=layers, heads=8,
        patch_init="random",
    )  # fmt: skip
    language = Language(
        vocabulary=2000, hidden_size=width, layers=layers, heads=8,
        max_tokens=(side // 14) ** 2 + 512,
    )  # fmt: skip
    conversations = [[{"role": "user", "content": question}] for question in asked]
    assembly = build_tiny(
        TinyLlava(kind="tiny_llava", vision=vision, language=language),
        conversations=conversations,
        images=pictures[:1],
        seed=1,
    )
    assembly.model.eval()
    return assembly


def _time(way: Callable[[Image.Image], object], pictures: Sequence[Image.Image]) -> float:
    way(pictures[0])
    started = time.perf_counter()
    for picture in pictures:
        way(picture)
    return time.perf_counter() - started


def _shared(asked: Sequence[str], picture: Image.Image, assembly: Assembly) -> np.ndarray:
    prompts = [prompt_of(question, assembly) for question in asked]
    return np.asarray(Branches.read(prompts, picture, assembly).logits.float().numpy())


def _apart(asked: Sequence[str], picture: Image.Image, assembly: Assembly) -> np.ndarray:
    import torch

    rows = []
    for question in asked:
        inputs = collate([prompt_of(question, assembly)], [picture], assembly).inputs
        with torch.no_grad():
            rows.append(assembly.model(**inputs, logits_to_keep=1).logits[0, -1].float().numpy())
    return np.array(rows)


if __name__ == "__main__":
    app()
