"""Any OpenAI-compatible endpoint, asked from an evaluation: cached, priced, within a ceiling.

Every call stands in the ledger of the evaluation's folder, reserved before it is made, its reply
stored before it is read; the same request is never paid for twice.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from core.errors import ConfigError, DataError, TransientError
from core.ids import sha256_text
from core.recipe import DEFAULT_RECIPE, REHEARSAL, Strict, read_model
from core.records import Picture, TeacherReply, TeacherRequest
from core.servers import server_of
from core.settings import Settings, load_settings
from teacher.client import Teacher, is_loopback
from teacher.file_ledger import FileLedger
from teacher.gate import Gate
from teacher.policy import ask_until_usable
from teacher.prices import Price, require_price
from teacher.rehearsal import start_rehearsal
from teacher.request import schema_text
from training.score import log_odds_of
from training.scorers import Score

if TYPE_CHECKING:
    from PIL import Image

    from training.benchmarks import Examined
    from training.calibrate import Calibration

LEDGER: Final = "ledger-{}.jsonl"
"""one for each model of each server, whose replies must not be mixed up"""
CALLS_IN_FLIGHT: Final = 8
MAX_TRIES: Final = 4
MAX_REASKS: Final = 1
TEMPERATURE: Final = 1.0
"""the one that every model takes"""
VERDICT_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["real", "fake"]},
        "p_fake": {"type": "number"},
    },
    "required": ["verdict", "p_fake"],
    "additionalProperties": False,
}
ANSWER_SCHEMA: Final = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
PROMPTS: Final = "evaluation.yaml"
"""of a recipe"""

Value = TypeVar("Value")


class Prompts(Strict):
    """What an evaluation says to a model behind an endpoint."""

    instructions: str
    verdict: str
    """asks for real or fake, and for a probability"""
    judging: str
    """what a judge is told"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Which model to ask, where, and for how much."""

    address: str
    """base URL, or `rehearsal` for the simulated teacher of this machine"""
    model: str
    budget_usd: float | None = None
    recipe: Path = DEFAULT_RECIPE
    """whose prompts and prices hold, and whose rules the rehearsal teacher follows"""

    @property
    def server(self) -> str:
        """Never a user, password or query."""
        return server_of(self.address)

    @property
    def is_simulated(self) -> bool:
        return self.address == REHEARSAL

    @property
    def name(self) -> str:
        """For reports; never a key."""
        return f"{self.model} ({'simulated' if self.is_simulated else self.server})"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An endpoint that can be asked, from many threads."""

    endpoint: Endpoint
    prompts: Prompts
    ledger: FileLedger
    _teacher: Teacher
    _price: Price
    _gate: Gate = field(default_factory=Gate)
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(
        self,
        request: TeacherRequest,
        *,
        about: str,
        arm: str,
        parse: Callable[[TeacherReply], Value],
    ) -> Value:
        """The stored reply, or that of a new call, as `parse` reads it; it may raise DataError."""
        value, _ = ask_until_usable(
            self._teacher,
            request,
            parse=parse,
            max_reasks=MAX_REASKS,
            ledger=self.ledger,
            image_id=about,
            arm=arm,
            price=self._price,
            max_tries=MAX_TRIES,
            stop=self._stop,
            gate=self._gate,
        )
        return value

    def ask_all(self, calls: Sequence[Callable[[], Value]]) -> list[Value | DataError]:
        """Results in order; what one request alone failed with stands in its place."""

        def attempt(call: Callable[[], Value]) -> Value | DataError:
            try:
                return call()
            except DataError as error:
                return error
            except TransientError as error:
                return DataError(str(error))

        with ThreadPoolExecutor(CALLS_IN_FLIGHT) as pool:
            try:
                return list(pool.map(attempt, calls))
            except BaseException:
                self._stop.set()
                raise


@contextmanager
def connect(endpoint: Endpoint, folder: Path) -> Iterator[Connection]:
    """Open an endpoint with the ledger of an evaluation's folder.

    ConfigError when its price is not known, or it lies elsewhere and no ceiling was given.
    """
    settings = load_settings()
    is_local = endpoint.is_simulated or is_loopback(endpoint.address)
    if not is_local and endpoint.budget_usd is None:
        raise ConfigError(
            f"nothing was sent to {endpoint.server}: give a ceiling in US dollars with --budget"
        )
    price = require_price(endpoint.model, is_local=is_local, recipe_folder=endpoint.recipe)
    prompts = read_model(endpoint.recipe / PROMPTS, Prompts)
    ledger = LEDGER.format(sha256_text(f"{endpoint.server} {endpoint.model}")[:8])
    with ExitStack() as stack:
        address, key = endpoint.address, _key_of(endpoint, settings)
        if endpoint.is_simulated:
            address = stack.enter_context(start_rehearsal(endpoint.recipe))
        yield Connection(
            endpoint=endpoint,
            prompts=prompts,
            ledger=FileLedger(folder / ledger, ceiling_usd=endpoint.budget_usd),
            _teacher=stack.enter_context(Teacher(address, key)),
            _price=price,
        )


def _key_of(endpoint: Endpoint, settings: Settings) -> str | None:
    key = settings.openai_api_key
    return None if key is None or endpoint.is_simulated else key.get_secret_value()


def read_object(reply: TeacherReply) -> dict[str, Any]:
    """The JSON object that a reply is; DataError with the reason when it is none."""
    if reply.refusal:
        raise DataError("it refused")
    try:
        value = json.loads(reply.content or "")
    except ValueError as error:
        raise DataError(f"the reply is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError("the reply is no JSON object")
    return value


# An endpoint that is evaluated


class EndpointScorer:
    """A model behind an endpoint: it states its verdict with a probability, and answers in words.

    It is sent the pixels alone, as PNG, without names or metadata.
    """

    reduce: str | None = "stated probability"
    calibration: Calibration | None = None
    simulated_generators: tuple[str, ...] = ()

    def __init__(self, connection: Connection) -> None:
        prompts = connection.prompts
        self._connection = connection
        self.name = connection.endpoint.name
        self.prompt: str | None = prompts.verdict
        self.digest = sha256_text(f"{self.name} {prompts.verdict} {prompts.instructions}")

    def score(self, images: Sequence[Examined]) -> list[Score]:
        """Log-odds of the stated probability; None where no usable answer came."""
        found = self._connection.ask_all(
            [lambda f=facts, p=picture: self._verdict(f.name, p) for facts, picture in images]  # type: ignore[misc]
        )
        return [Score(None if isinstance(each, DataError) else each) for each in found]

    def reply(
        self, questions: Sequence[str], image: Image.Image, *, about: str
    ) -> list[str | None]:
        """Answers to some questions about one image; None where no usable answer came."""
        picture = _as_picture(image)
        found = self._connection.ask_all(
            [lambda q=question: self._answer(q, picture, about) for question in questions]  # type: ignore[misc]
        )
        return [None if isinstance(each, DataError) else each for each in found]

    def _verdict(self, name: str, image: Image.Image) -> float:
        request = self._request(
            self._connection.prompts.verdict, _as_picture(image), VERDICT_SCHEMA
        )
        return self._connection.ask(request, about=name, arm="evaluation", parse=_read_verdict)

    def _answer(self, question: str, picture: Picture, name: str) -> str:
        request = self._request(question, picture, ANSWER_SCHEMA)
        return self._connection.ask(request, about=name, arm="evaluation", parse=_read_answer)

    def _request(self, question: str, picture: Picture, schema: Any) -> TeacherRequest:
        return TeacherRequest(
            model=self._connection.endpoint.model,
            instructions=self._connection.prompts.instructions,
            question=question,
            pictures=(picture,),
            reply_schema=schema_text(schema),
            temperature=TEMPERATURE,
            max_output_tokens=2000,
        )


def _as_picture(image: Image.Image) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Picture(data=buffer.getvalue(), media_type="image/png", detail="high")


def _read_verdict(reply: TeacherReply) -> float:
    value = read_object(reply)
    p_fake, verdict = value.get("p_fake"), value.get("verdict")
    if not isinstance(p_fake, int | float) or not 0 <= p_fake <= 1:
        raise DataError("p_fake is no probability from 0 to 1")
    if verdict not in ("real", "fake") or (p_fake != 0.5 and (p_fake > 0.5) != (verdict == "fake")):
        raise DataError("the verdict does not fit p_fake")
    return log_odds_of(float(p_fake))


def _read_answer(reply: TeacherReply) -> str:
    answer = read_object(reply).get("answer")
    if not isinstance(answer, str):
        raise DataError("the reply has no answer")
    return answer
