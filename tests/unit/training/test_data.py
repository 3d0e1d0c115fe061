from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError
from core.records import Split
from instruct_builder.manifest import SourceFact
from instruct_builder.shards import ShardSet
from tests.unit.training.toys import CHECKS, ToySet, make_config, make_set
from training.data import ImageFolder, ImageRef, Rows, Visit, open_shards, plan_visits, read_images
from training.inputs import read_inputs

CONFIG = make_config()


@pytest.fixture
def rows(toy: ToySet) -> Rows:
    return Rows.read(open_shards(toy.shards), Split.TRAIN)


def test_rows_hold_the_asked_split_with_their_conversation(rows: Rows) -> None:
    assert len(rows) == 6 * 12 * 3
    first = rows.take([0])[0]
    assert [message["role"] for message in first.messages] == ["user", "assistant"]
    assert first.target in ("real", "fake")
    assert len(rows.images()) == 6 * 12


def test_a_visit_holds_different_rows_of_one_image(rows: Rows) -> None:
    for visit in islice(plan_visits(rows, {"verdict": 1, "discuss": 1}, branches=3, seed=1), 30):
        taken = rows.take(visit.places)
        assert len({row.image.image_id for row in taken}) == 1
        assert len({row.instruction_id for row in taken}) == 3
        for key, row in zip(visit.keys, taken, strict=True):
            assert (len(row.messages) == 4) == (key == "discuss")


def test_a_visit_ends_where_the_image_has_no_more_rows(rows: Rows) -> None:
    visit = next(plan_visits(rows, {"verdict": 1}, branches=9, seed=1))
    assert len(visit.places) == 2


def test_every_image_comes_once_before_any_comes_twice(rows: Rows) -> None:
    visits = islice(plan_visits(rows, {"verdict": 1}, branches=1, seed=1), 144)
    seen = [rows.image_at(visit.places[0]).image_id for visit in visits]
    assert len(set(seen[:72])) == len(set(seen[72:])) == 72
    assert seen[:72] != seen[72:]


def test_all_rows_of_an_image_come_before_one_comes_again(rows: Rows) -> None:
    visits = islice(plan_visits(rows, {"verdict": 1}, branches=1, seed=1), 144)
    drawn = Counter(visit.places[0] for visit in visits)
    assert len(drawn) == 144
    assert set(drawn.values()) == {1}


def test_the_mix_is_kept_after_any_number_of_visits(rows: Rows) -> None:
    mix = {"verdict_what": 0.5, "verdict_is_fake": 0.3, "discuss": 0.2, "discussion": 0.0}
    given: Counter[str] = Counter()
    for number, visit in enumerate(islice(plan_visits(rows, mix, branches=1, seed=1), 100), 1):
        given.update(visit.keys)
        for key, share in mix.items():
            assert abs(given[key] - share * number) <= 1


def test_a_seed_decides_the_visits(rows: Rows) -> None:
    def draw(seed: int) -> list[Visit]:
        mix = {"verdict": 1, "discussion": 1}
        return list(islice(plan_visits(rows, mix, branches=2, seed=seed), 12))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_an_unknown_form_in_the_mix_names_those_that_exist(toy: ToySet) -> None:
    config = make_config(data__mix={"verdikt": 1})
    with pytest.raises(ConfigError, match=r"no training row of 'verdikt'.*discuss.*verdict_what"):
        read_inputs(config, toy.shards, toy.images)


@pytest.fixture
def own(toy: ToySet, tmp_path: Path) -> ToySet:
    """A copy that a test may damage."""
    return ToySet(
        Path(shutil.copytree(toy.shards, tmp_path / "shards")),
        Path(shutil.copytree(toy.images, tmp_path / "images")),
    )


def test_a_changed_shard_is_refused(own: ToySet) -> None:
    path = own.shards / "rows-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"rows-00000\.parquet: its SHA-256"):
        open_shards(own.shards)


def test_a_folder_without_manifest_is_refused(own: ToySet) -> None:
    (own.shards / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        open_shards(own.shards)


def test_missing_images_are_counted_before_any_work(own: ToySet) -> None:
    for path in sorted(own.images.rglob("*.png"))[:3]:
        path.unlink()
    with pytest.raises(ConfigError, match=r"3 of 144 images are not in .*--images"):
        read_inputs(CONFIG, own.shards, own.images)


def test_a_changed_image_is_refused_when_it_is_read(own: ToySet) -> None:
    image = read_images(open_shards(own.shards))[0]
    folder = ImageFolder(own.images)
    assert folder.read(image.ref).size == (32, 32)
    folder.path_of(image.ref).write_bytes(b"something else")
    with pytest.raises(ConfigError, match=rf"{image.ref.image_id}.*has changed"):
        folder.read(image.ref)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_a_shard_cannot_point_outside_the_image_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="leaves the image folder"):
        ImageFolder(tmp_path).read(ImageRef("img-1", path, "0"))


def test_a_withdrawn_image_is_refused(tmp_path: Path, toy: ToySet) -> None:
    image = read_images(open_shards(toy.shards))[0].ref.image_id
    withdrawn = make_set(tmp_path, tombstones=(image,))
    with pytest.raises(ConfigError, match=f"{image}: withdrawn, and still in"):
        open_shards(withdrawn.shards)
    with pytest.raises(ConfigError, match=f"{image} was withdrawn"):
        read_images(ShardSet.open(withdrawn.shards))


