"""Checks of a whole shard set before it is published; each leaves its figures in the manifest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from core.errors import PermanentError
from core.records import Authenticity, ImageRecord, ReasoningChain, Split
from core.taxonomy import Taxonomy
from instruct_builder.manifest import CheckFact
from instruct_builder.templates import LETTERS, NO, YES, Form, Templates, first_target

Figures = dict[str, int | float | str]
Row = Mapping[str, Any]


class Check(Protocol):
    """One check: sees every row, then says what it found."""

    name: str
    says: str

    def see(self, rows: Sequence[Row]) -> None:
        """Take note of the rows of some whole images."""

    def figures(self) -> Figures:
        """What was counted."""

    def failures(self) -> list[str]:
        """What breaks the rule; empty when the check is passed."""


COLUMNS = (
    "instruction_id",
    "chain_id",
    "image_id",
    "image_path",
    "family",
    "form",
    "aspect",
    "messages",
    "target",
    "label",
)


class Checks:
    """All checks of one build; `see` every table, then ask for the `facts`."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = checks

    def see(self, table: pa.Table) -> None:
        """Show a table of whole images to every check."""
        rows = table.select(COLUMNS).to_pylist()
        for check in self._checks:
            check.see(rows)

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
        self, images: Iterable[tuple[ImageRecord, Split]], holdout: Collection[str]
    ) -> None:
        self._splits: dict[str, dict[str, set[Split]]] = defaultdict(lambda: defaultdict(set))
        for image, split in images:
            self._splits["image"][image.image_id].add(split)
            self._splits["cluster"][image.cluster].add(split)
            self._splits["group"][image.group].add(split)
            if image.generator in holdout:
                self._splits["held-out generator"][image.generator or ""] |= {split, Split.TEST}

    def see(self, rows: Sequence[Row]) -> None:
        """Rows take their split from their image."""

    def figures(self) -> Figures:
        """How many images, clusters and groups were looked at."""
        counts: Figures = {f"{kind}s": len(members) for kind, members in self._splits.items()}
        return counts | {"in_two_splits": len(self.failures())}

    def failures(self) -> list[str]:
        """Members of two splits."""
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

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._rows = 0
        self._twice: list[str] = []

    def see(self, rows: Sequence[Row]) -> None:
        """Compare ids over the whole set, conversations within the given images."""
        talks: set[tuple[str, ...]] = set()
        for row in rows:
            talk = (row["image_id"], *(turn["content"] for turn in row["messages"]))
            if row["instruction_id"] in self._ids or talk in talks:
                self._twice.append(f"instruction {row['instruction_id']}")
            self._ids.add(row["instruction_id"])
            talks.add(talk)
        self._rows += len(rows)

    def figures(self) -> Figures:
        """Rows and repetitions."""
        return {"rows": self._rows, "repeated": len(self._twice)}

    def failures(self) -> list[str]:
        """What occurs twice."""
        return self._twice


class RightAnswers:
    """Closed answers against the label and the chain's findings, not against the templates."""

    name = "polarity"
    says = "every closed answer is the one that label and findings demand, and its text says so"

    def __init__(self, templates: Templates, chains: Iterable[ReasoningChain]) -> None:
        self._forms = {name: form for _, name, form in templates.forms() if form.targets}
        self._found = {
            chain.chain_id: {finding.category for finding in chain.reasoning.supporting()}
            for chain in chains
        }
        self._seen: Counter[str] = Counter()
        self._wrong: list[str] = []

    def see(self, rows: Sequence[Row]) -> None:
        """Work the answer out again and compare."""
        for row in rows:
            form = self._forms.get(row["form"])
            if form is None:
                continue
            self._seen[row["form"]] += 1
            said = first_target(form, row["messages"][-1]["content"])
            if not said == row["target"] == self._demanded(form, row):
                self._wrong.append(f"instruction {row['instruction_id']} of form {row['form']}")

    def _demanded(self, form: Form, row: Row) -> str | None:
        if form.answer == "verdict":
            return str(row["label"])
        if form.answer == "choice":  # which letter is right is looked at by Options
            return str(row["target"])
        asked_of_label = row["label"] == form.asks
        found = row["aspect"] is None or row["aspect"] in self._found[row["chain_id"]]
        return YES if asked_of_label and found else NO

    def figures(self) -> Figures:
        """Closed answers by form, and wrong ones."""
        return {**dict(sorted(self._seen.items())), "wrong": len(self._wrong)}

    def failures(self) -> list[str]:
        """Wrong answers."""
        return self._wrong


