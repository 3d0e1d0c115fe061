"""The benchmark of drafting: its simulated teacher, and how it reads what contenders say."""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.contest import Standing, watch
from benchmarks.drafting import BARE, CONTENDERS, OURS, Run, draft_of, table
from benchmarks.local_teacher import Asked, asked, local_teacher
from core.recipe import load_recipe
from core.records import Authenticity
from generation.parse import parse_draft
from tests.campaigns import make_reply


def test_the_teacher_answers_and_counts_on_one_connection() -> None:
    with local_teacher("said", latency_s=0) as base_url:
        parts = urlsplit(base_url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        for size in (1, 300_000):
            connection.request("POST", f"{parts.path}/chat/completions", b"x" * size)
            completion = json.load(connection.getresponse())
            assert completion["choices"][0]["message"]["content"] == "said"
        connection.close()
        assert asked(base_url) == Asked(requests=2, body_bytes=300_001)


def test_its_reply_is_a_draft_of_the_recipe() -> None:
    recipe = load_recipe()
    reply = make_reply("hash", content=draft_of(recipe))
    reasoning = parse_draft(reply, taxonomy=recipe.taxonomy, label=Authenticity.FAKE)
    assert len(reasoning.findings) == 4


def test_a_contender_says_its_result_last_or_why_it_failed() -> None:
    for script, last in (
        ("print('warming up'); print('result')", "result"),
        ("import sys; print('result'); sys.exit('\\nno tokenizer\\n')", "no tokenizer"),
        ("", "no word"),
    ):
        said, _ = watch([sys.executable, "-c", script], os.environ, longest_s=60)
        assert said == last


def test_ratios_are_medians_over_the_rounds() -> None:
    bare: Standing[Run] = Standing(BARE, python=Path())
    ours: Standing[Run] = Standing(OURS, python=Path())
    bare.runs = [run_of(seconds) for seconds in (1.0, 2.0, 9.0)]
    ours.runs = [run_of(seconds) for seconds in (2.0, 4.0, 9.0)]
    failed: Standing[Run] = Standing(CONTENDERS[-1], failure="not installed: no network")
    lines = list(table([ours, bare, failed], 32, 0.2))
    assert lines[2].split()[3:6] == ["25.0", "0.50", "1.00"]
    assert lines[3].split()[4:7] == ["50.0", "1.00", "0.50"]
    assert lines[4].endswith("not installed: no network")


def run_of(seconds: float) -> Run:
    return Run(
        seconds=seconds, cpu_seconds=1, drafts=100, peak_bytes=2**20, asked=Asked(100, 10**6)
    )
