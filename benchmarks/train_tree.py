"""python -m benchmarks.train_tree [--branches 8 --branches 40] [--repeats 3]

Instructions per second and peak memory of training, side by side: our tree batches, our plain
batches, and TRL's SFTTrainer, with all rows of a step at once and with eight of them at a time.

All start from the same untrained LLaVA on the same drawn pictures and texts, in the same order, the
vision tower frozen and the rest trained in the same precision with the same optimiser. They must
learn from the same number of tokens and have the same loss in each step, or there is no table. On a
CPU the model is small, with 576 image tokens as LLaVA-1.5 has and a tower and language model whose
parameters are as one to twenty; on a CUDA device it has the width of a model of 2 B parameters, in
bfloat16. Each run is a process of its own: memory is the sum over its processes, shared pages
counted in each, on a CUDA device what is allocated there. The first step is not timed.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from benchmarks.contest import CACHE as ENVIRONMENTS
from benchmarks.contest import (
    Contender,
    Standing,
    chosen,
    compete,
    environment,
    interleaved,
    make_ready,
)
from benchmarks.drawn_chains import SEEN, WHERE
from benchmarks.main_job import MIB
from core.command_line import one_line_errors
from core.errors import PermanentError
from core.ids import content_id, image_id_of, sha256_bytes
from core.records import Authenticity, ImageRecord, Instruction, Message, ReviewLevel, Split
from imaging.store import ImageStore
from instruct_builder.manifest import LicenceFact, RecipeStamp, SourceFact, TeacherFact
from instruct_builder.shards import BuildFacts, Placed, rows_table, write_shards
from training.config import Language, TinyLlava, Vision
from training.model import build_tiny

TREES = Contender(name="FakeScope, trees", script="with_training.py")
PLAIN = Contender(name="FakeScope, plain", script="with_training.py")
TRL = Contender(name="TRL SFTTrainer", script="with_trl.py")
TRL_BY_EIGHT = Contender(name="TRL, 8 rows at a time", script="with_trl.py")
CONTENDERS = (TREES, PLAIN, TRL, TRL_BY_EIGHT)

SIDE, PATCH = 336, 14
SMALL = TinyLlava(
    kind="tiny_llava",
    vision=Vision(
        image_size=SIDE, patch_size=PATCH, hidden_size=128, layers=2, heads=4, patch_init="random"
    ),
    language=Language(vocabulary=2000, hidden_size=256, layers=8, heads=4, max_tokens=2048),
)
LARGE = TinyLlava(
    kind="tiny_llava",
    vision=Vision(
        image_size=SIDE, patch_size=PATCH, hidden_size=1024, layers=24, heads=16,
        patch_init="random",
    ),
    language=Language(vocabulary=2000, hidden_size=2048, layers=24, heads=16, max_tokens=2048),
)  # fmt: skip
TOLERANCES = {"cpu": 1e-3, "cuda": 2e-2}
"""between the losses of a step, as a share: float32, bfloat16"""
PICTURES, EVIDENCE = 6, 2
LONGEST_S = 3_600.0

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender."""

    seconds: float
    rows: int
    """of the steps that were timed"""
    tokens: Sequence[int]
    """that the model computed in each step, padding left out"""
    answer_tokens: Sequence[int]
    losses: Sequence[float]
    mfu: float | None
    cuda_bytes: int | None
    peak_bytes: int

    @property
    def memory(self) -> int:
        return self.cuda_bytes or self.peak_bytes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contenders are given."""

    folder: Path
    device: str
    branches: int
    images: int
    """of a step"""
    steps: int
    threads: int

    def job_of(self, contender: Contender, out: Path) -> dict[str, Any]:
        in_a_step = self.branches * self.images
        return {
            "checkpoint": str(self.folder / "model"),
            "shards": str(self.folder / f"shards-{self.branches}"),
            "images": str(self.folder / "images"),
            "out": str(out),
            "device": self.device,
            "threads": self.threads,
            "branches": self.branches,
            "images_in_a_step": self.images,
            "steps": self.steps,
            "layout": "tree" if contender is TREES else "plain",
            "rows_at_once": 8 if contender is TRL_BY_EIGHT else in_a_step,
        }


@app.command()
@one_line_errors()
def main(
    branches: Annotated[
        list[int] | None, typer.Option(help="Instructions per image; of 8. Default: 8 and 40.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 1,
    steps: Annotated[int, typer.Option(min=2, help="Of a run; the first is not timed.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, interleaved.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(c.name for c in CONTENDERS)}.")
    ] = None,
) -> None:
    """Train all contenders alike and print medians."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="fakescope-bench-") as name:
        folder = Path(name)
        for count in branches or (8, 40):
            write_set(folder, count)
        build_model(LARGE if device == "cuda" else SMALL, folder)
        for count in branches or (8, 40):
            setting = Setting(
                folder=folder, device=device, branches=count, images=images, steps=steps,
                threads=threads,
            )  # fmt: skip
            standings = [make_ready(each, ENVIRONMENTS) for each in chosen(CONTENDERS, only)]
            for standing in interleaved(standings, repeats):
                run(standing, setting)
            check_equal(standings, TOLERANCES[device])
            print("\n".join([*describe(setting, standings, repeats), *table(standings)]))


