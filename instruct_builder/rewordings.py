"""The table of rewordings: written by the rewriting stage, read by a build that is given it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import ConfigError
from core.ids import seed_of, sha256_text
from core.records import ReasoningChain
from instruct_builder.shards import sha256_of

REWORDINGS = "rewordings.parquet"
"""default name of the table, in the home folder"""
VERSION = "1"
_METADATA = {b"fakescope_rewordings_version": VERSION.encode()}
SCHEMA = pa.schema(
    [
        ("chain_id", pa.string()),
        ("text_sha256", pa.string()),
        ("variant", pa.int8()),
        ("text", pa.string()),
        ("model", pa.string()),
    ],
    metadata=_METADATA,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewording:
    """One text of one chain in other words."""

    chain_id: str
    text_sha256: str
    """of the original"""
    variant: int
    """from 1"""
    text: str
    model: str
    """who reworded it"""


def write_rewordings(rewordings: Iterable[Rewording], path: Path) -> None:
    """Write the table under its final name only when it is whole."""
    ordered = sorted(rewordings, key=lambda r: (r.chain_id, r.text_sha256, r.variant))
    rows = [asdict(rewording) for rewording in ordered]
    _write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def remove_chains(path: Path, chain_ids: Collection[str]) -> int:
    """Take the rewordings of some chains out of a table; how many there were."""
    table = read_rewordings(path)
    chosen = pa.array(sorted(chain_ids), pa.string())
    rest = table.filter(pc.invert(pc.is_in(table["chain_id"], value_set=chosen)))
    if rest.num_rows < table.num_rows:
        _write_table(rest, path)
    return int(table.num_rows - rest.num_rows)


def _write_table(table: pa.Table, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, partial, compression="zstd")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_rewordings(path: Path) -> pa.Table:
    """The table in SCHEMA; a ConfigError for anything else."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not table.schema.equals(SCHEMA, check_metadata=True):
        raise ConfigError(
            f"{path}: no table of rewordings of version {VERSION}; "
            "`python -m instruct_builder rewrite` writes one"
        )
    return table


@dataclass(frozen=True)
class Rewordings:
    """A table of rewordings, for the chains of a build."""

    sha256: str
    """of the file"""
    choices: Mapping[tuple[str, str], Sequence[tuple[str, str]]]
    """text and model of each rewording, by chain and SHA-256 of the original"""

    @classmethod
    def read(cls, path: Path) -> Rewordings:
        """Read a table; a ConfigError for anything else."""
        table = read_rewordings(path)
        choices: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for row in table.to_pylist():
            choices[row["chain_id"], row["text_sha256"]].append((row["text"], row["model"]))
        return cls(sha256_of(path), choices)

    def apply(self, chain: ReasoningChain, *, seed: int) -> tuple[ReasoningChain, frozenset[str]]:
        """The chain, some of its texts in other words, and the models whose words these are.

        For each text one of its rewordings or the original is drawn, all equally likely.
        """
        models: set[str] = set()

        def draw(text: str) -> str:
            digest = sha256_text(text)
            known = [(text, ""), *self.choices.get((chain.chain_id, digest), ())]
            chosen, model = known[seed_of("rewording", seed, chain.chain_id, digest) % len(known)]
            models.update([model] if model else [])
            return chosen

        reasoning = replace(
            chain.reasoning,
            findings=tuple(replace(f, evidence=draw(f.evidence)) for f in chain.reasoning.findings),
            conclusion=draw(chain.reasoning.conclusion),
        )
        return replace(chain, reasoning=reasoning), frozenset(models)
