"""distilabel: a pipeline of one task over the images; a batch is what is in flight at once."""

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGenerationWithImage


def read(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode("ascii")


def draft_all(job: dict[str, Any]) -> list[Any]:
    rows = [{"instruction": job["question"], "image": read(path)} for path in job["images"]]
    schema = {"name": "reply", "strict": True, "schema": job["schema"]}
    response_format = {"type": "json_schema", "json_schema": schema}
    with Pipeline(name="drafting") as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=job["in_flight"])
        draft = TextGenerationWithImage(
            llm=OpenAILLM(
                model=job["model"],
                base_url=job["base_url"],
                api_key="none",
                generation_kwargs={
                    "temperature": 0,
                    "max_new_tokens": job["max_output_tokens"],
                    "extra_body": {"response_format": response_format},
                },
            ),
            system_prompt=job["instructions"],
            image_type="base64",
            input_batch_size=job["in_flight"],
            add_raw_input=False,  # or pyarrow cannot store text beside a picture
        )
        load >> draft
    drafts = pipeline.run(use_cache=False)["default"]["train"]
    return [json.loads(text) for text in drafts["generation"]]


def main(job: dict[str, Any]) -> None:
    started, before = time.perf_counter(), sum(os.times()[:4])
    drafts = draft_all(job)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "drafts": len(drafts)}))


if __name__ == "__main__":  # it starts processes of its own, which import this script again
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
