"""The review form: a teacher's draft, trace by trace, as a Label Studio configuration.

Made from the trace categories of a recipe. The block of a trace stands in a `Repeater`, so one form
serves drafts of any length; what an expert adds goes into a fixed number of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from xml.etree import ElementTree as ET

from core.errors import DataError
from core.ids import content_id
from core.records import Confidence
from core.taxonomy import Taxonomy

ADDED: Final = 3
"""traces that an expert can add"""
ACCEPT, EDIT, REJECT = "accept", "edit", "reject"
BOX, POLYGON = "box", "polygon"
IMAGE, CONCLUSION, CONFIDENCE, COMMENT = "image", "conclusion", "confidence", "comment"
NO_TRACE, NO_TRACE_CHOICE = "no_trace", "no visible trace"

INSTRUCTIONS: Final = """\
<p>A program has described what it sees in this picture. Say what of it is true.</p>
<ul>
<li><b>accept</b> a trace that you see too, <b>reject</b> one that you do not see.</li>
<li><b>edit</b> one that is there but badly put: hover over its text, press the pencil, write,
press the tick.</li>
<li>Where a trace has a place, press <i>box</i> or <i>polygon</i> in its block and draw it, one for
each trace.</li>
<li>Add a trace that is missing; press <i>Add</i> after its text. When nothing is left to see, tick
<i>no visible trace</i>.</li>
<li>Correct the conclusion so that it says no more than the traces do. Ctrl+Enter submits.</li>
</ul>"""

SPARE_KEYS: Final = "1234567890qwetasdfgzxcvbyiopjklnm"
"""what Label Studio hands out as hotkeys by itself: a word typed outside a text box would answer"""
DENSE: Final = ".lsf-choices, .lsf-labels { margin: 2px 0 !important; }"
FRAME: Final = "border:1px solid #bbb; border-radius:6px; padding:6px 8px; margin-bottom:8px"
COLOURS: Final = {BOX: "#d33f49", POLYGON: "#3366cc"}


def trace_name(part: str, number: int | str) -> str:
    """The name of a control in the block of a trace of the draft, counted from 0."""
    return f"{part}_{number}"


def added_name(part: str, number: int) -> str:
    """The name of a control in the block of an added trace, counted from 1."""
    return f"added_{part}_{number}"


@dataclass(frozen=True)
class Control:
    """What one control of a form may answer."""

    kind: str
    """type of its results: `choices`, `textarea`, `rectanglelabels`, `polygonlabels`"""
    to_name: str
    options: frozenset[str] = frozenset()


CONTROL_TAGS: Final = {
    "Choices": "Choice", "TextArea": None, "RectangleLabels": "Label", "PolygonLabels": "Label",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A configuration as it is sent, and what names it."""

    config: str
    instructions: str

    @property
    def form_id(self) -> str:
        """Another configuration is another form, and gets projects of its own."""
        return content_id("form", self.config)

    @cached_property
    def _root(self) -> ET.Element:
        return ET.fromstring(self.config)  # noqa: S314 - ours

    def controls(self, traces: int) -> dict[str, Control]:
        """The controls by name, as they stand before a draft of so many traces."""
        found: dict[str, Control] = {}
        for name, control in _controls(self._root, traces):
            if name in found:
                raise ValueError(f"two controls are called {name}")
            found[name] = control
        return found

    def check(self, results: Sequence[dict[str, Any]], traces: int) -> None:
        """Refuse (DataError) what the server would store and then show nothing of."""
        controls = self.controls(traces)
        for result in results:
            control = controls.get(result["from_name"])
            if control is None:
                raise DataError(f"the form has no control {result['from_name']}")
            asked = replace(control, kind=result["type"], to_name=result["to_name"])
            chosen = result["value"].get(control.kind, [])
            if asked != control or (control.options and not set(chosen) <= control.options):
                raise DataError(f"control {result['from_name']} cannot hold {result['value']}")


