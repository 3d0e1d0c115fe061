"""Rules as data: traces put on are found, traces taken off are not."""

from __future__ import annotations

import copy
import io
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, read_model, read_yaml
from core.records import Authenticity, Region
from core.taxonomy import Taxonomy
from imaging.measurements import FIGURES, PLACES, Measurements, measure
from imaging.photographs import photographs
from imaging.simulate import GENERATORS, DemoImage, demo_images
from teacher.findings import Observation, Rules, find, observe, read_rules

Pixels = NDArray[np.uint8]
TAXONOMY = read_model(DEFAULT_RECIPE / "taxonomy.yaml", Taxonomy)
WHOLE = Region(points=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))

SIGNATURES = {
    "sim-checkerboard": {"lattice"},
    "sim-nearest": {"paired-steps"},
    "sim-bilinear": {"paired-steps"},
    "sim-autoencoder": {"four-pixel-rhythm", "middle-detail-missing"},
    "sim-damped": {"tied-grain", "finest-detail-missing"},
}
"""rules for what the generator does; on a photograph with detail at least one of them applies"""


def recipe_mapping() -> Any:
    mapping = read_yaml(DEFAULT_RECIPE / "rehearsal.yaml")
    return {name: mapping[name] for name in ("degrees", "places", "rules")}


def parse(mapping: Any) -> Rules:
    return read_rules(mapping, categories=TAXONOMY.ids, figures=FIGURES, places=PLACES)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse(recipe_mapping())


def compress(rgb: Pixels, quality: int = 90) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def crop(name: str) -> Pixels:
    photo = next(p for p in photographs() if p.name == name)
    return photo.pixels[40:168, 150:278]


def fired(rgb: Pixels, rules: Rules) -> set[str]:
    """The rules for a fake that apply to the pixels, also those that a finding leaves unsaid."""
    figures = measure(rgb).as_dict()
    return {
        rule.id
        for rule in rules.rules
        if rule.points_to is Authenticity.FAKE and rule.strength(figures) is not None
    }


class Figures:
    """Figures that a test makes up; all others are zero."""

    def __init__(self, **figures: float) -> None:
        self.places = {"lattice": WHOLE, "grain": WHOLE}
        self.figures = dict.fromkeys(FIGURES, 0.0) | figures

    def as_dict(self) -> dict[str, float]:
        return self.figures


def make_rule(**changes: Any) -> dict[str, Any]:
    rule = {
        "id": "loud",
        "category": "texture",
        "points_to": "fake",
        "figure": "noise",
        "above": 2,
        "strong": 4,
        "evidence": ["Noise of {value:.1f} is {degree} above {limit:.0f}."],
    }
    return {key: value for key, value in (rule | changes).items() if value is not None}


def make_rules(*rules: dict[str, Any]) -> Any:
    mapping = copy.deepcopy(recipe_mapping())
    return mapping | {"rules": list(rules)}


# Traces on pixels


@pytest.mark.parametrize("generator", SIGNATURES)
@pytest.mark.parametrize("name", ["coffee", "chelsea", "grass", "coins", "flower"])
def test_a_trace_put_on_is_found_and_taken_off_is_gone(
    generator: str, name: str, rules: Rules
) -> None:
    photograph = crop(name)
    fake = GENERATORS[generator](photograph, np.random.default_rng(0))

    with_trace = fired(compress(fake), rules)
    without_trace = fired(compress(photograph), rules)

    assert with_trace & SIGNATURES[generator]
    assert not without_trace & SIGNATURES[generator]


@pytest.mark.parametrize("level", [0, 1, 17, 128, 200, 255])
@pytest.mark.parametrize("side", [16, 100, 128, 600])
def test_a_grey_card_gives_no_finding_of_either_kind(level: int, side: int, rules: Rules) -> None:
    card = np.full((side, side, 3), level, np.uint8)

    assert find(measure(card), rules, key="a") == ()
    assert find(measure(compress(card, 85)), rules, key="a") == ()


@pytest.mark.parametrize("colour", [(200, 30, 40), (12, 90, 250), (255, 255, 0)])
def test_a_card_of_any_colour_gives_no_finding(colour: tuple[int, int, int], rules: Rules) -> None:
    card = np.full((128, 128, 3), colour, np.uint8)

    assert find(measure(compress(card)), rules, key="a") == ()


def test_a_smooth_gradient_gives_no_finding(rules: Rules) -> None:
    ramp = np.linspace(60, 130, 128)[None, :, None] * np.ones((128, 1, 3))

    assert find(measure(compress(ramp.astype(np.uint8))), rules, key="a") == ()


@cache
def demo() -> tuple[DemoImage, ...]:
    return tuple(
        demo_images(
            seed=11,
            crops=480,
            crop_size=128,
            generators=tuple(GENERATORS),
            jpeg_quality=(85, 96),
            holdout=(),
            test_photographs=frozenset(),
        )
    )


