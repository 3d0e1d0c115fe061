"""The nouns: frozen records that pass from room to room."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Final

from core.ids import content_id, sha256_bytes


class Authenticity(StrEnum):
    """Where an image comes from. Never an integer: data sets disagree on polarity."""

    REAL = "real"
    FAKE = "fake"

    @property
    def opposite(self) -> Authenticity:
        return Authenticity.FAKE if self is Authenticity.REAL else Authenticity.REAL


class Confidence(StrEnum):
    """How sure a reasoning says that it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ReviewLevel(StrEnum):
    """How much a record has been checked; travels with it to the last shard."""

    DRAFT = "draft"
    """no finished correction by an expert"""
    EXPERT = "expert"
    """one finished correction"""
    AGREED = "agreed"
    """as many corrections as the recipe asks for, with equal verdicts and enough overlap"""
    ADJUDICATED = "adjudicated"
    """settled by the adjudicator"""

    @property
    def rank(self) -> int:
        return list(ReviewLevel).index(self)


class Split(StrEnum):
    """The part of a shard set that an image belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class WorkState(StrEnum):
    """Where the work on one image in one arm stands; moved by conditional updates only."""

    NEW = "new"
    GUIDED = "guided"
    WAITING = "waiting"
    """other arms are to have ended with the image first"""
    DRAFTING = "drafting"
    DRAFTED = "drafted"
    IN_REVIEW = "in_review"
    CHAINED = "chained"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    WITHDRAWN = "withdrawn"


class TraceOutcome(StrEnum):
    """What an expert did with one trace of a draft."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    ADDED = "added"


