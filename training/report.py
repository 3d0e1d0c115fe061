"""`report.json`, and `report.html`: one self-contained page that a person can judge a run by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

from core.errors import ConfigError
from imaging.simulate import GENERATORS
from instruct_builder.shards import Manifest
from training.calibrate import Calibration
from training.figures import Figure
from training.metrics import Interval
from training.test_split import GeneratorLine, Line

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
POST_HOC = (
    "What the model says about traces is written after the fact: nothing here shows that its "
    "reasons are what decided its verdict."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a run has to show."""

    title: str
    simulated: tuple[str, ...]
    """what in this run is simulated; empty when nothing is"""
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    scoring: Mapping[str, Any]
    images: int
    """of the test split"""
    photographs: int
    """groups of the test split, the units of the bootstrap"""
    table: tuple[Line, ...]
    generators: tuple[GeneratorLine, ...]
    figures: Mapping[str, float]
    """over the whole test split"""
    calibration: Calibration | None
    """fitted on the val split; None: it has not both classes"""
    calibrated: Mapping[str, float] | None
    """the figures with calibrated probabilities, at the threshold chosen on the val split"""
    difference: Interval
    comparison: str
    caveats: tuple[str, ...]


def find_simulations(manifest: Manifest) -> tuple[str, ...]:
    """What a reader must not take for real: simulated teachers and simulated generators."""
    teachers = sorted(t.name for t in manifest.teachers if t.simulated)
    generators = sorted(set(manifest.image_counts.get("generator", {})) & set(GENERATORS))
    lines = []
    if teachers or manifest.simulated:
        lines.append(f"Simulated teacher: {', '.join(teachers) or 'yes'}.")
    if generators:
        lines.append(
            f"Simulated generators: {', '.join(generators)}. No image here comes from a real "
            "generator, so the figures say nothing about real ones."
        )
    return tuple(lines)


def find_caveats(manifest: Manifest, photographs: int) -> tuple[str, ...]:
    """What has to be kept in mind when reading the figures."""
    few = (
        f"The test split has {photographs} photographs. Intervals resample photographs, not crops; "
        "with so few they are rough."
    )
    looked = f"Who looked at the images before training: {manifest.statement}."
    return (looked, *((few,) if photographs < 30 else ()), POST_HOC)


def write_report(folder: Path, report: Report, figures: Sequence[Figure]) -> None:
    """Write `report.html`, then `report.json`, whose presence says that the run is complete."""
    page = _environment().from_string(PAGE).render(report=report, figures=figures)
    write_atomically(folder / REPORT_HTML, page)
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / REPORT_JSON, text + "\n")


def write_atomically(path: Path, text: str) -> None:
    """The file appears whole or not at all; a ConfigError when the disk does not take it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: cannot be written: {reason}; free some space") from None


def _environment() -> jinja2.Environment:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def render_text(report: Mapping[str, Any], folder: Path) -> str:
    """The table for a terminal, from `report.json`."""
    rows = [("AUROC on unseen photographs", "seen generators", "held-out generators")]
    rows += [(line["name"], *(_show(line[key]) for key in COLUMNS)) for line in report["table"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = [
        *report["simulated"],
        "",
        *table,
        "",
        report["comparison"],
        *report["caveats"],
        _training_line(report["training"]),
        f"report: {folder / REPORT_HTML}",
    ]
    return "\n".join(lines)


def _training_line(training: Mapping[str, Any]) -> str:
    steps, seconds = training["steps"], training["seconds"]
    return f"{steps} steps in {seconds:.0f} s; rows set aside: {training['rows_set_aside']}"


COLUMNS = ("seen", "held_out")


def _show(interval: Mapping[str, float] | None) -> str:
    return str(Interval(**interval)) if interval else "none"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ report.title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
.simulated { background: #fff4d6; border-left: .4rem solid #d9a400; padding: .6rem 1rem;
  font-weight: 600; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #d0d7de; padding: .3rem .8rem; text-align: left; }
td.number { font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: .5rem; max-width: 29rem; } figure img { width: 100%; }
figcaption, .small { color: #57606a; font-size: .9rem; }
</style></head><body>
{% if report.simulated %}
<div class="simulated">{% for line in report.simulated %}<div>{{ line }}</div>{% endfor %}</div>
{% endif %}
<h1>{{ report.title }}</h1>
<p><strong>{{ report.comparison }}</strong></p>
<ul>{% for line in report.caveats %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>Unseen photographs</h2>
<p>AUROC with 95 % intervals, clustered by photograph: {{ report.images }} images of
{{ report.photographs }} photographs that the training never saw.</p>
<table id="comparison"><tr><th></th><th>seen generators</th><th>held-out generators</th></tr>
{% for line in report.table %}
<tr><td>{{ line.name }}</td><td class="number">{{ line.seen or "none" }}</td>
<td class="number">{{ line.held_out or "none" }}</td></tr>
{% endfor %}
</table>
<h2>By generator</h2>
<table id="generators"><tr><th>generator</th><th>fakes</th><th>AUROC</th>
<th>called fake at {{ report.scoring.threshold }}</th></tr>
{% for line in report.generators %}
<tr><td>{{ line.generator }}{{ ", held out" if line.is_held_out }}</td><td>{{ line.images }}</td>
<td class="number">{{ line.auroc }}</td>
<td class="number">{{ "%.2f" | format(line.found) }}</td></tr>
{% endfor %}
</table>
<h2>Figures</h2>
{% for figure in figures %}
<figure id="{{ figure.name }}"><img alt="{{ figure.caption }}" src="{{ figure.data_uri }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
<h2>Whole test split</h2>
<table><tr><th></th><th>raw scores</th>
{% if report.calibrated %}<th>calibrated on the val split</th>{% endif %}</tr>
{% for name, value in (report.calibrated or report.figures).items() %}
<tr><td>{{ name | replace("_", " ") }}</td>
<td class="number">{{ "%.3f" | format(report.figures[name]) if name in report.figures }}</td>
{% if report.calibrated %}<td class="number">{{ "%.3f" | format(value) }}</td>{% endif %}</tr>
{% endfor %}</table>
{% if report.calibration %}
<p class="small">Log-likelihood ratio = {{ "%.4g" | format(report.calibration.scale) }} x log-odds
{{ "%+.4g" | format(report.calibration.bias) }}, called fake from
{{ "%.3g" | format(report.calibration.threshold) }}; fitted on {{ report.calibration.images }}
validation images, both classes weighed the same.</p>
{% endif %}
<h2>How it was made</h2>
{% for heading in ("model", "training", "scoring") %}
<h3>{{ heading | capitalize }}</h3>
<table>{% for name, value in report[heading].items() %}
<tr><td>{{ name | replace("_", " ") }}</td><td>
{% if value is mapping %}{% for key, inner in value.items() %}
<div>{{ key }}: {{ inner }}</div>{% endfor %}
{% elif value is sequence and value is not string %}{% for item in value %}
{{ item if item is string or item is not sequence else item | join(" ") }}
{{- ", " if not loop.last }}{% endfor %}
{% else %}{{ value }}{% endif %}</td></tr>
{% endfor %}</table>
{% endfor %}
</body></html>
"""
