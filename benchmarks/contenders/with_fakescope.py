"""Ours: the campaign of `python -m generation draft`, on images that were taken in before."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import celery.contrib.testing.worker  # noqa: F401 - for the clock not to see imports
import openai  # noqa: F401

import instruct_builder.tasks  # noqa: F401 - a worker knows it too
from core.recipe import configured_recipe
from core.settings import load_settings
from db.engine import open_database
from generation.campaign import prepare
from imaging.store import ImageStore
from workers.drafting import run_campaign


def main(job: dict[str, Any]) -> None:
    settings = load_settings()
    database = open_database(settings)
    recipe = configured_recipe(Path(job["recipe"]), settings)
    started, before = time.perf_counter(), sum(os.times()[:4])
    campaign = prepare(database, ImageStore(settings.image_store), recipe)
    end = run_campaign(settings, database, recipe, campaign)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    drafts = end.done - end.quarantined
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "drafts": drafts}))


main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
