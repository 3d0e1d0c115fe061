"""Chains as columns: what a plan and its words must know of them, one array entry per chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.records import Authenticity, Confidence, ReasoningChain
from core.sentences import ODD, as_sentences
from core.taxonomy import Taxonomy
from instruct_builder.hashing import Mask, Numbers, Shorts, ordered, split_digits
from instruct_builder.patterns import first_sentence

LABELS = tuple(Authenticity)
CONFIDENCES = tuple(Confidence)
NOWHERE = -1
PLACES = (
    "in the upper left", "in the upper middle", "in the upper right",
    "on the left", "in the middle", "on the right",
    "in the lower left", "in the lower middle", "in the lower right",
)  # fmt: skip
"""the ninth of the image that holds the middle of a box"""
BOX = "[%.2f, %.2f, %.2f, %.2f]"
"""left, top, right, bottom as fractions: how LLaVA-1.5 was taught boxes, without padding"""

Codes = npt.NDArray[np.int8]
Positions = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Wholes = npt.NDArray[np.integer[Any]]
"""whole numbers of any width"""
Bounds = tuple[float, float, float, float]
"""left, top, right, bottom as fractions"""


@dataclass(frozen=True)
class Chains:
    """Some chains in an order; arrays have one entry per chain unless they say otherwise."""

    upper: Numbers
    """with `lower`, the 80 bits of the chain id"""
    lower: Shorts
    image: Numbers
    """64 bits of the image id, from which all is drawn: the same, whatever experts change"""
    label: Codes
    """place in LABELS"""
    confidence: Codes
    """place in CONFIDENCES"""
    can_deny: Mask
    """no finding was left out, so an aspect without a finding is one where none was made"""
    conclusion: pa.Array
    """empty where the chain has none that may be used"""
    aspect_evidence: Places
    """(chains, categories): place in `evidence` of what was found, NOWHERE for nothing"""
    evidence: pa.Array
    """all that was found of one chain under one category, as sentences"""
    aspect_starts: Positions
    """(chains + 1): where the entries of each chain begin in `evidence`"""
    aspect_of: Places
    """category of each entry of `evidence`; in the order in which a chain names them"""
    finding_starts: Positions
    """(chains + 1): where the findings of each chain begin"""
    finding_text: pa.Array
    """evidence of each finding"""
    finding_aspect: Places
    box: pa.Array
    """of each finding: `[0.12, 0.05, 0.40, 0.33]`; null without a region"""
    place: pa.Array
    """of each finding: `in the upper left`; null without a region"""

    def __len__(self) -> int:
        return len(self.upper)

    @cached_property
    def found(self) -> Mask:
        """(chains, categories)"""
        return np.asarray(self.aspect_evidence != NOWHERE)

    @cached_property
    def has_findings(self) -> Mask:
        return np.asarray(self.found.any(axis=1))

    @cached_property
    def has_conclusion(self) -> Mask:
        lengths = pc.binary_length(self.conclusion).to_numpy(zero_copy_only=False)
        return np.asarray(lengths > 0)

    @cached_property
    def case(self) -> Codes:
        """Place in CASES of the case without an aspect."""
        sure = len(CONFIDENCES)
        codes = (self.label * 2 + self.has_findings) * sure + self.confidence
        return np.asarray(codes * 4, dtype=np.int8)

    @cached_property
    def main_evidence(self) -> pa.Array:
        """What was found under the category named first; empty without findings."""
        first = np.where(self.has_findings, self.aspect_starts[:-1], -1)
        return take_or_empty(self.evidence, first)

    @cached_property
    def reason(self) -> pa.Array:
        """The first sentence of the main evidence."""
        unique = self.main_evidence.dictionary_encode()
        sentences = [first_sentence(text) for text in unique.dictionary.to_pylist()]
        return pa.array(sentences, pa.string()).take(unique.indices)

    @cached_property
    def findings(self) -> pa.Array:
        """All evidence as prose."""
        return pc.binary_join(self._evidence_lists, " ")

    @cached_property
    def numbered(self) -> pa.Array:
        """The findings as a numbered list, those of one category one after the other."""
        order = ordered(self._finding_rank)  # entries of a chain follow those of the one before
        starts = self.finding_starts
        number = np.arange(len(order)) - np.repeat(starts[:-1], np.diff(starts)) + 1
        lines = pc.binary_join_element_wise(
            pc.cast(pa.array(number), pa.string()), self.finding_text.take(pa.array(order)), ". "
        )
        return pc.binary_join(_lists(starts, lines), "\n")

    @cached_property
    def _chain_of(self) -> Positions:
        return np.repeat(np.arange(len(self)), np.diff(self.finding_starts))

    @cached_property
    def _finding_rank(self) -> Places:
        """Place in `evidence` of the category of each finding."""
        return np.asarray(self.aspect_evidence[self._chain_of, self.finding_aspect])

    @property
    def _evidence_lists(self) -> pa.Array:
        return _lists(self.aspect_starts, self.evidence)

    def join_aspects(self, texts: Sequence[str], *, most: int) -> pa.Array:
        """For each chain the texts of its first `most` categories, one after the other."""
        lengths = np.minimum(np.diff(self.aspect_starts), most)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
        entries = np.repeat(self.aspect_starts[:-1], lengths) + places
        joined = pa.array(texts, pa.string()).take(pa.array(self.aspect_of[entries]))
        return pc.binary_join(_lists(ends, joined), " ")

    def join_names(self, names: Sequence[str]) -> pa.Array:
        """For each chain the names of its categories as in a sentence; empty without any."""
        codes = self.aspect_of.tolist()
        sets = [tuple(codes[start:stop]) for start, stop in pairwise(self.aspect_starts.tolist())]
        spelt = {found: join_names([names[code] for code in found]) for found in set(sets)}
        return pa.array([spelt[found] for found in sets], pa.string())

    @cached_property
    def with_box(self) -> Mask:
        """One entry per finding."""
        return np.asarray(self.box.is_valid().to_numpy(zero_copy_only=False), dtype=bool)

    def take(self, start: int, stop: int) -> Chains:
        """The chains from `start` to before `stop`."""
        aspects = slice(self.aspect_starts[start], self.aspect_starts[stop])
        findings = slice(self.finding_starts[start], self.finding_starts[stop])
        moved = self.aspect_evidence[start:stop]
        return Chains(
            upper=self.upper[start:stop],
            lower=self.lower[start:stop],
            image=self.image[start:stop],
            label=self.label[start:stop],
            confidence=self.confidence[start:stop],
            can_deny=self.can_deny[start:stop],
            conclusion=self.conclusion.slice(start, stop - start),
            aspect_evidence=np.where(moved == NOWHERE, NOWHERE, moved - aspects.start).astype(
                np.int32
            ),
            evidence=self.evidence.slice(aspects.start, aspects.stop - aspects.start),
            aspect_starts=self.aspect_starts[start : stop + 1] - aspects.start,
            aspect_of=self.aspect_of[aspects],
            finding_starts=self.finding_starts[start : stop + 1] - findings.start,
            finding_text=self.finding_text.slice(findings.start, findings.stop - findings.start),
            finding_aspect=self.finding_aspect[findings],
            box=self.box.slice(findings.start, findings.stop - findings.start),
            place=self.place.slice(findings.start, findings.stop - findings.start),
        )


def columns_of(chains: Iterable[ReasoningChain], taxonomy: Taxonomy) -> Chains:
    """Read chains whose categories are all in the taxonomy; equal evidence counts once."""
    chains = list(chains)
    code_of = {name: code for code, name in enumerate(taxonomy.ids)}
    upper, lower = split_digits(chain.chain_id for chain in chains)
    can_deny = np.array([chain.contradictions == 0 for chain in chains], dtype=bool)
    concluded = [
        chain.reasoning.conclusion if deny else ""
        for chain, deny in zip(chains, can_deny.tolist(), strict=True)
    ]
    supporting = [chain.reasoning.supporting() for chain in chains]
    findings = [finding for some in supporting for finding in some]
    lengths = np.array([len(some) for some in supporting], dtype=np.int64)
    owner = np.repeat(np.arange(len(chains)), lengths)
    category = np.array([code_of[each.category] for each in findings], dtype=np.int64)
    texts = _sentences([each.evidence for each in findings])
    group = owner * len(code_of) + category
    said = texts.dictionary_encode().indices.to_numpy().astype(np.int64)
    _, kept = np.unique(group * (len(findings) + 1) + said, return_index=True)
    kept.sort()
    owner, group, texts = owner[kept], group[kept], texts.take(pa.array(kept))
    regions = [findings[place].region for place in kept.tolist()]
    bounds = [region.bounding_box() if region else None for region in regions]
    entry, evidence = _by_category(group, texts)
    table = np.full(len(chains) * len(code_of), NOWHERE, dtype=np.int32)
    table[entry] = np.arange(len(entry))
    return Chains(
        upper=upper,
        lower=lower,
        image=split_digits(chain.image_id for chain in chains)[0],
        label=np.array([LABELS.index(c.reasoning.verdict) for c in chains], dtype=np.int8),
        confidence=np.array(
            [CONFIDENCES.index(c.reasoning.confidence) for c in chains], dtype=np.int8
        ),
        can_deny=can_deny,
        conclusion=_sentences(concluded),
        aspect_evidence=table.reshape(len(chains), len(code_of)),
        evidence=evidence,
        aspect_starts=np.searchsorted(entry // len(code_of), np.arange(len(chains) + 1)),
        aspect_of=(entry % len(code_of)).astype(np.int32),
        finding_starts=np.searchsorted(owner, np.arange(len(chains) + 1)),
        finding_text=texts,
        finding_aspect=(group % len(code_of)).astype(np.int32),
        box=pa.array([each and BOX % each for each in bounds], pa.string()),
        place=_name_places(bounds),
    )


def _sentences(texts: Sequence[str]) -> pa.Array:
    """Texts as whole sentences; few are not that already."""
    given = pa.array(texts, pa.string())
    odd = pc.match_substring_regex(given, ODD)
    mended = [as_sentences(text) for text in given.filter(odd).to_pylist()]
    return pc.replace_with_mask(given, odd, pa.array(mended, pa.string()))


def _by_category(group: Positions, texts: pa.Array) -> tuple[Positions, pa.Array]:
    """The groups in the order in which they first come, and the texts of each as one."""
    entry, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(entry), dtype=np.int64)
    rank[order] = np.arange(len(entry))
    place = rank[inverse]
    starts = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(entry)))])
    in_order = texts.take(pa.array(ordered(place)))
    return entry[order], pc.binary_join(_lists(starts, in_order), " ")


def _name_places(bounds: Sequence[Bounds | None]) -> pa.Array:
    edges = np.array([each or (0.0, 0.0, 0.0, 0.0) for each in bounds]).reshape(-1, 4)
    column, row = (
        np.minimum((edges[:, side] + edges[:, side + 2]) / 2 * 3, 2).astype(np.int8)
        for side in (0, 1)
    )
    nowhere = np.array([each is None for each in bounds], dtype=bool)
    return pa.array(PLACES, pa.string()).take(pa.array(3 * row + column, mask=nowhere))


def take_or_empty(texts: pa.Array, places: npt.NDArray[np.integer]) -> pa.Array:
    """The texts at some places; empty where a place is negative."""
    missing = np.asarray(places) < 0
    taken = texts.take(pa.array(np.where(missing, 0, places), mask=missing))
    return pc.fill_null(taken, "")


def join_names(names: Sequence[str]) -> str:
    """`edges and clarity`, or `texture, light and shadow, and edges`; empty for none."""
    if len(names) > 2 or any(" and " in name for name in names[:-1]):
        return ", ".join(names[:-1]) + ", and " + names[-1]
    return " and ".join(names)


def _lists(starts: Positions, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), values)
