"""Open every file of a folder as ingest does, and do nothing with it."""

import json
import os
import sys
import time
from pathlib import Path

from imaging.decode import open_image
from imaging.hashes import REDUCED_SIDE


def main(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    started, before = time.perf_counter(), sum(os.times()[:4])
    for path in files:
        open_image(path.read_bytes(), name=path.name, least_side=REDUCED_SIDE)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "images": len(files)}))


main(Path(sys.argv[1]))