def write_set(folder: Path, branches: int) -> None:
    """Shards with so many instructions about each of a few drawn pictures."""
    placed = [_place(folder / "images", number, branches) for number in range(PICTURES)]
    write_shards(
        folder / f"shards-{branches}",
        [rows_table(placed)],
        ((each.image, each.split) for each in placed),
        BuildFacts(
            recipe=RecipeStamp(name="benchmark", digest="0"),
            builder_digest="0",
            seed=1,
            chains_digest="0",
            arms=("main",),
            min_review=ReviewLevel.DRAFT,
            simulated=True,
            statement="drawn",
            teachers=(TeacherFact(name="drawn", simulated=True, chains=PICTURES),),
            sources=(SourceFact(name="drawn", licence="CC0-1.0", may_train=True),),
            licence=LicenceFact(statement="CC0-1.0", because="drawn"),
            forms={},
            checks={},
        ),
        rows_per_shard=10_000,
    )


def _place(store: Path, number: int, branches: int) -> Placed:
    data = _draw(number)
    digest = sha256_bytes(data)
    image_id = image_id_of(digest)
    label = Authenticity.FAKE if number % 2 else Authenticity.REAL
    image = ImageRecord(
        image_id=image_id, sha256=digest, original_sha256=digest,
        path=ImageStore(store).add(data, ".jpg"), width=SIDE, height=SIDE, format="JPEG",
        jpeg_quality=90, phash="0" * 16, cluster=image_id, group=image_id, label=label,
        generator="drawn" if number % 2 else None, source="drawn",
    )  # fmt: skip
    told = random.Random(number)
    return Placed(
        image=image,
        split=Split.TRAIN,
        review_level=ReviewLevel.DRAFT,
        instructions=tuple(_ask(image_id, label, row, told) for row in range(branches)),
    )


def _draw(number: int) -> bytes:
    """A soft pattern with noise, as JPEG."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=90)
    return out.getvalue()


def _ask(image_id: str, label: Authenticity, row: int, told: random.Random) -> Instruction:
    places = told.sample(WHERE, EVIDENCE)
    seen = " ".join(
        f"{p} {told.choice(SEEN[label]).format(n=told.randint(2, 60))}." for p in places
    )
    question = f"{places[0]} is what you are asked about; what else tells whether this is real?"
    return Instruction(
        instruction_id=content_id("ins", image_id, row),
        chain_id=content_id("chain", image_id),
        image_id=image_id,
        family="drawn",
        form="drawn",
        template_id="drawn/0",
        aspect=None,
        messages=(
            Message(role="user", content=question),
            Message(role="assistant", content=f"{seen} So the image is {label}."),
        ),
        target=None,
    )


def build_model(settings: TinyLlava, folder: Path) -> None:
    """An untrained LLaVA with a tokenizer for the texts."""
    told = random.Random(0)
    texts = [_ask("image", label, row, told).messages for label in SEEN for row in range(2_000)]
    build_tiny(
        settings,
        conversations=[[asdict(message) for message in each] for each in texts],
        images=(),
        seed=1,
    ).save(folder / "model")


def run(standing: Standing[Run], setting: Setting) -> None:
    """One more run of a contender."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        out = Path(name)
        job = out / "job.json"
        job.write_text(json.dumps(setting.job_of(standing.contender, out / "out")))
        if said := compete(standing, job, environment(out), longest_s=LONGEST_S):
            standing.runs.append(Run(**said))


