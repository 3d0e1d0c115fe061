"""What the contenders of `benchmarks.train_tree` are told, and what they tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.config import TrainingConfig

SEED = 1


def configure(job: dict[str, Any]) -> TrainingConfig:
    """Full tuning of projector and language model, the tower frozen, every answer token alike."""
    return TrainingConfig.model_validate(
        {
            "title": "benchmark",
            "seed": SEED,
            "threads": job["threads"],
            "device": job["device"],
            "autocast": "bfloat16" if job["device"] == "cuda" else "none",
            "model": {"kind": "checkpoint", "name": job["checkpoint"]},
            "data": {
                "batch_images": job["images_in_a_step"],
                "branches": job["branches"],
                "layout": job["layout"],
                "mix": {"drawn": 1},
            },
            "optimiser": {
                "steps": job["steps"],
                "learning_rate": 1e-4,
                "floor": 1,
                "part_rates": {"tower": 0},
                "branch_weight": "plain",
            },
            "scoring": {"question": "?", "fake_words": [" fake"], "real_words": [" real"]},
        }
    )


def summarise(
    *,
    seconds: float,
    rows: int,
    tokens: Sequence[int],
    answer_tokens: Sequence[int],
    losses: Sequence[float],
) -> dict[str, Any]:
    """The one line that a contender prints; the last three are of every step."""
    import torch

    on_cuda = torch.cuda.is_available()
    return {
        "seconds": seconds,
        "rows": rows,
        "tokens": list(tokens),
        "answer_tokens": list(answer_tokens),
        "losses": list(losses),
        "cuda_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
    }
