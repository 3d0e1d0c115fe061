"""A bare asyncio loop of the openai client: nothing is stored, nothing is tried again."""

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI


async def draft_all(job: dict[str, Any]) -> list[Any]:
    client = AsyncOpenAI(base_url=job["base_url"], api_key="none", max_retries=0)
    free = asyncio.Semaphore(job["in_flight"])

    async def draft(path: str) -> Any:
        async with free:
            encoded = base64.b64encode(Path(path).read_bytes()).decode("ascii")
            url = f"data:image/jpeg;base64,{encoded}"
            completion = await client.chat.completions.create(
                model=job["model"],
                messages=[
                    {"role": "system", "content": job["instructions"]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": job["question"]},
                            {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
                        ],
                    },
                ],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "strict": True, "schema": job["schema"]},
                },
                temperature=0,
                max_completion_tokens=job["max_output_tokens"],
            )
        return json.loads(completion.choices[0].message.content or "")

    return await asyncio.gather(*map(draft, job["images"]))


def main(job: dict[str, Any]) -> None:
    started, before = time.perf_counter(), sum(os.times()[:4])
    drafts = asyncio.run(draft_all(job))
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "drafts": len(drafts)}))


main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
