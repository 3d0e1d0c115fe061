"""Checks of a whole shard set before it is published; each leaves its figures in the manifest.

What decides answers is looked at in the plan, all of it; words are looked at in whole rows of a
sample of the images.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import PermanentError
from core.records import Authenticity, ImageRecord, ReasoningChain, Split
from core.taxonomy import Taxonomy
from instruct_builder.columns import LABELS, Chains, Positions
from instruct_builder.forms import CASES, Form, first_targets
from instruct_builder.hashing import Mask
from instruct_builder.manifest import CheckFact
from instruct_builder.options import SETS
from instruct_builder.patterns import LETTERS, NO, YES
from instruct_builder.plan import Plan
from instruct_builder.templates import Templates
from instruct_builder.turns import codes_of, last_answers, turns_of, whole
from instruct_builder.words import ImageColumns, Words

CHAINS_AT_ONCE = 8_192
"""whose texts are looked at together"""
Figures = dict[str, int | float | str]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Planned:
    """A plan with the chains that it is about, and their images."""

    plan: Plan
    chains: Chains
    images: ImageColumns
    words: Words

    @cached_property
    def chain(self) -> Positions:
        """Of each turn."""
        return self.plan.chain[self.plan.turns.row]

    @cached_property
    def targets(self) -> pa.Array:
        """The closed answer of each turn; null for an open one."""
        turns = self.plan.turns
        code = turns.form.astype(np.int64) * len(CASES) + turns.case
        code = code * (len(SETS) + 1) + turns.right + 1
        unique, at = np.unique(code, return_inverse=True)
        spelt = []
        for each in unique.tolist():
            rest, right = divmod(each, len(SETS) + 1)
            form, case = divmod(rest, len(CASES))
            spelt.append(self.words.target(self.words.forms[form][1], case, right - 1))
        return pa.array(spelt, pa.string()).take(pa.array(at))


class Checks:
    """All checks of one build; show them the plan and tables of rows, then ask for the `facts`.

    A check has a `name`, what it `says`, `figures()`, `failures()`, and `see_plan(planned)`,
    `see_rows(table)`, or both.
    """

    def __init__(self, checks: Sequence[Any]) -> None:
        self._checks = checks

    def see_plan(self, planned: Planned) -> None:
        """Show the plan to every check that looks at it."""
        for check in self._checks:
            if hasattr(check, "see_plan"):
                check.see_plan(planned)

    def see_rows(self, table: pa.Table) -> None:
        """Show a table of whole images to every check that looks at rows."""
        for check in self._checks:
            if hasattr(check, "see_rows"):
                check.see_rows(table)

    def facts(self) -> dict[str, CheckFact]:
        """The figures by check; a PermanentError names the first check that failed."""
        for check in self._checks:
            if failures := check.failures():
                raise PermanentError(
                    f"check {check.name!r} failed, nothing was published: {check.says} "
                    f"({len(failures)} times not; the first: {failures[0]})"
                )
        return {
            check.name: CheckFact(says=check.says, figures=check.figures())
            for check in self._checks
        }


class Splits:
    """Looks at images, not at rows: what belongs together is in one split."""

    name = "splits"
    says = "every image, near-duplicate cluster and group is in one split only"

    def __init__(
        self,
        images: Iterable[tuple[ImageRecord, Split]],
        holdout: Collection[str],
        *,
        most: int = 0,
    ) -> None:
        """`most`: so many members of two splits may be."""
        self._most = most
        self._splits: dict[str, dict[str, set[Split]]] = defaultdict(lambda: defaultdict(set))
        for image, split in images:
            self._splits["image"][image.image_id].add(split)
            self._splits["cluster"][image.cluster].add(split)
            self._splits["group"][image.group].add(split)
            if image.generator in holdout:
                self._splits["held-out generator"][image.generator or ""] |= {split, Split.TEST}

    def figures(self) -> Figures:
        """How many images, clusters and groups were looked at."""
        counts: Figures = {f"{kind}s": len(members) for kind, members in self._splits.items()}
        return counts | {"in_two_splits": len(self._parted()), "threshold": self._most}

    def failures(self) -> list[str]:
        """Members of two splits."""
        return _beyond(self._most, self._parted())

    def _parted(self) -> list[str]:
        return [
            f"{kind} {name} is in {' and '.join(sorted(splits))}"
            for kind, members in self._splits.items()
            for name, splits in members.items()
            if len(splits) > 1
        ]


class UniqueRows:
    """Every id once, and no conversation twice about one image."""

    name = "unique"
    says = "every instruction id occurs once, and no conversation occurs twice about one image"

    def __init__(self, *, most: int = 0) -> None:
        """`most`: so many repetitions may be."""
        self._most = most
        self._rows = self._compared = 0
        self._twice: list[str] = []

    def see_plan(self, planned: Planned) -> None:
        """Compare the ids of the whole set."""
        plan = planned.plan
        self._rows += len(plan)
        order = np.lexsort((plan.lower, plan.upper))
        same = (np.diff(plan.upper[order]) == 0) & (np.diff(plan.lower[order]) == 0)
        self._twice += [f"row {row}, by its id" for row in order[1:][same].tolist()]

    def see_rows(self, table: pa.Table) -> None:
        """Compare the conversations about each image."""
        starts, contents = turns_of(table)
        lengths = np.diff(starts)
        said = codes_of(contents) + 1
        talk = codes_of(table.column("image_id"))
        for place in range(int(lengths.max(initial=0))):
            at = np.minimum(starts[:-1] + place, len(said) - 1)
            here = np.where(lengths > place, said[at], 0)  # 0: the conversation has ended
            _, talk = np.unique(talk * (len(said) + 1) + here, return_inverse=True)
        _, firsts = np.unique(talk, return_index=True)
        again = np.setdiff1d(np.arange(table.num_rows), firsts)
        names = table.column("instruction_id").take(pa.array(again)).to_pylist()
        self._twice += [f"instruction {name}" for name in names]
        self._compared += table.num_rows

    def figures(self) -> Figures:
        """Rows, those whose words were compared, and repetitions."""
        return {
            "rows": self._rows,
            "compared": self._compared,
            "repeated": len(self._twice),
            "threshold": self._most,
        }

    def failures(self) -> list[str]:
        """What occurs twice."""
        return _beyond(self._most, self._twice)


class RightAnswers:
    """Closed answers against the label and the chain's findings, not against the templates."""

    name = "polarity"
    says = "every closed answer is the one that label and findings demand, and its text says so"

    def __init__(self, templates: Templates, *, most: int = 0) -> None:
        """`most`: so many answers may be wrong."""
        self._most = most
        self._forms = {name: form for _, name, form in templates.forms() if form.targets}
        self._seen: Counter[str] = Counter()
        self._wrong: list[str] = []

    def see_plan(self, planned: Planned) -> None:
        """Work each answer out again and compare."""
        turns, names = planned.plan.turns, [name for name, _ in planned.words.forms]
        for code in np.unique(turns.form).tolist():
            form = self._forms.get(names[code])
            if form is None or form.is_choice:  # which letters are right is looked at by Options
                continue
            mine = np.flatnonzero(turns.form == code)
            self._seen[names[code]] += len(mine)
            given = planned.targets.take(pa.array(mine))
            wrong = pc.not_equal(given, self._demanded(form, planned, mine))
            for turn in mine[wrong.to_numpy(zero_copy_only=False)].tolist():
                self._wrong.append(f"turn {turn} of form {names[code]}")

    def _demanded(self, form: Form, planned: Planned, mine: Positions) -> pa.Array:
        chain = planned.chain[mine]
        label = planned.chains.label[chain]
        if form.answer == "verdict":
            return pa.array([each.value for each in LABELS]).take(pa.array(label))
        asked_of_label = label == LABELS.index(form.asks or Authenticity.FAKE)
        found = np.ones(len(mine), dtype=bool)
        if form.scope == "aspect":
            found = planned.chains.found[chain, planned.plan.turns.aspect[mine]]
        is_yes = (asked_of_label & found) ^ form.negated
        return pa.array([NO, YES]).take(pa.array(is_yes.astype(np.int8)))

    def see_rows(self, table: pa.Table) -> None:
        """Read the answers back from the words."""
        forms, answers = whole(table.column("form")), last_answers(table)
        for name in pc.unique(forms).to_pylist():
            form = self._forms.get(name)
            if form is None:
                continue
            mine = pc.indices_nonzero(pc.equal(forms, name))
            said = first_targets(form, answers.take(mine))
            given = table.column("target").take(mine)
            right = pc.fill_null(pc.equal(said, given), fill_value=False)
            rows = mine.filter(pc.invert(right))
            for row in table.column("instruction_id").take(rows).to_pylist():
                self._wrong.append(f"instruction {row} of form {name}")

    def figures(self) -> Figures:
        """Closed answers by form, and wrong ones."""
        found = {"wrong": len(self._wrong), "threshold": self._most}
        return {**dict(sorted(self._seen.items())), **found}

    def failures(self) -> list[str]:
        """Wrong answers."""
        return _beyond(self._most, self._wrong)


