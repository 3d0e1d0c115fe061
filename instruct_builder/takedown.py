"""The use case: an image is withdrawn, and every place that this command can reach lets go of it.

Each step can be done again. The tombstone comes first, so that whatever happens afterwards nothing
new is begun about the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.errors import ConfigError, StateError
from core.printable import printable
from core.records import Tombstone
from db.chains import chain_ids_of
from db.engine import Database
from db.images import copies_of, images_by_id, kin_of
from db.remains import Remains, remains_of
from db.tombstones import LetGo, tombstones, withdraw
from imaging.store import ImageStore
from instruct_builder.addresses import amended_at, folder_at, is_there, shown
from instruct_builder.manifest import MANIFEST, Manifest
from instruct_builder.removal import Removed, remove_images
from instruct_builder.rewordings import remove_chains
from instruct_builder.shards import IMAGES, ShardSet

RUN_FILES = ("config.yaml", MANIFEST)
"""by which a run folder is known"""
FEATURES = ".safetensors"
"""after the id of an image: its vision features, as training keeps them in a folder of folders"""
PREDICTIONS = "predictions.jsonl"
"""of a run folder: one image per line"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendedSet:
    """What became of one of the shard sets that were named."""

    place: str
    """folder or address"""
    removed: Removed | None
    problem: str | None
    """why it still is as it was"""
    versions: dict[str, bool]
    """by the SHA-256 of the `images.parquet` of each version of it, whether it held the image"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinding:
    """What a run folder has to do with the image."""

    folder: Path
    held: bool | None
    """whether its shard set held the image; None: it is another one than those that were named"""
    predictions: int
    """lines about the image"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takedown:
    """What was done about an image, and what remains where."""

    tombstone: Tombstone
    copies: tuple[str, ...]
    """withdrawn with it: what `python -m generation normalise` made of it"""
    let_go: LetGo
    files_removed: tuple[str, ...]
    """from the image store"""
    sets: tuple[AmendedSet, ...]
    reworded: dict[str, int]
    """rewordings that went, by the table that held them"""
    features: dict[str, int]
    """files of vision features of it that went, by the folder that training kept them in"""
    runs: tuple[RunFinding, ...]
    remains: Remains
    kin: tuple[str, ...]
    """near-duplicates and other images of its group, which stay"""

    @property
    def is_done(self) -> bool:
        return all(amended.problem is None for amended in self.sets)


def take_down(  # noqa: PLR0913 - a use case and its options
    database: Database,
    store: ImageStore,
    image_id: str,
    *,
    reason: str,
    now: datetime,
    work: Path,
    shards: Sequence[str | Path] = (),
    runs: Sequence[Path] = (),
    rewordings: Sequence[Path] = (),
    features: Sequence[Path] = (),
) -> Takedown:
    """Withdraw an image and the copies made of it; again, it does what is missing.

    `shards` are folders or addresses of shard sets, which need not be of this database; those that
    are elsewhere are amended below `work`. `runs` are run folders, or folders of them; `rewordings`
    are tables of `rewrite`; `features` are folders in which training keeps vision features.
    ConfigError when a folder is not there, or when neither the database nor one of the sets knows
    the image. A set that cannot be written is reported, and the rest goes on.
    """
    places = [str(place) for place in shards]
    _check_places([*places, *map(str, (*runs, *features))])
    stones = _bury(database, image_id, places, reason=reason, now=now)
    ids = [stone.image_id for stone in stones]
    let_go = [withdraw(database, stone) for stone in stones]
    removed = [place for stone in stones for place in store.remove(stone.sha256)]
    sets = [_amend(place, ids, work) for place in places]
    with database.read() as session:
        chain_ids = chain_ids_of(session, ids)
        standing = next(stone for stone in tombstones(session) if stone.image_id == image_id)
        image = images_by_id(session, [image_id]).get(image_id)
        kin = kin_of(session, image) if image else []
        remains = remains_of(session, image_id)
    return Takedown(
        tombstone=standing,
        copies=tuple(ids[1:]),
        let_go=LetGo(*map(sum, zip(*let_go, strict=True))),
        files_removed=tuple(removed),
        sets=tuple(sets),
        reworded={str(path): remove_chains(path, chain_ids) for path in rewordings},
        features={str(folder): remove_features(folder, ids) for folder in features},
        runs=tuple(_look_at_runs(runs, sets, image_id)),
        remains=remains,
        kin=tuple(relative.image_id for relative in kin),
    )


def _check_places(places: Sequence[str]) -> None:
    for place in places:
        if not is_there(place):
            raise ConfigError(f"{shown(place)}: there is no such folder; nothing was withdrawn")


def _bury(
    database: Database, image_id: str, shards: Sequence[str], *, reason: str, now: datetime
) -> list[Tombstone]:
    """Tombstones of the image, first, and of the copies made of it."""
    with database.read() as session:
        image = images_by_id(session, [image_id]).get(image_id)
        found = [image, *copies_of(session, image)] if image else []
        known = [stone for stone in tombstones(session) if stone.image_id == image_id]
    if not found and known:
        return known
    hashes = [(one.image_id, one.sha256, one.original_sha256) for one in found]
    hashes = hashes or [(image_id, *_hashes_in_sets(image_id, shards))]
    return [
        Tombstone(
            image_id=one, sha256=sha256, original_sha256=original, reason=reason, withdrawn_at=now
        )
        for one, sha256, original in hashes
    ]


def _hashes_in_sets(image_id: str, shards: Sequence[str]) -> tuple[str, str]:
    """SHA-256 of the stored bytes and of the user's file, from the first set that says them."""
    for place in shards:
        with folder_at(place) as folder:
            for row in ShardSet.open(folder).images().to_pylist():
                if row["image_id"] == image_id:
                    return row["sha256"], row["original_sha256"]
    raise ConfigError(
        f"{image_id}: neither the database nor a shard set given with --shards knows this image"
    )


