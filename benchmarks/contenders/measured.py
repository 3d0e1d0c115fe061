"""How a contender in writing rows is called and measured: FOLDER, ROWS and OUT, then one line."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure(prepare: Callable[[Path], Any], build: Callable[[Any, int, Path], int]) -> None:
    """Time `build(prepared, rows, out)`; print seconds, processor seconds and rows."""
    folder, rows, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    prepared = prepare(folder)
    started, before = time.perf_counter(), sum(os.times()[:4])
    written = build(prepared, rows, out)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "rows": written}))
