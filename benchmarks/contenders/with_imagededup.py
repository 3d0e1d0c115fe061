"""Hash every file of a folder with the PHash of imagededup, in one process."""

import json
import os
import sys
import time
from pathlib import Path

from imagededup.methods import PHash


def main(folder: Path) -> None:
    hasher = PHash(verbose=False)
    started, before = time.perf_counter(), sum(os.times()[:4])
    hashes = hasher.encode_images(image_dir=folder, recursive=True, num_enc_workers=0)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "images": len(hashes)}))


main(Path(sys.argv[1]))