class Options:
    """Multiple choice: the right options, and no others, are at the letters of the answer."""

    name = "options"
    says = "every choice has four different options, and those at the right letters alone are right"

    def __init__(self, taxonomy: Taxonomy, *, most: int = 0) -> None:
        """`most`: so many choices may have other right options than their answer says."""
        self._most = most
        self._names = [category.name for category in taxonomy.categories]
        self._letters: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._wrong: list[str] = []

    def see_plan(self, planned: Planned) -> None:
        """Compare each option with the findings."""
        turns = planned.plan.turns
        at_letter = np.array([[letter in letters for letter in LETTERS] for letters in SETS])
        for code, (name, form) in enumerate(planned.words.forms):
            mine = np.flatnonzero((turns.form == code) & form.is_choice)
            if not len(mine):
                continue
            shown, right = turns.shown[mine], at_letter[turns.right[mine]]
            found = planned.chains.found[planned.chain[mine][:, None], shown]
            is_right = found if form.right == "present" else ~found
            sorted_options = np.sort(shown, axis=1)
            bad = (right != is_right).any(axis=1) | (np.diff(sorted_options, axis=1) == 0).any(1)
            self._wrong += [f"turn {turn} of form {name}" for turn in mine[bad].tolist()]
            self._count(name, shown, right)

    def _count(self, form: str, shown: Any, right: Mask) -> None:
        for at, letter in enumerate(LETTERS):
            self._letters[f"{form}.{letter}"] += int(right[:, at].sum())
        for code, name in enumerate(self._names):
            self._shown[f"{form}.{name}"] += int((shown == code).sum())
            self._right[f"{form}.{name}"] += int(((shown == code) & right).sum())

    def figures(self) -> Figures:
        """Right answers by letter, and how often a category is right when it is shown."""
        figures: Figures = {f"right_at_{k}": n for k, n in sorted(self._letters.items())}
        for name, number in sorted(self._right.items()):
            if self._shown[name]:
                figures[f"share_right_of_{name}"] = round(number / self._shown[name], 4)
        never = sum(n for name, n in self._shown.items() if not self._right[name])
        found = {"wrong": len(self._wrong), "threshold": self._most}
        return figures | {"options_never_right": never} | found

    def failures(self) -> list[str]:
        """Questions whose right options are others than the answer says."""
        return _beyond(self._most, self._wrong)


