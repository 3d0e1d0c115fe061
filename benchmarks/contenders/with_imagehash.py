"""Hash every file of a folder with the pHash of ImageHash, on the full image."""

import json
import os
import sys
import time
from pathlib import Path

import imagehash
from PIL import Image


def main(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    started, before = time.perf_counter(), sum(os.times()[:4])
    hashes = []
    for path in files:
        with Image.open(path) as image:
            hashes.append(str(imagehash.phash(image)))
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "images": len(hashes)}))


main(Path(sys.argv[1]))
