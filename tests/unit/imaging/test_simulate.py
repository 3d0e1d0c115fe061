"""The demo's photographs, simulated generators and images."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from core.errors import ConfigError
from core.records import Authenticity
from imaging.photographs import LICENCES, Photograph, photographs
from imaging.simulate import GENERATORS, DemoImage, demo_images

GREY = {"brick", "camera", "clock", "coins", "grass", "gravel", "text"}
HELD_OUT = "sim-damped"
TEST_GROUPS = frozenset({"coffee", "grass", "text"})
QUALITY = (85, 96)


def make_demo(*, crops: int = 320, seed: int = 3, crop_size: int = 128) -> list[DemoImage]:
    return list(
        demo_images(
            seed=seed,
            crops=crops,
            crop_size=crop_size,
            generators=tuple(GENERATORS),
            jpeg_quality=QUALITY,
            holdout=(HELD_OUT,),
            test_photographs=TEST_GROUPS,
        )
    )


@pytest.fixture(scope="module")
def demo() -> list[DemoImage]:
    return make_demo()


@pytest.fixture(scope="module")
def sources() -> tuple[Photograph, ...]:
    return photographs()


def decode(image: DemoImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image.data)))


def test_at_least_sixteen_photographs_load_from_the_installed_packages(
    sources: tuple[Photograph, ...],
) -> None:
    assert len({photo.name for photo in sources}) >= 16
    for photo in sources:
        assert photo.pixels.dtype == np.uint8
        assert photo.pixels.ndim == 3 and photo.pixels.shape[2] == 3
        assert min(photo.pixels.shape[:2]) >= 128
        assert photo.licence and photo.licence in LICENCES and photo.name in LICENCES


def test_pictures_without_a_stated_licence_stay_out(sources: tuple[Photograph, ...]) -> None:
    names = {photo.name for photo in sources}

    assert not names & {"moon", "page", "motorcycle", "motorcycle-left", "motorcycle-right"}


def test_grey_photographs_come_in_three_equal_channels(sources: tuple[Photograph, ...]) -> None:
    grey = {photo.name for photo in sources if (photo.pixels == photo.pixels[..., :1]).all()}

    assert grey == GREY


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("shape", [(128, 128), (37, 50), (17, 130)])
def test_a_generator_keeps_shape_and_overall_look(name: str, shape: tuple[int, int]) -> None:
    crop = photographs()[0].pixels[30 : 30 + shape[0], 200 : 200 + shape[1]]

    fake = GENERATORS[name](crop, np.random.default_rng(1))

    assert fake.shape == crop.shape and fake.dtype == np.uint8
    assert not np.array_equal(fake, crop)
    assert abs(fake.mean() - crop.mean()) < 2
    assert np.corrcoef(fake.ravel(), crop.ravel())[0, 1] > 0.85


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_depends_on_nothing_but_crop_and_seed(name: str) -> None:
    crop = photographs()[1].pixels[:64, :64]

    first, again, other = (
        GENERATORS[name](crop, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_simulated_generator_says_so_in_its_name() -> None:
    assert len(GENERATORS) >= 5
    assert all(name.startswith("sim-") for name in GENERATORS)


def test_each_photograph_has_as_many_real_as_fake_crops(demo: list[DemoImage]) -> None:
    counts = Counter((image.group, image.label) for image in demo)

    assert len(demo) >= 320
    assert len({group for group, _ in counts}) == len(photographs())
    assert len(set(counts.values())) == 1


def test_both_classes_have_the_same_sizes_qualities_and_subsampling(
    demo: list[DemoImage],
) -> None:
    looks: dict[tuple[str, Authenticity], list[object]] = {}
    for image in demo:
        opened = Image.open(io.BytesIO(image.data))
        tables = tuple(tuple(table) for _, table in sorted(opened.quantization.items()))
        look = (opened.format, opened.size, JpegImagePlugin.get_sampling(opened), tables)
        looks.setdefault((image.group, image.label), []).append(look)

    assert {look[1] for found in looks.values() for look in found} == {(128, 128)}
    assert len({look for found in looks.values() for look in found}) > 5
    for group in {image.group for image in demo}:
        real, fake = looks[group, Authenticity.REAL], looks[group, Authenticity.FAKE]
        assert Counter(real) == Counter(fake)


def test_a_held_out_generator_appears_in_test_groups_only(demo: list[DemoImage]) -> None:
    groups = {image.group for image in demo if image.generator == HELD_OUT}

    assert groups == TEST_GROUPS


def test_fakes_are_spread_evenly_over_the_generators(demo: list[DemoImage]) -> None:
    for group in {image.group for image in demo}:
        counts = Counter(i.generator for i in demo if i.group == group and i.generator)
        expected = set(GENERATORS) if group in TEST_GROUPS else set(GENERATORS) - {HELD_OUT}
        assert set(counts) == expected
        assert max(counts.values()) - min(counts.values()) <= 1


def test_only_fakes_name_a_generator(demo: list[DemoImage]) -> None:
    assert all((image.generator is None) == (image.label is Authenticity.REAL) for image in demo)


def test_names_are_unique_and_tell_nothing_about_the_label(demo: list[DemoImage]) -> None:
    names = [image.name for image in demo]
    assert len(set(names)) == len(names)

    for group in {image.group for image in demo}:
        ordered = sorted((i for i in demo if i.group == group), key=lambda i: i.name)
        labels = "".join(i.label.value[0] for i in ordered)
        assert labels not in ("rf" * (len(labels) // 2), "fr" * (len(labels) // 2))
        assert "rrrrrrrrrr" not in labels


def test_no_two_images_are_the_same(demo: list[DemoImage]) -> None:
    assert len({image.data for image in demo}) == len(demo)


def test_no_crop_is_featureless(demo: list[DemoImage]) -> None:
    spreads = [decode(image).mean(axis=2).std() for image in demo]

    assert min(spreads) > 4


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (make_demo(crops=64, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert not {image.data for image in first} & {image.data for image in other}


def test_holding_out_a_generator_leaves_photographs_alone(demo: list[DemoImage]) -> None:
    """The real crops are the same, whatever is done to make the fakes."""
    plain = demo_images(
        seed=3,
        crops=320,
        crop_size=128,
        generators=("sim-nearest",),
        jpeg_quality=QUALITY,
        holdout=(),
        test_photographs=frozenset(),
    )

    assert {i.data for i in plain if i.generator is None} == {
        i.data for i in demo if i.generator is None
    }


def test_an_unknown_generator_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no simulated generator 'sim-gan'.*sim-nearest"):
        next(
            demo_images(
                seed=1,
                crops=100,
                crop_size=128,
                generators=("sim-gan",),
                jpeg_quality=QUALITY,
                holdout=(),
                test_photographs=frozenset(),
            )
        )


def test_holding_out_every_generator_is_refused() -> None:
    with pytest.raises(ConfigError, match="every generator is held out"):
        next(
            demo_images(
                seed=1,
                crops=100,
                crop_size=128,
                generators=("sim-nearest",),
                jpeg_quality=QUALITY,
                holdout=("sim-nearest",),
                test_photographs=frozenset(),
            )
        )


@pytest.mark.parametrize(("crops", "crop_size"), [(100, 200), (16 * 400, 172)])
def test_crops_that_do_not_fit_are_refused_before_any_work(crops: int, crop_size: int) -> None:
    with pytest.raises(ConfigError, match=r"photograph text \(448 x 172\) has room for"):
        make_demo(crops=crops, crop_size=crop_size)