def test_a_label_that_is_neither_real_nor_fake_is_refused(own: ToySet) -> None:
    table = pq.read_table(own.shards / "images.parquet")
    labels = ["1", *table["label"].to_pylist()[1:]]
    place = table.column_names.index("label")
    changed = table.set_column(place, "label", pa.array(labels, table.schema.field("label").type))
    pq.write_table(changed, own.shards / "images.parquet")
    with pytest.raises(ConfigError, match=r"unknown label '1'; known are real, fake"):
        read_images(ShardSet.open(own.shards))


def test_a_source_that_must_not_be_trained_on_is_refused(tmp_path: Path) -> None:
    sources = (SourceFact(name="loan", licence="unknown", may_train=False),)
    toy = make_set(tmp_path, sources=sources)
    with pytest.raises(ConfigError, match="source loan may not be used for training"):
        open_shards(toy.shards)


def test_an_image_of_a_source_without_terms_is_refused(tmp_path: Path) -> None:
    sources = (SourceFact(name="another", licence="CC0-1.0", may_train=True),)
    toy = make_set(tmp_path, sources=sources)
    with pytest.raises(ConfigError, match="it holds images of toy, whose terms"):
        open_shards(toy.shards)


def test_held_out_generators_are_those_that_the_training_never_saw(toy: ToySet) -> None:
    test = read_inputs(CONFIG, toy.shards, toy.images).test
    assert test.held_out == {CHECKS}
    assert len(test.images) == 4 * 12
    assert sum(test.among(test.seen)) + sum(test.among(test.held_out)) == 4 * 12 + 4 * 6


def test_a_photograph_in_two_splits_is_refused(toy: ToySet) -> None:
    from training.test_split import TestSet

    images = read_images(open_shards(toy.shards))
    leaking = replace(
        next(image for image in images if image.split is Split.TEST), split=Split.TRAIN
    )
    with pytest.raises(ConfigError, match="is in the train and in the test split"):
        TestSet.of([*images, leaking])


def test_a_sample_is_drawn_without_repetition(rows: Rows) -> None:
    names = [row.instruction_id for row in rows.sample(40, seed=3)]
    assert len(set(names)) == 40
    assert len(rows.sample(10_000, seed=3)) == len(rows)
    assert np.array_equal(names, [row.instruction_id for row in rows.sample(40, seed=3)])


def chosen(toy: ToySet, **settings: object) -> Rows:
    config = make_config(**{f"data__{name}": value for name, value in settings.items()})
    return read_inputs(config, toy.shards, toy.images).rows


def test_a_smaller_share_of_the_images_lies_within_a_larger_one(toy: ToySet, rows: Rows) -> None:
    quarter, half = (
        {ref.image_id for ref in chosen(toy, images_share=share).images()} for share in (0.25, 0.5)
    )
    assert (len(quarter), len(half)) == (18, 36)
    assert quarter < half
    assert len(chosen(toy, images_share=0.25)) == 18 * 3
    assert len(chosen(toy)) == len(rows)


def test_a_smaller_share_of_the_rows_lies_within_a_larger_one(toy: ToySet) -> None:
    quarter, half = (
        set(chosen(toy, rows_share=share).table["instruction_id"].to_pylist())
        for share in (0.25, 0.5)
    )
    assert (len(quarter), len(half)) == (54, 108)
    assert quarter < half


def test_another_seed_draws_other_images(toy: ToySet, rows: Rows) -> None:
    data = make_config(data__images_share=0.5).data
    first, second = (rows.select(data, seed=seed).images() for seed in (1, 2))
    assert first != second
    assert len(first) == len(second)


@pytest.mark.parametrize("name", ["discussion", "discuss"])
def test_a_family_or_form_can_be_left_out(toy: ToySet, name: str) -> None:
    config = make_config(data__leave_out=[name], data__mix={"verdict_what": 1, name: 1})
    rows = read_inputs(config, toy.shards, toy.images).rows
    assert set(rows.table["form"].to_pylist()) == {"verdict_what", "verdict_is_fake"}
    assert config.data.shares == {"verdict_what": 1}


def test_what_cannot_be_left_out_is_refused(toy: ToySet) -> None:
    config = make_config(data__leave_out=["verdikt"])
    with pytest.raises(ConfigError, match=r"data\.leave_out: no training row of 'verdikt'; there"):
        read_inputs(config, toy.shards, toy.images)
    with pytest.raises(ValueError, match="leaves nothing of the mix"):
        make_config(data__leave_out=["verdict"], data__mix={"verdict": 1})


def test_texts_stay_on_the_disk(tmp_path: Path) -> None:
    """Ten times the rows, and no more memory for their texts."""
    for per_group in (2, 20):
        toy = make_set(tmp_path / str(per_group), per_group=per_group)
        before = pa.total_allocated_bytes()
        rows = Rows.read(ShardSet.open(toy.shards), Split.TRAIN)
        half = rows.select(make_config(data__images_share=0.5).data, seed=1)
        assert len(half) == len(rows) / 2 == 6 * per_group * 3 / 2
        assert pa.total_allocated_bytes() - before < 1000
        assert rows.table.nbytes > 500 * len(rows) / 2
        first = half.take([0])[0]
        place = rows.table["instruction_id"].to_pylist().index(first.instruction_id)
        assert rows.take([place]) == [first]
