"""What people read of a shard set: preview, card, samples."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard
from PIL import Image

from core.errors import DataError
from core.records import Authenticity, Split
from instruct_builder.card import files_by_split, render_card, size_category
from instruct_builder.inspection import readable_counts, readable_samples
from instruct_builder.manifest import CheckFact, LicenceFact, TeacherFact
from instruct_builder.preview import Scenes, choose_members, data_uri, render_preview
from instruct_builder.selection import Member
from instruct_builder.shards import Manifest, ShardSet
from tests.unit.instruct_builder.specimens import (
    Pair,
    make_pair,
    make_pairs,
    place_all,
    recipe,
    write_set,
)
from tests.unit.records import make_image

NASTY = '<script>alert("x")</script>'


class Tags(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]


def draw(size: int = 32, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 60).convert("RGB").save(buffer, kind, quality=95)
    return buffer.getvalue()


def members_of(pairs: list[Pair]) -> list[Member]:
    return [Member(chain=chain, image=image, split=Split.TRAIN) for chain, image in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("set")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return write_set(folder, make_pairs(40))


def page_of(pairs: list[Pair], manifest: Manifest, store: Mapping[str, bytes] | None = None) -> str:
    def read(path: str) -> bytes:
        if store is not None and path not in store:
            raise DataError(f"{path} is not there")
        return picture

    picture = draw()
    scenes = Scenes(members_of(pairs), 24)
    scenes.see(place_all(pairs))
    return render_preview(scenes, manifest, recipe().taxonomy, read).decode()


def test_the_preview_shows_as_many_images_as_asked_for(manifest: Manifest) -> None:
    page = page_of(make_pairs(60), manifest)
    assert page.count("data:image/") == 24
    assert "simulated teacher, no expert" in page
    assert "Measured findings" in page
    for family in ("verdict", "holistic", "fine grained", "discussion"):
        assert f"<summary>{family} · " in page


def test_the_preview_loads_nothing_from_elsewhere_and_runs_nothing(manifest: Manifest) -> None:
    tags = Tags(page_of(make_pairs(60), manifest))
    assert not {"script", "link", "iframe", "object", "form"} & set(tags.tags)
    assert all(address.startswith("data:image/") for address in tags.addresses)


def test_untrusted_text_is_shown_and_never_markup(manifest: Manifest) -> None:
    chain, image = make_pair("image", generator=NASTY, source=NASTY)
    findings = [replace(f, evidence=f"{NASTY}.") for f in chain.reasoning.findings]
    reasoning = replace(chain.reasoning, findings=tuple(findings), conclusion=f"{NASTY}.")
    page = page_of([(replace(chain, reasoning=reasoning), image)], manifest)
    assert "&lt;script&gt;" in page
    assert "script" not in Tags(page).tags


def test_a_lost_image_is_named_and_does_not_end_the_page(manifest: Manifest) -> None:
    page = page_of(make_pairs(4), manifest, store={})
    assert page.count("not in the image store") == 4


def test_both_labels_and_every_generator_are_shown() -> None:
    makers = ("sim-nearest", "sim-bilinear", "sim-damped")
    pairs = make_pairs(40) + [
        make_pair(f"more {n}", Authenticity.FAKE, generator=makers[n % 3]) for n in range(60)
    ]
    shown = choose_members(members_of(pairs), 12)
    labels = [member.image.label for member in shown]
    assert labels.count(Authenticity.REAL) == labels.count(Authenticity.FAKE) == 6
    assert {m.image.generator for m in shown} == {None, *makers}
    assert shown == choose_members(members_of(pairs[::-1]), 12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_small_images_are_shown_as_they_are(kind: str) -> None:
    data = draw(kind=kind)
    uri = data_uri(make_image(format=kind), lambda path: data)
    assert uri == f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def test_large_images_are_made_smaller() -> None:
    data = draw(1200, "PNG")
    uri = data_uri(make_image(format="PNG"), lambda path: data)
    assert uri is not None
    small = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert max(small.size) == 512


def test_the_card_says_what_is_simulated_and_under_which_terms(manifest: Manifest) -> None:
    card = render_card(manifest).decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["size_categories"] == ["n<1K"]
    assert "simulated" in header["tags"]
    assert header["configs"][0]["data_files"][0]["path"] == files_by_split(manifest)["train"]
    assert "**simulated teacher, no expert**" in card
    assert "no proof of what decided anything" in card
    assert f"{manifest.rows:,} instructions" in card
    assert "Licence: CC0-1.0 (the only source)." in card
    assert header["license"] == "cc0-1.0"


def test_the_header_of_the_card_is_what_the_hubs_library_reads(manifest: Manifest) -> None:
    card = render_card(manifest)
    read = DatasetCard(card.decode())
    assert str(read).encode() == card
    data = read.data.to_dict()
    assert data["pretty_name"] == "FakeInstruct, recipe fakescope"
    assert data["annotations_creators"] == ["machine-generated"]
    assert data["configs"][0]["data_files"][0] == {
        "split": "train",
        "path": files_by_split(manifest)["train"],
    }


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("unknown: nobody said", {"license": "unknown"}),
        (
            "ask the author: # <b>",
            {
                "license": "other",
                "license_name": "as-stated-under-terms",
                "license_link": "README.md",
            },
        ),
    ],
)
def test_a_licence_that_hubs_know_has_their_name(
    manifest: Manifest, statement: str, wanted: dict[str, str]
) -> None:
    licence = LicenceFact(statement=statement, because="it is so")
    card = render_card(manifest.model_copy(update={"licence": licence})).decode()
    header = DatasetCard(card).data.to_dict()
    assert {name: header[name] for name in wanted} == wanted
    assert "license_name" in header or "license_name" not in wanted


def test_the_card_says_terms_checks_limits_and_what_of_persons(manifest: Manifest) -> None:
    facts = {
        "teachers": (
            TeacherFact(name="m", simulated=False, chains=3, licence="MIT", terms="no | rivals"),
        ),
        "licence": LicenceFact(
            statement="MIT", because="it is so", conditions=("teacher m: no | rivals",)
        ),
        "checks": {"names": CheckFact(says="no text names it", figures={"found": 0, "texts": 7})},
        "tombstones": ("img-1", "img-2"),
    }
    card = render_card(manifest.model_copy(update=facts)).decode()
    assert r"* Asked of whoever uses it: teacher m: no \| rivals." in card
    assert r"| m | no | 3 | MIT | no \| rivals |" in card
    assert "* **names**: no text names it (found 0, texts 7)." in card
    assert "## Limits" in card and "## Personal data" in card
    assert "Withdrawn images: 2." in card


def test_names_cannot_break_the_tables_of_the_card(manifest: Manifest) -> None:
    counts = {**manifest.counts, "generator": {"a|b\n# c <i>": 3}}
    card = render_card(manifest.model_copy(update={"counts": counts})).decode()
    assert r"| a\|b \# c \<i\> | 3 |" in card


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**8, "n>10M")])
def test_sizes_have_the_names_of_the_hub(rows: int, size: str) -> None:
    assert size_category(rows) == size


def test_samples_show_one_instruction_of_each_family(folder: Path, manifest: Manifest) -> None:
    shards = ShardSet.open(folder)
    text = readable_samples(shards)
    heads = re.findall(r"^(verdict|holistic|fine grained|discussion) · ", text, re.MULTILINE)
    assert heads == ["verdict", "holistic", "fine grained", "discussion"]
    assert text.count("  Q: ") == text.count("  A: ") == 4
    assert max(map(len, text.splitlines())) <= 100
    assert f"{manifest.rows:,} instructions on 40 images" in readable_counts(shards)
