"""Load and validate a recipe folder: everything an experiment is, as data."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from core.errors import ConfigError
from core.ids import canonical_json, sha256_text
from core.records import Authenticity, Exemplar, ReviewLevel
from core.settings import Settings
from core.split import SplitPlan
from core.taxonomy import Taxonomy

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
DEFAULT_RECIPE = RECIPES / "fakescope"
REHEARSAL = "rehearsal"
"""the teacher that measures pixels on localhost; no vision-language model"""
EXEMPLARS_FILE = "exemplars.yaml"

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(Strict):
    """One way of drafting: a teacher and a mode."""

    name: str
    teacher: str
    """`rehearsal`, or the address (base URL) of an OpenAI-compatible server"""
    model: str
    mode: str
    """names the prompt: `prompts/<mode>.jinja`"""
    temperature: float = 0.0
    max_output_tokens: int = Field(1200, ge=64)
    detail: Literal["auto", "low", "high", "original"] = "high"


class Demonstrations(Strict):
    """Whether prompts that have a place for exemplars show them."""

    use: bool = True


class Drafting(Strict):
    """How images get their drafts."""

    arms: tuple[Arm, ...] = Field(min_length=1)
    chain_arm: str
    """the arm whose drafts become chains"""
    guidance: Literal["none", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "none"
    """trace categories that steer the teacher where no expert has chosen any"""
    demonstrations: Demonstrations = Demonstrations()
    calls_in_flight: int = Field(16, ge=1, le=256)
    claim_size: int = Field(64, ge=1, le=1000)
    claim_seconds: int = Field(300, ge=10)
    max_tries: int = Field(4, ge=1)
    """calls for one image that failed in passing, before it is quarantined"""
    max_reasks: int = Field(2, ge=0)
    """further calls after a reply that could not be used"""


class Review(Strict):
    """How much checking a build asks for, and what `agreed` means."""

    min_review: ReviewLevel
    agreed_corrections: int = Field(2, ge=2)
    agreed_overlap: float = Field(0.5, ge=0, le=1)
    """least Jaccard index of the accepted categories"""


class Audit(Strict):
    """When size, format and JPEG quality alone tell real from fake too well, and what follows."""

    on_shortcut: Literal["warn", "stop", "ignore"] = "warn"
    """`warn` stops a release too; `ignore` only records the figures"""
    metadata_auc: float = Field(0.6, ge=0.5, le=1)
    """a shortcut is there when the lower end of the AUC's 95 % interval is above this"""


class SplitSettings(Strict):
    """Shares of the splits by component, and generators kept for the test split."""

    train: float = Field(gt=0, le=1)
    val: float = Field(ge=0, le=1)
    test: float = Field(ge=0, le=1)
    seed: int
    holdout_generators: tuple[str, ...] = ()

    @field_validator("test")
    @classmethod
    def _shares_sum_to_one(cls, test: float, info: Any) -> float:
        total = info.data.get("train", 0) + info.data.get("val", 0) + test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, val and test must add up to 1, not {total:g}")
        return test

    def plan(self) -> SplitPlan:
        return SplitPlan(**self.model_dump())


class Build(Strict):
    """Size and mix of FakeInstruct."""

    seed: int
    rows_per_shard: int = Field(50_000, ge=100)
    rows_per_chain: dict[str, int]
    """at most so many instructions of each family from one chain"""


class Demo(Strict):
    """The demo that fills an empty default database."""

    seed: int
    crops: int = Field(ge=32)
    crop_size: int = Field(ge=64)
    generators: tuple[str, ...] = Field(min_length=1)
    jpeg_quality: tuple[int, int]
    """both classes draw their quality from this range, inclusive"""
    preview_images: int = Field(24, ge=1)


class RecipeFile(Strict):
    """`recipe.yaml`."""

    name: str
    title: str
    drafting: Drafting
    review: Review
    audit: Audit = Audit()
    split: SplitSettings
    build: Build
    demo: Demo


class ExemplarEntry(Strict):
    """One exemplar as `exemplars.yaml` spells it."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    label: Authenticity
    categories: tuple[str, ...] = Field(min_length=1)
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    simulated: bool = False

    def record(self) -> Exemplar:
        return Exemplar(exemplar_id=self.id, **self.model_dump(exclude={"id"}))


class ExemplarFile(Strict):
    """`exemplars.yaml`: none, or some of either kind."""

    exemplars: tuple[ExemplarEntry, ...]

    @field_validator("exemplars")
    @classmethod
    def _ids_differ(cls, exemplars: tuple[ExemplarEntry, ...]) -> tuple[ExemplarEntry, ...]:
        ids = [exemplar.id for exemplar in exemplars]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"exemplar ids must differ: {', '.join(twice)}")
        return exemplars

    @field_validator("exemplars")
    @classmethod
    def _both_labels_occur(cls, exemplars: tuple[ExemplarEntry, ...]) -> tuple[ExemplarEntry, ...]:
        missing = set(Authenticity) - {exemplar.label for exemplar in exemplars}
        if exemplars and missing:
            raise ValueError(f"needs at least one {missing.pop()} exemplar beside the others")
        return exemplars


class Recipe(Strict):
    """A whole recipe folder, read and checked."""

    folder: Path
    digest: str
    """SHA-256 over every file that decides drafts, chains and instructions"""
    drafting_digest: str
    """SHA-256 over what decides drafts alone; names a campaign"""
    settings: RecipeFile
    taxonomy: Taxonomy
    prompts: Mapping[str, str]
    """template text by file stem"""
    instructions: Mapping[str, Any]
    """parsed YAML by file stem"""
    rehearsal: Mapping[str, Any]
    """rules of the rehearsal teacher, parsed YAML"""
    exemplars: tuple[Exemplar, ...] = ()
    """what demonstrations are chosen from"""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.settings.drafting.arms

    @property
    def guidance(self) -> tuple[str, ...]:
        """The categories that steer where no expert has chosen any, in the taxonomy's order."""
        chosen = self.settings.drafting.guidance
        if chosen == "none":
            return ()
        return tuple(name for name in self.taxonomy.ids if chosen == "all" or name in chosen)

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = ", ".join(arm.name for arm in self.arms)
        raise ConfigError(f"recipe {self.name} has no arm {name!r}; it has: {known}")


