from __future__ import annotations

from dataclasses import asdict

import pytest

from core.ids import canonical_json, content_id
from core.records import Authenticity, Confidence, Mask, Reasoning, Region, TraceFinding

CORNERS = ((0.1, 0.1), (0.4, 0.1), (0.1, 0.4))


def test_a_record_is_spelt_as_the_object_of_its_fields() -> None:
    regions = (Region(points=CORNERS), Mask(width=2, height=2, counts=(1, 3)), None)
    reasoning = Reasoning(
        verdict=Authenticity.FAKE,
        findings=tuple(
            TraceFinding(
                category="texture",
                evidence="Größe wie „gemalt“.",
                points_to=Authenticity.FAKE,
                region=region,
            )
            for region in regions
        ),
        conclusion="It was generated.",
        confidence=Confidence.HIGH,
    )
    assert canonical_json(reasoning) == canonical_json(asdict(reasoning))
    assert content_id("draft", "a", reasoning) == content_id("draft", "a", asdict(reasoning))


def test_what_is_no_record_has_no_spelling() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        canonical_json({"a": {1, 2}})
