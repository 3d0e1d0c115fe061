"""Load and validate a recipe folder: everything an experiment is, as data."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from core.errors import ConfigError
from core.ids import canonical_json, sha256_bytes, sha256_text
from core.limits import Limits
from core.records import Authenticity, Exemplar, ReviewLevel
from core.servers import server_of
from core.settings import Settings
from core.split import SplitPlan
from core.taxonomy import Taxonomy
from core.topics import Topic, Topics

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
RECIPE_FILE = "recipe.yaml"
DEFAULT_RECIPE = RECIPES / "fakescope"
REHEARSAL = "rehearsal"
"""the teacher that measures pixels on localhost; no vision-language model"""
EXEMPLARS_FILE = "exemplars.yaml"
MERGED_FILE = "exemplars-merged.yaml"
"""further exemplars, as `python -m annotation exemplars --write` leaves them"""
GOLD_FILE = "gold.yaml"
TOPICS_FILE = "topics.yaml"
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""ten times as fast where PyYAML was built with libyaml, as its wheels are"""

Model = TypeVar("Model", bound=BaseModel)


def is_simulated(model: str) -> bool:
    """Whether the rehearsal teacher answers under this name: `rehearsal`, or `rehearsal-...`."""
    return model == REHEARSAL or model.startswith(f"{REHEARSAL}-")