class Balance:
    """Reports, never fails: how even the answers are, and where they are not."""

    name = "balance"
    says = "answers and labels are as even as the images allow; what is not even is listed"

    def __init__(self, templates: Templates, *, uneven_by: float = 0.05) -> None:
        """`uneven_by`: part of its even share that the most frequent value may be above it."""
        self._uneven_by = uneven_by
        self._targets: dict[str, Counter[str]] = {}
        self._labels: dict[str, Counter[str]] = {}
        for family, name, form in templates.forms():
            self._labels[family] = Counter(dict.fromkeys(Authenticity, 0))
            if form.targets:
                self._targets[name] = Counter(dict.fromkeys(form.targets, 0))
            if form.answer == "yes_no":
                self._targets[family] = Counter(dict.fromkeys(form.targets, 0))

    def see_plan(self, planned: Planned) -> None:
        """Count answers by form and family, and labels by family."""
        plan = planned.plan
        for unit in np.unique(plan.unit).tolist():
            family, name = planned.words.units[unit]
            mine = np.flatnonzero(plan.unit == unit)
            counts = np.bincount(planned.chains.label[plan.chain[mine]], minlength=len(LABELS))
            self._labels[family].update(dict(zip(LABELS, counts.tolist(), strict=True)))
            if name in self._targets:
                given = planned.targets.take(pa.array(plan.first_turn[mine]))
                for pair in pc.value_counts(given).to_pylist():
                    self._targets[name][pair["values"]] += pair["counts"]
                    if pair["values"] in (YES, NO):
                        self._targets[family][pair["values"]] += pair["counts"]

    def figures(self) -> Figures:
        """Shares of each answer and of the label fake, and the places where they differ."""
        shares = {
            f"{place}.{answer}": round(number / counts.total(), 4)
            for place, counts in sorted(self._counted().items())
            for answer, number in sorted(counts.items())
        }
        uneven = ", ".join(self._uneven()) or "nothing"
        return {**shares, "uneven": uneven, "threshold": self._uneven_by}

    def _counted(self) -> dict[str, Counter[str]]:
        labels = {f"label.{family}": counts for family, counts in self._labels.items()}
        counted = self._targets | labels
        return {place: counts for place, counts in counted.items() if counts.total()}

    def _uneven(self) -> list[str]:
        counted = self._counted().items()
        return sorted(place for place, counts in counted if self._is_uneven(counts))

    def _is_uneven(self, counts: Counter[str]) -> bool:
        even = counts.total() / len(counts)
        return max(counts.values()) > (1 + self._uneven_by) * even + 1

    def failures(self) -> list[str]:
        """None: what the labels do not allow cannot be mended here."""
        return []


