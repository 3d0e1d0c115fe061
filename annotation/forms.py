"""The smaller forms: a blind judgement, an exemplar, a choice between two texts.

The review form, and what all forms are made of, is in `annotation.interface`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree as ET

from annotation.interface import (
    COMMENT,
    CONFIDENCE,
    DENSE,
    IMAGE,
    WORDS,
    Form,
    add_choices,
    add_header,
    add_picture,
    add_spare_keys,
    add_text,
    element,
)
from core.records import Authenticity, Confidence
from core.taxonomy import Taxonomy

VERDICT, CATEGORIES = "verdict", "categories"
OWN, MERGED = "own", "merged"
PREFERRED, LEFT, RIGHT = "preferred", "left", "right"

BLIND_HELP: Final = """\
<p>Is this picture a photograph, or was it generated? Nothing is known of it here, and nobody will
say whether you are right.</p>
<ul>
<li>Zoom in and look around before you decide. <b>1</b> is fake, <b>2</b> is real.</li>
<li>Then tick the aspects that bear your verdict out; hold the pointer over one to read what it
means. Tick none where you see nothing.</li>
<li>Do not look at what others said. Ctrl+Enter submits.</li>
</ul>"""
EXEMPLAR_HELP: Final = """\
<p>This picture becomes an example from which a teacher learns how to describe traces.</p>
<ul>
<li>The line above says what the picture is. Write first, in your own words, what shows it.</li>
<li>Then check every point of what a program wrote, and merge both into one description. The
program's words stand there already: hover over them, press the pencil, write, press the tick. Keep
the manner: fake or real, <i>because</i>, a numbered list.</li>
<li>Tick the aspects that the merged description speaks of. Ctrl+Enter submits.</li>
</ul>"""
PREFERENCE_HELP: Final = """\
<p>Two texts explain the same picture. Which one explains it better: says what can really be seen,
and says it clearly? Choose one in any case. <b>1</b> is the left one, <b>2</b> the right one;
Ctrl+Enter submits.</p>"""

TEXT_BOX: Final = (
    "flex:1; min-width:0; border:1px solid #bbb; border-radius:6px; padding:6px 10px;"
    " white-space:pre-wrap; overflow-wrap:anywhere"
)


def text_name(side: str) -> str:
    """Of the text on a side: its control, and what it shows."""
    return f"text_{side}"


def blind_form(taxonomy: Taxonomy) -> Form:
    """The form of an expert who sees nothing but the picture."""
    page, answers = _page(pictured=3)
    add_header(answers, "Is this picture real or fake?")
    verdict = add_choices(answers, VERDICT, [Authenticity.FAKE, Authenticity.REAL], required="true")
    add_header(answers, "How sure are you?")
    add_choices(answers, CONFIDENCE, list(Confidence), required="true")
    shown = element("View", answers, visibleWhen="choice-selected", whenTagName=VERDICT)
    add_header(shown, "Which aspects bear your verdict out?")
    _add_categories(shown, taxonomy)
    add_header(answers, "Comment (for the team, in no data set)")
    add_text(answers, COMMENT)
    _add_keys(answers, verdict, {Authenticity.FAKE: "1", Authenticity.REAL: "2"})
    return _finish(page, BLIND_HELP)


def exemplar_form(taxonomy: Taxonomy) -> Form:
    """The form in which a human and a machine's description become one."""
    page, answers = _page(pictured=2)
    add_header(answers, "$heading")
    both = element("View", answers, style="display:flex; gap:10px; align-items:stretch")
    own = element("View", both, style=TEXT_BOX)
    add_header(own, "1. Your own words")
    add_text(own, OWN, required="true", rows="8", placeholder="What shows it?")
    drafted = element("View", both, style=TEXT_BOX)
    add_header(drafted, "2. A program's words")
    words = element("View", drafted, style=WORDS)
    element("Text", words, name="drafted", value="$drafted")
    add_header(answers, "3. Both merged, each point checked")
    add_text(answers, MERGED, required="true", rows="8")
    add_header(answers, "Aspects that it speaks of")
    _add_categories(answers, taxonomy)
    add_spare_keys(answers)
    return _finish(page, EXEMPLAR_HELP)


def preference_form() -> Form:
    """The form in which an expert has to prefer one of two texts."""
    page = element("View")
    element("Style", page).text = DENSE
    add_picture(page, style="max-width:480px; margin:0 auto 8px")
    texts = element("View", page, style="display:flex; gap:12px; align-items:stretch")
    for side in (LEFT, RIGHT):
        box = element("View", texts, style=TEXT_BOX)
        words = element("View", box, style=WORDS)
        element("Text", words, name=text_name(side), value=f"${text_name(side)}")
    add_header(page, "Which text explains the picture better?")
    preferred = add_choices(page, PREFERRED, [LEFT, RIGHT], required="true")
    _add_keys(page, preferred, {LEFT: "1", RIGHT: "2"})
    return _finish(page, PREFERENCE_HELP)


def _page(*, pictured: int) -> tuple[ET.Element, ET.Element]:
    """Picture on the left, so many fifths wide, answers on the right."""
    page = element("View", style="display:flex; gap:12px; align-items:flex-start")
    element("Style", page).text = DENSE
    add_picture(page, style=f"flex:{pictured}; position:sticky; top:0; min-width:0")
    return page, element("View", page, style=f"flex:{5 - pictured}; min-width:320px")


def _add_categories(parent: ET.Element, taxonomy: Taxonomy) -> None:
    choices = element(
        "Choices", parent, name=CATEGORIES, toName=IMAGE, choice="multiple", showInline="true"
    )
    for category in taxonomy.categories:
        element("Choice", choices, value=category.name, alias=category.id, hint=category.definition)


def _add_keys(parent: ET.Element, choices: ET.Element, keys: Mapping[str, str]) -> None:
    """Give a key to each choice, and keep all others from being handed out."""
    for choice in choices:
        choice.set("hotkey", keys[choice.get("value", "")])
    add_spare_keys(parent, without="".join(keys.values()))


def _finish(page: ET.Element, instructions: str) -> Form:
    form = Form(config=ET.tostring(page, encoding="unicode"), instructions=instructions)
    form.controls(traces=0)
    return form