def load_recipe(folder: Path = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe folder; an unknown key is a ConfigError that suggests the right one."""
    if not (folder / "recipe.yaml").is_file():
        raise ConfigError(f"{folder} is no recipe: it has no recipe.yaml")
    settings = read_model(folder / "recipe.yaml", RecipeFile)
    recipe = Recipe(
        folder=folder,
        digest=_digest(folder, "."),
        drafting_digest=_drafting_digest(folder, settings.drafting),
        settings=settings,
        taxonomy=read_model(folder / "taxonomy.yaml", Taxonomy),
        prompts={p.stem: _read_text(p) for p in sorted((folder / "prompts").glob("*.jinja"))},
        instructions={
            p.stem: read_yaml(p) for p in sorted((folder / "instructions").glob("*.yaml"))
        },
        rehearsal=read_yaml(folder / "rehearsal.yaml"),
        exemplars=_read_exemplars(folder / EXEMPLARS_FILE),
    )
    _check_references(recipe)
    return recipe


def configured_recipe(folder: Path, settings: Settings) -> Recipe:
    """The recipe as this deployment runs it: `rehearsal` arms go to the configured teacher, if any.

    The teacher is part of what decides a draft, so another teacher means another campaign.
    """
    recipe = load_recipe(folder)
    base_url = settings.openai_base_url
    if base_url is None:
        return recipe
    if settings.openai_model is None and any(a.teacher == REHEARSAL for a in recipe.arms):
        raise ConfigError("OPENAI_BASE_URL names a teacher: name its model in OPENAI_MODEL too")
    arms = tuple(
        arm.model_copy(update={"teacher": base_url, "model": settings.openai_model})
        if arm.teacher == REHEARSAL
        else arm
        for arm in recipe.arms
    )
    drafting = recipe.settings.drafting.model_copy(update={"arms": arms})
    return recipe.model_copy(
        update={
            "settings": recipe.settings.model_copy(update={"drafting": drafting}),
            "drafting_digest": _drafting_digest(folder, drafting),
        }
    )


def _drafting_digest(folder: Path, drafting: Drafting) -> str:
    settings = drafting.model_dump(mode="json", include={"arms", "guidance", "demonstrations"})
    return sha256_text(
        canonical_json(settings)
        + _digest(folder, "prompts", "taxonomy.yaml", "rehearsal.yaml", EXEMPLARS_FILE)
    )


def _read_exemplars(path: Path) -> tuple[Exemplar, ...]:
    if not path.is_file():
        return ()
    return tuple(entry.record() for entry in read_model(path, ExemplarFile).exemplars)


def _check_references(recipe: Recipe) -> None:
    recipe.arm(recipe.settings.drafting.chain_arm)
    for arm in recipe.arms:
        if arm.mode not in recipe.prompts:
            raise ConfigError(
                f"recipe {recipe.name}, arm {arm.name}: there is no prompts/{arm.mode}.jinja"
            )
    guidance = recipe.settings.drafting.guidance
    if not isinstance(guidance, str):
        _check_categories(recipe, guidance, where="recipe.yaml: drafting.guidance")
    for exemplar in recipe.exemplars:
        where = f"{EXEMPLARS_FILE}: exemplar {exemplar.exemplar_id}"
        _check_categories(recipe, exemplar.categories, where=where)


def _check_categories(recipe: Recipe, names: tuple[str, ...], *, where: str) -> None:
    for name in names:
        if name not in recipe.taxonomy:
            raise ConfigError(
                f"{recipe.folder / where}: unknown trace category {name!r}"
                f"{_suggest(name, recipe.taxonomy.ids)}"
            )


def _digest(folder: Path, *parts: str) -> str:
    """Hash the files below `parts`; training settings decide nothing before training."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        chosen = any(part in (".", relative.parts[0]) for part in parts)
        if path.is_file() and chosen and relative.parts[0] != "training":
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file safely; a broken or missing one is a ConfigError that names the line."""
    try:
        return yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def read_model(path: Path, model: type[Model]) -> Model:
    """Parse a YAML file into a pydantic model."""
    return parse_model(read_yaml(path), model, where=str(path))


def parse_model(value: Any, model: type[Model], *, where: str) -> Model:
    """Validate parsed YAML; all problems in one ConfigError, unknown keys with a suggestion."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(_explain(item, model) for item in error.errors())
        raise ConfigError(f"{where}: {problems}") from None


def _explain(item: Any, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{place}: {item['msg']}"
    return f"{place}: unknown key{_suggest(str(item['loc'][-1]), _field_names(model))}"


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _field_names(model: type[BaseModel]) -> set[str]:
    """The field names of a model and of every model inside it."""
    names: set[str] = set()
    waiting: list[Any] = [model]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(kind.model_fields)
            waiting.extend(field.annotation for field in kind.model_fields.values())
        else:
            waiting.extend(getattr(kind, "__args__", ()))
    return names
