"""Small installations for the dashboard: what others wrote in them is hostile, or too long."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from core.ids import content_id, image_id_of, sha256_bytes
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.records import (
    AnnotationFate,
    Authenticity,
    BlindLabel,
    Confidence,
    Draft,
    ImageRecord,
    Preference,
    Region,
    Source,
    TaskKind,
    TraceFinding,
    TraceOutcome,
)
from core.settings import load_settings
from db.blind import save_label
from db.engine import Database, open_database
from db.images import save_images, save_source
from db.judgements import PREFERENCES
from db.provenance import save_provenance
from db.reviews import save_correction
from db.studio import (
    AnnotationVersion,
    StudioProject,
    StudioTask,
    expert_of,
    save_project,
    save_tasks,
    save_version,
)
from db.work import add_work, claim, employ, open_campaign, quarantine, stop_campaign
from imaging.store import ImageStore
from tests.campaigns import NOON, store_draft
from tests.unit.instruct_builder.exports import talk, write_placed
from tests.unit.instruct_builder.specimens import make_pairs, place_all
from tests.unit.records import make_correction, make_finding, make_image

HOSTILE = (
    '<script>document.title="ran"</script><img src=x onerror="document.title=1">'
    "![picture](http://127.0.0.1:9/steal.png) [link](javascript:alert(1)) **bold** $x^2$"
    " :material/home: \x1b[31mred\x1b[0m \u202etxet"
)
"""what a reply, a name or a reason may hold"""
LONG = "long " * 200_000
STUDIO = "http://127.0.0.1:9"
"""address of a Label Studio that does not run"""
HOSTILE_NAME = "<img src=x onerror=alert(1)> [name](javascript:1) **x**"
"""of a folder"""
CHANGES = (TraceOutcome.EDITED, TraceOutcome.REJECTED, TraceOutcome.ADDED)
BOX = Region(points=((0.1, 0.2), (0.6, 0.2), (0.6, 0.8), (0.1, 0.8)))


def draw(number: int) -> bytes:
    """A small JPEG that no other number has."""
    noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((256, 192)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def store_drawn(home: Path, database: Database, count: int) -> list[ImageRecord]:
    """Fakes and photographs in turn, with their files; the source and one generator are hostile."""
    store = ImageStore(home / "images")
    images = []
    for number in range(count):
        data = draw(number)
        digest = sha256_bytes(data)
        is_fake = number % 2 == 0
        generator = HOSTILE if number == 0 else "sim-nearest"
        images.append(
            make_image(
                f"drawn {number}",
                image_id=image_id_of(digest),
                sha256=digest,
                path=store.add(data, ".jpg"),
                width=256,
                height=192,
                cluster=f"cluster-{number // 2}",
                label=Authenticity.FAKE if is_fake else Authenticity.REAL,
                generator=generator if is_fake else None,
                source=HOSTILE,
            )
        )
    images.append(replace(images[-1], image_id="img-unlabelled", label=None))
    with database.write() as session:
        save_source(session, Source(name=HOSTILE, licence="CC0-1.0"))
        save_images(session, images)
    return images[:-1]


def _draft_and_correct(
    database: Database, campaign_id: str, images: Sequence[ImageRecord]
) -> list[Draft]:
    """A draft of each image, which two experts change; about every other image they disagree."""
    drafts = []
    marked = TraceFinding(
        category="texture", evidence=HOSTILE, points_to=Authenticity.FAKE, region=BOX
    )
    long = TraceFinding(category=HOSTILE, evidence=LONG, points_to=Authenticity.REAL)
    edited = replace(marked, evidence=f"It is not so. {HOSTILE}")
    for number, image in enumerate(images):
        draft = store_draft(database, campaign_id, image, marked, long, teacher=HOSTILE)
        drafts.append(draft)
        for expert in ("expert-1", HOSTILE):
            agrees = expert == "expert-1" or number % 2
            said = make_correction(
                draft,
                expert,
                *((edited, make_finding("edge", evidence=HOSTILE)) if agrees else (long,)),
                correction_id=content_id("correction", draft.draft_id, expert),
                outcomes=CHANGES if agrees else (TraceOutcome.REJECTED, TraceOutcome.ACCEPTED),
            )
            with database.write() as session:
                save_correction(session, said)
    return drafts


def _judge(database: Database, campaign_id: str, images: Sequence[ImageRecord]) -> None:
    """What experts say of images besides: blind, and of which of two drafts is better."""
    for number, image in enumerate(images):
        texts = [
            store_draft(
                database, campaign_id, image, make_finding(), question=arm, arm=arm, teacher=HOSTILE
            )
            for arm in ("other", "plain")
        ]
        for expert in ("expert-1", HOSTILE):
            label = BlindLabel(
                label_id=content_id("label", image.image_id, expert),
                image_id=image.image_id,
                expert=expert,
                version=1,
                verdict=Authenticity.FAKE,
                confidence=Confidence.LOW,
                categories=("texture",),
            )
            choice = Preference(
                preference_id=content_id("preference", image.image_id, expert),
                image_id=image.image_id,
                expert=expert,
                version=1,
                preferred=texts[number % 2].draft_id,
                other=texts[1 - number % 2].draft_id,
                preferred_first=True,
            )
            with database.write() as session:
                save_label(session, label)
                PREFERENCES.save(session, choice)


def _show_in_studio(
    database: Database, campaign_id: str, draft: Draft, server: str, number: int
) -> None:
    """A task about a draft, of which somebody overwrote the answer."""
    project = StudioProject(
        project_key=f"project {number}",
        server=server,
        campaign_id=campaign_id,
        form_id="form",
        kind=TaskKind.REVIEW,
        number=number,
        project_id=7,
    )
    task = StudioTask(
        task_key=f"task {number}",
        project_key=project.project_key,
        subject_id=draft.draft_id,
        image_id=draft.image_id,
        task_id=11,
    )
    with database.write() as session:
        save_project(session, project)
        save_tasks(session, [task])
        version = AnnotationVersion(
            version_id=f"version {number}",
            task_key=task.task_key,
            annotation_id=1,
            number=1,
            fate=AnnotationFate.OVERWRITTEN,
            reason=LONG if number % 2 else HOSTILE,
            expert=expert_of(session, server, 1),
            raw="{}",
        )
        save_version(session, version)


def make_study(folder: Path) -> Recipe:
    """The default recipe with two arms more, between which experts choose."""
    shutil.copytree(DEFAULT_RECIPE, folder)
    path = folder / "recipe.yaml"
    said = yaml.safe_load(path.read_text())
    (arm,) = said["drafting"]["arms"]
    said["drafting"]["arms"] += [{**arm, "name": name} for name in ("other", "plain")]
    said["review"]["preference"] = {"arms": ["other", "plain"], "images": 6, "experts": 2}
    path.write_text(yaml.safe_dump(said))
    return load_recipe(folder)


def make_installation(home: Path) -> Database:
    """Images in a campaign, some set aside: everything that others wrote is hostile or too long."""
    database = open_database(load_settings(fakescope_home=home, database_url=None))
    images = store_drawn(home, database, 12)
    recipe = make_study(home / "recipe")
    with database.write() as session:
        campaign_id = open_campaign(session, recipe, ceiling_usd=None)
        employ(session, campaign_id, recipe_folder=str(recipe.folder), rehearsal_url=None)
        add_work(session, campaign_id, "main", [image.image_id for image in images])
        said = {HOSTILE: LONG, "camera": HOSTILE}
        save_provenance(session, {image.image_id: said for image in images})
        stop_campaign(session, campaign_id, HOSTILE)
    drafts = _draft_and_correct(database, campaign_id, images[6:])
    _judge(database, campaign_id, images[6:])
    for number, draft in enumerate(drafts, start=1):
        server = STUDIO if number % 2 else "javascript:alert(1)//"
        _show_in_studio(database, campaign_id, draft, server, number)
    with database.write() as session:
        taken = claim(
            session,
            campaign_id,
            arms=["main"],
            worker="worker",
            limit=4,
            seconds=60,
            now=NOON,
        )
        for each, reason in zip(taken[1:], (HOSTILE, LONG, "refused"), strict=True):
            quarantine(session, each.work_id, reason)
    make_shards(home / "fakeinstruct")
    make_shards(home / HOSTILE_NAME)
    make_run(home / "runs" / HOSTILE_NAME, images)
    make_evaluation(home / "evaluations" / HOSTILE_NAME, images)
    make_predictions(home / "predictions" / f"{HOSTILE_NAME[:20]}.jsonl", images)
    return database


def make_shards(folder: Path) -> None:
    """A small set whose first conversation is hostile and long."""
    placed = place_all(make_pairs(6))
    first = placed[0]
    hostile = talk(first, (("user", HOSTILE), ("assistant", LONG)))
    placed[0] = replace(first, instructions=[hostile, *first.instructions])
    write_placed(folder, placed)


def make_run(folder: Path, images: Sequence[ImageRecord]) -> None:
    """What a run leaves behind, as `training.report` writes it; it is sure and wrong of all."""
    folder.mkdir(parents=True)
    interval = {"value": 0.7, "low": 0.6, "high": 0.8}
    report = {
        "simulated": [HOSTILE],
        "training": {"steps": 3},
        "images": len(images),
        "photographs": 6,
        "table": [{"name": HOSTILE, "seen": interval, "held_out": None}],
        "generators": [
            {
                "generator": HOSTILE,
                "is_held_out": True,
                "images": 1,
                "auroc": interval,
                "found": 0.5,
            }
        ],
        "figures": {"auroc": 0.7, "balanced_accuracy": 0.6, "calibration_error": 0.1},
        "calibrated": None,
        "caveats": [HOSTILE, LONG],
    }
    (folder / "report.json").write_text(json.dumps(report))
    steps = [{"step": n, "loss": 3.0 - n} for n in range(3)] + [{"step": 2, "val_auroc": 0.7}]
    lines = "".join(json.dumps(step) + "\n" for step in steps)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 3, "lo')  # the last is being written
    wrong = [
        {
            "image_id": image.image_id,
            "label": str(image.label),
            "generator": image.generator,
            "p_fake": 0.02 if image.label is Authenticity.FAKE else 0.98,
        }
        for image in images
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))


def make_evaluation(folder: Path, images: Sequence[ImageRecord]) -> None:
    """What `training.evaluate` leaves behind; it is sure and wrong of all."""
    folder.mkdir(parents=True)
    interval = {"value": 0.7, "low": 0.6, "high": 0.8}
    line = {"name": HOSTILE, "fakes": 6, "photographs": 6, "auroc": interval, "figures": {}}
    report = {
        "asked": {"scorer": HOSTILE, "benchmark": LONG, "calibration": None},
        "detection": {
            "fakes": 6,
            "photographs": 6,
            "whole": {**line, "name": "all", "figures": {"balanced_accuracy": 0.5}},
            "generators": [line],
            "worst": HOSTILE,
        },
        "ways": [{"name": HOSTILE, "images": 12, "auroc": interval, "accuracy": 0.5}],
        "robustness": [{"change": "jpeg 70", "images": 12, "auroc": interval}],
        "answers": None,
        "masks": None,
    }
    (folder / "evaluation.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps(report))
    rows = [
        {
            "name": f"{HOSTILE_NAME} {number}",
            "sha256": image.sha256,
            "label": str(image.label),
            "generator": image.generator,
            "log_odds": -3.0 - number if image.label is Authenticity.FAKE else 3.0 + number,
        }
        for number, image in enumerate(images)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"name": "x", "refused": HOSTILE}])
    (folder / "predictions.jsonl").write_text(lines)


def make_predictions(path: Path, images: Sequence[ImageRecord]) -> None:
    """What `training.predict --out` writes, with a file that it could not read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = [
        {
            "name": f"{HOSTILE_NAME} {number}",
            "sha256": image.sha256,
            "verdict": "fake" if number % 3 else None,
            "p_fake": 0.9 - number / 100,
            "log_likelihood_ratio": 2.0,
            "log_odds": 1.0,
            "said": {HOSTILE: LONG},
        }
        for number, image in enumerate(images)
    ]
    rows.append({"name": HOSTILE_NAME, "reason": HOSTILE})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
