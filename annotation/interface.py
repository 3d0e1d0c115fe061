"""The review form: a teacher's draft, trace by trace, as a Label Studio configuration.

Made from the trace categories of a recipe. The block of a trace stands in a `Repeater`, so one form
serves drafts of any length; what an expert adds goes into a fixed number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
BOX, POLYGON, BRUSH = "box", "polygon", "brush"
REGIONS: Final = {BOX: "RectangleLabels", POLYGON: "PolygonLabels", BRUSH: "BrushLabels"}
"""ways to say where a trace is, with their tags"""
IMAGE, CONCLUSION, CONFIDENCE, COMMENT = "image", "conclusion", "confidence", "comment"
NO_TRACE, NO_TRACE_CHOICE = "no_trace", "no visible trace"

INSTRUCTIONS: Final = """\
<p>A program has described what it sees in this picture. Say what of it is true.</p>
<ul>
<li><b>accept</b> a trace that you see too, <b>reject</b> one that you do not see.</li>
<li><b>edit</b> one that is there but badly put: hover over its text, press the pencil, write,
press the tick.</li>
<li>Where a trace has a place, press <i>box</i>, <i>polygon</i> or <i>brush</i> in its block and
draw it: one box, one polygon, or as many strokes as it needs.</li>
<li>Add a trace that is missing; press <i>Add</i> after its text. When nothing is left to see, tick
<i>no visible trace</i>.</li>
<li>Correct the conclusion so that it says no more than the traces do. Ctrl+Enter submits.</li>
</ul>"""

SETTLING: Final = """\
<p>Experts do not agree on this picture. Say what holds, trace by trace.</p>
<ul>
<li>Below what the teacher wrote stands, side by side, what each expert made of it; the letters are
drawn anew for every picture. Then comes one wording, the one that most experts left: does it
hold?</li>
<li><b>accept</b> that wording, <b>reject</b> the trace, or <b>edit</b> the wording.</li>
<li>Where experts word an added trace differently, each wording has a block: accept one.</li>
<li>What all did alike is filled in; the rest is for you, the conclusion too. Ctrl+Enter submits.
</li>
</ul>"""

INDEX: Final = "{{idx}}"
"""stands for the number of a trace"""
SPARE_KEYS: Final = "1234567890qwetasdfgzxcvbyiopjklnm"
"""what Label Studio hands out as hotkeys by itself: a word typed outside a text box would answer"""
SIDES: Final = 2
"""columns for experts; the last one takes all that are left"""
DENSE: Final = (
    ".lsf-choices, .lsf-labels { margin: 2px 0 !important; }"
    ' [data-testid="textarea-counts"] { display: none !important; }'
    ' button[aria-label="brush-tool"]:not(.lsf-tool_active) { position: fixed; left: -99px; }'
)
"""Less space between answers, no count of characters, and no row of brushes, one for each trace,
beside the picture: the labels of a trace take its brush up. They are out of sight and not gone,
since other icons are drawn with parts of theirs."""
ASIDE: Final = "opacity:0.65"
"""of small headings: they say whose words follow"""
FRAME: Final = "border:1px solid #bbb; border-radius:6px; padding:6px 8px; margin-bottom:8px"
WORDS: Final = "max-height:30vh; overflow:auto"
"""of what is read: a text without end leaves the answers below it in sight"""
COLOURS: Final = {BOX: "#d33f49", POLYGON: "#3366cc", BRUSH: "#2e7d32"}


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
    """type of its results: `choices`, `textarea`, `rectanglelabels`, ..."""
    to_name: str
    options: frozenset[str] = frozenset()


CONTROL_TAGS: Final = {
    "Choices": "Choice",
    "TextArea": None,
    **dict.fromkeys(REGIONS.values(), "Label"),
}
"""with the tags of their options"""


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

    @cached_property
    def _controls(self) -> dict[int, dict[str, Control]]:
        """What `controls` has found, by the number of traces."""
        return {}

    def controls(self, traces: int) -> dict[str, Control]:
        """The controls by name, as they stand before a draft of so many traces."""
        if traces not in self._controls:
            found: dict[str, Control] = {}
            for name, control in controls_below(self._root, traces):
                if name in found:
                    raise ValueError(f"two controls are called {name}")
                found[name] = control
            self._controls[traces] = found
        return self._controls[traces]

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
                held = str(result["value"])[:200]
                raise DataError(f"control {result['from_name']} cannot hold {held}")


def review_form(taxonomy: Taxonomy) -> Form:
    """The form in which an expert reviews a draft."""
    return _form_of_traces(taxonomy, INSTRUCTIONS, _add_draft, shares=(3, 2))


def adjudication_form(taxonomy: Taxonomy) -> Form:
    """The form in which an adjudicator settles what experts disagree on."""
    return _form_of_traces(taxonomy, SETTLING, _add_sides, shares=(1, 1))


def _form_of_traces(
    taxonomy: Taxonomy,
    instructions: str,
    add_words: Callable[[ET.Element], None],
    *,
    shares: tuple[int, int],
) -> Form:
    """Picture, one block for each trace, added traces, conclusion, confidence, comment.

    `add_words` puts into the block of a trace what there is to judge; `shares` of the width go to
    the picture and to the rest.
    """
    page = element("View", style="display:flex; gap:12px; align-items:flex-start")
    element("Style", page).text = DENSE
    add_picture(page, style=f"flex:{shares[0]}; position:sticky; top:0; min-width:0")
    answers = element("View", page, style=f"flex:{shares[1]}; min-width:300px")
    repeater = element("Repeater", answers, on="$traces", indexFlag=INDEX)
    _add_trace_block(repeater, add_words)
    added = element("Collapse", answers, bordered="true")
    for number in range(1, ADDED + 1):
        _add_added_block(added, number, taxonomy)
    add_choices(answers, NO_TRACE, [NO_TRACE_CHOICE], choice="multiple")
    add_header(answers, "Conclusion")
    add_text(answers, CONCLUSION)
    add_header(answers, "How sure are you?")
    add_choices(answers, CONFIDENCE, list(Confidence), required="true")
    add_header(answers, "Comment (for the team, in no data set)")
    add_text(answers, COMMENT)
    add_spare_keys(answers)
    form = Form(config=ET.tostring(page, encoding="unicode"), instructions=instructions)
    form.controls(traces=1)
    return form


def _add_trace_block(repeater: ET.Element, add_words: Callable[[ET.Element], None]) -> None:
    block = element("View", repeater, style=FRAME)
    add_header(block, f"$traces[{INDEX}].heading")
    add_words(block)
    verdict = trace_name("verdict", INDEX)
    add_choices(block, verdict, [ACCEPT, EDIT, REJECT], required="true")
    condition = {"whenTagName": verdict, "whenChoiceValue": EDIT}
    editor = element("View", block, visibleWhen="choice-selected", **condition)
    add_text(editor, trace_name("text", INDEX))
    _add_regions(block, {shape: trace_name(shape, INDEX) for shape in REGIONS})


def _add_draft(block: ET.Element) -> None:
    _add_words(block, "text", trace_name("draft", INDEX))


def _add_sides(block: ET.Element) -> None:
    """The teacher's words, what experts made of them side by side, and the wording to decide on."""
    _add_whose(block, "The teacher")
    _add_words(block, "draft", trace_name("draft", INDEX))
    sides = element("View", block, style="display:flex; gap:12px")
    for part in (f"side_{number}" for number in range(1, SIDES + 1)):
        side = element("View", sides, style="flex:1; min-width:0; overflow-wrap:anywhere")
        _add_whose(side, f"$traces[{INDEX}].{part}_by")
        _add_words(side, part, trace_name(part, INDEX))
    _add_whose(block, "Does this wording hold?")
    _add_words(block, "text", trace_name("wording", INDEX))


