"""Take a folder in: everything that `python -m generation ingest` does, on all cores."""

import json
import os
import sys
import time
from pathlib import Path

from core.records import Source
from core.settings import load_settings
from db.engine import open_database
from generation.ingest import ingest
from imaging.store import ImageStore


def main(folder: Path) -> None:
    settings = load_settings()
    database = open_database(settings)
    started, before = time.perf_counter(), sum(os.times()[:4])
    source = Source(name="drawn", licence="CC0-1.0")
    summary = ingest(database, ImageStore(settings.image_store), folder, source=source)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    images = summary.accepted + summary.changed
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "images": images}))


main(Path(sys.argv[1]))
