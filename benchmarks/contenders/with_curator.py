"""Bespoke Curator: one LLM over a data set of image paths, its cache and viewer off.

Its tokenizer comes from the network. So that it can start without one, a token is four characters
here, which costs Curator nothing. It sends no system message beside a picture: the instructions
stand before the question.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import tiktoken
from bespokelabs import curator
from datasets import Dataset


class FourCharacters:
    def encode(self, text: str, **_: Any) -> range:
        return range(len(text) // 4)


class Drafting(curator.LLM):  # type: ignore[misc]
    text = ""

    def prompt(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return self.text, curator.types.Image(url=row["path"], detail="high")

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"path": row["path"], "draft": json.dumps(json.loads(response))}


def draft_all(job: dict[str, Any]) -> Any:
    Drafting.text = job["instructions"] + "\n\n" + job["question"]
    drafting = Drafting(
        model_name=job["model"],
        backend="openai",
        generation_params={
            "temperature": 0,
            "max_completion_tokens": job["max_output_tokens"],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": job["schema"]},
            },
        },
        backend_params={
            "base_url": job["base_url"],
            "api_key": "none",
            "max_concurrent_requests": job["in_flight"],
            "max_requests_per_minute": 10**6,
            "max_tokens_per_minute": 10**10,
        },
    )
    return drafting(Dataset.from_dict({"path": job["images"]})).dataset


def main(job: dict[str, Any]) -> None:
    tiktoken.get_encoding = lambda name: FourCharacters()
    started, before = time.perf_counter(), sum(os.times()[:4])
    drafts = draft_all(job)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "drafts": len(drafts)}))


main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
