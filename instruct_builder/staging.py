"""A build under way, on the disk, so that any process can plan any part and make any shard of it.

What is here is decided by the digest of the build. A build that was killed finds its plans and its
finished shards again; every plan and every shard has the same bytes, whoever makes it, and appears
whole or not at all. Arrays are mapped into memory, so the processes of one machine share them.
"""

from __future__ import annotations

import json
import os
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
from instruct_builder.candidates import Asker
from instruct_builder.columns import Chains, Positions
from instruct_builder.general import GeneralRows, spread
from instruct_builder.plan import Plan, Quota, Turns, joined, plan_split
from instruct_builder.shards import ROW_SCHEMA, StagedShard, image_ends, write_shard_file, writing
from instruct_builder.templates import Family, Templates
from instruct_builder.words import ImageColumns, Words

FOLDER = ".build.partial"
"""in the folder of a set; a name that a set may hold (`shards`)"""
READY = "ready.json"
"""written last by `prepare`: the digest of the build, and its parts"""
RANGES = "ranges.json"
"""the shards: of a part in its folder, of the build beside those, written last"""
RECIPE = "recipe.json"
GENERAL = "general"
BLOCK_ROWS = 65_536
"""rows that are worded at a time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The chains of one split, from the first to before the last: planned by themselves."""

    split: Split
    start: int
    stop: int
    quota: Quota | None = None
    """without it each family takes what the recipe allows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The rows of one shard: whole images of one part, counted from its first row."""

    part: int
    start: int
    stop: int
    split: Split
    general: tuple[int, int] = (0, 0)
    """the general rows among them, from the first to before the second"""

    @property
    def name(self) -> str:
        """Of the file, while the build is under way."""
        return f"shard-{self.part}-{self.start:09d}-{self.stop:09d}-{self.general[0]:09d}"


