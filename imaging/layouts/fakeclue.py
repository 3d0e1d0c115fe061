"""FakeClue (of FakeVLM): `data_json/{train,test}.json` beside folders `{train,test}/<kind>/...`.

In its JSON a label of 0 means fake. Each record has one question and one answer, a verdict with its
reasons; what we export in this layout may ask about an image more than once, names generator and
group, and has a list for validation too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from core.errors import ConfigError, DataError
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, FoundQuestion, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import ZERO_IS_FAKE, label_of, text_of
from imaging.layouts.rows import read_records
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LISTS: Final = r"(?:.+/)?data_json/(?:train|val|test)\.json"
IMAGE_ROOTS: Final = ("{split}", "data/{split}", "playground/data/{split}", "")
"""where the paths of a list may begin, beside `data_json`"""
SWAPPED_FACES: Final = re.compile(
    r"ff\+\+/(?:fake/(?P<method>[^/]+)|real)/(?:.*/)?(?P<people>\d{3}(?:_\d{3})?)/[^/]+",
    re.DOTALL,
)
"""FaceForensics++: the folder names the one or two people of a video"""
EXPLANATION: Final = "explanation"
IMAGE_MARK: Final = "<image>"


def recognise_fakeclue(tree: Tree) -> str | None:
    """Say which lists there are."""
    return say_held(matches(tree, LISTS))


def read_fakeclue(tree: Tree) -> Iterator[FoundFile]:
    """The images of both lists; faces of the same people are in one group."""
    lists = sorted(matches(tree, LISTS))
    if not lists:
        raise ConfigError(f"{tree.place}: there is no data_json/train.json or test.json in it")
    records = {name: read_records(tree, name) for name in lists}
    people = _join_people(record for each in records.values() for record in each)
    for name in lists:
        root = _image_root(tree, name)
        found: dict[str, FoundFile] = {}
        for number, record in enumerate(records[name], start=1):
            each = _find(tree, root, record, people, f"{name}, entry {number}")
            found[each.name] = _joined(found.get(each.name), each)
        yield from found.values()


def _joined(first: FoundFile | None, more: FoundFile) -> FoundFile:
    """One file of which several records ask."""
    if first is None:
        return more
    number = len(first.questions) + 1
    asked = (replace(question, key=f"answer {number}") for question in more.questions)
    return replace(first, questions=(*first.questions, *asked))


def _image_root(tree: Tree, name: str) -> str:
    folder, split = name.rpartition("data_json/")[0], PurePosixPath(name).stem
    roots = [f"{folder}{root.format(split=split)}" for root in IMAGE_ROOTS]
    known = set(tree.outline)
    return next((root for root in roots if root in known), folder.rstrip("/"))


def _find(tree: Tree, root: str, record: Any, people: Mapping[str, str], place: str) -> FoundFile:
    try:
        path = text_of(record, "image")
        label = label_of(record.get("label"), ZERO_IS_FAKE)
    except DataError as error:
        return FoundFile(name=shown_name(place), content=b"", refusal=str(error))
    faces = SWAPPED_FACES.fullmatch(path)
    method = faces.group("method") if faces else None
    is_turned = label.opposite.value in path.split("/")
    found = found_from(
        find_inside(tree, f"{root}/{path}" if root else path),
        label=label,
        generator=shown_name(method or _said(record, "generator") or UNKNOWN_GENERATOR),
        group=people[faces.group("people")] if faces else _said(record, "group"),
        refusal=f"labelled {label.value}, but its folder says otherwise" if is_turned else None,
    )
    return replace(found, topic=_topic_of(record), questions=tuple(_questions(record)))


def _said(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return shown_name(value) if isinstance(value, str) and value else None


def _topic_of(record: Mapping[str, Any]) -> str | None:
    return shown_name(str(record["cate"])) if record.get("cate") else None


def _questions(record: Mapping[str, Any]) -> Iterator[FoundQuestion]:
    """The two turns of the conversation; nothing where they are not there."""
    turns = record.get("conversations")
    said = [
        turn["value"].replace(IMAGE_MARK, "").strip()
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict) and isinstance(turn.get("value"), str)
    ]
    if said and said[0]:
        yield FoundQuestion(
            key="answer",
            axis=EXPLANATION,
            text=said[0],
            reference=said[1] if len(said) > 1 and said[1] else None,
            topic=_topic_of(record),
        )


def _join_people(records: Iterable[Any]) -> Mapping[str, str]:
    """A group for each folder of faces: whoever appears together in any of them is in one."""
    names = {faces.group("people") for record in records if (faces := _faces_of(record))}
    first: dict[str, str] = {}

    def root_of(person: str) -> str:
        while first.setdefault(person, person) != person:
            person = first[person]
        return person

    for name in sorted(names):
        roots = sorted(root_of(person) for person in name.split("_"))
        first[roots[-1]] = roots[0]
    return {name: f"ff++ {root_of(name.split('_')[0])}" for name in names}


def _faces_of(record: Any) -> re.Match[str] | None:
    path = record.get("image") if isinstance(record, dict) else None
    return SWAPPED_FACES.fullmatch(path) if isinstance(path, str) else None


LAYOUT: Final = Layout(
    name="fakeclue",
    recognise=recognise_fakeclue,
    read=read_fakeclue,
    licence="Apache-2.0, parts inherit stricter terms",
)