def review_form(taxonomy: Taxonomy) -> Form:
    """The form in which an expert reviews a draft."""
    page = _element("View", style="display:flex; gap:12px; align-items:flex-start")
    _element("Style", page).text = DENSE
    picture = _element("View", page, style="flex:3; position:sticky; top:0; min-width:0")
    switches = ("zoom", "zoomControl", "brightnessControl", "contrastControl")
    _element("Image", picture, name=IMAGE, value="$image", **dict.fromkeys(switches, "true"))
    answers = _element("View", page, style="flex:2; min-width:300px")
    repeater = _element("Repeater", answers, on="$traces", indexFlag="{{idx}}")
    _add_trace_block(repeater)
    added = _element("Collapse", answers, bordered="true")
    for number in range(1, ADDED + 1):
        _add_added_block(added, number, taxonomy)
    _add_choices(answers, NO_TRACE, [NO_TRACE_CHOICE], choice="multiple")
    _add_header(answers, "Conclusion")
    _add_text(answers, CONCLUSION)
    _add_header(answers, "How sure are you?")
    _add_choices(answers, CONFIDENCE, list(Confidence), required="true")
    _add_header(answers, "Comment (for the team, in no data set)")
    _add_text(answers, COMMENT)
    _add_spare_keys(answers)
    form = Form(config=ET.tostring(page, encoding="unicode"), instructions=INSTRUCTIONS)
    form.controls(traces=1)
    return form


def _add_trace_block(repeater: ET.Element) -> None:
    index = "{{idx}}"
    block = _element("View", repeater, style=FRAME)
    _add_header(block, f"$traces[{index}].heading")
    _element("Text", block, name=trace_name("draft", index), value=f"$traces[{index}].text")
    verdict = trace_name("verdict", index)
    _add_choices(block, verdict, [ACCEPT, EDIT, REJECT], required="true")
    condition = {"whenTagName": verdict, "whenChoiceValue": EDIT}
    editor = _element("View", block, visibleWhen="choice-selected", **condition)
    _add_text(editor, trace_name("text", index))
    _add_regions(block, trace_name(BOX, index), trace_name(POLYGON, index))


def _add_added_block(parent: ET.Element, number: int, taxonomy: Taxonomy) -> None:
    block = _element("Panel", parent, value=f"Add a trace ({number} of {ADDED})")
    _add_header(block, "Category")
    name = added_name("category", number)
    categories = _element("Choices", block, name=name, toName=IMAGE, layout="select")
    for category in taxonomy.categories:
        _element(
            "Choice", categories, value=category.name, alias=category.id, hint=category.definition
        )
    _add_text(
        block,
        added_name("text", number),
        placeholder="what can be seen, in full sentences; then press Add",
    )
    _add_regions(block, added_name(BOX, number), added_name(POLYGON, number))


def _add_regions(parent: ET.Element, box: str, polygon: str) -> None:
    row = _element("View", parent, style="display:flex; gap:8px")
    for tag, name, label in (("RectangleLabels", box, BOX), ("PolygonLabels", polygon, POLYGON)):
        labels = _element(tag, row, name=name, toName=IMAGE)
        _element("Label", labels, value=label, background=COLOURS[label])


def _add_header(parent: ET.Element, value: str) -> None:
    _element("Header", parent, value=value, size="5")


def _add_choices(
    parent: ET.Element, name: str, options: Sequence[str], **attributes: str
) -> ET.Element:
    given = {"choice": "single", "showInline": "true", **attributes}
    choices = _element("Choices", parent, name=name, toName=IMAGE, **given)
    for option in options:
        _element("Choice", choices, value=option)
    return choices


def _add_text(parent: ET.Element, name: str, **attributes: str) -> None:
    given = {"editable": "true", "maxSubmissions": "1", "rows": "3", **attributes}
    _element("TextArea", parent, name=name, toName=IMAGE, **given)


def _add_spare_keys(parent: ET.Element) -> None:
    """Keep the keys from being handed out: an unseen control takes them all, and is not read."""
    hidden = _element("View", parent, style="display:none")
    taken = _add_choices(hidden, "spare_keys", list(SPARE_KEYS), choice="multiple")
    for key in taken:
        key.set("hotkey", key.get("value", ""))


def _element(tag: str, parent: ET.Element | None = None, **attributes: str) -> ET.Element:
    return ET.Element(tag, attributes) if parent is None else ET.SubElement(parent, tag, attributes)


def _controls(element: ET.Element, traces: int) -> Iterator[tuple[str, Control]]:
    if element.tag in CONTROL_TAGS:
        option = CONTROL_TAGS[element.tag]
        options = element.findall(option) if option else []
        values = frozenset(str(item.get("alias", item.get("value"))) for item in options)
        control = Control(element.tag.lower(), element.get("toName", ""), values)
        yield element.get("name", ""), control
    for child in element:
        if element.tag == "Repeater":
            for number in range(traces):
                for name, control in _controls(child, traces):
                    yield name.replace(element.get("indexFlag", ""), str(number)), control
        else:
            yield from _controls(child, traces)