_LEFT = (TraceOutcome.ACCEPTED, TraceOutcome.EDITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where images come from, and what may be done with them."""

    name: str
    licence: str
    """SPDX identifier or a short phrase; `unknown` when nobody said"""
    may_train: bool = True
    terms: str = ""
    """what is asked beyond the licence, in the words of who owns the images"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image in the image store. Width and height are in pixels, as shown (upright)."""

    image_id: str
    sha256: str
    """of the bytes in the image store, metadata cut out"""
    original_sha256: str
    """of the user's file"""
    path: str
    """relative to the image store"""
    width: int
    height: int
    format: str
    """what the bytes are, whatever the file name says: JPEG, PNG, WEBP, ..."""
    jpeg_quality: int | None
    """estimated libjpeg quality 1..100; None for other formats"""
    phash: str
    """64-bit perceptual hash, 16 hexadecimal digits"""
    cluster: str
    """near-duplicates share it; an image alone is a cluster of its own"""
    group: str
    """photograph, identity or shared real that must stay in one split"""
    label: Authenticity | None
    """None: unlabelled, usable for prediction only"""
    generator: str | None
    """None for photographs and for unlabelled images"""
    source: str
    size_bytes: int | None = None
    """of the file in the image store; None: not known, as shard sets do not say it"""
    subsampling: str | None = None
    """chroma subsampling of a JPEG: `4:2:0`, `4:4:4`, `grey`, ...; None: another format, or not
    known"""


NO_VALUE: Final = "none"
"""how an empty value is counted: the generator of a photograph"""
REWRITING_ARM: Final = "rewriting"
"""under which the ledger has the calls for rewordings; no arm of a recipe drafts under it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """Stands for good in the place of an image that was withdrawn: every room refuses the image."""

    image_id: str
    sha256: str
    original_sha256: str
    reason: str
    withdrawn_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkImage:
    """One image of a benchmark: a source that is for evaluation only, or a list of hashes."""

    benchmark: str
    name: str
    """its image id, or its hash as listed"""
    sha256: str | None
    """of the published file; None: only its perceptual hash is known"""
    phash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A polygon on an image; corners as fractions of the upright width and height, 0..1."""

    points: tuple[tuple[float, float], ...]

    def bounding_box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as fractions."""
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Marked pixels of an image, as a brush leaves them: COCO's uncompressed run lengths."""

    width: int
    """with height in pixels of the upright image"""
    height: int
    counts: tuple[int, ...]
    """pixels not marked, marked, not marked, ... in turn, down each column, columns from the left;
    only the first may be 0, and one at least is marked"""

    def bounding_box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as fractions."""
        ends = list(accumulate(self.counts))
        runs = [(start, end - 1) for start, end in zip(ends[::2], ends[1::2], strict=False)]
        columns = [(first // self.height, last // self.height) for first, last in runs]
        rows = [
            (first % self.height, last % self.height) if left == right else (0, self.height - 1)
            for (first, last), (left, right) in zip(runs, columns, strict=True)
        ]
        return (
            min(left for left, _ in columns) / self.width,
            min(top for top, _ in rows) / self.height,
            (max(right for _, right in columns) + 1) / self.width,
            (max(bottom for _, bottom in rows) + 1) / self.height,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFinding:
    """One observation under one trace category, and what it speaks for."""

    category: str
    evidence: str
    """one or more full sentences"""
    points_to: Authenticity
    """FAKE: a trace of generation; REAL: evidence of a photograph"""
    region: Region | Mask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """From findings to a verdict. No finding that points to the verdict means: no visible trace."""

    verdict: Authenticity
    findings: tuple[TraceFinding, ...]
    conclusion: str
    confidence: Confidence

    def supporting(self) -> tuple[TraceFinding, ...]:
        """The findings that speak for the verdict."""
        return tuple([f for f in self.findings if f.points_to is self.verdict])


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindLabel:
    """What an expert says of a picture of which nothing else was shown; one version of it."""

    label_id: str
    image_id: str
    expert: str
    version: int
    verdict: Authenticity
    confidence: Confidence
    categories: tuple[str, ...]
    """trace categories that bear the verdict out, in the taxonomy's order"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What the blind labels of an image come to; settled once, and never changed."""

    image_id: str
    categories: tuple[str, ...]
    """that steer the teacher; empty: the experts had nothing in common"""
    experts: tuple[str, ...]
    """whose labels decided"""
    hard: str | None = None
    """why the image is not to be drafted: too many experts took it for what it is not"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """A description of another image that shows a teacher how traces are put into words."""

    exemplar_id: str
    label: Authenticity
    categories: tuple[str, ...]
    """trace categories that the description speaks of"""
    description: str
    simulated: bool = False
    """written for a demo, about no real image"""


class BatchState(StrEnum):
    """Where a batch of requests stands; from `validating` on in the words of the teacher's API."""

    PREPARING = "preparing"
    """its lines go into the ledger; nothing was sent"""
    UPLOADED = "uploaded"
    """the teacher has its file; whether it also has the batch is not known"""
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    """the file was refused as a whole: nothing was run"""
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_ended(self) -> bool:
        """Nothing more will be run; what was run is there to be fetched."""
        return self in (
            BatchState.COMPLETED,
            BatchState.FAILED,
            BatchState.EXPIRED,
            BatchState.CANCELLED,
        )


class AttemptOutcome(StrEnum):
    """How one call to a teacher ended."""

    UNKNOWN = "unknown"
    """sent, and nobody lived to see the reply; keeps its worst-case reservation"""
    REPLIED = "replied"
    """a reply was stored, usable or not"""
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    """the request itself was refused (4xx)"""
    NOT_RUN = "not_run"
    """its batch ended before its turn came: nothing was billed"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a request, exactly as a teacher is sent it."""

    data: bytes
    media_type: str
    """of the bytes: `image/jpeg`"""
    detail: str
    caption: str = ""
    """text just before the picture, which every exemplar has; of the pictures of the image that
    is asked about either all have one, or none"""
    is_exemplar: bool = False
    """shows another image, whose description is a demonstration"""

    @cached_property
    def sha256(self) -> str:
        return sha256_bytes(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRequest:
    """All that decides a teacher's reply.

    On the wire come the instructions, the pictures of exemplars, the question, and the pictures of
    the image that is asked about: what repeats stands first.
    """

    model: str
    instructions: str
    question: str
    pictures: tuple[Picture, ...]
    reply_schema: str
    """compact JSON of the schema that the reply must satisfy; keys in the order of writing"""
    temperature: float
    max_output_tokens: int

    @property
    def judged(self) -> tuple[Picture, ...]:
        """The pictures of the image that is asked about; the first shows all of it."""
        return tuple(picture for picture in self.pictures if not picture.is_exemplar)

    @property
    def exemplars(self) -> tuple[Picture, ...]:
        """The pictures that go with the demonstrations."""
        return tuple(picture for picture in self.pictures if picture.is_exemplar)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestText:
    """All of a request but its pictures, and what names it: many images share one."""

    text_id: str
    model: str
    instructions: str
    question: str
    reply_schema: str
    temperature: float
    max_output_tokens: int

    @classmethod
    def of(cls, request: TeacherRequest) -> RequestText:
        said = {
            field.name: getattr(request, field.name)
            for field in fields(cls)
            if field.name != "text_id"
        }
        return _named_text(**said)


@lru_cache(maxsize=64, typed=True)  # 0 and 0.0 are spelt differently
def _named_text(**said: Any) -> RequestText:
    return RequestText(text_id=content_id("text", said), **said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call as the teacher counted them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherReply:
    """One stored reply: the raw body and what the wire format says about it."""

    request_hash: str
    raw: str
    """the response body as JSON text, exactly as it was stored"""
    content: str | None
    refusal: str | None
    finish_reason: str
    model: str
    usage: Usage
    request_id: str | None
    latency_s: float
    attempt_id: str = ""
    """set by the ledger that stored it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call to a teacher: one ledger row, whatever came of it."""

    attempt_id: str
    request_hash: str
    image_id: str
    campaign_id: str
    arm: str
    model: str
    outcome: AttemptOutcome
    reserved_usd: float
    """worst case, set aside before the call"""
    cost_usd: float | None
    """from real usage; None while unknown"""
    usage: Usage | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Many requests that a teacher answers together, within a day and for less."""

    batch_id: str
    """ours; also the worker that holds the claims of its images, and named in its metadata"""
    campaign_id: str
    arm: str
    state: BatchState
    created_at: datetime
    num_lines: int = 0
    num_bytes: int = 0
    input_sha256: str | None = None
    """of the file, once it was written"""
    input_file_id: str | None = None
    """the teacher's name for what was sent; so are the three below"""
    remote_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    reason: str | None = None
    """why it failed"""
    polled_at: datetime | None = None
    ended_at: datetime | None = None
    ingested_at: datetime | None = None
    """when its last reply was stored and its claims were given back"""
    deleted_at: datetime | None = None
    """when the teacher's copies of its files were deleted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One image in one arm, taken by one worker until the claim expires."""

    work_id: str
    campaign_id: str
    image_id: str
    arm: str
    tries: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One picture of an image as a teacher was sent it, and the part of the image that it shows."""

    name: str
    """`whole`: the stored file itself; `thumbnail`: all of it, smaller; `crop`: a part as it is"""
    left: int
    """with top, width and height in pixels of the upright image"""
    top: int
    width: int
    height: int
    sent_width: int
    sent_height: int
    num_bytes: int
    """of the file that was sent"""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A teacher's reasoning about one image, read from one stored reply."""

    draft_id: str
    image_id: str
    attempt_id: str
    campaign_id: str
    arm: str
    teacher: str
    """who answered: `rehearsal`, or the model's name"""
    prompt_version: str
    demonstrations: int
    exemplar_ids: tuple[str, ...] = ()
    """of the demonstrations, in the order of the prompt"""
    uncovered: tuple[str, ...] = ()
    """categories that were asked for and that no demonstration showed"""
    seen: tuple[View, ...] = ()
    """the pictures of the image"""
    bytes_sent: int = 0
    """of all pictures, those of exemplars too"""
    request_text_id: str | None = None
    """of what the teacher was told; None: that was not stored yet"""
    glaring: tuple[str, ...] = ()
    """categories of findings that the teacher calls plain at first sight"""
    merged: tuple[str, ...] = ()
    """ids of the drafts whose votes it words, in the order of their arms"""
    merged_teachers: tuple[str, ...] = ()
    """of these drafts"""
    reasoning: Reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTopic:
    """What an image shows, in one word, and who said so."""

    image_id: str
    said_by: str
    """`collection`, or the name of an arm that was asked"""
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One version of one expert's work on one draft; append-only."""

    correction_id: str
    image_id: str
    draft_id: str
    expert: str
    """pseudonym"""
    version: int
    reasoning: Reasoning
    outcomes: tuple[TraceOutcome, ...]
    """one per finding of the draft, then one `added` per added finding"""
    is_adjudication: bool = False
    rejects_image: bool = False

    def drafted(self) -> dict[int, TraceFinding]:
        """What is left of the traces of the draft, by their place in it; none of rejected ones."""
        left = [p for p, outcome in enumerate(self.outcomes) if outcome in _LEFT]
        return dict(zip(left, self.reasoning.findings, strict=False))

    def added(self) -> tuple[TraceFinding, ...]:
        """The traces that the draft lacks."""
        return self.reasoning.findings[len(self.drafted()) :]

    def categories(self) -> frozenset[str]:
        """Those of the findings that speak for the verdict."""
        return frozenset(finding.category for finding in self.reasoning.supporting())


class TaskKind(StrEnum):
    """What experts are asked in Label Studio; a project holds tasks of one kind."""

    REVIEW = "review"
    """check a draft"""
    BLIND = "blind"
    """judge a picture of which nothing is known"""
    EXEMPLAR = "exemplar"
    """merge two descriptions into one that a teacher is shown"""
    PREFERENCE = "preference"
    """choose the better of two texts"""
    ADJUDICATION = "adjudication"
    """settle what other experts disagree about"""
    PICTURES = "pictures"
    """no task: the project that holds the files"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedDescription:
    """An expert's description of an image, merged with a teacher's; one version of it."""

    description_id: str
    image_id: str
    draft_id: str
    """the teacher's"""
    expert: str
    version: int
    own: str
    """in the expert's words alone"""
    merged: str
    """checked, as exemplars are written"""
    categories: tuple[str, ...]
    """trace categories that the merged text speaks of, in the taxonomy's order"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of two drafts about one image an expert preferred; one version of the choice."""

    preference_id: str
    image_id: str
    expert: str
    version: int
    preferred: str
    """id of a draft"""
    other: str
    """id of the other draft"""
    preferred_first: bool
    """the preferred one stood on the left"""


class AnnotationFate(StrEnum):
    """What became of one version of one annotation."""

    COUNTED = "counted"
    """it became a record of its kind, a correction for instance"""
    OVERWRITTEN = "overwritten"
    """somebody else than its author saved it: nobody's word"""
    SKIPPED = "skipped"
    UNREADABLE = "unreadable"
    """its answers contradict one another, or one is missing"""
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningChain:
    """One FakeChain record: what is held to be true about the traces of one image."""

    chain_id: str
    image_id: str
    campaign_id: str
    arm: str
    draft_id: str
    teacher: str
    correction_ids: tuple[str, ...]
    reasoning: Reasoning
    review_level: ReviewLevel
    contradictions: int
    """findings of the draft that spoke against the known label and were left out"""
    merged_teachers: tuple[str, ...] = ()
    """whose votes the draft words; none where its teacher looked itself"""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Whose words it may hold, each once."""
        return tuple(dict.fromkeys([*self.merged_teachers, self.teacher]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; text only, the image stands before the first user turn."""

    role: str
    """`user` or `assistant`"""
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One FakeInstruct record, still without the columns that it shares with its image."""

    instruction_id: str
    chain_id: str
    image_id: str
    family: str
    form: str
    template_id: str
    aspect: str | None
    messages: tuple[Message, ...]
    target: str | None
    """the closed answer of the last turn, where there is one"""
