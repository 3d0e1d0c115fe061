"""One page with the distributions of a shard set, measured one row group at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from core.errors import ConfigError
from instruct_builder.manifest import caveats
from instruct_builder.shards import ShardSet

BIN = 50
"""characters"""
BINS = 24
"""of that width; the last one holds all that is longer"""
CROSSED = (("family", "label"), ("family", "split"), ("form", "target"))
_COUNTED = ("family", "form", "split", "label", "generator", "review_level", "source")
_READ = ("family", "form", "label", "split", "target", "messages", "image_id")

Lengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One value of a distribution."""

    name: str
    number: int
    share: float
    """of the largest value of the same chart, 0..1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One distribution."""

    title: str
    bars: Sequence[Bar]
    note: str = ""


@dataclass(slots=True)
class Distributions:
    """What is counted of the rows; `see` every table."""

    crossed: dict[tuple[str, str], Counter[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    lengths: dict[tuple[str, str], NDArray[np.int64]] = field(
        default_factory=lambda: defaultdict(lambda: np.zeros(BINS, dtype=np.int64))
    )
    """questions and answers by family and length in characters"""
    turns: Counter[int] = field(default_factory=Counter)
    per_image: Counter[int] = field(default_factory=Counter)

    def see(self, rows: pa.Table) -> None:
        """Count the rows of whole images."""
        for one, other in CROSSED:
            pairs = rows.group_by([one, other]).aggregate([([], "count_all")]).to_pylist()
            for pair in pairs:
                key = (pair[one] or "none", pair[other] or "none")
                self.crossed[one, other][key] += pair["count_all"]
        images = rows.group_by("image_id").aggregate([([], "count_all")])
        self.per_image.update(images["count_all"].to_pylist())
        self._measure(rows)

    def _measure(self, rows: pa.Table) -> None:
        messages = rows["messages"].combine_chunks()
        turns = pc.list_value_length(messages).to_numpy(zero_copy_only=False)
        self.turns.update(turns.tolist())
        flat = messages.flatten()
        lengths = pc.utf8_length(flat.field("content")).to_numpy(zero_copy_only=False)
        bins = np.minimum(lengths // BIN, BINS - 1)
        asked = pc.equal(flat.field("role"), "user").to_numpy(zero_copy_only=False)
        families = rows["family"].combine_chunks().dictionary_encode()
        codes = np.repeat(families.indices.to_numpy(), turns)
        for code, family in enumerate(families.dictionary.to_pylist()):
            for name, said in (("question", asked), ("answer", ~asked)):
                chosen = bins[(codes == code) & said]
                self.lengths[family, name] += np.bincount(chosen, minlength=BINS)


def measure(shards: ShardSet) -> Distributions:
    """The distributions of a whole set."""
    found = Distributions()
    for rows in shards.rows(columns=_READ):
        found.see(rows)
    return found


def render_plots(shards: ShardSet) -> bytes:
    """The page as UTF-8. Everything inserted is escaped; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = shards.manifest
    page = environment.get_template("plots.jinja").render(
        manifest=manifest, caveats=caveats(manifest), charts=list(_charts(shards))
    )
    return page.encode()


def write_plots(shards: ShardSet, path: Path) -> None:
    """Write the page; ConfigError when that cannot be done."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(render_plots(shards))
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name another file"
        ) from None


def _charts(shards: ShardSet) -> Iterable[Chart]:
    found, manifest = measure(shards), shards.manifest
    for name in _COUNTED:
        counts = manifest.families() if name == "family" else manifest.counts[name]
        yield _chart(f"Instructions by {_words(name)}", counts)
    for (one, other), pairs in found.crossed.items():
        counts = {f"{a} · {b}": number for (a, b), number in sorted(pairs.items())}
        yield _chart(f"By {_words(one)} and {_words(other)}", counts)
    for (family, what), numbers in sorted(found.lengths.items()):
        yield _chart(
            f"Length of the {what}s of {_words(family)}",
            dict(zip(_BIN_NAMES, numbers.tolist(), strict=True)),
            "characters of one turn",
        )
    yield _chart("Turns of an instruction", _by_number(found.turns))
    yield _chart("Instructions of an image", _by_number(found.per_image))


_BIN_NAMES = [f"{n * BIN}–{(n + 1) * BIN - 1}" for n in range(BINS - 1)] + [f"{(BINS - 1) * BIN}…"]


def _chart(title: str, counts: Mapping[str, int], note: str = "") -> Chart:
    most = max(counts.values(), default=0)
    bars = [Bar(name=name, number=n, share=n / most if most else 0) for name, n in counts.items()]
    return Chart(title=title, bars=bars, note=note)


def _by_number(counts: Counter[int]) -> dict[str, int]:
    return {str(value): number for value, number in sorted(counts.items())}


def _words(name: str) -> str:
    return name.replace("_", " ")
