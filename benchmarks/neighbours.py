"""python -m benchmarks.neighbours [--images 1000000]

Seconds and peak memory of clustering so many 64-bit hashes, a fifth of them copies of others with
up to six bits changed, all added at once.
"""

from __future__ import annotations

import json
import resource
import time
from typing import Annotated

import numpy as np
import typer

from benchmarks.main_job import MIB
from imaging.neighbours import NEAR, Clusters

KIBI = 2**10
ONE = np.uint64(1)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    images: Annotated[int, typer.Option(min=10, help="Hashes.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw the hashes, cluster them, and say how well and how fast."""
    hashes, copied = draw_hashes(images)
    names = {f"{number:07}": f"{value:016x}" for number, value in enumerate(hashes.tolist())}
    started = time.perf_counter()
    cluster_of = Clusters().add(names).cluster_of
    seconds = time.perf_counter() - started
    originals = images - len(copied)
    joined = sum(
        cluster_of[f"{originals + number:07}"] == cluster_of[f"{original:07}"]
        for number, original in enumerate(copied.tolist())
    )
    figures = {
        "images": images,
        "copies": len(copied),
        "copies_with_their_original": joined,
        "originals": originals,
        "clusters": len(set(cluster_of.values())),
        "seconds": round(seconds, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBI,
    }
    print(json.dumps(figures) if as_json else sentence(figures))


def draw_hashes(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, originals before copies, and the place of the original of each copy."""
    numbers = np.random.default_rng(7)
    copies = images // 5
    originals = numbers.integers(1, 2**64, images - copies, dtype=np.uint64)
    copied = numbers.choice(len(originals), copies, replace=False)
    bits = numbers.permuted(np.tile(np.arange(64, dtype=np.uint64), (copies, 1)), axis=1)[:, :NEAR]
    is_changed = np.arange(NEAR) < numbers.integers(0, NEAR + 1, copies)[:, None]
    masks = np.where(is_changed, ONE << bits, np.uint64(0))
    changed = originals[copied] ^ np.bitwise_xor.reduce(masks, axis=1)
    return np.concatenate([originals, changed]), copied


def sentence(figures: dict[str, float]) -> str:
    """The figures in one line."""
    return (
        f"{figures['images']:,} hashes: {figures['seconds']:.1f} s, "
        f"{figures['peak_bytes'] / MIB:.0f} MiB; {figures['copies_with_their_original']:,} of "
        f"{figures['copies']:,} copies with their original, {figures['clusters']:,} clusters of "
        f"{figures['originals']:,} originals"
    )


if __name__ == "__main__":
    app()
