"""Decode every file of a folder with Pillow, and do nothing with it."""

import json
import os
import sys
import time
from pathlib import Path

from PIL import Image


def main(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    started, before = time.perf_counter(), sum(os.times()[:4])
    for path in files:
        with Image.open(path) as image:
            image.load()
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "images": len(files)}))


main(Path(sys.argv[1]))
