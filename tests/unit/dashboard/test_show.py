"""Texts, tables and differences as the dashboard shows them; no server, no browser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from core.errors import ConfigError
from core.records import Correction, TraceOutcome
from dashboard import sets, show
from dashboard.outcomes import evaluations, predictions
from dashboard.run_folders import PREDICTIONS, runs
from dashboard.screens.drafts import difference, votes
from instruct_builder.shards import MANIFEST
from tests.installations import make_evaluation, make_predictions, make_run, make_shards
from tests.unit.records import make_correction, make_draft, make_finding, make_image


def test_control_characters_are_spelt_out_and_long_texts_cut() -> None:
    assert show.shortened("a\x1b[31m\nb\u202ec") == "a\\u001b[31m\nb\\u202ec"
    long = show.shortened("x" * 1_000_000)
    assert len(long) < 2 * show.MOST_CHARACTERS
    assert long.endswith("998,000 more characters")
    assert show.cell("a\nb" + "x" * 999).startswith("a\\u000ab")
    assert len(show.cell("x" * 999)) == show.MOST_IN_CELL + 1


@pytest.mark.parametrize("start", show.FORMULA)
def test_no_text_is_a_formula_in_csv(start: str) -> None:
    frame = pd.DataFrame([{"text": f"{start}HYPERLINK(1)", "number": -1.5}])
    header, row = show.as_csv(frame).decode().splitlines()[0], show.as_csv(frame).decode()
    assert header == "text,number"
    assert f"'{start}HYPERLINK(1)" in row
    assert ",-1.5" in row


def test_a_difference_names_what_became_of_every_trace() -> None:
    findings = [make_finding("texture"), make_finding("edge"), make_finding("shape")]
    draft = make_draft(make_image(), *findings)
    edited = make_finding("edge", evidence="The edge repeats every four pixels.")
    said = make_correction(
        draft,
        "expert-1",
        make_finding("texture"),
        edited,
        make_finding("clarity"),
        outcomes=(
            TraceOutcome.ACCEPTED,
            TraceOutcome.EDITED,
            TraceOutcome.REJECTED,
            TraceOutcome.ADDED,
        ),
    )
    assert list(difference(draft, said)) == [
        "  texture: The texture repeats every two pixels.",
        "- edge: The edge repeats every two pixels.",
        "+ edge: The edge repeats every four pixels.",
        "@@ two → four @@",
        "- shape: The shape repeats every two pixels.",
        "+ clarity: The clarity repeats every two pixels.",
        "  The picture was generated.",
    ]


def test_votes_stand_beside_what_the_expert_left() -> None:
    image = make_image("x")
    said = {
        "first": ("texture", "shape"),
        "second": ("texture", "edge"),
        "third": ("edge", "light"),
    }
    voters = [
        make_draft(image, *(make_finding(category=c) for c in found), draft_id=arm, arm=arm)
        for arm, found in said.items()
    ]
    kept = [make_finding(category=name) for name in ("texture", "edge")]
    merged = make_draft(image, *kept, merged=tuple(said))
    word = make_correction(merged, "ann", kept[0], make_finding(category="shape"))

    def told(word: Correction | None) -> dict[object, tuple[object, ...]]:
        lines = votes(merged, voters, word)
        return {
            line["point"]: (line["raised by"], line["votes"], line["experts"]) for line in lines
        }

    assert told(word) == {
        "edge": ("second, third", "kept", "denied"),
        "texture": ("first, second", "kept", "upheld"),
        "light": ("third", "dropped", ""),
        "shape": ("first", "dropped", "upheld"),
    }
    assert {ruling for *_, ruling in told(None).values()} == {""}


def test_counts_and_pages_of_a_set_are_those_of_its_manifest(tmp_path: Path) -> None:
    make_shards(tmp_path / "fakeinstruct")
    shards = sets.opened(tmp_path / "fakeinstruct")
    counts = sets.count_by(shards)
    for name in ("family", "form", "label", "split", "generator", "review_level"):
        found = counts.groupby(name)["rows"].sum().to_dict()
        assert found == shards.manifest.counts[name]
    everything = [row for table in shards.rows() for row in table.to_pylist()]
    page = sets.page_of_rows(shards, sets.RowFilter(), limit=7, offset=len(everything) - 7)
    assert page == everything[-7:]
    wanted = sets.RowFilter((("label", "fake"), ("family", "verdict")))
    fakes = [r for r in everything if (r["label"], r["family"]) == ("fake", "verdict")]
    assert sets.page_of_rows(shards, wanted, limit=999, offset=0) == fakes
    assert sets.count_rows_wanted(counts, wanted) == len(fakes)
    assert sets.find_row(shards, fakes[0]["instruction_id"]) == fakes[0]
    assert sets.find_row(shards, "ins-none") is None


def test_the_difference_of_two_sets_adds_up(tmp_path: Path) -> None:
    make_shards(tmp_path / "old")
    make_shards(tmp_path / "new")
    old, new = (sets.opened(tmp_path / name) for name in ("old", "new"))
    found = sets.difference(old, new)
    assert (found["both"].sum(), found["added"].sum()) == (old.manifest.rows, 0)
    assert sets.facts_that_differ(old, new) == []


def test_a_half_written_set_is_named(tmp_path: Path) -> None:
    make_shards(tmp_path / "fakeinstruct")
    (tmp_path / "fakeinstruct" / MANIFEST).rename(tmp_path / "kept")
    assert list(sets.folders(tmp_path)) == ["fakeinstruct"]
    with pytest.raises(ConfigError, match="no shard set"):
        sets.opened(tmp_path / "fakeinstruct")
    (tmp_path / "kept").rename(tmp_path / "fakeinstruct" / MANIFEST)
    next((tmp_path / "fakeinstruct").glob(sets.ROWS_NAMES)).unlink()
    with pytest.raises(ConfigError, match="lacks rows-"):
        sets.opened(tmp_path / "fakeinstruct")


def test_a_run_that_goes_on_is_read_without_its_torn_line(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "one", [make_image("a"), make_image("b")])
    run = runs(tmp_path)["one"]
    assert [line["step"] for line in run.metrics()] == [0, 1, 2, 2]
    assert len(run.errors(most=9)) == 2
    assert run.reliability()["n"].sum() == 2
    (run.folder / "report.json").unlink()
    assert (run.is_finished, run.report()) == (False, {})
    (run.folder / "report.json").write_text("{")
    with pytest.raises(ConfigError, match="no report"):
        run.report()


def test_errors_go_by_calibrated_probabilities(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "one", [])
    line = {"image_id": "i", "label": "fake", "p_fake": 0.001, "log_likelihood_ratio": 2.0}
    (tmp_path / "runs" / "one" / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    run = runs(tmp_path)["one"]
    assert run.errors(most=9).empty
    assert run.reliability()["predicted"][0] == pytest.approx(1 / (1 + math.exp(-2)))


def test_evaluations_and_predictions_are_found_and_counted(tmp_path: Path) -> None:
    images = [make_image("a"), make_image("b"), make_image("c"), make_image("d")]
    make_evaluation(tmp_path / "evaluations" / "one", images)
    make_predictions(tmp_path / "predictions" / "folder.jsonl", images)
    (tmp_path / "other.jsonl").write_text('{"step": 1}\n')
    evaluation = evaluations(tmp_path)["one"]
    assert evaluation.report()["detection"]["fakes"] == 6
    wrong = evaluation.errors(0.0, most=2)
    assert wrong["log_odds"].abs().tolist() == [6.0, 5.0]
    assert evaluation.errors(-100.0, most=9).empty
    known = predictions(tmp_path)
    assert list(known) == ["predictions/folder.jsonl"]
    found = known["predictions/folder.jsonl"]
    assert found.outcomes() == {"fake": 2, "no verdict": 2, "not read": 1}
    assert found.scores()["images"].sum() == 4
    assert found.page("not read", limit=9, offset=0)["reason"].notna().all()
    assert found.page(None, limit=2, offset=1)["p_fake"].tolist() == [0.89, 0.88]


@pytest.mark.parametrize("torn", ["not json\n", "[1]\n", '{"name": "half', '{"other": 1}\n'])
def test_lines_that_hold_no_prediction_are_counted_and_in_no_figure(
    tmp_path: Path, torn: str
) -> None:
    make_predictions(tmp_path / "predictions/folder.jsonl", [make_image("a"), make_image("b")])
    make_run(tmp_path / "runs" / "one", [make_image("a"), make_image("b")])
    make_evaluation(tmp_path / "evaluations" / "one", [make_image("a")])
    of_folder = predictions(tmp_path)["predictions/folder.jsonl"]
    run, evaluation = runs(tmp_path)["one"], evaluations(tmp_path)["one"]
    before = of_folder.outcomes(), of_folder.page(None, limit=9, offset=0).shape
    assert [each.unreadable() for each in (of_folder, run, evaluation)] == [0, 0, 0]
    for path in (of_folder.path, run.folder / PREDICTIONS, evaluation.folder / PREDICTIONS):
        path.write_text(path.read_text() + torn)
    assert [each.unreadable() for each in (of_folder, run, evaluation)] == [1, 1, 1]
    assert (of_folder.outcomes(), of_folder.page(None, limit=9, offset=0).shape) == before
    assert run.reliability()["n"].sum() == 2


def test_an_evaluation_under_way_has_no_report_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "one"
    make_evaluation(folder, [])
    (folder / "report.json").unlink()
    assert evaluations(tmp_path)["one"].report() == {}
    (folder / "report.json").write_text("[]")
    with pytest.raises(ConfigError, match="no report"):
        evaluations(tmp_path)["one"].report()