def _amend(place: str, image_ids: Sequence[str], work: Path) -> AmendedSet:
    """Take images out of a set; `versions` are about the first of them."""
    removed, problem = None, None
    versions: dict[str, bool] = {}
    try:
        with amended_at(place, work, last=MANIFEST) as folder:
            try:
                removed = remove_images(folder, image_ids)
            finally:
                versions = _versions(folder, image_ids[0])
    except (ConfigError, StateError) as error:
        removed, problem = None, str(error)
    return AmendedSet(place=shown(place), removed=removed, problem=problem, versions=versions)


def remove_features(folder: Path, image_ids: Sequence[str]) -> int:
    """Delete the files in which training keeps vision features of some images; how many."""
    found = [path for name in image_ids for path in folder.glob(f"*/{name}{FEATURES}")]
    for path in found:
        path.unlink()
    return len(found)


def _look_at_runs(
    runs: Sequence[Path], sets: Sequence[AmendedSet], image_id: str
) -> Iterator[RunFinding]:
    """The run folders that have, or may have, to do with the image."""
    versions = {sha256: held for amended in sets for sha256, held in amended.versions.items()}
    for folder in _run_folders(runs):
        held = versions.get(_images_sha256(folder / MANIFEST))
        predictions = _count_lines(folder / PREDICTIONS, image_id)
        if predictions or held is not False:
            held = True if predictions else held
            yield RunFinding(folder=folder, held=held, predictions=predictions)


def _versions(folder: Path, image_id: str) -> dict[str, bool]:
    """For each version of a set, by the SHA-256 of its `images.parquet`, whether it held it."""
    try:
        shards = ShardSet.open(folder)
        holds = image_id in shards.images(["image_id"])["image_id"].to_pylist()
    except ConfigError:
        return {}
    versions = {_images_file(shards.manifest): holds}
    for removal in reversed(shards.manifest.removals):
        holds = holds or image_id in removal.image_ids
        versions[removal.images_sha256] = holds
    return versions


def _images_file(manifest: Manifest) -> str:
    return next(file.sha256 for file in manifest.files if file.path == IMAGES)


def _run_folders(runs: Sequence[Path]) -> list[Path]:
    found = [path for folder in runs for path in (folder, *sorted(folder.iterdir()))]
    return [path for path in found if all((path / name).is_file() for name in RUN_FILES)]


def _images_sha256(manifest: Path) -> str:
    """What a run's copy of a manifest says, of whichever version of the program it is."""
    try:
        files = json.loads(manifest.read_bytes())["files"]
        return next(str(file["sha256"]) for file in files if file["path"] == IMAGES)
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return ""


def _count_lines(path: Path, image_id: str) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(image_id.encode() in line for line in file)


def as_text(done: Takedown) -> Iterator[str]:
    """What was done, and what remains where; line by line."""
    stone, let_go = done.tombstone, done.let_go
    yield printable(
        f"{stone.image_id} is withdrawn since {stone.withdrawn_at:%Y-%m-%d}: {stone.reason}"
    )
    yield from (f"with it {copy}, which `normalise` made of it" for copy in done.copies)
    yield (
        f"database: {let_go.work} rows of work ended, {let_go.replies} stored replies and "
        f"{let_go.provenance} statements of metadata deleted"
    )
    removed = ", ".join(done.files_removed) or "nothing, it is not there"
    yield f"image store: removed {removed}"
    for amended in done.sets:
        yield f"{amended.place}: {_fate(amended)}"
    yield from (f"{path}: {n} rewordings removed" for path, n in done.reworded.items() if n)
    yield from (
        f"{path}: {n} files of vision features removed" for path, n in done.features.items()
    )
    yield from ("", "What remains, and where:")
    yield from (f"  {line}" for line in _remaining(done))


def _fate(amended: AmendedSet) -> str:
    if amended.removed is None:
        return f"NOT REWRITTEN: {amended.problem}"
    removed = amended.removed
    if not removed.images:
        return "does not hold it"
    files = ", ".join(removed.files)
    return f"{removed.rows} instructions on {removed.images} images removed; rewritten: {files}"


def _remaining(done: Takedown) -> Iterator[str]:
    remains = done.remains
    yield from (f"your own file {printable(file)}" for file in remains.files)
    yield (
        f"in the database, where nothing reads them on: {remains.drafts} drafts, "
        f"{remains.corrections} corrections, {remains.annotation_versions} versions of "
        f"annotations, {remains.chains} chains, {remains.attempts} attempts with their costs"
    )
    for server, tasks in remains.tasks.items():
        yield f"in Label Studio at {server}: {tasks} tasks, deleted by `python -m annotation sync`"
    for batch in remains.batches:
        recipe = f" --recipe {batch.recipe_folder}" if batch.recipe_folder else ""
        yield (
            f"with the teacher: the files of {batch.batch_id} ({batch.state}, recipe "
            f"{batch.recipe}); `python -m generation forget{recipe}` has them deleted"
        )
    yield from (f"run {_run_in_words(run)}" for run in done.runs)
    yield from (f"{kin}, a near-duplicate or of its group: not withdrawn" for kin in done.kin)
    yield "wherever else shard sets, exports, checkpoints or backups were copied to"


def _run_in_words(run: RunFinding) -> str:
    told = f"; {run.predictions} predictions about it" if run.predictions else ""
    if run.held:
        return f"{run.folder}: trained or tested on a set that held it{told}"
    return f"{run.folder}: cannot tell whether its set held it; name that set with --shards{told}"
