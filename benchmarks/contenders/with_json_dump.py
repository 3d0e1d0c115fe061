"""One JSON array of records as LLaVA reads them."""

import json
from pathlib import Path

from benchmarks.contenders.measured import measure
from benchmarks.contenders.plain_rows import Chain, read_chains, rows_of


def build(chains: list[Chain], rows: int, out: Path) -> int:
    """Write `out/rows.json`."""
    records = [
        {
            "id": row["instruction_id"],
            "image": row["image_path"],
            "conversations": [
                {"from": speaker, "value": turn["content"]}
                for speaker, turn in zip(("human", "gpt"), row["messages"], strict=True)
            ],
        }
        for chain in chains
        for row in rows_of(chain, rows // len(chains))
    ]
    with (out / "rows.json").open("w", encoding="utf-8") as file:
        json.dump(records, file)
    return len(records)


measure(read_chains, build)