def check_equal(standings: Sequence[Standing[Run]], tolerance: float) -> None:
    """PermanentError when two runs did not learn the same."""
    runs = [(each.contender.name, run) for each in standings for run in each.runs]
    for name, run in runs[1:]:
        first_name, first = runs[0]
        if list(run.answer_tokens) != list(first.answer_tokens):
            raise PermanentError(
                f"{name} learnt from {run.answer_tokens} tokens, {first_name} from "
                f"{first.answer_tokens}: nothing to compare"
            )
        if not np.allclose(run.losses, first.losses, rtol=tolerance):
            raise PermanentError(
                f"{name} had the losses {run.losses}, {first_name} {first.losses}: "
                "nothing to compare"
            )


def describe(setting: Setting, standings: Sequence[Standing[Run]], repeats: int) -> Iterator[str]:
    """What was measured, counted from what the runs said."""
    rows = setting.branches * setting.images
    said = {each.contender.name: each.runs[0] for each in standings if each.runs}
    yield (
        f"\n{setting.branches} instructions about each of {setting.images} image(s) in a step, "
        f"{setting.steps - 1} timed steps, medians of {repeats} interleaved runs, {setting.device}"
    )
    model = LARGE if setting.device == "cuda" else SMALL
    yield (
        f"{(SIDE // PATCH) ** 2} image tokens; tower {model.vision.layers} layers of "
        f"{model.vision.hidden_size}, language model {model.language.layers} of "
        f"{model.language.hidden_size}"
    )
    if TREES.name in said and PLAIN.name in said:
        trees, plain = said[TREES.name].tokens[0], said[PLAIN.name].tokens[0]
        prefix = (plain - trees) / (rows - setting.images)
        yield (
            f"prefix {prefix:.0f} tokens, branch {plain / rows - prefix:.0f} tokens of which "
            f"{said[TREES.name].answer_tokens[0] / rows:.0f} learnt; "
            f"tokens of plain batches over those of trees: {plain / trees:.1f}"
        )
        yield f"loss of the first step {said[TREES.name].losses[0]:.4f}"


def table(standings: Sequence[Standing[Run]]) -> Iterator[str]:
    """One line per contender; trees over it, run by run."""
    trees = next((each.runs for each in standings if each.contender is TREES), [])
    yield f"{'':24}{'instr/s':>9}{'MiB':>8}{'MFU':>7}{'trees are faster':>18}{'smaller':>9}"
    for standing in standings:
        runs = standing.runs
        if not runs:
            yield f"{standing.contender.name:24}  {standing.failure}"
            continue
        speed = statistics.median(run.rows / run.seconds for run in runs)
        memory = statistics.median(run.memory for run in runs)
        used = [run.mfu for run in runs if run.mfu is not None]
        faster = [own.seconds / ours.seconds for own, ours in zip(runs, trees, strict=False)]
        smaller = [own.memory / ours.memory for own, ours in zip(runs, trees, strict=False)]
        yield (
            f"{standing.contender.name:24}{speed:9.2f}{memory / MIB:8.0f}"
            f"{_median(used, '.0%'):>7}{_median(faster, '.1f') + ' x':>18}"
            f"{_median(smaller, '.2f') + ' x':>9}"
        )


def _median(values: Sequence[float], form: str) -> str:
    return format(statistics.median(values), form) if values else "-"


if __name__ == "__main__":
    app()