class Strict(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Views(Strict):
    """What a teacher is sent of an image longer than the thumbnail: all of it, and crops."""

    thumbnail: int = Field(768, ge=64)
    """pixels of the longer side"""
    crops: int = Field(4, ge=0, le=16)
    """at most so many, at full resolution"""
    crop_size: int = Field(512, ge=64)
    """pixels a side"""
    jpeg_quality: int | None = Field(None, ge=1, le=100)
    """how both are encoded; without it as PNG, which loses nothing"""


class Merge(Strict):
    """How an arm words what other arms agree on; who raised what is counted without it."""

    arms: tuple[str, ...] = Field(min_length=2)
    """whose drafts are read, once each has drafted the image or set it aside"""
    votes: int = Field(2, ge=1)
    """drafts that must raise a point; also the fewest drafts that are merged"""
    opening: str
    """the sentence that the conclusion begins with; `{label}` is real or fake"""

    def opens(self, label: Authenticity) -> str:
        return self.opening.format(label=label.value)

    @field_validator("opening")
    @classmethod
    def _has_only_the_label(cls, opening: str) -> str:
        names = {name for _, name, _, _ in Formatter().parse(opening) if name is not None}
        if names - {"label"}:
            raise ValueError("may hold the placeholder {label} only")
        return opening

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.votes > len(self.arms):
            raise ValueError(f"{len(self.arms)} arms cannot give {self.votes} votes")
        return self


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
    views: Views | None = None
    """without it every image is sent as it is stored, byte for byte"""
    share: float | None = Field(None, gt=0)
    """the arms that have one divide the images among themselves, in this proportion"""
    sample: int | None = Field(None, ge=1)
    """at most so many images, drawn by the seed; without it all"""
    control: bool = False
    """sends photographs alone, without their label, to see which traces a teacher invents"""
    timeout_s: float = Field(120.0, gt=0)
    """how long a reply is waited for; decides no draft"""
    limits: Limits | None = None
    """what its teacher allows in a minute; decides no draft"""
    sorts: bool = False
    """asks what images show of which nobody has said it; drafts nothing"""
    merge: Merge | None = None
    """reads the drafts of other arms, and is shown no picture"""

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if sum((self.control, self.sorts, self.merge is not None)) > 1:
            raise ValueError(f"arm {self.name}: control, sorts and merge exclude one another")
        return self

    @model_validator(mode="after")
    def _a_control_takes_no_share(self) -> Self:
        if self.control and self.share is not None:
            raise ValueError(f"arm {self.name} is a control: it takes no share, give it a sample")
        return self


class Demonstrations(Strict):
    """Whether prompts that have a place for exemplars show them."""

    use: bool = True
    send_pictures: bool = False
    """also the pictures of those exemplars that have one"""


class HardFakes(Strict):
    """Fakes in which there may be nothing to see, and the prompt that says so."""

    mode: str
    """names the prompt that takes the place of the arms' own"""
    generators: tuple[str, ...] = Field(min_length=1)


class BatchSettings(Strict):
    """What a batch may hold, and how `draft --batch --wait` waits; decides no draft."""

    lines: int = Field(50_000, ge=1, le=50_000)
    """requests in one file"""
    bytes: int = Field(200_000_000, ge=1, le=200_000_000)
    """of one file"""
    poll_seconds: float = Field(30.0, gt=0)


class Drafting(Strict):
    """How images get their drafts."""

    arms: tuple[Arm, ...] = Field(min_length=1)
    chain_arms: tuple[str, ...] = Field(min_length=1)
    """the arms whose drafts become chains: one, or some that share the images"""
    seed: int = 1
    """decides shares and samples"""
    blind: bool = False
    """draft only images on which blind experts have settled; what they chose steers the teacher"""
    guidance: Literal["none", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "none"
    """trace categories that steer the teacher where no expert has chosen any"""
    demonstrations: Demonstrations = Demonstrations()
    hard_fakes: HardFakes | None = None
    calls_in_flight: int = Field(16, ge=1, le=256)
    claim_size: int = Field(64, ge=1, le=1000)
    claim_seconds: int = Field(300, ge=10)
    max_tries: int = Field(4, ge=1)
    """calls for one image that failed in passing, before it is quarantined"""
    max_claims: int = Field(20, ge=1)
    """claims of one image whose worker did not live to end them, before it is quarantined"""
    max_reasks: int = Field(2, ge=0)
    """further calls after a reply that could not be used"""
    batch: BatchSettings = BatchSettings()

    @field_validator("arms")
    @classmethod
    def _names_differ(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        names = [arm.name for arm in arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the names of arms must differ: {', '.join(twice)}")
        return arms


class Gold(Strict):
    """Images with known right answers among those that experts see."""

    share: float = Field(0.0, ge=0, le=0.5)
    """of the tasks of each kind, as far as there are gold images"""
    seed: int = 1
    """decides which gold images come first"""


class Blind(Strict):
    """How images are labelled by experts who see nothing but the picture (`drafting.blind`)."""

    misses: int = Field(3, ge=1)
    """wrong verdicts after which an image is set aside as hard"""
    seed: int = 1
    """decides who labels what, and in which order"""


class ExemplarSlots(Strict):
    """How many images experts describe for the exemplar set."""

    fake: int = Field(50, ge=0)
    real: int = Field(50, ge=0)
    seed: int = 1
    """decides between images that would serve equally well"""

    def of(self, label: Authenticity) -> int:
        return self.fake if label is Authenticity.FAKE else self.real


class PreferenceStudy(Strict):
    """Which of two arms writes what experts prefer."""

    arms: tuple[str, str]
    images: int = Field(100, ge=1)
    experts: int = Field(6, ge=1)
    """who judge each image"""
    seed: int = 1
    """decides which images, and which text stands first"""

    @field_validator("arms")
    @classmethod
    def _arms_differ(cls, arms: tuple[str, str]) -> tuple[str, str]:
        if arms[0] == arms[1]:
            raise ValueError(f"{arms[0]} cannot be compared with itself")
        return arms


class Review(Strict):
    """How much checking a build asks for, and what `agreed` means."""

    min_review: ReviewLevel
    agreed_corrections: int = Field(2, ge=2)
    agreed_overlap: float = Field(0.5, ge=0, le=1)
    """least Jaccard index of the accepted categories"""
    gold: Gold = Gold()
    blind: Blind = Blind()
    exemplars: ExemplarSlots | None = None
    """without it no exemplars are made"""
    preference: PreferenceStudy | None = None
    """without it nobody is asked for preferences"""


class Audit(Strict):
    """When size, format and JPEG quality alone tell real from fake too well, and what follows."""

    on_shortcut: Literal["warn", "stop", "ignore"] = "warn"
    """`warn` stops a release too; `ignore` only records the figures"""
    metadata_auc: float = Field(0.6, ge=0.5, le=1)
    """a shortcut is there when the lower end of the AUC's 95 % interval is above this"""
    on_overlap: Literal["warn", "stop", "leave_out", "ignore"] = "warn"
    """what follows when a registered benchmark holds training images; `warn` stops a release"""


JpegQuality = Annotated[int, Field(ge=1, le=100)]


class Normalise(Strict):
    """How `normalise` crops and encodes photographs and fakes alike."""

    least_side: int = Field(64, ge=32)
    """pixels; smaller images are left out"""
    jpeg_quality: tuple[JpegQuality, JpegQuality] = (85, 96)
    """both labels draw their quality from this range, inclusive"""

    @field_validator("jpeg_quality")
    @classmethod
    def _is_range(cls, quality: tuple[int, int]) -> tuple[int, int]:
        if quality[0] > quality[1]:
            raise ValueError("the lowest quality comes first")
        return quality


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


class General(Strict):
    """A general instruction set that is mixed in, for training only."""

    name: str = Field("general", pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """as which source it stands in the rows"""
    file: Path
    """conversations in LLaVA's JSON, a list or one per line; relative to the recipe's folder"""
    images: Path
    """the folder in which they name their images; relative to the recipe's folder"""
    licence: str = "unknown"
    """of conversations and images, the stricter of the two"""
    terms: str = ""
    share: float = Field(gt=0, lt=1)
    """of the instructions to train on"""
    order: Literal["mix", "after"] = "mix"
    """`mix`: among the others, evenly; `after`: the others come after all of them"""


class Build(Strict):
    """Size and mix of FakeInstruct."""

    seed: int
    rows_per_shard: int = Field(50_000, ge=100)
    rows_per_chain: dict[str, Annotated[int, Field(ge=0)]]
    """at most so many instructions of each family from one chain, where no `rows` are asked for"""
    rows: int | None = Field(None, ge=1)
    """instructions in all; chains are asked again in other words until there are so many"""
    shares: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """of the families among those `rows`; without them they share as `rows_per_chain` says"""
    general: General | None = None
    """added to what is counted above"""


class TeacherTerms(Strict):
    """Under which terms the words of a teacher may be used; nothing here is ever guessed."""

    licence: str = "unknown"
    """SPDX identifier or a short phrase"""
    terms: str = ""
    """what its maker asks beyond it, such as that no competing model is trained on its words"""
    may_train: bool = True


class CheckSettings(Strict):
    """How many rows are read before a set is published, and which figures stop it."""

    sample_rows: int = Field(200_000, ge=1)
    """whole images with about so many rows, for the checks that read rows"""
    in_two_splits: int = Field(0, ge=0)
    """most images, clusters, groups and held-out generators that stand in more than one split"""
    repeated: int = Field(0, ge=0)
    """most ids, and conversations about one image, that occur again"""
    wrong_answers: int = Field(0, ge=0)
    """most closed answers that are not the ones label and findings demand"""
    wrong_options: int = Field(0, ge=0)
    """most choices whose right options are others than the answer says"""
    names: int = Field(0, ge=0)
    """most texts that name a generator, a source, a teacher or a file"""
    uneven_by: float = Field(0.05, ge=0)
    """part of its even share that the most frequent answer or label may be above it, unreported"""
    text_only_auc: float = Field(0.55, ge=0.5, le=1)
    """of a classifier without an image; the lower end of its 95 % interval may not be above"""
    verdict_before: float = Field(0.0, ge=0, le=1)
    """greatest share of dialogues that ask for a verdict which an earlier turn has stated"""
    near_rows: float = Field(0.05, ge=0, le=1)
    """greatest share of rows that nearly repeat another about their image"""
    alike_images: float = Field(0.5, ge=0, le=1)
    """greatest share of images whose longest answer is nearly that of another image"""
    pattern_share: float = Field(0.1, ge=0, le=1)
    """greatest share of one question pattern among the rows"""
    vague_phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """that would fit any image; looked for in findings and conclusions, in upper or lower case"""
    vague_share: float = Field(0.4, ge=0, le=1)
    """greatest share of chains with one of them"""


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
    normalise: Normalise = Normalise()
    split: SplitSettings
    build: Build
    checks: CheckSettings = CheckSettings()
    demo: Demo
    teachers: dict[str, TeacherTerms] = {}
    """by the name that chains carry: `rehearsal`, or the model's"""


class ExemplarEntry(Strict):
    """One exemplar as `exemplars.yaml` spells it."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    label: Authenticity
    categories: tuple[str, ...] = Field(min_length=1)
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    simulated: bool = False
    picture: str | None = None
    """file of the picture, relative to the recipe folder and inside it"""
    licence: str | None = None
    """of the picture, as an SPDX identifier or a short phrase"""

    @model_validator(mode="after")
    def _picture_has_a_licence(self) -> Self:
        if self.picture is not None and not self.licence:
            raise ValueError(f"exemplar {self.id} names a picture: give its licence too")
        return self

    def record(self) -> Exemplar:
        return Exemplar(
            exemplar_id=self.id,
            **self.model_dump(include={"label", "categories", "description", "simulated"}),
        )


class ExemplarList(Strict):
    """One file of exemplars."""

    exemplars: tuple[ExemplarEntry, ...]

    @field_validator("exemplars")
    @classmethod
    def _ids_differ(cls, exemplars: tuple[ExemplarEntry, ...]) -> tuple[ExemplarEntry, ...]:
        ids = [exemplar.id for exemplar in exemplars]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"exemplar ids must differ: {', '.join(twice)}")
        return exemplars


class ExemplarSet(ExemplarList):
    """All exemplars of a recipe: none, or some of either label."""

    @field_validator("exemplars")
    @classmethod
    def _both_labels_occur(cls, exemplars: tuple[ExemplarEntry, ...]) -> tuple[ExemplarEntry, ...]:
        missing = set(Authenticity) - {exemplar.label for exemplar in exemplars}
        if exemplars and missing:
            raise ValueError(f"needs at least one {missing.pop()} exemplar beside the others")
        return exemplars


class GoldEntry(Strict):
    """One image of `gold.yaml`; that it is real or fake its label says."""

    image: str = Field(pattern=r"^img-[0-9a-f]{20}$")
    categories: tuple[str, ...]
    """of the traces that speak for its label"""


class GoldFile(Strict):
    """`gold.yaml`: images whose right answer somebody knows."""

    gold: tuple[GoldEntry, ...]

    @field_validator("gold")
    @classmethod
    def _images_differ(cls, gold: tuple[GoldEntry, ...]) -> tuple[GoldEntry, ...]:
        images = [entry.image for entry in gold]
        twice = sorted({name for name in images if images.count(name) > 1})
        if twice:
            raise ValueError(f"gold images must differ: {', '.join(twice)}")
        return gold


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
    exemplar_pictures: Mapping[str, bytes] = {}
    """files by exemplar id; empty unless the recipe sends them"""
    gold: tuple[GoldEntry, ...] = ()
    """images with known right answers, beside those that an adjudicator has settled"""
    topics: tuple[Topic, ...] = ()
    """what images may show; empty: every image is inspected in the same way"""

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

    def waits_for(self, arm: Arm) -> tuple[str, ...]:
        """The arms that must have ended with an image before this one begins."""
        if arm.merge is not None:
            return arm.merge.arms
        return () if arm.sorts else tuple(other.name for other in self.arms if other.sorts)

    def mode_of(self, arm: Arm, generator: str | None) -> str:
        """Which prompt an arm uses for an image by this generator."""
        hard = self.settings.drafting.hard_fakes
        asks = arm.merge is None and not arm.sorts and not arm.control
        return hard.mode if hard and asks and generator in hard.generators else arm.mode

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = ", ".join(arm.name for arm in self.arms)
        raise ConfigError(f"recipe {self.name} has no arm {name!r}; it has: {known}")


def find_recipe(named: str | Path) -> Path:
    """The folder that a user means: a path, or the name of one in `recipes/`."""
    path = Path(named)
    if len(path.parts) != 1 or _is_recipe(path) or not _is_recipe(RECIPES / path):
        return path
    return RECIPES / path


def _is_recipe(folder: Path) -> bool:
    return (folder / RECIPE_FILE).is_file()


def load_recipe(folder: Path = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe folder; an unknown key is a ConfigError that suggests the right one."""
    if not _is_recipe(folder):
        known = ", ".join(sorted(path.parent.name for path in RECIPES.glob(f"*/{RECIPE_FILE}")))
        raise ConfigError(
            f"{folder} is no recipe: it has no {RECIPE_FILE}; name a folder, or one of {known}"
        )
    settings = _place_general(read_model(folder / RECIPE_FILE, RecipeFile), folder)
    exemplars = _read_exemplars(folder)
    pictures = _read_exemplar_pictures(folder, exemplars, settings.drafting.demonstrations)
    recipe = Recipe(
        folder=folder,
        digest=_digest(folder, "."),
        drafting_digest=_drafting_digest(folder, settings.drafting, pictures),
        settings=settings,
        taxonomy=read_model(folder / "taxonomy.yaml", Taxonomy),
        prompts={p.stem: _read_text(p) for p in sorted((folder / "prompts").glob("*.jinja"))},
        instructions={
            p.stem: read_yaml(p) for p in sorted((folder / "instructions").glob("*.yaml"))
        },
        rehearsal=read_yaml(folder / "rehearsal.yaml"),
        exemplars=tuple(entry.record() for entry in exemplars),
        exemplar_pictures=pictures,
        gold=_read_gold(folder / GOLD_FILE),
        topics=_read_topics(folder / TOPICS_FILE),
    )
    _check_references(recipe)
    return recipe


def _place_general(settings: RecipeFile, folder: Path) -> RecipeFile:
    """The paths of a general set as seen from here, not from the recipe's folder."""
    if (general := settings.build.general) is None:
        return settings
    paths = {"file": folder / general.file, "images": folder / general.images}
    build = settings.build.model_copy(update={"general": general.model_copy(update=paths)})
    return settings.model_copy(update={"build": build})


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
        arm.model_copy(
            update={
                "teacher": base_url,
                "model": settings.openai_model,
                "limits": _configured_limits(arm, settings),
            }
        )
        if arm.teacher == REHEARSAL
        else arm
        for arm in recipe.arms
    )
    _check_limits(arms, where=f"recipe {recipe.name}")
    _check_merges(arms, where=f"recipe {recipe.name} with OPENAI_BASE_URL")
    drafting = recipe.settings.drafting.model_copy(update={"arms": arms})
    return recipe.model_copy(
        update={
            "settings": recipe.settings.model_copy(update={"drafting": drafting}),
            "drafting_digest": _drafting_digest(folder, drafting, recipe.exemplar_pictures),
        }
    )


def _configured_limits(arm: Arm, settings: Settings) -> Limits | None:
    """The arm's limits, each replaced by that of the environment where it names one."""
    named = {
        "requests_per_minute": settings.openai_requests_per_minute,
        "tokens_per_minute": settings.openai_tokens_per_minute,
    }
    replaced = {name: value for name, value in named.items() if value is not None}
    kept = arm.limits.model_dump() if arm.limits else {}
    return Limits(**(kept | replaced)) if kept or replaced else None


def _drafting_digest(folder: Path, drafting: Drafting, pictures: Mapping[str, bytes]) -> str:
    settings = drafting.model_dump(
        mode="json",
        include={"arms", "seed", "guidance", "demonstrations"},
        exclude={"arms": {"__all__": {"limits", "timeout_s", "sorts", "merge"}}},
    )
    settings |= _later_settings(drafting)
    sent = {name: sha256_bytes(data) for name, data in pictures.items()}
    return sha256_text(
        canonical_json([settings, sent])
        + _digest(
            folder,
            "prompts",
            "taxonomy.yaml",
            TOPICS_FILE,
            "rehearsal.yaml",
            EXEMPLARS_FILE,
            MERGED_FILE,
        )
    )


def _later_settings(drafting: Drafting) -> dict[str, Any]:
    """Campaigns that do without what came later keep the digest that they had before."""
    tasks = {
        arm.name: arm.model_dump(mode="json", include={"sorts", "merge"})
        for arm in drafting.arms
        if arm.sorts or arm.merge
    }
    hard = drafting.hard_fakes
    later = {"tasks": tasks, "hard_fakes": hard and hard.model_dump(mode="json")}
    return {name: value for name, value in {"blind": drafting.blind, **later}.items() if value}


def _read_exemplars(folder: Path) -> tuple[ExemplarEntry, ...]:
    paths = [path for name in (EXEMPLARS_FILE, MERGED_FILE) if (path := folder / name).is_file()]
    files = [read_model(path, ExemplarList).exemplars for path in paths]
    together = {"exemplars": tuple(entry for entries in files for entry in entries)}
    where = " and ".join(map(str, paths))
    return parse_model(together, ExemplarSet, where=where).exemplars


def _read_gold(path: Path) -> tuple[GoldEntry, ...]:
    return read_model(path, GoldFile).gold if path.is_file() else ()


def _read_topics(path: Path) -> tuple[Topic, ...]:
    return read_model(path, Topics).topics if path.is_file() else ()


def _read_exemplar_pictures(
    folder: Path, exemplars: Iterable[ExemplarEntry], demonstrations: Demonstrations
) -> dict[str, bytes]:
    """The files that the recipe sends; a ConfigError for one that it names and does not hold."""
    named = {entry.id: entry.picture for entry in exemplars if entry.picture is not None}
    for name, picture in named.items():
        path = (folder / picture).resolve()
        if not (path.is_relative_to(folder.resolve()) and path.is_file()):
            raise ConfigError(
                f"{folder / EXEMPLARS_FILE}: exemplar {name}: there is no picture {picture} "
                "inside the recipe folder"
            )
    if not (demonstrations.use and demonstrations.send_pictures):
        return {}
    return {name: (folder / picture).read_bytes() for name, picture in named.items()}


def _check_references(recipe: Recipe) -> None:
    _check_chain_arms(recipe)
    _check_limits(recipe.arms, where=str(recipe.folder / RECIPE_FILE))
    hard = recipe.settings.drafting.hard_fakes
    modes = {f"arm {arm.name}": arm.mode for arm in recipe.arms}
    for where, mode in (modes | ({"hard_fakes": hard.mode} if hard else {})).items():
        if mode not in recipe.prompts:
            raise ConfigError(f"recipe {recipe.name}, {where}: there is no prompts/{mode}.jinja")
    _check_merges(recipe.arms, where=str(recipe.folder / RECIPE_FILE))
    for topic in recipe.topics:
        for side in Authenticity:
            where = f"{TOPICS_FILE}: {topic.id}.{side.value}"
            _check_categories(recipe, tuple(topic.points(side)), where=where)
    if not recipe.topics and any(arm.sorts for arm in recipe.arms):
        raise ConfigError(f"{recipe.folder}: an arm sorts, and there is no {TOPICS_FILE}")
    guidance = recipe.settings.drafting.guidance
    if not isinstance(guidance, str):
        _check_categories(recipe, guidance, where="recipe.yaml: drafting.guidance")
    for exemplar in recipe.exemplars:
        where = f"{EXEMPLARS_FILE}: exemplar {exemplar.exemplar_id}"
        _check_categories(recipe, exemplar.categories, where=where)
    if recipe.settings.review.preference is not None:
        for name in recipe.settings.review.preference.arms:
            recipe.arm(name)
    for entry in recipe.gold:
        _check_categories(recipe, entry.categories, where=f"{GOLD_FILE}: {entry.image}")


def _check_merges(arms: Sequence[Arm], *, where: str) -> None:
    """Merged arms stand before the one that merges them, see all images, and are not one voice."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        voices: dict[tuple[str, str], str] = {}
        for name in arm.merge.arms if arm.merge else ():
            if name not in seen:
                raise ConfigError(f"{where}: arm {arm.name} merges {name!r}, no arm before it")
            other = seen[name]
            if other.sorts or other.merge or other.control or other.share or other.sample:
                raise ConfigError(f"{where}: {name} does not draft every image: not to be merged")
            twin = voices.setdefault((server_of(other.teacher), other.model), name)
            if twin != name:
                raise ConfigError(
                    f"{where}: {twin} and {name} ask the same model, which has one vote: name a "
                    "teacher and a model in each of the arms"
                )
        seen[arm.name] = arm


def _check_limits(arms: Iterable[Arm], *, where: str) -> None:
    """A teacher counts all that its model is asked, whichever arm asks."""
    first: dict[tuple[str, str], Arm] = {}
    for arm in arms:
        other = first.setdefault((server_of(arm.teacher), arm.model), arm)
        if arm.limits != other.limits:
            raise ConfigError(
                f"{where}: arms {other.name} and {arm.name} ask {arm.model} of the same teacher: "
                "give them the same limits"
            )


def _check_chain_arms(recipe: Recipe) -> None:
    """No image may get two chains, and none from a teacher that was not told its label."""
    arms = [recipe.arm(name) for name in recipe.settings.drafting.chain_arms]
    where = f"{recipe.folder / RECIPE_FILE}: drafting.chain_arms"
    for arm in arms:
        if arm.control or arm.sorts:
            what = "is a control; its drafts become no chains" if arm.control else "drafts nothing"
            raise ConfigError(f"{where}: {arm.name} {what}")
        if len(arms) > 1 and arm.share is None:
            raise ConfigError(f"{where}: several arms are named, and {arm.name} has no share")


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
        return yaml.load(_read_text(path), Loader=YAML_LOADER)  # noqa: S506 - a safe one
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