def _add_whose(parent: ET.Element, value: str) -> None:
    element("Header", element("View", parent, style=ASIDE), value=value, size="6")


def _add_words(parent: ET.Element, part: str, name: str) -> None:
    words = element("View", parent, style=WORDS)
    element("Text", words, name=name, value=f"$traces[{INDEX}].{part}")


def _add_added_block(parent: ET.Element, number: int, taxonomy: Taxonomy) -> None:
    block = element("Panel", parent, value=f"Add a trace ({number} of {ADDED})")
    add_header(block, "Category")
    name = added_name("category", number)
    categories = element("Choices", block, name=name, toName=IMAGE, layout="select")
    for category in taxonomy.categories:
        element(
            "Choice", categories, value=category.name, alias=category.id, hint=category.definition
        )
    add_text(
        block,
        added_name("text", number),
        placeholder="what can be seen, in full sentences; then press Add",
    )
    _add_regions(block, {shape: added_name(shape, number) for shape in REGIONS})


def _add_regions(parent: ET.Element, names: Mapping[str, str]) -> None:
    """One control for each way to say where a trace is; `names` are theirs, by the way."""
    row = element("View", parent, style="display:flex; gap:8px")
    for shape, name in names.items():
        labels = element(REGIONS[shape], row, name=name, toName=IMAGE)
        element("Label", labels, value=shape, background=COLOURS[shape])


