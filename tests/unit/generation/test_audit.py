"""The audit's page and JSON: complete, escaped, the same for the same images."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.recipe import load_recipe
from core.records import Authenticity, BenchmarkImage, ImageRecord
from generation.audit import (
    AuditReport,
    Evidence,
    as_json,
    as_text,
    render_page,
    report_on,
    write_audit,
)
from tests.unit.records import make_image

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
NASTY = '<script>alert("x")</script>&'


class Tags(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def images(number: int = 80, *, shortcut: bool = False) -> list[ImageRecord]:
    return [
        make_image(
            f"image {n}",
            label=(REAL, FAKE)[n % 2],
            width=1024 if shortcut and n % 2 else 640,
        )
        for n in range(number)
    ]


def report(found: list[ImageRecord], *benchmarks: BenchmarkImage) -> AuditReport:
    return report_on(Evidence(images=found, benchmarks=benchmarks), load_recipe().settings)


def listed(image: ImageRecord, *, benchmark: str = "bench") -> BenchmarkImage:
    return BenchmarkImage(
        benchmark=benchmark, name=image.image_id, sha256=image.original_sha256, phash=None
    )


def test_a_shortcut_is_warned_of_in_text_page_and_json() -> None:
    found = report(images(shortcut=True))
    (warning,) = found.warnings
    assert warning.startswith("metadata alone tells")
    assert warning in "\n".join(as_text(found))
    assert warning[1:] in Tags(render_page(found)).text
    assert json.loads(as_json(found))["warnings"] == [warning]


def test_no_shortcut_no_warning() -> None:
    found = report(images())
    assert found.warnings == []
    assert "No shortcut found" in render_page(found)
    assert "warning" not in "\n".join(as_text(found))


def test_too_few_images_are_called_so() -> None:
    found = report(images(6))
    assert found.warnings == []
    assert "Too few" in render_page(found)
    assert "too few: 3 real images" in "\n".join(as_text(found))
    assert json.loads(as_json(found))["metadata"]["reason"].startswith("3 real images")


def test_names_are_escaped_and_nothing_is_loaded_from_elsewhere() -> None:
    twins = [
        make_image(f"twin {n}", cluster="same", group=f"{NASTY} {n}", source=NASTY, format=NASTY)
        for n in range(2)
    ]
    benchmark = listed(twins[0], benchmark=NASTY)
    page = Tags(render_page(report([*images(), *twins], benchmark)))
    assert "script" not in page.tags
    assert page.addresses == []
    assert page.text.count(NASTY) >= 4


def test_many_mixed_clusters_are_cut_on_the_page_and_whole_in_the_json() -> None:
    twins = [make_image(f"twin {n}", cluster=f"c{n // 2}", group=f"g{n}") for n in range(140)]
    found = report(twins)
    assert "20 more are in audit.json" in render_page(found)
    assert len(json.loads(as_json(found))["mixed_clusters"]) == 70


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    found = images(shortcut=True)
    for name, order in (("a", found), ("b", found[::-1])):
        write_audit(report(order, listed(found[3])), tmp_path / name)
    for file in ("audit.html", "audit.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_audit(report(images(6)), tmp_path / "file")


def test_an_overlap_is_warned_of_in_text_page_and_json() -> None:
    found = images()
    known = report(found, listed(found[3]), listed(images(200)[150]))
    (warning,) = known.warnings
    assert warning.startswith("1 of the images")
    assert "overlap with bench (2 images): 1 exact" in list(as_text(known))
    page = Tags(render_page(known)).text
    assert warning in page
    assert found[3].image_id in page
    (overlap,) = json.loads(as_json(known))["overlaps"]
    assert (overlap["image_id"], overlap["kinship"]) == (found[3].image_id, "exact")


def test_benchmarks_without_an_overlap_are_named_all_the_same() -> None:
    known = report(images(), listed(images(200)[150]))
    assert known.warnings == []
    assert "overlap with bench (1 images): none" in list(as_text(known))
    assert "No image is in any of the 1 registered benchmarks" in render_page(known)


def test_no_benchmark_is_called_so() -> None:
    known = report(images())
    assert "overlap with benchmarks: none is registered" in list(as_text(known))
    assert "No benchmark is registered" in render_page(known)


def test_the_page_shows_what_a_split_image_by_image_would_part() -> None:
    pairs = [make_image(f"{n}", group=f"photograph {n // 2}") for n in range(400)]
    known = report(pairs)
    ours, *_, by_image = json.loads(as_json(known))["splits"]
    assert (ours["groups"], ours["clusters"]) == (0, 0)
    assert by_image["groups"] > 0
    assert f"it would leave {by_image['exposed']} images" in Tags(render_page(known)).text


def test_what_is_for_evaluation_only_overlaps_with_nothing() -> None:
    evidence = Evidence(images=images(), may_train=False)
    known = report_on(evidence, load_recipe().settings)
    assert "not looked for" in "\n".join(as_text(known))
    assert "This is for evaluation only" in render_page(known)
