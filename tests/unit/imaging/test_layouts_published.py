"""Published data sets: small trees that lie on disk exactly as the published ones do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import Packed
from imaging.layouts import LAYOUTS, FoundFile, FoundTrace, open_collection
from imaging.tables import BATCH_ROWS
from tests.unit.imaging.layouts import recognised

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
Said = tuple[Authenticity | None, str | None]
PHOTO: Said = (REAL, None)


def lay_out(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(path: Path, **options: object) -> list[FoundFile]:
    return list(open_collection(path, **options).files())  # type: ignore[arg-type]


def said(found: Iterable[FoundFile]) -> dict[str, Said]:
    """Label and generator of the files that are to be read."""
    usable = [f for f in found if f.refusal is None and not f.is_hidden]
    return {f.name: (f.label, f.generator) for f in usable}


def by_maker(generator: str) -> Said:
    return FAKE, generator


SHAPES: list[tuple[str, str, Mapping[str, Said]]] = [
    (
        "genimage",
        "GenImage",
        {
            "Midjourney/train/ai/0_midjourney_1.png": by_maker("Midjourney"),
            "Midjourney/train/nature/n01440764_18.JPEG": PHOTO,
            "Midjourney/val/ai/300_midjourney_2.png": by_maker("Midjourney"),
            "BigGAN/imagenet_ai_0419_biggan/val/ai/0_biggan_0.png": by_maker("BigGAN"),
            "BigGAN/imagenet_ai_0419_biggan/val/nature/ILSVRC2012_val_1.JPEG": PHOTO,
        },
    ),
    (
        "genimage",
        "Wukong",
        {"train/ai/1.png": by_maker("Wukong"), "val/nature/ILSVRC2012_val_1.JPEG": PHOTO},
    ),
    (
        "forensynths",
        "CNN_synth_testset",
        {
            "progan/airplane/0_real/1.png": PHOTO,
            "progan/airplane/1_fake/2.png": by_maker("progan"),
            "progan/train/1_fake/2.png": by_maker("progan"),
            "cyclegan/horse/1_fake/3.png": by_maker("cyclegan"),
            "biggan/1_fake/4.png": by_maker("biggan"),
            "deepfake/0_real/5.png": PHOTO,
        },
    ),
    (
        "forensynths",
        "progan_train",
        {"train/car/0_real/1.png": PHOTO, "train/car/1_fake/1.png": by_maker("progan")},
    ),
    (
        "forensynths",
        "stylegan",
        {"bedroom/0_real/1.png": PHOTO, "bedroom/1_fake/1.png": by_maker("stylegan")},
    ),
    ("forensynths", "biggan", {"0_real/1.png": PHOTO, "1_fake/1.png": by_maker("biggan")}),
    (
        "forensynths",
        "AIGCDetectBenchmark",
        {"test/DALLE2/1_fake/1.png": by_maker("DALLE2"), "test/ADM/0_real/2.png": PHOTO},
    ),
    (
        "universalfakedetect",
        "diffusion_datasets",
        {
            "ldm_200_cfg/1_fake/1.png": by_maker("ldm_200_cfg"),
            "glide_100_27/1_fake/1.png": by_maker("glide_100_27"),
            "guided/1_fake/1.png": by_maker("guided"),
            "dalle/1_fake/1.png": by_maker("dalle"),
            "laion/0_real/1.png": PHOTO,
            "imagenet/0_real/1.png": PHOTO,
        },
    ),
    (
        "diffusionforensics",
        "DiffusionForensics",
        {
            "images/train/lsun_bedroom/adm/1.png": by_maker("adm"),
            "images/test/lsun_bedroom/lsun_bedroom/real/1.jpg": PHOTO,
            "images/val/imagenet/real/n01440764/1.JPEG": PHOTO,
            "images/test/celebahq/sdv2/1.png": by_maker("sdv2"),
        },
    ),
    (
        "wildrf",
        "WildRF",
        {
            "train/0_real/1.jpg": PHOTO,
            "val/1_fake/1.jpg": by_maker("unknown"),
            "test/reddit/1_fake/2.jpg": by_maker("unknown"),
            "test/facebook/0_real/3.jpg": PHOTO,
        },
    ),
    (
        "synthbuster",
        "synthbuster",
        {
            "synthbuster/midjourney-v5/r000da54ft.png": by_maker("midjourney-v5"),
            "synthbuster/dalle3/r000da54ft.png": by_maker("dalle3"),
            "real_RAISE_1k/r000da54ft.TIF": PHOTO,
        },
    ),
    (
        "chameleon",
        "Chameleon",
        {"test/0_real/1.jpg": PHOTO, "test/1_fake/1.jpg": by_maker("unknown")},
    ),
    (
        "aigibench",
        "AIGIBench",
        {
            "train/car/1_fake/1.png": by_maker("unknown"),
            "val/chair/0_real/1.png": PHOTO,
            "test/SocialRF/1_fake/1.png": by_maker("SocialRF"),
            "test/FLUX1-dev/1_fake/1.png": by_maker("FLUX1-dev"),
            "test/CommunityAI/0_real/1.png": PHOTO,
        },
    ),
    (
        "community-forensics-folders",
        "CommunityForensics",
        {"sd-turbo/fake/1.png": by_maker("sd-turbo"), "sd-turbo/real/2.jpg": PHOTO},
    ),
]


@pytest.mark.parametrize(("layout", "root", "files"), SHAPES)
def test_a_published_tree_of_folders_is_recognised_and_labelled(
    tmp_path: Path, layout: str, root: str, files: Mapping[str, Said]
) -> None:
    folder = lay_out(tmp_path / root, *files)
    name, reason = recognised(folder)
    assert name == layout
    assert any(part in reason for part in ("ai", "real", "fake", "images", "midjourney-v5"))
    found = read(folder)
    assert [f.refusal for f in found] == [None] * len(files)
    assert said(found) == files


def test_what_lies_elsewhere_in_a_published_tree_is_refused_or_left_out(tmp_path: Path) -> None:
    image = "images/test/imagenet/adm/1.png"
    derived = ("recons/test/imagenet/adm/1.png", "dire/test/imagenet/real/1.png")
    found = {f.name: f for f in read(lay_out(tmp_path, image, *derived, "README.md"))}
    assert found[image].refusal is None
    assert [found[name].is_hidden for name in (image, *derived)] == [False, True, True]
    assert "lies outside images/" in str(found["README.md"].refusal)


def test_a_folder_name_is_text_in_the_generator(tmp_path: Path) -> None:
    (found,) = read(lay_out(tmp_path, "a\nb/train/ai/1.png"))
    assert found.generator == "a\\u000ab"


def test_scenes_that_synthbuster_makes_again_are_in_one_group(tmp_path: Path) -> None:
    names = ["synthbuster/midjourney-v5/r1.png", "RAISE/r1.png", "synthbuster/dalle2/r2.png"]
    groups = {f.name: f.group for f in read(lay_out(tmp_path, *names))}
    assert [groups[name] for name in names] == ["r1", "r1", "r2"]


def test_a_synthwildx_list_labels_what_was_fetched(tmp_path: Path) -> None:
    lay_out(tmp_path, "dalle3/F_1.jpg", "real/F_2.jpg", "not listed.jpg")
    (tmp_path / "list.csv").write_text(
        "url,filename,typ\n"
        "https://example.org/1?format=jpg,dalle3/F_1.jpg,dalle3\n"
        "https://example.org/2,real/F_2.jpg,real\n"
        "https://example.org/3,firefly/F_3.jpg,firefly\n"
        "https://example.org/4,../F_4.jpg,firefly\n"
        "https://example.org/5,,firefly\n"
    )
    assert recognised(tmp_path)[0] == "synthwildx"
    found = read(tmp_path)
    assert said(found) == {"dalle3/F_1.jpg": by_maker("dalle3"), "real/F_2.jpg": PHOTO}
    assert [f.refusal for f in found[2:]] == [
        "no such file",
        "no path inside the folder",
        "no filename or no typ",
    ]


def fakebench(root: Path, *more: object) -> Path:
    lay_out(
        root,
        "FakeBench_images/fake_images/sd-02303.png",
        "FakeBench_images/real_images/000000000139.jpg",
    )
    asked = {"question": "Is it fake?", "answer": "?"}
    rows = [
        {"image_id": "sd-02303.png", "authenticity": 0, **asked},
        {"image_id": "000000000139.jpg", "authenticity": 1, **asked},
        *more,
    ]
    write_json(root / "Evaluation/FakeClass.json", rows)
    clue = {"image_id": "sd-02303.png", "generation_model": "sd", "telltale_clues": ""}
    write_json(root / "Evaluation/FakeClue.json", [clue])
    return root


def test_fakebench_has_zero_for_fake_and_is_for_evaluation_only(tmp_path: Path) -> None:
    collection = open_collection(fakebench(tmp_path))
    assert (collection.layout, collection.may_train) == ("fakebench", False)
    assert said(collection.files()) == {
        "FakeBench_images/fake_images/sd-02303.png": by_maker("sd"),
        "FakeBench_images/real_images/000000000139.jpg": PHOTO,
    }


def test_fakebench_asks_what_its_three_files_ask(tmp_path: Path) -> None:
    root = fakebench(
        tmp_path,
        {"image_id": "sd-02303.png", "authenticity": 0, "question": "Is it?", "answer": "yes"},
    )
    clue = {
        "image_id": "sd-02303.png", "generation_model": "sd", "telltale_clues": "",
        "faultfinding_mode": "Why is it fake?", "inference_mode": "What is it?",
    }  # fmt: skip
    write_json(root / "Evaluation/FakeClue.json", [clue])
    aspects = {"image_id": "sd-02303.png", "Q1": "How is its texture?", "A1": "Waxy.", "Q2": " "}
    write_json(root / "Evaluation/FakeQA.json", [aspects])
    fake, photograph = read(tmp_path)
    assert [question.key for question in photograph.questions] == ["answer"]
    assert [(q.key, q.axis, q.text, q.reference) for q in fake.questions] == [
        ("answer", "detection", "Is it fake?", "?"),
        ("answer 2", "detection", "Is it?", "yes"),
        ("faultfinding_mode", "interpretation", "Why is it fake?", None),
        ("inference_mode", "reasoning", "What is it?", None),
        ("A1", "fine-grained", "How is its texture?", "Waxy."),
    ]


def test_fakeclue_asks_the_first_turn_and_expects_the_second(tmp_path: Path) -> None:
    lay_out(tmp_path, "test/doc/fake/1.png")
    turns = [{"value": "<image>\nReal or fake?"}, {"value": "This is a fake image. Torn letters."}]
    record = {"image": "doc/fake/1.png", "label": 0, "cate": "doc", "conversations": turns}
    write_json(tmp_path / "data_json/test.json", [record])
    (found,) = read(tmp_path)
    (question,) = found.questions
    assert (question.text, question.topic) == ("Real or fake?", "doc")
    assert question.reference == "This is a fake image. Torn letters."


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"image_id": "000000000139.jpg", "authenticity": 0}, "no such file"),
        ({"image_id": "sd-02303.png", "authenticity": 2}, "label 2 is neither real nor fake"),
        ({"image_id": "sd-02303.png", "authenticity": True}, "neither real nor fake"),
        ({"image_id": "sd-02303.png"}, "neither real nor fake"),
        ({"image_id": "../../secret.png", "authenticity": 0}, "no path inside"),
        ({"image_id": "\ud800.png", "authenticity": 0}, "no file name"),
        ({"authenticity": 0}, "an entry without image_id"),
        ("sd-02303.png", "an entry without image_id"),
    ],
)
def test_a_bad_entry_of_a_list_is_refused(tmp_path: Path, entry: object, reason: str) -> None:
    *good, bad = read(fakebench(tmp_path, entry))
    assert reason in str(bad.refusal)
    assert len(said(good)) == 2


def test_fakeclue_has_zero_for_fake_and_joins_people(tmp_path: Path) -> None:
    swapped = "ff++/fake/Deepfakes/c23/frames/856_881/1066.png"
    chain = "ff++/fake/Face2Face/c23/frames/881_902/7.png"
    person = "ff++/real/youtube/c23/frames/902/3.png"
    images = {
        swapped: 0, chain: 0, person: 1, "doc/real/a/1.png": 1, "genimage/fake/2.png": 0,
        "satellite/fake/turned.png": 1,
    }  # fmt: skip
    lay_out(tmp_path / "train", *images)
    lay_out(tmp_path / "test", "chameleon/real/9.jpg")
    rows = [{"image": name, "label": label, "cate": "x"} for name, label in images.items()]
    write_json(tmp_path / "data_json/train.json", rows)
    write_json(tmp_path / "data_json/test.json", [{"image": "chameleon/real/9.jpg", "label": 1}])
    assert recognised(tmp_path)[0] == "fakeclue"
    found = read(tmp_path)
    assert said(found) == {
        "test/chameleon/real/9.jpg": PHOTO,
        f"train/{swapped}": by_maker("Deepfakes"),
        f"train/{chain}": by_maker("Face2Face"),
        f"train/{person}": PHOTO,
        "train/doc/real/a/1.png": PHOTO,
        "train/genimage/fake/2.png": by_maker("unknown"),
    }
    turned = [f for f in found if f.refusal]
    assert [f.refusal for f in turned] == ["labelled real, but its folder says otherwise"]
    groups = {f.name: f.group for f in found}
    assert {groups[f"train/{name}"] for name in (swapped, chain, person)} == {"ff++ 856"}
    assert groups["train/doc/real/a/1.png"] is None


@pytest.mark.parametrize("spelling", ["annotations", "annoations"])
def test_synthscars_marks_regions_and_explanations(tmp_path: Path, spelling: str) -> None:
    lay_out(tmp_path / "train/images", "1.png", "1.jpg", "2.png")
    hand = {"sentence": "the hand", "explanation": "six fingers", "bbox": None}
    corners = {"segmentation": [[1, 2, 3.5, 4, 5, 6], [1, 1, 2, 2]]}
    rows: list[dict[str, Any]] = [
        {"7": {"img_file_name": "1.png", "caption": "", "refs": [{**hand, **corners}]}},
        {"8": {"img_file_name": "1.jpg", "refs": []}},
        {"9": {"img_file_name": "1.png", "refs": [{"sentence": "sky", "segmentation": None}]}},
        {"10": {"refs": []}},
    ]
    write_json(tmp_path / f"train/{spelling}/train.json", rows)
    assert recognised(tmp_path)[0] == "synthscars"
    found = {f.name: f for f in read(tmp_path)}
    assert found[f"train/{spelling}/train.json, entry 4"].refusal == (
        "an entry without img_file_name"
    )
    first, twin = found["train/images/1.png"], found["train/images/1.jpg"]
    assert (first.label, first.generator) == by_maker("unknown")
    assert first.group == twin.group == "1"
    assert first.traces == (
        FoundTrace(
            place="the hand",
            explanation="six fingers",
            outlines=(((1.0, 2.0), (3.5, 4.0), (5.0, 6.0)),),
        ),
        FoundTrace(place="sky", explanation="", outlines=()),
    )
    assert "train/images/2.png" not in found


def loki(root: Path) -> Path:
    """LOKI's image part in small: its lists, one of them in UTF-16, and four pictures."""
    lay_out(root / "media_data/image/object", "1.png", "2.jpg", "3.png", "4.png")

    def entry(name: str, kind: str, answer: str = "yes", **more: object) -> dict[str, object]:
        path = f"./media_data/image/object/{name}"
        said = {"image_path": path, "question": f"{kind}?", "answer": answer}
        kinds = {"modality": "image-text", "question_type": f"image_{kind}_object"}
        return {**said, **kinds, "metric": "open-ended", **more}

    both = [f"./media_data/image/object/{name}" for name in ("1.png", "2.jpg")]
    write_json(
        root / "data_json/image/image_tf.json",
        [
            entry("1.png", "tf_fake_ask"),
            entry("1.png", "tf_fake_ask", "no", question="Is it a photograph?"),
            entry("2.jpg", "tf_real_ask", "no"),
            entry("3.png", "tf_fake_ask"),
            entry("3.png", "tf_real_ask"),
            {"question": "?", "modality": "image-text"},
            {"video_path": "1.mp4", "modality": "video-text"},
            entry("1.png", "mc_fake_from", image_path=both, choices=["A", "B"]),
        ],
    )
    regional = [
        {"region": [1, 2, 4, 3], "desc": "six fingers"},
        {"region": [1, 2, 0, 3], "desc": "a box of nothing"},
    ]
    problems = {"global": [{"desc": "too smooth"}], "regional": regional}
    judged = entry("4.png", "vqa", metric="image-model-as-judge", problems=problems)
    text = json.dumps([judged])
    (root / "data_json/image/image_regional.json").write_text(text, encoding="utf-16")
    return root


