"""The rehearsal teacher: a simulated teacher that measures pixels. It is no vision-language model.

python -m teacher.rehearsal --recipe recipes/fakescope --port 8008 --log requests.jsonl
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field

from core.errors import ConfigError, DataError, FakeScopeError
from core.ids import canonical_json, sha256_text
from core.recipe import (
    DEFAULT_RECIPE,
    REHEARSAL,
    Strict,
    find_recipe,
    parse_model,
    read_model,
    read_yaml,
)
from core.records import Picture, Reasoning, TeacherRequest
from core.taxonomy import Taxonomy
from imaging.decode import open_image
from imaging.measurements import BLOCK, FIGURES, Measurements, Pixels, measure
from teacher.answering import answer, is_answering
from teacher.conclusions import Conclusions, conclude, told_label
from teacher.faults import NO_FAULTS, Fault, Faults
from teacher.findings import Rules, observe, read_rules
from teacher.judging import is_judging, judge
from teacher.loopback import serve
from teacher.merging import is_merging, merge
from teacher.personas import PLAIN, Persona, check_personas
from teacher.prices import ImageTokens
from teacher.request import pixel_size, request_hash, text_of
from teacher.rewordings import Replacements, is_rewording, read_replacements, reword
from teacher.sorting import TopicRule, check_topic_rules, is_sorting, sort

SIMULATED = "a simulated teacher that measures pixels; no vision-language model looked at the image"
JUDGED = "a simulated judge that counts shared words by stated rules; no language model judged"
MERGED = "a simulated teacher that repeats what it was given; no language model worded it"
REWORDED = "a simulated teacher that replaces phrases by stated rules; no language model reworded"
RULES_FILE = "rehearsal.yaml"
ANSWER_KEYS = frozenset({"verdict", "findings", "conclusion", "confidence"})
FINDING_KEYS = frozenset({"category", "evidence", "points_to", "region"})
REFUSAL = "I cannot help with this image. (simulated refusal)"
JUNK = "Certainly! Here is what I see: {'verdict': "
PATCHES = ImageTokens(patch=1.0)
"""one simulated token each"""
BYTES_PER_TOKEN = 4
START_SECONDS = 60.0
END_SECONDS = 5.0
WATCH_SECONDS = 0.5
PYTHON_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Measures the image of a request and answers in the requested JSON schema.

    Findings come from the measurements alone; the told label decides the verdict and the wording
    of the conclusion. A request for rewordings shows no image and is answered by replacing phrases,
    one for marks by counting shared words, one for points to be worded by repeating what was said.
    The same request always gets the same completion.
    """

    rules: Rules
    conclusions: Conclusions
    taxonomy: Taxonomy
    fingerprint: str
    """of the rules and the taxonomy"""
    replacements: Replacements = field(default_factory=dict)
    """by phrase, for rewordings"""
    topics: tuple[TopicRule, ...] = ()
    """for images of which it is asked what they show"""
    personas: Mapping[str, Persona] = field(default_factory=dict)
    """how it differs from itself, by the model that is asked for"""
    model: str = REHEARSAL

    def complete(self, request: TeacherRequest, fault: Fault | None = None) -> dict[str, Any]:
        """A chat completion, spoilt where a fault asks for it; DataError for a bad request."""
        fault = fault or self._refusal(request)
        content = self._answer(request, fault)
        choice = _choice(content, fault, limit=request.max_output_tokens * BYTES_PER_TOKEN)
        return {
            "id": f"chatcmpl-{request_hash(request)[:24]}",
            "object": "chat.completion",
            "created": 0,
            "model": request.model if request.model in self.personas else self.model,
            "choices": [choice],
            "usage": _count_tokens(request, content),
            "system_fingerprint": f"simulated-{self.fingerprint}",
            "simulated": _how_simulated(request.reply_schema),
        }

    def _answer(self, request: TeacherRequest, fault: Fault | None) -> str:
        if is_rewording(request.reply_schema):
            turned = fault is Fault.TURNED_FACT
            return reword(request.question, self.replacements, turned=turned)
        if is_judging(request.reply_schema):
            return judge(request.question)
        if is_merging(request.reply_schema):
            return merge(request.question)
        whole = _whole_image(request)
        figures = measure(_decode(whole.data))
        if is_sorting(request.reply_schema):
            return sort(figures.as_dict(), self.topics)
        return self._look(request, figures, fault, key=whole.sha256)

    def _refusal(self, request: TeacherRequest) -> Fault | None:
        persona = self.personas.get(request.model, PLAIN)
        is_turned_down = bool(request.judged) and persona.turns_down(request.judged[0].sha256)
        return Fault.REFUSAL if is_turned_down else None

    def _look(
        self, request: TeacherRequest, figures: Measurements, fault: Fault | None, *, key: str
    ) -> str:
        """What the figures say, of the categories that the schema has, as the persona sees it."""
        persona = self.personas.get(request.model, PLAIN)
        categories = _categories_of(request.reply_schema)
        seen = [
            one
            for one in observe(figures, persona.rules_of(self.rules), key=key)
            if one.strength >= persona.least_strength
            and (not categories or one.finding.category in categories)
        ]
        reasoning = conclude(
            [one.finding for one in seen],
            told_label(request.question),
            conclusions=self.conclusions,
            taxonomy=self.taxonomy,
            key=key,
        )
        if fault is Fault.WRONG_VERDICT:
            reasoning = replace(reasoning, verdict=reasoning.verdict.opposite)
        if is_answering(request.reply_schema):
            return answer(reasoning, request.reply_schema)
        glaring = [one.strength >= persona.glaring_from for one in seen]
        return _answer(reasoning, json.loads(request.reply_schema), glaring=glaring)


