from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, parse_model, read_model, read_yaml
from core.records import Authenticity, Confidence, Reasoning, TraceFinding
from core.taxonomy import Taxonomy
from teacher.conclusions import Conclusions, conclude, join_names, told_label

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
TAXONOMY = read_model(DEFAULT_RECIPE / "taxonomy.yaml", Taxonomy)
SECTION = read_yaml(DEFAULT_RECIPE / "rehearsal.yaml")["conclusions"]
CONCLUSIONS = parse_model(SECTION, Conclusions, where="conclusions")

findings_lists = st.lists(
    st.builds(
        TraceFinding,
        category=st.sampled_from(TAXONOMY.ids),
        evidence=st.just("It repeats."),
        points_to=st.sampled_from(Authenticity),
    ),
    max_size=6,
    unique_by=lambda finding: finding.category,
)


def make_findings(*, fake: int = 0, real: int = 0) -> list[TraceFinding]:
    sides = [FAKE] * fake + [REAL] * real
    return [
        TraceFinding(category=category, evidence="It repeats.", points_to=side)
        for category, side in zip(TAXONOMY.ids, sides, strict=False)
    ]


def sum_up(findings: list[TraceFinding], told: Authenticity | None, key: str = "key") -> Reasoning:
    return conclude(findings, told, conclusions=CONCLUSIONS, taxonomy=TAXONOMY, key=key)


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("# Human supervision\nKnown authenticity: fake\nNo expert.", FAKE),
        ("Known authenticity: real", REAL),
        ("Known authenticity: real  \nDemonstration: …\nKnown authenticity: fake", REAL),
        ("Is this image fake or real?", None),
        ("Demonstration: Known authenticity: fake", None),
        ("Known authenticity: fakeish", None),
        ("", None),
    ],
)
def test_the_told_label_is_read_from_its_own_line(
    question: str, label: Authenticity | None
) -> None:
    assert told_label(question) is label


@given(findings_lists, st.text())
def test_both_told_labels_give_the_same_findings(findings: list[TraceFinding], key: str) -> None:
    as_fake, as_real = sum_up(findings, FAKE, key), sum_up(findings, REAL, key)
    assert as_fake.findings == as_real.findings == tuple(findings)
    assert (as_fake.verdict, as_real.verdict) == (FAKE, REAL)


@given(findings_lists, st.sampled_from([FAKE, REAL, None]), st.text())
def test_without_support_confidence_is_low(
    findings: list[TraceFinding], told: Authenticity | None, key: str
) -> None:
    reasoning = sum_up(findings, told, key)
    if not reasoning.supporting():
        assert reasoning.confidence is Confidence.LOW
    assert reasoning == sum_up(findings, told, key)


@given(findings_lists, st.sampled_from([FAKE, REAL]))
def test_a_conclusion_is_sentences_that_name_supporting_categories_alone(
    findings: list[TraceFinding], told: Authenticity
) -> None:
    reasoning = sum_up(findings, told)
    assert reasoning.conclusion[0].isupper()
    assert reasoning.conclusion.endswith(".")
    assert "{" not in reasoning.conclusion
    names = [TAXONOMY[finding.category].name for finding in reasoning.supporting()]
    assert join_names(names) in reasoning.conclusion


def test_confidence_follows_the_balance_of_findings() -> None:
    assert sum_up(make_findings(fake=1), FAKE).confidence is Confidence.MEDIUM
    assert sum_up(make_findings(fake=3), FAKE).confidence is Confidence.HIGH
    assert sum_up(make_findings(fake=3, real=2), FAKE).confidence is Confidence.MEDIUM
    assert sum_up(make_findings(fake=2, real=2), FAKE).confidence is Confidence.LOW


@pytest.mark.parametrize("told", [FAKE, REAL])
def test_no_finding_is_said_honestly(told: Authenticity) -> None:
    for key in "abcdef":
        said = sum_up([], told, key).conclusion.lower()
        assert any(word in said for word in ("no visible trace", "nothing", "neither"))


@pytest.mark.parametrize(
    ("fake", "real", "verdict"),
    [(2, 1, FAKE), (1, 0, FAKE), (1, 1, REAL), (0, 2, REAL), (0, 0, REAL)],
)
def test_untold_the_side_with_more_findings_wins(
    fake: int, real: int, verdict: Authenticity
) -> None:
    assert sum_up(make_findings(fake=fake, real=real), None).verdict is verdict


def test_wordings_differ_from_image_to_image() -> None:
    keys = [f"image {number}" for number in range(40)]
    assert len({sum_up(make_findings(fake=1), FAKE, key).conclusion for key in keys}) == 4


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        ([], ""),
        (["texture"], "texture"),
        (["texture", "edges"], "texture and edges"),
        (["light and shadow", "edges"], "light and shadow, and edges"),
        (["texture", "edges", "shape"], "texture, edges, and shape"),
    ],
)
def test_names_are_joined_as_in_a_sentence(names: list[str], joined: str) -> None:
    assert join_names(names) == joined


@pytest.mark.parametrize(
    ("side", "pattern"),
    [("clear", "Look at {trace}."), ("none", "Look at {traces}."), ("mixed", "Look at {0}.")],
)
def test_an_unknown_placeholder_is_a_config_error(side: str, pattern: str) -> None:
    section = {**SECTION, "fake": {**SECTION["fake"], side: [pattern]}}
    with pytest.raises(ConfigError, match="may hold"):
        parse_model(section, Conclusions, where="conclusions")
