"""Published sets whose folder names say everything: one entry of data for each set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from core.records import Authenticity
from imaging.files import Entry, shown_name
from imaging.layouts.found import FoundFile, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.tree import Tree, matches, say_held

LABELS: Final[Mapping[str, Authenticity]] = MappingProxyType(
    {
        "0_real": Authenticity.REAL,
        "nature": Authenticity.REAL,
        "real": Authenticity.REAL,
        "1_fake": Authenticity.FAKE,
        "ai": Authenticity.FAKE,
        "fake": Authenticity.FAKE,
    }
)
ROOT: Final = ""
"""generator: the name of the folder or archive itself"""

PAIR: Final = r"(?P<label>0_real|1_fake)/.+"
WRAPPERS: Final = (
    r"(?:(?:forensynths|cnndetection|cnn_synth_testset|progan_train|progan_val|progan_testset"
    r"|universalfakedetect|diffusion_datasets|aigcdetectbenchmark|aigibench|test)/)*"
)
CLASSES: Final = (
    r"(?:airplane|bicycle|bird|boat|bottle|bus|car|cat|chair|cow|diningtable|dog|horse|motorbike"
    r"|person|pottedplant|sheep|sofa|train|tvmonitor|bedroom|church|apple|orange|summer|winter"
    r"|zebra)"
)
"""of the sets made by ProGAN, StyleGAN, StyleGAN2 and CycleGAN"""


@dataclass(frozen=True, slots=True)
class Rule:
    """Files whose whole name matches `pattern`; its groups are label, generator and group."""

    pattern: str
    generator: str = UNKNOWN_GENERATOR
    """of fakes, where the pattern finds none"""
    label: Authenticity = Authenticity.FAKE
    """where the pattern finds none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the folders of one published set are named. Patterns hold in any case of letters."""

    name: str
    drawn: str
    """the same for people"""
    telling: str
    """a folder that only such a set has"""
    rules: tuple[Rule, ...]
    """the first one that matches holds"""
    without: str | None = None
    """a folder that such a set has not"""
    left_out: str | None = None
    """files that are no images of the set, and only counted"""
    licence: str | None = None


SHAPES: Final = (
    Shape(
        name="genimage",
        drawn="<generator>/{train,val}/{ai,nature}",
        telling=r"(?:.+/)?(?:train|val)/(?:ai|nature)",
        rules=(
            Rule(
                r"(?:genimage/)?(?:(?P<generator>[^/]+)/)?(?:[^/]+/)?(?:train|val)/"
                r"(?P<label>ai|nature)/.+",
                generator=ROOT,
            ),
        ),
        licence="CC-BY-NC-SA-4.0 and own terms, no commercial use",
    ),
    Shape(
        name="diffusionforensics",
        drawn="images/{train,val,test}/{lsun_bedroom,imagenet,celebahq}/{real,<generator>}",
        telling=r"(?:.+/)?images/(?:train|val|test)/(?:lsun_bedroom|imagenet|celebahq)",
        rules=(
            Rule(
                r"(?:.+/)?images/(?:train|val|test)/(?P<domain>lsun_bedroom|imagenet|celebahq)/"
                r"(?:(?P=domain)/)?(?:(?P<label>real)|(?P<generator>[^/]+))/.+"
            ),
        ),
        left_out=r"(?:.+/)?(?:recons|dire)/.+",
    ),
    Shape(
        name="wildrf",
        drawn="{train,val,test/{reddit,twitter,facebook}}/{0_real,1_fake}",
        telling=r"(?:.+/)?test/(?:reddit|twitter|facebook)/(?:0_real|1_fake)",
        rules=(Rule(rf"(?:[^/]+/)?(?:train|val|test/(?:reddit|twitter|facebook))/{PAIR}"),),
        licence="software research licence of its repository",
    ),
    Shape(
        name="aigibench",
        drawn="{train,val}/<class>/{0_real,1_fake} and test/<generator>/{0_real,1_fake}",
        telling=r"(?:.+/)?(?:SocialRF|CommunityAI)/(?:.+/)?(?:0_real|1_fake)",
        rules=(
            Rule(rf"(?:aigibench/)?(?:train|val)/(?:[^/]+/)*?{PAIR}"),
            Rule(rf"{WRAPPERS}(?P<generator>[^/]+)/(?:[^/]+/)*?{PAIR}"),
        ),
        licence="CC BY-NC-SA",
    ),
    Shape(
        name="universalfakedetect",
        drawn="<generator>/{0_real,1_fake}",
        telling=r"(?:.+/)?(?:ldm_\d+(?:_cfg)?|glide_\d+_\d+|guided)/(?:0_real|1_fake)",
        rules=(Rule(rf"{WRAPPERS}(?P<generator>[^/]+)/(?:[^/]+/)*?{PAIR}"),),
    ),
    Shape(
        name="synthbuster",
        drawn="<generator>/*.png and RAISE-1k",
        telling=r"(?:synthbuster/)?(?:midjourney-v5|stable-diffusion-(?:1-3|1-4|2|xl))",
        rules=(
            Rule(
                r"(?:.+/)?[^/]*raise[^/]*/(?:.+/)?(?P<group>[^/]+)\.[^/.]+",
                label=Authenticity.REAL,
            ),
            Rule(r"(?:synthbuster/)?(?P<generator>[^/]+)/(?P<group>[^/]+)\.png"),
        ),
        licence="non-commercial research",
    ),
    Shape(
        name="chameleon",
        drawn="test/{0_real,1_fake}",
        telling=r"(?:chameleon/)?test/(?:0_real|1_fake)",
        without=r"(?:.+/)?(?:train|val)",
        rules=(Rule(rf"(?:chameleon/)?test/{PAIR}"),),
        licence="academic research only",
    ),
    Shape(
        name="forensynths",
        drawn="<generator>[/<class>]/{0_real,1_fake}",
        telling=r"(?:.+/)?(?:0_real|1_fake)",
        rules=(
            Rule(rf"(?:.+/)?(?:train|val|progan_train|progan_val)/{CLASSES}/{PAIR}", "progan"),
            Rule(rf"(?:train|val|test)/{PAIR}"),
            Rule(rf"{CLASSES}/{PAIR}", generator=ROOT),
            Rule(rf"{WRAPPERS}(?:(?:train|val)/)?(?P<generator>[^/]+)/(?:[^/]+/)*?{PAIR}"),
            Rule(PAIR, generator=ROOT),
        ),
    ),
    Shape(
        name="community-forensics-folders",
        drawn="<generator>/{real,fake}",
        telling=r"[^/]+/(?:real|fake)",
        rules=(Rule(r"(?P<generator>[^/]+)/(?P<label>real|fake)/.+"),),
    ),
)


def recognise_shape(shape: Shape, tree: Tree) -> str | None:
    """Name some of the telling folders."""
    if shape.without is not None and matches(tree, shape.without):
        return None
    return say_held(matches(tree, shape.telling))


def read_shape(shape: Shape, tree: Tree) -> Iterator[FoundFile]:
    """All files, labelled by their folders; those elsewhere are refused, or left out by rule."""
    rules = [(re.compile(rule.pattern, re.IGNORECASE | re.DOTALL), rule) for rule in shape.rules]
    left_out = re.compile(shape.left_out or r"(?!)", re.IGNORECASE | re.DOTALL)
    root = shown_name(tree.place.stem)
    for entry in tree.entries():
        if left_out.fullmatch(entry.name):
            yield FoundFile(name=shown_name(entry.name), content=b"", is_hidden=True)
            continue
        matching = ((pattern.fullmatch(entry.name), rule) for pattern, rule in rules)
        match, rule = next(((m, r) for m, r in matching if m), (None, None))
        if match is None or rule is None:
            yield found_from(entry, refusal=f"lies outside {shape.drawn}")
        else:
            yield _label(entry, match.groupdict(), rule, root)


def _label(entry: Entry, named: Mapping[str, str | None], rule: Rule, root: str) -> FoundFile:
    word, group = named.get("label"), named.get("group")
    generator = named.get("generator") or rule.generator
    return found_from(
        entry,
        label=LABELS[word.lower()] if word else rule.label,
        generator=root if generator == ROOT else shown_name(generator),
        group=shown_name(group) if group else None,
    )


LAYOUTS: Final = tuple(
    Layout(
        name=shape.name,
        recognise=partial(recognise_shape, shape),
        read=partial(read_shape, shape),
        licence=shape.licence,
    )
    for shape in SHAPES
)
