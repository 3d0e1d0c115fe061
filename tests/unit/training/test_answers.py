from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.records import Authenticity
from tests.unit.training.toys import STRIPES, ToySet, draw_picture
from training import evaluate as command
from training.answer_figures import Share, kind_of, measure_answers, measure_verdicts, tried
from training.answers import RESULT_FILES, Answered, Question, read_replies
from training.benchmarks import Benchmark
from training.evaluation import EvaluationFolder
from training.text_metrics import TextSettings

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
NAMES = {FAKE: "FakeBench_images/fake_images/sd-1.png", REAL: "FakeBench_images/real_images/7.png"}


def asked(label: Authenticity = FAKE, **changes: Any) -> Question:
    values: dict[str, Any] = {
        "image": NAMES[label],
        "label": label,
        "generator": "sd" if label is FAKE else None,
        "key": "answer",
        "axis": "detection",
        "text": "Is this image fake or real?",
        "reference": label.value,
        "topic": None,
    }
    return Question(**{**values, **changes})


def test_verdicts_in_words_are_at_chance_when_labels_are_shuffled() -> None:
    rng = np.random.default_rng(3)
    labels = [FAKE, REAL] * 1000
    said = [f"This is a {label} image. Sharp." for label in labels]
    assert measure_verdicts(answered(labels, said)).accuracy == 1
    shuffled = [labels[place] for place in rng.permutation(len(labels))]
    found = measure_verdicts(answered(shuffled, said))
    for figure in (found.accuracy, found.f1_fake, found.f1_real, found.f1_macro):
        assert figure == pytest.approx(0.5, abs=0.04)
    assert found.majority == 0.5
    for share in found.shares:
        assert share.accuracy == pytest.approx(0.5, abs=0.06)


def answered(labels: Sequence[Authenticity], said: Sequence[str]) -> list[Answered]:
    return [answers(reply, 1, label=label)[0] for label, reply in zip(labels, said, strict=True)]


def answers(reply: str | None, number: int, **changes: Any) -> list[Answered]:
    return [Answered(question=asked(**changes), reply=reply)] * number


def test_the_f1_that_was_published_for_fakevlm_is_that_of_the_real_class() -> None:
    """Counts of an independent replication on the 5,000 images: accuracy 98.6, F1 98.1."""
    found = measure_verdicts(
        [
            *answers("This is a real image. Sharp.", 1760, label=REAL),
            *answers("This is a fake image. Blurred.", 48, label=REAL),
            *answers("This is a real image. Sharp.", 20),
            *answers("This is a fake image. Blurred.", 3168),
            *answers("It shows a dog. It is brown. It may be fake.", 4),
        ]
    )
    assert round(found.accuracy, 3) == 0.986
    assert round(found.f1_real, 3) == 0.981
    assert (round(found.f1_fake, 3), round(found.f1_macro, 3)) == (0.989, 0.985)
    assert found.unanswered == 4 / 5000
    assert found.majority == 3192 / 5000


@pytest.mark.parametrize(
    ("label", "reference", "reply", "right"),
    [
        (FAKE, "yes", "Yes, it is.", True),
        (FAKE, "no", "No.", True),
        (REAL, "no", "Yes.", False),
        (REAL, "yes", "Yes", True),
        (FAKE, "yes", "It is a fake image.", False),
        (FAKE, "fake", "It is a fake image.", True),
    ],
)
def test_yes_means_what_the_question_makes_of_it(
    label: Authenticity, reference: str, reply: str, right: bool
) -> None:
    found = measure_verdicts(answers(reply, 1, label=label, reference=reference))
    assert found.accuracy == right
    assert kind_of(asked(reference=reference)) == ("what" if reference == "fake" else "yes-no")


def test_shares_are_by_label_question_generator_and_topic() -> None:
    found = measure_verdicts(
        [
            *answers("Fake.", 1),
            *answers("Yes.", 1, reference="no", topic="doc"),
            *answers("Hm.", 2, label=REAL),
        ]
    )
    assert found.balanced == 0.25
    assert found.shares == (
        Share(by="label", name="fake", questions=2, right=1, unanswered=0),
        Share(by="label", name="real", questions=2, right=0, unanswered=2),
        Share(by="question", name="what", questions=3, right=1, unanswered=2),
        Share(by="question", name="yes-no", questions=1, right=0, unanswered=0),
        Share(by="generator", name="sd", questions=2, right=1, unanswered=0),
        Share(by="topic", name="doc", questions=1, right=0, unanswered=0),
    )