def test_loki_labels_by_what_it_asks_and_marks_boxes(tmp_path: Path) -> None:
    root = loki(tmp_path / "LOKI")
    assert recognised(root)[0] == "loki"
    found = {f.name.removeprefix("media_data/image/object/"): f for f in read(root)}
    fake, real, torn, judged = (found[name] for name in ("1.png", "2.jpg", "3.png", "4.png"))
    assert (fake.label, fake.generator) == by_maker("unknown")
    assert (real.label, real.generator) == PHOTO
    assert torn.refusal == "its entries call it both real and fake"
    assert found["data_json/image/image_tf.json, entry 6"].refusal == "an entry without image_path"
    assert len(found) == 5
    assert [(q.key, q.axis, q.reference, q.topic) for q in fake.questions] == [
        ("answer", "detection", "yes", "object"),
        ("answer 2", "detection", "no", "object"),
    ]
    assert judged.label is Authenticity.FAKE
    assert judged.questions[0].reference == "too smooth\nsix fingers\na box of nothing"
    assert [trace.outlines for trace in judged.traces] == [
        (),
        (((1.0, 2.0), (4.0, 2.0), (4.0, 4.0), (1.0, 4.0)),),
        (),
    ]


def write_parquet(path: Path, columns: Mapping[str, object], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def bytes_of(found: FoundFile, most: int = 1000) -> bytes:
    content: Any = found.content
    packed: Packed = content
    return packed.read(most)


def test_openfake_images_are_read_from_their_cells(tmp_path: Path) -> None:
    images = [{"bytes": b"image %d" % i, "path": f"{i}.jpg"} for i in range(5)]
    columns = {
        "image": images,
        "prompt": ["p"] * 5,
        "label": ["real", "fake", "fake", "fake", "maybe"],
        "model": ["", "flux", "sd-3.5", None, "x"],
    }
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", columns)
    lay_out(tmp_path, "README.md")
    name, reason = recognised(tmp_path)
    assert (name, "image, label, model" in reason) == ("openfake", True)
    found = read(tmp_path)
    shard = "data/train-00000-of-00001.parquet"
    assert said(found) == {
        f"{shard}/0000000": PHOTO,
        f"{shard}/0000001": by_maker("flux"),
        f"{shard}/0000002": by_maker("sd-3.5"),
        f"{shard}/0000003": by_maker("unknown"),
    }
    assert found[4].refusal == "label 'maybe' is neither real nor fake"
    assert [bytes_of(f) for f in found] == [b"image %d" % i for i in range(5)]
    assert read(tmp_path / shard)[1].generator == "flux"


def test_community_forensics_has_one_for_fake(tmp_path: Path) -> None:
    columns = {
        "image_name": ["a.png", "b.png"],
        "image_data": [b"one", b"two"],
        "model_name": ["RealPhotos", "sd-turbo"],
        "label": [0, 1],
    }
    write_parquet(tmp_path / "data/Systematic-0.parquet", columns)
    found = read(tmp_path)
    assert recognised(tmp_path)[0] == "community-forensics"
    assert list(said(found).values()) == [PHOTO, by_maker("sd-turbo")]
    assert [bytes_of(f) for f in found] == [b"one", b"two"]


def test_cells_may_be_read_in_any_order_and_never_beyond_the_limit(tmp_path: Path) -> None:
    count = 3 * BATCH_ROWS + 1
    data = [None if i == 1 else b"%d" % i for i in range(count)]
    columns = {"image_data": data, "model_name": ["m"] * count, "label": [1] * count}
    found = read(write_parquet(tmp_path / "x.parquet", columns, group=count).parent)
    for row in (count - 1, 0, BATCH_ROWS, 2, count - 2):
        assert bytes_of(found[row]) == b"%d" % row
    with pytest.raises(DataError, match="holds no bytes of it"):
        bytes_of(found[1])
    with pytest.raises(DataError, match="too large: 2 bytes"):
        bytes_of(found[20], 1)


def test_a_broken_parquet_file_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    columns = {"image_data": [b"one"], "model_name": ["m"], "label": [1]}
    write_parquet(tmp_path / "a.parquet", columns)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    write_parquet(tmp_path / "c.parquet", columns)
    refusals = [f.refusal for f in read(tmp_path)]
    assert (refusals[0], refusals[2]) == (None, None)
    assert "not a whole Parquet file" in str(refusals[1])


def test_a_row_group_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.layouts.shards.MOST_GROUP_BYTES", 1000)
    data = [bytes(range(256)) * 8, b"one", b"two"]
    columns = {"image_data": data, "model_name": ["m"] * 3, "label": [1] * 3}
    write_parquet(tmp_path / "a.parquet", columns, group=1)
    first, *others = read(tmp_path)
    assert first.name == "a.parquet, row group 0"
    assert "write it again in smaller row groups" in str(first.refusal)
    assert [(f.name, bytes_of(f)) for f in others] == [
        ("a.parquet/0000001", b"one"),
        ("a.parquet/0000002", b"two"),
    ]


ROWS = [
    {"path": "a.jpg", "label": "real", "generator": None, "group": "g"},
    {"path": "b.jpg", "label": "fake", "generator": "sd14", "group": None},
    {"path": "c.jpg", "label": None, "generator": None, "group": None},
    {"path": "../d.jpg", "label": "real", "generator": None, "group": None},
]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_manifest_may_be_json_lines_or_parquet(tmp_path: Path, suffix: str) -> None:
    lay_out(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    if suffix == "jsonl":
        lines = [json.dumps(row) for row in ROWS]
        (tmp_path / "manifest.jsonl").write_text("\n".join([*lines, "", "[]", lines[0]]))
    else:
        pq.write_table(pa.Table.from_pylist([*ROWS, {}, ROWS[0]]), tmp_path / "manifest.parquet")
    assert recognised(tmp_path) == ("manifest", f"it holds manifest.{suffix}")
    found = read(tmp_path)
    assert said(found) == {"a.jpg": PHOTO, "b.jpg": by_maker("sd14"), "c.jpg": (None, None)}
    assert found[0].group == "g"
    refusals = [f.refusal for f in found[3:]]
    assert refusals[:2] == ["no path inside the folder", "an empty row"]
    assert "lists a.jpg again, as line 1 does" in str(refusals[2])


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("manifest.jsonl", b"{", "manifest.jsonl, line 1: not valid JSON"),
        ("manifest.jsonl", b'{"path": "a"}', "line 1: there is no column label"),
        ("manifest.jsonl", b"\xff\xfe", "not valid JSON"),
        ("manifest.parquet", b"PAR1", "not valid Parquet"),
        ("Evaluation/FakeClass.json", b"{}", "FakeClass.json: not a JSON list"),
        ("Evaluation/FakeClass.json", b"[" * 100_000, "FakeClass.json: not valid JSON"),
        ("data_json/test.json", b"\xff", "test.json: not valid JSON"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, data: bytes, problem: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=problem):
        read(tmp_path)


@pytest.mark.parametrize("layout", ["manifest", "fakebench", "fakeclue", "synthscars", "openfake"])
def test_a_layout_that_is_not_there_can_be_asked_for_in_vain(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no .* in it"):
        read(lay_out(tmp_path, "a.jpg"), layout=layout)


def test_no_other_layout_forbids_training() -> None:
    assert [layout.name for layout in LAYOUTS if not layout.may_train] == ["fakebench"]
