"""`expand_chain`: from one chain to its instructions. Pure, and seeded by content alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from core.chain import as_sentences
from core.ids import content_id, seed_of
from core.records import ImageRecord, Instruction, Message, ReasoningChain
from instruct_builder.families import Ask, Plan, Subject, scramble, subject_of
from instruct_builder.templates import LETTERS, Case, Form

MOST_ADVICE = 3
"""pieces of advice in one answer"""

Values = Mapping[str, str]


def expand_chain(chain: ReasoningChain, image: ImageRecord, plan: Plan) -> list[Instruction]:
    """The instructions that the plan asks of a chain, in the plan's order, without duplicates.

    Raises ValueError when the chain's verdict is not the label of the image.
    """
    if image.label is not chain.reasoning.verdict:
        raise ValueError(f"chain {chain.chain_id}: verdict differs from the label of its image")
    writer = _Writer(chain, plan)
    instructions = {row.messages: row for row in map(writer.write, plan.asks[chain.chain_id])}
    return list(instructions.values())


class _Writer:
    """Words what one chain is asked."""

    def __init__(self, chain: ReasoningChain, plan: Plan) -> None:
        self._chain = chain
        self._plan = plan
        self._subject = subject_of(chain, plan.taxonomy)
        self._values = chain_values(chain, self._subject, plan)
        self._used: Counter[str] = Counter()

    def write(self, ask: Ask) -> Instruction:
        """One instruction; within a form, each takes the patterns that follow the last one's."""
        family, form = self._plan.templates.named[ask.form]
        place = self._next_place(ask.form, form)
        values = self._values_for(ask)
        answers = form.fitting(self._case(ask), has_conclusion=bool(self._values["conclusion"]))
        number, question = form.question_at(place)
        answer_number, answer = answers[place // len(form.questions) % len(answers)]
        template_id = f"{ask.form}/q{number:02d}/a{answer_number:02d}"
        turns = (("user", question.fill(values)), ("assistant", answer.fill(values)))
        return Instruction(
            instruction_id=content_id("ins", self._chain.chain_id, template_id, turns),
            chain_id=self._chain.chain_id,
            image_id=self._chain.image_id,
            family=family,
            form=ask.form,
            template_id=template_id,
            aspect=ask.aspect,
            messages=tuple(Message(role=role, content=content) for role, content in turns),
            target=form.target(self._case(ask), ask.letter),
        )

    def _next_place(self, name: str, form: Form) -> int:
        """A number that decides the patterns: from the chain's hash, then counting on."""
        start: int = scramble(self._subject.number ^ self._plan.seeds[name])
        self._used[name] += 1
        return start + (self._used[name] - 1) * (len(form.questions) + 1)

    def _case(self, ask: Ask) -> Case:
        return self._subject.case if ask.aspect is None else self._subject.case_of(ask.aspect)

    def _values_for(self, ask: Ask) -> Values:
        if ask.aspect is None:
            return self._values
        words = self._plan.words[ask.aspect]
        evidence = " ".join(self._subject.found.get(ask.aspect, ()))
        values = {**self._values, **words, "evidence": evidence}
        if ask.letter:
            values |= {"letter": ask.letter, "options": _options(ask, ask.letter, self._plan)}
        return values


def chain_values(chain: ReasoningChain, subject: Subject, plan: Plan) -> dict[str, str]:
    """What the slots of forms about the whole image hold; an empty slot has no value."""
    evidence = [text for texts in subject.found.values() for text in texts]
    found = [plan.taxonomy[category] for category in subject.found]
    verdict = subject.case.label.value
    return {
        "verdict": verdict,
        "Verdict": verdict.capitalize(),
        "findings": " ".join(evidence),
        "numbered": "\n".join(f"{n}. {text}" for n, text in enumerate(evidence, start=1)),
        "aspects": join_names([category.name for category in found]),
        "main_evidence": evidence[0] if evidence else "",
        "conclusion": as_sentences(chain.reasoning.conclusion) if subject.can_deny else "",
        "image_advice": " ".join(c.image_advice for c in found[:MOST_ADVICE]),
        "generation_advice": " ".join(c.generation_advice for c in found[:MOST_ADVICE]),
    } | _next_values(subject, plan)


def _next_values(subject: Subject, plan: Plan) -> dict[str, str]:
    """Two aspects worth a look: those without a finding, if there are enough."""
    missing = [aspect for aspect in plan.taxonomy.ids if aspect not in subject.found]
    pool = missing if len(missing) > 1 else plan.taxonomy.ids
    start = scramble(subject.number ^ seed_of(plan.seed, "next"))
    first = start % len(pool)
    second = (first + 1 + start // len(pool) % max(len(pool) - 1, 1)) % len(pool)
    return {
        f"{prefix}_{slot}": plan.words[pool[place]][slot]
        for prefix, place in (("next", first), ("other", second))
        for slot in ("aspect", "fake_signs", "real_signs")
    }


def _options(ask: Ask, letter: str, plan: Plan) -> str:
    """Four lines; the right option stands at its letter."""
    order = list(ask.distractors)
    order.insert(LETTERS.index(letter), ask.aspect or "")
    names = [plan.words[category]["Aspect"] for category in order]
    return "\n".join(f"{mark}. {name}" for mark, name in zip(LETTERS, names, strict=True))


def join_names(names: Sequence[str]) -> str:
    """`edges and clarity`, or `texture, light and shadow, and edges`."""
    if len(names) > 2 or any(" and " in name for name in names[:-1]):
        return ", ".join(names[:-1]) + ", and " + names[-1]
    return " and ".join(names)
