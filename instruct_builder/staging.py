"""A build under way: its plan on the disk, so that any process can make any shard of it.

What is here is decided by the digest of the build. A build that was killed finds its plan and its
finished shards again; every shard has the same bytes, whoever makes it, and appears whole or not at
all. Arrays are mapped into memory, so the processes of one machine share them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.records import Split
from core.taxonomy import Taxonomy
from instruct_builder.columns import Chains, Positions
from instruct_builder.general import GeneralRows, spread
from instruct_builder.plan import Plan, Turns
from instruct_builder.shards import ROW_SCHEMA, StagedShard, image_ends, write_shard_file, writing
from instruct_builder.templates import Family, Templates
from instruct_builder.words import ImageColumns, Words

FOLDER = ".build.partial"
"""in the folder of a set; a name that a set may hold (`shards`)"""
COMPLETE = "complete.json"
"""written last: the digest of the build, and its shards"""
RECIPE = "recipe.json"
GENERAL = "general"
BLOCK_ROWS = 65_536
"""rows that are worded at a time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The rows of one shard: whole images of one split."""

    start: int
    stop: int
    split: Split
    general: tuple[int, int] = (0, 0)
    """the general rows among them, from the first to before the second"""


@dataclass(frozen=True)
class Staging:
    """The folder of a build under way."""

    path: Path

    def is_for(self, digest: str) -> bool:
        """Whether a whole plan of this very build is here."""
        return self._complete().get("digest") == digest

    def _complete(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / COMPLETE).read_bytes()))
        except (OSError, ValueError):
            return {}

    def prepare(
        self,
        digest: str,
        plan: Plan,
        chains: Chains,
        images: ImageColumns,
        words: Words,
        ranges: Sequence[Range],
        general: GeneralRows | None = None,
    ) -> None:
        """Write all that shards are made from, in the place of whatever was here."""
        self.clear()
        with writing(self.path.parent):
            self.path.mkdir(parents=True)
            _save(self.path / "chains", chains)
            _save(self.path / "turns", plan.turns)
            _save(self.path / "plan", plan)
            _save_texts(self.path / "images", images.columns)
            if general is not None:
                general.save(self.path / GENERAL)
            (self.path / RECIPE).write_text(json.dumps(_dump(words)), encoding="utf-8")
            text = json.dumps({"digest": digest, "ranges": [asdict(each) for each in ranges]})
            partial = self.path / f"{COMPLETE}.new"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.path / COMPLETE)

    def clear(self) -> None:
        """Give the build up."""
        shutil.rmtree(self.path, ignore_errors=True)

    @cached_property
    def ranges(self) -> list[Range]:
        """The shards of the build, in their order."""
        return [
            Range(**{**each, "split": Split(each["split"]), "general": tuple(each["general"])})
            for each in self._complete()["ranges"]
        ]

    @cached_property
    def plan(self) -> Plan:
        turns = Turns(**_load(self.path / "turns", Turns))
        return Plan(**_load(self.path / "plan", Plan), turns=turns)

    @cached_property
    def chains(self) -> Chains:
        return Chains(**_load(self.path / "chains", Chains))

    @cached_property
    def images(self) -> ImageColumns:
        return ImageColumns(_load_texts(self.path / "images"))

    @cached_property
    def general(self) -> GeneralRows | None:
        """The general rows of the set, where it has any."""
        folder = self.path / GENERAL
        return GeneralRows.load(folder) if folder.is_dir() else None

    @cached_property
    def words(self) -> Words:
        values = json.loads((self.path / RECIPE).read_bytes())
        families = {name: Family.model_validate(each) for name, each in values["families"].items()}
        return Words(
            Templates(families, values["caps"]), Taxonomy.model_validate(values["taxonomy"])
        )

    def rows(self, start: int, stop: int) -> pa.Table:
        """Some rows in ROW_SCHEMA."""
        return self.words.table(self.plan.take(start, stop), self.chains, self.images)

    def picked_rows(self, rows: Positions) -> pa.Table:
        """Some rows, by ascending number, in ROW_SCHEMA."""
        return self.words.table(self.plan.pick(rows), self.chains, self.images)

    def make_shard(self, number: int) -> StagedShard:
        """One shard, made now or before."""
        place = self.path / f"shard-{number:05d}"
        if self._is_made(number):
            return StagedShard.read(place.with_suffix(".json"))
        each = self.ranges[number]
        tables = [
            self.rows(start, min(start + BLOCK_ROWS, each.stop))
            for start in range(each.start, each.stop, BLOCK_ROWS)
        ]
        table = pa.concat_tables(tables or [ROW_SCHEMA.empty_table()])
        if self.general is not None:
            first, end = each.general
            table = spread(table, self.general.table.slice(first, end - first))
        table = table.combine_chunks()
        with writing(self.path.parent):
            return write_shard_file(table, place.with_suffix(".parquet"), each.split)

    def missing(self) -> list[int]:
        """Shards that nobody has made yet."""
        return [number for number in range(len(self.ranges)) if not self._is_made(number)]

    def _is_made(self, number: int) -> bool:
        place = self.path / f"shard-{number:05d}"
        return all(place.with_suffix(end).is_file() for end in (".json", ".parquet"))


def ranges_of(plan: Plan, splits: Sequence[Split], rows_per_shard: int) -> list[Range]:
    """Shards of at least so many rows, but for the last of a split; `splits` by chain."""
    starts = plan.row_starts
    split_of = np.array([list(Split).index(split) for split in splits], dtype=np.int8)
    found: list[Range] = []
    begin = 0
    for place in range(1, len(starts)):
        here = split_of[plan.chain[starts[place] - 1]]
        ends_split = place == len(starts) - 1 or split_of[plan.chain[starts[place]]] != here
        if ends_split or starts[place] - begin >= rows_per_shard:
            split = list(Split)[int(here)]
            found.append(Range(start=int(begin), stop=int(starts[place]), split=split))
            begin = starts[place]
    return found


def with_general(
    ranges: Sequence[Range], table: pa.Table, order: str, rows_per_shard: int
) -> list[Range]:
    """The shards with the general rows of `table` in them: among those of train, or before them."""
    ends = np.array([0, *image_ends(table)])
    if order == "after":
        places = np.arange(rows_per_shard, len(table), rows_per_shard)
        own = pairwise([0, *_nearest(ends, places), len(table)])
        first = [Range(start=0, stop=0, split=Split.TRAIN, general=cut) for cut in own]
        return [*first, *ranges]
    sizes = [each.stop - each.start if each.split is Split.TRAIN else 0 for each in ranges]
    borders = [0, *_nearest(ends, np.cumsum(sizes) / sum(sizes) * len(table))]
    return [replace(each, general=cut) for each, cut in zip(ranges, pairwise(borders), strict=True)]


def _nearest(ends: Positions, places: npt.NDArray[Any]) -> list[int]:
    """For each place the end of an image that is nearest to it."""
    return [int(ends[np.abs(ends - place).argmin()]) for place in places]


def _dump(words: Words) -> dict[str, Any]:
    families = words.templates.families.items()
    return {
        "families": {name: family.model_dump(mode="json") for name, family in families},
        "caps": dict(words.templates.caps),
        "taxonomy": words.taxonomy.model_dump(mode="json"),
    }


def _save(folder: Path, columns: Any) -> None:
    """Each array of a dataclass as a file of its own."""
    folder.mkdir()
    texts = {}
    for each in fields(columns):
        value = getattr(columns, each.name)
        if isinstance(value, pa.Array):
            texts[each.name] = value
        elif isinstance(value, np.ndarray):
            np.save(folder / f"{each.name}.npy", value, allow_pickle=False)
    if texts:
        _save_texts(folder / "texts", texts)


def _load(folder: Path, kind: type) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    for each in fields(kind):
        path = folder / f"{each.name}.npy"
        if path.is_file():
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            loaded[each.name] = np.asarray(mapped)  # a plain array: slices of it cost less
    if (folder / "texts").is_dir():
        loaded |= _load_texts(folder / "texts")
    return loaded


def _save_texts(folder: Path, texts: Mapping[str, pa.Array]) -> None:
    folder.mkdir()
    for name, column in texts.items():
        table = pa.table({name: column})
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema) as file:
            file.write_table(table)


def _load_texts(folder: Path) -> dict[str, pa.Array]:
    loaded = {}
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            column = pa.ipc.open_file(source).read_all().column(0)
        loaded[path.stem] = column.combine_chunks()
    return loaded
