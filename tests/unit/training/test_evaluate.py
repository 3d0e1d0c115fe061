from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.records import Split
from instruct_builder.shards import ShardSet
from tests.unit.training.toys import STRIPES, ToySet, draw_picture, make_config
from training import evaluate as command
from training import predict as prediction
from training.benchmarks import Benchmark
from training.calibrate import Calibration
from training.checkpoint import open_checkpoint
from training.comparison import compare_evaluations, render_comparison
from training.data import read_images
from training.probe import FUSION, PROBE
from training.run import run

FILES = {"real": None, "fake": STRIPES}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures in folders named for their label, and a text that is no picture."""
    folder = tmp_path_factory.mktemp("photos") / "my set"
    for label, generator in FILES.items():
        (folder / label).mkdir(parents=True)
        for number in range(12):
            picture = draw_picture(generator, seed=9000 + 50 * number + len(label))
            picture.save(folder / label / f"{number:02d}.png")
    (folder / "fake" / "<img src=x onerror=alert(1)>.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def checkpoint(toy: ToySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "toy"
    run(make_config(), shards=toy.shards, images=toy.images, out=folder)
    return folder / "checkpoints" / "step-000100"


def call(app: Any, *arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def evaluated(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluations") / "first"
    code, text = call(command.app, "--checkpoint", checkpoint, "--data", photos, "--out", out)
    assert code == 0, text
    assert "AUROC" in text
    return out


def test_an_evaluation_scores_every_image_and_says_what_it_could_not_read(evaluated: Path) -> None:
    lines = lines_of(evaluated)
    refused = [line for line in lines if "refused" in line]
    assert len(lines) == 25
    assert len(refused) == 1
    report = json.loads((evaluated / "report.json").read_text())
    assert report["detection"]["fakes"] == report["detection"]["photographs"] == 12
    assert report["detection"]["whole"]["auroc"]["value"] > 0.9
    assert report["asked"]["calibration"]["images"] == 24
    for line in lines:
        if "refused" not in line:
            fitted = report["asked"]["calibration"]
            ratio = fitted["scale"] * line["log_odds"] + fitted["bias"]
            assert line["log_likelihood_ratio"] == pytest.approx(ratio)


def test_what_a_checkpoint_learnt_from_programs_is_said_on_other_images_too(
    evaluated: Path,
) -> None:
    asked = json.loads((evaluated / "evaluation.json").read_text())
    assert asked["simulated_generators"] == [STRIPES]
    page = (evaluated / "report.html").read_text()
    assert "Simulated generators" not in page
    assert f"learnt fakes of simulated generators ({STRIPES})" in page


def test_file_names_are_text_in_the_report(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<img src=x" not in page


def test_an_evaluation_that_was_cut_short_goes_on_and_ends_the_same(
    evaluated: Path, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    whole = (evaluated / "predictions.jsonl").read_bytes()
    out = tmp_path / "again"
    out.mkdir()
    (out / "evaluation.json").write_bytes((evaluated / "evaluation.json").read_bytes())
    (out / "predictions.jsonl").write_bytes(whole[: len(whole) // 2])
    code, text = call(command.app, "--checkpoint", checkpoint, "--data", photos, "--out", out)
    assert code == 0, text
    by_name = {line["name"]: line for line in lines_of(evaluated)}
    again = {line["name"]: line for line in lines_of(out)}
    assert again.keys() == by_name.keys()
    assert len(lines_of(out)) == len(again)
    for name, line in again.items():
        assert line.get("log_odds") == pytest.approx(by_name[name].get("log_odds"), abs=1e-4)


def test_another_evaluation_does_not_go_into_the_same_folder(
    evaluated: Path, checkpoint: Path, photos: Path
) -> None:
    arguments = ("--checkpoint", checkpoint, "--data", photos, "--out", evaluated, "--limit", 3)
    code, text = call(command.app, *arguments)
    assert code == 2
    assert "holds the evaluation of something else" in text


def test_a_score_is_read_in_a_reply_when_that_is_wanted(
    evaluated: Path, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reply"
    code, text = call(
        command.app, "--checkpoint", checkpoint, "--data", photos, "--out", out,
        "--verdict-at", "reply", "--limit", 6,
    )  # fmt: skip
    assert code == 0, text
    asked = json.loads((out / "evaluation.json").read_text())
    assert asked["prompt"].endswith("ASSISTANT:")
    assert asked["calibration"] is None
    read = [line for line in lines_of(out) if "refused" not in line]
    assert {line["read_at"] for line in read} <= {"verdict", "start"}
    unsaid = sum(line["read_at"] == "start" for line in read)
    assert (f"{unsaid} replies say no verdict" in text) == (unsaid > 0)
    assert {line.get("read_at", "prefix") for line in lines_of(evaluated)} == {"prefix"}


def test_scores_in_replies_are_calibrated_on_the_val_split_and_a_set_is_a_benchmark(
    checkpoint: Path, toy: ToySet, tmp_path: Path
) -> None:
    out = tmp_path / "own"
    code, text = call(
        command.app, "--checkpoint", checkpoint, "--data", toy.shards, "--shards", toy.shards,
        "--images", toy.images, "--verdict-at", "reply", "--limit", 8, "--out", out,
    )  # fmt: skip
    assert code == 0, text
    asked = json.loads((out / "evaluation.json").read_text())
    images = read_images(ShardSet.open(toy.shards))
    assert asked["layout"] == "fakeinstruct"
    assert asked["calibration"]["images"] == sum(each.split is Split.VAL for each in images)
    of_test = {each.ref.path: each for each in images if each.split is Split.TEST}
    lines = lines_of(out)
    assert len(lines) == 8
    for line in lines:
        image = of_test[line["name"]]
        assert line["label"] == ("fake" if image.is_fake else "real")
        assert line["generator"] == (image.generator if image.is_fake else None)
    fitted = Calibration(**asked["calibration"])
    for line in lines:
        assert line["log_likelihood_ratio"] == pytest.approx(fitted.ratio(line["log_odds"]))
    report = json.loads((out / "report.json").read_text())
    assert report["overlaps"] == []


def test_the_questions_of_a_set_are_its_rows_with_one_question(toy: ToySet) -> None:
    rows = [
        row
        for table in ShardSet.open(toy.shards).rows(split=Split.TEST)
        for row in table.to_pylist()
        if len(row["messages"]) == 2
    ]
    questions = Benchmark.open(toy.shards, images=toy.images).questions()
    assert rows
    assert {(each.key, each.text, each.reference) for each in questions} == {
        (row["instruction_id"], *(turn["content"] for turn in row["messages"])) for row in rows
    }


def test_a_set_without_its_image_store_is_no_benchmark(toy: ToySet, tmp_path: Path) -> None:
    arguments = ("--scores", tmp_path / "any.csv", "--data", toy.shards, "--out", tmp_path / "out")
    code, text = call(command.app, *arguments)
    assert code == 2
    assert "name its image store with --images" in text


def write_scores(path: Path, rows: Sequence[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_scores_of_another_detector_are_evaluated_and_compared(
    evaluated: Path, photos: Path, tmp_path: Path
) -> None:
    rows = [f"{label}/{n:02d}.png,{0.9 if n % 2 else 0.2}" for label in FILES for n in range(11)]
    scores = write_scores(tmp_path / "scores.csv", ["name,p_fake", *rows])
    out = tmp_path / "other"
    code, text = call(command.app, "--scores", scores, "--data", photos, "--out", out)
    assert code == 0, text
    report = json.loads((out / "report.json").read_text())
    assert report["unscored"] == 2
    assert report["detection"]["whole"]["auroc"]["value"] == 0.5
    assert "2 have no score" in text
    found = compare_evaluations(out, evaluated)
    assert (found.images, found.left_out) == (22, 2)
    assert found.difference.value == pytest.approx(0.5, abs=0.1)
    assert found.accuracy[0] == 0.5
    assert all(change.right == "second" for change in found.changes)
    assert "photograph" in render_comparison(found)
    code, text = call(command.app, "compare", out, evaluated)
    assert code == 0
    assert "images that changed" in text


def test_aigibench_is_evaluated_by_generator(tmp_path: Path) -> None:
    rows = ["name,p_fake"]
    for generator in ("SocialRF", "FLUX1-dev"):
        for label in ("0_real", "1_fake"):
            folder = tmp_path / "AIGIBench/test" / generator / label
            folder.mkdir(parents=True)
            for number in range(2):
                draw_picture(None, len(rows)).resize((64, 64)).save(folder / f"{number}.png")
                p_fake = 0.9 if label == "1_fake" and generator == "SocialRF" else 0.2
                rows.append(f"test/{generator}/{label}/{number}.png,{p_fake}")
    scores, out = write_scores(tmp_path / "scores.csv", rows), tmp_path / "out"
    arguments = ("--scores", scores, "--data", tmp_path / "AIGIBench", "--out", out)
    code, text = call(command.app, *arguments, "--benchmark", "aigibench")
    assert code == 0, text
    detection = json.loads((out / "report.json").read_text())["detection"]
    assert (detection["fakes"], detection["photographs"]) == (4, 4)
    found = {each["name"]: each["figures"]["auroc"] for each in detection["generators"]}
    assert found == {"SocialRF": 1.0, "FLUX1-dev": 0.5}
    assert detection["worst"] == "FLUX1-dev"
    assert "Simulated generators" not in text


def test_simulated_generators_are_called_so(tmp_path: Path) -> None:
    rows = ["name,p_fake"]
    for generator in (STRIPES, "photographs"):
        folder = tmp_path / "set" / generator / ("1_fake" if generator == STRIPES else "0_real")
        folder.mkdir(parents=True)
        draw_picture(None, len(rows)).resize((64, 64)).save(folder / "0.png")
        rows.append(f"{generator}/{folder.name}/0.png,0.5")
    scores, out = write_scores(tmp_path / "scores.csv", rows), tmp_path / "out"
    code, text = call(command.app, "--scores", scores, "--data", tmp_path / "set", "--out", out)
    assert code == 0, text
    assert f"Simulated generators: {STRIPES}." in text
    assert "Simulated generators" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["name,score", "a,1"], "needs the columns"),
        (["name,p_fake", "a,0.5", "b,1.5"], "line 3: not a probability"),
        (["name,log_odds", "a,nan"], "line 2: not a probability"),
    ],
)
def test_a_bad_file_of_scores_is_named_with_its_line(
    rows: list[str], says: str, photos: Path, tmp_path: Path
) -> None:
    scores = write_scores(tmp_path / "bad.csv", rows)
    arguments = ("--scores", scores, "--data", photos, "--out", tmp_path / "out")
    code, text = call(command.app, *arguments)
    assert code == 2
    assert says in text


def test_images_that_were_trained_on_are_counted(
    checkpoint: Path, toy: ToySet, tmp_path: Path
) -> None:
    out = tmp_path / "trained"
    arguments = ("--checkpoint", checkpoint, "--data", toy.images, "--out", out)
    code, text = call(command.app, *arguments, "--shards", toy.shards, "--limit", 20)
    assert code == 0, text
    assert "are in the training data" in text
    overlaps = json.loads((out / "report.json").read_text())["overlaps"]
    assert overlaps
    assert {each["kinship"] for each in overlaps} <= {"exact", "near", "by group"}


def test_a_report_has_baselines_and_what_changes_of_the_images_do(
    evaluated: Path, checkpoint: Path, photos: Path, toy: ToySet, tmp_path: Path
) -> None:
    out = tmp_path / "whole"
    arguments = ("--checkpoint", checkpoint, "--data", photos, "--out", out)
    more = (
        "--shards",
        toy.shards,
        "--images",
        toy.images,
        "--change",
        "blur 2",
        "--change",
        "crop 1",
    )
    code, text = call(command.app, *arguments, *more)
    assert code == 0, text
    report = json.loads((out / "report.json").read_text())
    ways = {way["name"]: way for way in report["ways"]}
    assert list(ways)[:3] == ["the model", PROBE, FUSION]
    assert ways["the model"]["auroc"] == report["detection"]["whole"]["auroc"]
    assert ways[PROBE]["auroc"]["value"] > 0.8
    assert ways["always the more frequent label"]["accuracy"] == 0.5
    unchanged, blurred, whole = report["robustness"]
    assert (unchanged["change"], blurred["change"]) == ("none", "blur 2")
    assert whole["auroc"]["value"] == pytest.approx(unchanged["auroc"]["value"], abs=1e-6)
    assert blurred["auroc"]["value"] < unchanged["auroc"]["value"]
    there = (out / "robustness.jsonl").read_bytes(), (out / "baselines.jsonl").read_bytes()
    assert call(command.app, *arguments, *more)[0] == 0
    assert there == (
        (out / "robustness.jsonl").read_bytes(),
        (out / "baselines.jsonl").read_bytes(),
    )


def test_a_changed_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in checkpoint.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not the file that was saved"):
        open_checkpoint(copy)
    with pytest.raises(ConfigError, match="is no checkpoint of a run"):
        open_checkpoint(tmp_path)


def test_predictions_are_those_of_the_evaluation(
    evaluated: Path, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    code, text = call(prediction.app, photos, "--checkpoint", checkpoint, "--out", out)
    assert code == 0, text
    assert "1 files could not be read" in text
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    by_name = {f"{photos}/{line['name']}": line for line in lines_of(evaluated)}
    assert {answer["name"] for answer in answers} == by_name.keys()
    for answer in answers:
        if "reason" not in answer:
            expected = by_name[answer["name"]]
            assert answer["log_odds"] == pytest.approx(expected["log_odds"], abs=1e-4)
            assert answer["p_fake"] == pytest.approx(expected["p_fake"], abs=1e-4)


def test_one_image_gets_a_verdict_and_answers_in_words(checkpoint: Path, photos: Path) -> None:
    image = photos / "fake" / "00.png"
    arguments = (image, "--checkpoint", checkpoint, "--ask", "What do you see?", "--json")
    code, text = call(prediction.app, *arguments, "--max-tokens", 12)
    assert code == 0, text
    answer = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert answer["name"] == str(image)
    assert answer["verdict"] == "fake"
    assert answer["said"]["What do you see?"]
    _, text = call(prediction.app, *arguments[:-1], "--max-tokens", 4)
    assert text.count("written after the fact") == 1
    assert text.index("written after the fact") < text.index("What do you see?")


def test_all_trace_categories_are_asked_about_in_one_pass(checkpoint: Path, photos: Path) -> None:
    image = photos / "fake" / "00.png"
    arguments = (image, "--checkpoint", checkpoint, "--aspects", "--advise", "--explain", "--json")
    code, text = call(prediction.app, *arguments, "--max-tokens", 4)
    assert code == 0, text
    answer = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert len(answer["said"]) == 2 + sum("With regard to" in q for q in answer["said"])
    assert any("light and shadow" in question for question in answer["said"])
    _, text = call(prediction.app, image, "--checkpoint", checkpoint, "--json")
    alone = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert alone["said"] == {}
    assert answer["log_odds"] == pytest.approx(alone["log_odds"], abs=1e-4)


def test_it_abstains_when_told_to_and_a_prior_moves_p_fake(checkpoint: Path, photos: Path) -> None:
    image = photos / "fake" / "00.png"
    code, text = call(prediction.app, image, "--checkpoint", checkpoint, "--abstain", 0.5)
    assert code == 0
    assert "no verdict" in text
    values = []
    for prior in (0.5, 0.001):
        arguments = (image, "--checkpoint", checkpoint, "--json", "--prior", prior)
        _, text = call(prediction.app, *arguments)
        values.append(json.loads(next(x for x in text.splitlines() if x.startswith("{"))))
    assert values[1]["p_fake"] < values[0]["p_fake"]
    assert values[1]["log_likelihood_ratio"] == values[0]["log_likelihood_ratio"]


def test_answers_do_not_overwrite_a_file(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.jsonl"
    out.write_text("mine")
    code, text = call(prediction.app, photos, "--checkpoint", checkpoint, "--out", out)
    assert code == 2
    assert "it is there already" in text
    assert out.read_text() == "mine"