class _OfImages:
    """Looks at images, not at rows; warns, never fails: what to do about it is not its business."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def figures(self) -> Figures:
        """What was measured; `warning` where it is not as it should be."""
        return self._figures

    def failures(self) -> list[str]:
        """None: whether it stops a build depends on what the build is for."""
        return []


class Shortcuts(_OfImages):
    """The AUC of metadata alone with its interval, or why there is none."""

    name = "shortcuts"
    says = (
        "how well size, format and JPEG settings alone tell real from fake, for images that the "
        "classifier was not trained on"
    )


class Overlaps(_OfImages):
    """Images that are in a registered benchmark too, by closeness."""

    name = "overlaps"
    says = (
        "how many images of train and val are in a registered benchmark too, as they are, nearly "
        "so, or by another image of their group"
    )


class NoNames:
    """No text names what the model must not learn to read off it."""

    name = "names"
    says = "no text names a generator, a source, a teacher or the file of its image"

    def __init__(self, finder: NameFinder, *, most: int = 0) -> None:
        """`most`: so many texts may name something."""
        self._finder = finder
        self._most = most
        self._chains = self._texts = 0
        self._named: list[str] = []

    def see_plan(self, planned: Planned) -> None:
        """Look for names in all that the chains of a plan say.

        With the patterns and categories of the recipe, whose words are no names, that is all that
        its rows are put together from.
        """
        for first in range(0, len(planned.chains), CHAINS_AT_ONCE):
            stop = min(first + CHAINS_AT_ONCE, len(planned.chains))
            chains, images = planned.chains.take(first, stop), planned.images.slice(first, stop)
            said = pc.binary_join_element_wise(chains.findings, chains.conclusion, "\n")
            told = (images.columns[name] for name in ("chain_id", "image_id", "image_path"))
            for text, chain_id, *own in zip(*(c.to_pylist() for c in (said, *told)), strict=True):
                if name := self._finder.find(text, *own):
                    self._named.append(f"chain {chain_id} names {name}")
        self._chains += len(planned.chains)

    def see_rows(self, table: pa.Table) -> None:
        """Look for names in every turn."""
        starts, contents = turns_of(table)
        self._texts += len(contents)
        row_of = np.repeat(np.arange(table.num_rows), np.diff(starts))
        for turn in np.flatnonzero(self._suspect(table, starts, contents)).tolist():
            row = table.slice(int(row_of[turn]), 1)
            told = (row.column(name)[0].as_py() for name in ("image_id", "image_path"))
            if name := self._finder.find(contents[turn].as_py(), *told):
                said_by = row.column("instruction_id")[0].as_py()
                self._named.append(f"instruction {said_by} names {name}")

    def _suspect(self, table: pa.Table, starts: Positions, contents: pa.Array) -> Mask:
        """Turns that hold the letters of a name, as a whole word or not."""
        suspect = np.zeros(len(contents), dtype=bool)
        for name in self._finder.names:
            suspect |= holds(contents, name, ignore_case=True)
        image_ids, paths = whole(table.column("image_id")), whole(table.column("image_path"))
        borders = np.flatnonzero(np.diff(codes_of(image_ids))) + 1
        rows = [0, *borders.tolist(), table.num_rows]
        for first, stop in pairwise(rows if table.num_rows else []):
            turns = slice(int(starts[first]), int(starts[stop]))
            texts = contents[turns]
            for name in (image_ids[first].as_py(), stem_of(paths[first].as_py())):
                if name:
                    suspect[turns] |= holds(texts, name)
        return suspect

    def figures(self) -> Figures:
        """Chains, texts of rows and names looked for; words of the recipe itself are no names."""
        return {
            "chains": self._chains,
            "texts": self._texts,
            "names": len(self._finder.names),
            "words_of_the_recipe": ", ".join(self._finder.exempt),
            "found": len(self._named),
            "threshold": self._most,
        }

    def failures(self) -> list[str]:
        """Chains and texts that name something."""
        return _beyond(self._most, self._named)


class NameFinder:
    """Finds names of generators, sources, teachers and files as whole words."""

    def __init__(self, names: Iterable[str], templates: Templates, taxonomy: Taxonomy) -> None:
        recipe_text = " ".join([*_template_texts(templates), *_taxonomy_texts(taxonomy)])
        wanted = sorted({name for name in names if name})
        self.exempt = tuple(name for name in wanted if _whole_word(name).search(recipe_text))
        """names that the recipe's own patterns use as words"""
        self.names = tuple(name for name in wanted if name not in self.exempt)
        self._patterns = [(name.lower(), _whole_word(name)) for name in self.names]

    def find(self, text: str, image_id: str, path: str) -> str | None:
        """The first name in a text, or None."""
        for name in (image_id, stem_of(path)):
            if name and name in text:
                return name
        lower = text.lower()
        for name, pattern in self._patterns:
            if name in lower and pattern.search(text):
                return name
        return None

    def find_in_chain(self, chain: ReasoningChain, image: ImageRecord) -> str | None:
        """The first name in what a chain says, or None."""
        findings = (finding.evidence for finding in chain.reasoning.findings)
        texts = (*findings, chain.reasoning.conclusion)
        found = (self.find(text, image.image_id, image.path) for text in texts)
        return next((name for name in found if name), None)


def stem_of(path: str) -> str:
    """The name of a file up to its first point."""
    return path.rpartition("/")[2].partition(".")[0]


def holds(texts: pa.Array, name: str, *, ignore_case: bool = False) -> Mask:
    """Which texts have these letters somewhere."""
    found = pc.match_substring(texts, name, ignore_case=ignore_case)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _whole_word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _template_texts(templates: Templates) -> Iterable[str]:
    for _, _, form in templates.forms():
        yield from (*form.questions, *form.follow_ups)
        yield from (pattern.text for _, pattern in form.answer_patterns)


def _taxonomy_texts(taxonomy: Taxonomy) -> Iterable[str]:
    for category in taxonomy.categories:
        yield from (category.name, category.fake_hint, category.real_hint)
        yield from (category.image_advice, category.generation_advice)


def _beyond(most: int, found: list[str]) -> list[str]:
    """What was found, where it is more than may be."""
    return found if len(found) > most else []
