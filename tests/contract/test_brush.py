"""Label Studio's own code reads our masks, and we read those that it writes."""

from __future__ import annotations

import json
import subprocess

import numpy as np

from annotation.brush import decode, encode, mask_of
from annotation.server import ENVIRONMENT, INSTALL, is_installed
from tests.brokers import skip_or_fail
from tests.masks import Pixels

THEIRS = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
for line in sys.stdin:
    given = json.loads(line)
    marked = np.array(given["marked"], dtype=np.uint8) * 255
    read = decode_rle(given["ours"]).reshape(*marked.shape, 4)[:, :, 3]
    print(json.dumps({"read": (read > 0).tolist(), "written": mask2rle(marked)}))
"""


def test_masks_pass_between_label_studios_code_and_ours() -> None:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    drawn = [blobs(seed) for seed in range(30)]
    ours = [encode(mask) for mask in map(mask_of, drawn) if mask is not None]
    given = [
        json.dumps({"marked": marked.tolist(), "ours": rle})
        for marked, rle in zip(drawn, ours, strict=True)
    ]
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", THEIRS],
        input="\n".join(given), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    for marked, line in zip(drawn, done.stdout.splitlines(), strict=True):
        theirs = json.loads(line)
        height, width = marked.shape
        assert theirs["read"] == marked.tolist()
        assert np.array_equal(decode(theirs["written"], width, height), marked)


def blobs(seed: int) -> Pixels:
    """A picture of its own size with some of it marked."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 90, 2)
    grain = int(random.integers(1, 12))
    coarse = random.random((height, width)) < random.random()
    marked = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width].copy()
    marked[-1, -1] = True
    return marked
