"""`manifest.json`: what a shard set says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError
from core.records import ReviewLevel, Split

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecipeStamp(_Frozen):
    """Which recipe made the set."""

    name: str
    digest: str


class PartFact(_Frozen):
    """Something that a set is made of, and under which terms."""

    name: str
    licence: str = "unknown"
    """`unknown` when nobody said"""
    terms: str = ""
    """what its owner or maker asks beyond the licence"""
    may_train: bool = True


class TeacherFact(PartFact):
    """Who drafted, and for how many chains."""

    simulated: bool
    chains: int


class SourceFact(PartFact):
    """One source of images."""


class GeneralFact(_Frozen):
    """The general instruction set that was mixed in; its terms stand among the sources."""

    name: str
    sha256: str
    """of its file of conversations"""
    share: float
    """of the instructions to train on"""
    order: str
    """`mix`: among the others; `after`: the others come after all of them"""


class LicenceFact(_Frozen):
    """The licence of the whole set: the strictest among those of its sources and teachers."""

    statement: str
    because: str
    conditions: tuple[str, ...] = ()
    """what sources and teachers ask beyond their licences; all of it holds for the set"""


class FormFact(_Frozen):
    """What a reader must know of a form: how it is answered, and what its question gives away."""

    family: str
    targets: tuple[str, ...]
    """closed answers that occur; empty for an open form"""
    states_verdict: bool
    """the question itself says whether the image is real"""


class CheckFact(_Frozen):
    """One check that was passed before publishing, with its figures."""

    says: str
    figures: dict[str, int | float | str]


class ShardFile(_Frozen):
    """One file of the set; `rows` and `split` are set where they apply."""

    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    rows: int | None
    bytes: int
    sha256: str
    split: Split | None = None


class BuildFacts(_Frozen):
    """What is known of a set besides its files and counts."""

    recipe: RecipeStamp
    builder_digest: str
    """SHA-256 over the program code that makes rows of chains"""
    seed: int
    chains_digest: str
    """hash of the ordered chains and of what is known of their images"""
    arms: tuple[str, ...]
    min_review: ReviewLevel
    simulated: bool
    statement: str
    """one sentence on who looked at the images"""
    teachers: tuple[TeacherFact, ...]
    editors: tuple[TeacherFact, ...] = ()
    """who reworded texts, and of how many chains"""
    rows_asked: int | None = None
    """of how many rows the set was to be; without it, of what the recipe allows"""
    rewordings: str | None = None
    """SHA-256 of the table of rewordings, if the build was given one"""
    general: GeneralFact | None = None
    simulated_generators: tuple[str, ...] = ()
    """generators of the set that are programs of the demo, no models"""
    sources: tuple[SourceFact, ...]
    licence: LicenceFact
    tombstones: tuple[str, ...] = ()
    """withdrawn images that have chains: neither they nor anything computed from them is used"""
    forms: dict[str, FormFact]
    left_out: dict[str, int] = {}
    """chains that did not enter, by reason"""
    checks: dict[str, CheckFact]


class RemovalFact(_Frozen):
    """Withdrawn images that were taken out of the set after it was published."""

    image_ids: tuple[str, ...]
    rows: int
    images_sha256: str
    """of the `images.parquet` that still held them, by which run folders know the set"""


class Manifest(BuildFacts):
    """`manifest.json`."""

    schema_version: int
    rows: int
    images: int
    chains: int
    counts: dict[str, dict[str, int]]
    """rows by value of each column in COUNTED"""
    image_counts: dict[str, dict[str, int]]
    """images by label, split, generator and source"""
    files: tuple[ShardFile, ...]
    removals: tuple[RemovalFact, ...] = ()
    """oldest first; the checks were made before them"""

    def families(self) -> dict[str, int]:
        """Rows by family, in the order of the recipe."""
        names = dict.fromkeys(form.family for form in self.forms.values())
        return {name: self.counts["family"].get(name, 0) for name in names}


def warnings_of(facts: BuildFacts) -> list[str]:
    """What the checks warn of: a check that warns says so in its figure `warning`."""
    figures = (check.figures for _, check in sorted(facts.checks.items()))
    return [str(found["warning"]) for found in figures if "warning" in found]


def review_levels(manifest: Manifest) -> set[ReviewLevel]:
    """The levels that occur; rows of a general set have none."""
    known = {level.value for level in ReviewLevel}
    counted = manifest.counts.get("review_level", {})
    return {ReviewLevel(level) for level in counted if level in known}


def caveats(manifest: Manifest) -> list[str]:
    """What a reader must know before believing a word of the set."""
    lines = [f"Warning: {warning}." for warning in warnings_of(manifest)]
    if manifest.simulated:
        lines.append(
            "The rehearsal teacher is a program that measures pixels and puts the figures into "
            "words. No vision-language model looked at its images."
        )
    if manifest.editors:
        names = ", ".join(editor.name for editor in manifest.editors)
        lines.append(
            f"Some texts stand in the words of {names}. A program compared them with the "
            "originals; nobody else did."
        )
    if any(editor.simulated for editor in manifest.editors):
        lines.append("The rehearsal teacher rewords by replacing phrases. It is no language model.")
    if review_levels(manifest) == {ReviewLevel.DRAFT}:
        lines.append("No expert has checked any of this.")
    if manifest.general is not None:
        rows = manifest.counts.get("source", {}).get(manifest.general.name, 0)
        lines.append(
            f"{rows:,} instructions are of the general set {manifest.general.name}: nothing is "
            "known of the origin of their images, and nobody here has read them."
        )
    if manifest.simulated_generators:
        names = ", ".join(manifest.simulated_generators)
        lines.append(f"Simulated generators, programs that leave the traces of real ones: {names}.")
    if manifest.removals:
        images = sum(len(removal.image_ids) for removal in manifest.removals)
        rows = sum(removal.rows for removal in manifest.removals)
        lines.append(
            f"Withdrawn since it was built: {images} images with {rows} instructions. The figures "
            "of the checks and of each teacher are those of the build."
        )
    lines.append(
        "Rationales are written after the fact, from a label that was known. They are no proof of "
        "what decided anything."
    )
    return lines


def read_manifest(folder: Path) -> Manifest:
    """`manifest.json` of a published set; a ConfigError says what is wrong with it."""
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_bytes())
        _check_version(path, data)
        return Manifest.model_validate(data)
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} is no shard set: it has no {MANIFEST}; a build that ended early has none"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no manifest of a shard set: {_first_problem(error)}") from None


def _check_version(path: Path, data: Any) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
            "build the set again"
        )


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return " ".join(str(error).split())
