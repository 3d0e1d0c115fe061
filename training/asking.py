"""Put the questions of a benchmark to a model, image by image, and keep what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from training.answers import ANSWERS, Answered, Question, as_row
from training.benchmarks import Benchmark, Refused
from training.evaluation import EvaluationFolder
from training.progress import counting

if TYPE_CHECKING:
    from PIL import Image

    from training.checkpoint import Checkpointed


class Replier(Protocol):
    """Whatever answers questions about an image."""

    name: str
    digest: str

    def reply(
        self, questions: Sequence[str], image: Image.Image, *, about: str
    ) -> Sequence[str | None]:
        """One answer to each question, or None; `about` names the image."""
        ...


class CheckpointReplier:
    """A checkpoint; all questions about one image share one pass over it."""

    def __init__(self, name: str, opened: Checkpointed, *, max_tokens: int) -> None:
        self.name, self.digest = name, opened.digest
        self._assembly, self._max_tokens = opened.assembly, max_tokens

    def reply(self, questions: Sequence[str], image: Image.Image, *, about: str) -> Sequence[str]:
        """Greedy answers."""
        from training.shared_prefill import reply_to_all

        return reply_to_all(questions, image, self._assembly, max_tokens=self._max_tokens)


def ask_questions(
    replier: Replier, benchmark: Benchmark, folder: EvaluationFolder, *, limit: int | None
) -> None:
    """Ask what is not answered yet; all answers about an image are written together."""
    there = folder.replies()
    asked: dict[str, list[Question]] = {}
    for question in benchmark.questions(limit=limit):
        if (question.image, question.key) not in there:
            asked.setdefault(question.image, []).append(question)
    others = {found.name for found in islice(benchmark.files(), limit)} - asked.keys()
    with counting("asking", len(asked)) as advance:
        for each in benchmark.read(without=others, limit=limit):
            if not isinstance(each, Refused):
                facts, image = each
                questions = asked[facts.name]
                replies = replier.reply([q.text for q in questions], image, about=facts.name)
                folder.append(
                    [
                        as_row(
                            Answered(question=question, reply=reply),
                            model=replier.name,
                            digest=replier.digest,
                        )
                        for question, reply in zip(questions, replies, strict=True)
                    ],
                    ANSWERS,
                )
            advance(1, "")
