"""A recipe is read strictly, and a mistake in it is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.limits import Limits
from core.recipe import DEFAULT_RECIPE, configured_recipe, load_recipe
from core.records import Authenticity
from core.settings import load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_RECIPE, tmp_path / "recipe"))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_shipped_recipe_loads_with_the_fourteen_aspects_and_anatomy() -> None:
    recipe = load_recipe()
    assert recipe.name == "fakescope"
    assert len(recipe.taxonomy.categories) == 15
    assert "anatomy" in recipe.taxonomy


def test_an_unknown_key_is_named_with_the_right_one(folder: Path) -> None:
    replace(folder / "recipe.yaml", "calls_in_flight", "calls_in_flihgt")
    with pytest.raises(ConfigError, match=r"calls_in_flihgt: unknown key, did you mean calls_in_f"):
        load_recipe(folder)


def test_every_problem_is_reported_at_once(folder: Path) -> None:
    replace(folder / "recipe.yaml", "min_review: expert", "min_review: expret")
    replace(folder / "recipe.yaml", "max_tries: 4", "max_tries: none")
    with pytest.raises(ConfigError) as caught:
        load_recipe(folder)
    assert "min_review" in str(caught.value)
    assert "max_tries" in str(caught.value)


def test_broken_yaml_names_the_file_and_the_line(folder: Path) -> None:
    (folder / "taxonomy.yaml").write_text("categories: [unclosed", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"taxonomy\.yaml: not valid YAML.*line"):
        load_recipe(folder)


def test_a_missing_prompt_is_named(folder: Path) -> None:
    (folder / "prompts" / "acoti.jinja").unlink()
    with pytest.raises(ConfigError, match=r"there is no prompts/acoti\.jinja"):
        load_recipe(folder)


def test_shares_that_do_not_add_up_are_refused(folder: Path) -> None:
    replace(folder / "recipe.yaml", "train: 0.6", "train: 0.7")
    with pytest.raises(ConfigError, match="add up to 1"):
        load_recipe(folder)


def test_a_folder_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no recipe"):
        load_recipe(tmp_path)


def test_yaml_that_would_run_code_is_refused(folder: Path) -> None:
    (folder / "taxonomy.yaml").write_text("!!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_recipe(folder)


def test_the_digest_changes_with_any_file_but_the_training_settings(folder: Path) -> None:
    before = load_recipe(folder)
    (folder / "training").mkdir(exist_ok=True)
    (folder / "training" / "other.yaml").write_text("steps: 1", encoding="utf-8")
    assert load_recipe(folder).digest == before.digest
    replace(folder / "prompts" / "acoti.jinja", "forensic", "careful")
    after = load_recipe(folder)
    assert after.digest != before.digest
    assert after.drafting_digest != before.drafting_digest


def test_a_configured_teacher_takes_the_place_of_the_rehearsal() -> None:
    settings = load_settings(
        _env_file=None, openai_base_url="http://127.0.0.1:1/v1", openai_model="some-model"
    )
    recipe = configured_recipe(DEFAULT_RECIPE, settings)
    arm = recipe.arm("main")
    assert (arm.teacher, arm.model) == ("http://127.0.0.1:1/v1", "some-model")
    assert recipe.drafting_digest != load_recipe().drafting_digest


def test_a_teacher_without_a_model_is_refused() -> None:
    settings = load_settings(_env_file=None, openai_base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="OPENAI_MODEL"):
        configured_recipe(DEFAULT_RECIPE, settings)


def test_a_stray_key_changes_nothing() -> None:
    settings = load_settings(_env_file=None, openai_api_key="sk-stray")
    assert configured_recipe(DEFAULT_RECIPE, settings) == load_recipe()
    assert "sk-stray" not in repr(settings)


def test_exemplars_are_read_as_records() -> None:
    exemplar = load_recipe().exemplars[0]
    assert exemplar.exemplar_id == "sim-fake-kitchen"
    assert exemplar.label is Authenticity.FAKE
    assert exemplar.description.startswith("This image of a breakfast table is fake, because")


def test_a_recipe_may_have_no_exemplars(folder: Path) -> None:
    (folder / "exemplars.yaml").unlink()
    assert load_recipe(folder).exemplars == ()
    (folder / "exemplars.yaml").write_text("exemplars: []", encoding="utf-8")
    assert load_recipe(folder).exemplars == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "[texture, anatomy",
            "[textures, anatomy",
            "exemplar sim-fake-portrait: unknown trace category 'textures', did you mean texture",
        ),
        ("label: fake", "label: 1", "label"),
        ("    simulated:", "    simulatd:", "simulatd: unknown key, did you mean simulated"),
        ("id: sim-fake-street", "id: sim-fake-portrait", "ids must differ: sim-fake-portrait"),
        ("id: sim-fake-street", "id: Sim fake", "id: String should match"),
        ("[shape, distortion, unrealistic_aspect, overall_tone, theme]", "[]", "at least 1 item"),
    ],
)
def test_a_mistake_in_an_exemplar_is_named(folder: Path, old: str, new: str, problem: str) -> None:
    replace(folder / "exemplars.yaml", old, new)
    with pytest.raises(ConfigError, match=f"exemplars\\.yaml.*{problem}"):
        load_recipe(folder)


def test_a_recipe_may_name_gold_images(folder: Path) -> None:
    assert load_recipe(folder).gold == ()
    image = f"img-{'0' * 20}"
    path = folder / "gold.yaml"
    path.write_text(f"gold: [{{image: {image}, categories: [edge]}}]", encoding="utf-8")
    (entry,) = load_recipe(folder).gold
    assert (entry.image, entry.categories) == (image, ("edge",))
    assert load_recipe(folder).drafting_digest == load_recipe().drafting_digest


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["{image: one.jpg, categories: []}"], "image"),
        ([f"{{image: img-{'0' * 20}, categories: [edgy]}}"], "edgy.*did you mean edge"),
        ([f"{{image: img-{'0' * 20}, categories: []}}"] * 2, "must differ"),
        ([f"{{image: img-{'0' * 20}, category: []}}"], "did you mean categories"),
    ],
)
def test_a_wrong_gold_image_is_refused(folder: Path, entries: list[str], problem: str) -> None:
    (folder / "gold.yaml").write_text(f"gold: [{', '.join(entries)}]", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"gold\.yaml.*{problem}"):
        load_recipe(folder)


def test_exemplars_of_one_label_are_refused(folder: Path) -> None:
    path = folder / "exemplars.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("label: real", "label: fake"))
    with pytest.raises(ConfigError, match="needs at least one real exemplar"):
        load_recipe(folder)


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        ("none", ()),
        ("all", load_recipe().taxonomy.ids),
        ("[layout, texture]", ("texture", "layout")),
    ],
)
def test_guidance_is_none_all_or_a_list_in_the_order_of_the_taxonomy(
    folder: Path, guidance: str, expected: tuple[str, ...]
) -> None:
    replace(folder / "recipe.yaml", "guidance: none", f"guidance: {guidance}")
    assert load_recipe(folder).guidance == expected


@pytest.mark.parametrize("guidance", ["[textur]", "some", "[]", "texture"])
def test_guidance_by_anything_else_is_refused(folder: Path, guidance: str) -> None:
    replace(folder / "recipe.yaml", "guidance: none", f"guidance: {guidance}")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: drafting\.guidance"):
        load_recipe(folder)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("exemplars.yaml", "five fingers", "six fingers"),
        ("recipe.yaml", "guidance: none", "guidance: all"),
        ("recipe.yaml", "use: true", "use: false"),
    ],
)
def test_what_decides_the_demonstrations_names_another_campaign(
    folder: Path, name: str, old: str, new: str
) -> None:
    before = load_recipe(folder).drafting_digest
    replace(folder / name, old, new)
    assert load_recipe(folder).drafting_digest != before


# Limits

LIMITS = "detail: high\n      limits: {requests_per_minute: 500, tokens_per_minute: 200000}"


def test_the_limits_of_an_arm_are_read_and_decide_no_draft(folder: Path) -> None:
    before = load_recipe(folder)
    replace(folder / "recipe.yaml", "detail: high", LIMITS)
    after = load_recipe(folder)
    assert (before.arms[0].limits, after.arms[0].limits) == (
        None,
        Limits(requests_per_minute=500, tokens_per_minute=200_000),
    )
    assert after.drafting_digest == before.drafting_digest


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ("{}", "name requests_per_minute, tokens_per_minute or both"),
        ("{requests_per_minute: 0}", "greater than or equal to 1"),
        ("{requests_per_minut: 5}", "did you mean requests_per_minute"),
    ],
)
def test_a_mistake_in_the_limits_is_named(folder: Path, limits: str, problem: str) -> None:
    replace(folder / "recipe.yaml", "detail: high", f"detail: high\n      limits: {limits}")
    with pytest.raises(ConfigError, match=problem):
        load_recipe(folder)


def test_the_environment_limits_the_configured_teacher(folder: Path) -> None:
    replace(folder / "recipe.yaml", "detail: high", LIMITS)
    teacher = {"openai_base_url": "http://127.0.0.1:9/v1", "openai_model": "m"}
    settings = load_settings(**teacher, openai_tokens_per_minute=7)
    assert configured_recipe(folder, settings).arms[0].limits == Limits(
        requests_per_minute=500, tokens_per_minute=7
    )
    assert configured_recipe(DEFAULT_RECIPE, settings).arms[0].limits == Limits(tokens_per_minute=7)
    without = configured_recipe(DEFAULT_RECIPE, load_settings(**teacher))
    assert without.arms[0].limits is None


def test_the_environment_does_not_limit_the_rehearsal_teacher() -> None:
    settings = load_settings(openai_tokens_per_minute=7)
    assert configured_recipe(DEFAULT_RECIPE, settings).arms[0].limits is None


def add_arm(folder: Path, text: str) -> None:
    arm = f"    - {{teacher: rehearsal, model: rehearsal, mode: acoti, {text}}}\n"
    replace(folder / "recipe.yaml", "  chain_arms:", f"{arm}  chain_arms:")


def test_arms_that_share_the_images_may_all_become_chains(folder: Path) -> None:
    replace(folder / "recipe.yaml", "detail: high", "detail: high\n      share: 2")
    add_arm(folder, "name: second, share: 1")
    replace(folder / "recipe.yaml", "chain_arms: [main]", "chain_arms: [main, second]")
    recipe = load_recipe(folder)
    assert recipe.settings.drafting.chain_arms == ("main", "second")
    assert [arm.share for arm in recipe.arms] == [2, 1]


@pytest.mark.parametrize(
    ("arm", "chain_arms", "problem"),
    [
        ("name: second", "[main, second]", "main has no share"),
        ("name: second, control: true", "[second]", "second is a control"),
        ("name: second", "[third]", "no arm 'third'"),
        ("name: second", "[]", "chain_arms"),
    ],
)
def test_arms_that_cannot_become_chains_are_named(
    folder: Path, arm: str, chain_arms: str, problem: str
) -> None:
    add_arm(folder, arm)
    replace(folder / "recipe.yaml", "chain_arms: [main]", f"chain_arms: {chain_arms}")
    with pytest.raises(ConfigError, match=problem):
        load_recipe(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("detail: high", "detail: high\n      views: {crops: 2}"),
        ("detail: high", "detail: high\n      share: 1"),
        ("seed: 1 ", "seed: 2 "),
        ("send_pictures: false", "send_pictures: true"),
    ],
)
def test_what_a_teacher_sees_and_gets_names_another_campaign(
    folder: Path, old: str, new: str
) -> None:
    before = load_recipe(folder).drafting_digest
    replace(folder / "recipe.yaml", old, new)
    assert load_recipe(folder).drafting_digest != before


def name_picture(folder: Path, picture: str, licence: str = "    licence: CC0-1.0\n") -> None:
    named = f"- id: sim-fake-kitchen\n    picture: {picture}\n{licence}"
    replace(folder / "exemplars.yaml", "- id: sim-fake-kitchen\n", named)


def test_pictures_of_exemplars_are_read_when_they_are_sent_and_name_the_campaign(
    folder: Path,
) -> None:
    name_picture(folder, "kitchen.jpg")
    (folder / "kitchen.jpg").write_bytes(b"first")
    assert load_recipe(folder).exemplar_pictures == {}
    replace(folder / "recipe.yaml", "send_pictures: false", "send_pictures: true")
    before = load_recipe(folder)
    assert before.exemplar_pictures == {"sim-fake-kitchen": b"first"}
    (folder / "kitchen.jpg").write_bytes(b"second")
    assert load_recipe(folder).drafting_digest != before.drafting_digest


@pytest.mark.parametrize("picture", ["missing.jpg", "../outside.jpg", "link.jpg", "prompts"])
def test_a_picture_that_is_not_in_the_recipe_folder_is_named(folder: Path, picture: str) -> None:
    (folder.parent / "outside.jpg").write_bytes(b"outside")
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    name_picture(folder, picture)
    with pytest.raises(ConfigError, match=rf"sim-fake-kitchen: there is no picture {picture}"):
        load_recipe(folder)


def test_a_picture_without_a_licence_is_refused(folder: Path) -> None:
    name_picture(folder, "kitchen.jpg", licence="")
    with pytest.raises(ConfigError, match="sim-fake-kitchen names a picture: give its licence"):
        load_recipe(folder)


def test_arms_that_ask_the_same_model_have_the_same_limits(folder: Path) -> None:
    other = "- {name: other, teacher: rehearsal, model: another, mode: vanilla}"
    replace(folder / "recipe.yaml", "detail: high", f"{LIMITS}\n    {other}")
    load_recipe(folder)
    teacher = load_settings(openai_base_url="http://127.0.0.1:9/v1", openai_model="m")
    with pytest.raises(ConfigError, match="arms main and other ask m of the same teacher"):
        configured_recipe(folder, teacher)
    replace(folder / "recipe.yaml", "model: another", "model: rehearsal")
    with pytest.raises(ConfigError, match="give them the same limits"):
        load_recipe(folder)