@dataclass(frozen=True)
class Staging:
    """The folder of a build under way."""

    path: Path

    def is_for(self, digest: str) -> bool:
        """Whether all that this very build needs is here."""
        ready = self.path / READY
        return ready.is_file() and json.loads(ready.read_bytes())["digest"] == digest

    def prepare(
        self,
        digest: str,
        chains: Chains,
        images: ImageColumns,
        words: Words,
        parts: Sequence[Part],
        *,
        seed: int,
        rows_per_shard: int,
    ) -> None:
        """Write all that plans and shards are made from, in the place of whatever was here."""
        self.clear()
        with writing(self.path.parent):
            self.path.mkdir(parents=True)
            _save(self.path / "chains", chains)
            _save_texts(self.path / "images", images.columns)
            (self.path / RECIPE).write_text(json.dumps(_dump(words)), encoding="utf-8")
            ready = {
                "digest": digest,
                "seed": seed,
                "rows_per_shard": rows_per_shard,
                "parts": [asdict(each) for each in parts],
            }
            _write(self.path / READY, ready)

    def clear(self) -> None:
        """Give the build up."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def began_ns(self) -> int:
        """When this build was prepared: another one in the same folder has another number."""
        return (self.path / READY).stat().st_mtime_ns

    @cached_property
    def _ready(self) -> dict[str, Any]:
        return dict(json.loads((self.path / READY).read_bytes()))

    @cached_property
    def parts(self) -> list[Part]:
        """In the order of their rows."""
        return [Part(**{**each, "split": Split(each["split"])}) for each in self._ready["parts"]]

    @cached_property
    def chains(self) -> Chains:
        """All chains, part by part."""
        return Chains(**_load(self.path / "chains", Chains))

    @cached_property
    def images(self) -> ImageColumns:
        return ImageColumns(_load_texts(self.path / "images"))

    @cached_property
    def words(self) -> Words:
        values = json.loads((self.path / RECIPE).read_bytes())
        families = {name: Family.model_validate(each) for name, each in values["families"].items()}
        return Words(
            Templates(families, values["caps"]), Taxonomy.model_validate(values["taxonomy"])
        )

    # Plans

    def unplanned(self) -> list[int]:
        """Parts that nobody has planned yet, the largest first."""
        sizes = {number: each.stop - each.start for number, each in enumerate(self.parts)}
        missing = [number for number in sizes if not self._plan_folder(number).is_dir()]
        return sorted(missing, key=lambda number: -sizes[number])

    def plan_part(self, number: int) -> list[Range]:
        """Decide every row of a part, unless that was done before; gives its shards."""
        folder = self._plan_folder(number)
        if not folder.is_dir():
            part, rows_per_shard = self.parts[number], self._ready["rows_per_shard"]
            plan = plan_split(self.asker(number), part.quota)
            ranges = ranges_of(plan, number, part.split, rows_per_shard)
            with writing(self.path.parent):
                partial = folder.with_name(f"{folder.name}.{os.getpid()}.new")
                partial.mkdir()
                _save(partial / "turns", plan.turns)
                _save(partial / "rows", plan)
                _write(partial / RANGES, [asdict(each) for each in ranges])
                partial.replace(folder)
        return self.ranges_of_part(number)

    def asker(self, number: int) -> Asker:
        """Asks the chains of a part."""
        words = self.words
        return Asker(self._chains_of(number), words.templates, words.taxonomy, self._ready["seed"])

    def ranges_of_part(self, number: int) -> list[Range]:
        """The shards of a planned part, without general rows."""
        return _read_ranges(self._plan_folder(number) / RANGES)

    def complete(self, ranges: Sequence[Range], general: GeneralRows | None) -> None:
        """Settle which shards there are, now that all parts are planned."""
        with writing(self.path.parent):
            if general is not None:
                general.save(self.path / GENERAL)
            _write(self.path / RANGES, [asdict(each) for each in ranges])

    @property
    def is_complete(self) -> bool:
        """Whether it is settled which shards there are."""
        return (self.path / RANGES).is_file()

    @cached_property
    def ranges(self) -> list[Range]:
        """The shards of the build, in their order."""
        return _read_ranges(self.path / RANGES)

    @cached_property
    def general(self) -> GeneralRows | None:
        """The general rows of the set, where it has any."""
        folder = self.path / GENERAL
        return GeneralRows.load(folder) if folder.is_dir() else None

    @cached_property
    def plan(self) -> Plan:
        """All parts together."""
        numbers = range(len(self.parts))
        return joined([*map(self._plan_of, numbers)], [*map(self._chains_of, numbers)])

    def _plan_folder(self, number: int) -> Path:
        return self.path / f"plan-{number}"

    def _plan_of(self, number: int) -> Plan:
        folder = self._plan_folder(number)
        return Plan(**_load(folder / "rows", Plan), turns=Turns(**_load(folder / "turns", Turns)))

    def _chains_of(self, number: int) -> Chains:
        return self.chains.take(self.parts[number].start, self.parts[number].stop)

    # Rows

    def rows_of(self, chain: int) -> pa.Table:
        """The rows of one chain, by its number among all, in ROW_SCHEMA."""
        number = next(n for n, each in enumerate(self.parts) if chain < each.stop)
        part = self.parts[number]
        own = np.array([chain, chain + 1]) - part.start
        start, stop = np.searchsorted(self._plan_of(number).chain, own).tolist()
        rows = Range(part=number, start=start, stop=stop, split=part.split)
        return pa.concat_tables(self._worded(rows))

    def picked_rows(self, rows: Positions) -> pa.Table:
        """Some rows, by ascending number, in ROW_SCHEMA."""
        return self.words.table(self.plan.pick(rows), self.chains, self.images)

    # Shards

    def make_shard(self, number: int) -> StagedShard:
        """One shard of a complete plan, made now or before."""
        return self.make(self.ranges[number])

    def make(self, rows: Range) -> StagedShard:
        """The shard of some rows, made now or before."""
        place = self.path / rows.name
        if self._is_made(rows):
            return StagedShard.read(place.with_suffix(".json"))
        table = pa.concat_tables(self._worded(rows))
        if self.general is not None:
            first, end = rows.general
            table = spread(table, self.general.table.slice(first, end - first))
        table = table.combine_chunks()
        with writing(self.path.parent):
            return write_shard_file(table, place.with_suffix(".parquet"), rows.split)

    def _worded(self, rows: Range) -> list[pa.Table]:
        part, plan = self.parts[rows.part], self._plan_of(rows.part)
        chains, images = self._chains_of(rows.part), self.images.slice(part.start, part.stop)
        return [
            self.words.table(plan.take(at, min(at + BLOCK_ROWS, rows.stop)), chains, images)
            for at in range(rows.start, rows.stop, BLOCK_ROWS)
        ] or [ROW_SCHEMA.empty_table()]

    def missing(self) -> list[int]:
        """Shards that nobody has made yet."""
        return [number for number, each in enumerate(self.ranges) if not self._is_made(each)]

    def _is_made(self, rows: Range) -> bool:
        place = self.path / rows.name
        return all(place.with_suffix(end).is_file() for end in (".json", ".parquet"))


def ranges_of(plan: Plan, part: int, split: Split, rows_per_shard: int) -> list[Range]:
    """Shards of at least so many rows of a part, but for the last."""
    ends = plan.row_starts[1:] if len(plan) else np.zeros(0, dtype=np.int64)
    found: list[Range] = []
    begin = 0
    while begin < len(plan):
        place = int(np.searchsorted(ends, begin + rows_per_shard))
        stop = int(ends[min(place, len(ends) - 1)])
        found.append(Range(part=part, start=begin, stop=stop, split=split))
        begin = stop
    return found


def with_general(
    ranges: Sequence[Range], table: pa.Table, order: str, rows_per_shard: int
) -> list[Range]:
    """The shards with the general rows of `table` in them: among those of train, or before them."""
    ends = np.array([0, *image_ends(table)])
    if order == "after":
        places = np.arange(rows_per_shard, len(table), rows_per_shard)
        own = pairwise([0, *_nearest(ends, places), len(table)])
        first = [Range(part=0, start=0, stop=0, split=Split.TRAIN, general=cut) for cut in own]
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


def _write(path: Path, value: Any) -> None:
    """The file appears whole."""
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def _read_ranges(path: Path) -> list[Range]:
    return [
        Range(**{**each, "split": Split(each["split"]), "general": tuple(each["general"])})
        for each in json.loads(path.read_bytes())
    ]


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
        batch = pa.record_batch({name: column})
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), batch.schema) as file:
            file.write_batch(batch)


def _load_texts(folder: Path) -> dict[str, pa.Array]:
    loaded = {}
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            loaded[path.stem] = pa.ipc.open_file(source).get_batch(0).column(0)
    return loaded
