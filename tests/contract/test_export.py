"""FakeChain as others read it: complete, repeatable, and without who the experts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from annotation.export import ExportSummary, export
from annotation.fakechain import Images
from core.errors import ConfigError
from core.ids import sha256_bytes
from core.recipe import Recipe, load_recipe
from core.records import (
    Authenticity,
    BlindLabel,
    Confidence,
    Guidance,
    Mask,
    Region,
    RequestText,
    ReviewLevel,
    Source,
    Split,
    TraceOutcome,
)
from core.settings import load_settings
from db.blind import save_guidance, save_label
from db.engine import Database, open_database
from db.images import save_images, save_source
from db.request_texts import keep_request_text
from db.reviews import save_correction
from db.tombstones import withdraw
from db.work import add_work, open_campaign
from imaging.store import ImageStore
from instruct_builder.shards import images_table
from tests.campaigns import store_draft
from tests.label_studio import make_picture
from tests.unit.records import make_correction, make_finding, make_tombstone

HOSTILE = '<script>run()</script> {{ x }} $image \u202e\u2028 "quoted" \\ `|` \x07'
BOX = Region(points=((0.1, 0.2), (0.5, 0.2), (0.5, 0.75), (0.1, 0.75)))
STROKE = Mask(width=320, height=240, counts=(100, 7, 76693))
TOLD = RequestText(
    text_id="text-1", model="rehearsal", instructions="Look closely.", question="It is fake: why?",
    reply_schema="{}", temperature=0.0, max_output_tokens=1200,
)  # fmt: skip


class Place:
    """A home folder with four drafts: two reviewed by experts, two by nobody."""

    def __init__(self, home: Path) -> None:
        settings = load_settings(fakescope_home=home)
        self.database: Database = open_database(settings)
        self.store = ImageStore(settings.image_store)
        self.recipe: Recipe = load_recipe()
        self.images = sorted(
            (make_picture(self.store, number) for number in range(4)), key=lambda i: i.image_id
        )
        with self.database.write() as session:
            save_source(session, Source(name="demo", licence=HOSTILE))
            save_images(session, self.images)
            campaign_id = open_campaign(session, self.recipe, ceiling_usd=None)
            add_work(session, campaign_id, "main", [image.image_id for image in self.images])
        keep_request_text(self.database, TOLD)
        self.drafts = [
            store_draft(
                self.database, campaign_id, image, make_finding(), make_finding("edge"),
                request_text_id=TOLD.text_id, exemplar_ids=("fake-1", "real-1"),
                merged=("draft-1", "draft-2"), merged_teachers=("model-1", "model-2"),
            )
            for image in self.images
        ]  # fmt: skip
        self._review()

    def _review(self) -> None:
        """Expert 1 corrects two drafts; experts 1 and 2 have judged the first image blindly."""
        first = [replace(make_finding(), region=BOX), make_finding("edge", evidence=HOSTILE)]
        second = [make_finding(evidence="It repeats."), make_finding("clarity")]
        second[0] = replace(second[0], region=STROKE)
        outcomes = (TraceOutcome.ACCEPTED, TraceOutcome.EDITED)
        image_id = self.images[0].image_id
        verdicts = {"expert-1": Authenticity.FAKE, "expert-2": Authenticity.REAL}
        with self.database.write() as session:
            for number, found in enumerate((first, second)):
                correction = make_correction(self.drafts[number], "expert-1", *found)
                named = f"correction-{number}"
                save_correction(
                    session, replace(correction, correction_id=named, outcomes=outcomes)
                )
            for expert, verdict in verdicts.items():
                label = BlindLabel(
                    label_id=f"label-{expert}",
                    image_id=image_id,
                    expert=expert,
                    version=1,
                    verdict=verdict,
                    confidence=Confidence.HIGH,
                    categories=("texture", "edge"),
                )
                save_label(session, label)
            settled = Guidance(image_id=image_id, categories=("texture",), experts=("expert-1",))
            save_guidance(session, [settled])

    def export(self, out: Path, **options: Any) -> ExportSummary:
        return export(
            self.database, self.recipe, self.store, out, report=lambda *_: None, **options
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "home")
    yield made
    made.database.dispose()


def lines_of(out: Path) -> list[dict[str, Any]]:
    text = (out / "fakechain-00000.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def load(out: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(out), split="chains", cache_dir=str(cache))


def test_a_row_holds_all_that_led_to_a_chain(place: Place, tmp_path: Path) -> None:
    assert place.export(tmp_path / "out").chains == 2
    first, second = lines_of(tmp_path / "out")
    image, draft = place.images[0], place.drafts[0]
    assert [first[name] for name in ("image_id", "image_sha256", "image_path")] == [
        image.image_id, image.sha256, image.path,
    ]  # fmt: skip
    assert [first[name] for name in ("source", "generator", "label")] == [
        "demo", image.generator, str(image.label),
    ]  # fmt: skip
    assert (first["teacher"], first["arm"]) == (draft.teacher, draft.arm)
    assert first["merged_teachers"] == ["model-1", "model-2"]
    assert first["blind_labels"] == [
        {"expert": "expert-1", "verdict": "fake", "is_right": True, "confidence": "high",
         "categories": ["texture", "edge"]},
        {"expert": "expert-2", "verdict": "real", "is_right": False, "confidence": "high",
         "categories": ["texture", "edge"]},
    ]  # fmt: skip
    assert (first["guidance"], second["guidance"]) == (["texture"], None)
    assert first["exemplar_ids"] == ["fake-1", "real-1"]
    assert first["prompt"] == {
        "version": draft.prompt_version, "model": TOLD.model, "instructions": TOLD.instructions,
        "question": TOLD.question, "reply_schema": TOLD.reply_schema,
        "temperature": TOLD.temperature, "max_output_tokens": TOLD.max_output_tokens,
    }  # fmt: skip
    assert first["corrections"] == [
        {"correction_id": "correction-0", "expert": "expert-1", "version": 1,
         "is_adjudication": False, "outcomes": ["accepted", "edited"]},
    ]  # fmt: skip
    assert first["review_level"] == "expert"
    polygon = [{"x": x, "y": y} for x, y in BOX.points]
    assert first["findings"][0]["region"] == {"polygon": polygon, "mask": None}
    counts = {"width": 320, "height": 240, "counts": [100, 7, 76693]}
    assert second["findings"][0]["region"] == {"polygon": None, "mask": counts}
    assert second["text"].startswith("It repeats. The clarity ")


def test_a_photograph_has_no_generator_here_and_in_fakeinstruct(
    place: Place, tmp_path: Path
) -> None:
    photograph = make_picture(place.store, 9)
    photograph = replace(photograph, label=Authenticity.REAL, generator=None)
    with place.database.write() as session:
        save_images(session, [photograph])
        add_work(session, place.drafts[0].campaign_id, "main", [photograph.image_id])
    store_draft(place.database, place.drafts[0].campaign_id, photograph)
    place.export(tmp_path / "out", min_review=ReviewLevel.DRAFT)
    (row,) = (row for row in lines_of(tmp_path / "out") if row["label"] == "real")
    assert (row["image_id"], row["generator"]) == (photograph.image_id, None)
    parquet = load(tmp_path / "out", tmp_path / "cache").filter(lambda row: row["label"] == "real")
    assert parquet["generator"] == [None]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| none | 1 |" in card.partition("Generator (`none`: photographs)")[2]

    images = images_table([(photograph, Split.TRAIN)])
    assert images.column("generator").to_pylist() == [None]


def test_hostile_text_is_data_in_every_file(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "out")
    evidence = lines_of(tmp_path / "out")[0]["findings"][1]["evidence"]
    kept = " ".join(HOSTILE.split()) + "."  # a chain's sentences are one line
    assert evidence == kept
    loaded = load(tmp_path / "out", tmp_path / "cache")
    assert loaded[0]["findings"][1]["evidence"] == kept
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card.partition("---\n\n#")[2]
    header = yaml.safe_load(card.split("---")[1])
    assert header["license_name"] == HOSTILE


def test_datasets_reads_the_same_rows_from_parquet_and_json(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "out")
    parquet = load(tmp_path / "out", tmp_path / "cache").to_list()
    assert parquet == lines_of(tmp_path / "out")
    json_lines = datasets.load_dataset(
        "json", data_files=str(tmp_path / "out" / "*.jsonl"), cache_dir=str(tmp_path / "cache"),
        split="train",
    )  # fmt: skip
    assert [row["chain_id"] for row in json_lines] == [row["chain_id"] for row in parquet]


def test_pictures_come_as_asked_for(place: Place, tmp_path: Path) -> None:
    for images in Images:
        place.export(tmp_path / images, images=images)
        loaded = load(tmp_path / images, tmp_path / "cache")
        assert ("image_path" in loaded.column_names) is (images is not Images.NONE)
        assert ("image" in loaded.column_names) is (images is Images.EMBED)
    assert loaded[0]["image"].size == (320, 240)
    raw = loaded.cast_column("image", datasets.Image(decode=False))
    assert sha256_bytes(raw[0]["image"]["bytes"]) == place.images[0].sha256
    assert all("image" not in line for line in lines_of(tmp_path / Images.EMBED))


@pytest.mark.parametrize("images", list(Images))
def test_running_it_again_gives_the_same_bytes(
    place: Place, tmp_path: Path, images: Images
) -> None:
    out = tmp_path / "out"
    place.export(out, images=images)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    place.export(out, images=images)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(before) == ["README.md", "fakechain-00000.jsonl", "fakechain-00000.parquet"]


def test_who_the_experts_are_stays_in_the_database(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "out", images=Images.EMBED)
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        assert b"@example.com" not in data
        assert b"user_id" not in data


def test_what_nobody_has_reviewed_is_left_out_unless_asked_for(
    place: Place, tmp_path: Path
) -> None:
    place.export(tmp_path / "all", min_review=ReviewLevel.DRAFT)
    assert [row["review_level"] for row in lines_of(tmp_path / "all")] == [
        "expert", "expert", "draft", "draft",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"adjudicated.*--min-review"):
        place.export(tmp_path / "none", min_review=ReviewLevel.ADJUDICATED)
    assert not (tmp_path / "none").exists()


def test_a_withdrawn_image_leaves_every_later_export(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "out", images=Images.EMBED)
    withdraw(place.database, make_tombstone(place.images[0]))
    place.export(tmp_path / "out", images=Images.EMBED)
    (row,) = lines_of(tmp_path / "out")
    assert row["image_id"] == place.images[1].image_id
    data = place.store.read(place.images[0].path)
    assert all(data[-64:] not in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_a_picture_that_is_missing_is_left_out_and_counted(place: Place, tmp_path: Path) -> None:
    place.store.path(place.images[0].path).unlink()
    summary = place.export(tmp_path / "out", images=Images.EMBED)
    assert (summary.chains, list(summary.left_out)) == (1, [place.images[0].image_id])
    assert "1 images are left out" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_a_reader_must_know(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for words in ("post-hoc rationales", "simulated", "pseudonyms", "| expert | 2 |", "texture"):
        assert words in card
    assert "images that two experts or more have reviewed" in card
    assert "no human has looked" not in card


def test_the_card_counts_the_records_that_nobody_checked(place: Place, tmp_path: Path) -> None:
    place.export(tmp_path / "all", min_review=ReviewLevel.DRAFT)
    card = (tmp_path / "all" / "README.md").read_text(encoding="utf-8")
    assert "* At 2 of these records no human has looked: a teacher wrote them." in card


def test_files_of_somebody_else_are_never_replaced(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        place.export(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "keep me"
    with pytest.raises(ConfigError, match="is no folder"):
        place.export(tmp_path / "mine" / "notes.txt")


def test_a_place_that_cannot_be_written_is_said_in_one_line(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written: not a directory"):
        place.export(tmp_path / "file" / "out")


def test_a_large_export_is_divided(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.export.BYTES_PER_FILE", 1)
    monkeypatch.setattr("annotation.export.BATCH", 1)
    place.export(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2
    assert load(tmp_path / "out", tmp_path / "cache").num_rows == 2