@cache
def survey() -> tuple[tuple[str | None, tuple[Observation, ...]], ...]:
    rules = parse(recipe_mapping())
    return tuple((i.generator, observe(measure(decode(i.data)), rules, key=i.name)) for i in demo())


def photograph_crops() -> list[bytes]:
    return [image.data for image in demo() if image.generator is None][::2]


def decode(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def traces(observations: tuple[Observation, ...]) -> list[str]:
    return [o.finding.category for o in observations if o.finding.points_to is Authenticity.FAKE]


def test_few_photographs_show_a_trace_of_any_one_category() -> None:
    real = [traces(found) for generator, found in survey() if generator is None]
    counts = Counter(category for found in real for category in found)

    assert max(counts.values()) / len(real) <= 0.06
    assert sum(map(bool, real)) / len(real) <= 0.15


def test_strong_compression_is_seldom_taken_for_a_rhythm_or_for_missing_grain(
    rules: Rules,
) -> None:
    compressed = [fired(compress(decode(data), 60), rules) for data in photograph_crops()]

    for rule in ("paired-steps", "no-grain"):
        assert sum(rule in found for found in compressed) / len(compressed) <= 0.1


@pytest.mark.parametrize("generator", GENERATORS)
def test_most_fakes_of_each_simulated_generator_show_a_trace(generator: str) -> None:
    fakes = [traces(found) for name, found in survey() if name == generator]

    assert sum(map(bool, fakes)) / len(fakes) >= 0.8


def test_traces_of_detected_fakes_come_from_many_categories() -> None:
    fakes = [traces(found) for generator, found in survey() if generator is not None]
    detected = [found for found in fakes if found]

    assert len({category for found in detected for category in found}) >= 6
    assert sum(map(len, detected)) / len(detected) >= 2


def test_evidence_of_a_photograph_is_common_on_photographs_and_rare_on_fakes() -> None:
    def share(is_fake: bool) -> float:
        chosen = [found for name, found in survey() if (name is not None) is is_fake]
        hits = [any(o.finding.points_to is Authenticity.REAL for o in found) for found in chosen]
        return sum(hits) / len(hits)

    assert share(is_fake=False) >= 0.7
    assert share(is_fake=True) <= 0.05


def test_all_evidence_is_full_sentences_without_open_placeholders() -> None:
    findings = [o.finding for _, found in survey() for o in found]

    assert findings
    for finding in findings:
        assert finding.category in TAXONOMY
        assert finding.evidence[0].isupper() and finding.evidence.endswith(".")
        assert "{" not in finding.evidence and "  " not in finding.evidence


def test_no_image_has_two_findings_in_one_category() -> None:
    for _, found in survey():
        categories = [o.finding.category for o in found]
        assert len(categories) == len(set(categories))
        assert [o.strength for o in found] == sorted((o.strength for o in found), reverse=True)


def test_a_lattice_finding_points_at_its_place(rules: Rules) -> None:
    photograph = crop("flower")
    fake = GENERATORS["sim-checkerboard"](photograph, np.random.default_rng(0))
    measured = measure(compress(fake))

    by_category = {f.category: f for f in find(measured, rules, key="a")}

    assert by_category["distortion"].region == measured.places["lattice"]
    left, top, right, bottom = by_category["distortion"].region.bounding_box()
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


# Wording and strength


def test_the_measured_figure_stands_in_the_evidence() -> None:
    rules = parse(make_rules(make_rule()))

    (finding,) = find(Figures(noise=3.25), rules, key="a")

    assert finding.evidence == "Noise of 3.2 is clearly above 2."
    assert finding.points_to is Authenticity.FAKE and finding.region is None


@pytest.mark.parametrize(
    ("noise", "strength", "degree"),
    [(2.1, 0.05, "slightly"), (3.0, 0.5, "clearly"), (4.0, 1.0, "strongly"), (9, 1.0, "strongly")],
)
def test_strength_grows_from_the_limit_to_strong(
    noise: float, strength: float, degree: str
) -> None:
    rules = parse(make_rules(make_rule()))

    (observation,) = observe(Figures(noise=noise), rules, key="a")

    assert observation.strength == pytest.approx(strength)
    assert degree in observation.finding.evidence


def test_a_rule_may_ask_for_a_figure_below_its_limit() -> None:
    rules = parse(make_rules(make_rule(above=None, below=2, strong=0)))

    assert observe(Figures(noise=0.5), rules, key="a")[0].strength == pytest.approx(0.75)
    assert observe(Figures(noise=2.0), rules, key="a") == ()


def test_a_rule_holds_only_under_its_conditions() -> None:
    rules = parse(make_rules(make_rule(when={"contrast": {"above": 5, "below": 50}})))

    assert find(Figures(noise=3, contrast=20), rules, key="a")
    assert not find(Figures(noise=3, contrast=5), rules, key="a")
    assert not find(Figures(noise=3, contrast=60), rules, key="a")


def test_the_key_chooses_the_wording_and_nothing_else(rules: Rules) -> None:
    measured = measure(
        compress(GENERATORS["sim-nearest"](crop("coffee"), np.random.default_rng(0)))
    )

    replies = [find(measured, rules, key=f"image-{n}") for n in range(20)]

    assert replies == [find(measured, rules, key=f"image-{n}") for n in range(20)]
    assert len({reply[0].evidence for reply in replies}) == 3
    assert len({tuple((f.category, f.points_to) for f in reply) for reply in replies}) == 1


def test_two_rules_of_a_category_share_one_finding_with_the_strongest_first() -> None:
    weak = make_rule(id="weak", figure="grain", evidence=["Weak."])
    rules = parse(make_rules(weak, make_rule(evidence=["Strong."])))

    (observation,) = observe(Figures(noise=4, grain=2.5), rules, key="a")

    assert observation.finding.evidence == "Strong. Weak."
    assert observation.rules == ("loud", "weak")


def test_where_rules_of_a_category_disagree_the_strongest_side_speaks() -> None:
    opposite = make_rule(id="calm", figure="grain", points_to="real", evidence=["Real."])
    rules = parse(make_rules(make_rule(evidence=["Fake."]), opposite))

    (towards_real,) = find(Figures(noise=2.5, grain=4), rules, key="a")
    (towards_fake,) = find(Figures(noise=4, grain=2.5), rules, key="a")

    assert (towards_real.points_to, towards_real.evidence) == (Authenticity.REAL, "Real.")
    assert (towards_fake.points_to, towards_fake.evidence) == (Authenticity.FAKE, "Fake.")


@pytest.mark.parametrize(
    ("corner", "words"),
    [
        ((0.0, 0.0), "in the upper left"),
        ((0.7, 0.4), "on the right"),
        ((0.4, 0.8), "at the bottom"),
    ],
)
def test_a_region_is_named_in_words(corner: tuple[float, float], words: str) -> None:
    x, y = corner
    region = Region(points=((x, y), (x + 0.2, y), (x + 0.2, y + 0.2), (x, y + 0.2)))
    measured = Figures(noise=3)
    measured.places = {"grain": region}
    rules = parse(make_rules(make_rule(region="grain", evidence=["It lies {place}."])))

    (finding,) = find(measured, rules, key="a")

    assert finding.evidence == f"It lies {words}."
    assert finding.region == region


def test_measurements_are_all_that_the_findings_depend_on(rules: Rules) -> None:
    measured = measure(crop("grass"))
    twin = Measurements(**measured.as_dict(), places=measured.places)

    assert find(measured, rules, key="a") == find(twin, rules, key="a")


# Bad rules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": "colour"}, "rule loud: no category 'colour'; there are: texture, edge"),
        ({"figure": "loudness"}, "rule loud: no figure 'loudness'"),
        ({"when": {"loudness": {"above": 1}}}, "rule loud: no figure 'loudness'"),
        ({"region": "corner"}, "rule loud: no region 'corner'; there are: lattice, grain"),
        ({"when": {"noise": {}}}, "needs above or below"),
        ({"below": 1}, "either above or below"),
        ({"above": None}, "either above or below"),
        ({"strong": 1}, "strong must lie beyond the limit 2"),
        ({"treshold": 3}, "unknown key"),
        ({"abov": 3}, "unknown key, did you mean above"),
        ({"points_to": "maybe"}, "points_to"),
        ({"evidence": []}, "evidence"),
        ({"evidence": ["no capital."]}, "capital letter"),
        ({"evidence": ["No full stop"]}, "full stop"),
        ({"evidence": ["Noise of {level}."]}, "unknown placeholder"),
        ({"evidence": ["Noise of {value.real}."]}, "unknown placeholder"),
        ({"evidence": ["Noise of {value:d}."]}, "placeholders in evidence are"),
        ({"evidence": ["Noise of {value."]}, "placeholders in evidence are"),
        ({"evidence": ["It lies {place}."]}, "{place} in its evidence needs a region"),
    ],
)
def test_a_bad_rule_is_a_configuration_error_that_names_it(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(make_rules(make_rule(**changes)))

    assert "rehearsal.yaml" in str(caught.value)
    assert message in str(caught.value)


def test_two_rules_of_the_same_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="rule loud stands there twice"):
        parse(make_rules(make_rule(), make_rule()))


def test_every_rule_of_the_recipe_has_several_wordings(rules: Rules) -> None:
    assert all(len(set(rule.evidence)) >= 3 for rule in rules.rules)
    assert {rule.points_to for rule in rules.rules} == set(Authenticity)