def _how_simulated(reply_schema: str) -> str:
    if is_rewording(reply_schema):
        return REWORDED
    if is_merging(reply_schema):
        return MERGED
    return JUDGED if is_judging(reply_schema) else SIMULATED


class Extras(Strict):
    """Sections of `rehearsal.yaml` that a recipe may do without."""

    topics: tuple[TopicRule, ...] = ()
    personas: dict[str, Persona] = Field(default_factory=dict)


OWN_SECTIONS = tuple(Extras.model_fields)


def load_rehearsal(recipe_folder: Path) -> Rehearsal:
    """Read the rules, the conclusions and the taxonomy of a recipe."""
    path = recipe_folder / RULES_FILE
    values = read_yaml(path)
    if not isinstance(values, dict) or "conclusions" not in values:
        raise ConfigError(f"{path}: has no section conclusions")
    taxonomy = read_model(recipe_folder / "taxonomy.yaml", Taxonomy)
    where = str(path)
    own = {name: values.pop(name) for name in OWN_SECTIONS if name in values}
    extras = parse_model(own, Extras, where=where)
    check_topic_rules(extras.topics, figures=FIGURES, where=f"{where}: topics")
    grey_card = np.full((2 * BLOCK, 2 * BLOCK, 3), 128, dtype=np.uint8)
    rules = read_rules(
        {name: value for name, value in values.items() if name != "conclusions"},
        categories=taxonomy.ids,
        figures=FIGURES,
        places=tuple(measure(grey_card).places),
        where=where,
    )
    check_personas(extras.personas, rules, where=f"{where}: personas")
    return Rehearsal(
        rules=rules,
        conclusions=parse_model(values["conclusions"], Conclusions, where=f"{path}: conclusions"),
        taxonomy=taxonomy,
        fingerprint=sha256_text(canonical_json([values | own, taxonomy.model_dump(mode="json")]))[
            :12
        ],
        replacements=read_replacements(recipe_folder),
        topics=extras.topics,
        personas=extras.personas,
    )


def _whole_image(request: TeacherRequest) -> Picture:
    if not request.judged:
        raise DataError("the request shows no image to judge")
    return request.judged[0]


def _decode(image: bytes) -> Pixels:
    try:
        return np.asarray(open_image(image).rgb)
    except DataError as error:
        raise DataError(f"the image cannot be used: {error}") from None


def _categories_of(reply_schema: str) -> Sequence[str]:
    """That a finding may have; empty where the schema is of another form."""
    try:
        finding = json.loads(reply_schema)["properties"]["findings"]["items"]
        return list(finding["properties"]["category"]["enum"])
    except (ValueError, KeyError, TypeError):
        return []


def _answer(reasoning: Reasoning, schema: Any, *, glaring: Sequence[bool]) -> str:
    """The reasoning as JSON, its keys in the order of the schema."""
    values = asdict(reasoning)
    for finding, is_glaring in zip(values["findings"], glaring, strict=True):
        finding["region"] = finding["region"] and finding["region"]["points"]
        finding["glaring"] = is_glaring
    keys, finding_keys = _key_order(schema)
    values["findings"] = [{key: f[key] for key in finding_keys} for f in values["findings"]]
    return json.dumps({key: values[key] for key in keys}, ensure_ascii=False)


def _key_order(schema: Any) -> tuple[list[str], list[str]]:
    try:
        answer = schema["properties"]
        finding = answer["findings"]["items"]["properties"]
        keys, finding_keys = list(answer), list(finding)
    except (KeyError, TypeError):
        keys, finding_keys = [], []
    if set(keys) != ANSWER_KEYS or set(finding_keys) - {"glaring"} != FINDING_KEYS:
        raise DataError(
            f"this teacher answers with {', '.join(sorted(ANSWER_KEYS))}, and in each of the "
            f"findings {', '.join(sorted(FINDING_KEYS))}; the schema asks for something else"
        )
    return keys, finding_keys


def _choice(content: str, fault: Fault | None, *, limit: int) -> dict[str, Any]:
    if fault is Fault.TRUNCATED:
        limit = len(content) // 2
    is_whole = len(content) <= limit
    text = JUNK if fault is Fault.JUNK else content[:limit]
    is_refusal = fault is Fault.REFUSAL
    return {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None if is_refusal else text,
            "refusal": REFUSAL if is_refusal else None,
        },
        "logprobs": None,
        "finish_reason": "stop" if is_whole or is_refusal else "length",
    }