def add_picture(parent: ET.Element, *, style: str) -> None:
    """Whole and not enlarged: Label Studio cuts the edges off a small one that it enlarges."""
    view = element("View", parent, style=style)
    switches = ("zoom", "zoomControl", "brightnessControl", "contrastControl")
    shown = {"defaultZoom": "auto", **dict.fromkeys(switches, "true")}
    element("Image", view, name=IMAGE, value="$image", **shown)


def add_header(parent: ET.Element, value: str) -> None:
    element("Header", parent, value=value, size="5")


def add_choices(
    parent: ET.Element, name: str, options: Sequence[str], **attributes: str
) -> ET.Element:
    given = {"choice": "single", "showInline": "true", **attributes}
    choices = element("Choices", parent, name=name, toName=IMAGE, **given)
    for option in options:
        element("Choice", choices, value=option)
    return choices


def add_text(parent: ET.Element, name: str, **attributes: str) -> None:
    given = {"editable": "true", "maxSubmissions": "1", "rows": "3", **attributes}
    element("TextArea", parent, name=name, toName=IMAGE, **given)


def add_spare_keys(parent: ET.Element, *, without: str = "") -> None:
    """Keep keys from being handed out: an unseen control takes them all, and is not read."""
    hidden = element("View", parent, style="display:none")
    spare = [key for key in SPARE_KEYS if key not in without]
    taken = add_choices(hidden, "spare_keys", spare, choice="multiple")
    for key in taken:
        key.set("hotkey", key.get("value", ""))


def element(tag: str, parent: ET.Element | None = None, **attributes: str) -> ET.Element:
    return ET.Element(tag, attributes) if parent is None else ET.SubElement(parent, tag, attributes)


def controls_below(element: ET.Element, traces: int) -> Iterator[tuple[str, Control]]:
    if element.tag in CONTROL_TAGS:
        option = CONTROL_TAGS[element.tag]
        options = element.findall(option) if option else []
        values = frozenset(str(item.get("alias", item.get("value"))) for item in options)
        control = Control(element.tag.lower(), element.get("toName", ""), values)
        yield element.get("name", ""), control
    for child in element:
        if element.tag == "Repeater":
            for number in range(traces):
                for name, control in controls_below(child, traces):
                    yield name.replace(element.get("indexFlag", ""), str(number)), control
        else:
            yield from controls_below(child, traces)
