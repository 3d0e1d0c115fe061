"""Near-duplicates among a million images: the planted copies, no others, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.full

MOST_BYTES = 2 * 2**30


def test_a_million_hashes_are_clustered_in_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.neighbours", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["images"] == 1_000_000
    assert found["copies_with_their_original"] == found["copies"] == 200_000
    # hashes drawn at random meet by chance now and then
    assert 0.9999 * found["originals"] < found["clusters"] <= found["originals"]
    assert found["peak_bytes"] < MOST_BYTES