def _count_tokens(request: TeacherRequest, content: str) -> dict[str, Any]:
    """Simulated counts: a token per four bytes of text and per patch of every picture."""
    image = sum(PATCHES.bound(*pixel_size(picture.data)) for picture in request.pictures)
    prompt, completion = image + _tokens_of(text_of(request)), _tokens_of(content)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": image},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _tokens_of(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", errors="replace")) / BYTES_PER_TOKEN)


@contextmanager
def start_rehearsal(
    recipe_folder: Path,
    *,
    log: Path | None = None,
    faults: Faults = NO_FAULTS,
    batches: Path | None = None,
) -> Iterator[str]:
    """Run the rehearsal teacher in a process of its own; yields its base URL.

    `batches` is the folder that keeps uploaded files and batches from one run to the next.

    It ends with the context, and by itself when this process dies in whatever way.
    """
    with tempfile.TemporaryFile() as complaints:
        process = _spawn(
            recipe_folder, log=log, faults=faults, batches=batches, complaints=complaints
        )
        try:
            base_url = _read_address(process, complaints)
            _check_health(base_url)
            yield base_url
        finally:
            _end(process)


def _spawn(
    recipe_folder: Path,
    *,
    log: Path | None,
    faults: Faults,
    batches: Path | None,
    complaints: IO[bytes],
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "teacher.rehearsal", "--recipe", str(recipe_folder.resolve())]
    command += ["--faults", faults.model_dump_json(), "--parent", str(os.getpid())]
    command += [] if log is None else ["--log", str(log.resolve())]
    command += [] if batches is None else ["--batches", str(batches.resolve())]
    return subprocess.Popen(  # noqa: S603  our own module and paths, no shell
        command,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        start_new_session=True,  # Ctrl-C is for the parent, whose calls in flight may still end
    )


def _environment() -> dict[str, str]:
    """Ours without what it must not know, and with the place where our packages are."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("OPENAI_")}
    path = os.pathsep.join(filter(None, [str(PYTHON_ROOT), os.environ.get("PYTHONPATH")]))
    return {"OPENBLAS_NUM_THREADS": "1", **kept, "PYTHONPATH": path}


def _read_address(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> str:
    assert process.stdout is not None
    is_ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if is_ready else b""
    if not line.startswith(b"http://"):
        complaints.seek(0)
        said = complaints.read().decode("utf-8", errors="replace").strip().splitlines()
        reason = said[-1] if said else f"no word from it within {START_SECONDS:g} s"
        raise ConfigError(f"the rehearsal teacher did not start: {reason}")
    return line.decode("ascii").strip()


def _check_health(base_url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=START_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError as error:
        raise ConfigError(f"the rehearsal teacher at {base_url} does not answer: {error}") from None
    finally:
        connection.close()
    if status != http.client.OK:
        raise ConfigError(f"the rehearsal teacher at {base_url} is not well: status {status}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End one process by its id."""
    with process:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: serve until Ctrl-C, a signal, or the death of `--parent`."""
    options = _parser().parse_args(arguments)
    try:
        faults = _read_faults(options.faults)
        rehearsal = load_rehearsal(options.recipe)
        with serve(
            rehearsal,
            port=options.port,
            log=options.log,
            faults=faults,
            batches=options.batches,
        ) as base_url:
            sys.stdout.write(f"{base_url}\n")
            sys.stdout.flush()
            _wait(options.parent)
    except FakeScopeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m teacher.rehearsal",
        description="An OpenAI-compatible server on 127.0.0.1 whose answers are simulated: it "
        "measures pixels by the rules of a recipe and words what it measured. No vision-language "
        "model and no expert looks at the image. The first line of its output is its address.",
        epilog="End it with Ctrl-C. No key is needed, and none is looked at.",
    )
    add = parser.add_argument
    add("--recipe", type=find_recipe, default=DEFAULT_RECIPE, help="recipe folder with the rules")
    add("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    add("--log", type=Path, help="file to append one JSON line per request to")
    add(
        "--batches", type=Path, help="folder that keeps uploaded files and batches for the next run"
    )
    add(
        "--faults",
        metavar="JSON",
        help='failures to play, such as \'{"rate_429": 0.1, "rate_junk": 0.05}\'; '
        f"keys: {', '.join(Faults.model_fields)}",
    )
    add("--parent", type=int, help="process to end with; then the end of stdin is the end too")
    return parser


def _read_faults(text: str | None) -> Faults:
    if text is None:
        return NO_FAULTS
    try:
        values: Mapping[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--faults: not valid JSON: {error}") from None
    return parse_model(values, Faults, where="--faults")


def _wait(parent: int | None) -> None:
    """Until SIGTERM; with a parent also until it is gone, or has closed our stdin."""
    signal.signal(signal.SIGTERM, _raise_exit)
    while parent is None:
        signal.pause()
    while os.getppid() == parent:
        is_ready, _, _ = select.select([sys.stdin], [], [], WATCH_SECONDS)
        if is_ready and not os.read(sys.stdin.fileno(), 4096):
            return


def _raise_exit(number: int, frame: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
