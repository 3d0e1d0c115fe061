"""The instruction files of a recipe: families of forms, and dialogues made of forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from core.errors import ConfigError
from core.recipe import Recipe, Strict, parse_model
from core.taxonomy import TraceCategory
from instruct_builder.forms import Form

__all__ = ["Dialogue", "Family", "Form", "Templates", "category_words", "read_templates"]


GENERAL = "general"
"""the family of general instruction sets, which has no patterns"""


class Dialogue(Strict):
    """A talk of several turns; each turn is a question and an answer of one form."""

    rows: int = Field(1, ge=1)
    """at most so many from one chain in a round"""
    turns: tuple[tuple[str, ...], ...] = Field(min_length=2, max_length=4)
    """forms of any family; for each chain one of a turn's is drawn"""

    def forms(self) -> Iterator[tuple[int, str]]:
        """Number of the turn from 0, and name of the form."""
        for number, names in enumerate(self.turns):
            for name in names:
                yield number, name


class Family(Strict):
    """One file below `instructions/`: the forms of one family, most important first."""

    forms: dict[str, Form] = Field(min_length=1)
    dialogues: dict[str, Dialogue] = Field(default_factory=dict)


@dataclass(frozen=True)
class Templates:
    """The families of a recipe and the rows that each may take from one chain."""

    families: Mapping[str, Family]
    caps: Mapping[str, int]

    def forms(self) -> Iterator[tuple[str, str, Form]]:
        """Family name, form name and form, in file order."""
        for family, content in self.families.items():
            for name, form in content.forms.items():
                yield family, name, form

    def dialogues(self) -> Iterator[tuple[str, str, Dialogue]]:
        """Family name, dialogue name and dialogue, in file order."""
        for family, content in self.families.items():
            for name, dialogue in content.dialogues.items():
                yield family, name, dialogue

    @cached_property
    def named(self) -> Mapping[str, tuple[str, Form]]:
        """Family name and form by form name."""
        return {name: (family, form) for family, name, form in self.forms()}


def read_templates(recipe: Recipe) -> Templates:
    """The instruction files of a recipe; problems of a file come in one ConfigError."""
    families = {
        name: parse_model(
            content, Family, where=str(recipe.folder / "instructions" / f"{name}.yaml")
        )
        for name, content in recipe.instructions.items()
    }
    caps = recipe.settings.build.rows_per_chain  # its order is the order of the rows
    _check_names(families, list(caps), "build.rows_per_chain")
    if shares := recipe.settings.build.shares:
        _check_names(families, list(shares), "build.shares")
    templates = Templates({name: families[name] for name in caps}, caps)
    _check_form_names(templates)
    _check_questions_differ(templates)
    for _, name, dialogue in templates.dialogues():
        _check_dialogue(name, dialogue, templates)
    return templates


def category_words(category: TraceCategory) -> dict[str, str]:
    """What the slots about an aspect hold: its name, and its hints as parts of a sentence."""
    return {
        "aspect": category.name,
        "Aspect": category.name[:1].upper() + category.name[1:],
        "fake_signs": _inside_sentence(category.fake_hint),
        "real_signs": _inside_sentence(category.real_hint),
    }


def _inside_sentence(text: str) -> str:
    """Without the full stop, and with a small letter unless the first word is an abbreviation."""
    line = text.rstrip().rstrip(".")
    lower = len(line) < 2 or not line[1].isupper()
    return line[:1].lower() + line[1:] if lower else line


def _check_names(families: Mapping[str, Family], names: Sequence[str], where: str) -> None:
    if not families:
        raise ConfigError("the recipe has no instructions/*.yaml")
    if GENERAL in families:
        raise ConfigError(f"instructions/{GENERAL}.yaml: that family is for `build.general`")
    for name in names:
        if name not in families:
            known = ", ".join(families)
            raise ConfigError(f"{where}: no family {name!r}; there are: {known}")
    for name in families:
        if name not in names:
            raise ConfigError(f"{where}: family {name!r} is missing; 0 leaves it out")


def _check_form_names(templates: Templates) -> None:
    named = [*templates.forms(), *templates.dialogues()]
    names = [name for _, name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"form {name!r} is in two families; form names must differ")


def _check_questions_differ(templates: Templates) -> None:
    """One question in two forms would be put to an image twice."""
    form_of: dict[str, str] = {}
    for _, name, form in templates.forms():
        for text in (*form.questions, *form.follow_ups):
            if other := form_of.get(text):
                raise ConfigError(f"question {text!r} is in form {other} and again in form {name}")
            form_of[text] = name


def _check_dialogue(name: str, dialogue: Dialogue, templates: Templates) -> None:
    """What a dialogue is made of suits one, and none of it gives a verdict away too early."""
    seen: set[str] = set()
    for number, form_name in dialogue.forms():
        if form_name not in templates.named:
            raise ConfigError(f"dialogue {name}: there is no form {form_name!r}")
        form = templates.named[form_name][1]
        where = f"dialogue {name}, turn {number + 1}: form {form_name}"
        if form.scope != "image" and form.answer != "open":
            raise ConfigError(f"{where} may not stand there: its answers are balanced by rows")
        if number == 0 and not form.questions:
            raise ConfigError(f"{where} has no `questions` to begin with")
        if number == len(dialogue.turns) - 1 and form.answer != "open":
            raise ConfigError(f"{where} is closed; a dialogue ends with an open form")
        if form.scope == "image" and form_name in seen:
            raise ConfigError(f"{where} stands there a second time; it would ask the same again")
        seen.add(form_name)
    _check_verdict(name, dialogue, templates)


def _check_verdict(name: str, dialogue: Dialogue, templates: Templates) -> None:
    forms = {form_name: templates.named[form_name][1] for _, form_name in dialogue.forms()}
    asking = {number for number, form_name in dialogue.forms() if forms[form_name].wants_verdict}
    if len(asking) > 1:
        raise ConfigError(f"dialogue {name}: turns {_listed(asking)} ask for the verdict; one may")
    for number, form_name in dialogue.forms() if asking else ():
        if forms[form_name].states_verdict:
            raise ConfigError(
                f"dialogue {name}: form {form_name} states the verdict that turn "
                f"{_listed(asking)} asks for"
            )
        if number < min(asking) and forms[form_name].gives_verdict_away:
            raise ConfigError(
                f"dialogue {name}: form {form_name} gives the verdict away before turn "
                f"{_listed(asking)} asks for it"
            )


def _listed(numbers: set[int]) -> str:
    return " and ".join(str(number + 1) for number in sorted(numbers))
