"""The audit's page and JSON: complete, escaped, the same for the same images."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.records import Authenticity, ImageRecord
from generation.audit import AuditReport, as_json, as_text, render_page, report_on, write_audit
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


def report(found: list[ImageRecord]) -> AuditReport:
    return report_on(found, bytes_of={found[0].image_id: 1000}, threshold=0.6)


def test_a_shortcut_is_warned_of_in_text_page_and_json() -> None:
    found = report(images(shortcut=True))
    assert found.warning is not None
    assert found.warning in "\n".join(as_text(found))
    assert found.warning in Tags(render_page(found)).text
    assert json.loads(as_json(found))["warning"] == found.warning


def test_no_shortcut_no_warning() -> None:
    found = report(images())
    assert found.warning is None
    assert "No shortcut found" in render_page(found)
    assert "warning" not in "\n".join(as_text(found))


def test_too_few_images_are_called_so() -> None:
    found = report(images(6))
    assert found.warning is None
    assert "Too few" in render_page(found)
    assert "too few: 3 real images" in "\n".join(as_text(found))
    assert json.loads(as_json(found))["metadata"]["reason"].startswith("3 real images")


def test_names_are_escaped_and_nothing_is_loaded_from_elsewhere() -> None:
    twins = [
        make_image(f"twin {n}", cluster="same", group=f"{NASTY} {n}", source=NASTY, format=NASTY)
        for n in range(2)
    ]
    page = Tags(render_page(report([*images(), *twins])))
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
        write_audit(report_on(order, bytes_of={}, threshold=0.6), tmp_path / name)
    for file in ("audit.html", "audit.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_audit(report(images(6)), tmp_path / "file")