def test_an_axis_that_was_not_tried_is_left_out_and_no_answer_scores_nothing() -> None:
    found = measure_answers(
        tried(
            [
                *answers("Waxy skin", 1, axis="fine-grained", key="A1", reference="Waxy skin"),
                *answers(None, 1, axis="fine-grained", key="A2", reference="Even light"),
                *answers(None, 1, axis="reasoning", key="inference_mode", reference="It is fake."),
                *answers(
                    "Why not", 1, axis="interpretation", key="faultfinding_mode", reference=None
                ),
            ]
        ),
        TextSettings(),
    )
    fine, interpretation = found.axes
    assert (fine.axis, fine.compared) == ("fine-grained", 2)
    assert fine.scores is not None
    assert fine.scores.bleu_1 == fine.scores.rouge_l == 0.5
    assert (interpretation.axis, interpretation.scores) == ("interpretation", None)
    assert found.verdicts is None


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """FakeBench in small: one fake, one photograph."""
    root = tmp_path / "fakebench"
    for label, name in NAMES.items():
        path = root / name
        path.parent.mkdir(parents=True)
        draw_picture(STRIPES if label is FAKE else None, 3).save(path)
    write_json(
        root / "Evaluation/FakeClass.json",
        [
            {"image_id": "sd-1.png", "authenticity": 0, "question": "Fake?", "answer": "yes"},
            {"image_id": "7.png", "authenticity": 1, "question": "Which?", "answer": "real"},
        ],
    )
    clue = {"generation_model": "sd", "telltale_clues": "", "inference_mode": "Infer."}
    write_json(root / "Evaluation/FakeClue.json", [{"image_id": "sd-1.png", **clue}])
    aspects = {"image_id": "sd-1.png", "Q1": "Its texture?", "A1": ""}
    write_json(root / "Evaluation/FakeQA.json", [aspects])
    return root


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_result_files_of_another_model_are_scored(bench: Path, tmp_path: Path) -> None:
    given = [
        write_json(
            tmp_path / "class.json",
            [{"image_id": "sd-1.png", "answer": "Yes."}, {"image_id": "7.png", "answer": "Fake"}],
        ),
        write_json(tmp_path / "qa.json", [{"image_id": "sd-1.png", "A1": "Waxy <b>skin</b>."}]),
        write_json(tmp_path / "other.json", [{"image_id": "8.png", "A1": "Of another image."}]),
    ]
    gold = write_json(tmp_path / "gold.json", [{"image_id": "sd-1.png", "A1": "Waxy skin."}])
    out = tmp_path / "out"
    replies = [option for path in given for option in ("--replies", path)]
    arguments = (*replies, "--data", bench, "--out", out, "--references", gold)
    code, text = call(*arguments)
    assert code == 0, text
    assert "1 answers fit no image" in text
    assert "3 of 3 questions answered" in text
    report = json.loads((out / "report.json").read_text())
    assert report["answers"]["verdicts"]["accuracy"] == 0.5
    (axis,) = report["answers"]["axes"]
    assert axis["scores"]["bleu_1"] == pytest.approx(2 / 4)
    page = (out / "report.html").read_text()
    assert "GPT-4V" in page
    again = (out / "answers.jsonl").read_bytes()
    assert call(*arguments)[0] == 0
    assert (out / "answers.jsonl").read_bytes() == again


def test_answers_are_written_as_the_authors_of_fakebench_take_them(
    bench: Path, tmp_path: Path
) -> None:
    said = {"sd-1.png": {"answer": "Yes.", "inference_mode": "Waxy.", "A1": "Too smooth."}}
    said["7.png"] = {"answer": "Real."}
    given = write_json(
        tmp_path / "all.json", [{"image_id": name, **own} for name, own in said.items()]
    )
    out = tmp_path / "out"
    assert call("--replies", given, "--data", bench, "--out", out)[0] == 0
    files = {name: json.loads((out / name).read_text()) for name in RESULT_FILES}
    assert files == {
        "FakeClass.json": [
            {"image_id": "sd-1.png", "answer": "Yes."},
            {"image_id": "7.png", "answer": "Real."},
        ],
        "FakeClue.json": [{"image_id": "sd-1.png", "inference_mode": "Waxy."}],
        "FakeQA.json": [{"image_id": "sd-1.png", "A1": "Too smooth."}],
    }


def test_images_that_were_trained_on_are_counted_where_only_replies_are_given(
    toy: ToySet, tmp_path: Path
) -> None:
    """One image of the training split as FakeClue lays it out, one that nobody has seen."""
    rows = pq.read_table(toy.shards / "images.parquet").to_pylist()
    trained = next(row for row in rows if row["split"] == "train")
    root = tmp_path / "fakeclue"
    (root / "test/doc").mkdir(parents=True)
    shutil.copy(toy.images / trained["path"], root / "test/doc/seen.png")
    draw_picture(None, 77_777).save(root / "test/doc/new.png")
    turns = [
        {"from": "human", "value": "<image>Real or fake?"},
        {"from": "gpt", "value": "This is a fake image."},
    ]
    names = ("doc/seen.png", "doc/new.png")
    entries = [{"image": name, "label": 0, "cate": "doc", "conversations": turns} for name in names]
    write_json(root / "data_json/test.json", entries)
    (question, _) = Benchmark.open(root).questions()
    given = write_json(tmp_path / "said.json", [{"image": "new.png", question.key: "Fake."}])
    out = tmp_path / "out"
    code, text = call("--replies", given, "--data", root, "--out", out, "--shards", toy.shards)
    assert code == 0, text
    assert "1 of these images are in the training data" in text
    (overlap,) = json.loads((out / "report.json").read_text())["overlaps"]
    assert overlap["kinship"] == "exact"


def test_answers_of_an_evaluation_are_result_files_for_another(bench: Path, tmp_path: Path) -> None:
    given = write_json(tmp_path / "class.json", [{"image_id": "sd-1.png", "answer": "Yes."}])
    out = tmp_path / "out"
    assert call("--replies", given, "--data", bench, "--out", out)[0] == 0
    questions = Benchmark.open(bench).questions()
    again = read_replies([out / "answers.jsonl"], questions)
    assert again.texts == EvaluationFolder(out).replies() == {(NAMES[FAKE], "answer"): "Yes."}


@pytest.mark.parametrize(
    ("content", "says"),
    [("[", "not valid JSON"), ("{}", "not a JSON list"), ("[{}]", "holds no answer")],
)
def test_a_bad_result_file_is_named(bench: Path, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        read_replies([path], Benchmark.open(bench).questions())
