from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.errors import ConfigError, DataError
from imaging.layouts import FoundTrace
from tests.unit.training.toys import draw_picture
from training import evaluate as command
from training.masks import (
    Marked,
    compare_masks,
    decode_run_lengths,
    draw_outlines,
    measure_masks,
    read_mask,
)

SQUARE = ((0.0, 0.0), (3.0, 0.0), (3.0, 3.0), (0.0, 3.0))
"""16 of the 100 pixels of a 10 x 10 image"""


def marked(name: str = "images/1.jpg") -> Marked:
    return Marked(name, 10, 10, (FoundTrace(place="", explanation="", outlines=(SQUARE,)),))


def save(folder: Path, mask: np.ndarray, name: str = "1.png") -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray((mask * 255).astype(np.uint8)).save(folder / name)


def test_scores_equal_those_counted_by_hand(tmp_path: Path) -> None:
    mask = np.zeros((10, 10), bool)
    mask[:4, :2] = True
    mask[9, 9] = True
    save(tmp_path, mask)
    found = measure_masks([marked()], tmp_path)
    assert draw_outlines(marked()).sum() == 16
    assert found.scores.foreground_iou == pytest.approx(8 / 17)
    assert found.scores.mean_iou == pytest.approx((8 / 17 + 83 / 92) / 2)
    assert found.scores.f1 == pytest.approx(2 * 8 / (9 + 16))
    assert found.nothing_marked.mean_iou == pytest.approx(0.84 / 2)
    assert found.nothing_marked.f1 == 0.0
    assert found.everything_marked.mean_iou == pytest.approx(0.16 / 2)
    assert found.everything_marked.f1 == pytest.approx(2 * 16 / 116)


def test_masks_are_compared_by_the_command(tmp_path: Path) -> None:
    """SynthScars in small: of three images one has its mask, one a bad one, one has none."""
    root, masks, out = tmp_path / "scars", tmp_path / "masks", tmp_path / "out"
    (root / "test/images").mkdir(parents=True)
    outline = [value for corner in SQUARE for value in (10 * corner[0], 10 * corner[1])]
    trace = {"sentence": "the hand", "explanation": "six fingers", "segmentation": [outline]}
    rows = []
    for number in range(3):
        name = f"{number}.png"
        draw_picture(None, number).resize((64, 64)).save(root / "test/images" / name)
        rows.append({str(number): {"img_file_name": name, "refs": [trace]}})
    (root / "test/annotations").mkdir()
    (root / "test/annotations/test.json").write_text(json.dumps(rows))
    whole = np.zeros((64, 64), bool)
    whole[:31, :31] = True
    save(masks, whole, "0.png")
    save(masks, whole[:32], "1.png")
    scores = tmp_path / "scores.csv"
    scores.write_text("name,p_fake\ntest/images/0.png,0.9\n")
    arguments = ["--scores", scores, "--data", root, "--out", out, "--masks", masks]
    result = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "3 images; 1 without a mask, 1 masks cannot be used" in result.output
    found = json.loads((out / "report.json").read_text())["masks"]
    assert found["scores"]["f1"] == pytest.approx(1 / 3)
    assert found["nothing_marked"]["f1"] == 0.0
    page = (out / "report.html").read_text()
    assert "test/images/1.png: its mask has 64 x 32 pixels, it has 64 x 64" in page


def test_masks_alone_are_compared_with_loki_s_boxes(tmp_path: Path) -> None:
    """No scorer: the report holds masks and no detection, and a changed mask is another model."""
    root, masks, out = tmp_path / "LOKI", tmp_path / "masks", tmp_path / "out"
    (root / "media_data/image").mkdir(parents=True)
    draw_picture(None, 1).resize((64, 64)).save(root / "media_data/image/1.png")
    problems = {"regional": [{"region": [0, 0, 31, 31], "desc": "six fingers"}]}
    entry = {"image_path": "media_data/image/1.png", "problems": problems}
    (root / "data_json").mkdir()
    (root / "data_json/image_regional.json").write_text(json.dumps([entry]), encoding="utf-16")
    whole = np.zeros((64, 64), bool)
    whole[:31, :31] = True
    save(masks, whole)
    arguments = ["--masks", masks, "--data", root, "--benchmark", "loki", "--out", out]
    result = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "no image has both" not in result.output
    report = json.loads((out / "report.json").read_text())
    assert report["detection"] is None
    assert report["masks"]["scores"]["f1"] == 1.0
    save(masks, ~whole)
    again = CliRunner().invoke(command.app, [str(argument) for argument in arguments])
    assert again.exit_code == 2
    assert "holds the evaluation of something else" in again.output
    asking = CliRunner().invoke(command.app, [*map(str, arguments), "--ask"])
    assert "--masks alone name no model" in asking.output


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((2, 3), bool)
    assert compare_masks(empty, empty).mean_iou == compare_masks(empty, empty).f1 == 1.0


def test_run_lengths_go_column_by_column() -> None:
    mask = decode_run_lengths([1, 2, 1, 1, 1], 2, 3)
    assert mask.tolist() == [[False, True, True], [True, False, False]]


def test_compressed_run_lengths_hold_differences_from_the_third_on() -> None:
    """Five runs of 1, 2, 1, 1, 1: the last two as differences to the runs two before: -1, 0."""
    mask = decode_run_lengths("121O0", 2, 3)
    assert mask.tolist() == [[False, True, True], [True, False, False]]


def test_png_and_json_say_the_same(tmp_path: Path) -> None:
    mask = draw_outlines(marked())
    save(tmp_path, mask)
    runs = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel(), [True]])))
    counts = np.diff(np.concatenate([[0], runs])).tolist()
    if sum(counts) < 100:
        counts.append(100 - sum(counts))
    (tmp_path / "2.json").write_text(json.dumps({"size": [10, 10], "counts": counts}))
    one = read_mask(tmp_path / "1.png", width=10, height=10)
    other = read_mask(tmp_path / "2.json", width=10, height=10)
    assert (one == other).all()


def test_a_mask_of_another_size_is_named_and_counts_as_nothing(tmp_path: Path) -> None:
    save(tmp_path, np.ones((5, 10), bool))
    found = measure_masks([marked()], tmp_path)
    assert found.refused == ("images/1.jpg: its mask has 10 x 5 pixels, it has 10 x 10",)
    assert found.scores == found.nothing_marked


def test_masks_that_fit_no_image_are_an_error(tmp_path: Path) -> None:
    save(tmp_path, np.ones((10, 10), bool), "other.png")
    with pytest.raises(ConfigError, match="holds no mask for any image"):
        measure_masks([marked()], tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        measure_masks([marked()], tmp_path / "nowhere")
    (tmp_path / "bad.json").write_text('{"size": [10, 10], "counts": [1]}')
    with pytest.raises(DataError, match="do not fill"):
        read_mask(tmp_path / "bad.json", width=10, height=10)