class Options:
    """Multiple choice: one right option, at the letter that is the answer."""

    name = "options"
    says = "every choice has four options, and only the one at the right letter is a finding"

    def __init__(
        self, templates: Templates, taxonomy: Taxonomy, chains: Iterable[ReasoningChain]
    ) -> None:
        self._forms = {n for _, n, form in templates.forms() if form.answer == "choice"}
        names = {category.id: category.name.lower() for category in taxonomy.categories}
        self._found = {
            chain.chain_id: {names[finding.category] for finding in chain.reasoning.supporting()}
            for chain in chains
        }
        self._letters: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._wrong: list[str] = []

    def see(self, rows: Sequence[Row]) -> None:
        """Read the options back from the question."""
        for row in rows:
            if row["form"] in self._forms:
                self._see(row)

    def _see(self, row: Row) -> None:
        text = row["messages"][0]["content"]
        options = {m[1]: m[2].lower() for m in re.finditer(r"^([A-D])\. (.+)$", text, re.MULTILINE)}
        right = [letter for letter, name in options.items() if name in self._found[row["chain_id"]]]
        if len(set(options.values())) != len(LETTERS) or right != [row["target"]]:
            self._wrong.append(f"instruction {row['instruction_id']}")
        self._letters[row["target"]] += 1
        self._shown.update(options.values())
        self._right.update(options[letter] for letter in right)

    def figures(self) -> Figures:
        """Right answers by letter, and how often a category is right when it is shown."""
        figures: Figures = {f"right_at_{k}": n for k, n in sorted(self._letters.items())}
        for name, number in sorted(self._right.items()):
            figures[f"share_right_of_{name}"] = round(number / self._shown[name], 4)
        shown_in_vain = sum(n for name, n in self._shown.items() if name not in self._right)
        return figures | {"options_never_right": shown_in_vain, "wrong": len(self._wrong)}

    def failures(self) -> list[str]:
        """Questions with another number of right options than one."""
        return self._wrong


class Balance:
    """Reports, never fails: how even the answers are, and where they are not."""

    name = "balance"
    says = "answers and labels are as even as the images allow; what is not even is listed"

    def __init__(self, templates: Templates) -> None:
        self._targets: dict[str, Counter[str]] = {}
        self._labels: dict[str, Counter[str]] = {}
        for family, name, form in templates.forms():
            self._labels[family] = Counter(dict.fromkeys(Authenticity, 0))
            if form.targets:
                self._targets[name] = Counter(dict.fromkeys(form.targets, 0))
            if form.answer == "yes_no":
                self._targets[family] = Counter(dict.fromkeys(form.targets, 0))

    def see(self, rows: Sequence[Row]) -> None:
        """Count answers by form and family, and labels by family."""
        for row in rows:
            self._labels[row["family"]][row["label"]] += 1
            if row["target"] is not None:
                self._targets[row["form"]][row["target"]] += 1
            if row["target"] in (YES, NO):
                self._targets[row["family"]][row["target"]] += 1

    def figures(self) -> Figures:
        """Shares of each answer and of the label fake, and the places where they differ."""
        shares = {
            f"{place}.{answer}": round(number / counts.total(), 4)
            for place, counts in sorted(self._counted().items())
            for answer, number in sorted(counts.items())
        }
        return {**shares, "uneven": ", ".join(self._uneven()) or "nothing"}

    def _counted(self) -> dict[str, Counter[str]]:
        labels = {f"label.{family}": counts for family, counts in self._labels.items()}
        counted = self._targets | labels
        return {place: counts for place, counts in counted.items() if counts.total()}

    def _uneven(self) -> list[str]:
        return sorted(place for place, counts in self._counted().items() if is_uneven(counts))

    def failures(self) -> list[str]:
        """None: what the labels do not allow cannot be mended here."""
        return []


class _OfImages:
    """Looks at images, not at rows; warns, never fails: what to do about it is not its business."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def see(self, rows: Sequence[Row]) -> None:
        """Rows tell nothing of the files of their images."""

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

    def __init__(self, finder: NameFinder) -> None:
        self._finder = finder
        self._texts = 0
        self._named: list[str] = []

    def see(self, rows: Sequence[Row]) -> None:
        """Look for names in every turn."""
        for row in rows:
            for turn in row["messages"]:
                self._texts += 1
                if name := self._finder.find(turn["content"], row["image_id"], row["image_path"]):
                    self._named.append(f"instruction {row['instruction_id']} names {name}")

    def figures(self) -> Figures:
        """Texts and names looked for; words of the recipe itself are no names."""
        return {
            "texts": self._texts,
            "names": len(self._finder.names),
            "words_of_the_recipe": ", ".join(self._finder.exempt),
            "found": len(self._named),
        }

    def failures(self) -> list[str]:
        """Texts that name something."""
        return self._named


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
        stem = path.rpartition("/")[2].partition(".")[0]
        for name in (image_id, stem):
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


def _whole_word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _template_texts(templates: Templates) -> Iterable[str]:
    for _, _, form in templates.forms():
        yield from form.questions
        yield from (pattern.text for _, pattern in form.answer_patterns)


def _taxonomy_texts(taxonomy: Taxonomy) -> Iterable[str]:
    for category in taxonomy.categories:
        yield from (category.name, category.fake_hint, category.real_hint)
        yield from (category.image_advice, category.generation_advice)


def is_uneven(counts: Counter[str]) -> bool:
    """Whether the most frequent value is more than a twentieth above its even share."""
    return max(counts.values()) > 1.05 * counts.total() / len(counts) + 1
